//! Every operation on files fails in turn, in the daemon, in a keeper, and in the proxy, while a push is deployed and taken
//! back: once the fault is gone all is as Git asks for, nobody's request failed, and nothing is left over.
//!
//! `strace` lets the calls fail, so that what is tried is what the programs really ask of the kernel: a first look counts their
//! calls, and each of them is then let fail. An ordinary run takes samples; `BACKSTAY_FAULTS=all` tries them all, and
//! `BACKSTAY_FAULT=WORDS` those whose line has WORDS. Attaching to another process takes root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay::keeper::client::Client;
use futures::StreamExt as _;
use serde_json::Value;

use crate::asker::User;
use crate::daemon::{Daemon, Repo, River};
use crate::lab::lab;
use crate::serving::answers;
use crate::standing::leftovers;
use crate::tally;

/// Calls that name a file or change one, and what the kernel may say: the disk is broken, full, or cannot be written.
const CALLS: [(&str, &[&str]); 13] = [
    ("openat", &["EIO", "ENOSPC"]),
    ("mkdir", &["EIO", "ENOSPC"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("unlink", &["EIO"]),
    ("unlinkat", &["EIO"]),
    ("rmdir", &["EIO"]),
    ("chmod", &["EIO", "EROFS"]),
    ("link", &["EIO"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("ftruncate", &["EIO"]),
    ("pwrite64", &["EIO", "ENOSPC"]),
    ("getdents64", &["EIO"]),
];
/// Of a keeper everything that it does with a file of its instance.
const OF_A_FILE: &str = "openat,read,write,rename,unlink,fstat,statx,mknodat,splice,fchmod,chmod,ftruncate,fsync";
/// Hosts that are tried on at once.
const AT_ONCE: usize = 3;
/// Faults of each kind in an ordinary run, on each host.
const FEW: usize = 3;
/// How long `strace` may take to let go.
const LETS_GO: Duration = Duration::from_secs(2);
/// How long a fault lasts once it was met.
const LASTS: Duration = Duration::from_millis(300);
/// How long all may take to be as it should be.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whose calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Daemon,
    /// One that starts.
    NewDaemon,
    Keeper,
    Proxy,
}

/// One fault.
#[derive(Debug, Clone)]
struct Fault {
    who: Who,
    call: String,
    error: &'static str,
    /// Which call of a thread; every one where a path is named.
    nth: usize,
    /// The one file at which calls fail.
    path: Option<PathBuf>,
}

/// `strace`, attached; lets go when it is dropped.
pub(crate) struct Strace {
    child: Child,
    log: PathBuf,
}

/// One host that all of its faults are tried on.
struct Ground {
    river: River,
    daemon: Option<Daemon>,
    user: User,
    pushes: usize,
    number: usize,
}

fn everything() -> bool {
    std::env::var_os("BACKSTAY_FAULTS").is_some_and(|which| which == "all")
}

fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

// === impl Fault ===

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:?}'s {}", self.error, self.who, self.call)?;
        match &self.path {
            Some(path) => write!(f, " of `{}`", path.display()),
            None => write!(f, " #{}", self.nth),
        }
    }
}

impl Fault {
    fn arguments(&self, log: &Path) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["-f".into(), "-q".into(), "-o".into(), log.display().to_string()];
        // What the daemon and the proxy start is not theirs.
        if self.who != Who::Keeper {
            arguments.extend(["-b".into(), "execve".into()]);
        }
        if let Some(path) = &self.path {
            // A keeper has the folder of its instance open, and names what is in there by that.
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let by_folder = (3..16).map(|fd| format!("/proc/self/fd/{fd}/{name}"));
            for path in by_folder.chain([path.display().to_string()]) {
                arguments.extend(["-P".into(), path]);
            }
        }
        let when = if self.path.is_some() { String::new() } else { format!(":when={}", self.nth) };
        arguments.extend(["-e".into(), format!("inject={}:error={}{when}", self.call, self.error)]);
        arguments
    }
}

// === impl Strace ===

impl Strace {
    /// Attaches to a process with all its threads.
    pub(crate) fn attach(pid: u32, log: &Path, arguments: &[String]) -> Self {
        let _ = std::fs::remove_file(log);
        let mut command = Command::new("strace");
        command.args(arguments).args(["-p", &pid.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace");
        let strace = Self { child, log: log.to_owned() };
        let begun = Instant::now();
        while !strace.has_attached(pid) {
            assert!(begun.elapsed() < Duration::from_secs(20), "strace does not attach");
            std::thread::sleep(Duration::from_millis(5));
        }
        strace
    }

    fn has_attached(&self, pid: u32) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let traced = |task: &Path| {
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_none_or(|tracer| tracer.trim() == self.child.id().to_string())
        };
        tasks.into_iter().all(|task| traced(&task.path()))
    }

    /// What was seen so far.
    fn seen(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lets go; gives what was seen.
    fn end(mut self) -> String {
        self.let_go();
        self.seen()
    }

    fn let_go(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < LETS_GO {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It waits for each thread to stop, and one that starts a program stops only when that one runs, which it has stopped
        // already. The kernel lets go of all of them.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.let_go();
    }
}

// === impl Ground ===

impl Ground {
    async fn new(number: usize) -> Self {
        let mut lab = lab("files").await;
        // What is left is gone soon, so that each push begins alike.
        lab.more.push_str("keep_old = \"1s\"\n");
        let river = River::new(lab, Repo::small()).await;
        let daemon = river.start().await;
        river.settled(&river.repo.head()).await;
        answers(&river).await;
        let user = User::start(&river.lab.front);
        let mut ground = Self { river, daemon: Some(daemon), user, pushes: 0, number };
        // Both releases have been here before.
        for _ in 0..2 {
            let pushed = ground.push();
            ground.settles(&pushed).await.expect("undisturbed");
            ground.at_rest().await;
        }
        ground
    }

    /// A change, or what takes it back.
    fn push(&mut self) -> String {
        self.pushes += 1;
        let repo = &self.river.repo;
        if self.pushes.is_multiple_of(2) { repo.revert(&["HEAD"]) } else { repo.commit_greeting("Ahoy!") }
    }

    /// The same, with a release that was never here.
    fn push_anew(&mut self) -> String {
        self.pushes += 2;
        let (host, push) = (self.number, self.pushes);
        self.river.repo.commit_greeting(&format!("Hello {host} {push}!"))
    }

    fn pid(&self, who: Who) -> Option<u32> {
        match who {
            Who::Daemon | Who::NewDaemon => self.daemon.as_ref().map(Daemon::id),
            Who::Proxy => Some(self.river.lab.proxy_id()),
            Who::Keeper => {
                let folder = self.river.lab.instances().into_iter().next()?;
                Some(Client::connect(&folder, None).ok()?.identity().process.pid)
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.river.folder().join("strace")
    }

    /// The calls of somebody during a push: by call, how many a thread makes of it at most.
    async fn counted(&mut self, who: Who) -> BTreeMap<String, usize> {
        let calls: Vec<_> = CALLS.iter().map(|(call, _)| *call).collect();
        let arguments = ["-f", "-q", "-b", "execve", "-e", &format!("trace={}", calls.join(","))].map(str::to_owned);
        let strace = Strace::attach(self.pid(who).expect("it runs"), &self.log(), &with_log(&arguments, &self.log()));
        let pushed = self.push_anew();
        self.settles(&pushed).await.expect("undisturbed");
        self.at_rest().await;
        let mut counts = BTreeMap::<(String, String), usize>::new();
        for line in strace.end().lines() {
            let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
            if let Some((call, _)) = rest.trim_start().split_once('(') {
                *counts.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), count) in counts {
            let entry = most.entry(call).or_default();
            *entry = count.max(*entry);
        }
        most
    }

    /// The files of the instance that comes next which its keeper has to do with: who pushes twice meets the same again.
    async fn files_of_a_keeper(&mut self) -> BTreeSet<(PathBuf, String)> {
        let arguments = ["-f", "-q", "-y", "-e", &format!("trace={OF_A_FILE},sendto")].map(str::to_owned);
        let mut found = BTreeSet::new();
        for _ in 0..2 {
            let strace = Strace::attach(
                self.pid(Who::Daemon).expect("it runs"),
                &self.log(),
                &with_log(&arguments, &self.log()),
            );
            let pushed = self.push();
            self.settles(&pushed).await.expect("undisturbed");
            self.at_rest().await;
            let root = self.river.lab.at("state/host").display().to_string();
            let path = regex::Regex::new(&format!(r#"^\d+ +(\w+)\(.*?({root}/(instances|logs)/[^">, ]+)"#));
            let path = path.expect("a pattern");
            for line in strace.end().lines() {
                let Some(named) = path.captures(line) else { continue };
                let file = PathBuf::from(&named[2]);
                let of_agent = ["/home", "/tmp", "/cache"].iter().any(|end| named[2].ends_with(end));
                if !of_agent && OF_A_FILE.split(',').any(|call| call == &named[1]) {
                    found.insert((file, named[1].to_owned()));
                }
            }
        }
        found
    }

    /// One fault during a push; whether it was met, and what is wrong afterwards.
    async fn tried(&mut self, fault: &Fault) -> (bool, Vec<String>) {
        let mut wrong = vec![];
        let log = self.log();
        let (strace, pushed) = if fault.who == Who::NewDaemon {
            self.daemon.take().expect("it runs").kill();
            let pushed = self.push();
            let daemon = self.river.spawn_under("one", &[&["strace".to_owned()], &fault.arguments(&log)[..]].concat());
            self.daemon = Some(daemon);
            (None, pushed)
        } else {
            let whom = if fault.who == Who::Keeper { Who::Daemon } else { fault.who };
            let Some(pid) = self.pid(whom) else { return (false, vec!["nobody is there to be tried".to_owned()]) };
            let strace = Strace::attach(pid, &log, &fault.arguments(&log));
            let pushed = if fault.who == Who::Keeper { self.push() } else { self.push_anew() };
            (Some(strace), pushed)
        };
        let hits = || std::fs::read_to_string(&log).unwrap_or_default().matches("(INJECTED)").count();
        let mut pushed = pushed;
        // The file may be one of the instance that comes with the next push.
        for again in [fault.who == Who::Keeper, false] {
            let begun = Instant::now();
            while hits() == 0 && begun.elapsed() < Duration::from_secs(4) && !self.has_settled(&pushed).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // What was left ends a while later.
            let settled = Instant::now();
            while fault.who == Who::Keeper && hits() == 0 && settled.elapsed() < Duration::from_millis(1500) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(LASTS).await;
            if hits() == 0 && again {
                pushed = self.push();
            }
        }
        let hit = hits() > 0;
        drop(strace);
        if fault.who == Who::NewDaemon {
            // Under `strace` for good: it ends with the fault, as a daemon on a broken disk does by its unit.
            self.daemon.take().expect("it runs").end_group();
            self.daemon = Some(self.river.spawn("one", ""));
        }
        if let Some(code) = self.daemon.as_mut().filter(|_| fault.who != Who::NewDaemon).and_then(Daemon::has_ended) {
            wrong.push(format!("the daemon ended with {code:?}"));
        }
        if let Err(why) = self.settles(&pushed).await {
            wrong.push(why);
        }
        wrong.extend(self.oracle().await);
        (hit, wrong)
    }

    async fn has_settled(&self, pushed: &str) -> bool {
        let Some(record) = self.river.record("support").await else { return false };
        let newest = record["operations"][0]["revision"].as_str().unwrap_or_default().ends_with(pushed);
        newest && record["operation"].is_null() && crate::daemon::holds(&record, "Ready", "")
    }

    async fn settles(&mut self, pushed: &str) -> Result<(), String> {
        let begun = Instant::now();
        while !self.has_settled(pushed).await {
            // As its unit does.
            if self.daemon.as_mut().is_none_or(|daemon| daemon.has_ended().is_some()) {
                self.daemon = Some(self.river.spawn("one", ""));
            }
            if begun.elapsed() > PATIENCE {
                let record = self.river.record("support").await;
                return Err(format!("not as Git asks for after {} s: {record:?}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until nothing is there that nothing asks for.
    async fn at_rest(&mut self) {
        let wrong = self.oracle().await;
        assert!(wrong.is_empty(), "undisturbed: {wrong:#?}");
    }

    /// What must hold once the fault is gone.
    async fn oracle(&mut self) -> Vec<String> {
        let begun = Instant::now();
        let mut wrong;
        loop {
            wrong = self.left_over().await;
            if wrong.is_empty() || begun.elapsed() > Duration::from_secs(30) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            wrong.push(line.to_owned());
        }
        let got = self.user.so_far();
        if let Some((release, why)) = got.failed.first() {
            wrong.push(format!(
                "a user got no answer, {} times of {}: {release:?} {why}",
                got.failed.len(),
                got.answers
            ));
        }
        self.user.forget();
        wrong
    }

    /// What is on disk or runs, and nothing asks for it; or the other way round.
    async fn left_over(&self) -> Vec<String> {
        let lab = &self.river.lab;
        let list = async |collection: &str| {
            let found = lab.ask(http::Method::GET, &lab.path(collection), None).await.unwrap_or_default();
            found["items"].as_array().cloned().unwrap_or_default()
        };
        let (pods, sets) = (list("pods").await, list("apps/v1/replicasets").await);
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(lab.at(&format!("state/host/{folder}"))).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mut wrong = vec![];
        let mut same = |what: &str, found: BTreeSet<String>, asked: BTreeSet<String>| {
            if found != asked {
                wrong.push(format!("{what}: there are {found:?}, asked for are {asked:?}"));
            }
        };
        let named = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let release = |set: &Value| {
            let id = &set["spec"]["template"]["metadata"]["annotations"]["backstay.dev/release-id"];
            id.as_str().unwrap_or_default().trim_start_matches("sha256:").to_owned()
        };
        same("instances", names("instances"), pods.iter().map(named).collect());
        same("releases", names("releases"), sets.iter().map(release).collect());
        let of_sets = |pod: &String| sets.iter().any(|set| pod.starts_with(&named(set)));
        let logs = names("logs/support");
        same("logs", logs.clone(), logs.into_iter().filter(of_sets).collect());
        if pods.len() != 1 {
            wrong.push(format!("{} instances, and one is asked for", pods.len()));
        }
        wrong.extend(leftovers(&lab.at("state")).into_iter().map(|file| format!("left behind: {file}")));
        let hidden = std::fs::read_dir(lab.at("")).into_iter().flatten().flatten();
        let hidden = hidden.map(|entry| entry.file_name().to_string_lossy().into_owned());
        wrong.extend(
            hidden.filter(|name| name.starts_with('.') && name != ".").map(|name| format!("left behind: {name}")),
        );
        wrong
    }
}

fn with_log(arguments: &[String], log: &Path) -> Vec<String> {
    [arguments, &["-o".to_owned(), log.display().to_string()]].concat()
}

/// Every so-manieth, so that no more are left than that.
fn sampled(faults: Vec<Fault>, most: usize, from: usize) -> Vec<Fault> {
    if let Some(only) = std::env::var_os("BACKSTAY_FAULT").and_then(|only| only.into_string().ok()) {
        return faults.into_iter().filter(|fault| fault.to_string().contains(&only)).collect();
    }
    if everything() || faults.len() <= most {
        return faults;
    }
    // Odd, so that it does not meet the same error each time.
    let step = (faults.len() / most).saturating_sub(1) | 1;
    faults.into_iter().skip(from % step).step_by(step).take(most).collect()
}

/// Every error at every call that was counted.
fn at_calls(who: Who, counts: &BTreeMap<String, usize>) -> Vec<Fault> {
    let mut faults = vec![];
    for (call, errors) in CALLS {
        for nth in 1..=counts.get(call).copied().unwrap_or(0) {
            let fault = |error: &&'static str| Fault { who, call: call.to_owned(), error, nth, path: None };
            faults.extend(errors.iter().map(fault));
        }
    }
    faults
}

// R3, R5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_a_file_fails_and_all_is_well_again() {
    if backstay::sys::own_uid() != 0 {
        return;
    }
    let begun = Instant::now();
    let seed = usize::try_from(std::process::id()).expect("small");
    let hosts = (0..AT_ONCE).map(|number| async move {
        let mut ground = Ground::new(number).await;
        let mut faults = vec![];
        // Each host takes a kind of its own, so that none waits for another.
        match number {
            0 => {
                let counts = ground.counted(Who::Daemon).await;
                faults.extend(sampled(at_calls(Who::Daemon, &counts), 2 * FEW, seed));
            }
            1 => {
                let files = ground.files_of_a_keeper().await;
                let at = |(path, call): (PathBuf, String)| Fault {
                    who: Who::Keeper,
                    call,
                    error: "EIO",
                    nth: 0,
                    path: Some(path),
                };
                faults.extend(sampled(files.into_iter().map(at).collect(), 2 * FEW, seed));
            }
            _ => {
                let counts = ground.counted(Who::Proxy).await;
                faults.extend(sampled(at_calls(Who::Proxy, &counts), FEW, seed));
                let counts = CALLS.iter().map(|(call, _)| ((*call).to_owned(), 12)).collect();
                faults.extend(sampled(at_calls(Who::NewDaemon, &counts), FEW, seed));
            }
        }
        say(&format!("{} operations on files fail, seed {seed}", faults.len()));
        for fault in faults {
            let from = Instant::now();
            let (hit, wrong) = ground.tried(&fault).await;
            let took = from.elapsed().as_secs();
            if !wrong.is_empty() || took > 20 || std::env::var_os("BACKSTAY_FAULT").is_some() {
                say(&format!("{fault}: hit {hit}, {took} s {wrong:#?}"));
            }
            let class = format!("{} in the {:?}", fault.error, fault.who).to_lowercase();
            let wrong = wrong.into_iter().map(|what| format!("{fault}: {what}")).collect();
            tally::note("R3", &class, 1, usize::from(hit), wrong);
        }
    });
    futures::stream::iter(hosts).buffer_unordered(AT_ONCE).collect::<()>().await;
    say(&format!("all of them in {} s", begun.elapsed().as_secs()));
    let wrong = tally::table(&["R3"]);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
    let (injected, hit) = tally::hits(&["R3"]);
    assert!(hit * 2 >= injected, "only {hit} of {injected} faults were met");
}
