//! Candidates that fail: how long until they have no traffic, and until Git says so.

use std::time::Duration;

use crate::site::Site;
use crate::table::{Row, Table};
use crate::users::Users;
use crate::{ms, quantile, row};

/// Half of the questions fail, at half of the traffic: how long from the verdict to the last one that the candidate is given,
/// and to the revert commit.
pub(crate) async fn under_load(count: usize, table: &mut Table) {
    let mut site = Site::on_a_host("aborts", "[{weight: 50, for: 1m}]").await;
    let stable = site.stable().await;
    let users = Users::start(&site.front);
    users.answered(&stable, 100).await;
    let (mut last, mut told) = (vec![], vec![]);
    for turn in 0..count {
        site.push_bad(turn, 2);
        let bad = site.taken_back().await;
        last.push(bad.got(&users).last.expect("it was asked").saturating_duration_since(bad.verdict));
        told.push(bad.told.saturating_duration_since(bad.verdict));
        if (turn + 1) % 10 == 0 {
            table.note(format!("  {} candidates are taken back", turn + 1));
        }
    }
    let rate = users.end().await.values().map(|got| got.answered + got.failed).sum::<u64>();
    table.note(format!("{rate} requests in all while {count} candidates were taken back"));
    for (case, mut times, most) in [
        ("verdict to the last request of the candidate", last, Duration::from_millis(200)),
        ("verdict to the revert commit on the Git server", told, Duration::from_secs(2)),
    ] {
        let (n, p50, p99) = (times.len(), quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        table.add(Row {
            measured: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
            value: p99.as_secs_f64(),
            limit: format!("p99 {}", ms(most)),
            n: Some(n),
            ratio: Some(p99.as_secs_f64() / most.as_secs_f64()),
            reached: p99 <= most,
            cost: crate::cost::cost(site.daemon.id()),
            ..row(case)
        });
    }
    site.end();
}

/// All questions fail, at 5 % of the traffic: how long from the first one until the route has taken the traffic back.
pub(crate) async fn flat_out(count: usize, per_second: u32, most: Duration, table: &mut Table) {
    let mut site = Site::on_a_host("flat-out", "[{weight: 5, for: 5m}]").await;
    let stable = site.stable().await;
    let users = Users::paced(std::slice::from_ref(&site.front), per_second);
    users.answered(&stable, 20).await;
    let (mut times, mut asked) = (vec![], vec![]);
    for turn in 0..count {
        site.push_bad(turn, 1);
        let bad = site.taken_back().await;
        let got = bad.got(&users);
        assert_eq!(got.answered, 0, "it fails flat out");
        let (first, last) = (got.first.expect("it was asked"), got.last.expect("it was asked"));
        times.push(bad.back.max(last).saturating_duration_since(first));
        asked.push(got.failed);
    }
    users.end().await;
    asked.sort_unstable();
    let (n, p50, worst) = (times.len(), quantile(&mut times, 0.5), quantile(&mut times, 1.0));
    table.add(Row {
        measured: format!(
            "p50 {}, at most {}; {} to {} of its requests failed",
            ms(p50),
            ms(worst),
            asked.first().copied().unwrap_or_default(),
            asked.last().copied().unwrap_or_default()
        ),
        value: worst.as_secs_f64(),
        limit: ms(most),
        n: Some(n),
        ratio: Some(worst.as_secs_f64() / most.as_secs_f64()),
        reached: worst <= most,
        cost: crate::cost::cost(site.daemon.id()),
        ..row(&format!("fails flat out, 5 % of {per_second} requests/s: first request to traffic back"))
    });
    site.end();
}
