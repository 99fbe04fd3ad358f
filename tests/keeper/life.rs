//! How an agent is started, and what happens when it ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use backstay::keeper::client;
use backstay::keeper::spec::{Policy, Spec};
use backstay::keeper::wire::{How, Phase};
use backstay::sys::{Limit, Listen};

use super::support::{Instance, program, until};

#[test]
fn an_environment_is_built_from_nothing() {
    let instance = Instance::sh("env; echo fds:; ls -l /proc/self/fd; umask; pwd; cat; echo END; sleep 1000");
    let instance = instance.with(|spec| {
        spec.env.insert("GREETING".to_owned(), "good day\nto you".to_owned());
    });
    instance.start();
    let log = instance.logged("END");
    let (env, rest) = log.split_once("fds:").unwrap();
    let names = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect::<BTreeSet<_>>();
    // `PWD` is the shell's own.
    let expected = ["BACKSTAY_INSTANCE", "GREETING", "HOME", "PATH", "PWD", "TMPDIR", "XDG_CACHE_HOME"];
    assert_eq!(names, BTreeSet::from(expected), "{env}");
    assert!(env.contains("good day\nto you"), "{env}");
    // Standard input is empty, output and error are the pipe, and nothing else of the keeper is open (3 is the list itself).
    let open = rest.lines().filter_map(|line| Some(line.split_once("-> ")?.1)).collect::<Vec<_>>();
    assert_eq!(open.len(), 4, "{rest}");
    assert!(open[0] == "/dev/null" && open[1].ends_with("/log") && open[2].ends_with("/log"), "{rest}");
    assert!(rest.contains("0077"), "{rest}");
    assert!(rest.contains(instance.outside.path().to_str().unwrap()), "{rest}");
    let home = fs::metadata(instance.folder.join("home")).unwrap();
    assert_eq!(home.permissions().mode() & 0o777, 0o700);
}

#[test]
fn limits_are_the_agents_own() {
    let instance = Instance::sh("ulimit -n; ulimit -Hn; ulimit -c; echo END; sleep 1000");
    let instance = instance.with(|spec| spec.limits = BTreeMap::from([(Limit::OpenFiles, 77), (Limit::Core, 0)]));
    instance.start();
    assert!(instance.logged("END").starts_with("77\n77\n0\n"), "{}", instance.log());
}

#[test]
fn an_agent_that_ends_at_once_is_started_ever_more_rarely() {
    let instance = Instance::sh("echo started; exit 3");
    instance.start();
    let status = instance.until("five ends", |status| status.ends >= 5);
    let end = status.last_end.unwrap();
    assert_eq!(end.how, How::Code(3));
    // The file tells the same while nobody asks.
    until("the state is written", || {
        backstay::keeper::folder::state(&instance.folder)
            .filter(|state| state.ends >= 5 && state.starts == u64::from(state.ends))
    });
    let waiting = instance.until("it waits", |status| status.phase == Phase::Waiting);
    assert!(waiting.next_ms.is_some() && waiting.agent.is_none());
    let last = instance.stop();
    assert_eq!((last.phase, last.starts), (Phase::Stopped, u64::from(last.ends)));
    let starts = instance.log().matches("started").count();
    assert_eq!(u64::try_from(starts).unwrap(), last.starts);
}

#[test]
fn a_run_that_was_long_enough_begins_the_count_anew() {
    let instance = Instance::sh("sleep 0.2; exit 1").with(|spec| spec.restart.stable_ms = 100);
    instance.start();
    let status = instance.until("three starts", |status| status.starts >= 3);
    assert_eq!(status.ends, 1, "{status:?}");
}

#[test]
fn a_signal_that_ends_an_agent_is_told() {
    let instance = Instance::sh("kill -SEGV $$").with(|spec| spec.restart.policy = Policy::OnFailure);
    instance.start();
    let status = instance.until("an end", |status| status.last_end.is_some());
    assert_eq!(status.last_end.unwrap().how, How::Signal(11));
}

#[test]
fn an_agent_that_is_done_stays_ended() {
    let instance = Instance::sh("exit 0").with(|spec| spec.restart.policy = Policy::OnFailure);
    instance.start();
    let status = instance.until("it ended", |status| status.phase == Phase::Ended);
    assert_eq!((status.starts, status.last_end.unwrap().how), (1, How::Code(0)));
    // Whoever asks for it gets another run.
    let restarted = instance.client().restart(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(restarted.starts, 2);
}

#[test]
fn a_program_that_is_not_there_is_told_by_name() {
    let instance = Instance::new("/no/such/agent", &[]);
    instance.start();
    let status = instance.until("an end", |status| status.last_end.is_some());
    let How::NotStarted(why) = status.last_end.unwrap().how else { panic!("it was started") };
    assert!(why.contains("/no/such/agent") && why.contains("No such file"), "{why}");
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let instance = Instance::sh("true").with(|spec| spec.working_dir = "/no/such/folder".into());
    instance.start();
    let status = instance.until("an end", |status| status.last_end.is_some());
    assert!(matches!(status.last_end.unwrap().how, How::NotStarted(_)));
}

#[test]
fn a_socket_of_an_earlier_run_is_no_hindrance() {
    let instance = Instance::python(
        "import socket, os, time\n\
         s = socket.socket(socket.AF_UNIX); s.bind(os.environ['LISTEN']); s.listen(); print('listens'); time.sleep(1000)",
    );
    let place = instance.outside.path().join("s");
    drop(UnixListener::bind(&place).unwrap());
    let instance = instance.with(|spec| {
        spec.env.insert("LISTEN".to_owned(), place.display().to_string());
        spec.listen = Some(Listen::Socket(place.clone()));
    });
    instance.start();
    instance.logged("listens");
    assert_eq!(instance.client().listening().unwrap(), Some(backstay::sys::Listening::Ours));
}

#[test]
fn a_spec_that_is_wrong_is_refused_with_the_reason() {
    let instance = Instance::sh("true");
    let refused = |text: &str| {
        fs::write(instance.folder.join("spec.json"), text).unwrap();
        client::start(&program(), &instance.folder).unwrap_err().to_string()
    };
    let good = serde_json::to_string(&instance.spec).unwrap();
    assert!(refused("{").contains("is not a spec"));
    let unknown = good.replacen('{', "{\"colour\":1,", 1);
    assert!(refused(&unknown).contains("colour"));
    assert!(refused(&good.replace("\"format\":1", "\"format\":9")).contains("format 9"));
    assert!(refused(&good.replace("/bin/sh", "sh")).contains("absolute"));
    fs::remove_file(instance.folder.join("spec.json")).unwrap();
    assert!(client::start(&program(), &instance.folder).unwrap_err().to_string().contains("cannot read"));
    assert!(Spec::read(&instance.folder).is_err());
}
