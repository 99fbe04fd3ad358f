//! A daemon that works all day: it holds no more in the evening than in the morning.

use serde_json::json;

use crate::daemon::{Daemon, Repo, River, until};
use crate::lab::lab;

/// Commits, each with a drift after it.
const ROUNDS: usize = 24;

/// Open files, and KiB of memory. Of packs there is one more with each fetch, until many are made one.
fn held(daemon: &Daemon) -> (usize, usize) {
    let process = format!("/proc/{}", daemon.id());
    let files = std::fs::read_dir(format!("{process}/fd")).expect("its files").filter_map(Result::ok);
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let files = links.filter(|link| !link.to_string_lossy().contains("/objects/pack/")).count();
    let status = std::fs::read_to_string(format!("{process}/status")).expect("its status");
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    (files, memory.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// By how much the values grow from look to look, by least squares.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn slope(values: &[usize]) -> f64 {
    let n = values.len() as f64;
    let (x, y) = ((n - 1.0) / 2.0, values.iter().sum::<usize>() as f64 / n);
    let at = |(at, value): (usize, &usize)| (at as f64 - x, *value as f64 - y);
    let sum = |(both, square): (f64, f64), (x, y): (f64, f64)| (both + x * y, square + x * x);
    let (both, square) = values.iter().enumerate().map(at).fold((0.0, 0.0), sum);
    both / square
}

// R2
#[tokio::test]
async fn a_daemon_that_works_all_day_does_not_grow() {
    let Some(lab) = lab("soak").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let (mut files, mut memory) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let pushed = river.repo.commit_greeting(&format!("Hello, for the {round}th time!"));
        river.settled(&pushed).await;
        let drift = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}});
        river.lab.merge("services", "support", "somebody", &drift).await;
        until("it is healed", async || {
            let service = river.lab.see("services", "support").await?;
            (service["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "backstay").then_some(())
        })
        .await;
        let (open, resident) = held(&daemon);
        files.push(open);
        memory.push(resident);
    }
    // The first third fills pools and what is kept of former releases.
    let (files, memory) = (&files[ROUNDS / 3..], &memory[ROUNDS / 3..]);
    let rounds = f64::from(u32::try_from(files.len()).expect("few"));
    println!("open files {files:?}, memory {memory:?} KiB");
    assert!(slope(files) * rounds < 8.0, "open files: {files:?}");
    assert!(slope(memory) * rounds < 16.0 * 1024.0, "KiB of memory: {memory:?}");
}
