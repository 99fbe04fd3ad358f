//! `backstay init [FOLDER]`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::{CliError, Exit, Format, Globals, Out};
use crate::model::{AgentName, EnvironmentName};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// An empty or missing folder
    #[arg(default_value = ".")]
    folder: PathBuf,

    /// The name of its one agent
    #[arg(long, value_name = "NAME", default_value = "assistant")]
    agent: AgentName,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let folder = &args.folder;
    let environment = match &globals.environment {
        Some(environment) => environment.clone(),
        None => "production".parse().map_err(|error| CliError::new(Exit::Broken, "no name").because(error))?,
    };
    check_empty(folder)?;
    let files = starter(&args.agent, &environment);
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    match out.format {
        Format::Json => out.json(&serde_json::json!({"folder": folder, "files": paths}))?,
        Format::Text | Format::Markdown => {
            for path in paths {
                out.line(format!("{} created", folder.join(path).display()))?;
            }
        }
    }
    out.hint(format!(
        "name your image in `agents/{}/agent.yaml`, check it with `backstay validate {}`, then commit and push it",
        args.agent,
        folder.display()
    ));
    Ok(Exit::Done)
}

/// All files of a starter repository, by path.
fn starter(agent: &AgentName, environment: &EnvironmentName) -> Vec<(String, String)> {
    let filled = |text: &str| text.replace("{agent}", agent.as_str()).replace("{environment}", environment.as_str());
    vec![
        ("README.md".to_owned(), filled(include_str!("starter/README.md"))),
        ("backstay.yaml".to_owned(), filled(include_str!("starter/backstay.yaml"))),
        (format!("agents/{agent}/agent.yaml"), filled(include_str!("starter/agent.yaml"))),
        (format!("agents/{agent}/prompts/system.md"), filled(include_str!("starter/system.md"))),
        (format!("environments/{environment}.yaml"), filled(include_str!("starter/environment.yaml"))),
    ]
}

/// A folder that is missing, empty, or a Git repository without files.
fn check_empty(folder: &Path) -> Result<(), CliError> {
    let shown = folder.display();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(CliError::usage(format!("`{shown}` is a file, a folder is expected")));
        }
        Err(error) => return Err(CliError::new(Exit::Broken, format!("cannot look into `{shown}`")).because(error)),
    };
    for entry in entries {
        let entry =
            entry.map_err(|error| CliError::new(Exit::Broken, format!("cannot look into `{shown}`")).because(error))?;
        if entry.file_name() != ".git" {
            return Err(CliError::new(Exit::Refused, format!("`{shown}` is not empty: nothing was written"))
                .hint("name a new folder: `backstay init FOLDER`"));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let cannot = |error| CliError::new(Exit::Broken, format!("cannot write `{}`", path.display())).because(error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(cannot)?;
    }
    // Never over a file that somebody made in between.
    fs::File::create_new(path).and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes())).map_err(cannot)
}
