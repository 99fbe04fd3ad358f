//! A rollout on a bench: a target that does what is wanted, and words that are short.

use std::collections::{BTreeMap, BTreeSet};

use backstay::desired::RolloutSpec;
use backstay::desired::rollout::{BlueGreen, Canary, Step, Strategy, Until};
use backstay::judge::{Decision, Figures, Verdict, Why};
use backstay::model::{Digest, ReleaseId, Timestamp};
use backstay::record::OperationId;
use backstay::rollout::{
    Beginning, Carrier, Deed, Event, Illegal, Instances, News, Outside, Person, Phase, Rollout, Sides, Split, Way,
};
use jiff::SignedDuration;

pub(crate) const START: &str = "2026-07-01T12:00:00Z";

pub(crate) fn release(name: &str) -> ReleaseId {
    ReleaseId::from(Digest::of(name.as_bytes()))
}

pub(crate) fn person(name: &str) -> Person {
    Person(name.to_owned())
}

pub(crate) fn weight(weight: u8, minutes: i64) -> Step {
    Step::Weight { weight, until: Until::Time(SignedDuration::from_mins(minutes)), limits: BTreeMap::new() }
}

pub(crate) fn canary(steps: Vec<Step>) -> RolloutSpec {
    RolloutSpec {
        strategy: Strategy::Canary(Canary { steps, mirror: None, reach: None }),
        analysis: RolloutSpec::default_metrics(),
        default_analysis: true,
        ..RolloutSpec::default()
    }
}

pub(crate) fn blue_green() -> RolloutSpec {
    let keep_old = SignedDuration::from_hours(1);
    let strategy = Strategy::BlueGreen(BlueGreen { preview: None, smoke: "/".to_owned(), keep_old });
    RolloutSpec { strategy, ..canary(vec![]) }
}

pub(crate) fn beginning(spec: RolloutSpec) -> Beginning {
    Beginning {
        operation: OperationId(7),
        candidate: release("candidate"),
        stable: release("stable"),
        way: Way::Forward,
        spec,
        carrier: Carrier::Routed,
        size: Instances { agent: 4, workers: BTreeMap::from([("indexer".parse().expect("a name"), 2)]) },
        approvals: 0,
        authors: BTreeSet::from([person("author")]),
        rollbacks: vec![],
    }
}

pub(crate) fn decision(verdict: Verdict, why: Why, step: usize, at: Timestamp) -> Decision {
    Decision {
        verdict,
        why,
        metric: None,
        sentence: "the judge says so".to_owned(),
        missing: vec![],
        note: None,
        at,
        figures: Figures {
            harm: 0.0,
            harm_needed: 100.0,
            no_harm_needed: 20.0,
            since: at,
            step,
            metrics: BTreeMap::new(),
        },
    }
}

/// A rollout, its clock, and all that was told.
pub(crate) struct Bench {
    pub(crate) rollout: Rollout,
    pub(crate) now: Timestamp,
    pub(crate) news: Vec<News>,
}

impl Bench {
    pub(crate) fn new(beginning: Beginning) -> Self {
        Self { rollout: Rollout::new(beginning), now: START.parse().expect("a time"), news: vec![] }
    }

    /// One event, through what a record keeps.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<(), Illegal> {
        let (next, news) = self.rollout.step(event, self.now)?;
        let read = Rollout::read(&next.saved(None).expect("a record")).expect("a rollout");
        assert_eq!(read, next, "a restart changes something");
        self.rollout = read;
        self.news.extend(news);
        Ok(())
    }

    pub(crate) fn must(&mut self, event: &Event) {
        self.tell(event).unwrap_or_else(|error| panic!("{event:?} at {:?}: {error}", self.rollout.phase()));
    }

    pub(crate) fn asks(&mut self, by: &str, deed: Deed) -> Result<(), Illegal> {
        self.tell(&Event::Person { by: person(by), deed })
    }

    /// The target makes what is wanted, and the route says so.
    pub(crate) fn carry_out(&mut self) {
        for _ in 0..4 {
            let wanted = self.rollout.wanted();
            let ready = match wanted.in_place {
                Some(true) => Sides { candidate: self.size(), stable: Instances::default() },
                Some(false) => Sides { candidate: Instances::default(), stable: self.size() },
                None => wanted.instances,
            };
            self.must(&Event::Ready(ready));
            let routes = self.rollout.wanted().routes;
            self.must(&Event::Routes(Some(routes)));
        }
    }

    pub(crate) fn size(&self) -> Instances {
        beginning(self.rollout.spec().clone()).size
    }

    pub(crate) fn wait(&mut self, minutes: i64) {
        self.now = self.now.checked_add(SignedDuration::from_mins(minutes)).expect("a time");
        self.must(&Event::Tick);
    }

    pub(crate) fn judge(&mut self, verdict: Verdict, why: Why) -> Result<(), Illegal> {
        let step = self.rollout.judged_step().map_or(0, |(step, _)| step);
        self.tell(&Event::Judged(Box::new(decision(verdict, why, step, self.now))))
    }

    /// The judge has held a step for a minute.
    pub(crate) fn hold(&mut self, why: Why) {
        let mut held = decision(Verdict::Hold, why, 0, self.now);
        held.figures.since = self.now - SignedDuration::from_mins(1);
        self.must(&Event::Judged(Box::new(held)));
    }

    pub(crate) fn advance(&mut self) {
        self.judge(Verdict::Advance, Why::NoHarm).expect("it goes on");
    }

    pub(crate) fn weight(&self) -> u8 {
        match self.rollout.wanted().routes.split {
            Split::Weight(weight) => weight,
            Split::Segment => panic!("a segment"),
        }
    }

    pub(crate) fn outside(&mut self, outside: Outside) {
        self.must(&Event::Outside(outside));
    }

    pub(crate) fn is_aborted(&self) -> bool {
        matches!(self.rollout.phase(), Phase::Aborted { .. })
    }
}
