//! What the daemon says to the proxy, and what is measured.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backstay::proxy::{ControlError, Histogram, Table, Why, write_table};

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, release, to_one};

fn why(error: &ControlError) -> Why {
    match error {
        ControlError::Refused(refused) => refused.why,
        ControlError::Unreachable { .. } | ControlError::Other { .. } => panic!("{error:?}"),
    }
}

#[test]
fn a_table_is_active_once_every_new_request_uses_it() {
    // Clients ask without a pause while tables change; whoever asks after `active` gets the new one.
    let agents: Vec<agent::Agent> = (0..2).map(|number| agent::Agent::start(&format!("n{number}"))).collect();
    let proxy = Proxy::start(&to_one(1, "n1", &[&agents[1]]));
    let (active, ends) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
    let wrong = Arc::new(Mutex::new(vec![]));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (active, ends, wrong, address) = (active.clone(), ends.clone(), wrong.clone(), proxy.address);
            std::thread::spawn(move || {
                let (mut raw, mut count) = (Raw::connect(address), 0);
                while !ends.load(Ordering::Acquire) {
                    let least = active.load(Ordering::Acquire);
                    let text = raw.get("a.example", "/", &[]).unwrap().text();
                    let most = active.load(Ordering::Acquire) + 1;
                    let got: usize = text[1..2].parse().unwrap();
                    if !(least..=most).any(|generation| generation % 2 == got) {
                        wrong.lock().unwrap().push((least, most, text));
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    for generation in 2..60 {
        let name = format!("n{}", generation % 2);
        let table = to_one(generation, &name, &[&agents[usize::try_from(generation % 2).unwrap()]]);
        proxy.load(&table);
        active.store(usize::try_from(generation).unwrap(), Ordering::Release);
        // Nothing is counted at the other one by this table or a later.
        let state = proxy.state();
        assert!(state.instances.iter().all(|one| one.by_table.keys().all(|of| *of <= generation)));
    }
    ends.store(true, Ordering::Release);
    let asked: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(asked > 100, "{asked}");
    assert_eq!(*wrong.lock().unwrap(), vec![]);
}

#[test]
fn a_former_daemon_is_refused() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let table = Table { epoch: 3, ..to_one(1, "s", &[&agent]) };
    proxy.load(&table);
    for call in
        [proxy.block(proxy.client(2).load(1)).map(drop), proxy.block(proxy.client(2).drain("s-0", 1, true)).map(drop)]
    {
        assert_eq!(why(&call.unwrap_err()), Why::Fenced);
    }
    // It may look.
    assert_eq!(proxy.block(proxy.client(2).state()).unwrap().active.epoch, 3);
    // The word of a later one counts before it has written anything.
    assert_eq!(why(&proxy.block(proxy.client(5).load(9)).unwrap_err()), Why::Table);
    assert_eq!(why(&proxy.block(proxy.client(3).load(1)).unwrap_err()), Why::Fenced);
    assert_eq!(get(proxy.address, "/", &[]).status, 200);
}

#[test]
fn only_the_table_that_was_asked_for_is_used() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    write_table(&proxy.table_path(), &to_one(3, "s", &[&agent])).unwrap();
    let error = proxy.block(proxy.client(1).load(2)).unwrap_err();
    assert_eq!(why(&error), Why::Table);
    assert!(error.to_string().contains("generation 2 was asked for, and the file has 3"), "{error}");
    assert_eq!(proxy.state().active.generation, 1);
    assert_eq!(proxy.block(proxy.client(1).load(3)).unwrap().generation, 3);
    assert_eq!(proxy.block(proxy.client(1).load(3)).unwrap().generation, 3, "again is no error");
}

#[test]
fn nonsense_is_answered_and_breaks_nothing() {
    let proxy = Proxy::with(None, "");
    let mut stream = UnixStream::connect(proxy.control_path()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for (said, expected) in [
        ("{}", r#""why":"protocol""#),
        ("\u{1}\u{2}", r#""why":"protocol""#),
        (r#"{"version":2,"epoch":0,"ask":"state"}"#, "this proxy speaks 1"),
        (r#"{"version":1,"epoch":0,"ask":"state","more":1}"#, "unknown field"),
        (r#"{"version":1,"epoch":0,"ask":"state"}"#, r#""state":{"#),
    ] {
        stream.write_all(format!("{said}\n").as_bytes()).unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert!(answer.contains(expected), "{said}: {answer}");
    }
    // A question without end is cut off.
    let long = vec![b'x'; 1_000_000];
    let mut stream = UnixStream::connect(proxy.control_path()).unwrap();
    let _ = stream.write_all(&long);
    drop(stream);
    assert_eq!(proxy.state().active.generation, 0);
}

#[test]
fn another_account_may_not_speak() {
    let proxy = Proxy::with(None, "");
    let path = proxy.control_path();
    // One thread becomes somebody else, and keeps the rights to reach the folder: the proxy alone may refuse.
    let asked = std::thread::spawn(move || {
        rustix::thread::set_capabilities_secure_bits(rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
        let other = rustix::thread::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(None::<rustix::thread::Uid>, other, None::<rustix::thread::Uid>)?;
        let mut stream = UnixStream::connect(path)?;
        let _ = stream.write_all(b"{\"version\":1,\"epoch\":0,\"ask\":\"state\"}\n");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    match asked.join().unwrap() {
        Ok(answer) => assert!(answer.contains(r#""why":"forbidden""#), "{answer}"),
        // Only root can be somebody else.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}"),
    }
}

#[test]
fn each_release_is_measured_by_the_second() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..50 {
        raw.get("a.example", "/", &[]).unwrap();
    }
    for status in [301, 404, 404, 500, 500, 500] {
        raw.get("a.example", &format!("/status/{status}"), &[]).unwrap();
    }
    let mut seconds = vec![];
    let mut since = 0;
    let start = std::time::Instant::now();
    while seconds.iter().map(|second: &backstay::proxy::Second| second.counts.requests).sum::<u64>() < 56 {
        let metrics = proxy.block(proxy.client(1).metrics(since)).unwrap();
        since = metrics.until;
        for one in metrics.releases {
            assert_eq!(one.release, release("s"));
            seconds.extend(one.seconds);
        }
        assert!(start.elapsed().as_secs() < 20);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut all = backstay::proxy::Counts::default();
    let mut latency = Histogram::default();
    for second in &seconds {
        all.add(&second.counts);
        latency.merge(&second.latency);
    }
    assert!(seconds.windows(2).all(|pair| pair[0].second < pair[1].second), "no second is told twice");
    assert_eq!((all.requests, all.c2xx, all.c3xx, all.c4xx, all.c5xx, all.failed), (56, 50, 1, 2, 3, 0));
    assert_eq!(latency.count(), 56);
    assert!(latency.quantile(0.99).unwrap() >= latency.quantile(0.5).unwrap());
    let text = Raw::connect(proxy.metrics).get("m", "/metrics", &[]).unwrap().text();
    let label = format!("{{agent=\"support\",release=\"{}\"", release("s").short());
    for line in [
        format!("backstay_proxy_requests_total{label}}} 56"),
        format!("backstay_proxy_responses_total{label},class=\"5xx\"}} 3"),
        format!("backstay_proxy_request_duration_seconds_bucket{label},le=\"+Inf\"}} 56"),
        format!("backstay_proxy_first_byte_seconds_count{label}}} 56"),
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
    }
    assert_eq!(Raw::connect(proxy.metrics).get("m", "/healthz", &[]).unwrap().status, 200);
}
