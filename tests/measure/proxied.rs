//! The figures of a real proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay::desired::rollout::{Metric, Preset};
use backstay::judge::{Arms, Totals};
use backstay::measure::{Ground, Providers, Proxy as Told};
use backstay::proxy::{Agent, Role, WHOLE};
use backstay::rollout::{Measurements, Question};

use crate::ask::{counters, now, presets, question, totals, why};
use crate::support::agent;
use crate::support::client::get;
use crate::support::process::{Proxy, arm, release, table};

fn counted(told: &Measurements) -> Arms<(f64, f64)> {
    totals(told, "error_rate").map(|totals| match totals {
        Totals::Binary { n, x } => (n, x),
        other @ (Totals::Mean { .. } | Totals::Latency { .. }) => panic!("{other:?}"),
    })
}

#[test]
fn the_proxys_own_figures_grow_and_outlive_it() {
    let (good, bad) = (agent::Agent::start("good"), agent::Agent::start("bad"));
    let arms = vec![arm("s", Role::Stable, WHOLE / 2, &[&good]), arm("c", Role::Candidate, WHOLE / 2, &[&bad])];
    let mut proxy = Proxy::start(&table(1, Agent { arms, ..Agent::default() }));
    let ground = Ground {
        namespace: "dev".to_owned(),
        proxy: Some(Told { control: proxy.control_path(), table: proxy.table_path() }),
    };
    let providers = Providers::new(BTreeMap::new(), ground);
    let mut question = question(presets(None));
    question.releases = Arms { candidate: release("c"), stable: release("s") };
    let seen = "proxy sees no goals".to_owned();
    let goals = Metric { provider: Some("proxy".to_owned()), ..Metric::preset(Preset::GoalCompletion) };
    question.metrics.insert(seen.clone(), goals);

    // What was before is not counted.
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/status/503", &[]).status, 503);
    }
    let told = proxy.block(providers.measure(&question, now()));
    assert_eq!(told.metrics.len(), 12);
    assert!(why(&told, &seen).contains("the proxy cannot see `goal_completion`"), "{}", why(&told, &seen));
    assert!(why(&told, "goal_completion").contains("no instance is ready"), "that is scraped");

    let mut before = until(&proxy, &providers, &question, |_| true);
    for round in 0..2 {
        for _ in 0..100 {
            get(proxy.address, "/status/503", &[]);
            get(proxy.address, "/", &[]);
        }
        let wanted = |told: Arms<(f64, f64)>| told.candidate.0 + told.stable.0;
        let least = wanted(before) + 200.0;
        let after = until(&proxy, &providers, &question, |told| wanted(told) >= least);
        assert!((after.candidate.1 + after.stable.1) - (before.candidate.1 + before.stable.1) >= 100.0, "{after:?}");
        assert!(after.candidate.0 > before.candidate.0 && after.stable.0 > before.stable.0, "{after:?}");
        before = after;
        if round == 0 {
            // A proxy that starts anew takes nothing away, and adds nothing twice.
            proxy.kill_and_start();
            let same = counted(&proxy.block(providers.measure(&question, now())));
            assert_eq!(same, after);
        }
    }
    let told = proxy.block(providers.measure(&question, now()));
    let (latency, first) = (totals(&told, "latency_p99"), totals(&told, "time_to_first_token"));
    for (name, totals) in [("latency", latency.stable), ("first byte", first.stable)] {
        let Totals::Latency { boundaries, counts } = totals else { panic!("{name}") };
        assert!(boundaries.len() <= 200 && counts.len() == boundaries.len() + 1, "{name}");
        assert!((counts.iter().sum::<f64>() - counted(&told).stable.0).abs() < 0.5, "{name}: {counts:?}");
    }
    // The daemon after this one begins at zero, under a name of its own.
    let names = counters(&told, "error_rate").map(|side| side.unwrap()[0].instance.clone());
    assert!(names.candidate == names.stable && names.candidate.starts_with("proxy-"), "{names:?}");
}

/// Asks until it is so: a second is told when it is over.
fn until(
    proxy: &Proxy,
    providers: &Providers,
    question: &Question,
    is: impl Fn(Arms<(f64, f64)>) -> bool,
) -> Arms<(f64, f64)> {
    for _ in 0..200 {
        let told = counted(&proxy.block(providers.measure(question, now())));
        if is(told) {
            return told;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the proxy never tells");
}

#[test]
fn a_proxy_that_is_not_there_is_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ground = Ground {
        namespace: "dev".to_owned(),
        proxy: Some(Told { control: folder.path().join("p.sock"), table: folder.path().join("routes.json") }),
    };
    let told = runtime.block_on(Providers::new(BTreeMap::new(), ground).measure(&question(presets(None)), now()));
    assert!(why(&told, "latency_p50").contains("cannot reach the proxy"), "{}", why(&told, "latency_p50"));
}
