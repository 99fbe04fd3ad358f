//! The proxy by itself: upgrades under load, and many idle streams.

use std::time::Instant;

use backstay::proxy::{Agent, Role};

use crate::cost::cost;
use crate::load::{Asked, Load};
use crate::row;
use crate::support::agent;
use crate::support::client::Raw;
use crate::support::process::{Proxy, arm, table as routes, to_one};
use crate::table::{Row, Table, megabytes};
use crate::{ms, quantile};

const UPGRADES: usize = 20;
const USERS: usize = 16;
const STREAMS_OF_AN_UPGRADE: usize = 8;
const IDLE_STREAMS: usize = 2_000;
const CHANGES: u64 = 50;

/// The program on disk takes over, again and again, with users and streams on the one before.
pub(crate) fn upgrades(table: &mut Table) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "stable", &[&agent]));
    let asked = Asked { address: proxy.address, host: "a".to_owned(), message: "hello".to_owned() };
    let load = runtime.block_on(async { Load::start(std::slice::from_ref(&asked), USERS) });
    let (mut cut, mut times) = (0, vec![]);
    for _ in 0..UPGRADES {
        let streams: Vec<_> = (0..STREAMS_OF_AN_UPGRADE).map(|_| open(&proxy)).collect();
        let begun = Instant::now();
        proxy.replace();
        times.push(begun.elapsed());
        streams.iter().for_each(|_| agent.open_gate());
        cut += streams.into_iter().filter_map(|mut stream| (!ends_well(&mut stream)).then_some(())).count();
    }
    let tally = runtime.block_on(load.stop());
    table.add(Row {
        measured: format!(
            "{} of {} requests failed, {cut} of {} streams cut; new one answers in p50 {}",
            tally.failed,
            tally.requests(),
            UPGRADES * STREAMS_OF_AN_UPGRADE,
            ms(quantile(&mut times, 0.5)),
        ),
        value: (tally.failed + cut as u64) as f64,
        limit: "0 failed, 0 cut".to_owned(),
        reached: tally.failed == 0 && cut == 0,
        ..row(&format!("{UPGRADES} upgrades of the proxy"))
    });
}

/// Many streams that wait: what they cost, and whether weights change as fast as ever.
pub(crate) fn idle_streams(table: &mut Table) {
    let (old, new) = (agent::Agent::start("old"), agent::Agent::start("new"));
    let proxy = Proxy::start(&to_one(1, "stable", &[&old, &new]));
    let streams: Vec<_> = (0..IDLE_STREAMS).map(|_| open(&proxy)).collect();
    let mut times = vec![];
    for turn in 0..CHANGES {
        let weight = u32::try_from(turn % 10).expect("small") * 1000;
        let arms = vec![
            arm("stable", Role::Stable, backstay::proxy::WHOLE - weight, &[&old]),
            arm("candidate", Role::Candidate, weight, &[&new]),
        ];
        let next = routes(2 + turn, Agent { arms, ..Agent::default() });
        let begun = Instant::now();
        proxy.load(&next);
        times.push(begun.elapsed());
    }
    let spent = cost(proxy.state().pid).expect("it runs");
    let p99 = quantile(&mut times, 0.99);
    table.add(Row {
        measured: format!("{} MB; weights change in p99 {}", megabytes(spent.resident), ms(p99)),
        value: spent.resident as f64,
        limit: "60 MB, 10 ms".to_owned(),
        reached: spent.resident <= 60_000_000 && p99.as_secs_f64() <= 0.01,
        cost: Some(spent),
        ..row(&format!("proxy, {IDLE_STREAMS} idle streams"))
    });
    drop(streams);
}

/// A stream whose first event has come.
fn open(proxy: &Proxy) -> Raw {
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    raw.head().expect("a head");
    raw.chunk().expect("an event");
    raw
}

/// Whether a stream gives its last event and ends as it should.
fn ends_well(stream: &mut Raw) -> bool {
    let last = stream.chunk().is_ok_and(|event| event.is_some_and(|event| event == b"data: 2\n\n"));
    last && stream.chunk().is_ok_and(|event| event.is_none())
}
