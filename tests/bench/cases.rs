//! The cases, each with what it must reach.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use super::cost::Cost;
use super::counted::Counted;
use super::daemon::{Daemon, GitServer, Place};
use super::lab::{Lab, lab};
use super::latency::{commits, drifts};
use super::limit::{IN_FLIGHT, Limit, Records, run as run_limit};
use super::requests::Requests;
use super::table::{Row, Table, megabytes};
use super::workload::{FIRST, Repository, SECOND, objects};
use super::{Options, longest};

/// What an operation of all agents must reach: this many times the limit.
const TIMES_LIMIT: f64 = 1.5;
/// The longest start on a cluster that is in order.
const START: Duration = Duration::from_secs(3);
/// The most of a core while nothing changes.
const IDLE: f64 = 0.005;

/// One operation of all agents, as the daemon did it.
struct Measured {
    name: &'static str,
    took: Duration,
    requests: Counted,
    cost: Cost,
}

/// A daemon with its surroundings.
pub(crate) struct Bench<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) repository: Repository,
    pub(crate) place: Place,
    /// Nothing: it is stopped, so that it costs the others nothing.
    daemon: Option<Daemon>,
    pub(crate) http: reqwest::Client,
    pub(crate) requests: Requests,
    /// Operations that were asked for since the place was made.
    pub(crate) operations: usize,
    server: GitServer,
}

// === impl Bench ===

impl<'a> Bench<'a> {
    /// A daemon that follows a repository without agents.
    async fn start(lab: &'a Lab) -> Self {
        let repository = Repository::new();
        let server = GitServer::of(repository.parent());
        let place = Place::new(&server.url(), &lab.namespace);
        let daemon = Some(place.start().await);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let requests = Requests::of_lab();
        Self { lab, repository, place, daemon, http, requests, operations: 0, server }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon runs")
    }

    /// What the daemon has cost since it began.
    pub(crate) fn cost(&self) -> Cost {
        self.daemon().cost().expect("it runs")
    }

    async fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
    }

    async fn start_again(&mut self) {
        self.stop().await;
        self.daemon = Some(self.place.start().await);
        self.rest().await;
    }

    /// Hints, and waits until so many operations have ended; what it took and cost.
    async fn measure(&mut self, name: &'static str, operations: usize) -> Measured {
        self.rest().await;
        self.requests.skip();
        let before = self.cost();
        let sent = self.daemon().hint(&self.http).await;
        self.operations += operations;
        self.place.until_ended(self.operations, longest(operations)).await;
        let took = sent.elapsed();
        // What it does afterwards, such as telling people, is its work too.
        self.rest().await;
        let after = self.cost();
        let cost = Cost { cpu: after.cpu - before.cpu, ..after };
        let requests = self.requests.since(&self.lab.namespace);
        Measured { name, took, requests, cost }
    }

    /// Waits until nobody writes to the API server any more, Kubernetes' own controllers included.
    pub(crate) async fn rest(&self) {
        rest(&Requests::of_lab()).await;
    }

    /// The record of an agent.
    async fn record(&self, name: &str) -> Value {
        let mut release = self.lab.see("backstay.dev/v1alpha1/agentreleases", name).await.expect("a record");
        release["status"].take()
    }
}

async fn rest(requests: &Requests) {
    let begun = Instant::now();
    loop {
        requests.skip();
        tokio::time::sleep(Duration::from_millis(700)).await;
        if requests.busy() <= 3 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_mins(10), "the cluster does not come to rest");
    }
}

/// The cases on as many agents as are asked for.
pub(crate) async fn small(options: &Options, lab: &Lab, table: &mut Table) {
    let agents = options.agents;
    let mut bench = Bench::start(lab).await;
    bench.repository.install(agents, false);
    let mut measured = vec![bench.measure("install", agents).await];
    let first = super::workload::name(0);
    let installed = bench.record(&first).await;
    if options.wants("memory") {
        table.add(memory(agents, 100.0, bench.cost()));
    }
    if options.wants_any(&["install", "change", "revert"]) {
        let changed = bench.repository.change("Change every prompt", 0..agents, SECOND);
        measured.push(bench.measure("change", agents).await);
        let changed_record = bench.record(&first).await;
        let message = format!("Revert \"Change every prompt\"\n\nThis reverts commit {changed}.");
        bench.repository.change(&message, 0..agents, FIRST);
        measured.push(bench.measure("revert", agents).await);
        let reverted = bench.record(&first).await;
        check(&bench, agents).await;
        bench.stop().await;
        let limits = limits(options, &Records::of(&installed, &changed_record, &reverted)).await;
        for (measured, limit) in measured.into_iter().zip(limits) {
            if options.wants(measured.name) {
                let (took, observed) = (measured.took.as_secs_f64(), limit.observed.as_secs_f64());
                table.note(format!(
                    "{} {agents} agents: the bare client's Deployments were observed after {observed:.2} s, for which the \
                     daemon waits before it records the end; {:.2} times that",
                    measured.name,
                    took / observed
                ));
                table.add(against(agents, measured, limit));
            }
        }
        bench.start_again().await;
    }
    if options.wants("start") {
        bench.stop().await;
        start(&bench, agents, table).await;
        bench.start_again().await;
    }
    if options.wants("idle") {
        idle(&bench, agents, options.idle, table).await;
    }
    if options.wants("drift") {
        drifts(options, &mut bench, table).await;
    }
}

/// The cases on ten times as many agents, and a hundred files for each of them.
pub(crate) async fn large(options: &Options, lab: &Lab, table: &mut Table) {
    let agents = options.large.unwrap_or(options.agents * 10);
    let mut bench = Bench::start(lab).await;
    bench.repository.install(agents, true);
    let installed = bench.measure("install", agents).await;
    table.note(format!("{agents} agents installed in {:.1} s", installed.took.as_secs_f64()));
    bench.start_again().await;
    if options.wants("memory") {
        table.add(memory(agents, 256.0, bench.cost()));
    }
    if options.wants("commit") {
        commits(options, &mut bench, agents, table).await;
    }
}

/// The fastest run of the bare client, for each of the three cases.
async fn limits(options: &Options, records: &Records) -> Vec<Limit> {
    let mut best: Vec<Limit> = vec![];
    for in_flight in IN_FLIGHT {
        let lab = lab("bench-limit").await.expect("a lab");
        let objects = objects(options.agents, &lab.namespace);
        rest(&Requests::of_lab()).await;
        let found = run_limit(&lab.client, &lab.namespace, objects, records, in_flight, async || {
            rest(&Requests::of_lab()).await;
        })
        .await;
        std::mem::forget(lab);
        eprintln!(
            "limit at {in_flight} in flight: {}",
            found.iter().map(|limit| format!("{:.2} s", limit.took.as_secs_f64())).collect::<Vec<_>>().join(", ")
        );
        if best.is_empty() {
            best.extend(found);
        }
        for (best, found) in best.iter_mut().zip(found) {
            let observed = best.observed.min(found.observed);
            if found.took < best.took {
                *best = found;
            }
            best.observed = observed;
        }
    }
    best
}

fn against(agents: usize, measured: Measured, limit: Limit) -> Row {
    let ratio = measured.took.as_secs_f64() / limit.took.as_secs_f64();
    Row {
        case: format!("{} {agents} agents", measured.name),
        measured: format!("{:.2} s", measured.took.as_secs_f64()),
        value: measured.took.as_secs_f64(),
        limit: format!("{:.2} s, {} writes, {} in flight", limit.took.as_secs_f64(), limit.writes, limit.in_flight),
        n: None,
        ratio: Some(ratio),
        reached: ratio <= TIMES_LIMIT,
        requests: Some(measured.requests),
        cost: Some(measured.cost),
    }
}

fn memory(agents: usize, most: f64, cost: Cost) -> Row {
    Row {
        case: format!("memory at {agents} agents"),
        measured: format!("{} MB, peak {} MB", megabytes(cost.resident), megabytes(cost.peak)),
        value: cost.peak as f64,
        limit: format!("{most} MB"),
        n: None,
        ratio: None,
        reached: cost.peak as f64 <= most * 1e6,
        requests: None,
        cost: Some(cost),
    }
}

/// Every agent must be Ready, or what was measured was not the work.
async fn check(bench: &Bench<'_>, agents: usize) {
    let path = bench.lab.path("backstay.dev/v1alpha1/agentreleases");
    let list = bench.lab.ask(Method::GET, &path, None).await.expect("a list");
    let is_ready = |release: &&Value| {
        let conditions = release["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    let ready = list["items"].as_array().expect("a list").iter().filter(is_ready).count();
    assert_eq!(ready, agents, "not all agents are Ready; the daemon said:\n{}", bench.place.log());
}

async fn start(bench: &Bench<'_>, agents: usize, table: &mut Table) {
    bench.rest().await;
    bench.requests.skip();
    let (took, end, cost) = bench.place.once().await;
    assert!(end.success(), "it did not become Ready: {end}\n{}", bench.place.log());
    bench.rest().await;
    let requests = bench.requests.since(&bench.lab.namespace);
    let others = requests.other_writes();
    table.add(Row {
        case: format!("start on {agents} agents in order"),
        measured: format!("{:.2} s, {others} writes but lease and epoch", took.as_secs_f64()),
        value: took.as_secs_f64(),
        limit: format!("{} s, 0 writes", START.as_secs()),
        n: None,
        ratio: None,
        reached: took <= START && others == 0,
        requests: Some(requests),
        cost: Some(cost),
    });
}

async fn idle(bench: &Bench<'_>, agents: usize, seconds: u64, table: &mut Table) {
    bench.rest().await;
    bench.daemon().forget_peak();
    bench.requests.skip();
    let before = bench.cost();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = bench.cost();
    let requests = bench.requests.since(&bench.lab.namespace);
    let share = (after.cpu - before.cpu) / seconds as f64;
    let others = requests.but_watches_and_lease();
    table.add(Row {
        case: format!("nothing changed for {seconds} s, {agents} agents"),
        measured: format!("{others} requests but watches and lease, {:.2} % of a core", share * 100.0),
        value: share,
        limit: format!("0 requests, {} %", IDLE * 100.0),
        n: None,
        ratio: None,
        reached: others == 0 && share <= IDLE,
        requests: Some(requests),
        cost: Some(Cost { cpu: after.cpu - before.cpu, ..after }),
    });
}
