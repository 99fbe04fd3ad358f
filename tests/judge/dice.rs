//! Chance with a seed: xoshiro256++, and what is drawn from it.

use std::collections::HashMap;

/// A source of chance that gives the same for the same seed.
pub(crate) struct Dice {
    state: [u64; 4],
    spare: Option<f64>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Spread over the state by splitmix64.
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state, spare: None }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let out = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        out
    }

    /// Uniform in (0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0..n.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), 2.0 * std::f64::consts::PI * self.uniform());
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// Gamma with that shape (at least one) and mean one, by Marsaglia and Tsang.
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v / shape;
            }
        }
    }
}

/// Binomial numbers with one chance, by tables that are made when they are needed.
pub(crate) struct Binomial {
    p: f64,
    tables: HashMap<u64, Vec<f64>>,
    last: (u64, Vec<f64>),
}

impl Binomial {
    pub(crate) fn new(p: f64) -> Self {
        Self { p, tables: HashMap::new(), last: (0, vec![1.0]) }
    }

    pub(crate) fn draw(&mut self, n: u64, dice: &mut Dice) -> u64 {
        if n == 0 {
            return 0;
        }
        if n == 1 {
            return u64::from(dice.chance(self.p));
        }
        if self.last.0 != n {
            let p = self.p;
            let table = self.tables.remove(&n).unwrap_or_else(|| table(n, p));
            let (before, old) = std::mem::replace(&mut self.last, (n, table));
            self.tables.insert(before, old);
        }
        let u = dice.uniform();
        let table = &self.last.1;
        let first = table.iter().take(4).position(|sum| u < *sum);
        first.unwrap_or_else(|| table.partition_point(|sum| *sum <= u)).min(table.len() - 1) as u64
    }
}

/// The sums of the chances of 0, 1, 2, … of n, up to where nothing is left.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn table(n: u64, p: f64) -> Vec<f64> {
    let (mut sums, mut sum, mut ln_choose) = (vec![], 0.0, 0.0);
    for x in 0..=n {
        let (x_real, rest) = (x as f64, (n - x) as f64);
        if p >= 1.0 {
            sums.push(if x == n { 1.0 } else { 0.0 });
            continue;
        }
        sum += (ln_choose + x_real * p.ln() + rest * (-p).ln_1p()).exp();
        sums.push(sum);
        if sum > 1.0 - 1e-15 && x_real > n as f64 * p {
            break;
        }
        ln_choose += rest.ln() - (x_real + 1.0).ln();
    }
    sums
}

#[test]
fn draws_have_their_means_and_spreads() {
    let mut dice = Dice::new(1);
    for (n, p) in [(1, 0.3), (20, 0.001), (500, 0.2), (30, 1.0)] {
        let mut binomial = Binomial::new(p);
        let draws: Vec<f64> = (0..40_000).map(|_| binomial.draw(n, &mut dice) as f64).collect();
        let mean = draws.iter().sum::<f64>() / 4e4;
        let spread = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 4e4;
        let (wanted, variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
        assert!((mean - wanted).abs() <= 5.0 * (variance / 4e4).sqrt(), "{n} {p}: mean {mean}");
        assert!((spread - variance).abs() <= 0.1 * variance, "{n} {p}: variance {spread}");
    }
    for shape in [1.0, 11.1] {
        let draws: Vec<f64> = (0..40_000).map(|_| dice.gamma(shape)).collect();
        let mean = draws.iter().sum::<f64>() / 4e4;
        let spread = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 4e4;
        assert!((mean - 1.0).abs() < 0.03 && (spread * shape - 1.0).abs() < 0.1, "{shape}: {mean} {spread}");
    }
    assert!((0..1000).all(|_| dice.below(7) < 7));
}
