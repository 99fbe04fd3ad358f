//! What `backstay status AGENT` says after a fault, as it was kept: times, ids, ports and paths are masked.
//!
//! `BLESS=1` keeps what is said now.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use regex::{Captures, Regex};

use crate::daemon::{Daemon, River};

/// How long a status must say the same before it is kept.
const STEADY: Duration = Duration::from_millis(1500);
/// How long the kept words are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the status of `support` says what is kept as `golden/NAME.txt`.
pub(crate) async fn says(name: &str, river: &River, daemon: &Daemon) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/golden").join(format!("{name}.txt"));
    let said = || masked(&daemon.run(&["status", "support"]).out, river);
    if std::env::var_os("BLESS").is_some() {
        let mut last = said();
        loop {
            tokio::time::sleep(STEADY).await;
            let next = said();
            if std::mem::replace(&mut last, next) == last {
                return std::fs::write(&path, last).expect("kept");
            }
        }
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let begun = std::time::Instant::now();
    loop {
        let said = said();
        if said == kept {
            return;
        }
        if begun.elapsed() > PATIENCE {
            let diff = similar::TextDiff::from_lines(&kept, &said);
            panic!(
                "{}\n{}\nBLESS=1 keeps what is said now",
                path.display(),
                diff.unified_diff().header("kept", "said")
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The text without what is another one in each run. Releases and commits are numbered as they come.
fn masked(text: &str, river: &River) -> String {
    let mut text = text.replace(&*river.lab.at("").to_string_lossy(), "HOST/");
    for (pattern, word) in [
        (r"\b(since|begun|failed|succeeded|superseded) \d+[dhms]\b", "$1 TIME"),
        (r"\b\d+[dhms] ago\b", "TIME ago"),
        (r"support-[0-9a-f]{10}-", "support-HASH-"),
        (r"revert of [0-9a-f]{8}\b", "revert of COMMIT"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"launch `[0-9a-z]+`", "launch `NONCE`"),
        (r"\b2\d{4}\b", "PORT"),
        (r"\b(Tree|page) \d+", "$1 N"),
        (r"run for \d+ s", "run for N s"),
        (r"restarted (once|\d+ times)", "restarted N times"),
    ] {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, word).into_owned();
    }
    for (pattern, word) in
        [(r"\br-[0-9a-f]{6,}", "r-"), (r"@[0-9a-f]{7,40}", "@commit-"), (r"\b[0-9a-f]{40,64}\b", "digest-")]
    {
        let mut known = BTreeMap::new();
        let number = |found: &Captures<'_>| {
            let next = known.len() + 1;
            format!("{word}{}", known.entry(found[0].to_owned()).or_insert(next))
        };
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, number).into_owned();
    }
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
