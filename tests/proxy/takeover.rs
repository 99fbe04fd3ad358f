//! One proxy replaces another under load: nothing fails, nothing is cut.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstay::proxy::previous_path;

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, to_one};

/// Asks on a kept connection, and begins a new one where it was told to, until the end; gives how many were answered.
fn ask(address: std::net::SocketAddr, ends: &AtomicBool) -> Result<usize, String> {
    let (mut raw, mut count) = (Raw::connect(address), 0);
    while !ends.load(Ordering::Acquire) {
        let answer =
            raw.call("POST", "a.example", "/", &[], b"x").map_err(|error| format!("after {count}: {error}"))?;
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        count += 1;
        if answer.header("connection") == Some("close") {
            raw = Raw::connect(address);
        }
    }
    Ok(count)
}

/// Reads streams to their end until the end; gives how many.
fn listen(address: std::net::SocketAddr, ends: &AtomicBool) -> Result<usize, String> {
    let mut count = 0;
    while !ends.load(Ordering::Acquire) {
        let mut raw = Raw::connect(address);
        raw.send("GET /ticks/40 HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| error.to_string())?;
        let answer = raw.answer(false).map_err(|error| format!("stream {count}: {error}"))?;
        if answer.text().lines().filter(|line| line.starts_with("data:")).count() != 40 {
            return Err(answer.text());
        }
        count += 1;
    }
    Ok(count)
}

#[test]
fn five_upgrades_under_load_lose_nothing() {
    let agents = [agent::Agent::start("one"), agent::Agent::start("two")];
    let proxy = Proxy::start(&to_one(1, "s", &[&agents[0], &agents[1]]));
    let ends = Arc::new(AtomicBool::new(false));
    let address = proxy.address;
    let mut clients = vec![];
    for _ in 0..6 {
        let ends = ends.clone();
        clients.push(std::thread::spawn(move || ask(address, &ends)));
    }
    for _ in 0..3 {
        let ends = ends.clone();
        clients.push(std::thread::spawn(move || listen(address, &ends)));
    }
    // New connections all the time.
    let fresh = ends.clone();
    clients.push(std::thread::spawn(move || {
        let mut count = 0;
        while !fresh.load(Ordering::Acquire) {
            let answer = Raw::connect(address).get("a.example", "/", &[]).map_err(|error| error.to_string())?;
            assert_eq!(answer.status, 200);
            count += 1;
        }
        Ok(count)
    }));
    let mut pids = vec![proxy.state().pid];
    for generation in 2..=6 {
        pids.push(proxy.replace().pid);
        // The table changes meanwhile, for all processes.
        proxy.load(&to_one(generation, "s", &[&agents[0], &agents[1]]));
    }
    ends.store(true, Ordering::Release);
    let counts: Vec<usize> = clients.into_iter().map(|client| client.join().unwrap().unwrap()).collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    pids.dedup();
    assert_eq!(pids.len(), 6);
    let state = proxy.until("those before are gone", |state| state.draining.is_empty() && state.silent.is_empty());
    assert_eq!(state.active.generation, 6);
}

#[test]
fn what_is_open_in_the_old_one_is_known_to_the_new_one() {
    let (agent, other) = (agent::Agent::start("one"), agent::Agent::start("two"));
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    raw.head().unwrap();
    raw.chunk().unwrap();
    let mut idle = Raw::connect(proxy.address);
    assert_eq!(idle.get("a", "/", &[]).unwrap().header("connection"), None);
    proxy.block(proxy.client(1).drain("s-0", 1, false)).unwrap();
    let state = proxy.replace();
    assert_eq!((state.draining.len(), state.silent.len()), (1, 0));
    let open = |state: &backstay::proxy::State| {
        state.instances.iter().find(|one| one.id == "s-0").map_or(0, |one| one.in_flight)
    };
    assert_eq!(open(&state), 1, "{state:?}");
    assert!(state.instances[0].drained, "the new one knows what was drained");
    // A table is used by both: the connection that was kept by the old one asks the new release.
    proxy.load(&to_one(2, "t", &[&other]));
    let answer = idle.get("a", "/", &[]).unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("two GET /", Some("close")));
    assert_eq!(open(&proxy.state()), 1);
    agent.open_gate();
    assert_eq!(raw.chunk().unwrap().unwrap(), b"data: 2\n\n");
    proxy.until("nothing is open there", |state| open(state) == 0);
    proxy.until("the old one is gone", |state| state.draining.is_empty() && state.silent.is_empty());
}

#[test]
fn a_new_one_that_cannot_start_changes_nothing() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let pid = proxy.state().pid;
    let settings = proxy.folder.path().join("backstay.toml");
    let good = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, "[proxy]\nnonsense = 1\n").unwrap();
    proxy.signal("HUP");
    // It is over when the socket for its questions is gone again; until then it is held still.
    for _ in 0..50 {
        assert_eq!(get(proxy.address, "/", &[]).status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    let state = proxy.state();
    assert_eq!((state.pid, state.draining.len()), (pid, 0));
    std::fs::write(&settings, good).unwrap();
    assert_ne!(proxy.replace().pid, pid, "the next try works");
    assert_eq!(get(proxy.address, "/", &[]).status, 200);
}

#[test]
fn a_table_that_is_damaged_meanwhile_keeps_the_old_one() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    proxy.load(&to_one(2, "s", &[&agent]));
    let pid = proxy.state().pid;
    std::fs::write(proxy.table_path(), "no table").unwrap();
    assert!(previous_path(&proxy.table_path()).exists());
    proxy.signal("HUP");
    for _ in 0..50 {
        assert_eq!(get(proxy.address, "/", &[]).status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    let state = proxy.state();
    assert_eq!(
        (state.pid, state.active.generation),
        (pid, 2),
        "the table in use is later than what the new one can read"
    );
}

#[test]
fn systemd_is_told_who_serves() {
    let agent = agent::Agent::start("one");
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut buffer = [0; 1024];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let until = |what: &str| {
        for _ in 0..1000 {
            let heard = hear();
            if heard.contains(what) {
                return heard;
            }
        }
        panic!("`{what}` was never said");
    };
    let environment =
        [("NOTIFY_SOCKET", folder.path().join("notify").display().to_string()), ("WATCHDOG_USEC", "100000".to_owned())];
    let proxy = Proxy::under(&to_one(1, "s", &[&agent]), &environment);
    let first = proxy.state().pid;
    assert_eq!(until("READY=1"), format!("MAINPID={first}\nREADY=1"));
    until("WATCHDOG=1");
    let second = proxy.replace().pid;
    assert_eq!(until("READY=1"), format!("MAINPID={second}\nREADY=1"));
    until("WATCHDOG=1");
    // The new one is no child of the old.
    let status = std::fs::read_to_string(format!("/proc/{second}/stat")).unwrap();
    let parent: u32 = status.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_ne!(parent, first);
    proxy.signal("TERM");
    until("STOPPING=1");
}
