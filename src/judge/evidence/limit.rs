//! One metric against its fixed limit: banks for the candidate, and one for stable, which mutes a limit that it breaks too.

use serde::{Deserialize, Serialize};

use super::bank::{EFFECTS, HARM, HarmBank, NO_HARM, SafetyBank};
use super::binary::OneArm;
use super::latency::{at_or_above, at_or_below};
use super::mean::{Means, Side, Spread};
use super::measure::{Arms, Count, Measured, Moments};
use super::spec::Kind;
use super::window::Window;
use crate::model::Timestamp;

/// Seconds over which stable's own rate is looked at.
const LATELY: i64 = 300;
/// Values of a block of means.
pub(super) const BLOCK_OF_MEANS: u64 = 20;

/// The evidence about one limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitTrack {
    pub(super) harm: HarmBank,
    /// One per step, each against the limit of that step.
    pub(super) safe: Vec<SafetyBank>,
    /// Whether stable is over the limit.
    stable: HarmBank,
    lately: Window,
    /// Values that wait for a block, and what the earlier blocks say about their spread.
    open: Arms<Moments>,
    spread: Arms<Spread>,
    /// The buckets do not reach the limit.
    pub(super) out_of_reach: bool,
}

/// What a limit is applied with.
pub(super) struct Terms<'t> {
    pub(super) kind: Kind,
    /// The limits of all steps.
    pub(super) limits: &'t [Option<f64>],
    pub(super) step: usize,
    pub(super) phi: f64,
    pub(super) ln_cut: f64,
}

// === impl LimitTrack ===

impl LimitTrack {
    pub(super) fn new(kind: Kind, steps: usize) -> Self {
        let harm = harm_bets(kind).len();
        Self {
            harm: HarmBank::new(harm),
            safe: vec![SafetyBank::new(safe_bets(kind).len()); steps],
            stable: HarmBank::new(harm),
            lately: Window::new(LATELY),
            open: Arms::default(),
            spread: Arms::default(),
            out_of_reach: false,
        }
    }

    pub(super) fn fits(&self, kind: Kind, steps: usize) -> bool {
        let harm = harm_bets(kind).len();
        let safe = safe_bets(kind).len();
        self.harm.fits(harm)
            && self.stable.fits(harm)
            && self.safe.len() == steps
            && self.safe.iter().all(|bank| bank.fits(safe))
    }

    /// Bets on one interval. Each arm counts for itself, so there is nothing to wait for, but for means.
    pub(super) fn feed(&mut self, arms: &Arms<Measured>, end: Timestamp, terms: &Terms<'_>) {
        match (&arms.candidate, &arms.stable) {
            (Measured::Binary(candidate), Measured::Binary(stable)) => {
                let both = |_| Some((*candidate, *stable));
                self.counts(terms, end, both, both);
            }
            (Measured::Latency(candidate), Measured::Latency(stable)) => {
                let boundaries = candidate.boundaries();
                let over = |limit| at_or_above(boundaries, limit).map(|at| (candidate.above(at), stable.above(at)));
                let under = |limit| at_or_below(boundaries, limit).map(|at| (candidate.above(at), stable.above(at)));
                self.counts(terms, end, over, under);
            }
            (Measured::Mean(candidate), Measured::Mean(stable)) => self.means(terms, end, *candidate, *stable),
            (Measured::Binary(_) | Measured::Latency(_) | Measured::Mean(_), _) => {}
        }
    }

    fn counts(
        &mut self,
        terms: &Terms<'_>,
        end: Timestamp,
        over: impl Fn(f64) -> Option<(Count, Count)>,
        under: impl Fn(f64) -> Option<(Count, Count)>,
    ) {
        if let Some(limit) = terms.limits.get(terms.step).copied().flatten() {
            let counted = over(limit);
            self.out_of_reach = counted.is_none();
            let rate = share(terms.kind, limit);
            // Where nothing at all is allowed a single event decides, without a bank.
            if let Some((candidate, stable)) = counted.filter(|_| rate > 0.0) {
                let (candidate, ours) = (OneArm::new(candidate, rate), OneArm::new(stable, rate));
                self.harm.bet(|k| candidate.gain(HARM[k]) / terms.phi);
                self.stable.bet(|k| ours.gain(HARM[k]) / terms.phi);
                self.lately.add(end, stable.n_real(), stable.x_real());
            }
        }
        for (bank, limit) in self.safe.iter_mut().zip(terms.limits).skip(terms.step) {
            let Some((limit, (candidate, _))) = limit.and_then(|limit| Some((limit, under(limit)?))) else { continue };
            let candidate = OneArm::new(candidate, share(terms.kind, limit));
            bank.bet(|k| candidate.gain(NO_HARM[k]) / terms.phi);
            bank.cut(terms.ln_cut);
        }
    }

    fn means(&mut self, terms: &Terms<'_>, end: Timestamp, candidate: Moments, stable: Moments) {
        let limit = terms.limits.get(terms.step).copied().flatten();
        self.lately.add(end, stable.n_real(), stable.parts().0);
        self.open.candidate = self.open.candidate.plus(candidate);
        self.open.stable = self.open.stable.plus(stable);
        if self.open.stable.n() >= BLOCK_OF_MEANS {
            let block = std::mem::take(&mut self.open.stable);
            let bet = |limit| against(limit, &block, &self.spread.stable, Side::Harm);
            if let Some(block) = limit.and_then(bet) {
                self.stable.bet(|k| block.gain(EFFECTS[k]) / terms.phi);
            }
            self.spread.stable.add(&block);
        }
        if self.open.candidate.n() >= BLOCK_OF_MEANS {
            let block = std::mem::take(&mut self.open.candidate);
            let bet = |limit, side| against(limit, &block, &self.spread.candidate, side);
            if let Some(block) = limit.and_then(|limit| bet(limit, Side::Harm)) {
                self.harm.bet(|k| block.gain(EFFECTS[k]) / terms.phi);
            }
            for (bank, limit) in self.safe.iter_mut().zip(terms.limits).skip(terms.step) {
                if let Some(block) = limit.and_then(|limit| bet(limit, Side::NoHarm)) {
                    bank.bet(|k| block.gain(EFFECTS[k]) / terms.phi);
                    bank.cut(terms.ln_cut);
                }
            }
            self.spread.candidate.add(&block);
        }
    }

    /// Fresh money for what looks for harm.
    pub(super) fn restart(&mut self) {
        self.harm.restart();
        self.stable.restart();
    }

    /// A new step: no harm must be shown again, half of it.
    pub(super) fn enter(&mut self, ln_carry: f64, other_limit: bool) {
        self.open = Arms::default();
        if other_limit {
            self.lately = Window::new(LATELY);
        }
        self.safe.iter_mut().for_each(|bank| bank.cut(ln_carry));
    }

    /// Whether stable is over the limit as well: by its own evidence, or over its last five minutes.
    pub(super) fn is_muted(&self, kind: Kind, limit: f64, ln_needed: f64, now: Timestamp) -> bool {
        let (n, sum) = self.lately.at(now);
        let over = match kind {
            Kind::Binary { .. } | Kind::Latency { .. } => sum > n * share(kind, limit),
            Kind::Mean => sum > n * limit,
        };
        (n > 0.0 && over) || self.stable.ln_e() >= ln_needed
    }
}

/// The rate that a limit allows: of events, or of requests slower than a duration.
pub(super) fn share(kind: Kind, limit: f64) -> f64 {
    match kind {
        Kind::Binary { .. } | Kind::Mean => limit,
        Kind::Latency { quantile } => 1.0 - quantile,
    }
}

pub(super) fn harm_bets(kind: Kind) -> &'static [f64] {
    match kind {
        Kind::Binary { .. } | Kind::Latency { .. } => &HARM,
        Kind::Mean => &EFFECTS,
    }
}

pub(super) fn safe_bets(kind: Kind) -> &'static [f64] {
    match kind {
        Kind::Binary { .. } | Kind::Latency { .. } => &NO_HARM,
        Kind::Mean => &EFFECTS,
    }
}

fn against(limit: f64, block: &Moments, spread: &Spread, side: Side) -> Option<Means> {
    Means::against(limit, (block.mean()?, block.n_real()), spread.variance()?, side)
}
