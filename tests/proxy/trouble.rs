//! Instances that fail, and tables that cannot be used.

use std::time::Duration;

use backstay::proxy::{
    Address, Agent, Arm, Match, Mirror, Protocol, Role, StoreError, Table, WHOLE, load_table, previous_path,
    write_table,
};
use proptest::prelude::*;

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, arm, release, table, to_one};

#[test]
fn where_nothing_is_ready_the_client_is_told_to_come_again() {
    let proxy = Proxy::with(None, "");
    assert_eq!(get(proxy.address, "/", &[]).status, 404, "nothing is served yet");
    proxy.load(&table(1, Agent::default()));
    let answer = get(proxy.address, "/", &[]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let agent = agent::Agent::start("one");
    let gone = to_one(2, "s", &[&agent]);
    agent.stop();
    while std::net::TcpStream::connect(agent.address).is_ok() {}
    proxy.load(&gone);
    let answer = get(proxy.address, "/", &[]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[test]
fn an_instance_that_cannot_be_reached_costs_no_request() {
    let (dead, alive) = (agent::Agent::start("dead"), agent::Agent::start("alive"));
    let table = to_one(1, "s", &[&dead, &alive]);
    dead.stop();
    while std::net::TcpStream::connect(dead.address).is_ok() {}
    let proxy = Proxy::start(&table);
    for method in ["GET", "POST"].iter().cycle().take(100) {
        let body = if *method == "POST" { &b"x"[..] } else { b"" };
        assert_eq!(Raw::connect(proxy.address).call(method, "a", "/", &[], body).unwrap().status, 200);
    }
    let state = proxy.state();
    assert!(state.instances.iter().find(|one| one.id == "s-0").unwrap().ejected);
    assert_eq!(state.releases[0].counts.c5xx, 0);
}

#[test]
fn an_instance_that_fails_is_left_alone_and_the_last_one_never() {
    let (bad, good) = (agent::Agent::start("bad"), agent::Agent::start("good"));
    let proxy = Proxy::start(&to_one(1, "s", &[&bad]));
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/status/500", &[]).status, 500, "the only one is asked, however it answers");
    }
    assert!(proxy.state().instances[0].ejected);
    let mut both = to_one(2, "s", &[&bad, &good]);
    both.agents.values_mut().next().unwrap().arms[0].instances[1].id = "good".into();
    proxy.load(&both);
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/", &[]).text(), "good GET /");
    }
    // Both bad: both are asked.
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/status/500", &[]).status, 500);
    }
    // It comes back by itself once its time is over.
    proxy.until("it is back", |state| state.instances.iter().all(|one| !one.ejected));
    let before = bad.hits();
    for _ in 0..50 {
        assert_eq!(get(proxy.address, "/", &[]).status, 200);
    }
    assert!(bad.hits() > before);
}

#[test]
fn the_last_table_outlives_every_start() {
    let (one, two) = (agent::Agent::start("one"), agent::Agent::start("two"));
    let mut proxy = Proxy::start(&to_one(1, "s", &[&one]));
    proxy.load(&to_one(2, "t", &[&two]));
    // T6: nobody speaks to it any more.
    proxy.kill_and_start();
    assert_eq!((get(proxy.address, "/", &[]).text(), proxy.state().active.generation), ("two GET /".into(), 2));
}

#[test]
fn a_damaged_table_gives_way_to_the_one_before() {
    let (one, two) = (agent::Agent::start("one"), agent::Agent::start("two"));
    for damage in ["edited", "torn", "gone"] {
        let mut proxy = Proxy::start(&to_one(1, "s", &[&one]));
        proxy.load(&to_one(2, "t", &[&two]));
        let (path, text) = (proxy.table_path(), std::fs::read_to_string(proxy.table_path()).unwrap());
        match damage {
            "edited" => std::fs::write(&path, text.replace(r#""role": "stable""#, r#""role": "candidate""#)).unwrap(),
            "torn" => std::fs::write(&path, &text[..text.len() / 2]).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        assert!(proxy.block(proxy.client(1).load(2)).is_err(), "{damage}");
        assert_eq!(get(proxy.address, "/", &[]).text(), "two GET /", "{damage}: the one in use stays");
        proxy.kill_and_start();
        let state = proxy.state();
        assert_eq!((get(proxy.address, "/", &[]).text(), state.active.generation), ("one GET /".into(), 1), "{damage}");
        assert!(state.fallback.unwrap().contains("the routing table"), "{damage}");
        // The next good one ends it.
        proxy.load(&to_one(3, "t", &[&two]));
        assert_eq!((get(proxy.address, "/", &[]).text(), proxy.state().fallback), ("two GET /".into(), None));
        // A damaged table never becomes the one before.
        assert_eq!(load_table(&previous_path(&path)).unwrap().table.generation, 1, "{damage}");
    }
}

#[test]
fn a_table_of_another_boot_sends_nobody_anywhere() {
    let agent = agent::Agent::start("one");
    let mut old = to_one(1, "s", &[&agent]);
    old.boot_id = "another".into();
    let proxy = Proxy::start(&old);
    assert_eq!((get(proxy.address, "/", &[]).status, proxy.state().stale), (503, true));
    proxy.load(&to_one(2, "s", &[&agent]));
    assert_eq!((get(proxy.address, "/", &[]).status, proxy.state().stale), (200, false));
}

#[test]
fn an_older_table_is_neither_written_nor_used() {
    let agent = agent::Agent::start("one");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.json");
    let of = |epoch, generation| Table { epoch, ..to_one(generation, "s", &[&agent]) };
    write_table(&path, &of(2, 5)).unwrap();
    for (epoch, generation) in [(1, 9), (2, 4), (2, 5)] {
        let mut older = of(epoch, generation);
        older.boot_id = "other".into();
        assert!(matches!(write_table(&path, &older), Err(StoreError::Older { .. })), "{epoch} {generation}");
    }
    write_table(&path, &of(2, 5)).unwrap();
    write_table(&path, &of(3, 1)).unwrap();
    assert_eq!(load_table(&previous_path(&path)).unwrap().table.order(), (2, 5));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left there");
}

/// T1: a table that breaks a rule is neither written nor read.
#[test]
fn every_rule_of_a_table_is_kept() {
    let one = agent::Agent::start("one");
    let good = || {
        let arms = vec![
            arm("s", Role::Stable, 7_000, &[&one]),
            Arm { instances: vec![], ..arm("c", Role::Candidate, 0, &[]) },
        ];
        let mut table = table(1, Agent { arms, ..Agent::default() });
        let other = agent::Agent::start("two");
        table.agents.values_mut().next().unwrap().arms.push(arm("d", Role::Candidate, 3_000, &[&other]));
        table
    };
    good().check().unwrap();
    let broken = |what: &str, change: &dyn Fn(&mut Table)| {
        let mut table = good();
        change(&mut table);
        let said = table.check().unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
        assert!(write_table(&std::env::temp_dir().join("never"), &table).is_err());
    };
    macro_rules! arms {
        ($table:ident) => {
            $table.agents.values_mut().next().unwrap().arms
        };
    }
    broken("sum to 9999", &|table| arms!(table)[0].weight -= 1);
    broken("sum to 4294977295", &|table| (arms!(table)[0].weight, arms!(table)[2].weight) = (u32::MAX, WHOLE));
    broken("has weight 3000 and no instance", &|table| arms!(table)[2].instances.clear());
    broken("more than one stable", &|table| arms!(table)[1].role = Role::Stable);
    broken("is a preview with weight", &|table| arms!(table)[2].role = Role::Preview);
    broken("has another arm already", &|table| arms!(table)[1].release = release("s"));
    broken("stands twice", &|table| arms!(table)[2].instances[0].id = "s-0".into());
    broken("have the same address", &|table| {
        arms!(table)[2].instances[0].address = arms!(table)[0].instances[0].address.clone();
    });
    broken("is no id", &|table| arms!(table)[0].instances[0].id = "../x".into());
    broken("cannot be reached", &|table| {
        arms!(table)[0].instances[0].address = Address::Tcp("0.0.0.0:1".parse().unwrap());
    });
    broken("no absolute path", &|table| arms!(table)[0].instances[0].address = Address::Unix("x".into()));
    broken("no absolute path", &|table| {
        arms!(table)[0].instances[0].address = Address::Unix(format!("/{}", "x".repeat(120)).into());
    });
    broken("which has no instance", &|table| {
        let rule = Match { header: "x".into(), cookie: None, value: None, release: release("c") };
        table.agents.values_mut().next().unwrap().matches.push(rule);
    });
    broken("which has no instance", &|table| {
        table.agents.values_mut().next().unwrap().mirror = Some(Mirror { to: release("c"), percent: 5 });
    });
    broken("more than all", &|table| {
        table.agents.values_mut().next().unwrap().mirror = Some(Mirror { to: release("s"), percent: 101 });
    });
    broken("only the header `cookie`", &|table| {
        let rule = Match { header: "x".into(), cookie: Some("a".into()), value: None, release: release("s") };
        table.agents.values_mut().next().unwrap().matches.push(rule);
    });
    broken("which has no instance", &|table| table.routes[0].release = Some(release("c")));
    broken("there is no agent", &|table| table.routes[0].agent = "other".parse().unwrap());
    broken("another route has", &|table| table.routes.push(table.routes[0].clone()));
    broken("is no path", &|table| table.routes[0].path = "x".into());
    broken("is no host", &|table| table.routes[0].hosts = vec!["A.example".into()]);
    broken("this version knows", &|table| table.format = 2);
}

proptest! {
    /// T1: whatever weights a writer comes up with, either the table is refused or every place on the line has an
    /// instance behind it.
    #[test]
    fn no_weight_points_at_nothing(weights in prop::collection::vec((0_u32..=WHOLE, 0_usize..3, 0_u8..3), 0..5)) {
        let arms = weights.iter().enumerate().map(|(index, (weight, count, role))| {
            let instances = (0..*count).map(|number| backstay::proxy::Instance {
                id: format!("i-{index}-{number}"),
                generation: 1,
                address: Address::Unix(format!("/run/{index}-{number}").into()),
                protocol: Protocol::default(),
            });
            let role = [Role::Stable, Role::Candidate, Role::Preview][usize::from(*role)];
            Arm { release: release(&index.to_string()), role, weight: *weight, instances: instances.collect() }
        });
        let table = table(1, Agent { arms: arms.collect(), ..Agent::default() });
        let agent = table.agents.values().next().unwrap();
        if table.check().is_ok() && !agent.arms.is_empty() {
            for chance in 0..WHOLE {
                let arm = backstay::proxy::arm_of(agent, &table.routes[0], &http::HeaderMap::new(), chance);
                prop_assert!(!agent.arms[arm.unwrap()].instances.is_empty());
            }
        }
    }

    /// A table reads back as it was, and one byte more or less is seen.
    #[test]
    fn a_changed_byte_is_seen(at in 0.0_f64..1.0, byte in b' '..b'~') {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let arms = vec![Arm {
            release: release("s"),
            role: Role::Stable,
            weight: WHOLE,
            instances: vec![backstay::proxy::Instance {
                id: "i".into(), generation: 1, address: Address::Unix("/run/i".into()), protocol: Protocol::default(),
            }],
        }];
        let table = table(1, Agent { arms, ..Agent::default() });
        write_table(&path, &table).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let index = (at * bytes.len() as f64) as usize;
        let before = bytes[index];
        bytes[index] = byte;
        std::fs::write(&path, bytes).unwrap();
        // Space is no content.
        match load_table(&path) {
            Ok(loaded) => prop_assert!(loaded.table == table, "{before} became {byte}"),
            Err(_) => prop_assert!(before != byte),
        }
    }
}

#[test]
fn a_half_dead_machine_is_waited_for_only_so_long() {
    // An address of the documentation's block: packets there go nowhere, or are refused.
    let agent = agent::Agent::start("one");
    let mut table = to_one(1, "s", &[&agent]);
    let arms = &mut table.agents.values_mut().next().unwrap().arms;
    arms[0].instances[0].address = Address::Tcp("192.0.2.1:9".parse().unwrap());
    let proxy = Proxy::with(Some(&table), "---[proxy.limits]\nconnect = '200ms'");
    let start = std::time::Instant::now();
    assert_eq!(get(proxy.address, "/", &[]).status, 503);
    assert!(start.elapsed() < Duration::from_secs(15));
}
