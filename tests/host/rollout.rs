//! A rollout as people see it and move it: the verbs over the socket, with the test in the daemon's place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use backstay::desired::RolloutSpec;
use backstay::desired::rollout::{Canary, Strategy};
use backstay::ledger::Ledger;
use backstay::model::{AgentName, ReleaseId, Timestamp};
use backstay::reconcile::LedgerEntry;
use backstay::record::{AgentRecord, Cause, Operation, OperationId, OperationKind, Outcome, Requests};
use backstay::rollout::{Beginning, Carrier, Deed, Event, Instances, Person, Rollout, Way};
use backstay::sys;
use serde_json::Value;

use super::lab::eventually;
use super::people::{configuration, typed};
use super::socket::{Served, ledger};

fn agent() -> AgentName {
    "support".parse().expect("a name")
}

/// A canary whose first step is in force.
fn canary() -> Rollout {
    let strategy = Strategy::Canary(Canary { steps: RolloutSpec::default_steps(true), mirror: None, reach: None });
    let spec = RolloutSpec { strategy, analysis: RolloutSpec::default_metrics(), ..RolloutSpec::default() };
    let rollout = Rollout::new(Beginning {
        operation: OperationId(1),
        candidate: ReleaseId::of(b"candidate"),
        stable: ReleaseId::of(b"stable"),
        way: Way::Forward,
        spec,
        carrier: Carrier::Routed,
        size: Instances { agent: 2, workers: BTreeMap::new() },
        approvals: 0,
        authors: BTreeSet::new(),
        rollbacks: vec![],
    });
    carried_out(told(&rollout, &Event::Tick))
}

fn told(rollout: &Rollout, event: &Event) -> Rollout {
    rollout.step(event, Timestamp::now()).expect("it may happen").0
}

/// The target made what is wanted, and the route says so.
fn carried_out(mut rollout: Rollout) -> Rollout {
    for _ in 0..4 {
        rollout = told(&rollout, &Event::Ready(rollout.wanted().instances));
        rollout = told(&rollout, &Event::Routes(Some(rollout.wanted().routes)));
    }
    rollout
}

fn operation() -> Operation {
    Operation {
        id: OperationId(1),
        kind: OperationKind::Release,
        cause: Cause::Commit {},
        from: Some(ReleaseId::of(b"stable").into()),
        to: Some(ReleaseId::of(b"candidate").into()),
        revision: None,
        started: Timestamp::now(),
        finished: None,
        evidence: vec![],
        outcome: None,
    }
}

async fn present(ledger: &Ledger) -> (Arc<AgentRecord>, Requests) {
    match ledger.agent(&agent()).await.expect("read") {
        LedgerEntry::Present { record, requests, .. } => (record, requests),
        LedgerEntry::Absent => panic!("it is there"),
    }
}

/// What the daemon would do: the record becomes another one.
async fn write(ledger: &Ledger, change: impl Fn(&mut AgentRecord)) {
    let entry = ledger.agent(&agent()).await.expect("read");
    let LedgerEntry::Present { record, version, .. } = entry else { panic!("it is there") };
    let mut record = AgentRecord::clone(&record);
    change(&mut record);
    ledger.record(&agent(), Some(&version), &record).await.expect("recorded");
}

async fn rolls_out(ledger: &Ledger, rollout: &Rollout) {
    let saved = rollout.saved(None).expect("a record");
    write(ledger, |record| {
        record.rollout = Some(saved.clone());
        record.operation.get_or_insert_with(operation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_moved_by_people() {
    let served = Served::start().await;
    let folder = served.folder.path().to_owned();
    configuration(&folder);
    let daemon = ledger(served.api.client());

    for verb in [&["promote", "support"][..], &["abort", "support", "--reason", "rude"], &["pause", "support"]] {
        let (code, said) = typed(&folder, verb).await;
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("nothing is rolling out of `support` in `development`"), "{said}");
    }
    assert_eq!(present(&daemon).await.1, Requests::default(), "nothing was asked");

    rolls_out(&daemon, &canary()).await;
    let (code, said) = typed(&folder, &["promote", "supprt"]).await;
    assert!(code == Some(2) && said.contains("did you mean `support`?"), "{said}");
    let (code, said) = typed(&folder, &["abort", "support"]).await;
    assert!(code == Some(2) && said.contains("--reason"), "{said}");
    let (code, said) = typed(&folder, &["abort", "support", "--reason", " "]).await;
    assert!(code == Some(2) && said.contains("`--reason` is empty"), "{said}");

    let (code, said) = typed(&folder, &["pause", "support", "--no-wait", "--reason", "a look"]).await;
    assert!(code == Some(0) && said.contains("asked"), "{said}");
    let pause = present(&daemon).await.1.pause.expect("asked");
    assert_eq!((pause.by, pause.reason.as_str()), (sys::account(sys::own_uid()), "a look"));

    let asked = async |kind: &'static str, args: &[&str], refusal: Option<&str>| {
        let taken = async {
            let id = eventually("it is asked", async || {
                let (record, requests) = present(&daemon).await;
                let requests = serde_json::to_value(requests).expect("JSON");
                let id = requests.pointer(&format!("/{kind}/id"))?.as_str()?.to_owned();
                (record.handled.get(kind) != Some(&id)).then_some(id)
            })
            .await;
            write(&daemon, |record| {
                record.handled.insert(kind.to_owned(), id.clone());
                if let Some(why) = refusal {
                    record.handled.insert(format!("{kind}/refused"), why.to_owned());
                }
            })
            .await;
        };
        tokio::join!(typed(&folder, args), taken).0
    };
    let (code, said) = asked("promote", &["promote", "support", "--timeout", "60s"], None).await;
    assert!(code == Some(0) && said.contains("AgentRelease/development/support may go on"), "{said}");
    let refusal = "cannot abort: the rollout is going back";
    let (code, said) = asked("abort", &["abort", "support", "--reason", "rude"], Some(refusal)).await;
    assert_eq!((code, said.contains(refusal)), (Some(1), true), "{said}");
    served.end().await;
}

/// A watch whose output is read line by line.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn begin(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("run");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().expect("a line").expect("read")
    }

    /// All that is left, and how it ended.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let left = self.lines.map(|line| line.expect("read")).collect();
        (self.child.wait().expect("ended").code(), left)
    }
}

fn watch(folder: &std::path::Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    command.args(["status", "--watch", "support", "--config"]).arg(folder.join("backstay.toml")).args(more);
    command.current_dir(folder).env_remove("KUBECONFIG");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_watched_until_it_has_ended() {
    let served = Served::start().await;
    let folder = served.folder.path().to_owned();
    configuration(&folder);
    let daemon = ledger(served.api.client());
    let (code, said) = typed(&folder, &["status", "--watch", "support"]).await;
    assert!(code == Some(3) && said.contains("nothing is rolling out"), "{said}");

    let rollout = canary();
    rolls_out(&daemon, &rollout).await;
    let (mut text, mut json) = (Watch::begin(watch(&folder, &[])), Watch::begin(watch(&folder, &["-o", "json"])));
    let first = text.next();
    assert!(first.ends_with("canary: step 1 of 3, candidate 5 %, waiting for the judge"), "{first}");
    let first: Value = serde_json::from_str(&json.next()).expect("one object for each line");
    assert_eq!(first.pointer("/rollout/step/number"), Some(&1.into()), "{first}");
    assert_eq!(first.pointer("/rollout/sides/1/weight"), Some(&5.into()), "{first}");

    let back = Deed::Abort { reason: "it is rude".to_owned() };
    let back = told(&rollout, &Event::Person { by: Person("bob".to_owned()), deed: back });
    rolls_out(&daemon, &back).await;
    let second = text.next();
    assert!(second.contains("going back") && second.ends_with("because: bob took it back: it is rude"), "{second}");
    let second: Value = serde_json::from_str(&json.next()).expect("one object for each line");
    assert_eq!(second.pointer("/rollout/phase"), Some(&"aborting".into()), "{second}");

    write(&daemon, |record| {
        record.rollout = None;
        record.finish(Outcome::Failed("bob took it back: it is rude".to_owned()), Timestamp::now());
    })
    .await;
    let (code, left) = text.end();
    assert_eq!((code, left.len()), (Some(1), 1), "{left:?}");
    assert!(left[0].contains("went back to") && left[0].ends_with("it is rude"), "{left:?}");
    let (code, left) = json.end();
    let last: Value = serde_json::from_str(left.last().expect("a line")).expect("JSON");
    assert_eq!((code, last.pointer("/ended/promoted")), (Some(1), Some(&false.into())), "{last}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_rollout_is_drawn_in_place() {
    let served = Served::start().await;
    let folder = served.folder.path().to_owned();
    configuration(&folder);
    let daemon = ledger(served.api.client());
    rolls_out(&daemon, &canary()).await;
    // `script` gives the command a terminal.
    let typed = format!(
        "{} status --watch support --config {}",
        env!("CARGO_BIN_EXE_backstay"),
        folder.join("backstay.toml").display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command", &typed, "/dev/null"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1").env_remove("KUBECONFIG");
    let mut watch = Watch::begin(command);
    let mut seen = vec![watch.next()];
    assert!(seen[0].starts_with("support  in development  "), "{seen:?}");
    // Drawn once more: the clock at its top has moved on.
    while !seen.last().is_some_and(|line| line.contains("Asupport  in development")) {
        seen.push(watch.next());
    }
    write(&daemon, |record| {
        record.rollout = None;
        record.finish(Outcome::Succeeded, Timestamp::now());
    })
    .await;
    let (code, left) = watch.end();
    seen.extend(left);
    let all = seen.join("\n");
    assert_eq!(code, Some(0), "{all}");
    assert!(all.contains("canary: step 1 of 3") && all.contains(" is promoted"), "{all}");
    assert!(!all.contains("\u{1b}[2J") && !all.contains("\u{1b}[1;") && !all.contains("\u{1b}[3"), "{all:?}");
    served.end().await;
}
