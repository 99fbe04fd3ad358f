//! Canaries one after the other, good ones and bad ones, with users all the while.

use std::collections::BTreeSet;

use crate::rollouts;
use crate::row;
use crate::site::Site;
use crate::table::{Row, Table};
use crate::users::Users;

/// Each so-manieth is bad.
const BAD: usize = 5;

/// Every fifth canary fails and is taken back: whether anybody fails whom a stable release answered, or nobody.
pub(crate) async fn nobody_fails(count: usize, table: &mut Table) {
    let mut site = Site::on_a_host("canaries", "[{weight: 25, for: 1s}, {weight: 50, for: 1s}]").await;
    let mut stable = site.stable().await;
    let users = Users::start(&site.front);
    users.answered(&stable, 100).await;
    let mut bad = BTreeSet::new();
    for turn in 0..count {
        if turn % BAD == BAD - 1 {
            site.push_bad(turn, 2);
            bad.insert(site.taken_back().await.release);
        } else {
            site.river.repo.commit_greeting(&format!("Good {turn}"));
            stable = rollouts::stable(&rollouts::promoted(&site.river, &stable).await);
        }
        if (turn + 1) % 10 == 0 {
            let failed: u64 = failures(&users, &bad).iter().map(|(_, failed)| failed).sum();
            table.note(format!("  {} canaries, {} taken back, {failed} failed", turn + 1, bad.len()));
        }
    }
    let failures = failures(&users, &bad);
    let got = users.end().await;
    for (release, failed) in &failures {
        table.note(format!("{failed} requests of {release} failed"));
    }
    let failed: u64 = failures.iter().map(|(_, failed)| failed).sum();
    let (all, of_bad) = got.iter().fold((0, 0), |(all, of_bad), (release, got)| {
        let requests = got.answered + got.failed;
        (all + requests, of_bad + if bad.contains(release) { requests } else { 0 })
    });
    table.add(Row {
        measured: format!("{failed} of {all} requests failed; {of_bad} more were the bad candidates'"),
        value: failed as f64,
        limit: "0 failed".to_owned(),
        n: Some(count),
        reached: failed == 0 && bad.len() == count / BAD && got.len() == count + 1,
        cost: crate::cost::cost(site.daemon.id()),
        ..row(&format!("users on stable during {count} canaries with {} aborts", bad.len()))
    });
    site.end();
}

/// Failures of all but the bad candidates; those that no release answered are nobody's.
fn failures(users: &Users, bad: &BTreeSet<String>) -> Vec<(String, u64)> {
    let all = users.got().into_iter().filter(|(release, got)| got.failed > 0 && !bad.contains(release));
    all.map(|(release, got)| (release, got.failed)).collect()
}
