//! Users of plain values: how many ask, how often each release fails them, and what is measured of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::desired::rollout::{Measure, Metric};
use backstay::judge::{Arms, NoData, Reading, Totals};
use backstay::model::{ReleaseId, Timestamp};
use backstay::rollout::{Measurement, Measurements, Question};

/// Who asks, and what they get.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    /// Requests a second, of all releases together.
    pub(crate) rate: f64,
    /// The share of failed requests, by the short id of a release.
    pub(crate) errors: BTreeMap<String, f64>,
    /// Nobody answers who is asked for figures.
    pub(crate) silent: bool,
    counted: BTreeMap<String, (f64, f64)>,
    since: Option<Timestamp>,
}

/// So many requests, of which each bucket that is 5 % slower has a tenth less.
fn latencies(n: f64) -> Totals {
    let (mut boundaries, mut counts) = (vec![], vec![]);
    let (mut bound, mut left) = (50.0, 1.0);
    for _ in 0..80 {
        boundaries.push(bound);
        let before = (n * (1.0 - left)).floor();
        left *= 0.9;
        counts.push((n * (1.0 - left)).floor() - before);
        bound *= 1.05;
    }
    counts.push(n - counts.iter().sum::<f64>());
    Totals::Latency { boundaries: Arc::from(boundaries), counts }
}

impl Traffic {
    /// So many requests a second.
    pub(crate) fn of(rate: f64) -> Self {
        Self { rate, ..Self::default() }
    }

    /// Counts up to now what each release was given: `weights` in percent.
    fn count(&mut self, weights: &BTreeMap<String, f64>, now: Timestamp) {
        let seconds = self.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        self.since = Some(now);
        for (release, weight) in weights {
            let asked = self.rate * seconds * weight / 100.0;
            let failed = asked * self.errors.get(release).copied().unwrap_or(0.0);
            let counted = self.counted.entry(release.clone()).or_default();
            counted.0 += asked;
            counted.1 += failed;
        }
    }

    /// What is answered to a question.
    pub(crate) fn answer(
        &mut self,
        question: &Question,
        weights: &BTreeMap<String, f64>,
        now: Timestamp,
    ) -> Measurements {
        self.count(weights, now);
        let of = |release: ReleaseId, metric: &Metric| {
            if self.silent {
                return Err(NoData::Provider("it is silent".to_owned()));
            }
            let (n, x) = self.counted.get(&release.short()).copied().unwrap_or_default();
            let (n, x) = (n.floor(), x.floor());
            let totals = match metric.source.measure() {
                Measure::Rate { .. } => Totals::Binary { n, x },
                Measure::Mean => Totals::Mean { n, sum: n, squares: Some(n) },
                Measure::Duration { .. } => latencies(n),
            };
            Ok(vec![Reading { instance: "proxy".to_owned(), started: None, totals }])
        };
        measured(question, now, of)
    }

    /// Whoever is asked for figures cannot say any this time.
    pub(crate) fn unavailable(question: &Question, now: Timestamp) -> Measurements {
        measured(question, now, |_, _| Err(NoData::Provider("503 Service Unavailable".to_owned())))
    }

    /// Figures that are none.
    pub(crate) fn nonsense(question: &Question, now: Timestamp) -> Measurements {
        measured(question, now, |_, metric| {
            let totals = match metric.source.measure() {
                Measure::Rate { .. } => Totals::Binary { n: f64::NAN, x: -7.0 },
                Measure::Mean => Totals::Mean { n: f64::INFINITY, sum: f64::NAN, squares: None },
                Measure::Duration { .. } => {
                    Totals::Latency { boundaries: Arc::from([9.0, 1.0]), counts: vec![f64::NAN] }
                }
            };
            Ok(vec![Reading { instance: "proxy".to_owned(), started: None, totals }])
        })
    }
}

fn measured(
    question: &Question,
    now: Timestamp,
    of: impl Fn(ReleaseId, &Metric) -> Result<Vec<Reading>, NoData>,
) -> Measurements {
    let measured = question.metrics.iter().map(|(name, metric)| {
        let Arms { candidate, stable } = question.releases;
        let arms = Arms { candidate: of(candidate, metric), stable: of(stable, metric) };
        (name.clone(), Measurement::Counters(arms))
    });
    Measurements { at: now, metrics: measured.collect() }
}
