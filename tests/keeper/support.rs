//! An instance in a temporary folder, and what tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use backstay::keeper::client::{self, Client};
use backstay::keeper::folder;
use backstay::keeper::logs::Reader;
use backstay::keeper::spec::{FORMAT, Log, Policy, Restart, Spec, Stop, Writable};
use backstay::keeper::wire::{Identity, Phase, Status};
use backstay::sys::{self, ProcessId, Word};
use tempfile::TempDir;

/// How long a test waits for what must become true.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const EPOCH: u64 = 5;

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_backstay-keeper"))
}

/// An instance: its folder and its spec. Everything of it is killed at the end.
pub(crate) struct Instance {
    pub(crate) spec: Spec,
    pub(crate) folder: PathBuf,
    pub(crate) outside: TempDir,
}

/// Waits until `found` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn lives(process: ProcessId) -> bool {
    sys::process(process.pid).unwrap() == Some(process)
}

/// All processes that were started with this text in their arguments.
pub(crate) fn named(text: &str) -> Vec<ProcessId> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    pids.filter(is).filter_map(|pid| sys::process(pid).unwrap()).collect()
}

// === impl Instance ===

impl Instance {
    /// An instance whose agent is a shell script.
    pub(crate) fn sh(script: &str) -> Self {
        Self::new("/bin/sh", &["-c", script])
    }

    /// An instance whose agent is a Python program.
    pub(crate) fn python(script: &str) -> Self {
        Self::new("/usr/bin/python3", &["-u", "-c", script])
    }

    pub(crate) fn new(command: &str, args: &[&str]) -> Self {
        let outside = TempDir::new().unwrap();
        // A path longer than a socket's address.
        let folder = outside.path().join("a".repeat(60)).join("b".repeat(60)).join("i1");
        fs::create_dir_all(&folder).unwrap();
        let spec = Spec {
            format: FORMAT,
            instance: "i1".to_owned(),
            nonce: format!(
                "n{}x{}",
                std::process::id(),
                outside.path().file_name().unwrap().to_str().unwrap().replace('.', "")
            ),
            agent: "support".to_owned(),
            release: "r-0123456789ab".to_owned(),
            epoch: EPOCH,
            command: command.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
            env_files: BTreeMap::new(),
            env_texts: BTreeMap::new(),
            working_dir: outside.path().to_owned(),
            writable: Writable { home: folder.join("home"), tmp: folder.join("tmp"), cache: folder.join("cache") },
            umask: 0o077,
            limits: BTreeMap::new(),
            cgroup: None,
            listen: None,
            stop: Stop { pre_stop: None, grace_ms: 10_000 },
            restart: Restart { policy: Policy::Always, first_ms: 20, most_ms: 200, stable_ms: 60_000 },
            log: Log { folder: folder.join("logs"), max_bytes: 64 << 20, max_age_s: 0, files: 4 },
            dies_with_keeper: false,
            alone: false,
            trusted_uids: BTreeSet::new(),
        };
        Self { spec, folder, outside }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Writes the spec and starts a keeper.
    pub(crate) fn start(&self) -> Identity {
        self.spec.write(&self.folder).unwrap();
        client::start(&program(), &self.folder).unwrap()
    }

    /// A file that the agent can write to tell something.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.folder, Some(EPOCH)).unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    pub(crate) fn stop(&self) -> Status {
        self.client().stop(None, PATIENCE).unwrap()
    }

    /// Waits until the agent's state is as told.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        until(what, || Some(self.status()).filter(|status| is(status)))
    }

    #[track_caller]
    pub(crate) fn running(&self) -> ProcessId {
        self.until("the agent runs", |status| status.phase == Phase::Running).agent.unwrap()
    }

    /// All that is kept of the log.
    pub(crate) fn log(&self) -> String {
        let mut reader = Reader::oldest(&self.spec.log.folder);
        let (mut all, mut bytes) = (vec![], vec![0; 64 << 10]);
        loop {
            match reader.read(&mut bytes).unwrap() {
                0 => return String::from_utf8_lossy(&all).into_owned(),
                count => all.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Waits until the log has a text.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) -> String {
        until(text, || Some(self.log()).filter(|log| log.contains(text)))
    }

    /// Kills the keeper as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill_keeper(&self) -> ProcessId {
        let keeper = self.client().identity().process;
        assert!(sys::signal(keeper, Word::Kill).unwrap());
        until("the keeper is dead", || (!lives(keeper)).then_some(()));
        keeper
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Ok(mut client) = Client::connect(&self.folder, Some(u64::MAX)) {
            let _ = client.stop(Some(Duration::ZERO), Duration::from_secs(10));
        }
        if let Ok(text) = fs::read(self.folder.join("keeper.json"))
            && let Ok(keeper) = serde_json::from_slice::<Identity>(&text)
        {
            let _ = sys::signal(keeper.process, Word::Kill);
            until("the keeper is gone", || (!lives(keeper.process)).then_some(()));
        }
        let _ = folder::end_orphans(&self.folder, Duration::ZERO);
        for process in sys::marked(&self.spec.mark()).unwrap_or_default() {
            let _ = sys::signal(process, Word::Kill);
        }
    }
}

/// Runs a command to its end, and returns what it wrote.
pub(crate) fn run(program: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).output().unwrap();
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}
