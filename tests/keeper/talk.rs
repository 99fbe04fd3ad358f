//! Who may ask a keeper for what, and callers that mean no good.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backstay::keeper::client::{Client, ClientError};
use backstay::keeper::wire::{How, OUTPUT, Phase};
use backstay::sys::{self, Listen, Listening, Word};

use super::support::{EPOCH, Instance, until};

fn refusal(result: Result<impl std::fmt::Debug, ClientError>) -> (String, Option<u64>) {
    let error = result.unwrap_err();
    let ClientError::Refused { why, epoch, .. } = error else { panic!("{error:?}") };
    (why, epoch)
}

fn raw(folder: &Path) -> UnixStream {
    let open = fs::File::open(folder).unwrap();
    let stream = UnixStream::connect(sys::socket_path(open.as_fd(), "s")).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// What is said to somebody until the keeper ends the connection.
fn all(mut stream: UnixStream) -> String {
    let mut text = vec![];
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn a_lower_epoch_is_refused_for_ever() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    let mut former = instance.client();
    let refused = refusal(Client::connect(&instance.folder, Some(EPOCH - 1)));
    assert_eq!(refused.1, Some(EPOCH));
    Client::connect(&instance.folder, Some(EPOCH + 2)).unwrap();
    // A connection of before is none of now.
    assert_eq!(refusal(former.signal(Word::Term)).1, Some(EPOCH + 2));
    assert_eq!(refusal(Client::connect(&instance.folder, Some(EPOCH))).1, Some(EPOCH + 2));
    // Nor does a new keeper forget.
    let keeper = Client::connect(&instance.folder, None).unwrap().identity().process;
    sys::signal(keeper, Word::Kill).unwrap();
    until("the keeper is dead", || (sys::process(keeper.pid).unwrap() != Some(keeper)).then_some(()));
    instance.start();
    assert_eq!(refusal(Client::connect(&instance.folder, Some(EPOCH))).1, Some(EPOCH + 2));
}

#[test]
fn who_names_no_epoch_may_only_ask() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    let mut guest = Client::connect(&instance.folder, None).unwrap();
    assert_eq!(guest.status().unwrap().phase, Phase::Running);
    assert!(refusal(guest.stop(None, Duration::from_secs(5))).0.contains("only ask"));
    instance.running();
}

#[test]
fn another_user_is_refused_by_the_kernels_word() {
    if sys::own_uid() != 0 {
        // Only root can be another user.
        return;
    }
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    // Everything that file permissions could do is taken away.
    for part in instance.folder.ancestors().take_while(|part| part.starts_with(instance.outside.path())) {
        fs::set_permissions(part, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(instance.folder.join("s"), fs::Permissions::from_mode(0o666)).unwrap();
    let script = "import os, socket, sys\n\
                  os.chdir(sys.argv[1]); s = socket.socket(socket.AF_UNIX); s.connect('s')\n\
                  f = s.makefile()\n\
                  try: s.sendall(b'{\"version\":1,\"epoch\":99}\\n\"status\"\\n')\n\
                  except OSError: pass\n\
                  print(f.readline()); print(f.readline())";
    let folder = instance.folder.clone();
    let ask = |uid: &str| {
        let args = ["--reuid", uid, "--clear-groups", "/usr/bin/python3", "-c", script];
        let output = Command::new("setpriv").args(args).arg(&folder).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let told = ask("54321");
    assert!(told.contains("user 54321 may not command this keeper") && !told.contains("phase"), "{told}");
    assert_eq!(instance.status().epoch, EPOCH);
    // Who is named in the spec may.
    instance.kill_keeper();
    let instance = instance.with(|spec| spec.trusted_uids = [54321].into());
    instance.start();
    let told = ask("54321");
    assert!(told.contains("\"phase\":\"running\""), "{told}");
}

#[test]
fn an_agent_does_not_command_its_own_keeper() {
    let instance = Instance::python(
        "import os, socket, time\n\
         os.chdir(os.environ['HOME'] + '/..')\n\
         if os.fork() == 0:\n    \
             os.setsid()\n    \
             if os.fork(): os._exit(0)\n    \
             s = socket.socket(socket.AF_UNIX); s.connect('s')\n    \
             try: s.sendall(b'{\"version\":1,\"epoch\":99}\\n')\n    \
             except OSError: pass\n    \
             print('told:', s.makefile().readline())\n\
         time.sleep(1000)",
    );
    instance.start();
    let log = instance.logged("told:");
    assert!(log.contains("may not command its own keeper"), "{log}");
    assert_eq!(instance.status().epoch, EPOCH);
}

#[test]
fn garbage_is_answered_and_ends_the_connection() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    let hello = format!("{{\"version\":1,\"epoch\":{EPOCH}}}\n");
    let cases: [(Vec<u8>, &str); 7] = [
        (b"\xff\xfe\0\n".to_vec(), "no request"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no request"),
        (b"\"status\"\n".to_vec(), "no request"),
        (b"{\"version\":7,\"epoch\":1}\n".to_vec(), "version 1, not 7"),
        (format!("{hello}\"fly\"\n").into_bytes(), "no request"),
        (format!("{hello}{{\"stop\":{{\"graceMs\":null,\"colour\":1}}}}\n").into_bytes(), "colour"),
        (format!("{hello}{}\n", "[".repeat(10_000)).into_bytes(), "no request"),
    ];
    for (said, expected) in cases {
        let mut stream = raw(&instance.folder);
        stream.write_all(&said).unwrap();
        let told = all(stream);
        assert!(told.contains(expected), "{}: {told}", String::from_utf8_lossy(&said));
    }
    instance.running();
}

#[test]
fn a_line_without_end_is_cut_off() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    let mut stream = raw(&instance.folder);
    let written = (0..1000).map_while(|_| stream.write(&[b'x'; 4096]).ok()).sum::<usize>();
    assert!(written < 1000 * 4096);
    instance.running();
}

#[test]
fn callers_that_say_nothing_or_take_nothing_hinder_nobody() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    // More than there is room for, some silent, some in the middle of a line, some that never read.
    let mut silent = (0..40).map(|_| raw(&instance.folder)).collect::<Vec<_>>();
    for (at, stream) in silent.iter_mut().enumerate() {
        let said: &[u8] = if at % 2 == 0 { b"{\"version\"" } else { b"" };
        let _ = stream.write_all(said);
    }
    let mut deaf = raw(&instance.folder);
    deaf.write_all(b"{\"version\":1,\"epoch\":null}\n").unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let flood = "\"status\"\n".repeat(1000);
    while deaf.write_all(flood.as_bytes()).is_ok() {}
    let status = instance.status();
    assert_eq!(status.phase, Phase::Running);
    // Those that are silent are sent away in time.
    let last = silent.pop().unwrap();
    assert_eq!(all(last), "");
    instance.client().stop(None, Duration::from_mins(1)).unwrap();
}

#[test]
fn who_watches_hears_of_each_turn() {
    let instance = Instance::sh("echo ready; exec sleep 1000");
    instance.start();
    let agent = instance.running();
    let mut client = instance.client();
    let status = client.status().unwrap();
    // The turn is the one that is known: nothing comes until something happens.
    let told = std::thread::scope(|scope| {
        let waits = scope.spawn(|| client.next(status.turn, Duration::from_mins(1)).unwrap());
        instance.client().signal(Word::Kill).unwrap();
        waits.join().unwrap()
    });
    assert!(told.turn > status.turn);
    let mut told = told;
    while told.starts < 2 {
        told = client.next(told.turn, Duration::from_mins(1)).unwrap();
    }
    assert!(told.agent.is_some_and(|second| second != agent) && told.last_end.unwrap().how == How::Signal(9));
    // A turn that has passed is answered at once.
    assert!(client.next(status.turn, Duration::from_mins(1)).unwrap().turn >= told.turn);
}

#[test]
fn a_keeper_that_takes_nobody_holds_up_nobody() {
    let instance = Instance::sh("exec sleep 1000");
    let keeper = instance.start().process;
    instance.running();
    sys::signal(keeper, Word::Stop).unwrap();
    let open = fs::File::open(&instance.folder).unwrap();
    let address = rustix::net::SocketAddrUnix::new(sys::socket_path(open.as_fd(), "s")).unwrap();
    let connect = || {
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, rustix::net::SocketFlags::NONBLOCK, None).unwrap();
        rustix::net::connect(&socket, &address).map(|()| socket)
    };
    let waiting = std::iter::from_fn(|| connect().ok()).take(100_000).collect::<Vec<_>>();
    let refused = Client::connect(&instance.folder, None).unwrap_err();
    assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused:?}");
    drop(waiting);
    sys::signal(keeper, Word::Cont).unwrap();
    instance.running();
}

#[test]
fn a_probe_runs_as_the_agent_and_is_bounded() {
    let instance = Instance::sh("exec sleep 1000");
    let instance = instance.with(|spec| spec.limits = [(sys::Limit::OpenFiles, 99)].into());
    instance.start();
    instance.running();
    let mut client = instance.client();
    let mut probe = |script: &str, time: u64| {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        client.probe(command, Duration::from_millis(time)).unwrap()
    };
    let good = probe("ulimit -n; echo $HOME; echo oh >&2; exit 4", 20_000);
    assert_eq!((&good.how, good.timed_out, good.cut), (&How::Code(4), false, false));
    assert!(good.output.starts_with("99\n") && good.output.contains("/home\noh\n"), "{}", good.output);
    let long = probe("head -c 100000 /dev/zero; exit 0", 20_000);
    assert_eq!((long.how, long.cut, long.output.len()), (How::Code(0), true, OUTPUT));
    let slow = probe("trap '' TERM; echo begun; setsid sleep 1000 & sleep 1000", 300);
    assert_eq!((slow.how, slow.timed_out), (How::Signal(9), true));
    assert_eq!(slow.output, "begun\n");
    // A probe that leaves something behind is over, and what it left is ended.
    let left = probe("sleep 1001 & exit 0", 20_000);
    assert_eq!(left.how, How::Code(0));
    until("only the agent is left", || (sys::marked(&instance.spec.mark()).unwrap().len() == 1).then_some(()));
    let missing = client.probe(vec!["/no/such/probe".to_owned()], Duration::from_secs(20)).unwrap();
    assert!(matches!(missing.how, How::NotStarted(why) if why.contains("/no/such/probe")));
}

#[test]
fn many_probes_at_once_are_refused_and_hinder_nobody() {
    let instance = Instance::sh("exec sleep 1000");
    instance.start();
    instance.running();
    let ends = std::thread::scope(|scope| {
        let probes = (0..12).map(|_| {
            let mut client = instance.client();
            let command = ["sh", "-c", "sleep 1"].map(str::to_owned).to_vec();
            scope.spawn(move || client.probe(command, Duration::from_secs(30)))
        });
        let probes = probes.collect::<Vec<_>>();
        instance.running();
        probes.into_iter().map(|probe| probe.join().unwrap()).collect::<Vec<_>>()
    });
    let (done, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
    assert!(!done.is_empty());
    assert!(refused.into_iter().all(|refused| refusal(refused).0.contains("run already")));
}

#[test]
fn a_port_that_somebody_else_took_is_not_ours() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let instance = Instance::python(
        "import os, socket, time\n\
         s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         while True:\n    \
             try: s.bind(('127.0.0.1', int(os.environ['PORT']))); break\n    \
             except OSError: time.sleep(0.05)\n\
         s.listen(); print('listens'); time.sleep(1000)",
    );
    let instance = instance.with(|spec| {
        spec.env.insert("PORT".to_owned(), port.to_string());
        spec.listen = Some(Listen::Port(port));
    });
    instance.start();
    instance.running();
    assert_eq!(instance.client().listening().unwrap(), Some(Listening::Another));
    drop(taken);
    instance.logged("listens");
    assert_eq!(instance.client().listening().unwrap(), Some(Listening::Ours));
}
