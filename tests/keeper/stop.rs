//! How an agent is ended whole.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use backstay::keeper::client::Client;
use backstay::keeper::spec::Policy;
use backstay::keeper::wire::{How, Phase};
use backstay::sys::{self, Word};

use super::support::{Instance, lives, named, until};

const LONG: Duration = Duration::from_mins(1);

#[test]
fn an_agent_that_listens_to_sigterm_ends_by_itself() {
    let instance = Instance::sh("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let keeper = instance.start();
    instance.logged("ready");
    let last = instance.stop();
    assert_eq!((last.phase, last.last_end.unwrap().how), (Phase::Stopped, How::Code(7)));
    assert!(instance.log().contains("bye"));
    until("the keeper has ended, too", || (!lives(keeper.process)).then_some(()));
    assert!(!fs::exists(instance.folder.join("s")).unwrap());
    assert!(Client::connect(&instance.folder, None).is_err());
}

#[test]
fn an_agent_that_ignores_sigterm_is_killed_after_its_grace() {
    let instance =
        Instance::sh("trap '' TERM; echo ready; while :; do sleep 0.05; done").with(|spec| spec.stop.grace_ms = 300);
    instance.start();
    instance.logged("ready");
    let last = instance.stop();
    assert_eq!(last.last_end.unwrap().how, How::Signal(9));
}

#[test]
fn a_second_wish_shortens_the_grace() {
    let instance = Instance::sh("trap '' TERM; echo ready; while :; do sleep 0.05; done")
        .with(|spec| spec.stop.grace_ms = 3_600_000);
    instance.start();
    instance.logged("ready");
    let mut first = instance.client();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || first.stop(None, LONG).unwrap());
        instance.until("it stops", |status| status.phase == Phase::Stopping);
        instance.client().stop(Some(Duration::from_millis(50)), LONG).unwrap();
        assert_eq!(waits.join().unwrap().phase, Phase::Stopped);
    });
}

#[test]
fn a_paused_agent_is_stopped_as_well() {
    let instance = Instance::sh("echo ready; exec sleep 1000");
    instance.start();
    instance.logged("ready");
    assert!(instance.client().signal(Word::Stop).unwrap());
    assert_eq!(instance.stop().last_end.unwrap().how, How::Signal(15));
}

/// A process that forks away from everything: a session of its own, no parent, ignoring SIGTERM.
const AWAY: &str = "\
import os, signal, sys, time
for n in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execv('/bin/sh', ['sh', '-c', 'trap \"\" TERM; echo away; while :; do sleep 1; done', sys.argv[1]])
";

#[test]
fn what_forks_away_ends_with_the_agent() {
    let mark = format!("away-{}", std::process::id());
    let script = format!("{AWAY}\nprint('ready'); time.sleep(1000)");
    let instance =
        Instance::new("/usr/bin/python3", &["-u", "-c", &script, &mark]).with(|spec| spec.stop.grace_ms = 200);
    instance.start();
    until("three are away", || (instance.log().matches("away").count() == 3).then_some(()));
    assert_eq!(named(&mark).len(), 4);
    instance.stop();
    assert_eq!(named(&mark), []);
}

#[test]
fn an_agent_that_only_forks_away_leaves_nothing_behind() {
    let mark = format!("gone-{}", std::process::id());
    let instance = Instance::new("/usr/bin/python3", &["-u", "-c", AWAY, &mark]).with(|spec| {
        (spec.stop.grace_ms, spec.restart.policy) = (200, Policy::Never);
    });
    instance.start();
    let status = instance.until("it is over", |status| status.phase == Phase::Ended);
    assert_eq!(status.last_end.unwrap().how, How::Code(0));
    assert_eq!(named(&mark), []);
}

#[test]
fn a_command_runs_before_the_agent_is_asked() {
    let instance = Instance::sh("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let told = instance.file("told");
    let script =
        format!("echo \"$HOME $BACKSTAY_INSTANCE\" > {}; sleep 0.2; test ! -e /proc/$PPID/nothing", told.display());
    let instance = instance.with(|spec| spec.stop.pre_stop = Some(vec!["/bin/sh".into(), "-c".into(), script]));
    instance.start();
    instance.logged("ready");
    let last = instance.stop();
    assert_eq!((last.last_end.unwrap().how, last.trouble), (How::Code(0), None));
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("/home i1:"), "it ran as the agent: {told}");
}

#[test]
fn a_command_before_a_stop_has_no_more_than_the_grace() {
    let instance = Instance::sh("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let instance = instance.with(|spec| {
        spec.stop.pre_stop = Some(vec!["/bin/sh".into(), "-c".into(), "sleep 1000 & sleep 1000".into()]);
        spec.stop.grace_ms = 300;
    });
    instance.start();
    instance.logged("ready");
    let last = instance.stop();
    assert_eq!(last.last_end.unwrap().how, How::Code(0), "the agent had its SIGTERM all the same");
    assert!(last.trouble.unwrap().contains("killed after its time"));
    assert_eq!(sys::marked(&instance.spec.mark()).unwrap(), []);
}

#[test]
fn an_agent_that_is_restarted_has_another_process() {
    let instance = Instance::sh("echo ready; exec sleep 1000");
    instance.start();
    let first = instance.running();
    let status = instance.client().restart(LONG).unwrap();
    assert_eq!((status.starts, status.ends, status.phase), (2, 0, Phase::Running));
    assert!(status.agent.unwrap() != first && !lives(first));
}

#[test]
fn a_keeper_that_is_asked_by_signal_stops_its_agent() {
    let instance = Instance::sh("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let keeper = instance.start();
    instance.logged("ready");
    sys::signal(keeper.process, Word::Term).unwrap();
    until("the keeper has ended", || (!lives(keeper.process)).then_some(()));
    assert_eq!(backstay::keeper::folder::state(&instance.folder).unwrap().phase, Phase::Stopped);
    assert!(instance.log().ends_with("bye\n"));
}

#[test]
fn a_keeper_without_a_folder_ends_its_agent() {
    let instance =
        Instance::sh("trap '' TERM; echo ready; while :; do sleep 0.05; done").with(|spec| spec.stop.grace_ms = 100);
    let keeper = instance.start();
    instance.logged("ready");
    let agent = instance.running();
    fs::remove_dir_all(&instance.folder).unwrap();
    until("the keeper has ended", || (!lives(keeper.process)).then_some(()));
    assert!(!lives(agent));
    assert_eq!(sys::marked(&instance.spec.mark()).unwrap(), []);
}

/// A cgroup (version 2) of the test's own; none where this account may make none.
fn cgroup(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?.to_owned();
    let cgroup = PathBuf::from(mount).join(format!("{name}-{}", std::process::id()));
    fs::create_dir(&cgroup).ok().map(|()| cgroup)
}

#[test]
fn a_cgroup_of_the_agents_own_is_emptied() {
    let Some(cgroup) = cgroup("backstay-keeper-test") else {
        // Without one there is nothing to empty: the tree is what the other tests are about.
        return;
    };
    let instance = Instance::sh("trap '' TERM; sleep 1000 & echo ready; while :; do sleep 0.05; done");
    let instance = instance.with(|spec| (spec.cgroup, spec.stop.grace_ms) = (Some(cgroup.clone()), 100));
    instance.start();
    instance.logged("ready");
    assert!(sys::cgroup_is_populated(&cgroup).unwrap());
    // Somebody else in there is the agent's, too: what is in the cgroup is its own.
    let mut guest = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), guest.id().to_string()).unwrap();
    let guest_gone = std::thread::spawn(move || guest.wait().unwrap());
    instance.stop();
    assert!(!guest_gone.join().unwrap().success());
    assert!(!sys::cgroup_is_populated(&cgroup).unwrap());
    fs::remove_dir(&cgroup).unwrap();
}

#[test]
fn what_a_daemon_starts_goes_on_when_it_ends() {
    let script = "setsid sleep 1000 & echo child $!; exec sleep 2000";
    let instance = Instance::sh(script).with(|spec| spec.alone = true);
    instance.start();
    let log = instance.logged("child");
    let pid = log.trim().strip_prefix("child ").unwrap().parse().unwrap();
    let child = sys::process(pid).unwrap().unwrap();
    let daemon = instance.running();
    assert!(sys::signal(daemon, Word::Kill).unwrap());
    let again = instance.until("it was started again", |status| status.starts == 2 && status.phase == Phase::Running);
    assert!(lives(child), "the child of the first start is not the keeper's to end");
    assert_ne!(again.agent, Some(daemon));
    instance.stop();
    assert!(lives(child));
    assert!(sys::signal(child, Word::Kill).unwrap());
}
