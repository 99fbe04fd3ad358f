//! The one place where a rollout moves.

use jiff::SignedDuration;

use super::event::{Answer, Closed, Deed, Event, Illegal, News, Person, Smoked};
use super::state::{Alarm, GateSaid, Phase, Rollout, Split, Way};
use super::{Carrier, Reason, Wait};
use crate::desired::rollout::{OnNewCommit, Step, Strategy, Winner};
use crate::judge::{Decision, Outcome, Report, Side, Verdict, Why};
use crate::model::{ReleaseId, Timestamp};

/// How long a step may be without figures before people are told.
const BLIND: SignedDuration = SignedDuration::from_secs(30);
/// How long what a closed gate said is shown at least.
const GATE_TOLD: SignedDuration = SignedDuration::from_secs(30);
/// Rollbacks whose times are remembered.
const MOST_ROLLBACKS: usize = 60;

// === impl Rollout ===

impl Rollout {
    /// What a rollout becomes by one event, and what people are told of it.
    ///
    /// # Guarantees
    ///
    /// Pure, and deterministic. What was seen (time, instances, routes, the environment's word) may be told at any time
    /// and as often as one likes; nothing but a change of it changes anything.
    ///
    /// # Errors
    ///
    /// What may not happen in this phase; the rollout is as it was.
    pub fn step(&self, event: &Event, now: Timestamp) -> Result<(Self, Vec<News>), Illegal> {
        let mut next = self.clone();
        let mut news = vec![];
        next.correct_times(now);
        next.take(event, now, &mut news)?;
        // Each turn leaves a phase or a step for good, or starts or stops a clock.
        for _ in 0..=2 * next.steps().len() + 16 {
            next.regrant(now);
            if !next.moves_on(now, &mut news) {
                break;
            }
        }
        next.was_attached |= next.wanted().routes.attached;
        next.look_at_sides(&mut news);
        next.say_wait(now, &mut news);
        Ok((next, news))
    }

    /// Times that are still to come were written by a clock that was wrong: they count from now.
    fn correct_times(&mut self, now: Timestamp) {
        let since = match &mut self.phase {
            Phase::Mirror { since } | Phase::Step { since, .. } | Phase::Experiment { since, .. } => since.as_mut(),
            Phase::Baking { since } | Phase::Keeping { since } => Some(since),
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Promoting
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => None,
        };
        let said = self.gate.as_mut().map(|said| &mut said.at);
        since.into_iter().chain(said).chain(&mut self.rollbacks).for_each(|time| *time = (*time).min(now));
    }

    fn take(&mut self, event: &Event, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        match event {
            Event::Tick => {}
            Event::Ready(ready) => {
                self.ready = ready.clone();
                self.was_seen = true;
            }
            Event::Routes(routes) => {
                self.in_force = *routes;
                if let Phase::Aborting { off, .. } = &mut self.phase {
                    *off = routes.is_some_and(|routes| !routes.split.gives());
                }
            }
            Event::Outside(outside) => self.outside = outside.clone(),
            Event::Size(size) => self.size = size.clone(),
            Event::Desired(id) => self.desired(*id, now, news),
            Event::Smoked(answer) => return self.smoked(answer, now, news),
            Event::Gate { name, answer } => return self.gate(name, answer, now, news),
            Event::Judged(decision) => return self.judged(decision, now, news),
            Event::Experiment(report) => return self.experiment(report, now, news),
            Event::Failed { why, by_release } => return self.failed(why, *by_release, now, news),
            Event::Person { by, deed } => return self.asked(by, deed, now, news),
        }
        Ok(())
    }

    // === what was seen ===

    fn look_at_sides(&mut self, news: &mut Vec<News>) {
        if !self.was_seen {
            return;
        }
        let moving = !matches!(self.phase, Phase::Waiting) && !self.is_over() && self.carrier != Carrier::InPlace;
        let (candidate, stable) = (self.ready.candidate.agent > 0, self.ready.stable.agent > 0);
        if stable {
            if self.told.remove(&Alarm::StableLost) {
                news.push(News::StableBack);
            }
            self.told.remove(&Alarm::NoWayBack);
        } else if moving && self.told.insert(Alarm::StableLost) {
            news.push(News::StableLost);
        }
        if candidate {
            self.told.remove(&Alarm::CandidateLost);
        } else if moving && self.target().gives() && self.told.insert(Alarm::CandidateLost) {
            news.push(News::CandidateLost);
        }
        if self.is_sized() {
            self.told.remove(&Alarm::Stuck);
        }
    }

    /// What Git asks for now.
    fn desired(&mut self, id: ReleaseId, now: Timestamp, news: &mut Vec<News>) {
        if self.is_over() || matches!(self.phase, Phase::Aborting { .. }) {
            return;
        }
        if id == self.candidate {
            self.next = None;
            return;
        }
        if id == self.stable {
            self.next = None;
            // On the way back Git may still ask for what is left.
            if self.way == Way::Forward {
                self.abort(Reason::Reverted, now, news);
            }
            return;
        }
        let half = match &self.phase {
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. } => false,
            Phase::Keeping { .. } => {
                self.next = Some(id);
                self.phase = Phase::Done { at: now };
                return news.push(News::Done);
            }
            Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => true,
        };
        if self.way == Way::Forward && !half && self.spec.on_new_commit == OnNewCommit::Supersede {
            self.abort(Reason::Superseded { by: id }, now, news);
        } else if self.next != Some(id) {
            self.next = Some(id);
            news.push(News::Queued(id));
        }
    }

    fn smoked(&mut self, answer: &Smoked, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        let Phase::Smoke { passed, unreached } = &mut self.phase else {
            return Err(self.not_now("take the word of the preview"));
        };
        match answer {
            Smoked::Answers => (*passed, *unreached) = (true, None),
            Smoked::Unreached(why) => *unreached = Some(why.clone()).filter(|_| !*passed),
            Smoked::Fails(why) => {
                let why = format!("the preview does not answer as it should: {why}");
                self.abort(Reason::Failed { why }, now, news);
            }
        }
        Ok(())
    }

    fn gate(&mut self, name: &str, answer: &Answer, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        let Phase::Step { at, .. } = self.phase else { return Err(self.not_now("take the word of a gate")) };
        if !matches!(self.steps().get(at), Some(Step::Gate { name: asked }) if asked == name) {
            return Err(Illegal::Late);
        }
        match answer {
            Answer::Open if self.held(now).is_none() => self.pass(at, format!("the gate `{name}` is open"), now, news),
            Answer::Open => {}
            Answer::Closed(closed) => {
                // Who says something else every time is not recorded every time.
                let news = self.gate.as_ref().is_none_or(|said| {
                    said.closed != *closed
                        && (*closed == Closed::Unnamed
                            || said.closed == Closed::Unnamed
                            || now.duration_since(said.at) >= GATE_TOLD)
                });
                if news {
                    self.gate = Some(GateSaid { closed: closed.clone(), at: now });
                }
            }
            Answer::Refused(why) => {
                let why = format!("the gate `{name}` refuses it: {why}");
                self.abort(Reason::Failed { why }, now, news);
            }
        }
        Ok(())
    }

    // === what was concluded ===

    fn judged(&mut self, decision: &Decision, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        if self.way == Way::Back {
            return Err(self.not_now("judge a way back"));
        }
        match (&self.phase, decision.verdict) {
            (Phase::Waiting, _) => Err(self.not_now("judge")),
            (Phase::Aborting { .. } | Phase::Aborted { .. } | Phase::Done { .. }, _) => Err(Illegal::Over("judge")),
            (Phase::Baking { .. }, Verdict::Abort) => {
                self.go_back(Reason::Judged(Box::new(decision.clone())), now, news);
                Ok(())
            }
            (Phase::Keeping { .. }, Verdict::Abort) => {
                self.stuck(&decision.sentence, news);
                Ok(())
            }
            (Phase::Baking { .. } | Phase::Keeping { .. }, Verdict::Advance | Verdict::Promote | Verdict::Hold) => {
                Ok(())
            }
            // Its last step was passed: what that could not decide, or could not see, is no reason any more.
            (Phase::Promoting, Verdict::Hold) => Ok(()),
            (Phase::Promoting, Verdict::Abort) if matches!(decision.why, Why::Undecided | Why::NoData) => Ok(()),
            (
                Phase::Starting
                | Phase::Smoke { .. }
                | Phase::Mirror { .. }
                | Phase::Step { .. }
                | Phase::Experiment { .. }
                | Phase::Promoting,
                Verdict::Abort,
            ) => {
                self.abort(Reason::Judged(Box::new(decision.clone())), now, news);
                Ok(())
            }
            (_, Verdict::Hold) => {
                // The first figures take a moment: only who stays blind is told of.
                let blind = decision.at.duration_since(decision.figures.since) >= BLIND;
                let lasting = decision.why == Why::Undecided || decision.why == Why::NoData && blind;
                if lasting && self.told.insert(Alarm::Undecided) {
                    news.push(News::Undecided(decision.sentence.clone()));
                }
                Ok(())
            }
            (Phase::Step { at, since: Some(since) }, Verdict::Advance | Verdict::Promote) => {
                let at = *at;
                let about = self.judged_step().is_some_and(|(step, _)| step == decision.figures.step);
                if !about || decision.at < *since || !self.routes_are_in_force() {
                    return Err(Illegal::Late);
                }
                if self.held(now).is_none() {
                    self.pass(at, decision.sentence.clone(), now, news);
                }
                Ok(())
            }
            (
                Phase::Starting
                | Phase::Smoke { .. }
                | Phase::Mirror { .. }
                | Phase::Step { since: None, .. }
                | Phase::Experiment { .. }
                | Phase::Promoting,
                Verdict::Advance | Verdict::Promote,
            ) => Err(Illegal::Late),
        }
    }

    fn experiment(&mut self, report: &Report, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        let Phase::Experiment { since: Some(_), decided } = self.phase else {
            return Err(self.not_now("decide an experiment"));
        };
        let Strategy::AbTest(test) = &self.spec.strategy else { return Err(Illegal::Late) };
        if decided || !self.routes_are_in_force() {
            return Ok(());
        }
        match (&report.outcome, test.winner) {
            (Outcome::Running, _) => {}
            (Outcome::Won(Side::Stable), _) | (Outcome::Draw, Winner::Promote) => {
                self.abort(Reason::Lost { sentence: report.sentence.clone() }, now, news);
            }
            (Outcome::Won(Side::Candidate), Winner::Promote) => {
                if self.held(now).is_none() {
                    news.push(News::Decided(report.sentence.clone()));
                    self.phase = Phase::Promoting;
                }
            }
            (Outcome::Won(Side::Candidate) | Outcome::Draw, Winner::Ask) => {
                news.push(News::Decided(report.sentence.clone()));
                if let Phase::Experiment { decided, .. } = &mut self.phase {
                    *decided = true;
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, why: &str, by_release: bool, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        match &self.phase {
            Phase::Waiting => Err(self.not_now("fail")),
            Phase::Aborting { .. } | Phase::Aborted { .. } | Phase::Done { .. } => Err(Illegal::Over("fail")),
            Phase::Keeping { .. } => {
                self.stuck(why, news);
                Ok(())
            }
            Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. } => {
                // What was stable here is not taken back by itself: there is nowhere to go.
                if by_release && self.way == Way::Forward {
                    self.go_back(Reason::Failed { why: why.to_owned() }, now, news);
                } else {
                    self.stuck(why, news);
                }
                Ok(())
            }
        }
    }

    // === what people ask ===

    fn asked(&mut self, by: &Person, deed: &Deed, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        match (deed, &self.phase) {
            (_, Phase::Done { .. } | Phase::Aborted { .. } | Phase::Aborting { .. }) => Err(Illegal::Over(deed.word())),
            (Deed::Promote, _) => self.promote(by, now, news),
            (Deed::Abort { reason }, _) if self.way == Way::Forward => {
                self.abort(Reason::Person { by: by.clone(), reason: reason.clone() }, now, news);
                Ok(())
            }
            (
                Deed::Pause,
                Phase::Waiting
                | Phase::Starting
                | Phase::Smoke { .. }
                | Phase::Mirror { .. }
                | Phase::Step { .. }
                | Phase::Experiment { .. }
                | Phase::Promoting,
            ) if self.way == Way::Forward => {
                if self.paused.is_none() {
                    self.paused = Some(by.clone());
                    news.push(News::Paused(by.clone()));
                }
                Ok(())
            }
            (Deed::Resume, _) if self.paused.is_some() => {
                self.paused = None;
                news.push(News::Resumed(by.clone()));
                Ok(())
            }
            (Deed::Abort { .. } | Deed::Pause | Deed::Resume, _) => Err(self.not_now(deed.word())),
        }
    }

    fn promote(&mut self, by: &Person, now: Timestamp, news: &mut Vec<News>) -> Result<(), Illegal> {
        if matches!(self.phase, Phase::Waiting) && self.missing_approvals() > 0 {
            if self.authors.contains(by) {
                return Err(Illegal::OwnCommit(by.clone()));
            }
            if self.approved.insert(by.clone()) {
                news.push(News::Approved { by: by.clone(), missing: self.missing_approvals() });
            }
            return Ok(());
        }
        if let Some(frozen) = self.frozen(now).filter(|_| self.way == Way::Forward) {
            return Err(Illegal::Frozen(frozen.clone()));
        }
        if self.paused.take().is_some() {
            news.push(News::Resumed(by.clone()));
            return Ok(());
        }
        match &self.phase {
            Phase::Waiting => match self.start_wait(now) {
                Some(Wait::Cooldown { .. } | Wait::TooMany { .. } | Wait::Wave(super::Wave::Stopped)) => {
                    self.waived = true;
                    Ok(())
                }
                _ => Err(self.not_now("promote")),
            },
            Phase::Mirror { .. } => {
                self.enter(0, now);
                Ok(())
            }
            Phase::Step { at, .. } => {
                let at = *at;
                self.pass(at, format!("{by} promotes"), now, news);
                Ok(())
            }
            // Nobody can look at it from here: who promotes it has looked otherwise.
            Phase::Smoke { passed: false, unreached: Some(_) } => {
                self.phase = Phase::Smoke { passed: true, unreached: None };
                Ok(())
            }
            Phase::Experiment { .. } => {
                self.phase = Phase::Promoting;
                Ok(())
            }
            Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => Err(self.not_now("promote")),
        }
    }

    // === the way forward ===

    /// Gives and takes traffic, by what is ready.
    fn regrant(&mut self, now: Timestamp) {
        if self.carrier == Carrier::InPlace {
            return;
        }
        let (candidate, stable) = (self.ready.candidate.agent > 0, self.ready.stable.agent > 0);
        let aborting = matches!(self.phase, Phase::Aborting { .. } | Phase::Aborted { .. });
        let target = self.target();
        let serves = self.granted.gives() && self.is_attached();
        self.granted = match (candidate, stable) {
            (false, _) => Split::STABLE,
            // Stable answers nobody: a candidate that is due any traffic takes all; an aborted one keeps what it has until
            // there is somewhere to go.
            (true, false) if !aborting && (serves || target.gives() && self.may_rise(now)) => Split::CANDIDATE,
            (true, true) if target.weight() <= self.granted.weight() || self.may_rise(now) => target,
            (true, _) => self.granted,
        };
    }

    /// The candidate's set is large enough and in the route, and nothing holds it back.
    fn may_rise(&self, now: Timestamp) -> bool {
        let had_it = matches!(self.phase, Phase::Baking { .. } | Phase::Keeping { .. } | Phase::Done { .. });
        self.is_sized() && self.is_attached() && (had_it || self.held(now).is_none())
    }

    fn is_attached(&self) -> bool {
        self.in_force.is_some_and(|routes| routes.attached)
    }

    /// One move that needs no event but that time, instances and routes are as they are.
    fn moves_on(&mut self, now: Timestamp, news: &mut Vec<News>) -> bool {
        let over = |since: Timestamp, lasts| since.checked_add(lasts).is_ok_and(|end: Timestamp| end <= now);
        let free = self.held(now).is_none();
        match self.phase.clone() {
            Phase::Waiting if self.start_wait(now).is_none() => {
                self.phase = Phase::Starting;
                news.push(News::Started);
            }
            Phase::Starting if free && self.is_sized() && self.has_started() => self.after_start(now, news),
            Phase::Smoke { passed: true, .. } if free => self.phase = Phase::Promoting,
            Phase::Mirror { since: None } if self.in_force.is_some_and(|routes| routes.mirror) => {
                self.phase = Phase::Mirror { since: Some(now) };
            }
            Phase::Mirror { since: Some(since) }
                if free && self.mirror_for().is_none_or(|lasts| over(since, lasts)) =>
            {
                self.enter(0, now);
            }
            Phase::Step { at, since } => return self.step_moves_on(at, since, now, news),
            Phase::Experiment { since: None, decided } if self.routes_are_in_force() => {
                self.phase = Phase::Experiment { since: Some(now), decided };
                news.push(News::InForce { step: 0, weight: self.granted.weight() });
            }
            Phase::Promoting if free && self.granted == Split::CANDIDATE && self.routes_are_in_force() => {
                self.promoted(now, news);
            }
            Phase::Baking { since } if over(since, self.spec.rollback.bake) && self.serves() => {
                let keeps = self.carrier != Carrier::InPlace && !over(since, self.keep_old());
                self.phase = if keeps { Phase::Keeping { since } } else { done(now, news) };
            }
            Phase::Keeping { since } if over(since, self.keep_old()) && self.serves() => {
                self.phase = done(now, news);
            }
            Phase::Aborting { reason, made, off, .. } if self.is_back(made, off) => {
                news.push(News::Aborted(reason.clone()));
                self.phase = Phase::Aborted { reason, at: now };
            }
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => return false,
        }
        true
    }

    fn step_moves_on(&mut self, at: usize, since: Option<Timestamp>, now: Timestamp, news: &mut Vec<News>) -> bool {
        let free = self.held(now).is_none();
        let over = |lasts| since.and_then(|since| since.checked_add(lasts).ok()).is_some_and(|end| end <= now);
        match (self.steps().get(at).cloned(), since) {
            (Some(Step::Weight { weight, .. }), None) if self.routes_are_in_force() => {
                self.phase = Phase::Step { at, since: Some(now) };
                news.push(News::InForce { step: at, weight });
            }
            // A route that nobody knows about is no reason to begin anew; one that says something else is.
            (Some(Step::Weight { .. }), Some(_)) if self.in_force.is_some() && !self.routes_are_in_force() => {
                self.phase = Phase::Step { at, since: None };
            }
            (Some(Step::Pause { lasts: Some(lasts) }), _) if free && over(lasts) => {
                self.pass(at, "the pause is over".to_owned(), now, news);
            }
            (Some(Step::Replicas { count }), _) if free && self.is_sized() => {
                self.pass(at, format!("{count} instances are ready"), now, news);
            }
            (Some(_), _) => return false,
            (None, _) => self.phase = Phase::Promoting,
        }
        true
    }

    /// The candidate is in the route without weight.
    fn has_started(&self) -> bool {
        self.carrier == Carrier::InPlace || self.is_attached()
    }

    fn after_start(&mut self, now: Timestamp, news: &mut Vec<News>) {
        match (&self.spec.strategy, self.way) {
            _ if self.carrier == Carrier::InPlace => self.promoted(now, news),
            (_, Way::Back) => self.phase = Phase::Promoting,
            (Strategy::BlueGreen(_), Way::Forward) => self.phase = Phase::Smoke { passed: false, unreached: None },
            (Strategy::AbTest(_), Way::Forward) => self.phase = Phase::Experiment { since: None, decided: false },
            (Strategy::Canary(canary), Way::Forward) if canary.mirror.is_some() => {
                self.phase = Phase::Mirror { since: None };
            }
            (Strategy::Canary(_) | Strategy::Rolling, Way::Forward) => self.enter(0, now),
        }
    }

    fn promoted(&mut self, now: Timestamp, news: &mut Vec<News>) {
        news.push(News::Promoted);
        self.paused = None;
        self.phase = match self.way {
            Way::Forward => Phase::Baking { since: now },
            Way::Back => done(now, news),
        };
    }

    /// The candidate has what it was promoted to.
    fn serves(&self) -> bool {
        if self.carrier == Carrier::InPlace { self.ready.candidate.agent > 0 } else { self.granted == Split::CANDIDATE }
    }

    /// Ends a step.
    fn pass(&mut self, at: usize, why: String, now: Timestamp, news: &mut Vec<News>) {
        news.push(News::Passed { step: at, why });
        self.enter(at + 1, now);
    }

    fn enter(&mut self, at: usize, now: Timestamp) {
        self.told.remove(&Alarm::Undecided);
        self.gate = None;
        self.phase = match self.steps().get(at) {
            None => Phase::Promoting,
            Some(Step::Weight { .. }) => Phase::Step { at, since: None },
            Some(Step::Pause { .. } | Step::Gate { .. } | Step::Replicas { .. }) => {
                Phase::Step { at, since: Some(now) }
            }
        };
    }

    // === the way back ===

    /// Goes back by itself, if that did not happen too often: a release that was promoted only.
    fn go_back(&mut self, reason: Reason, now: Timestamp, news: &mut Vec<News>) {
        if let (Phase::Baking { .. }, Some(until)) = (&self.phase, self.may_go_back_from(now)) {
            if self.told.insert(Alarm::HeldBack) {
                news.push(News::HeldBack { why: reason.to_string(), until });
            }
            return;
        }
        self.abort(reason, now, news);
    }

    /// From when on a promoted release may go back by itself; nothing: now.
    pub(super) fn may_go_back_from(&self, now: Timestamp) -> Option<Timestamp> {
        self.too_many(now).or_else(|| self.cooldown(now))
    }

    fn abort(&mut self, reason: Reason, now: Timestamp, news: &mut Vec<News>) {
        if reason.is_automatic() {
            self.rollbacks.push(now);
            let extra = self.rollbacks.len().saturating_sub(MOST_ROLLBACKS);
            self.rollbacks.drain(..extra);
        }
        news.push(News::Aborting(reason.clone()));
        let made = !matches!(self.phase, Phase::Waiting);
        let (sized, least) = (self.sized_for(), self.least());
        self.paused = None;
        // What replaces instances in place goes on from where it is: the next release takes their place.
        let next = self.carrier == Carrier::InPlace && matches!(reason, Reason::Superseded { .. });
        if next {
            news.push(News::Aborted(reason.clone()));
            self.phase = Phase::Aborted { reason, at: now };
            return;
        }
        if made && self.granted.gives() && self.ready.stable.agent == 0 && self.told.insert(Alarm::NoWayBack) {
            news.push(News::NoWayBack);
        }
        self.phase = Phase::Aborting { reason, sized, least, made, off: false };
    }

    /// The traffic is off the candidate, and the route says so.
    fn is_back(&self, made: bool, off: bool) -> bool {
        if self.carrier == Carrier::InPlace {
            return !made || self.ready.stable.cover(&self.size);
        }
        !self.granted.gives() && (!self.was_attached || off)
    }

    fn stuck(&mut self, why: &str, news: &mut Vec<News>) {
        if self.told.insert(Alarm::Stuck) {
            news.push(News::Stuck(why.to_owned()));
        }
    }

    // === words ===

    /// Tells what it waits for, where that is for somebody or something outside.
    fn say_wait(&mut self, now: Timestamp, news: &mut Vec<News>) {
        let wait = self.wait(now).map(Wait::in_short).filter(|wait| match wait {
            Wait::Approval { .. }
            | Wait::Freeze(_)
            | Wait::Wave(_)
            | Wait::Cooldown { .. }
            | Wait::TooMany { .. }
            | Wait::HeldBack { .. }
            | Wait::Promotion
            | Wait::Smoke { unreached: Some(_) }
            | Wait::Gate { .. } => true,
            Wait::Paused(_)
            | Wait::Ready
            | Wait::Route
            | Wait::Smoke { unreached: None }
            | Wait::Time { .. }
            | Wait::Verdict => false,
        });
        if wait != self.said {
            news.extend(wait.clone().map(News::Waits));
            self.said = wait;
        }
    }

    fn not_now(&self, deed: &'static str) -> Illegal {
        if self.is_over() { Illegal::Over(deed) } else { Illegal::Phase { deed, phase: self.phase.word() } }
    }
}

fn done(now: Timestamp, news: &mut Vec<News>) -> Phase {
    news.push(News::Done);
    Phase::Done { at: now }
}
