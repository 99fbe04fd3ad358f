use super::*;
use crate::cli::screen::width;

fn told(record: &AgentRecord, columns: Option<usize>) -> String {
    let shown = shown(record, samples::now()).expect("a rollout").expect("it can be read");
    let sparks = |_: &str, columns: usize| "▁▂▃▄▅▆▇█".chars().cycle().take(columns).collect();
    let lines = lines(&shown, samples::now(), &Wide { columns, sparks: &sparks });
    lines.iter().map(crate::cli::screen::Line::plain).collect::<Vec<_>>().join("\n")
}

macro_rules! shows {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(told(&samples::$name(), None));
        }
    )*};
}

shows! {
    starting canary paused frozen aborting aborted taken_back_by_a_person baking done waiting_for_approval blue_green
    blue_green_switched ab_test
}

#[test]
fn a_watched_canary() {
    insta::assert_snapshot!(told(&samples::canary(), Some(79)));
}

#[test]
fn everything_fits_a_terminal_of_eighty_columns() {
    for (name, record) in samples::all() {
        if shown(&record, samples::now()).is_some_and(|shown| shown.is_err()) {
            continue;
        }
        for line in told(&record, Some(79)).lines() {
            assert!(width(line) <= 79, "{name}: {} columns: {line}", width(line));
        }
    }
}

#[test]
fn each_metric_has_its_sparkline() {
    let text = told(&samples::canary(), Some(79));
    for name in ["errors", "p99", "injections", "goals", "tokens"] {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect("a line");
        assert!(line.contains('▃'), "{line}");
    }
}

#[test]
fn another_version_is_said_to_be_one() {
    let why = shown(&samples::newer(), samples::now()).expect("a rollout").expect_err("it cannot be read");
    assert_eq!(why, "cannot read the rollout: it is of layout 99, this version reads 1");
    let mut broken = samples::canary();
    if let Some(rollout) = &mut broken.rollout {
        rollout.state.remove("phase");
    }
    let why = shown(&broken, samples::now()).expect("a rollout").expect_err("it cannot be read");
    assert!(why.starts_with("cannot read the rollout: missing field `phase`"), "{why}");
    assert!(shown(&AgentRecord::default(), samples::now()).is_none());
}

#[test]
fn evidence_that_cannot_be_read_is_none() {
    for evidence in ["", "{", "[]", "{\"decision\": 1}", "{\"decision\": {\"verdict\": \"hold\"}, \"more\": []}"] {
        let mut record = samples::canary();
        if let Some(rollout) = &mut record.rollout {
            rollout.evidence = Some(evidence.to_owned());
        }
        let shown = shown(&record, samples::now()).expect("a rollout").expect("it can be read");
        assert!(shown.judge.is_none() && shown.metrics.is_empty(), "{evidence}");
        assert_eq!(shown.step, Some(StepShown { number: 2, of: 3 }));
    }
}

#[test]
fn a_sentence_has_no_ages() {
    let at = |minute: i64| {
        let now = samples::now().checked_add(SignedDuration::from_mins(minute)).expect("a time");
        sentence(&shown(&samples::canary(), now).expect("a rollout").expect("it can be read"))
    };
    assert_eq!(at(0), at(1));
    insta::assert_snapshot!(at(0));
    let back = shown(&samples::aborting(), samples::now()).expect("a rollout").expect("it can be read");
    insta::assert_snapshot!(sentence(&back));
}

#[test]
fn programs_read_the_same() {
    let shown = shown(&samples::canary(), samples::now()).expect("a rollout").expect("it can be read");
    let json = serde_json::to_value(&shown).expect("JSON");
    let at = |path: &str| json.pointer(path).unwrap_or_else(|| panic!("{path} in {json:#}"));
    assert_eq!(at("/strategy"), "canary");
    assert_eq!(at("/phase"), "step");
    assert_eq!(at("/step/number"), 2);
    assert_eq!(at("/sides/0/side"), "stable");
    assert_eq!(at("/sides/0/weight"), 75);
    assert_eq!(at("/sides/1/weight"), 25);
    assert_eq!(at("/sides/1/inForce"), 25);
    assert_eq!(at("/metrics/0/name"), "errors");
    assert_eq!(at("/metrics/0/limit"), 0.01);
    assert!(at("/metrics/0/candidate/interval/0").is_number());
    assert_eq!(at("/judge/verdict"), "hold");
}
