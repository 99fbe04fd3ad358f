//! The processes of a demo: daemon and proxy, each held by a keeper so that it outlives the demo, and their end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::layout::{Layout, make};
use super::setup::Programs;
use crate::cli::{CliError, Exit};
use crate::keeper::client::{self, Client, ClientError};
use crate::keeper::folder;
use crate::keeper::spec::{FORMAT, Log, Policy, Restart, Spec, Stop, Writable};
use crate::keeper::wire::Status;
use crate::model::Timestamp;
use crate::sys::{self, Listen, Listening, ProcessId};

/// Longest wait for the end of one process.
const END: Duration = Duration::from_secs(30);
/// From a stop to SIGKILL.
const GRACE: Duration = Duration::from_secs(8);

/// One of the demo's own processes.
pub(super) struct Held {
    name: &'static str,
    folder: PathBuf,
    log: PathBuf,
}

// === impl Held ===

impl Held {
    /// Has a keeper hold `backstay ARGS…`, and start it again whenever it ends.
    pub(super) fn start(
        name: &'static str,
        args: &[&str],
        layout: &Layout,
        programs: &Programs,
    ) -> Result<Self, CliError> {
        let folder = layout.keepers().join(name);
        make(&folder)?;
        let log = folder.join("logs");
        let nonce = format!("{:x}{:x}", Timestamp::now().as_nanosecond(), std::process::id());
        let config = layout.config().display().to_string();
        let args = args.iter().map(|arg| (*arg).to_owned()).chain(["--config".to_owned(), config]);
        let spec = Spec {
            format: FORMAT,
            instance: name.to_owned(),
            nonce,
            agent: name.to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: 1,
            command: programs.backstay.clone(),
            args: args.collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
            env_files: BTreeMap::new(),
            env_texts: BTreeMap::new(),
            working_dir: layout.dir().to_owned(),
            writable: Writable { home: folder.join("home"), tmp: folder.join("tmp"), cache: folder.join("cache") },
            umask: 0o077,
            limits: BTreeMap::new(),
            cgroup: None,
            listen: None,
            stop: Stop { pre_stop: None, grace_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX) },
            restart: Restart { policy: Policy::Always, first_ms: 200, most_ms: 5_000, stable_ms: 10_000 },
            log: Log { folder: log.clone(), max_bytes: 4 << 20, max_age_s: 0, files: 2 },
            dies_with_keeper: false,
            // The daemon's keepers of agents are their own.
            alone: true,
            trusted_uids: BTreeSet::new(),
        };
        let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
            CliError::new(Exit::Broken, format!("cannot start the {name}: {error}"))
        };
        spec.write(&folder).map_err(|error| cannot(error.into()))?;
        client::start(&programs.keeper, &folder).map_err(|error| cannot(error.into()))?;
        Ok(Self { name, folder, log })
    }

    /// The process that runs now, if one does.
    pub(super) fn process(&self) -> Result<Option<ProcessId>, CliError> {
        Ok(self.status()?.agent)
    }

    /// Whether it, and nobody else, listens on a port.
    pub(super) fn listens(&self, port: u16) -> bool {
        let process = self.process().ok().flatten();
        process.is_some_and(|process| {
            sys::listening(&Listen::Port(port), &[process]).is_ok_and(|whose| whose == Listening::Ours)
        })
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> Result<u64, CliError> {
        Ok(self.status()?.starts)
    }

    /// The folder of what it writes.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn status(&self) -> Result<Status, CliError> {
        let status = Client::connect(&self.folder, None).and_then(|mut keeper| keeper.status());
        status.map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot ask the keeper of the {}", self.name)).because(error)
        })
    }
}

/// The processes of agents that run a release now, by instance.
pub(super) fn agents(layout: &Layout, release: &str) -> BTreeMap<String, ProcessId> {
    folders(&layout.instances())
        .into_iter()
        .filter(|path| Spec::read(path).is_ok_and(|spec| spec.release.contains(release)))
        .filter_map(|path| {
            let agent = folder::state(&path)?.agent?;
            let lives = sys::process(agent.pid).is_ok_and(|found| found == Some(agent));
            lives.then(|| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), agent))
        })
        .collect()
}

/// Whether anything of a demo runs in the folder.
pub(super) fn runs(layout: &Layout) -> bool {
    [layout.keepers(), layout.instances()].iter().flat_map(|root| folders(root)).any(|path| {
        !matches!(
            folder::look(&path, None),
            Ok(folder::Standing::Dead { agent: None, .. } | folder::Standing::OtherBoot { .. })
        )
    })
}

/// Ends everything whole: first the daemon, so that it starts nothing more, then agents, then the proxy.
///
/// # Errors
///
/// When something is still there; which processes.
pub(super) fn end(layout: &Layout) -> Result<(), CliError> {
    let own = |name: &str| layout.keepers().join(name);
    let marks: Vec<String> = [own("daemon"), own("proxy")]
        .into_iter()
        .chain(folders(&layout.instances()))
        .filter_map(|path| Some(Spec::read(&path).ok()?.mark()))
        .collect();
    end_one(&own("daemon"))?;
    let agents = folders(&layout.instances());
    let ended: Vec<_> = thread::scope(|scope| {
        let ending: Vec<_> = agents.iter().map(|path| scope.spawn(|| end_one(path))).collect();
        ending.into_iter().map(|thread| thread.join().unwrap_or(Ok(()))).collect()
    });
    end_one(&own("proxy"))?;
    ended.into_iter().collect::<Result<(), _>>()?;
    let left: BTreeSet<u32> =
        marks.iter().flat_map(|mark| sys::marked(mark).unwrap_or_default()).map(|process| process.pid).collect();
    if left.is_empty() {
        return Ok(());
    }
    let pids = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Err(CliError::new(Exit::Broken, format!("some processes of the demo did not end: {pids}"))
        .hint(format!("`ps -fp {pids}` shows them, `kill -9 {pids}` ends them")))
}

fn end_one(folder: &Path) -> Result<(), CliError> {
    let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
        CliError::new(Exit::Broken, format!("cannot end what runs in `{}`: {error}", folder.display()))
    };
    if !folder.is_dir() {
        return Ok(());
    }
    let stopped = Client::connect(folder, Some(u64::MAX)).and_then(|mut keeper| {
        keeper.stop(Some(GRACE), END)?;
        Ok(keeper.identity().process)
    });
    match stopped {
        Ok(keeper) => {
            // It answers before it ends itself.
            let begun = Instant::now();
            while sys::process(keeper.pid).is_ok_and(|found| found == Some(keeper)) && begun.elapsed() < GRACE {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
        // No keeper: what it may have left behind.
        Err(ClientError::Unreachable { .. }) => match folder::end_orphans(folder, GRACE) {
            Ok(_) | Err(sys::LockError::Refused { .. }) => Ok(()),
            Err(error) => Err(cannot(error.into())),
        },
        Err(error) => Err(cannot(error.into())),
    }
}

/// The folders in a folder; none where there is none.
fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}
