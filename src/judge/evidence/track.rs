//! What is known about one metric, and how it takes in an interval.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::bank::{HarmBank, SafetyBank};
use super::binary::{Common, Line, TwoArms};
use super::flat_out::Recent;
use super::guard::Guard;
use super::latency::{Latencies, slower, within};
use super::limit::{BLOCK_OF_MEANS, LimitTrack, Terms, harm_bets, safe_bets};
use super::mean::{Difference, Means, Side as MeanSide, Spread};
use super::measure::{Arms, Count, Histogram, Measured, Moments, NoData, Sample, real};
use super::spec::{Kind, Metric, Mode, Spec};
use super::window::Window;
use crate::model::Timestamp;

/// How far the clock of whoever measures may go ahead of ours.
const SKEW: SignedDuration = SignedDuration::from_secs(5);
/// Requests of a block of counts, both arms together.
const BLOCK: u64 = 10;
/// Seconds between restarts, of a rollout and of a bake.
const RESTART: [i64; 2] = [60, 10];
/// From this rate on the test for common events is the sharper one.
const COMMON: f64 = 0.1;
/// Seconds of stable's past that a candidate which fails flat out is measured by.
const MINUTE: i64 = 60;

/// What is known about one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Track {
    /// Intervals that wait for a block, and the factor of the guard that was known before them.
    open: Option<(Arms<Measured>, f64)>,
    learned: Learned,
    pub(super) harm: Option<HarmBank>,
    /// One per step, each within the margin of the weight that follows it.
    pub(super) safe: Vec<SafetyBank>,
    pub(super) limit: Option<LimitTrack>,
    /// All that was measured, for the report.
    pub(super) total: Option<Arms<Measured>>,
    /// Requests of the candidate in this step.
    pub(super) in_step: u64,
    /// Counts of both arms with the candidate's young instances: what the hard rules see.
    pub(super) strict: Arms<Count>,
    pub(super) recent: Recent,
    minute: Window,
    guard: Guard,
    last_end: Option<Timestamp>,
    /// When it was last told about, in vain.
    pub(super) problem: Option<NoData>,
    restarted: Option<Timestamp>,
}

/// What the blocks that were bet on say, for the bets on later ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Learned {
    Binary(Arms<Count>),
    Mean { spread: Arms<Spread>, difference: Difference },
    Latency(Latencies),
}

/// What a metric is fed with.
pub(super) struct Feeding<'f> {
    pub(super) spec: &'f Spec,
    pub(super) name: &'f str,
    pub(super) metric: &'f Metric,
    pub(super) step: usize,
    pub(super) now: Timestamp,
}

// === impl Track ===

impl Track {
    pub(super) fn new(spec: &Spec, name: &str, metric: &Metric) -> Self {
        let kind = metric.kind;
        let compared = metric.compare.is_some() && spec.mode == Mode::Rollout;
        let steps = spec.steps.len();
        Self {
            open: None,
            learned: Learned::new(kind),
            harm: compared.then(|| HarmBank::new(harm_bets(kind).len())),
            safe: if compared { vec![SafetyBank::new(safe_bets(kind).len()); steps] } else { vec![] },
            limit: spec.is_limited(name).then(|| LimitTrack::new(kind, steps)),
            total: None,
            in_step: 0,
            strict: Arms::default(),
            recent: Recent::default(),
            minute: Window::new(MINUTE),
            guard: Guard::default(),
            last_end: None,
            problem: None,
            restarted: None,
        }
    }

    /// Whether a saved track has the shape that the specification asks for.
    pub(super) fn fits(&self, spec: &Spec, name: &str, metric: &Metric) -> bool {
        let fresh = Self::new(spec, name, metric);
        let (harm, safe, steps) = (harm_bets(metric.kind).len(), safe_bets(metric.kind).len(), spec.steps.len());
        self.harm.is_some() == fresh.harm.is_some()
            && self.harm.as_ref().is_none_or(|bank| bank.fits(harm))
            && self.safe.len() == fresh.safe.len()
            && self.safe.iter().all(|bank| bank.fits(safe))
            && self.limit.is_some() == fresh.limit.is_some()
            && self.limit.as_ref().is_none_or(|limit| limit.fits(metric.kind, steps))
            && std::mem::discriminant(&self.learned) == std::mem::discriminant(&fresh.learned)
    }

    /// Takes in one interval, or why there is none.
    pub(super) fn feed(&mut self, sample: Result<&Sample, NoData>, feeding: &Feeding<'_>) {
        let fed = sample.and_then(|sample| {
            let arms = self.admitted(sample, feeding)?;
            self.take(&arms, sample, feeding);
            Ok(())
        });
        match fed {
            Ok(()) => self.problem = None,
            // What was told twice changes nothing.
            Err(NoData::Again) => {}
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// The arms of a sample that makes sense, with what is bad counted as such.
    fn admitted(&self, sample: &Sample, feeding: &Feeding<'_>) -> Result<Arms<Measured>, NoData> {
        let now = feeding.now;
        let latest = now.checked_add(SKEW).unwrap_or(now);
        if sample.end > latest || sample.start >= sample.end {
            return Err(NoData::Time);
        }
        if now.duration_since(sample.end) > feeding.metric.stale_after {
            return Err(NoData::Stale);
        }
        if self.last_end.is_some_and(|last| sample.start < last) {
            return Err(NoData::Again);
        }
        let bad = |measured: &Measured| bad(measured, feeding.metric);
        let arms = Arms { candidate: bad(&sample.arms.candidate)?, stable: bad(&sample.arms.stable)? };
        if let (Measured::Latency(candidate), Measured::Latency(stable)) = (&arms.candidate, &arms.stable)
            && candidate.boundaries() != stable.boundaries()
        {
            return Err(NoData::Boundaries);
        }
        Ok(arms)
    }

    fn take(&mut self, arms: &Arms<Measured>, sample: &Sample, feeding: &Feeding<'_>) {
        self.last_end = Some(sample.end);
        self.restart_if_due(sample, feeding.spec.mode);
        self.hard(arms, sample, feeding.metric);
        self.in_step = self.in_step.saturating_add(arms.candidate.n());
        let phi = self.guard.phi_of(self.learned.latencies());
        self.bet_on_limit(arms, sample, phi, feeding);
        self.total = Some(joined(self.total.take(), arms));
        let phi = self.open.as_ref().map_or(phi, |(_, before)| *before);
        let open = joined(self.open.take().map(|(open, _)| open), arms);
        if is_block(&open) {
            self.bet(&open, sample.end, phi, feeding);
        } else {
            self.open = Some((open, phi));
        }
        for (instance, did) in &sample.instances {
            if let Ok(did) = bad(did, feeding.metric) {
                self.guard.add(instance, &did);
            }
        }
    }

    fn restart_if_due(&mut self, sample: &Sample, mode: Mode) {
        let every = RESTART[usize::from(mode == Mode::Bake)];
        let since = *self.restarted.get_or_insert(sample.start);
        if sample.start.duration_since(since).as_secs() >= every {
            self.restart(sample.start);
        }
    }

    fn restart(&mut self, at: Timestamp) {
        self.restarted = Some(at);
        if let Some(bank) = &mut self.harm {
            bank.restart();
        }
        if let Some(limit) = &mut self.limit {
            limit.restart();
        }
    }

    /// What the hard rules look at, the candidate's young instances included.
    fn hard(&mut self, arms: &Arms<Measured>, sample: &Sample, metric: &Metric) {
        let (Measured::Binary(candidate), Measured::Binary(stable)) = (&arms.candidate, &arms.stable) else { return };
        let warming = sample.warming.as_ref().and_then(|young| bad(young, metric).ok());
        let young = if let Some(Measured::Binary(young)) = warming { young } else { Count::default() };
        let candidate = candidate.plus(young);
        self.strict =
            Arms { candidate: self.strict.candidate.plus(candidate), stable: self.strict.stable.plus(*stable) };
        self.recent.add(candidate, sample.failing);
        self.minute.add(sample.end, stable.n_real(), stable.x_real());
    }

    fn bet_on_limit(&mut self, arms: &Arms<Measured>, sample: &Sample, phi: f64, feeding: &Feeding<'_>) {
        let Some(track) = &mut self.limit else { return };
        let Feeding { spec, name, metric, step, .. } = *feeding;
        let limits: Vec<Option<f64>> = (0..spec.steps.len()).map(|step| spec.limit(step, name)).collect();
        let ln_cut = (2.0 / spec.beta).ln();
        track.feed(arms, sample.end, &Terms { kind: metric.kind, limits: &limits, step, phi, ln_cut });
    }

    /// Bets on one block with what the earlier ones say, then learns from it.
    fn bet(&mut self, block: &Arms<Measured>, end: Timestamp, phi: f64, feeding: &Feeding<'_>) {
        let Feeding { spec, metric, step, .. } = *feeding;
        if let (Learned::Latency(latencies), Kind::Latency { quantile }) = (&mut self.learned, metric.kind)
            && let Measured::Latency(stable) = &block.stable
            && latencies.fits(stable)
        {
            latencies.choose(quantile, end);
        }
        let ln_cut = (2.0 / spec.beta).ln();
        let (harms, safes) = (harm_bets(metric.kind), safe_bets(metric.kind));
        if let Some((bank, line)) = self.harm.as_mut().zip(metric.harm_line())
            && let Some(gains) = self.learned.gains(block, line, MeanSide::Harm, metric.kind)
        {
            bank.bet(|k| gains.gain(harms[k]) / phi);
        }
        for (at, bank) in self.safe.iter_mut().enumerate().skip(step) {
            if let Some(line) = metric.margin_line(spec.next_weight(at))
                && let Some(gains) = self.learned.gains(block, line, MeanSide::NoHarm, metric.kind)
            {
                bank.bet(|k| gains.gain(safes[k]) / phi);
                bank.cut(ln_cut);
            }
        }
        self.learned.add(block);
    }

    /// A new step begins: evidence of harm stays, that of no harm up to `ln_carry`.
    pub(super) fn enter(&mut self, at: Timestamp, ln_carry: f64, other_limit: bool) {
        self.shift();
        self.in_step = 0;
        self.restart(at);
        self.safe.iter_mut().for_each(|bank| bank.cut(ln_carry));
        if let Some(limit) = &mut self.limit {
            limit.enter(ln_carry, other_limit);
        }
    }

    /// The weights change: an open block would mix two of them.
    pub(super) fn shift(&mut self) {
        self.open = None;
    }

    /// What the instances did is forgotten: the guard learns it again.
    pub(super) fn forget_instances(&mut self) {
        self.guard = Guard::default();
    }

    pub(super) fn learned(&self) -> &Learned {
        &self.learned
    }

    pub(super) fn phi(&self) -> f64 {
        self.guard.phi_of(self.learned.latencies())
    }

    /// When the last measurement ended.
    pub(super) fn last_end(&self) -> Option<Timestamp> {
        self.last_end
    }

    /// What stable did in its last minute.
    pub(super) fn stable_lately(&self, now: Timestamp) -> Count {
        let (n, x) = self.minute.at(now);
        Count::read(n, x).unwrap_or_default()
    }
}

// === impl Learned ===

impl Learned {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Binary { .. } => Self::Binary(Arms::default()),
            Kind::Mean => Self::Mean { spread: Arms::default(), difference: Difference::default() },
            Kind::Latency { .. } => Self::Latency(Latencies::default()),
        }
    }

    pub(super) fn latencies(&self) -> Option<&Latencies> {
        if let Self::Latency(latencies) = self { Some(latencies) } else { None }
    }

    /// The gains of a block against a line; nothing where no bet can be made.
    fn gains(&self, block: &Arms<Measured>, line: Line, side: MeanSide, kind: Kind) -> Option<Gains> {
        match (self, &block.candidate, &block.stable) {
            (Self::Binary(past), Measured::Binary(candidate), Measured::Binary(stable)) => {
                Some(counts(*candidate, *stable, *past, line, matches!(kind, Kind::Binary { common: true })))
            }
            (Self::Latency(latencies), Measured::Latency(candidate), Measured::Latency(stable)) => {
                let boundary = latencies.chosen().filter(|_| latencies.fits(stable))?;
                let block = Arms { candidate: candidate.clone(), stable: stable.clone() };
                let (arms, line) = match side {
                    MeanSide::Harm => (slower(&block, boundary), line),
                    MeanSide::NoHarm => (within(&block, boundary, line.ratio)?, Line::EQUAL),
                };
                Some(Gains::Two(TwoArms::new(arms.candidate, arms.stable, line)))
            }
            (Self::Mean { spread, .. }, Measured::Mean(candidate), Measured::Mean(stable)) => {
                let (candidate, stable) = (mean(candidate)?, mean(stable)?);
                let variances = (spread.candidate.variance()?, spread.stable.variance()?);
                Means::new(candidate, stable, variances, line, side).map(Gains::Means)
            }
            (Self::Binary(_) | Self::Latency(_) | Self::Mean { .. }, _, _) => None,
        }
    }

    fn add(&mut self, block: &Arms<Measured>) {
        match (self, &block.candidate, &block.stable) {
            (Self::Binary(past), Measured::Binary(candidate), Measured::Binary(stable)) => {
                *past = Arms { candidate: past.candidate.plus(*candidate), stable: past.stable.plus(*stable) };
            }
            (Self::Latency(past), Measured::Latency(candidate), Measured::Latency(stable)) => {
                past.add(&Arms { candidate: candidate.clone(), stable: stable.clone() });
            }
            (Self::Mean { spread, difference }, Measured::Mean(candidate), Measured::Mean(stable)) => {
                let variances = spread.candidate.variance().zip(spread.stable.variance());
                if let (Some(candidate), Some(stable), Some(variances)) = (mean(candidate), mean(stable), variances) {
                    difference.add(candidate, stable, variances);
                }
                spread.candidate.add(candidate);
                spread.stable.add(stable);
            }
            (Self::Binary(_) | Self::Latency(_) | Self::Mean { .. }, _, _) => {}
        }
    }
}

/// The gains of one block, by the test that fits.
enum Gains {
    Two(TwoArms),
    Common(Common),
    Means(Means),
}

// === impl Gains ===

impl Gains {
    fn gain(&self, bet: f64) -> f64 {
        match self {
            Self::Two(gains) => gains.gain(bet),
            Self::Common(gains) => gains.gain(bet),
            Self::Means(gains) => gains.gain(bet),
        }
    }
}

fn counts(candidate: Count, stable: Count, past: Arms<Count>, line: Line, common: bool) -> Gains {
    let q_s = Common::guess(past.candidate, past.stable, line);
    // A line near one leaves no room to guess around.
    if common && q_s >= COMMON && line.delta < 0.9 {
        Gains::Common(Common::new(candidate, stable, line, q_s))
    } else {
        Gains::Two(TwoArms::new(candidate, stable, line))
    }
}

fn mean(moments: &Moments) -> Option<(f64, f64)> {
    Some((moments.mean()?, real(moments.n())))
}

/// Adds arms to those before; what does not go together begins anew.
fn joined(before: Option<Arms<Measured>>, arms: &Arms<Measured>) -> Arms<Measured> {
    let sum = before.and_then(|before| {
        let candidate = before.candidate.plus(&arms.candidate)?;
        Some(Arms { candidate, stable: before.stable.plus(&arms.stable)? })
    });
    sum.unwrap_or_else(|| arms.clone())
}

/// Whether enough requests are together to bet on. It looks at their numbers alone, never at outcomes.
fn is_block(open: &Arms<Measured>) -> bool {
    let (candidate, stable) = (open.candidate.n(), open.stable.n());
    match open.candidate {
        Measured::Mean(_) => candidate >= BLOCK_OF_MEANS && stable >= BLOCK_OF_MEANS,
        Measured::Binary(_) | Measured::Latency(_) => candidate >= 1 && stable >= 1 && candidate + stable >= BLOCK,
    }
}

/// A measurement of the metric's kind, with bad events counted, or values of which less is better.
fn bad(measured: &Measured, metric: &Metric) -> Result<Measured, NoData> {
    let higher = metric.higher_is_better;
    match (metric.kind, measured) {
        (Kind::Binary { .. }, Measured::Binary(count)) => {
            // Checked anew: it may come from a file.
            let count = Count::new(count.n(), count.x())?;
            Ok(Measured::Binary(if higher { count.complement() } else { count }))
        }
        (Kind::Mean, Measured::Mean(moments)) => {
            let (sum, squares) = moments.parts();
            let moments = Moments::read(real(moments.n()), sum, squares)?;
            Ok(Measured::Mean(if higher { moments.negated() } else { moments }))
        }
        (Kind::Latency { .. }, Measured::Latency(histogram)) => {
            let (boundaries, counts) = (histogram.boundaries().clone(), histogram.counts().to_vec());
            Histogram::new(boundaries, counts).map(Measured::Latency)
        }
        (Kind::Binary { .. } | Kind::Mean | Kind::Latency { .. }, _) => Err(NoData::Kind),
    }
}
