//! Keepers that die, are replaced or become another program, and how they are found.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use backstay::keeper::client::{self, Client, ClientError};
use backstay::keeper::folder::{self, Standing};
use backstay::keeper::wire::{How, Identity, Phase};
use backstay::sys::{self, Word};

use super::support::{EPOCH, Instance, lives, named, program, run, until};

#[test]
fn a_folder_has_one_keeper() {
    let instance = Instance::sh("exec sleep 1000");
    let first = instance.start();
    let agent = instance.running();
    let refused = client::start(&program(), &instance.folder).unwrap_err();
    assert!(
        matches!(&refused, ClientError::NotBegun { why, .. } if why.contains("held by another process")),
        "{refused}"
    );
    assert_eq!((instance.client().identity().process, instance.running()), (first.process, agent));
}

#[test]
fn a_keeper_is_nobodys_child_and_leads_its_session() {
    let instance = Instance::sh("exec sleep 1000");
    let keeper = instance.start();
    let stat = fs::read_to_string(format!("/proc/{}/stat", keeper.process.pid)).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_ne!(fields[1], std::process::id().to_string(), "its parent");
    assert_eq!(fields[3], keeper.process.pid.to_string(), "its session");
    assert!(fs::read_to_string(format!("/proc/{}/environ", keeper.process.pid)).unwrap().is_empty());
}

#[test]
fn an_agent_outlives_its_keeper_and_is_taken_over() {
    let mark = format!("over-{}", std::process::id());
    let script = "import os, sys, time\n\
                  if os.fork() == 0:\n    \
                      os.setsid()\n    \
                      if os.fork(): os._exit(0)\n    \
                      os.execv('/bin/sleep', ['sleep', '1000'])\n\
                  print('ready'); time.sleep(1000)";
    let instance = Instance::new("/usr/bin/python3", &["-u", "-c", script, &mark]);
    instance.start();
    instance.logged("ready");
    let agent = instance.running();
    let dead = instance.kill_keeper();
    assert!(lives(agent));
    let intent = Some(("i1", instance.spec.nonce.as_str()));
    let Standing::Dead { agent: left, last } = folder::look(&instance.folder, intent).unwrap() else {
        panic!("it lives")
    };
    assert_eq!((left, last.unwrap().phase), (Some(agent), Phase::Running));
    let second = instance.start();
    assert_ne!(second.process, dead);
    let status = instance.status();
    assert_eq!((status.agent, status.adopted, status.starts), (Some(agent), true, 1));
    // What the first keeper's death scattered is ended as well.
    let scattered = sys::marked(&instance.spec.mark()).unwrap();
    assert_eq!(scattered.len(), 2);
    instance.stop();
    assert!(scattered.into_iter().all(|process| !lives(process)));
}

#[test]
fn an_agent_that_was_taken_over_is_started_again_when_it_ends() {
    let instance = Instance::sh("echo ready; exec sleep 1000");
    instance.start();
    let agent = instance.running();
    instance.kill_keeper();
    instance.start();
    sys::signal(agent, Word::Kill).unwrap();
    let status = instance.until("a second run", |status| status.starts == 2 && status.phase == Phase::Running);
    assert_eq!((status.last_end.unwrap().how, status.adopted), (How::Unknown, false));
}

#[test]
fn an_agent_that_is_tied_to_its_keeper_dies_with_it() {
    let instance = Instance::sh("echo ready; exec sleep 1000").with(|spec| spec.dies_with_keeper = true);
    instance.start();
    let agent = instance.running();
    instance.logged("ready");
    instance.kill_keeper();
    until("the agent is dead", || (!lives(agent)).then_some(()));
    instance.start();
    let status = instance.until("another runs", |status| status.phase == Phase::Running);
    assert_eq!((status.starts, status.last_end.unwrap().how), (2, How::Unknown));
}

#[test]
fn orphans_are_ended_without_a_keeper() {
    let mark = format!("orphan-{}", std::process::id());
    let instance = Instance::new(
        "/bin/sh",
        &["-c", "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.05; done", &mark],
    );
    instance.start();
    instance.logged("ready");
    assert!(folder::end_orphans(&instance.folder, Duration::ZERO).is_err(), "a keeper holds it");
    instance.kill_keeper();
    assert_eq!(folder::end_orphans(&instance.folder, Duration::from_millis(100)).unwrap(), []);
    assert_eq!((named(&mark), sys::marked(&instance.spec.mark()).unwrap()), (vec![], vec![]));
}

#[test]
fn an_upgrade_keeps_process_agent_and_log() {
    let instance = Instance::python("import time\nfor n in range(10**9):\n    print('line', n)\n    time.sleep(0.001)");
    let before = instance.start();
    let agent = instance.running();
    let newer = instance.file("backstay-keeper-2");
    fs::copy(program(), &newer).unwrap();
    for _ in 0..5 {
        let client = instance.client().upgrade(&newer, EPOCH).unwrap();
        assert_eq!(client.identity().process, before.process);
    }
    let keeper = before.process.pid;
    assert_eq!(fs::read_link(format!("/proc/{keeper}/exe")).unwrap(), newer);
    let status = instance.status();
    assert_eq!((status.agent, status.adopted, status.starts), (Some(agent), false, 1));
    // It is still the one keeper of the folder, and still hears how its agent ends.
    assert!(client::start(&program(), &instance.folder).is_err());
    sys::signal(agent, Word::Kill).unwrap();
    let status = instance.until("a second run", |status| status.starts == 2 && status.phase == Phase::Running);
    assert_eq!(status.last_end.unwrap().how, How::Signal(9));
    let log = instance.log();
    let first = log.split("line 0\n").nth(1).unwrap();
    let complete = first.lines().enumerate().all(|(at, line)| line == format!("line {}", at + 1));
    assert!(complete, "a line was lost or doubled");
    // Nothing that the upgrade carried is open in the agent, once its program runs.
    let agent = status.agent.unwrap().pid;
    until("nothing carried is open", || {
        let open = fs::read_dir(format!("/proc/{agent}/fd")).unwrap().flatten();
        let mut open = open.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string()));
        (!open.any(|path| path.contains("socket") || path.ends_with("/lock"))).then_some(())
    });
    instance.stop();
}

#[test]
fn an_upgrade_in_the_middle_of_waiting_waits_on() {
    let instance = Instance::sh("exit 1").with(|spec| (spec.restart.first_ms, spec.restart.most_ms) = (60_000, 60_000));
    instance.start();
    let before = instance.until("it waits", |status| status.phase == Phase::Waiting);
    instance.client().upgrade(&program(), EPOCH).unwrap();
    let after = instance.status();
    assert_eq!((after.phase, after.starts, after.last_end), (Phase::Waiting, 1, before.last_end));
}

#[test]
fn an_upgrade_that_cannot_be_leaves_the_old_keeper() {
    let instance = Instance::sh("echo ready; exec sleep 1000");
    let keeper = instance.start();
    let agent = instance.running();
    let broken = instance.file("broken");
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let hangs = instance.file("hangs");
    fs::write(&hangs, "#!/bin/sh\nsleep 1000\n").unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o755)).unwrap();
    for bad in
        ["/no/such/file", "/bin/true", "/bin/false", "relative", broken.to_str().unwrap(), hangs.to_str().unwrap()]
    {
        let refused = instance.client().upgrade(bad.as_ref(), EPOCH).unwrap_err();
        assert!(matches!(refused, ClientError::Refused { .. }), "{bad}: {refused:?}");
        assert_eq!((instance.client().identity().process, instance.running()), (keeper.process, agent));
    }
    instance.logged("ready");
}

#[test]
fn keepers_are_found_by_their_folders() {
    let instance = Instance::sh("exec sleep 1000");
    let root = instance.folder.parent().unwrap();
    let nonce = instance.spec.nonce.clone();
    let look = |nonce: &str| {
        let found = folder::find(root, &BTreeMap::from([("i1".to_owned(), nonce.to_owned())])).unwrap();
        assert_eq!(found.len(), 1);
        found[0].standing.clone()
    };
    assert_eq!(look(&nonce), Standing::Dead { agent: None, last: None });
    let keeper = instance.start();
    instance.running();
    assert_eq!(look(&nonce), Standing::Running(keeper.clone()));
    assert!(matches!(look("another0"), Standing::Unexplained { keeper: Some(_), why } if why.contains("another0")));
    assert!(matches!(folder::look(&instance.folder, None).unwrap(), Standing::Unexplained { keeper: Some(_), .. }));
    // A keeper's own word is not enough: the process it names has to be the one that began then.
    let file = instance.folder.join("keeper.json");
    let lie = |change: &dyn Fn(&mut Identity)| {
        let mut lied = keeper.clone();
        change(&mut lied);
        fs::write(&file, serde_json::to_vec(&lied).unwrap()).unwrap();
        look(&nonce)
    };
    assert!(matches!(lie(&|lied| lied.process.start += 1), Standing::Unexplained { .. }));
    assert!(matches!(lie(&|lied| "another boot".clone_into(&mut lied.boot)), Standing::Unexplained { .. }));
    fs::write(&file, "{").unwrap();
    assert!(matches!(look(&nonce), Standing::Unexplained { keeper: None, .. }));
    assert_eq!(lie(&|_| {}), Standing::Running(keeper.clone()));
    instance.stop();
    until("the keeper has ended", || (!lives(keeper.process)).then_some(()));
    assert!(matches!(look(&nonce), Standing::Dead { agent: None, last: Some(last) } if last.phase == Phase::Stopped));
    assert!(matches!(lie(&|lied| "another boot".clone_into(&mut lied.boot)), Standing::OtherBoot { .. }));
}

#[test]
fn a_socket_that_was_removed_is_made_again() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    fs::remove_file(instance.folder.join("s")).unwrap();
    until("it can be reached", || Client::connect(&instance.folder, None).ok());
    instance.running();
}

#[test]
fn the_program_tells_how_it_is_used() {
    let (good, text) = run(&program(), &["--help"]);
    assert!(good && text.contains("backstay-keeper start FOLDER"), "{text}");
    let (good, text) = run(&program(), &["fly"]);
    assert!(!good && text.contains("backstay-keeper start FOLDER"), "{text}");
    let (good, text) = run(&program(), &["version"]);
    assert!(good && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}
