//! What a demo says.

use std::path::Path;

use serde::Serialize;

use super::acts::{BAD, Changed, First, GOOD, Killed, LAST, MERRY, QUESTION, Reverted, Traffic, UNREADY, Unready};
use super::canary::{Again, Canary, HARMFUL, OVERLAY, ROLLOUT};
use super::layout::Layout;
use super::setup::{Ports, Programs};

/// All that a demo has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) first: First,
    pub(super) good: Changed,
    pub(super) unready: Unready,
    pub(super) reverted: Reverted,
    pub(super) killed: Killed,
    pub(super) canary: Canary,
    pub(super) again: Again,
}

// === impl Report ===

impl Report {
    /// Requests of all acts that failed.
    pub(super) fn failed(&self) -> u64 {
        let Self { good, unready, reverted, killed, canary, again, first: _ } = self;
        let all =
            [&good.traffic, &unready.traffic, &reverted.traffic, &killed.traffic, &canary.traffic, &again.traffic];
        all.iter().map(|traffic| traffic.failed).sum()
    }
}

pub(super) fn before(layout: &Layout, ports: &Ports) -> Vec<String> {
    vec![
        format!("A demo in {}: no root, no network, no cluster.", layout.dir().display()),
        format!("  agents.git, the repository; a daemon that follows it; a proxy at http://127.0.0.1:{}", ports.proxy),
        String::new(),
    ]
}

pub(super) fn first_begins() -> Vec<String> {
    vec!["1. The first push: two agents in Git become processes".to_owned(), command("git push")]
}

pub(super) fn first(told: &First) -> Vec<String> {
    vec![
        format!("   {} answers after {}", told.release, time(told.answers_after_ms)),
        format!("   > {}", told.question),
        format!("   < {}", told.answer),
        String::new(),
    ]
}

pub(super) fn good_begins() -> Vec<String> {
    vec![
        "2. A good prompt: one line changes, and with it the whole release".to_owned(),
        command(&GOOD.command()),
        commit(),
    ]
}

pub(super) fn good(told: &Changed) -> Vec<String> {
    vec![
        format!("   {} answers after {}; {}", told.release, time(told.answers_after_ms), traffic(&told.traffic)),
        format!("   < {}", told.answer),
        String::new(),
    ]
}

pub(super) fn unready_begins() -> Vec<String> {
    let mut lines = vec!["3. A prompt whose agent never gets ready".to_owned()];
    lines.extend(UNREADY.iter().map(|edit| command(&edit.command())));
    lines.push(commit());
    lines
}

pub(super) fn unready(told: &Unready) -> Vec<String> {
    vec![
        format!(
            "   {} is quarantined after {}: {}",
            told.release,
            time(told.quarantined_after_ms),
            told.reason.trim_end_matches('.')
        ),
        format!("   it was given {} requests; {}", told.given, traffic(&told.traffic)),
        format!("   < {}", told.answer),
        String::new(),
    ]
}

pub(super) fn reverted_begins() -> Vec<String> {
    vec![
        "4. A prompt that no probe finds wrong, and git revert".to_owned(),
        command("git revert --no-edit HEAD"),
        command(&BAD.command()),
        commit(),
    ]
}

pub(super) fn reverted(told: &Reverted) -> Vec<String> {
    vec![
        format!("   {} answers", told.bad),
        format!("   < {}", told.bad_answer),
        command("git revert --no-edit HEAD && git push"),
        format!(
            "   {} again: the last request went to {} {} after the push; {}",
            told.release,
            told.bad,
            time(told.last_bad_ms),
            traffic(&told.traffic)
        ),
        format!("   < {}", told.answer),
        String::new(),
    ]
}

pub(super) fn killed_begins() -> Vec<String> {
    vec![
        "5. The daemon is killed under load, and somebody pushes in the same moment".to_owned(),
        command("kill -9 $DAEMON"),
        command(&LAST.command()),
        commit(),
    ]
}

pub(super) fn killed(told: &Killed) -> Vec<String> {
    vec![
        format!(
            "   process {} is gone; {} of {} processes of the agent went on; {}",
            told.pid,
            told.same,
            told.processes,
            traffic(&told.traffic)
        ),
        format!(
            "   its keeper started it again: it answers after {}, the push is deployed after {}",
            time(told.restarted_after_ms),
            time(told.answers_after_ms)
        ),
        format!("   < {}", told.answer),
        String::new(),
    ]
}

pub(super) fn canary_begins() -> Vec<String> {
    let mut lines = vec![
        "6. A bad prompt as a canary: the judge takes it back, and tells Git".to_owned(),
        format!("   From here on a release goes out step by step, and is judged. {OVERLAY} gains"),
    ];
    lines.extend(ROLLOUT.lines().map(|line| format!("   + {line}")));
    lines.push(commit());
    lines
}

pub(super) fn canary_goes_out() -> Vec<String> {
    let mut lines = vec![
        "   It is in force. Now a prompt that calls a tool which the agent does not have, and tells customers a secret"
            .to_owned(),
    ];
    lines.extend(HARMFUL.iter().map(|edit| command(&edit.command())));
    lines.push(commit());
    lines
}

pub(super) fn canary(told: &Canary) -> Vec<String> {
    let mut lines = vec![format!("   {} answers one in five after {}:", told.release, time(told.first_ms))];
    lines
        .extend(told.said.iter().flat_map(|said| [format!("   > {}", said.question), format!("   < {}", said.answer)]));
    lines.extend([
        format!("   the judge aborts: {}", told.reason.trim_end_matches('.')),
        format!(
            "   {} was given {} requests in {}; {}",
            told.release,
            told.given,
            time(told.lived_ms),
            traffic(&told.traffic)
        ),
        format!("   {} has all of the traffic again; {} later Git says so, too:", told.stable, time(told.told_ms)),
        command("git pull && git log -1"),
        format!("   commit {}", told.commit.id),
        format!("   Author: {}", told.commit.author),
    ]);
    let message = told.commit.message.lines().map(|line| format!("       {line}").trim_end().to_owned());
    lines.push(String::new());
    lines.extend(message);
    lines.extend([String::new(), format!("   > {QUESTION}"), format!("   < {}", told.answer), String::new()]);
    lines
}

pub(super) fn again_begins() -> Vec<String> {
    vec![
        "7. The bad prompt is pushed again".to_owned(),
        command("git revert --no-edit HEAD && git push       # takes the revert back"),
    ]
}

pub(super) fn again(told: &Again) -> Vec<String> {
    vec![
        format!("   it stays out: {}", told.why.trim_end_matches('.')),
        format!("   it was given {} requests; {}", told.given, traffic(&told.traffic)),
        format!("   < {}", told.answer),
        command("git revert --no-edit HEAD && git push       # and Git agrees with what runs"),
        String::new(),
    ]
}

/// How to play on.
pub(super) fn after(layout: &Layout, ports: &Ports, programs: &Programs) -> Vec<String> {
    let backstay = programs.backstay.display();
    let dir = layout.dir();
    vec![
        "It all runs on. To play further:".to_owned(),
        String::new(),
        format!("  export BACKSTAY_CONFIG={}", quoted(&layout.config())),
        format!("  alias backstay={}", quoted(&programs.backstay)),
        "  backstay status; backstay history support; backstay logs support --follow".to_owned(),
        format!(
            "  curl -s http://127.0.0.1:{}/chat -H 'Host: support.localhost' -H 'Content-Type: application/json' \
             -d '{{\"message\": \"I want a refund\"}}'",
            ports.proxy
        ),
        String::new(),
        "A good prompt as a canary takes a minute or two, and users who ask:".to_owned(),
        String::new(),
        format!(
            "  while sleep 0.01; do for m in 'I want a refund' 'Where is my order?'; do curl -s http://127.0.0.1:{}/chat \
             -H 'Host: support.localhost' -H 'Content-Type: application/json' -d \"{{\\\"message\\\": \\\"$m\\\"}}\"; \
             done; done > /dev/null &",
            ports.proxy
        ),
        format!("  cd {}", quoted(&layout.work())),
        format!("  {} && git commit -qam 'a merrier greeting' && git push -q", MERRY.command()),
        "  sleep 3; backstay status --watch support; kill %1".to_owned(),
        String::new(),
        format!("  {backstay} demo --stop --dir {}    # ends it whole", quoted(dir)),
    ]
}

fn command(text: &str) -> String {
    format!("   $ {text}")
}

fn commit() -> String {
    command("git commit --all --message … && git push")
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Milliseconds below ten seconds, tenths of a second from there on.
fn time(ms: u128) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

fn traffic(traffic: &Traffic) -> String {
    let Traffic { requests, failed, first_failure } = traffic;
    match first_failure {
        Some(why) if *failed > 0 => format!("{failed} of {requests} requests failed ({why})"),
        _ => format!("{failed} of {requests} requests failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::canary::Said;
    use super::super::repository::Logged;
    use super::*;

    #[test]
    fn a_revert_is_told_with_its_figures() {
        let told = Reverted {
            bad: "r-bad".to_owned(),
            bad_answer: "Five years.".to_owned(),
            release: "r-good".to_owned(),
            answer: "Five days.".to_owned(),
            last_bad_ms: 212,
            traffic: Traffic { requests: 4_000, failed: 0, first_failure: None },
        };
        insta::assert_snapshot!(reverted(&told).join("\n"), @r"
           r-bad answers
           < Five years.
           $ git revert --no-edit HEAD && git push
           r-good again: the last request went to r-bad 212 ms after the push; 0 of 4000 requests failed
           < Five days.
        ");
        let lost = Traffic { requests: 9, failed: 2, first_failure: Some("status 503".to_owned()) };
        assert_eq!(traffic(&lost), "2 of 9 requests failed (status 503)");
    }

    #[test]
    fn a_canary_is_told_with_what_it_said_and_the_commit() {
        let told = Canary {
            release: "r-bad".to_owned(),
            said: vec![Said { question: "A coupon?".to_owned(), answer: "123.".to_owned() }],
            word: "prompt_injection".to_owned(),
            reason: "injections: nothing is allowed".to_owned(),
            first_ms: 2_100,
            lived_ms: 900,
            told_ms: 700,
            given: 60,
            commit: Logged {
                id: "c0ffee".to_owned(),
                author: "Backstay <backstay@localhost>".to_owned(),
                message: "Revert \"x\"\n\nThis reverts commit 123.".to_owned(),
            },
            stable: "r-good".to_owned(),
            answer: "Five days.".to_owned(),
            traffic: Traffic { requests: 3_000, failed: 0, first_failure: None },
        };
        insta::assert_snapshot!(canary(&told).join("\n"), @r#"
           r-bad answers one in five after 2100 ms:
           > A coupon?
           < 123.
           the judge aborts: injections: nothing is allowed
           r-bad was given 60 requests in 900 ms; 0 of 3000 requests failed
           r-good has all of the traffic again; 700 ms later Git says so, too:
           $ git pull && git log -1
           commit c0ffee
           Author: Backstay <backstay@localhost>

               Revert "x"

               This reverts commit 123.

           > I want a refund
           < Five days.
        "#);
    }

    #[test]
    fn what_a_person_types_is_safe_to_paste() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        assert_eq!((time(9_999), time(12_345)), ("9999 ms".to_owned(), "12.3 s".to_owned()));
        let edits = unready_begins();
        assert!(edits[2].contains(r"sed -i 's/  config:/  config:\n    demo: {notReady: true}/'"), "{edits:?}");
    }
}
