//! Where requests go: hosts, paths, weights, people, headers, copies.

use std::collections::BTreeMap;

use backstay::proxy::{Agent, Match, Mirror, Role, Route, Routes, Sticky, StickyBy, Table, WHOLE, arm_of, place};
use http::HeaderMap;
use proptest::prelude::*;

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, agent_name, arm, release, table, to_one};

fn name_of(answer: &crate::support::client::Answer) -> String {
    answer.text().split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn hosts_and_paths_lead_to_agents() {
    let (one, two, three) = (agent::Agent::start("one"), agent::Agent::start("two"), agent::Agent::start("three"));
    let mut table = Table::empty(1, 1, "");
    let mut add = |name: &str, hosts: &[&str], path: &str, to: &agent::Agent| {
        let agent = Agent { arms: vec![arm(name, Role::Stable, WHOLE, &[to])], ..Agent::default() };
        table.agents.insert(name.parse().unwrap(), agent);
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        table.routes.push(Route { hosts, path: path.to_owned(), agent: name.parse().unwrap(), release: None });
    };
    add("one", &["a.example"], "/", &one);
    add("two", &["a.example", "*.b.example"], "/api", &two);
    add("three", &[], "/", &three);
    let proxy = Proxy::start(&table);
    let asked = |host: &str, target: &str| name_of(&Raw::connect(proxy.address).get(host, target, &[]).unwrap());
    assert_eq!(asked("a.example", "/"), "one");
    assert_eq!(asked("A.Example:8080", "/apix"), "one");
    assert_eq!(asked("a.example", "/api?x=/"), "two");
    assert_eq!(asked("x.y.b.example", "/api/v1"), "two");
    assert_eq!(asked("x.b.example", "/other"), "three", "a host without a fitting path asks the less specific ones");
    assert_eq!(asked("elsewhere", "/api"), "three");
    // The host of an absolute target wins over the header.
    assert_eq!(asked("elsewhere", "http://a.example/"), "one");
    assert_eq!(one.last().header("host"), Some("a.example"));
}

#[test]
fn weights_split_as_they_say() {
    let (stable, candidate) = (agent::Agent::start("stable"), agent::Agent::start("candidate"));
    let arms = vec![arm("s", Role::Stable, 9_000, &[&stable]), arm("c", Role::Candidate, 1_000, &[&candidate])];
    let proxy = Proxy::start(&table(1, Agent { arms, ..Agent::default() }));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..10_000 {
        assert_eq!(raw.get("a.example", "/", &[]).unwrap().status, 200);
    }
    // Binomial, 10,000 at 0.1: within 99.9 % (3.29 standard deviations of 30).
    let share = i64::try_from(candidate.hits()).unwrap();
    assert!((share - 1_000).abs() < 99, "{share} of 10,000 at a tenth");
    assert_eq!(stable.hits() + candidate.hits(), 10_000);
}

#[test]
fn a_person_stays_in_one_arm_on_every_connection() {
    let (stable, candidate) = (agent::Agent::start("stable"), agent::Agent::start("candidate"));
    for by in [StickyBy::Header("x-session".into()), StickyBy::User("x-user".into()), StickyBy::Cookie("seat".into())] {
        let arms = vec![arm("s", Role::Stable, 5_000, &[&stable]), arm("c", Role::Candidate, 5_000, &[&candidate])];
        let sticky = Some(Sticky { by: by.clone(), salt: "support".into(), issue: false });
        let proxy = Proxy::start(&table(1, Agent { arms, sticky, ..Agent::default() }));
        let mut seen = BTreeMap::new();
        for round in 0..3 {
            for person in 0..40 {
                let (header, value) = match &by {
                    StickyBy::Header(name) | StickyBy::User(name) => (name.clone(), format!("p{person}")),
                    StickyBy::Cookie(name) => ("cookie".to_owned(), format!("a=b; {name}=p{person}; c=d")),
                };
                let arm = name_of(&get(proxy.address, "/", &[(&header, &value)]));
                assert_eq!(*seen.entry(person).or_insert_with(|| arm.clone()), arm, "round {round}");
            }
        }
        let arms: std::collections::BTreeSet<_> = seen.values().collect();
        assert_eq!(arms.len(), 2, "forty people are in both arms");
    }
}

#[test]
fn whoever_has_no_cookie_is_given_one_that_keeps_them_where_they_are() {
    let (stable, candidate) = (agent::Agent::start("stable"), agent::Agent::start("candidate"));
    let arms = vec![arm("s", Role::Stable, 5_000, &[&stable]), arm("c", Role::Candidate, 5_000, &[&candidate])];
    let sticky = Some(Sticky { by: StickyBy::Cookie("seat".into()), salt: String::new(), issue: true });
    let proxy = Proxy::start(&table(1, Agent { arms, sticky, ..Agent::default() }));
    for _ in 0..20 {
        let first = get(proxy.address, "/", &[]);
        let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let second = get(proxy.address, "/", &[("cookie", &cookie)]);
        assert_eq!((name_of(&second), second.header("set-cookie")), (name_of(&first), None));
    }
}

#[test]
fn a_header_or_a_host_leads_to_a_preview_and_nothing_else_does() {
    let (stable, preview) = (agent::Agent::start("stable"), agent::Agent::start("preview"));
    let arms = vec![arm("s", Role::Stable, WHOLE, &[&stable]), arm("p", Role::Preview, 0, &[&preview])];
    let matches = vec![
        Match { header: "x-try".into(), cookie: None, value: Some("yes".into()), release: release("p") },
        Match { header: "x-any".into(), cookie: None, value: None, release: release("p") },
        Match { header: "cookie".into(), cookie: Some("try".into()), value: Some("yes".into()), release: release("p") },
    ];
    let mut table = table(1, Agent { arms, matches, ..Agent::default() });
    let hosts = vec!["preview.example".to_owned()];
    table.routes.push(Route { hosts, path: "/".into(), agent: agent_name(), release: Some(release("p")) });
    let proxy = Proxy::start(&table);
    for _ in 0..20 {
        assert_eq!(name_of(&get(proxy.address, "/", &[])), "stable");
    }
    assert_eq!(name_of(&get(proxy.address, "/", &[("X-Try", "no")])), "stable");
    assert_eq!(name_of(&get(proxy.address, "/", &[("X-Try", "yes")])), "preview");
    assert_eq!(name_of(&get(proxy.address, "/", &[("x-any", "")])), "preview");
    for (cookies, name) in [("a=b; try=yes; c=d", "preview"), ("try=yes", "preview"), ("try=yess; a=try=yes", "stable")]
    {
        assert_eq!(name_of(&get(proxy.address, "/", &[("cookie", cookies)])), name, "{cookies}");
    }
    assert_eq!(name_of(&Raw::connect(proxy.address).get("preview.example", "/", &[]).unwrap()), "preview");
    // Nothing of it is ready any more: nobody else answers in its place.
    (table.generation, table.agents.values_mut().next().unwrap().matches) = (2, vec![]);
    table.agents.values_mut().next().unwrap().arms[1].instances.clear();
    proxy.load(&table);
    assert_eq!(Raw::connect(proxy.address).get("preview.example", "/", &[]).unwrap().status, 503);
    assert_eq!(name_of(&get(proxy.address, "/", &[])), "stable");
}

#[test]
fn a_mirror_gets_copies_and_nobody_sees_its_answers() {
    let (stable, shadow) = (agent::Agent::start("stable"), agent::Agent::start("shadow"));
    let arms = vec![arm("s", Role::Stable, WHOLE, &[&stable]), arm("m", Role::Candidate, 0, &[&shadow])];
    let mirror = Some(Mirror { to: release("m"), percent: 100 });
    let proxy = Proxy::start(&table(1, Agent { arms, mirror, ..Agent::default() }));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..5 {
        assert_eq!(name_of(&raw.call("POST", "a.example", "/x?y", &[], b"hello").unwrap()), "stable");
    }
    proxy.until("five copies were sent", |state| {
        state.releases.iter().any(|one| one.release == release("m") && one.counts.mirrored == 5 && one.in_flight == 0)
    });
    let copy = shadow.last();
    assert_eq!((copy.method.as_str(), copy.target.as_str(), &copy.body[..]), ("POST", "/x?y", &b"hello"[..]));
    assert_eq!((copy.header("backstay-mirror"), stable.last().header("backstay-mirror")), (Some("1"), None));
    assert_eq!(proxy.state().releases.iter().find(|one| one.release == release("m")).unwrap().counts.requests, 0);
}

#[test]
fn weights_move_on_a_kept_connection() {
    let (stable, candidate) = (agent::Agent::start("stable"), agent::Agent::start("candidate"));
    let proxy = Proxy::start(&to_one(1, "s", &[&stable]));
    let mut raw = Raw::connect(proxy.address);
    assert_eq!(name_of(&raw.get("a.example", "/", &[]).unwrap()), "stable");
    proxy.load(&to_one(2, "c", &[&candidate]));
    assert_eq!(name_of(&raw.get("a.example", "/", &[]).unwrap()), "candidate");
}

proptest! {
    /// More weight only ever moves people towards the candidate.
    #[test]
    fn moves_are_monotone(
        salt in "[a-z]{0,8}",
        people in prop::collection::vec("[a-zA-Z0-9-]{1,24}", 1..60),
        mut weights in prop::collection::vec(0..=WHOLE, 2..8),
    ) {
        weights.sort_unstable();
        let route = Route { hosts: vec![], path: "/".into(), agent: agent_name(), release: None };
        let sticky = Some(Sticky { by: StickyBy::Header("x-user".into()), salt, issue: false });
        let mut moved = vec![false; people.len()];
        for weight in weights {
            let bare = |name, role, weight| backstay::proxy::Arm { release: release(name), role, weight, instances: vec![] };
            let arms = vec![bare("s", Role::Stable, WHOLE - weight), bare("c", Role::Candidate, weight)];
            let agent = Agent { arms, sticky: sticky.clone(), ..Agent::default() };
            for (person, moved) in people.iter().zip(&mut moved) {
                let mut headers = HeaderMap::new();
                headers.insert("x-user", person.parse().unwrap());
                let candidate = arm_of(&agent, &route, &headers, 0) == Some(1);
                prop_assert!(candidate || !*moved, "{person} moved back at {weight}");
                *moved = candidate;
            }
        }
    }

    /// The share of a crowd is its weight.
    #[test]
    fn a_crowd_is_spread_evenly(salt in "[a-z]{1,8}", weight in 0..=WHOLE) {
        let within = (0..4_000).filter(|person| place(&salt, format!("user-{person}").as_bytes()) < weight).count();
        let expected = f64::from(weight) / f64::from(WHOLE) * 4_000.0;
        // Five standard deviations at most.
        let off = (f64::from(u32::try_from(within).unwrap()) - expected).abs();
        prop_assert!(off < 160.0, "{within} of 4,000, and {expected} were expected");
    }

    #[test]
    fn no_path_or_host_breaks_the_routes(host in ".{0,40}", path in ".{0,40}") {
        let mut table = Table::empty(1, 1, "");
        for (hosts, path) in [(vec![], "/a"), (vec!["x.example".to_owned(), "*.example".to_owned()], "/")] {
            table.routes.push(Route { hosts, path: path.into(), agent: agent_name(), release: None });
        }
        let _ = Routes::of(&table).find(&host, &path);
    }
}
