//! Stories of one rollout each.

use backstay::desired::Frozen;
use backstay::desired::rollout::{OnNewCommit, Step};
use backstay::judge::{Judge, Verdict, Why};
use backstay::rollout::{
    Answer, Beginning, Carrier, Closed, Deed, Event, Illegal, Instances, News, Outside, Phase, Reason, Routes, Sides,
    Smoked, Split, Wait, Wave, Way, bake, judged,
};
use jiff::SignedDuration;

use super::bench::{Bench, beginning, blue_green, canary, person, release, weight};

fn usual() -> Bench {
    Bench::new(beginning(canary(vec![weight(5, 5), weight(50, 10)])))
}

fn frozen(bench: &Bench, minutes: i64) -> Outside {
    let until = bench.now.checked_add(SignedDuration::from_mins(minutes)).expect("a time");
    Outside { freeze: Some(Frozen { until, message: "weekend".to_owned() }), ..Outside::default() }
}

// T1
#[test]
fn a_canary_goes_step_by_step_and_is_kept_until_it_is_proven() {
    let mut bench = usual();
    bench.must(&Event::Tick);
    assert_eq!(*bench.rollout.phase(), Phase::Starting);
    let wanted = bench.rollout.wanted();
    assert_eq!((wanted.instances.candidate.agent, wanted.instances.stable.agent), (1, 4));
    assert_eq!(wanted.routes, Routes { attached: false, split: Split::STABLE, mirror: false });
    // Ready, but not in the route: no weight yet.
    let worker = "indexer".parse().expect("a name");
    let ready = Sides { candidate: wanted.instances.candidate.clone(), stable: wanted.instances.stable.clone() };
    bench.must(&Event::Ready(ready));
    assert!(bench.rollout.wanted().routes.attached);
    assert_eq!(bench.weight(), 0);
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert_eq!(bench.weight(), 5);
    // Asked for is not in force: the step has not begun.
    assert_eq!(bench.rollout.judged_step(), None);
    assert_eq!(bench.judge(Verdict::Advance, Why::NoHarm), Err(Illegal::Late));
    bench.carry_out();
    assert_eq!(bench.rollout.judged_step(), Some((0, bench.now)));
    bench.advance();
    // The set grows before the weight does.
    assert_eq!((bench.weight(), bench.rollout.wanted().instances.candidate.agent), (5, 2));
    bench.carry_out();
    assert_eq!((bench.weight(), bench.rollout.judged_step().map(|(step, _)| step)), (50, Some(1)));
    assert_eq!(bench.rollout.wanted().instances.candidate.workers[&worker], 1);
    bench.judge(Verdict::Promote, Why::NoHarm).expect("a promotion");
    bench.carry_out();
    assert!(matches!(bench.rollout.phase(), Phase::Baking { .. }));
    assert_eq!((bench.weight(), bench.rollout.wanted().instances.stable.agent), (100, 4), "the old set stays");
    bench.wait(9);
    assert!(!bench.rollout.is_over());
    bench.wait(1);
    assert!(matches!(bench.rollout.phase(), Phase::Done { .. }));
    assert_eq!(bench.rollout.wanted().instances.stable.agent, 0);
}

#[test]
fn harm_sends_it_back_at_once_and_for_good() {
    for freeze in [false, true] {
        let mut bench = usual();
        bench.carry_out();
        if freeze {
            let outside = frozen(&bench, 60);
            bench.outside(outside);
            bench.asks("alice", Deed::Pause).expect("a pause");
        }
        bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
        assert_eq!(bench.weight(), 0, "in the same step");
        assert_eq!(bench.rollout.wanted().instances.candidate.agent, 1, "it stays until the traffic is off");
        assert!(!bench.is_aborted());
        bench.carry_out();
        assert!(bench.is_aborted());
        assert_eq!(bench.rollout.wanted().instances.candidate.agent, 0);
        let Phase::Aborted { reason, .. } = bench.rollout.phase() else { panic!("not back") };
        let after = reason.aftermath();
        assert!(after.quarantine && after.tell_git && !after.hold);
        assert_eq!(bench.judge(Verdict::Advance, Why::NoHarm), Err(Illegal::Over("judge")));
        assert_eq!(bench.asks("alice", Deed::Promote), Err(Illegal::Over("promote")));
        assert_eq!(bench.rollout.rollbacks().len(), 1);
    }
}

#[test]
fn what_blames_nobody_quarantines_nobody() {
    for why in [Why::Undecided, Why::NoData] {
        let mut bench = usual();
        bench.carry_out();
        bench.hold(why);
        bench.hold(why);
        let told = bench.news.iter().filter(|news| matches!(news, News::Undecided(_))).count();
        assert_eq!((told, bench.weight()), (1, 5), "told once, and it stays");
        bench.judge(Verdict::Abort, why).expect("an abort, where that is asked for");
        bench.carry_out();
        let Phase::Aborted { reason, .. } = bench.rollout.phase() else { panic!("not back") };
        let after = reason.aftermath();
        assert!(!after.quarantine && after.hold && !after.tell_git);
    }
}

#[test]
fn a_way_back_needs_a_ready_stable_and_nothing_else() {
    let mut bench = usual();
    bench.carry_out();
    // Stable is lost: the candidate, which serves already, takes all, and no step goes on.
    let candidate = bench.rollout.wanted().instances.candidate;
    let lost = Sides { candidate: candidate.clone(), stable: Instances::default() };
    bench.must(&Event::Ready(lost));
    assert_eq!(bench.weight(), 100);
    assert!(bench.news.contains(&News::StableLost));
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert_eq!(bench.judge(Verdict::Advance, Why::NoHarm), Err(Illegal::Late));
    // It goes back as soon as there is somewhere to go.
    bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
    assert_eq!(bench.weight(), 100);
    assert!(bench.news.contains(&News::NoWayBack));
    let one = Sides { candidate, stable: Instances { agent: 1, ..Instances::default() } };
    bench.must(&Event::Ready(one));
    assert_eq!(bench.weight(), 0);
    // And never again, though stable is lost anew.
    let ready = Sides { candidate: bench.size(), stable: Instances::default() };
    bench.must(&Event::Ready(ready));
    assert_eq!(bench.weight(), 0);
    bench.carry_out();
    assert!(bench.is_aborted());
}

#[test]
fn an_aborted_candidate_takes_no_more_though_stable_is_lost() {
    let mut bench = usual();
    bench.carry_out();
    let routes = bench.rollout.wanted().routes;
    bench.must(&Event::Routes(None));
    let candidate = bench.rollout.wanted().instances.candidate;
    bench.must(&Event::Ready(Sides { candidate, stable: Instances::default() }));
    assert_eq!(bench.weight(), 5, "nobody knows the route");
    bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
    bench.must(&Event::Routes(Some(routes)));
    assert_eq!(bench.weight(), 5);
    bench.carry_out();
    assert!(bench.is_aborted());
}

#[test]
fn an_aborted_candidate_leaves_the_route_once_nothing_goes_to_it() {
    let mut bench = usual();
    bench.carry_out();
    bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
    let routes = bench.rollout.wanted().routes;
    assert_eq!((routes.attached, routes.split.weight()), (true, 0), "a way that is forgotten too early leads nowhere");
    assert!(!bench.is_aborted());
    bench.must(&Event::Routes(Some(routes)));
    assert!(bench.is_aborted() && !bench.rollout.wanted().routes.attached);
}

#[test]
fn what_was_in_force_before_an_abort_ends_no_abort() {
    let mut bench = Bench::new(beginning(canary(vec![weight(5, 5)])));
    // In the route without weight; the first weight is asked for, and not in force yet.
    bench.must(&Event::Ready(bench.rollout.wanted().instances));
    bench.must(&Event::Ready(bench.rollout.wanted().instances));
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert_eq!(bench.weight(), 5);
    bench.must(&Event::Failed { why: "it failed".to_owned(), by_release: true });
    assert!(!bench.is_aborted(), "who knows what was written of that weight?");
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert!(bench.is_aborted());
    assert_eq!(bench.weight(), 0, "it was on its way out of the route");
}

#[test]
fn a_candidate_that_is_lost_has_no_traffic_and_begins_its_step_anew() {
    let mut bench = usual();
    bench.carry_out();
    let began = bench.rollout.judged_step();
    bench.wait(1);
    bench.must(&Event::Ready(Sides { candidate: Instances::default(), stable: bench.size() }));
    assert_eq!(bench.weight(), 0);
    assert!(bench.news.contains(&News::CandidateLost));
    bench.carry_out();
    assert_eq!(bench.weight(), 5);
    assert!(bench.rollout.judged_step() > began);
}

#[test]
fn freezes_approvals_waves_and_quiet_are_waited_for() {
    let rollbacks = vec![super::bench::START.parse().expect("a time")];
    let mut bench = Bench::new(Beginning { approvals: 1, rollbacks, ..beginning(canary(vec![weight(5, 5)])) });
    bench.must(&Event::Tick);
    assert!(matches!(bench.rollout.wait(bench.now), Some(Wait::Cooldown { .. })));
    bench.wait(5);
    assert_eq!(bench.rollout.wait(bench.now), Some(Wait::Approval { missing: 1 }));
    assert_eq!(bench.asks("author", Deed::Promote), Err(Illegal::OwnCommit(person("author"))));
    let outside = frozen(&bench, 60);
    bench.outside(outside);
    bench.asks("bob", Deed::Promote).expect("an approval in a freeze");
    assert!(matches!(bench.rollout.wait(bench.now), Some(Wait::Freeze(_))));
    assert!(matches!(bench.asks("bob", Deed::Promote), Err(Illegal::Frozen(_))));
    bench.wait(59);
    assert_eq!(*bench.rollout.phase(), Phase::Waiting);
    let wave = Outside { wave: Some(Wave::Full), ..Outside::default() };
    bench.outside(wave);
    assert_eq!(bench.rollout.wait(bench.now), Some(Wait::Wave(Wave::Full)));
    bench.outside(Outside::default());
    assert_eq!(*bench.rollout.phase(), Phase::Starting);
}

#[test]
fn a_freeze_holds_what_runs_and_ends_by_the_clock() {
    let mut bench = usual();
    bench.carry_out();
    let outside = frozen(&bench, 30);
    bench.outside(outside);
    bench.advance();
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 0, .. }));
    assert_eq!(bench.rollout.next_look(bench.now), bench.now.checked_add(SignedDuration::from_mins(30)).ok());
    bench.wait(30);
    bench.advance();
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 1, .. }));
}

#[test]
fn too_many_that_went_back_stop_the_next_until_a_person_says_so() {
    let start: jiff::Timestamp = super::bench::START.parse().expect("a time");
    let ago = |minutes| start.checked_sub(SignedDuration::from_mins(minutes)).expect("a time");
    let rollbacks = vec![ago(50), ago(40), ago(30)];
    let mut bench = Bench::new(Beginning { rollbacks, ..beginning(canary(vec![weight(5, 5)])) });
    bench.must(&Event::Tick);
    let wait = bench.rollout.wait(bench.now).expect("a wait");
    assert!(wait.is_stalled() && matches!(wait, Wait::TooMany { until } if until == ago(-10)), "{wait:?}");
    bench.asks("bob", Deed::Promote).expect("a start");
    assert_eq!(*bench.rollout.phase(), Phase::Starting);
}

#[test]
fn pauses_gates_and_instances_are_steps() {
    let gate = Step::Gate { name: "load".to_owned() };
    let lasts = Some(SignedDuration::from_mins(10));
    let steps =
        vec![Step::Replicas { count: 3 }, weight(5, 5), Step::Pause { lasts: None }, Step::Pause { lasts }, gate];
    let mut bench = Bench::new(beginning(canary(steps)));
    bench.carry_out();
    assert_eq!(bench.rollout.wanted().instances.candidate.agent, 3);
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 1, .. }));
    bench.advance();
    assert_eq!(bench.rollout.wait(bench.now), Some(Wait::Promotion));
    bench.wait(600);
    bench.carry_out();
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 2, .. }), "no time ends it");
    assert_eq!(bench.judge(Verdict::Advance, Why::NoHarm), Err(Illegal::Late), "nor does the judge");
    bench.asks("alice", Deed::Promote).expect("a promotion");
    bench.wait(9);
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 3, .. }));
    bench.wait(1);
    assert_eq!(bench.rollout.wait(bench.now), Some(Wait::Gate { name: "load".to_owned(), closed: None }));
    let answer = |name: &str, answer| Event::Gate { name: name.to_owned(), answer };
    let closed = |why: &str| Answer::Closed(Closed::Because(why.to_owned()));
    bench.must(&answer("load", closed("it answers 404")));
    let told = |bench: &Bench| bench.rollout.wait(bench.now).expect("a wait").to_string();
    assert_eq!(told(&bench), "the gate `load`: it answers 404");
    // Who says something else every time is not recorded every time.
    let before = bench.rollout.clone();
    bench.must(&answer("load", closed("1 % done")));
    assert_eq!(bench.rollout, before);
    bench.wait(1);
    bench.must(&answer("load", closed("7 % done")));
    assert_eq!(told(&bench), "the gate `load`: 7 % done");
    assert!(!bench.rollout.wait(bench.now).expect("a wait").is_stalled());
    bench.must(&answer("load", Answer::Closed(Closed::Unnamed)));
    let wait = bench.rollout.wait(bench.now).expect("a wait");
    assert!(wait.is_stalled() && wait.to_string().contains("add `[gates.load]` to backstay.toml"), "{wait}");
    assert_eq!(bench.tell(&answer("other", Answer::Open)), Err(Illegal::Late));
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 4, .. }));
    assert_eq!(bench.weight(), 5, "the weight stays");
    let outside = frozen(&bench, 1);
    bench.outside(outside);
    bench.must(&answer("load", Answer::Open));
    assert!(matches!(bench.rollout.phase(), Phase::Step { at: 4, .. }), "a freeze holds at an open gate, too");
    bench.outside(Outside::default());
    bench.must(&answer("load", Answer::Open));
    bench.carry_out();
    assert_eq!(bench.weight(), 100);
}

#[test]
fn git_has_the_last_word_at_every_point() {
    // A revert ends it at once, held or not.
    let mut bench = usual();
    bench.carry_out();
    bench.asks("alice", Deed::Pause).expect("a pause");
    bench.must(&Event::Desired(release("stable")));
    assert_eq!(bench.weight(), 0);
    bench.carry_out();
    assert!(matches!(bench.rollout.phase(), Phase::Aborted { reason: Reason::Reverted, .. }));
    assert!(bench.rollout.rollbacks().is_empty(), "a person's revert counts against nobody");
    // A newer commit supersedes by way of stable, or queues.
    let mut bench = usual();
    bench.carry_out();
    bench.must(&Event::Desired(release("newer")));
    assert_eq!(bench.weight(), 0);
    bench.carry_out();
    assert!(
        matches!(bench.rollout.phase(), Phase::Aborted { reason: Reason::Superseded { by }, .. } if *by == release("newer"))
    );
    let mut spec = canary(vec![weight(5, 5)]);
    spec.on_new_commit = OnNewCommit::Queue;
    let mut bench = Bench::new(beginning(spec));
    bench.carry_out();
    bench.must(&Event::Desired(release("newer")));
    assert_eq!((bench.weight(), bench.rollout.next()), (5, Some(release("newer"))));
    bench.must(&Event::Desired(release("candidate")));
    assert_eq!(bench.rollout.next(), None);
    // In the middle of the promotion nothing is left half done.
    let mut bench = usual();
    bench.carry_out();
    bench.advance();
    bench.carry_out();
    bench.judge(Verdict::Promote, Why::NoHarm).expect("a promotion");
    bench.must(&Event::Desired(release("newer")));
    bench.carry_out();
    assert!(matches!(bench.rollout.phase(), Phase::Baking { .. }));
    assert_eq!(bench.rollout.next(), Some(release("newer")));
}

#[test]
fn blue_green_switches_at_once_and_back_by_the_same_switch() {
    let mut bench = Bench::new(beginning(blue_green()));
    bench.carry_out();
    assert_eq!(*bench.rollout.phase(), Phase::Smoke { passed: false, unreached: None });
    assert_eq!((bench.weight(), bench.rollout.wanted().instances.candidate.agent), (0, 4));
    bench.must(&Event::Smoked(Smoked::Answers));
    assert_eq!(bench.weight(), 100);
    bench.carry_out();
    bench.wait(10);
    assert!(matches!(bench.rollout.phase(), Phase::Keeping { .. }));
    // The side that is left answers nobody: that is no reason to stay.
    bench.must(&Event::Ready(Sides { candidate: Instances::default(), stable: bench.size() }));
    bench.asks("alice", Deed::Abort { reason: "no".to_owned() }).expect("a way back");
    assert_eq!(bench.weight(), 0);
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert!(bench.is_aborted());

    let mut bench = Bench::new(beginning(blue_green()));
    bench.carry_out();
    bench.must(&Event::Smoked(Smoked::Fails("500".to_owned())));
    bench.carry_out();
    assert!(bench.is_aborted());
}

#[test]
fn a_preview_that_cannot_be_reached_blames_nobody_and_a_person_may_pass_it() {
    let mut bench = Bench::new(beginning(blue_green()));
    bench.carry_out();
    assert!(bench.asks("alice", Deed::Promote).is_err(), "it has not been looked at yet");
    bench.must(&Event::Smoked(Smoked::Unreached("no route to host".to_owned())));
    bench.wait(600);
    let wait = bench.rollout.wait(bench.now).expect("it waits");
    assert!(wait.is_stalled() && wait.to_string().contains("no route to host"), "{wait}");
    assert!(wait.to_string().contains("backstay promote"), "{wait}");
    assert_eq!(bench.weight(), 0);
    // It can be reached again, and is as it should be.
    let mut again = Bench { rollout: bench.rollout.clone(), now: bench.now, news: vec![] };
    again.must(&Event::Smoked(Smoked::Answers));
    assert_eq!(again.weight(), 100);
    // Nobody can look at it from here; somebody looked otherwise.
    bench.asks("alice", Deed::Promote).expect("passed");
    assert_eq!(bench.weight(), 100);
}

#[test]
fn a_promoted_release_goes_back_by_itself_but_not_too_often() {
    let promote = |bench: &mut Bench| {
        bench.carry_out();
        bench.judge(Verdict::Promote, Why::NoHarm).expect("a promotion");
        bench.carry_out();
        assert!(matches!(bench.rollout.phase(), Phase::Baking { .. }));
    };
    let mut bench = Bench::new(beginning(canary(vec![weight(5, 5)])));
    promote(&mut bench);
    bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
    assert_eq!(bench.weight(), 0);
    // Right after another one it holds, and says so once.
    let start = super::bench::START.parse().expect("a time");
    let mut bench = Bench::new(Beginning { rollbacks: vec![start], ..beginning(canary(vec![weight(5, 5)])) });
    bench.asks("alice", Deed::Promote).expect("a start");
    promote(&mut bench);
    bench.judge(Verdict::Abort, Why::Harm).expect("a hold");
    bench.judge(Verdict::Abort, Why::Harm).expect("a hold");
    assert_eq!(bench.weight(), 100);
    assert_eq!(bench.news.iter().filter(|news| matches!(news, News::HeldBack { .. })).count(), 1);
    bench.wait(5);
    bench.judge(Verdict::Abort, Why::Harm).expect("an abort");
    assert_eq!(bench.weight(), 0);
}

#[test]
fn the_way_back_is_straight_and_nothing_holds_it() {
    let start = super::bench::START.parse().expect("a time");
    let rollbacks = vec![start, start, start];
    let back = Beginning { way: Way::Back, approvals: 2, rollbacks, ..beginning(canary(vec![weight(5, 5)])) };
    let mut bench = Bench::new(back);
    let outside = frozen(&bench, 60);
    bench.outside(outside);
    assert_eq!(*bench.rollout.phase(), Phase::Starting);
    // What is left is dead already.
    let ready = Sides { candidate: bench.size(), stable: Instances::default() };
    bench.must(&Event::Ready(ready));
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert_eq!(bench.weight(), 100);
    // Git may still ask for what is left, and no judge takes it back.
    bench.must(&Event::Desired(release("stable")));
    assert!(bench.judge(Verdict::Abort, Why::Harm).is_err());
    bench.must(&Event::Routes(Some(bench.rollout.wanted().routes)));
    assert!(matches!(bench.rollout.phase(), Phase::Done { .. }));
}

#[test]
fn rolling_in_place_is_watched_too() {
    let spec = backstay::desired::RolloutSpec::default();
    let mut bench = Bench::new(beginning(spec));
    assert_eq!(bench.rollout.carrier(), Carrier::InPlace);
    bench.must(&Event::Tick);
    assert_eq!(bench.rollout.wanted().in_place, Some(true));
    bench.carry_out();
    assert!(matches!(bench.rollout.phase(), Phase::Baking { .. }));
    bench.must(&Event::Failed { why: "it starts and ends".to_owned(), by_release: true });
    assert_eq!(bench.rollout.wanted().in_place, Some(false));
    bench.carry_out();
    assert!(bench.is_aborted());
}

#[test]
fn what_is_declared_is_what_the_judge_takes() {
    let now = super::bench::START.parse().expect("a time");
    let steps = backstay::desired::RolloutSpec::default_steps(true);
    let spec = canary(steps);
    let judged = judged(&spec).expect("steps");
    assert_eq!(judged.steps.len(), 3);
    assert_eq!(judged.limit(2, "errors"), Some(0.005));
    assert_eq!(judged.limit(1, "p99"), Some(1000.0));
    assert!(Judge::new(judged, now).is_ok());
    let (_, watch) = bake(&spec);
    assert_eq!((watch.limit(0, "errors"), watch.limit(0, "p99")), (Some(0.05), Some(2000.0)));
    assert!(Judge::new(watch, now).is_ok());
}

#[test]
fn a_record_of_another_layout_is_not_read() {
    let mut record = usual().rollout.saved(Some("evidence".to_owned())).expect("a record");
    record.version += 1;
    assert!(backstay::rollout::Rollout::read(&record).is_err());
    // Records without one are read as before, and are written without it.
    let old: backstay::record::AgentRecord = serde_json::from_str(r#"{"format": 1}"#).expect("a record");
    assert_eq!(old.rollout, None);
    assert!(!serde_json::to_string(&old).expect("text").contains("rollout"));
}

#[test]
fn harm_while_the_rest_of_the_candidate_starts_takes_it_back_and_an_old_doubt_does_not() {
    let mut bench = Bench::new(beginning(canary(vec![weight(50, 5)])));
    bench.carry_out();
    bench.advance();
    assert_eq!(*bench.rollout.phase(), Phase::Promoting);
    assert_eq!(bench.weight(), 50, "it keeps what it has until all of its instances are ready");
    for why in [Why::Undecided, Why::NoData] {
        bench.judge(Verdict::Abort, why).expect("no reason any more");
        bench.judge(Verdict::Hold, why).expect("no reason any more");
    }
    assert_eq!(*bench.rollout.phase(), Phase::Promoting);
    bench.judge(Verdict::Abort, Why::Harm).expect("it goes back");
    bench.carry_out();
    assert!(bench.is_aborted());
}

// F2
#[test]
fn what_a_wrong_clock_wrote_counts_from_now() {
    let years = SignedDuration::from_hours(87_660);
    for what in ["a step", "a pause", "the watch"] {
        let pause = Step::Pause { lasts: Some(SignedDuration::from_mins(5)) };
        let mut bench = Bench::new(beginning(canary(vec![weight(50, 5), pause])));
        let right = bench.now;
        bench.now = right.checked_add(years).expect("a time");
        bench.carry_out();
        if what != "a step" {
            bench.advance();
        }
        if what == "the watch" {
            bench.wait(5);
            bench.carry_out();
        }
        bench.now = right;
        bench.must(&Event::Tick);
        let until = bench.rollout.next_look(right).or_else(|| bench.rollout.judged_step().map(|(_, since)| since));
        let until = until.expect("a time");
        assert!(until.duration_since(right) <= SignedDuration::from_mins(10), "{what}: {until}");
    }
}
