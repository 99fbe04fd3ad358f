//! A Debian that systemd runs, in a container, with Backstay installed.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::units::folder;

/// Longest wait for what must become true.
const PATIENCE: Duration = Duration::from_mins(2);

/// A machine that runs. Dropped, it is gone with everything in it.
pub(crate) struct Machine {
    nspawn: Child,
    root: PathBuf,
    _outside: TempDir,
}

/// Waits until `found` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < end, "waited in vain: {what}\n{why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command of this machine that must end well; gives what it said.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let ran = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ran.status.success(), "{command:?}: {}\n{said}", ran.status);
    said
}

/// The system, made once and kept.
fn debian() -> PathBuf {
    let said = run(&mut Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/debian")));
    PathBuf::from(said.lines().last().unwrap())
}

/// Starts what is beneath a root.
fn nspawn(root: &Path) -> Child {
    let mut command = Command::new("systemd-nspawn");
    command.arg("-D").arg(root).args(["--boot", "--register=no", "--keep-unit", "--private-network"]);
    command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

/// Copies a file of `systemd/`, or of what `prepare` gives, to its place.
fn install(root: &Path, file: &str, place: &str) {
    let to = root.join(place);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(folder().join(file), to).unwrap();
}

// === impl Machine ===

impl Machine {
    /// Boots a machine with the units of `systemd/`, after `prepare` has written what else it shall have beneath its root.
    pub(crate) fn boot(prepare: impl FnOnce(&Path)) -> Self {
        let outside = tempfile::tempdir().unwrap();
        let (root, upper, work) =
            (outside.path().join("root"), outside.path().join("upper"), outside.path().join("work"));
        for folder in [&root, &upper, &work] {
            fs::create_dir(folder).unwrap();
        }
        let layers = format!("lowerdir={},upperdir={},workdir={}", debian().display(), upper.display(), work.display());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(&root));
        for unit in ["backstay.service", "backstay-proxy.socket", "backstay-proxy.service"] {
            install(&root, unit, &format!("usr/lib/systemd/system/{unit}"));
        }
        install(&root, "backstay.sysusers.conf", "usr/lib/sysusers.d/backstay.conf");
        install(&root, "backstay.tmpfiles.conf", "usr/lib/tmpfiles.d/backstay.conf");
        install(&root, "backstay.toml", "etc/backstay/backstay.toml");
        prepare(&root);
        for program in [env!("CARGO_BIN_EXE_backstay"), env!("CARGO_BIN_EXE_backstay-keeper")] {
            fs::copy(program, root.join("usr/bin").join(Path::new(program).file_name().unwrap())).unwrap();
        }
        let machine = Self { nspawn: nspawn(&root), root, _outside: outside };
        machine.runs();
        machine
    }

    /// Boots it anew.
    pub(crate) fn reboot(&mut self) {
        self.done("systemctl reboot");
        // Its first process asks for that by the way it ends.
        until("it is down", || match self.nspawn.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        self.nspawn = nspawn(&self.root);
        self.runs();
    }

    fn runs(&self) {
        until("the machine runs", || {
            let state = self.told("systemctl is-system-running")?;
            if matches!(state.trim(), "running" | "degraded") { Ok(()) } else { Err(state) }
        });
    }

    /// The network that it has to itself.
    pub(crate) fn network(&self) -> fs::File {
        fs::File::open(format!("/proc/{}/ns/net", self.leader().unwrap())).unwrap()
    }

    /// Where its files are seen from outside.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a script in it as root; an error where that does not end well.
    pub(crate) fn script(&self, script: &str) -> Result<String, String> {
        let ran = self.enter(script)?.output().map_err(|error| error.to_string())?;
        let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if ran.status.success() { Ok(said) } else { Err(format!("{script}: {}\n{said}", ran.status)) }
    }

    /// Runs a script in it that must end well.
    #[track_caller]
    pub(crate) fn done(&self, script: &str) -> String {
        self.script(script).unwrap_or_else(|why| panic!("{why}"))
    }

    /// What a script says, however it ends.
    pub(crate) fn told(&self, script: &str) -> Result<String, String> {
        self.script(&format!("{script} || true"))
    }

    /// The main process of a unit, once it is active.
    pub(crate) fn main_of(&self, unit: &str) -> Result<String, String> {
        let said = self.script(&format!("systemctl show --value -p ActiveState -p MainPID {unit}"))?;
        let words: Vec<&str> = said.split_whitespace().collect();
        match words.as_slice() {
            [pid, "active"] | ["active", pid] if *pid != "0" => Ok((*pid).to_owned()),
            _ => Err(said),
        }
    }

    /// Its first process, as this machine numbers it.
    fn leader(&self) -> Result<String, String> {
        let pid = self.nspawn.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_err(|error| error.to_string())?;
        children.split_whitespace().next().map(str::to_owned).ok_or_else(|| "it has no first process yet".to_owned())
    }

    fn enter(&self, script: &str) -> Result<Command, String> {
        let leader = self.leader()?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", "bash", "-c", script]);
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.told("systemctl --failed; journalctl -n 120").map(|said| eprintln!("{said}"));
        }
        // The machine's first process takes everything along; it outlives the one that started it.
        match self.leader() {
            Ok(leader) => drop(Command::new("kill").args(["-9", &leader]).status()),
            Err(_) => drop(self.nspawn.kill()),
        }
        let _ = self.nspawn.wait();
        let _ = Command::new("umount").arg(&self.root).status();
    }
}
