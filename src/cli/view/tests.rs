use super::*;
use crate::model::{Digest, ReleaseId};
use crate::record::{Cause, Differs, Evidence, Hold, OperationId, Quarantined, RefusedMove, Request, ShortId};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn name() -> AgentName {
    "support".parse().expect("a name")
}

fn environment() -> EnvironmentName {
    "production".parse().expect("a name")
}

fn stood(content: &str, since: i64) -> Standing {
    Standing {
        release: ReleaseId::of(content.as_bytes()),
        revision: "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision"),
        settings: Digest::of(b""),
        renderer: 1,
        own_set: false,
        since: at(since),
    }
}

fn operation(cause: Cause, outcome: Option<Outcome>) -> Operation {
    Operation {
        id: OperationId(7),
        kind: OperationKind::Release,
        cause,
        from: Some(ShortId("r-111111111111".to_owned())),
        to: Some(ShortId("r-222222222222".to_owned())),
        revision: Some(stood("", 0).revision),
        started: at(1_700_000_000),
        finished: outcome.as_ref().map(|_| at(1_700_000_042)),
        evidence: vec![],
        outcome,
    }
}

fn running() -> AgentRecord {
    let reverted = Cause::Revert {
        evidence: Evidence::Verified,
        of: vec!["0a9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a commit")],
    };
    let mut record = AgentRecord {
        stable: Some(stood("good", 1_700_000_042)),
        operations: vec![operation(reverted, Some(Outcome::Succeeded))],
        history: vec![stood("bad", 1_699_000_000)],
        ..AgentRecord::default()
    };
    record.set_condition(ConditionKind::Ready, Truth::True, "Ready", "", at(1_700_000_042));
    record
}

fn row(record: &AgentRecord) -> String {
    agent_row(&name(), record, &Requests::default(), at(1_700_003_642)).join(" | ")
}

#[test]
fn a_row_says_what_runs_since_when_and_why() {
    insta::assert_snapshot!(row(&running()), @"support | r-770e607624d6 | True | 60m | verified revert of 0a9c2ab1 main@3f9c2ab1");
    assert!(is_ready(&running()));
    assert_eq!(row(&AgentRecord::default()), "support | - | Unknown | - | ");
    assert!(!is_ready(&AgentRecord::default()));
}

#[test]
fn a_row_says_first_what_needs_an_eye() {
    let mut record = running();
    record.candidate = Some(stood("new", 1_700_003_000));
    record.set_condition(ConditionKind::Ready, Truth::False, "Progressing", "1 of 3 pods", at(1_700_003_000));
    record.set_condition(ConditionKind::Progressing, Truth::True, "Progressing", "1 of 3 pods are ready", at(0));
    assert!(
        row(&record).ends_with("-> r-11507a0e2f5e | False | 60m | Progressing: 1 of 3 pods are ready"),
        "{}",
        row(&record)
    );
    record.differs = Some(Differs { desired: stood("new", 0).release, since: at(0), why: "it failed here".to_owned() });
    assert!(row(&record).ends_with("Git asks for r-11507a0e2f5e: it failed here"), "{}", row(&record));
    record.set_condition(ConditionKind::Degraded, Truth::True, "CrashLoop", "", at(0));
    assert!(row(&record).ends_with("Degraded: CrashLoop"), "{}", row(&record));
    let suspend = Request { id: "1".to_owned(), by: "alice".to_owned(), reason: "a look".to_owned() };
    let requests = Requests { suspend: Some(suspend), ..Requests::default() };
    assert_eq!(
        agent_row(&name(), &record, &requests, at(0)).last().map(String::as_str),
        Some("suspended by alice: a look")
    );
    let removed = AgentRecord { phase: Phase::Removed, ..record };
    assert!(row(&removed).contains("| Removed |") && is_ready(&removed));
}

#[test]
fn an_agent_is_told_whole() {
    let mut record = running();
    record.candidate = Some(stood("new", 1_700_003_000));
    record.differs =
        Some(Differs { desired: stood("new", 0).release, since: at(1_700_003_000), why: "it failed here".to_owned() });
    record.hold = Some(Hold {
        left: stood("new", 0).release,
        by: "alice".to_owned(),
        since: at(1_700_003_000),
        git: Told::Pending,
    });
    record.operation = Some(operation(Cause::Commit {}, None));
    record.quarantine = vec![Quarantined::new(stood("new", 0).release, at(1_700_003_000), "crash loop")];
    record.drift_healed = 2;
    let lines =
        agent_lines(&name(), &environment(), &record, &Requests::default(), "backstay logs support", at(1_700_003_642));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn whether_git_was_told_is_said() {
    let lines = |git| {
        let hold = Hold { left: stood("new", 0).release, by: "alice".to_owned(), since: at(0), git };
        let record = AgentRecord { hold: Some(hold), ..running() };
        agent_lines(&name(), &environment(), &record, &Requests::default(), "backstay logs support", at(10)).join("\n")
    };
    assert!(lines(Told::ByHand).contains("left to a person"));
    assert!(lines(Told::Commit("3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".to_owned())).contains("told by 3f9c2ab1"));
    assert!(
        lines(Told::Refused("the branch is protected".to_owned())).contains("cannot be told: the branch is protected")
    );
}

#[test]
fn an_environment_shows_what_is_wrong_with_it() {
    let mut record = EnvironmentRecord {
        accepted: [("heads/main".to_owned(), stood("", 0).revision)].into(),
        ..EnvironmentRecord::default()
    };
    let lines =
        |record: Option<&EnvironmentRecord>| environment_lines(&environment(), "agents", record, at(60)).join("\n");
    assert_eq!(lines(Some(&record)), "production  main@3f9c2ab1  namespace agents");
    record.errors = vec!["agents/a/agent.yaml:1:1: error: no".to_owned()];
    record.refused =
        Some(RefusedMove { reference: "main".to_owned(), to: None, why: "it was deleted".to_owned(), since: at(0) });
    record.conditions = vec![Condition {
        kind: ConditionKind::Ready,
        status: Truth::False,
        reason: "Invalid".to_owned(),
        message: "one agent is not valid".to_owned(),
        last_transition_time: at(0),
        observed_generation: None,
    }];
    insta::assert_snapshot!(lines(Some(&record)));
    assert!(lines(None).contains("has not been here yet"));
}

#[test]
fn what_keeps_agents_apart_is_said() {
    assert_eq!(isolation_line(Launcher::Fork), "  isolation: none (every agent has the daemon's account)");
    assert!(isolation_line(Launcher::Systemd).starts_with("  isolation: unit ("));
}

#[test]
fn operations_are_told_with_cause_and_outcome() {
    let good = || stood("good", 0).release;
    let between = |cause: Cause, outcome: Option<Outcome>| Operation {
        from: Some(ShortId(good().short())),
        to: Some(ShortId(stood("new", 0).release.short())),
        ..operation(cause, outcome)
    };
    let record = |left: &str, git: Told| AgentRecord {
        hold: Some(Hold { left: stood(left, 0).release, by: "alice".to_owned(), since: at(0), git }),
        ..AgentRecord::default()
    };
    let none = AgentRecord::default();
    let entry = Quarantined {
        evidence: vec!["errors, candidate: 5 of 25".to_owned(), "errors, stable: 0 of 75".to_owned()],
        git: Told::Commit("3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".to_owned()),
        ..Quarantined::new(stood("new", 0).release, at(0), "errors: the candidate is worse than stable")
    };
    let quarantined = AgentRecord { quarantine: vec![entry], ..AgentRecord::default() };
    let commit = Told::Commit("3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".to_owned());
    let failed = || Some(Outcome::Failed("errors: the candidate is worse than stable".to_owned()));
    let reverted = Cause::Revert {
        evidence: Evidence::Verified,
        of: vec!["0a9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a commit")],
    };
    let moved = Cause::Rollback { by: "alice".to_owned(), reason: "too loud".to_owned(), tell_git: true };
    let told: Vec<String> = [
        told(&between(Cause::Commit {}, None), &none),
        told(&between(Cause::Commit {}, Some(Outcome::Succeeded)), &none),
        told(&between(Cause::Commit {}, failed()), &none),
        told(&between(Cause::Commit {}, failed()), &record("new", commit.clone())),
        told(&between(Cause::Commit {}, failed()), &record("other", commit.clone())),
        told(&between(Cause::Commit {}, failed()), &quarantined),
        told(&between(Cause::Commit {}, Some(Outcome::Superseded)), &none),
        told(&between(reverted, Some(Outcome::Succeeded)), &none),
        told(&between(moved.clone(), Some(Outcome::Succeeded)), &record("good", commit)),
        told(&between(moved, Some(Outcome::Succeeded)), &record("good", Told::Refused("it is protected".to_owned()))),
        told(&between(Cause::Failed { why: "crash loop".to_owned() }, Some(Outcome::Succeeded)), &none),
        told(&between(Cause::Retry { by: "alice".to_owned() }, None), &none),
        told(&between(Cause::Rename { from: "helpdesk".parse().expect("a name") }, None), &none),
        told(&Operation { kind: OperationKind::Settings, ..operation(Cause::Commit {}, None) }, &none),
        told(&Operation { kind: OperationKind::Removal, to: None, ..operation(Cause::Commit {}, None) }, &none),
        told(&Operation { from: None, ..operation(Cause::Rebuilt {}, None) }, &none),
    ]
    .concat();
    insta::assert_snapshot!(told.join("\n"));
}
