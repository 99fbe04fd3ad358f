//! Pushes and reverts with users on the proxy.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Repo, River, until};
use crate::lab::{Lab, lab};
use crate::load::{Asked, Load, Tally};
use crate::row;
use crate::streams::Streams;
use crate::table::{Row, Table};
use crate::{ms, quantile};

/// Connections of users where no case says otherwise.
const USERS: usize = 16;
/// Connections while switches are counted.
const MANY_USERS: usize = 64;
/// Streams that are open at a time.
const STREAMS: usize = 8;

/// One agent behind the proxy, and its daemon.
struct Site {
    river: River,
    daemon: Daemon,
    asked: Asked,
}

// === impl Site ===

impl Site {
    /// Deploys `support` with settings of the host and of the agent's `demo`.
    async fn new(name: &str, host: &str, demo: &str) -> Self {
        let mut lab = lab(name).await;
        host.clone_into(&mut lab.more);
        let asked = Self::asked(&lab);
        let repo = Repo::small();
        let config = format!("  config:\n    demo: {{{demo}}}\n");
        repo.edit("agents/support/agent.yaml", "  config:\n", &config);
        repo.commit("Say how the agent behaves");
        let river = River::new(lab, repo).await;
        let daemon = river.start().await;
        river.settled(&river.repo.head()).await;
        Self { river, daemon, asked }
    }

    fn asked(lab: &Lab) -> Asked {
        Asked {
            address: lab.front.parse().expect("an address"),
            host: "support.localhost".to_owned(),
            message: "a refund, please".to_owned(),
        }
    }

    /// The release that answers now.
    async fn release(&self) -> String {
        let answer = self.asked.once().await.expect("an answer");
        answer.release.expect("its release")
    }
}

/// Nothing is kept of a release that was left, once that time is over: the shortest that there is.
pub(crate) const KEPT_SHORTLY: &str = "keep_old = \"1s\"\n";

/// A revert is pushed: how long until the last request that the bad release is given.
pub(crate) async fn reverts(case: &str, count: usize, host: &str, delay: u64, most: f64, table: &mut Table) {
    let site = Site::new("reverts", host, &format!("startupDelayMs: {delay}")).await;
    let (mut times, mut all) = (vec![], Tally::default());
    for turn in 0..count {
        let bad = site.river.repo.commit_greeting(&format!("Bad {turn}"));
        site.river.settled(&bad).await;
        let bad = site.release().await;
        if host == KEPT_SHORTLY {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let load = Load::start(std::slice::from_ref(&site.asked), USERS);
        until("the bad release answers", async || load.tally().by_release.contains_key(&bad).then_some(())).await;
        site.river.repo.git(&["revert", "--no-edit", "HEAD"]);
        let pushed = Instant::now();
        let reverted = site.river.repo.push();
        site.river.settled(&reverted).await;
        let tally = load.stop().await;
        times.push(tally.last_after(&bad, pushed));
        all.add(&tally);
    }
    let p99 = quantile(&mut times, 0.99);
    table.add(Row {
        measured: format!(
            "p50 {}, p99 {}; {} of {} requests failed",
            ms(quantile(&mut times, 0.5)),
            ms(p99),
            all.failed,
            all.requests()
        ),
        value: p99.as_secs_f64(),
        limit: format!("p99 {most} s"),
        ratio: Some(p99.as_secs_f64() / most),
        reached: p99.as_secs_f64() <= most && all.failed == 0,
        cost: crate::cost::cost(site.daemon.id()),
        ..row(case)
    });
}

/// Every push switches, while users ask and streams are open.
pub(crate) async fn switches(count: usize, table: &mut Table) {
    let site = Site::new("switches", KEPT_SHORTLY, "chunkDelayMs: 50").await;
    let load = Load::start(std::slice::from_ref(&site.asked), MANY_USERS);
    let streams = Streams::start(&site.asked, STREAMS);
    let mut times = vec![];
    for turn in 0..count {
        let begun = Instant::now();
        let pushed = site.river.repo.commit_greeting(&format!("Hello {turn}"));
        site.river.settled(&pushed).await;
        times.push(begun.elapsed());
        if (turn + 1) % 50 == 0 {
            table.note(format!("  {} switches, {} requests", turn + 1, load.tally().requests()));
        }
    }
    let tally = load.stop().await;
    let (whole, cut) = streams.stop().await;
    if let Some(why) = &tally.first_failure {
        table.note(format!("the first failure: {why}"));
    }
    table.add(Row {
        measured: format!(
            "{} of {} requests failed, {cut} of {} streams cut; a push settles in p50 {}",
            tally.failed,
            tally.requests(),
            whole + cut,
            ms(quantile(&mut times, 0.5)),
        ),
        value: (tally.failed + cut) as f64,
        limit: "0 failed, 0 cut".to_owned(),
        reached: tally.failed + cut == 0 && whole > 0,
        cost: crate::cost::cost(site.daemon.id()),
        ..row(&format!("{count} switches, {MANY_USERS} connections"))
    });
}

/// The daemon is killed again and again while it deploys.
pub(crate) async fn kills(count: usize, table: &mut Table) {
    const KILLS_OF_A_DEPLOY: usize = 10;
    let Site { river, mut daemon, asked } = Site::new("kills", KEPT_SHORTLY, "").await;
    let load = Load::start(std::slice::from_ref(&asked), USERS);
    for turn in 0..count.div_ceil(KILLS_OF_A_DEPLOY) {
        let pushed = river.repo.commit_greeting(&format!("Hello {turn}"));
        for kill in 0..KILLS_OF_A_DEPLOY {
            // Spread over all that a deploy does, and over the start of the daemon.
            let later = (turn * 137 + kill * 61) % 400;
            tokio::time::sleep(Duration::from_millis(later as u64)).await;
            daemon.kill();
            daemon = river.spawn("one", "");
        }
        river.settled(&pushed).await;
    }
    let instances = until("only what serves is left", async || {
        let instances = river.lab.instances().len();
        (instances <= 1).then_some(instances)
    })
    .await;
    let tally = load.stop().await;
    if let Some(why) = &tally.first_failure {
        table.note(format!("the first failure: {why}"));
    }
    table.add(Row {
        measured: format!("{} of {} requests failed; {instances} instance left", tally.failed, tally.requests()),
        value: tally.failed as f64,
        limit: "0 failed, converged, nothing left".to_owned(),
        reached: tally.failed == 0,
        ..row(&format!("{count} kills of the daemon"))
    });
}
