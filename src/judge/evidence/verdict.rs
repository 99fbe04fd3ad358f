//! The judge: what was measured goes in, a verdict comes out, in a fixed order of questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bank::ln_sum;
use super::figures::{Figures, figures};
use super::flat_out::is_flat_out;
use super::measure::{Measured, NoData, Sample};
use super::spec::{InvalidSpec, Metric, Mode, Otherwise, Spec};
use super::track::{Feeding, Track};
use super::words;
use crate::model::Timestamp;

/// The layout of the saved state.
const VERSION: u32 = 1;
/// Requests of the candidate before harm is called shown, and bad events among them.
const LEAST: (u64, u64) = (3, 2);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The next step may begin.
    Advance,
    /// The candidate may become stable.
    Promote,
    /// Nothing changes.
    Hold,
    /// The candidate goes back.
    Abort,
}

/// Why that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// It failed in a way that needs no statistics.
    Failed,
    /// Harm is shown.
    Harm,
    /// A required metric has no data.
    NoData,
    /// The step is over its deadline; nobody is to blame.
    Undecided,
    /// No harm is shown.
    NoHarm,
    /// Something is missing that may still come.
    Waiting,
}

/// What the caller saw that needs no statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// Instances of the candidate start and end again and again: which ones.
    CrashLoop(String),
    /// A probe of the candidate failed: how.
    Probe(String),
}

/// A verdict, the sentence that explains it, and the figures behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// Why.
    pub why: Why,
    /// The metric that decided, where it was one.
    pub metric: Option<String>,
    /// One sentence without a full stop.
    pub sentence: String,
    /// All that is missing, each without a full stop.
    pub missing: Vec<String>,
    /// That the judge began anew, and why.
    pub note: Option<String>,
    /// When it was decided.
    pub at: Timestamp,
    /// What it was decided by.
    pub figures: Figures,
}

/// Judges one rollout. Plain values: what it knows is saved with each verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Judge {
    spec: Spec,
    state: State,
}

/// What is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    version: u32,
    /// The specification, as it was saved: evidence about other lines is none.
    spec: String,
    began: Timestamp,
    step: usize,
    since: Timestamp,
    tracks: BTreeMap<String, Track>,
    /// It went back, for good.
    ended: Option<Box<Decision>>,
    note: Option<String>,
}

/// One bank of the common evidence.
struct Piece<'j> {
    name: &'j str,
    against_limit: bool,
    weight: f64,
    ln_e: f64,
    /// Enough requests and events to be called shown.
    ripe: bool,
}

// === impl Judge ===

impl Judge {
    /// Begins at the first step.
    pub fn new(spec: Spec, now: Timestamp) -> Result<Self, InvalidSpec> {
        spec.check()?;
        let tracks =
            spec.metrics.iter().map(|(name, metric)| (name.clone(), Track::new(&spec, name, metric))).collect();
        let state = State {
            version: VERSION,
            spec: fingerprint(&spec),
            began: now,
            step: 0,
            since: now,
            tracks,
            ended: None,
            note: None,
        };
        Ok(Self { spec, state })
    }

    /// Goes on with a saved state. One that is lost, unreadable or of another specification is a new start at `step`, and
    /// the verdicts say so.
    pub fn restore(spec: Spec, saved: Option<&str>, step: usize, now: Timestamp) -> Result<Self, InvalidSpec> {
        let fresh = Self::new(spec, now)?;
        let note = match saved.map(serde_json::from_str::<State>) {
            None => "its evidence was lost",
            Some(Err(_)) => "its saved evidence cannot be read",
            Some(Ok(state)) if state.version != VERSION => "its evidence was saved by another version",
            Some(Ok(state)) if state.spec != fresh.state.spec => "the analysis has changed",
            Some(Ok(state)) if !state.fits(&fresh.spec) => "its saved evidence does not fit the analysis",
            // A time that is still to come was written by a clock that was wrong.
            Some(Ok(state)) => {
                let since = state.since.min(now);
                return Ok(Self { spec: fresh.spec, state: State { since, ..state } });
            }
        };
        let mut judge = fresh;
        judge.state.step = step.min(judge.spec.steps.len().saturating_sub(1));
        judge.state.note = Some(format!("the judge began anew: {note}"));
        Ok(judge)
    }

    /// The state to keep beside a verdict.
    pub fn saved(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.state)
    }

    /// By what it judges.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The number of the step, from 0.
    pub fn step(&self) -> usize {
        self.state.step
    }

    /// When the step began.
    pub fn since(&self) -> Timestamp {
        self.state.since
    }

    /// Takes in one interval of one metric, or why there is none. Metrics that the analysis does not name are ignored.
    pub fn observe(&mut self, name: &str, sample: Result<&Sample, NoData>, now: Timestamp) {
        let Some((metric, track)) = self.spec.metrics.get(name).zip(self.state.tracks.get_mut(name)) else { return };
        track.feed(sample, &Feeding { spec: &self.spec, name, metric, step: self.state.step, now });
    }

    /// Begins a step. Evidence of harm goes on; of no harm at most a half of what is needed is carried over.
    pub fn enter(&mut self, step: usize, now: Timestamp) {
        let before = self.state.step;
        self.state.step = step.min(self.spec.steps.len().saturating_sub(1));
        self.state.since = now;
        let ln_carry = -0.5 * self.spec.beta.ln();
        for (name, track) in &mut self.state.tracks {
            let other_limit = self.spec.limit(before, name) != self.spec.limit(self.state.step, name);
            track.enter(now, ln_carry, other_limit);
        }
    }

    /// The weights change within a step.
    pub fn shift(&mut self) {
        self.state.tracks.values_mut().for_each(Track::shift);
    }

    /// Forgets what the instances of stable did, one by one; all that was bet and won stays.
    pub fn forget_instances(&mut self) {
        self.state.tracks.values_mut().for_each(Track::forget_instances);
    }

    /// Decides. Once it says that the candidate goes back because it failed or did harm, it stays with that.
    pub fn decide(&mut self, now: Timestamp, failures: &[Failure]) -> Decision {
        if let Some(ended) = &self.state.ended {
            return (**ended).clone();
        }
        let decision = self.weigh(now, failures);
        if decision.verdict == Verdict::Abort && matches!(decision.why, Why::Failed | Why::Harm) {
            self.state.ended = Some(Box::new(decision.clone()));
        }
        decision
    }

    fn weigh(&self, now: Timestamp, failures: &[Failure]) -> Decision {
        let muted = self.muted(now);
        let pieces = self.pieces(&muted);
        let ln_total = total(&pieces, false);
        let decide = |verdict, why, metric: Option<&str>, sentence: String, missing: Vec<String>| Decision {
            verdict,
            why,
            metric: metric.map(str::to_owned),
            sentence,
            missing,
            note: self.state.note.clone(),
            at: now,
            figures: figures(self, ln_total, &muted, now),
        };
        if let Some((metric, sentence)) = self.failed(now, failures) {
            return decide(Verdict::Abort, Why::Failed, metric, sentence, vec![]);
        }
        let ln_needed = -self.spec.alpha.ln();
        if let Some(worst) = worst(&pieces).filter(|_| total(&pieces, true) >= ln_needed) {
            let sentence = self.harm_sentence(worst, ln_total, ln_needed);
            return decide(Verdict::Abort, Why::Harm, Some(worst.name), sentence, vec![]);
        }
        let (mut left_out, mut blind) = (vec![], None);
        for (name, metric) in self.required() {
            let Some(reason) = self.no_data(name, metric, now) else { continue };
            left_out.push(name);
            blind.get_or_insert((name, format!("{name}: no data: {reason}")));
        }
        match blind {
            Some((name, sentence)) if self.spec.on_no_data == Otherwise::Abort => {
                return decide(Verdict::Abort, Why::NoData, Some(name), sentence, vec![]);
            }
            // Nothing at all is known: that promotes nobody, whatever is asked for.
            Some((name, sentence))
                if self.spec.on_no_data == Otherwise::Hold || left_out.len() == self.required().count() =>
            {
                return decide(Verdict::Hold, Why::NoData, Some(name), sentence.clone(), vec![sentence]);
            }
            Some(_) | None => {}
        }
        let forward = if self.state.step + 1 < self.spec.steps.len() { Verdict::Advance } else { Verdict::Promote };
        let missing = self.missing(now, ln_total, &muted, &left_out);
        if missing.is_empty() {
            return decide(forward, Why::NoHarm, None, words::no_harm(self.spec.mode, forward), missing);
        }
        let over = now.duration_since(self.state.since) >= self.current().deadline();
        let may_go = self.may_go_undecided(ln_total, &muted, &left_out);
        let (verdict, why) = match self.spec.on_undecided {
            _ if !over || self.spec.mode == Mode::Bake => (Verdict::Hold, Why::Waiting),
            Otherwise::Abort => (Verdict::Abort, Why::Undecided),
            Otherwise::Advance if may_go => (forward, Why::Undecided),
            Otherwise::Advance | Otherwise::Hold => (Verdict::Hold, Why::Undecided),
        };
        let sentence = words::undecided(over, &missing);
        decide(verdict, why, None, sentence, missing)
    }

    /// The figures as they are now, whatever was decided before.
    pub(super) fn figures(&self, now: Timestamp) -> Figures {
        let muted = self.muted(now);
        let ln_total = total(&self.pieces(&muted), false);
        figures(self, ln_total, &muted, now)
    }

    /// What needs no statistics.
    fn failed(&self, now: Timestamp, failures: &[Failure]) -> Option<(Option<&str>, String)> {
        if let Some(failure) = failures.first() {
            return Some((None, words::failure(failure)));
        }
        for (name, metric, track) in self.tracks() {
            let (ours, theirs) = (track.strict.candidate, track.strict.stable);
            if self.spec.forbids(self.state.step, name) && ours.x() > 0 && theirs.x() == 0 {
                return Some((Some(name), words::forbidden(name, ours)));
            }
            if !metric.failures {
                continue;
            }
            let (run, seen) = (track.recent.run(), track.recent.seen());
            if is_flat_out(run, seen, track.stable_lately(now), self.spec.alpha) {
                return Some((Some(name), words::flat_out(name, run)));
            }
            if let Some(broken) = track.recent.broken().filter(|_| self.spec.mode == Mode::Bake) {
                return Some((Some(name), words::broken(name, broken)));
            }
        }
        None
    }

    /// The metrics whose limit stable breaks too.
    fn muted(&self, now: Timestamp) -> Vec<&str> {
        let ln_needed = -self.spec.alpha.ln();
        self.tracks()
            .filter(|(name, metric, track)| {
                let Some(limit) = self.spec.limit(self.state.step, name) else { return false };
                if self.spec.forbids(self.state.step, name) {
                    return track.strict.candidate.x() > 0 && track.strict.stable.x() > 0;
                }
                track.limit.as_ref().is_some_and(|track| track.is_muted(metric.kind, limit, ln_needed, now))
            })
            .map(|(name, ..)| name)
            .collect()
    }

    fn pieces(&self, muted: &[&str]) -> Vec<Piece<'_>> {
        let mut pieces = vec![];
        for (name, metric, track) in self.tracks() {
            let ripe = track.total.as_ref().is_some_and(|total| {
                let events = if let Measured::Binary(count) = &total.candidate { count.x() } else { LEAST.1 };
                total.candidate.n() >= LEAST.0 && events >= LEAST.1
            });
            let piece = |against_limit, ln_e| Piece { name, against_limit, weight: metric.weight, ln_e, ripe };
            pieces.extend(track.harm.as_ref().map(|bank| piece(false, bank.ln_e())));
            if let Some(limit) = &track.limit {
                // A muted limit keeps its weight and says nothing.
                let ln_e = if muted.contains(&name) { f64::NEG_INFINITY } else { limit.harm.ln_e() };
                pieces.push(piece(true, ln_e));
            }
        }
        let all: f64 = pieces.iter().map(|piece| piece.weight).sum();
        pieces.iter_mut().for_each(|piece| piece.weight /= all);
        pieces
    }

    /// Why a required metric has no data.
    fn no_data(&self, name: &str, metric: &Metric, now: Timestamp) -> Option<String> {
        let track = self.state.tracks.get(name)?;
        let fresh = now.duration_since(track.last_end().unwrap_or(self.state.began)) <= metric.stale_after;
        if fresh {
            return None;
        }
        Some(track.problem.as_ref().map_or_else(|| "nothing was measured lately".to_owned(), NoData::to_string))
    }

    fn missing(&self, now: Timestamp, ln_total: f64, muted: &[&str], left_out: &[&str]) -> Vec<String> {
        let mut missing = vec![];
        let step = self.current();
        let left = step.hold_for.saturating_sub(now.duration_since(self.state.since));
        if left.is_positive() {
            missing.push(words::time_left(left));
        }
        if self.is_suspicious(ln_total) {
            missing.push(words::suspicion(ln_total, -self.spec.alpha.ln()));
        }
        missing.extend(muted.iter().map(|name| words::muted(name)));
        for (name, metric) in self.required().filter(|(name, _)| !left_out.contains(name)) {
            let Some(track) = self.state.tracks.get(name) else { continue };
            if let Some(problem) = &track.problem {
                missing.push(format!("{name}: the last measurement is missing: {problem}"));
            } else if track.last_end().is_none() {
                missing.push(format!("{name}: nothing is measured yet"));
            }
            if self.spec.mode == Mode::Bake {
                continue;
            }
            let samples = step.samples.unwrap_or(self.spec.min_samples);
            if track.in_step < samples {
                missing.push(words::samples(name, track.in_step, samples));
            }
            if !muted.contains(&name) {
                missing.extend(self.not_shown(name, metric, track));
            }
        }
        missing
    }

    /// What a metric has not shown yet in this step.
    fn not_shown(&self, name: &str, metric: &Metric, track: &Track) -> Option<String> {
        let step = self.state.step;
        let ln_needed = -self.spec.beta.ln();
        if self.spec.compares(step)
            && let Some(line) = metric.margin_line(self.spec.next_weight(step))
        {
            let bank = track.safe.get(step)?;
            if bank.ln_e() >= ln_needed {
                return None;
            }
            let more = super::figures::more_compared(&self.spec, step, metric, track, line);
            return Some(words::no_harm_missing(name, metric, line, more, super::figures::is_coarse(track, line)));
        }
        if metric.compare.is_some_and(|compare| compare.margin.is_none()) && self.spec.compares(step) {
            return None;
        }
        let limit = self.spec.limit(step, name).filter(|_| !self.spec.forbids(step, name))?;
        let bank = track.limit.as_ref()?.safe.get(step)?;
        if bank.ln_e() >= ln_needed {
            return None;
        }
        let more = super::figures::more_limited(&self.spec, metric, track, bank, limit);
        Some(words::limit_missing(name, metric, limit, more))
    }

    /// Whether an undecided step may go on where that is asked for: something was measured, and nothing looks bad.
    fn may_go_undecided(&self, ln_total: f64, muted: &[&str], left_out: &[&str]) -> bool {
        let measured =
            |name: &str| self.state.tracks.get(name).is_some_and(|track| track.in_step > 0 && track.problem.is_none());
        !self.is_suspicious(ln_total)
            && muted.is_empty()
            && self.required().filter(|(name, _)| !left_out.contains(name)).all(|(name, _)| measured(name))
    }

    fn is_suspicious(&self, ln_total: f64) -> bool {
        self.spec.mode == Mode::Rollout && ln_total >= (0.1 / self.spec.alpha).ln()
    }

    fn harm_sentence(&self, worst: &Piece<'_>, ln_total: f64, ln_needed: f64) -> String {
        let total = self.state.tracks.get(worst.name).and_then(|track| track.total.as_ref());
        let metric = self.spec.metrics.get(worst.name);
        let Some((total, metric)) = total.zip(metric) else { return format!("{}: harm is shown", worst.name) };
        let limit = self.spec.limit(self.state.step, worst.name).filter(|_| worst.against_limit);
        words::harm(worst.name, metric, limit, total, (ln_total, ln_needed))
    }

    fn current(&self) -> &super::spec::Step {
        // A specification has at least one step, and the number is kept within it.
        &self.spec.steps[self.state.step.min(self.spec.steps.len().saturating_sub(1))]
    }

    fn required(&self) -> impl Iterator<Item = (&str, &Metric)> {
        let compares = self.spec.compares(self.state.step);
        self.spec.metrics.iter().map(|(name, metric)| (name.as_str(), metric)).filter(move |(name, metric)| {
            // With nothing to compare with, a metric without a limit has nothing to say.
            metric.required && (compares || self.spec.limit(self.state.step, name).is_some())
        })
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = (&str, &Metric, &Track)> {
        let tracks = &self.state.tracks;
        self.spec.metrics.iter().filter_map(|(name, metric)| Some((name.as_str(), metric, tracks.get(name)?)))
    }
}

// === impl State ===

impl State {
    fn fits(&self, spec: &Spec) -> bool {
        let tracks = &self.tracks;
        self.step < spec.steps.len()
            && tracks.len() == spec.metrics.len()
            && spec
                .metrics
                .iter()
                .all(|(name, metric)| tracks.get(name).is_some_and(|track| track.fits(spec, name, metric)))
    }
}

/// The weighted sum of all evidence, as a logarithm; of what is ripe, or of all.
fn total(pieces: &[Piece<'_>], ripe: bool) -> f64 {
    let weighed: Vec<f64> = pieces.iter().filter(|piece| piece.ripe || !ripe).map(Piece::weighed).collect();
    ln_sum(&weighed, f64::NEG_INFINITY)
}

/// What says most.
fn worst<'p, 'j>(pieces: &'p [Piece<'j>]) -> Option<&'p Piece<'j>> {
    pieces.iter().filter(|piece| piece.ripe).max_by(|one, two| one.weighed().total_cmp(&two.weighed()))
}

// === impl Piece ===

impl Piece<'_> {
    fn weighed(&self) -> f64 {
        self.weight.ln() + self.ln_e
    }
}

fn fingerprint(spec: &Spec) -> String {
    // Only maps with keys that are no strings fail to become JSON, and there is none.
    serde_json::to_string(spec).unwrap_or_default()
}
