//! Gains for events that happen or do not: one arm against a limit, and two arms against each other.

use serde::{Deserialize, Serialize};

use super::measure::Count;

/// The line between harm and no harm: the candidate may have `ratio` times what stable has, and `delta` more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// The factor ρ.
    pub ratio: f64,
    /// The difference δ.
    pub delta: f64,
}

/// One arm against a limit L of its rate.
///
/// The gain is the likelihood ratio of Bernoulli trials at odds λ, with mean (1 + p(λ − 1))ⁿ / (1 + L(λ − 1))ⁿ: at most
/// one where p ≤ L and λ > 1 (harm), and where p ≥ L and λ < 1 (no harm). Exact for every n.
#[derive(Debug, Clone, Copy)]
pub struct OneArm {
    n: f64,
    x: f64,
    limit: f64,
}

/// Two arms, by the question whose failure each failure is.
///
/// Among the events of both arms a candidate on the line has the share `θ = ρn_c/(ρn_c + n_s)`. The gain is a conditional
/// likelihood ratio at relative risk λ, with a correction for δ; the common rate cancels, so nothing about it is guessed.
/// Its mean is at most one for every common rate, where outcomes are independent within the block; and, for ρ = 1 and
/// δ = 0, wherever requests are routed by chance, whatever they are like: then the candidate's events are
/// hypergeometric, and Hoeffding's comparison bounds them by the binomial.
#[derive(Debug, Clone, Copy)]
pub struct TwoArms {
    x: f64,
    events: f64,
    theta: f64,
    /// `n_c·δ·(1 − θ)`.
    shift: f64,
}

/// Two arms with events that are common, more than about one in ten.
///
/// A likelihood ratio of both arms that bets around a guess of stable's rate, learned from earlier blocks. The logarithm
/// of its mean is concave in the two rates and has its maximum over the null at the guess, where it is zero: a bad guess
/// costs evidence, never validity. Needs outcomes that are independent within the block.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    candidate: Count,
    stable: Count,
    /// The guesses.
    q_c: f64,
    q_s: f64,
    r: f64,
}

// === impl Line ===

impl Line {
    /// No worse than stable.
    pub const EQUAL: Self = Self { ratio: 1.0, delta: 0.0 };

    /// The line for a part `weight` of the traffic, where the whole may lose what `self` says: both margins are divided
    /// by it.
    #[must_use]
    pub fn for_weight(self, weight: f64) -> Self {
        let weight = weight.clamp(f64::MIN_POSITIVE, 1.0);
        Self { ratio: (1.0 + (self.ratio - 1.0) / weight).max(0.0), delta: self.delta / weight }
    }
}

// === impl OneArm ===

impl OneArm {
    /// Takes the counts of one block.
    pub fn new(count: Count, limit: f64) -> Self {
        Self { n: count.n_real(), x: count.x_real(), limit }
    }

    /// The logarithm of the gain of the bet at odds λ.
    pub fn gain(&self, lambda: f64) -> f64 {
        self.x * lambda.ln() - self.n * (self.limit * (lambda - 1.0)).ln_1p()
    }
}

// === impl TwoArms ===

impl TwoArms {
    /// Takes the counts of one block; both arms must have requests.
    pub fn new(candidate: Count, stable: Count, line: Line) -> Self {
        let fair = line.ratio * candidate.n_real();
        let theta = fair / (fair + stable.n_real());
        Self {
            x: candidate.x_real(),
            events: candidate.x_real() + stable.x_real(),
            theta,
            shift: candidate.n_real() * line.delta * (1.0 - theta),
        }
    }

    /// The logarithm of the gain of the bet at relative risk λ.
    pub fn gain(&self, lambda: f64) -> f64 {
        let more = self.theta * (lambda - 1.0);
        self.x * lambda.ln() - self.events * more.ln_1p() - self.shift * (lambda - 1.0) / (1.0 + more)
    }

    /// Whether every bet gains and loses nothing.
    pub fn is_nothing(&self) -> bool {
        self.events == 0.0 && self.shift == 0.0
    }
}

// === impl Common ===

impl Common {
    /// The guess of stable's rate from the earlier blocks of both arms.
    pub fn guess(candidate: Count, stable: Count, line: Line) -> f64 {
        let (n_c, n_s) = (candidate.n_real(), stable.n_real());
        let events = candidate.x_real() + stable.x_real();
        clip((events + 0.5 - line.delta * n_c) / (n_s + line.ratio * n_c + 1.0), line)
    }

    /// Takes the counts of one block, and a guess `q_s` of stable's rate that knows nothing of it.
    pub fn new(candidate: Count, stable: Count, line: Line, q_s: f64) -> Self {
        let q_s = clip(q_s, line);
        let q_c = (line.ratio * q_s + line.delta).clamp(0.001, 0.99);
        let r = line.ratio * candidate.n_real() / stable.n_real() * (1.0 - q_s) / (1.0 - q_c);
        Self { candidate, stable, q_c, q_s, r }
    }

    /// The logarithm of the gain of the bet at relative risk λ.
    pub fn gain(&self, lambda: f64) -> f64 {
        let Self { q_c, q_s, r, .. } = *self;
        let mut a = lambda * (1.0 + r) / (1.0 + r * lambda);
        let mut b = 1.0 - r * (a - 1.0);
        if a > 0.99 / q_c {
            a = 0.99 / q_c;
            b = 1.0 - r * (a - 1.0);
        }
        if b > 0.99 / q_s {
            b = 0.99 / q_s;
            a = 1.0 - (b - 1.0) / r;
        }
        let (without_a, without_b) = ((1.0 - q_c * a) / (1.0 - q_c), (1.0 - q_s * b) / (1.0 - q_s));
        let arm = |count: Count, with: f64, without: f64| {
            count.x_real() * with.ln() + (count.n_real() - count.x_real()) * without.ln()
        };
        arm(self.candidate, a, without_a) + arm(self.stable, b, without_b)
    }
}

/// A guess within its bounds: that of stable in [0.001, 0.95], that of the candidate at most 0.99.
fn clip(q_s: f64, line: Line) -> f64 {
    let most = if line.ratio > 0.0 { (0.99 - line.delta) / line.ratio } else { 0.95 };
    let q_s = if q_s.is_finite() { q_s } else { 0.5 };
    q_s.clamp(0.001, 0.95).min(most).max(f64::MIN_POSITIVE)
}
