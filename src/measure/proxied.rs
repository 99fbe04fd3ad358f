//! The figures of a host's proxy: what every second of each release was, added up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::pods::Pods;
use super::told::{because, nothing};
use super::{Asked, Provider};
use crate::desired::rollout::{Metric, Preset, Source};
use crate::judge::{Arms, NoData, Reading, Totals};
use crate::model::{AgentName, ReleaseId, Timestamp};
use crate::proxy::{Client, Counted, Counts, Histogram, Metrics};
use crate::rollout::Measurement;

/// Time for the proxy's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for that, and for who is measured.
const WHOLE: Duration = Duration::from_secs(10);
/// Releases whose figures are kept; beyond them those that were asked for least lately are dropped.
const MOST_RELEASES: usize = 4096;

/// Asks the proxy.
pub(super) struct Proxied {
    client: Client,
    pods: Pods,
    /// Tells this process' totals from those of the daemon before: each begins at zero.
    life: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The last second that is counted.
    since: Option<u64>,
    releases: BTreeMap<(AgentName, ReleaseId), Figures>,
}

/// What one release did since this process asks.
#[derive(Default, Clone)]
struct Figures {
    counts: Counts,
    latency: Histogram,
    first_byte: Histogram,
    /// The last second in which it did anything.
    last: u64,
}

// === impl Proxied ===

impl Proxied {
    pub(super) fn new(control: PathBuf, pods: Pods) -> Self {
        let life = format!("proxy-{}", Timestamp::now().as_millisecond());
        Self { client: Client::new(control, 0).patience(PATIENCE), pods, life, kept: Mutex::default() }
    }

    /// The figures of both releases up to now.
    async fn figures(&self, agent: &AgentName, releases: &Arms<ReleaseId>) -> Result<Arms<Figures>, NoData> {
        let mut kept = self.kept.lock().await;
        let since = kept.since.unwrap_or(u64::MAX - 1);
        let told = self.client.metrics(since).await.map_err(|error| because(error.to_string()))?;
        kept.take(told);
        Ok(releases.map(|release| kept.releases.get(&(agent.clone(), release)).cloned().unwrap_or_default()))
    }
}

impl Kept {
    /// Adds what was told; the first answer only says from where on it is counted.
    fn take(&mut self, told: Metrics) {
        let Some(since) = self.since.replace(told.until.max(self.since.unwrap_or(0))) else { return };
        for release in told.releases {
            let figures = self.releases.entry((release.agent, release.release)).or_default();
            for second in release.seconds.iter().filter(|second| second.second > since) {
                figures.counts.add(&second.counts);
                figures.latency.merge(&second.latency);
                figures.first_byte.merge(&second.first_byte);
                figures.last = figures.last.max(second.second);
            }
        }
        while self.releases.len() > MOST_RELEASES {
            let oldest = self.releases.iter().min_by_key(|(_, figures)| figures.last).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.releases.remove(&oldest);
        }
    }
}

impl Provider for Proxied {
    fn patience(&self) -> Duration {
        WHOLE
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        Box::pin(async move {
            let question = asked.question;
            let figures = match self.figures(&question.agent, &question.releases).await {
                Ok(figures) => figures,
                Err(why) => return asked.nothing(&why),
            };
            // The proxy counts by release: one is as young as its youngest instance.
            let started = match self.pods.of(question) {
                Ok(instances) => instances.map(|side| side.iter().filter_map(|one| one.started).max()),
                Err(_) => Arms::default(),
            };
            let one = |(name, metric): &(&str, &Metric)| {
                let Source::Preset(preset) = metric.source else {
                    let why = "the proxy knows presets alone: name another provider for this query";
                    return ((*name).to_owned(), nothing(metric, &because(why)));
                };
                let reading = |figures: &Figures, started| {
                    let totals = figures.totals(preset)?;
                    Ok(vec![Reading { instance: self.life.clone(), started, totals }])
                };
                let told = Arms {
                    candidate: reading(&figures.candidate, started.candidate),
                    stable: reading(&figures.stable, started.stable),
                };
                ((*name).to_owned(), Measurement::Counters(told))
            };
            asked.metrics.iter().map(one).collect()
        })
    }
}

// === impl Figures ===

impl Figures {
    fn totals(&self, preset: Preset) -> Result<Totals, NoData> {
        match preset {
            Preset::ErrorRate => {
                let Counts { c1xx, c2xx, c3xx, c4xx, c5xx, broken, .. } = self.counts;
                let n = [c1xx, c2xx, c3xx, c4xx, c5xx].into_iter().fold(0_u64, u64::saturating_add);
                // An answer of 5xx that also breaks off is one failure.
                let x = c5xx.saturating_add(broken).min(n);
                Ok(Totals::Binary { n: real(n), x: real(x) })
            }
            Preset::LatencyP50 | Preset::LatencyP95 | Preset::LatencyP99 => Ok(latency(&self.latency.counted())),
            Preset::TimeToFirstToken => Ok(latency(&self.first_byte.counted())),
            Preset::TokensPerRequest
            | Preset::ToolErrors
            | Preset::PromptInjections
            | Preset::UnexpectedToolUse
            | Preset::GoalCompletion
            | Preset::FallbackCalls => {
                let name = preset.as_str();
                Err(because(format!(
                    "the proxy cannot see `{name}`: leave its provider out, and the instances are asked"
                )))
            }
        }
    }
}

/// Buckets of each power of two of what is told: JUDGE's factor of 2^(1/8).
const PER_OCTAVE: u32 = 8;
/// From 0.25 ms on.
const LOWEST_MICROS: u32 = 256;
/// Up to 0.25 ms · 2^24, which is above an hour.
const OCTAVES: u32 = 24;

/// The fixed boundaries, in microseconds: every answer has the same.
fn boundaries() -> Vec<u64> {
    let octave = |octave: u32| (0..PER_OCTAVE).map(move |step| (octave, step));
    let bound = |(octave, step): (u32, u32)| {
        let low = u64::from(LOWEST_MICROS) << octave;
        low + low / u64::from(PER_OCTAVE) * u64::from(step)
    };
    (0..OCTAVES).flat_map(octave).map(bound).collect()
}

/// Durations in milliseconds. The boundaries are bounds of the proxy's own buckets, so that none is split.
fn latency(counted: &Counted) -> Totals {
    let micros = boundaries();
    let mut histogram = Histogram::default();
    histogram.merge(counted);
    let cumulative = histogram.at_or_below(&micros);
    let mut before = 0;
    let mut counts: Vec<f64> = cumulative
        .iter()
        .map(|count| {
            let own = count - before;
            before = *count;
            real(own)
        })
        .collect();
    counts.push(real(histogram.count().saturating_sub(before)));
    let boundaries: Arc<[f64]> = micros.into_iter().map(|micros| real(micros) / 1000.0).collect();
    Totals::Latency { boundaries, counts }
}

#[expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{ReleaseSeconds, Second};

    fn told(until: u64, seconds: &[(u64, u16)]) -> Metrics {
        let second = |(second, status): &(u64, u16)| {
            let mut counts = Counts { requests: 1, ..Counts::default() };
            counts.answer(*status);
            let mut latency = Histogram::default();
            latency.record(900_000);
            Second { second: *second, counts, latency: latency.counted(), first_byte: latency.counted() }
        };
        let seconds = seconds.iter().map(second).collect();
        let agent: AgentName = "a".parse().unwrap();
        Metrics { until, releases: vec![ReleaseSeconds { agent, release: ReleaseId::of(b"r"), seconds }] }
    }

    #[test]
    fn seconds_become_totals_and_none_counts_twice() {
        let mut kept = Kept::default();
        let key = ("a".parse().unwrap(), ReleaseId::of(b"r"));
        // What was before this process asked is the daemon's before.
        kept.take(told(10, &[(9, 500), (10, 200)]));
        assert!(kept.releases.is_empty());
        kept.take(told(12, &[(10, 500), (11, 200), (12, 500)]));
        assert_eq!(kept.releases[&key].totals(Preset::ErrorRate), Ok(Totals::Binary { n: 2.0, x: 1.0 }));
        // A proxy that starts anew may be behind.
        kept.take(told(11, &[]));
        kept.take(told(13, &[(12, 500), (13, 503)]));
        assert_eq!(kept.releases[&key].totals(Preset::ErrorRate), Ok(Totals::Binary { n: 3.0, x: 2.0 }));
        assert!(kept.releases[&key].totals(Preset::GoalCompletion).is_err());
        let Ok(Totals::Latency { boundaries, counts }) = kept.releases[&key].totals(Preset::LatencyP99) else {
            panic!()
        };
        let at = counts.iter().position(|count| *count > 0.0).unwrap();
        assert!(
            boundaries[at - 1] < 900.0 && boundaries[at] >= 900.0 && (counts[at] - 3.0).abs() < f64::EPSILON,
            "{at}"
        );
    }

    #[test]
    fn boundaries_are_few_rising_and_no_more_than_a_factor_apart() {
        let all = boundaries();
        assert!(
            all.len() <= 200 && all.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 8 <= pair[0] * 9),
            "{all:?}"
        );
        let Totals::Latency { boundaries, counts } = latency(&Counted::default()) else { panic!() };
        assert_eq!(boundaries.len() + 1, counts.len());
        assert!(counts.iter().all(|count| *count == 0.0));
    }
}
