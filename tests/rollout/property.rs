//! Whatever happens, in whatever order: the laws hold after every event, through a record each time.

use backstay::desired::Frozen;
use backstay::desired::rollout::{Canary, Step, Strategy as Progression};
use backstay::judge::{Verdict, Why};
use backstay::rollout::{
    Answer, Beginning, Carrier, Closed, Deed, Event, Instances, Outside, Phase, Rollout, Sides, Smoked, Split, Wave,
    Way,
};
use jiff::SignedDuration;
use proptest::prelude::*;

use super::bench::{Bench, beginning, blue_green, canary, decision, person, release, weight};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Deal {
    Wait(i64),
    Ready { candidate: u32, stable: u32 },
    CarryOut,
    Route,
    NoRoute,
    Freeze(i64),
    Thaw,
    Wave(bool),
    Desired(u8),
    Judge { verdict: u8, why: u8, step: usize },
    Smoke(bool),
    Gate(u8),
    Fail(bool),
    Person { who: u8, deed: u8 },
}

fn deal() -> impl Strategy<Value = Deal> {
    prop_oneof![
        4 => (0..20_i64).prop_map(Deal::Wait),
        3 => (0..6_u32, 0..6_u32).prop_map(|(candidate, stable)| Deal::Ready { candidate, stable }),
        8 => Just(Deal::CarryOut),
        3 => Just(Deal::Route),
        1 => Just(Deal::NoRoute),
        1 => (1..60_i64).prop_map(Deal::Freeze),
        1 => Just(Deal::Thaw),
        1 => any::<bool>().prop_map(Deal::Wave),
        1 => (0..8_u8).prop_map(Deal::Desired),
        6 => (0..12_u8, 0..6_u8, 0..4_usize).prop_map(|(verdict, why, step)| Deal::Judge { verdict, why, step }),
        1 => any::<bool>().prop_map(Deal::Smoke),
        1 => (0..6_u8).prop_map(Deal::Gate),
        1 => any::<bool>().prop_map(Deal::Fail),
        2 => (0..3_u8, 0..12_u8).prop_map(|(who, deed)| Deal::Person { who, deed }),
    ]
}

fn start() -> impl Strategy<Value = Beginning> {
    (0..5_u8, 0..3_u8, 0..4_u8, any::<bool>()).prop_map(|(strategy, carrier, approvals, mirror)| {
        let gate = Step::Gate { name: "load".to_owned() };
        let lasts = Some(SignedDuration::from_mins(3));
        let spec = match strategy {
            0 => blue_green(),
            1 => backstay::desired::RolloutSpec::default(),
            2 => canary(vec![weight(1, 5), Step::Pause { lasts: None }, weight(60, 5)]),
            _ => canary(vec![Step::Replicas { count: 2 }, weight(5, 5), gate, Step::Pause { lasts }, weight(50, 5)]),
        };
        let mut spec = spec;
        if let (Progression::Canary(Canary { mirror: copy, .. }), true) = (&mut spec.strategy, mirror) {
            *copy = Some(SignedDuration::from_mins(2));
        }
        Beginning {
            carrier: if carrier == 0 { Carrier::Counted } else { Carrier::Routed },
            way: if strategy == 4 && carrier == 1 { Way::Back } else { Way::Forward },
            approvals: u32::from(approvals == 0),
            ..beginning(spec)
        }
    })
}

fn events(deal: &Deal, bench: &Bench) -> Vec<Event> {
    let wanted = bench.rollout.wanted();
    let judge = |verdict, why, step| Event::Judged(Box::new(decision(verdict, why, step, bench.now)));
    let freeze = |minutes| {
        let until = bench.now.checked_add(SignedDuration::from_mins(minutes)).expect("a time");
        Outside { freeze: Some(Frozen { until, message: String::new() }), ..Outside::default() }
    };
    vec![match deal {
        Deal::Wait(_) => Event::Tick,
        Deal::Ready { candidate, stable } => {
            let of = |agent: u32| Instances { agent, workers: bench.size().workers };
            Event::Ready(Sides { candidate: of(*candidate), stable: of(*stable) })
        }
        Deal::CarryOut => match wanted.in_place {
            Some(true) => Event::Ready(Sides { candidate: bench.size(), stable: Instances::default() }),
            Some(false) => Event::Ready(Sides { candidate: Instances::default(), stable: bench.size() }),
            None => return vec![Event::Ready(wanted.instances), Event::Routes(Some(wanted.routes))],
        },
        Deal::Route => Event::Routes(Some(wanted.routes)),
        Deal::NoRoute => Event::Routes(None),
        Deal::Freeze(minutes) => Event::Outside(freeze(*minutes)),
        Deal::Thaw => Event::Outside(Outside::default()),
        Deal::Wave(stopped) => {
            let wave = if *stopped { Wave::Stopped } else { Wave::Full };
            Event::Outside(Outside { wave: Some(wave), ..Outside::default() })
        }
        Deal::Desired(0) => Event::Desired(release("stable")),
        Deal::Desired(1) => Event::Desired(release("newer")),
        Deal::Desired(_) => Event::Desired(release("candidate")),
        Deal::Judge { verdict, why, step } => {
            let verdict = match verdict {
                0 => Verdict::Abort,
                1..=3 => Verdict::Hold,
                4..=8 => Verdict::Advance,
                _ => Verdict::Promote,
            };
            let whys = [Why::Failed, Why::Harm, Why::NoData, Why::Undecided, Why::NoHarm, Why::Waiting];
            let step = bench.rollout.judged_step().map_or(*step, |(at, _)| if *step == 3 { *step } else { at });
            judge(verdict, whys[usize::from(*why)], step)
        }
        Deal::Smoke(good) => Event::Smoked(if *good { Smoked::Answers } else { Smoked::Fails("500".to_owned()) }),
        Deal::Gate(answer) => Event::Gate {
            name: if *answer == 5 { "other" } else { "load" }.to_owned(),
            answer: match answer {
                0 => Answer::Refused("no".to_owned()),
                1 => Answer::Closed(Closed::Because("not yet".to_owned())),
                _ => Answer::Open,
            },
        },
        Deal::Fail(by_release) => Event::Failed { why: "it failed".to_owned(), by_release: *by_release },
        Deal::Person { who, deed } => Event::Person {
            by: person(["author", "bob", "carol"][usize::from(*who)]),
            deed: match deed {
                0 => Deed::Abort { reason: String::new() },
                1 | 2 => Deed::Pause,
                3 | 4 => Deed::Resume,
                _ => Deed::Promote,
            },
        },
    }]
}

/// Where it stands on the way forward, as a number that grows.
fn progress(rollout: &Rollout) -> Option<usize> {
    Some(match rollout.phase() {
        Phase::Waiting => 0,
        Phase::Starting => 1,
        Phase::Smoke { .. } | Phase::Mirror { .. } => 2,
        Phase::Step { at, .. } => 3 + at,
        Phase::Experiment { .. } => 50,
        Phase::Promoting => 60,
        Phase::Baking { .. } => 61,
        Phase::Keeping { .. } => 62,
        Phase::Done { .. } => 63,
        Phase::Aborting { .. } | Phase::Aborted { .. } => return None,
    })
}

/// What is remembered from event to event.
#[derive(Default)]
struct Watch {
    ready: Sides<Instances>,
    attached: bool,
    frozen: Option<jiff::Timestamp>,
    paused: bool,
}

/// The laws, after one event that was taken.
fn check(before: &Rollout, event: &Event, bench: &Bench, watch: &Watch, way: Way) -> Result<(), TestCaseError> {
    let after = &bench.rollout;
    let (was, is) = (before.wanted(), after.wanted());
    let in_place = is.in_place.is_some();
    // T1: weights sum to the whole.
    let weights = is.routes.split.weights().expect("weights");
    prop_assert_eq!(weights.candidate + weights.stable, 100);
    // T1: none without a ready instance, and more only for one in the route.
    if is.routes.split.gives() {
        prop_assert!(watch.ready.candidate.agent > 0, "traffic without a ready instance");
        prop_assert!(is.routes.attached, "traffic without a route");
    }
    if is.routes.split.weight() > was.routes.split.weight() {
        prop_assert!(watch.attached, "weight before the route knows the candidate");
        prop_assert!(!matches!(before.phase(), Phase::Aborting { .. } | Phase::Aborted { .. }), "an aborted candidate");
    }
    // Stable is only without traffic, or with less, while the candidate can serve; and only with more while it can.
    if is.routes.split.weight() < was.routes.split.weight() && watch.ready.candidate.agent > 0 {
        prop_assert!(watch.ready.stable.agent > 0, "traffic goes to a stable that is not ready");
    }
    // After an abort all is back in the step in which stable is ready.
    if matches!(after.phase(), Phase::Aborting { .. } | Phase::Aborted { .. }) && !in_place {
        let free = watch.ready.stable.agent > 0 || watch.ready.candidate.agent == 0;
        prop_assert!(!free || !is.routes.split.gives(), "an aborted candidate keeps its traffic");
    }
    // Nothing goes on while it is held.
    let frozen = watch.frozen.is_some_and(|until| until > bench.now);
    if way == Way::Forward
        && (frozen || watch.paused)
        && let (Some(from), Some(to)) = (progress(before), progress(after))
    {
        let baking = from >= 61;
        let resumed = matches!(event, Event::Person { deed: Deed::Promote | Deed::Resume, .. });
        prop_assert!(to <= from || baking || (resumed && !frozen), "{from} -> {to} while held, by {event:?}");
    }
    // A gate and a pause for a person are left by them, by a person, or back.
    if let (Phase::Step { at, .. }, Some(to)) = (before.phase(), progress(after)) {
        let by_person = matches!(event, Event::Person { deed: Deed::Promote, .. });
        let step = match &before.spec().strategy {
            Progression::Canary(canary) => canary.steps.get(*at),
            _ => None,
        };
        let may_leave = match step {
            Some(Step::Gate { .. }) => matches!(event, Event::Gate { answer: Answer::Open, .. }),
            Some(Step::Pause { lasts: None }) => false,
            Some(Step::Weight { .. }) => matches!(event, Event::Judged(_)),
            _ => true,
        };
        prop_assert!(to == 3 + at || by_person || may_leave, "step {at} is left by {event:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    // T1, T3
    #[test]
    fn the_laws_hold_whatever_happens(beginning in start(), deals in prop::collection::vec(deal(), 1..60)) {
        let way = beginning.way;
        let mut bench = Bench::new(beginning);
        let mut watch = Watch::default();
        for deal in &deals {
            if let Deal::Wait(minutes) = deal {
                bench.now = bench.now.checked_add(SignedDuration::from_mins(*minutes)).expect("a time");
            }
            for event in events(deal, &bench) {
                let before = bench.rollout.clone();
                if bench.tell(&event).is_err() {
                    prop_assert_eq!(&before, &bench.rollout);
                    continue;
                }
                match &event {
                    Event::Ready(ready) => watch.ready = ready.clone(),
                    Event::Routes(routes) => watch.attached = routes.is_some_and(|routes| routes.attached),
                    Event::Outside(outside) => watch.frozen = outside.freeze.as_ref().map(|freeze| freeze.until),
                    _ => {}
                }
                check(&before, &event, &bench, &watch, way)?;
                let text = bench.news.iter().map(ToString::to_string).collect::<String>();
                prop_assert!(!text.contains('\n'), "one line each");
                watch.paused = match &event {
                    Event::Person { deed: Deed::Pause, .. } => way == Way::Forward && !bench.rollout.is_over(),
                    Event::Person { deed: Deed::Promote | Deed::Resume | Deed::Abort { .. }, .. } => false,
                    _ => watch.paused && progress(&bench.rollout).is_some_and(|at| at < 61),
                };
                // The same again changes nothing: what is seen may be told twice.
                if matches!(event, Event::Tick | Event::Ready(_) | Event::Routes(_) | Event::Outside(_) | Event::Desired(_)) {
                    let (again, news) = bench.rollout.step(&event, bench.now).expect("legal");
                    prop_assert_eq!(&again, &bench.rollout);
                    prop_assert!(news.is_empty(), "{:?}", news);
                }
            }
        }
        // T3: an abort ends within a bound, from everywhere.
        if way == Way::Forward && !bench.rollout.is_over() {
            let aborting = matches!(bench.rollout.phase(), Phase::Aborting { .. });
            let asked = aborting || bench.asks("bob", Deed::Abort { reason: String::new() }).is_ok();
            prop_assert!(asked, "an abort is refused");
            bench.carry_out();
            prop_assert!(bench.is_aborted(), "{:?}", bench.rollout.phase());
            prop_assert_eq!(bench.rollout.wanted().routes.split, Split::STABLE);
            prop_assert_eq!(bench.rollout.wanted().instances.stable, bench.size());
        }
    }
}
