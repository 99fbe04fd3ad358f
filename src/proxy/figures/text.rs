//! The figures as Prometheus reads them (text format 0.0.4).

use std::fmt::Write;

use super::{Histogram, Registry};

/// Buckets of each power of two in the text: fewer than are counted, since each is a line.
const PER_OCTAVE: u32 = 8;

/// Upper bounds in microseconds: from half a millisecond to seventeen minutes, 9 % apart.
fn bounds() -> Vec<u64> {
    let octaves = (0..21_u32).map(|octave| 512_u64 << octave);
    octaves
        .flat_map(|low| (0..PER_OCTAVE).map(move |step| low + low / u64::from(PER_OCTAVE) * u64::from(step)))
        .collect()
}

impl Registry {
    /// All figures since the start of this process.
    pub(crate) fn text(&self) -> String {
        let bounds = bounds();
        let mut families = Families::default();
        for (agent, release, figures) in self.all() {
            let label = format!("agent=\"{agent}\",release=\"{release}\"");
            let figures = figures.read();
            let counts = *figures.total();
            families.requests += &format!("backstay_proxy_requests_total{{{label}}} {}\n", counts.requests);
            let classes = [counts.c1xx, counts.c2xx, counts.c3xx, counts.c4xx, counts.c5xx];
            for (class, count) in (1..).zip(classes) {
                families.responses +=
                    &format!("backstay_proxy_responses_total{{{label},class=\"{class}xx\"}} {count}\n");
            }
            let kinds = [
                ("failed", counts.failed),
                ("broken", counts.broken),
                ("cancelled", counts.cancelled),
                ("retried", counts.retried),
                ("mirrored", counts.mirrored),
            ];
            for (kind, count) in kinds {
                families.events += &format!("backstay_proxy_events_total{{{label},kind=\"{kind}\"}} {count}\n");
            }
            histogram(
                &mut families.latency,
                "backstay_proxy_request_duration_seconds",
                &label,
                figures.all_latency(),
                &bounds,
            );
            histogram(
                &mut families.first_byte,
                "backstay_proxy_first_byte_seconds",
                &label,
                figures.all_first_byte(),
                &bounds,
            );
        }
        families.text()
    }
}

/// Lines of each family, which must stand together.
#[derive(Default)]
struct Families {
    requests: String,
    responses: String,
    events: String,
    latency: String,
    first_byte: String,
}

impl Families {
    fn text(&self) -> String {
        let families = [
            ("backstay_proxy_requests_total", "counter", "Requests given to a release.", &self.requests),
            ("backstay_proxy_responses_total", "counter", "Answers by class of status.", &self.responses),
            ("backstay_proxy_events_total", "counter", "What befell requests beside their status.", &self.events),
            ("backstay_proxy_request_duration_seconds", "histogram", "Time to the end of the answer.", &self.latency),
            ("backstay_proxy_first_byte_seconds", "histogram", "Time to the head of the answer.", &self.first_byte),
        ];
        families
            .iter()
            .filter(|family| !family.3.is_empty())
            .map(|(name, kind, help, lines)| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}"))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people and Prometheus")]
fn histogram(out: &mut String, name: &str, label: &str, histogram: &Histogram, bounds: &[u64]) {
    for (bound, count) in bounds.iter().zip(histogram.at_or_below(bounds)) {
        let bound = *bound as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {count}");
    }
    let (count, sum) = (histogram.count(), histogram.sum() as f64 / 1e6);
    let _ = writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {count}");
}
