//! Banks of bets: wealth that cannot be expected to grow while the null hypothesis is true.
//!
//! Each bet starts with a part of one unit of money and is multiplied, block after block, by a gain whose mean under
//! the null is at most one. The total is an e-process: by Ville's inequality the chance that it ever reaches 1/α is at
//! most α, however often one looks and whenever one stops. Kept as logarithms.

use serde::{Deserialize, Serialize};

/// Bets on harm for binary events and for latency: how many times as many bad events the candidate has.
pub const HARM: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];
/// Bets on no harm for binary events and for latency: which part of what the line allows the candidate has.
pub const NO_HARM: [f64; 6] = [0.9, 0.75, 0.6, 0.45, 0.3, 0.1];
/// Bets on means: the effect in standard deviations of one value.
pub const EFFECTS: [f64; 6] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Wealth that grows when the candidate does harm.
///
/// Half of the money is bet at the start; the rest comes in at restarts, so that a candidate that turns bad late does not
/// hide behind its good past. What is not bet yet counts, so the total is an e-process at all times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HarmBank {
    ln_wealth: Vec<f64>,
    restarts: u32,
}

/// Wealth that grows when the candidate is better than a line which it must not cross.
///
/// It has no restarts and is cut from above: cutting an e-process leaves it valid, and a turn for the worse shows at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SafetyBank {
    ln_wealth: Vec<f64>,
}

// === impl HarmBank ===

impl HarmBank {
    /// Opens a bank of so many bets; at least one.
    pub fn new(bets: usize) -> Self {
        let bets = bets.max(1);
        Self { ln_wealth: vec![(0.5 / real(bets)).ln(); bets], restarts: 0 }
    }

    /// Multiplies each bet by its gain, given as a logarithm. A gain that is no number changes nothing.
    pub fn bet(&mut self, ln_gain: impl Fn(usize) -> f64) {
        multiply(&mut self.ln_wealth, ln_gain);
    }

    /// Puts fresh money on all bets.
    pub fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        let j = f64::from(self.restarts);
        let share = (1.0 / (2.0 * j * (j + 1.0) * real(self.ln_wealth.len().max(1)))).ln();
        for wealth in &mut self.ln_wealth {
            *wealth = ln_add(*wealth, share);
        }
    }

    /// The logarithm of the evidence E: all wealth, and the money that is not bet yet.
    pub fn ln_e(&self) -> f64 {
        let waiting = (1.0 / (2.0 * (f64::from(self.restarts) + 1.0))).ln();
        ln_sum(&self.ln_wealth, waiting)
    }

    pub(super) fn fits(&self, bets: usize) -> bool {
        self.ln_wealth.len() == bets
    }
}

// === impl SafetyBank ===

impl SafetyBank {
    /// Opens a bank of so many bets; at least one.
    pub fn new(bets: usize) -> Self {
        let bets = bets.max(1);
        Self { ln_wealth: vec![(1.0 / real(bets)).ln(); bets] }
    }

    /// Multiplies each bet by its gain, given as a logarithm. A gain that is no number changes nothing.
    pub fn bet(&mut self, ln_gain: impl Fn(usize) -> f64) {
        multiply(&mut self.ln_wealth, ln_gain);
    }

    /// Lowers the total to `ln_most` where it is above, all bets alike.
    pub fn cut(&mut self, ln_most: f64) {
        let above = self.ln_e() - ln_most;
        if above > 0.0 && above.is_finite() {
            for wealth in &mut self.ln_wealth {
                *wealth -= above;
            }
        }
    }

    /// The logarithm of the evidence E.
    pub fn ln_e(&self) -> f64 {
        ln_sum(&self.ln_wealth, f64::NEG_INFINITY)
    }

    /// The logarithms of the bets' wealth.
    pub(super) fn ln_wealth(&self) -> &[f64] {
        &self.ln_wealth
    }

    pub(super) fn fits(&self, bets: usize) -> bool {
        self.ln_wealth.len() == bets
    }
}

fn multiply(ln_wealth: &mut [f64], ln_gain: impl Fn(usize) -> f64) {
    for (k, wealth) in ln_wealth.iter_mut().enumerate() {
        let after = *wealth + ln_gain(k);
        if after.is_finite() {
            *wealth = after;
        }
    }
}

/// A number of things as a real number; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact for every number of bets, instances and blocks")]
pub(super) fn real(count: usize) -> f64 {
    count as f64
}

/// ln(e^a + e^b).
pub(super) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// ln(Σ e^values + e^more).
pub(super) fn ln_sum(values: &[f64], more: f64) -> f64 {
    let high = values.iter().copied().fold(more, f64::max);
    if !high.is_finite() {
        return f64::NEG_INFINITY;
    }
    let total: f64 = values.iter().map(|value| (value - high).exp()).sum();
    high + (total + (more - high).exp()).ln()
}
