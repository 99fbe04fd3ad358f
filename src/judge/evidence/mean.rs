//! Gains for means: tokens, cost, reward.
//!
//! A sequential likelihood ratio with a grid as its prior (the mixture test of Robbins and of Johari and others), with the
//! Gaussian gain γz − γ²/2 replaced by ln(1 + y + y²/3) − ln(1 + γ²/3), after Catoni: equal to second order, and valid for
//! every law with that variance. One outlier gains at most a factor of seven.

use serde::{Deserialize, Serialize};

use super::bank::real;
use super::binary::Line;
use super::measure::Moments;

/// Values of each arm before anything is bet on its spread.
const ENOUGH: f64 = 50.0;
/// Blocks, where the spread is known from their means alone.
const ENOUGH_BLOCKS: f64 = 10.0;

/// What the earlier blocks say about the values of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spread {
    n: f64,
    mean: f64,
    /// Σ(v − v̄)² within and between blocks.
    squares: f64,
    /// `Σn_b(v̄_b − v̄)²` between blocks alone.
    between: f64,
    blocks: f64,
    /// Blocks without squares: the spread comes from the means of blocks.
    bare: bool,
}

/// Which side of the line is bet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The candidate is above it.
    Harm,
    /// The candidate is below it.
    NoHarm,
}

/// A block of values, measured in its standard errors from the line.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    z: f64,
    /// `√(σ_s²/v)`.
    scale: f64,
}

// === impl Spread ===

impl Spread {
    /// Adds a block.
    pub fn add(&mut self, block: &Moments) {
        let Some(mean) = block.mean() else { return };
        let n = block.n_real();
        let total = self.n + n;
        let shift = mean - self.mean;
        let apart = shift * shift * self.n * n / total;
        let within = block.squares_around_mean();
        self.bare |= within.is_none();
        self.squares += within.unwrap_or(0.0) + apart;
        self.between += apart;
        self.mean += shift * n / total;
        self.blocks += 1.0;
        self.n = total;
    }

    /// The variance of one value; nothing until enough is known.
    pub fn variance(&self) -> Option<f64> {
        let variance = if self.bare {
            (self.blocks >= ENOUGH_BLOCKS).then(|| self.between / self.blocks)
        } else {
            Some(self.squares / (self.n - 1.0))
        };
        variance.filter(|variance| self.n >= ENOUGH && variance.is_finite() && *variance > 0.0)
    }

    /// How many values it knows.
    pub fn n(&self) -> f64 {
        self.n
    }

    /// The mean of all values.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0.0).then_some(self.mean)
    }
}

// === impl Means ===

impl Means {
    /// Takes the means of one block and the variances that were known before it.
    ///
    /// Nothing where no bet can be made: an arm is empty, or nothing varies. The candidate's variance is taken to be at
    /// least ρ² times that of stable: a young candidate's own is learned too low where tails are heavy.
    pub fn new(
        candidate: (f64, f64),
        stable: (f64, f64),
        variances: (f64, f64),
        line: Line,
        side: Side,
    ) -> Option<Self> {
        let ((mean_c, n_c), (mean_s, n_s)) = (candidate, stable);
        let (var_c, var_s) = variances;
        let rho_squared = line.ratio * line.ratio;
        let var_c = var_c.max(rho_squared * var_s);
        let v = var_c / n_c + rho_squared * var_s / n_s;
        let z = (mean_c - line.ratio * mean_s - line.delta) / v.sqrt();
        Self::checked(z, (var_s / v).sqrt(), side)
    }

    /// One arm against a limit of its mean, in the same way: the limit has no spread.
    pub fn against(limit: f64, candidate: (f64, f64), variance: f64, side: Side) -> Option<Self> {
        let (mean, n) = candidate;
        Self::checked((mean - limit) / (variance / n).sqrt(), n.sqrt(), side)
    }

    fn checked(z: f64, scale: f64, side: Side) -> Option<Self> {
        let z = match side {
            Side::Harm => z,
            Side::NoHarm => -z,
        };
        (z.is_finite() && scale.is_finite()).then_some(Self { z, scale })
    }

    /// The logarithm of the gain of the bet on an effect of `g` standard deviations.
    pub fn gain(&self, g: f64) -> f64 {
        let gamma = (g * self.scale).min(1.0);
        let y = (gamma * self.z).clamp(-1.5, 3.0);
        (y + y * y / 3.0).ln_1p() - (gamma * gamma / 3.0).ln_1p()
    }
}

/// The difference of two means over all blocks, with an interval that holds at all times.
///
/// Asymptotic, by a Gaussian mixture (Robbins; Waudby-Smith and others); for reports, from 50 values in each arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Difference {
    /// `Σh(v̄_c − v̄_s)`.
    pub s: f64,
    /// `Σh²(σ_c²/n_c + σ_s²/n_s)`.
    pub v: f64,
    /// `Σh`, with `h = n_c·n_s/(n_c + n_s)`.
    pub h: f64,
}

// === impl Difference ===

impl Difference {
    /// Adds a block.
    pub fn add(&mut self, candidate: (f64, f64), stable: (f64, f64), variances: (f64, f64)) {
        let ((mean_c, n_c), (mean_s, n_s)) = (candidate, stable);
        let h = n_c * n_s / (n_c + n_s);
        let added = Self {
            s: self.s + h * (mean_c - mean_s),
            v: self.v + h * h * (variances.0 / n_c + variances.1 / n_s),
            h: self.h + h,
        };
        if added.s.is_finite() && added.v.is_finite() && added.h.is_finite() {
            *self = added;
        }
    }

    /// The middle and the half width of the interval with error α.
    pub fn interval(&self, alpha: f64) -> Option<(f64, f64)> {
        let u = 0.04 * self.h;
        let half = self.v.sqrt() / self.h * ((1.0 + u) / u * ((1.0 + u) / (alpha * alpha)).ln()).sqrt();
        let middle = self.s / self.h;
        (middle.is_finite() && half.is_finite()).then_some((middle, half))
    }
}

/// The part of φ for means: how much the means of instances differ, against what chance makes of them.
pub(super) fn dispersion<'m>(instances: impl Iterator<Item = &'m Spread> + Clone) -> Option<f64> {
    let mut all = Spread::default();
    let (mut within, mut count) = (0.0, 0_usize);
    for instance in instances.clone().filter(|instance| instance.n > 1.0 && !instance.bare) {
        all.n += instance.n;
        all.mean += (instance.mean - all.mean) * instance.n / all.n;
        within += instance.squares;
        count += 1;
    }
    let degrees = all.n - real(count);
    if count < super::guard::INSTANCES || all.n < ENOUGH.max(2.0 * real(count)) || degrees <= 0.0 {
        return None;
    }
    let variance = within / degrees;
    let apart: f64 = instances
        .filter(|instance| instance.n > 1.0 && !instance.bare)
        .map(|instance| instance.n * (instance.mean - all.mean).powi(2))
        .sum();
    Some(apart / variance / real(count - 1)).filter(|phi| phi.is_finite())
}
