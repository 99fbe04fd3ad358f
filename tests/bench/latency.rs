//! The cases that measure how long one change takes: drift, and a one-line commit in a large repository.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use http::Request;
use kube::core::WatchEvent;
use serde_json::{Value, json};

use super::Options;
use super::cases::Bench;
use super::cost::Cost;
use super::requests::BENCH;
use super::table::{Row, Table};
use super::workload::name;
use backstay::source::{Auth, Followed, Limits, Mirror, Rewind, SourceConfig};

/// The longest that one change is waited for.
const LONGEST: Duration = Duration::from_secs(20);
const DEPLOYMENTS: &str = "apps/v1/deployments";

/// Drift on one object of one agent after another, each until it is healed.
pub(crate) async fn drifts(options: &Options, bench: &mut Bench<'_>, table: &mut Table) {
    bench.rest().await;
    bench.requests.skip();
    let before = bench.cost();
    let mut events = watch(bench).await;
    let mut times = vec![];
    for number in 0..options.samples.min(options.agents) {
        let agent = name(number);
        let live = bench.lab.see(DEPLOYMENTS, &agent).await.expect("a Deployment");
        let wanted = live["spec"]["revisionHistoryLimit"].clone();
        let patch = json!({"spec": {"revisionHistoryLimit": 3}});
        bench.lab.merge(DEPLOYMENTS, &agent, BENCH, &patch).await;
        let drifted = Instant::now();
        let mut was_drifted = false;
        seen(&mut events, &agent, |body| {
            let now = &body["spec"]["revisionHistoryLimit"];
            was_drifted |= *now == 3;
            was_drifted && *now == wanted
        })
        .await;
        times.push(drifted.elapsed());
    }
    bench.rest().await;
    let after = bench.cost();
    let cost = Cost { cpu: after.cpu - before.cpu, ..after };
    let requests = bench.requests.since(&bench.lab.namespace);
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    table.add(Row {
        case: format!("drift healed, {} times", times.len()),
        measured: format!("p50 {}, p99 {}", millis(p50), millis(p99)),
        value: p50.as_secs_f64(),
        limit: "p50 10 ms, p99 100 ms".to_owned(),
        n: None,
        ratio: None,
        reached: p50 <= Duration::from_millis(10) && p99 <= Duration::from_millis(100),
        requests: Some(requests),
        cost: Some(cost),
    });
}

/// One-line commits, each from its hint until the Deployment has changed.
pub(crate) async fn commits(options: &Options, bench: &mut Bench<'_>, agents: usize, table: &mut Table) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = SourceConfig {
        url: bench.url().parse().expect("a URL"),
        branch: "main".to_owned(),
        interval: Duration::from_mins(1),
        auth: Auth::None,
        ca_file: None,
        rewind: Rewind::Refuse,
        limits: Limits::default(),
    };
    let mirror = Mirror::open(folder.path().join("mirror"), source).expect("a mirror");
    let followed = Followed::branch("main");
    mirror.poll(&followed).expect("fetched");
    bench.rest().await;
    bench.requests.skip();
    let before = bench.cost();
    let mut events = watch(bench).await;
    let (mut times, mut fetches) = (vec![], vec![]);
    for sample in 0..options.samples.min(agents) {
        let number = sample * 97 % agents;
        let agent = name(number);
        let line = format!("Greet with \"Good day {sample}!\".");
        let live = bench.lab.see(DEPLOYMENTS, &agent).await.expect("a Deployment");
        let release = live["metadata"]["labels"]["backstay.dev/release"].clone();
        assert!(release.is_string(), "the release is a label: {}", live["metadata"]["labels"]);
        bench.repository.change("Greet otherwise", std::iter::once(number), &line);
        let hinted = bench.daemon().hint(&bench.http).await;
        seen(&mut events, &agent, |body| body["metadata"]["labels"]["backstay.dev/release"] != release).await;
        times.push(hinted.elapsed());
        bench.operations += 1;
        bench.place.until_ended(bench.operations, LONGEST).await;
        let begun = Instant::now();
        assert!(mirror.poll(&followed).expect("fetched").fetched, "there was something to fetch");
        fetches.push(begun.elapsed());
    }
    bench.rest().await;
    let after = bench.cost();
    let cost = Cost { cpu: after.cpu - before.cpu, ..after };
    let requests = bench.requests.since(&bench.lab.namespace);
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    let fetch = (percentile(&mut fetches, 50), percentile(&mut fetches, 99));
    table.add(Row {
        case: format!("one-line commit among {agents} agents, {} times", times.len()),
        measured: format!(
            "p50 {}, p99 {} (the fetch alone: p50 {}, p99 {})",
            millis(p50),
            millis(p99),
            millis(fetch.0),
            millis(fetch.1)
        ),
        value: p50.as_secs_f64(),
        limit: "p50 200 ms, p99 500 ms".to_owned(),
        n: None,
        ratio: None,
        reached: p50 <= Duration::from_millis(200) && p99 <= Duration::from_millis(500),
        requests: Some(requests),
        cost: Some(cost),
    });
}

type Events<'a> = std::pin::Pin<Box<dyn Stream<Item = Result<WatchEvent<Value>, kube::Error>> + Send + 'a>>;

/// The changes of Deployments from now on.
async fn watch<'a>(bench: &Bench<'_>) -> Events<'a> {
    let path = bench.lab.path(DEPLOYMENTS);
    let list = bench.lab.ask(http::Method::GET, &format!("{path}?limit=1"), None).await.expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{path}?watch=true&resourceVersion={version}&timeoutSeconds=3000");
    let request = Request::get(path).body(vec![]).expect("a request");
    let client = bench.lab.client.clone();
    Box::pin(client.request_events::<Value>(request).await.expect("a watch"))
}

/// Waits until an object of an agent is so.
async fn seen(events: &mut Events<'_>, agent: &str, mut is: impl FnMut(&Value) -> bool) {
    let look = async {
        while let Some(event) = events.next().await {
            match event.expect("an event") {
                WatchEvent::Added(body) | WatchEvent::Modified(body) => {
                    if body["metadata"]["name"] == agent && is(&body) {
                        return;
                    }
                }
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => panic!("the watch broke: {status:?}"),
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(LONGEST, look).await.unwrap_or_else(|_| panic!("{agent} did not change in {LONGEST:?}"));
}

/// A percentile of the times, by the nearest rank.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
