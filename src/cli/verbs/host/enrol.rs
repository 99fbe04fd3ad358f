//! `backstay host enrol AGENT`

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{CliError, Exit, Globals, Out};
use crate::daemon::config::{Host, Launcher, Place};
use crate::model::AgentName;
use crate::supervisor::Enrolment;
use crate::sys;

/// Where systemd says that it runs the machine.
const BOOTED: &str = "/run/systemd/system";
/// The program of keepers, beside this one.
const KEEPER: &str = "backstay-keeper";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// The account of the daemon, which may start and stop the agent from then on
    #[arg(long, value_name = "NAME", default_value = "backstay")]
    account: String,

    /// Write beneath this folder, for a system that does not run; nothing is told to systemd then
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Take it back: its instances are stopped, its files go, its secrets stay
    #[arg(long)]
    remove: bool,
}

/// What became of a file.
enum Written {
    Created,
    Configured,
    Unchanged,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    if sys::own_uid() != 0 {
        return Err(CliError::new(Exit::Refused, "only root may enrol an agent").hint("`sudo backstay host enrol …`"));
    }
    let lives = args.root.is_none();
    if lives && !Path::new(BOOTED).is_dir() {
        return Err(CliError::new(Exit::Refused, "this machine is not run by systemd").hint(
            "`launcher = \"fork\"` in `[target.host]` needs none; `--root DIR` writes into a system that does not run",
        ));
    }
    let enrolment = enrolment(args, globals, out)?;
    if args.remove {
        return remove(&enrolment, args, root, lives, out);
    }
    for (path, text) in enrolment.files() {
        let path = beneath(root, &path);
        let word = match write(&path, &text).map_err(|error| cannot("write", &path, error))? {
            Written::Created => "created",
            Written::Configured => "configured",
            Written::Unchanged => "unchanged",
        };
        out.line(format!("{} {word}", path.display()))?;
    }
    let secrets = beneath(root, &enrolment.credentials());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&secrets);
    let closed = made.and_then(|()| fs::set_permissions(&secrets, Permissions::from_mode(0o700)));
    closed.map_err(|error| cannot("make", &secrets, error))?;
    if lives {
        systemctl(&["daemon-reload"])?;
    }
    out.hint(format!("its secrets belong into `{}/SECRET/KEY`, for root alone to read", secrets.display()));
    Ok(Exit::Done)
}

fn remove(enrolment: &Enrolment, args: &Args, root: &Path, lives: bool, out: &mut Out) -> Result<Exit, CliError> {
    if lives {
        systemctl(&["stop", &enrolment.instances()])?;
    }
    for path in [enrolment.unit_path(), enrolment.rule_path()] {
        let path = beneath(root, &path);
        let word = match fs::remove_file(&path) {
            Ok(()) => "deleted",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "unchanged",
            Err(error) => return Err(cannot("remove", &path, error)),
        };
        out.line(format!("{} {word}", path.display()))?;
    }
    if lives {
        systemctl(&["daemon-reload"])?;
    }
    let secrets = beneath(root, &enrolment.credentials());
    // One that holds nothing goes, too.
    if fs::remove_dir(&secrets).is_err() && secrets.exists() {
        out.hint(format!("the secrets of `{}` stay in `{}`", args.agent, secrets.display()));
    }
    Ok(Exit::Done)
}

/// What is to be written, by the daemon's configuration.
fn enrolment(args: &Args, globals: &Globals, out: &mut Out) -> Result<Enrolment, CliError> {
    let config = globals.needed_config()?;
    let hosts: Vec<&Host> = config
        .target
        .iter()
        .filter_map(|target| match target.place() {
            Place::Host(host) => Some(host),
            Place::Kubernetes(_) => None,
        })
        .collect();
    if !hosts.iter().any(|host| host.launcher == Launcher::Systemd) {
        out.hint("no target says `launcher = \"systemd\"` in `[target.host]` yet: until one does, this has no effect");
    }
    let named = hosts.iter().find_map(|host| host.keeper.clone());
    let beside = || std::env::current_exe().map(|program| program.with_file_name(KEEPER));
    let keeper = named.map_or_else(beside, Ok);
    let keeper =
        keeper.map_err(|error| CliError::new(Exit::Broken, "cannot find this program's own file").because(error))?;
    let made = Enrolment::new(args.agent.clone(), &keeper, &config.state.folder, &args.account);
    made.map_err(|error| {
        CliError::new(Exit::Refused, error.to_string())
            .hint("letters, digits and `/._-+` are fine; `host.keeper` and `state.folder` name other places")
    })
}

/// A path of the machine, in the system beneath `root`.
fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Writes a file whole or not at all, unless it stands as it is to be.
fn write(path: &Path, text: &str) -> io::Result<Written> {
    let before = match fs::read_to_string(path) {
        Ok(before) if before == text => return Ok(Written::Unchanged),
        Ok(_) => Written::Configured,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Written::Created,
        Err(error) => return Err(error),
    };
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()?;
    Ok(before)
}

fn systemctl(args: &[&str]) -> Result<(), CliError> {
    let told = format!("systemctl {}", args.join(" "));
    let status = Command::new("systemctl").args(args).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::new(Exit::Broken, format!("`{told}` ended with {status}"))),
        Err(error) => Err(CliError::new(Exit::Broken, format!("cannot run `{told}`")).because(error)),
    }
}

fn cannot(deed: &str, path: &Path, error: io::Error) -> CliError {
    CliError::new(Exit::Broken, format!("cannot {deed} `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_again_where_it_was_changed() {
        let root = tempfile::tempdir().unwrap();
        let path = beneath(root.path(), Path::new("/etc/systemd/system/a@.service"));
        assert!(path.starts_with(root.path()));
        assert!(matches!(write(&path, "one").unwrap(), Written::Created));
        assert!(matches!(write(&path, "one").unwrap(), Written::Unchanged));
        fs::write(&path, "two").unwrap();
        assert!(matches!(write(&path, "one").unwrap(), Written::Configured));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
