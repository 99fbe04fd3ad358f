//! `backstay validate PATH [--at REV]`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::cli::{CliError, Exit, Format, Out};
use crate::desired;
use crate::model::{Diagnostics, Severity, Timestamp};
use crate::source::{FolderTree, Store, Tree};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder of a config repository, or a Git repository
    #[arg(default_value = ".")]
    path: PathBuf,

    /// A branch, tag or commit of the Git repository, in place of the files as they are now
    #[arg(long, value_name = "REVISION")]
    at: Option<String>,
}

pub(in crate::cli) fn run(args: &Args, out: &mut Out) -> Result<Exit, CliError> {
    let tree = tree(&args.path, args.at.as_deref())?;
    let found = desired::validate(&*tree, Timestamp::now());
    let count = |severity| found.0.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match out.format {
        Format::Json => out.json(&json!({
            "valid": errors == 0,
            "errors": errors,
            "warnings": warnings,
            "diagnostics": found,
        }))?,
        Format::Text | Format::Markdown => {
            out.show(&found)?;
            out.line(summary(&args.path, args.at.as_deref(), &found, errors, warnings))?;
        }
    }
    Ok(if errors == 0 { Exit::Done } else { Exit::No })
}

fn summary(path: &Path, at: Option<&str>, Diagnostics(found): &Diagnostics, errors: usize, warnings: usize) -> String {
    let gap = if found.is_empty() { "" } else { "\n" };
    let at = at.map_or_else(String::new, |at| format!(" at `{at}`"));
    let counted = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        several => Some(format!("{several} {what}s")),
    };
    let counts: Vec<_> = counted(errors, "error").into_iter().chain(counted(warnings, "warning")).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let verdict = if errors == 0 { "valid" } else { "not valid" };
    format!("{gap}{}{at}: {verdict}{counts}", path.display())
}

/// The files that are meant: of a folder as they are, or of a commit.
fn tree(path: &Path, at: Option<&str>) -> Result<Arc<dyn Tree>, CliError> {
    let shown = path.display();
    if !path.exists() {
        return Err(CliError::usage(format!("there is no folder `{shown}`")));
    }
    if !path.is_dir() {
        let error = CliError::usage(format!("`{shown}` is a file, the folder of a config repository is expected"));
        return Err(match root_of(path) {
            Some(root) => error.hint(format!("the whole is checked at once: `backstay validate {}`", root.display())),
            None => error.hint("it is the folder that holds `backstay.yaml`"),
        });
    }
    let is_bare = !path.join("backstay.yaml").exists() && path.join("HEAD").is_file() && path.join("objects").is_dir();
    let at = at.or(is_bare.then_some("HEAD"));
    let Some(at) = at else {
        if let (false, Some(root)) = (path.join("backstay.yaml").exists(), root_of(path)) {
            let message = format!("`{shown}` is a folder within a config repository");
            return Err(CliError::usage(message)
                .hint(format!("the whole is checked at once: `backstay validate {}`", root.display())));
        }
        return Ok(Arc::new(FolderTree::new(path)?));
    };
    if !is_bare && !path.join(".git").exists() {
        let error = CliError::usage(format!("`{shown}` is not the root of a Git repository, which `--at` reads"));
        return Err(error.hint("without `--at` the files are checked as they are"));
    }
    let store = Store::open(path)?;
    let revision = store.revision(at)?;
    Ok(store.checkout(&revision)?.tree)
}

/// The folder above `path` that holds `backstay.yaml`, as it is typed from here.
fn root_of(path: &Path) -> Option<PathBuf> {
    let whole = path.canonicalize().ok()?;
    let root = whole.ancestors().skip(1).find(|folder| folder.join("backstay.yaml").is_file())?;
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok()?;
    match (root.strip_prefix(&here), here.strip_prefix(root)) {
        (Ok(below), _) if below.as_os_str().is_empty() => Some(".".into()),
        (Ok(below), _) => Some(below.to_owned()),
        (_, Ok(above)) => Some(above.components().map(|_| "..").collect()),
        (Err(_), Err(_)) => Some(root.to_owned()),
    }
}
