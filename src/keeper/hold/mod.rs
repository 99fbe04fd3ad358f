//! The keeper itself: one thread, one loop over everything that can happen.

mod agent;
mod answer;
mod ending;
mod here;
mod job;
mod serve;
mod signals;
mod sink;
mod turn;
mod upgrade;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

pub(super) use upgrade::FORM;

use agent::Agent;
use ending::Ending;
use here::Here;
use job::Job;
use serve::Server;
use signals::Signals;
use sink::Sink;

use super::command::Begun;
use super::folder::{KEEPER, LOCK, PIPE, STATE};
use super::spec::Spec;
use super::wire::{Identity, LogStatus, Phase, Status, VERSION};
use super::{file, folder};
use crate::sys::{self, FolderLock, LockError};

/// How often the keeper looks at what tells nobody: whether its folder is still there.
const TICK: Duration = Duration::from_secs(2);
/// How long a keeper that begins waits for the lock: who looks at the folder holds it for a moment, too.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// What is told while `state.json` cannot be written.
const UNSAVED: &str = "cannot write `state.json`";

/// All that a keeper has.
struct Keeper {
    here: Here,
    lock: FolderLock,
    spec: Spec,
    identity: Identity,
    status: Status,
    /// Callers who are answered at the next turn after theirs.
    watching: Vec<(u64, u64)>,
    /// What `state.json` holds, as far as it could be written.
    written: Option<Status>,
    sink: Sink,
    signals: Signals,
    server: Server,
    agent: Option<Agent>,
    jobs: Vec<Job>,
    jobs_begun: u64,
    /// Callers who are answered when an end is reached.
    waiting: Vec<u64>,
    course: Course,
    /// When `TICK` is over.
    tick: Instant,
    /// Whether the folder was missing at the last look.
    missing: bool,
}

/// What comes next.
enum Course {
    /// The agent ends, some day.
    Running,
    /// It is started again then.
    Waiting(Instant),
    /// Nothing.
    Ended,
    /// It is being ended.
    Ending(Ending),
    /// The keeper ends.
    Over,
}

/// Runs as `backstay-keeper hold FOLDER` until nothing is left to hold.
pub(super) fn hold(path: &Path) -> ExitCode {
    let begun = match Keeper::begin(path) {
        Ok(mut keeper) => {
            if !upgrade::was_another() {
                tell(&Begun::Ready(keeper.identity.clone()));
                // systemd is told, not asked: the agent runs on either way.
                let _ = sys::notify("READY=1");
            }
            upgrade::release_stdio();
            keeper.run();
            return ExitCode::SUCCESS;
        }
        Err(why) => Begun::Failed(why),
    };
    tell(&begun);
    ExitCode::FAILURE
}

/// Tells whoever started this keeper; it may have gone.
fn tell(begun: &Begun) {
    let mut line = serde_json::to_vec(begun).unwrap_or_default();
    line.push(b'\n');
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
}

// === impl Keeper ===

impl Keeper {
    /// Becomes the keeper of a folder, and starts the agent or takes over the one that runs.
    fn begin(path: &Path) -> Result<Self, String> {
        let carried = upgrade::carried();
        let cannot =
            |deed: &str, error: &dyn std::error::Error| format!("cannot {deed} of `{}`: {error}", path.display());
        sys::keep_descriptors().map_err(|error| cannot("keep descriptors from the agent", &error))?;
        let here = Here::open(path).map_err(|error| cannot("become the keeper", &error))?;
        let lock = match carried {
            Some(_) => upgrade::lock(path).map_err(|error| cannot("hold on to the lock", &error))?,
            None => patient_lock(path).map_err(|error| cannot("become the keeper", &error))?,
        };
        let spec = Spec::read(path).map_err(|error| folder::told(&error))?;
        sys::new_session().map_err(|error| cannot("begin a session for the keeper", &error))?;
        if !spec.alone {
            sys::subreaper().map_err(|error| cannot("take over orphans for the keeper", &error))?;
        }
        let signals = Signals::new().map_err(|error| cannot("hear signals to the keeper", &error))?;
        let _ = std::env::set_current_dir("/");
        sys::set_mask(0o077);
        for writable in [&spec.writable.home, &spec.writable.tmp, &spec.writable.cache] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(writable);
            made.map_err(|error| cannot(&format!("make `{}`", writable.display()), &error))?;
        }
        let pipe = sys::open_pipe(&here.at(PIPE)).map_err(|error| cannot("open the log's pipe", &error))?;
        // What this program itself has to say stands in the log, too.
        sys::replace_stderr(&pipe).map_err(|error| cannot("open the log's pipe", &error))?;
        let sink = Sink::new(pipe, spec.log.clone()).map_err(|error| cannot("keep the log", &error))?;
        let server = match carried {
            Some(_) => upgrade::listener().or_else(|_| Server::bind(&here, &spec)),
            None => Server::bind(&here, &spec),
        };
        let server = server.map_err(|error| cannot("open the socket", &error))?;
        let boot = sys::boot_id().map_err(|error| cannot("read this boot's id for the keeper", &error))?;
        let process = sys::own_process().map_err(|error| cannot("find the keeper's process", &error))?;
        let earlier = carried.as_ref().map(|carried| carried.status.clone()).or_else(|| folder::state(path));
        let earlier = earlier.filter(|state| (&state.instance, &state.nonce) == (&spec.instance, &spec.nonce));
        let status = Status::begin(&spec, &boot, earlier.as_ref());
        let identity = Identity {
            version: VERSION,
            keeper: env!("CARGO_PKG_VERSION").to_owned(),
            program: file::program(Path::new("/proc/self/exe")).ok(),
            instance: spec.instance.clone(),
            nonce: spec.nonce.clone(),
            process,
            boot,
            since_ms: wall_ms(),
            epoch: status.epoch,
        };
        let now = Instant::now();
        let mut keeper = Self {
            here,
            lock,
            spec,
            identity,
            status,
            written: None,
            sink,
            signals,
            server,
            agent: None,
            jobs: vec![],
            jobs_begun: 0,
            waiting: vec![],
            watching: vec![],
            course: Course::Ended,
            tick: now + TICK,
            missing: false,
        };
        let identity = serde_json::to_vec_pretty(&keeper.identity).unwrap_or_default();
        let written = file::replace(&keeper.here.at(KEEPER), &identity);
        // An upgraded keeper goes on whatever happens: its number and start are those that the file names already.
        if let (Err(error), None) = (written, &carried) {
            return Err(cannot("write who the keeper is", &error));
        }
        match carried {
            Some(carried) => keeper.resume(carried, now),
            None => keeper.take_over(earlier.as_ref(), now),
        }
        keeper.save();
        Ok(keeper)
    }

    /// Writes down where the agent stands, if that is news. A full disk is no reason to end: it is tried again.
    fn save(&mut self) {
        self.status.log = LogStatus { trouble: self.sink.status().trouble.clone(), ..self.status.log.clone() };
        if self.written.as_ref() == Some(&self.status) {
            return;
        }
        if self.written.as_ref().is_none_or(|written| written.turn == self.status.turn) {
            self.status.turn += 1;
        }
        let text = serde_json::to_vec_pretty(&self.status).unwrap_or_default();
        match file::replace(&self.here.at(STATE), &text) {
            Ok(()) => {
                self.written = Some(self.status.clone());
                self.status.trouble.take_if(|trouble| trouble.starts_with(UNSAVED));
            }
            Err(error) => self.status.trouble = Some(format!("{UNSAVED}: {error}")),
        }
    }
}

// === impl Status ===

impl Status {
    /// Where an agent stands when its keeper begins: nothing runs, and what earlier keepers counted goes on.
    fn begin(spec: &Spec, boot: &str, earlier: Option<&Self>) -> Self {
        Self {
            instance: spec.instance.clone(),
            nonce: spec.nonce.clone(),
            boot: boot.to_owned(),
            epoch: earlier.map_or(spec.epoch, |earlier| earlier.epoch.max(spec.epoch)),
            turn: earlier.map_or(0, |earlier| earlier.turn),
            phase: Phase::Ended,
            agent: None,
            since_ms: None,
            adopted: false,
            starts: earlier.map_or(0, |earlier| earlier.starts),
            ends: earlier.map_or(0, |earlier| earlier.ends),
            last_end: earlier.and_then(|earlier| earlier.last_end.clone()),
            next_ms: None,
            log: LogStatus::default(),
            trouble: None,
        }
    }
}

/// Milliseconds since 1970, by the clock that may be set: for people only.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn patient_lock(path: &Path) -> Result<FolderLock, LockError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match sys::lock_folder(path, LOCK) {
            Err(LockError::Held(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}
