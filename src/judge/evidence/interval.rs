//! Intervals for reports that hold at all times; nothing is decided by them.

use super::measure::{Count, Histogram};

/// The interval of a rate with error α, at all times together: all p whose likelihood ratio against a Beta(½, ½) mixture
/// stays below 1/α (Robbins' mixture, with the weights of Krichevsky and Trofimov).
pub fn rate(count: Count, alpha: f64) -> (f64, f64) {
    let ratio = Ratio::new(count, alpha);
    let middle = count.rate().unwrap_or(0.5);
    let edge = |outside: f64| {
        if !ratio.excludes(outside) {
            return outside;
        }
        let (mut outside, mut inside) = (outside, middle);
        for _ in 0..80 {
            let half = f64::midpoint(outside, inside);
            if ratio.excludes(half) {
                outside = half;
            } else {
                inside = half;
            }
        }
        inside
    };
    (edge(0.0), edge(1.0))
}

/// The interval of a quantile with error α: from the largest boundary whose share of slower requests is surely above
/// 1 − q (nothing: zero) to the smallest where it is surely below (nothing: no upper end).
pub fn quantile(histogram: &Histogram, quantile: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
    let slower = 1.0 - quantile;
    let side = |boundary: usize| {
        let count = histogram.above(boundary);
        if Ratio::new(count, alpha).excludes(slower) { count.rate().map(|rate| rate - slower) } else { None }
    };
    // Shares of slower requests only fall from boundary to boundary, so both ends are found by halving.
    let boundaries = histogram.boundaries();
    let first = |is: &dyn Fn(usize) -> bool| {
        let (mut low, mut high) = (0, boundaries.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if is(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    };
    let not_above = first(&|boundary| side(boundary).is_none_or(|apart| apart < 0.0));
    let below = first(&|boundary| side(boundary).is_some_and(|apart| apart < 0.0));
    (not_above.checked_sub(1).and_then(|at| boundaries.get(at).copied()), boundaries.get(below).copied())
}

/// ln B(x + ½, n − x + ½) − ln B(½, ½), to be compared with the likelihood of a rate.
struct Ratio {
    x: f64,
    rest: f64,
    mixture: f64,
    most: f64,
}

// === impl Ratio ===

impl Ratio {
    fn new(count: Count, alpha: f64) -> Self {
        let (x, rest) = (count.x_real(), count.n_real() - count.x_real());
        // B(½, ½) = π.
        let mixture = ln_beta(x + 0.5, rest + 0.5) - std::f64::consts::PI.ln();
        Self { x, rest, mixture, most: -alpha.ln() }
    }

    fn excludes(&self, p: f64) -> bool {
        let term = |count: f64, share: f64| if count == 0.0 { 0.0 } else { count * share.ln() };
        let likelihood = term(self.x, p) + term(self.rest, 1.0 - p);
        self.mixture - likelihood >= self.most
    }
}

/// ln B(a, b), the logarithm of Euler's beta function, for positive a and b.
pub(super) fn ln_beta(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Stirling's series, with the large terms taken together so that nothing is lost for many requests.
    if a > 1e3 && b > 1e3 {
        let large = (a - 0.5) * (a / sum).ln() + b * (b / sum).ln() - 0.5 * b.ln();
        return large + 0.5 * (2.0 * std::f64::consts::PI).ln() + tail(a) + tail(b) - tail(sum);
    }
    let (small, big) = if a <= b { (a, b) } else { (b, a) };
    if big > 1e3 {
        // ln Γ(big) − ln Γ(sum), without subtracting two large numbers.
        let apart = -(big - 0.5) * (small / big).ln_1p() - small * sum.ln() + small;
        return ln_gamma(small) + apart + tail(big) - tail(sum);
    }
    ln_gamma(a) + ln_gamma(b) - ln_gamma(sum)
}

/// ln Γ(z), for positive z: Stirling's series, from 15 on directly and below it by recurrence.
fn ln_gamma(mut z: f64) -> f64 {
    let mut product = 1.0;
    while z < 15.0 {
        product *= z;
        z += 1.0;
    }
    (z - 0.5) * z.ln() - z + 0.5 * (2.0 * std::f64::consts::PI).ln() + tail(z) - product.ln()
}

/// What is left of ln Γ(z) after Stirling's formula.
fn tail(z: f64) -> f64 {
    let w = 1.0 / (z * z);
    (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0 - w * (1.0 / 1680.0 - w / 1188.0)))) / z
}
