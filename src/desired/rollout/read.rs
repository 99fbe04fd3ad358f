//! `rollout` in an agent's file, read and checked: what the schema cannot say.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    AbTest, BlueGreen, Canary, Field, Match, Measure, Metric, OnNewCommit, Otherwise, Rollback, RolloutSpec, Segment,
    Source, Step, Strategy, Until, Winner,
};
use crate::desired::TargetKind;
use crate::desired::read::{FieldName, Node, Period};
use crate::desired::written;
use crate::model::Diagnostic;

/// Metrics of one analysis.
const MOST_METRICS: usize = 32;
/// Metrics that one experiment compares: what is known of each of them is kept twice.
const MOST_COMPARED: usize = 16;
/// The longest that a step, a pause or an experiment may take.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 90);

/// What else is known of the agent.
#[derive(Debug, Clone, Copy)]
pub(in crate::desired) struct Facts {
    /// What its environment is bound to; nothing: nobody knows.
    pub(in crate::desired) target: Option<TargetKind>,
}

/// Reads what is declared; nothing where it is but rolling, and nothing is watched.
pub(in crate::desired) fn read(
    spec: &written::AgentSpec,
    at: &Node,
    facts: Facts,
    found: &mut Vec<Diagnostic>,
) -> Option<RolloutSpec> {
    let declared = spec.rollout.as_ref()?;
    let empty = Node::empty(at.spot.clone());
    let mut reader = Reader { spec, whole: at, at: at.get("rollout").unwrap_or(&empty), facts, found };
    let read = reader.rollout(declared);
    let says_nothing = read == RolloutSpec::default();
    (!says_nothing).then_some(read)
}

struct Reader<'r> {
    spec: &'r written::AgentSpec,
    /// The agent's `spec`.
    whole: &'r Node,
    /// Its `rollout`.
    at: &'r Node,
    facts: Facts,
    found: &'r mut Vec<Diagnostic>,
}

// === impl Reader ===

impl Reader<'_> {
    fn error(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        let error = self.at.nearest(path.iter().copied()).error(message);
        self.found.push(error.hint(hint));
    }

    fn rollout(&mut self, declared: &written::Rollout) -> RolloutSpec {
        let analysis = self.analysis(declared);
        let moves_traffic = !matches!(declared.strategy, None | Some(written::Strategy::Rolling));
        let default_analysis = analysis.is_none() && moves_traffic;
        let analysis = match analysis {
            Some(analysis) => analysis,
            None if moves_traffic => RolloutSpec::default_metrics(),
            None => BTreeMap::new(),
        };
        let rollback = self.rollback(declared);
        let strategy = self.strategy(declared, &analysis, default_analysis, rollback);
        let sticky = declared.sticky.as_ref().map(|key| match key {
            written::UserKey::Header { header } => Field::Header(lower(header)),
            written::UserKey::Cookie { cookie } => Field::Cookie(cookie.0.clone()),
        });
        if sticky.is_some() && self.facts.target == Some(TargetKind::Kubernetes) {
            let message = "`sticky` cannot be kept on Kubernetes: an HTTPRoute splits request by request";
            self.error(
                &["sticky"],
                message,
                "take it away here by an overlay: `rollout: {sticky: null}`; a host keeps it",
            );
        }
        RolloutSpec {
            strategy,
            on_new_commit: declared.on_new_commit.unwrap_or(OnNewCommit::Supersede),
            warm_up: declared.warm_up.as_ref().map_or(SignedDuration::ZERO, |period| self.span(period, &["warmUp"])),
            sticky,
            analysis,
            on_no_data: declared.on_no_data.unwrap_or(Otherwise::Hold),
            on_undecided: declared.on_undecided.unwrap_or(Otherwise::Hold),
            rollback,
            default_analysis,
        }
    }

    fn strategy(
        &mut self,
        declared: &written::Rollout,
        analysis: &BTreeMap<String, Metric>,
        default_analysis: bool,
        rollback: Rollback,
    ) -> Strategy {
        let word = match &declared.strategy {
            None | Some(written::Strategy::Rolling) => return Strategy::Rolling,
            Some(written::Strategy::Canary(_)) => "canary",
            Some(written::Strategy::BlueGreen(_)) => "blueGreen",
            Some(written::Strategy::AbTest(_)) => "abTest",
        };
        if self.spec.workload.port.is_none() {
            let message = format!("`{word}` moves traffic, and the agent has no port");
            self.error(&["strategy", word], message, "add `workload.port`, or write `strategy: rolling`");
        }
        match &declared.strategy {
            None | Some(written::Strategy::Rolling) => Strategy::Rolling,
            Some(written::Strategy::Canary(canary)) => {
                Strategy::Canary(self.canary(canary, analysis, default_analysis))
            }
            Some(written::Strategy::BlueGreen(declared)) => Strategy::BlueGreen(self.blue_green(declared, rollback)),
            Some(written::Strategy::AbTest(declared)) => {
                let compared = analysis.values().filter(|metric| metric.compare).count();
                if compared == 0 {
                    let message = "an experiment compares, and no metric says `compare: stable`";
                    self.error(&["analysis"], message, "add `compare: stable` to what decides it");
                } else if compared > MOST_COMPARED {
                    let message =
                        format!("an experiment compares at most {MOST_COMPARED} metrics, this one {compared}");
                    self.error(&["analysis"], message, "leave `compare: stable` to what decides it");
                }
                Strategy::AbTest(self.ab_test(declared))
            }
        }
    }

    // === canary ===

    fn canary(
        &mut self,
        declared: &written::Canary,
        analysis: &BTreeMap<String, Metric>,
        default_analysis: bool,
    ) -> Canary {
        let steps = match &declared.steps {
            None => RolloutSpec::default_steps(default_analysis),
            Some(steps) => {
                let read: Vec<_> =
                    steps.iter().enumerate().filter_map(|(n, step)| self.step(step, n, analysis)).collect();
                self.weights_rise(steps);
                read
            }
        };
        let mirror = declared.mirror.as_ref().map(|mirror| {
            self.needs_gateway(&["strategy", "canary", "mirror"], "mirror");
            self.some_time(&mirror.r#for, &["strategy", "canary", "mirror", "for"])
        });
        let reach = declared.reach.as_ref().map(|reach| {
            self.needs_gateway(&["strategy", "canary", "reach"], "reach");
            match reach {
                written::Reach::Header { header, value } => matching(Field::Header(lower(header)), value),
                written::Reach::Cookie { cookie, value } => matching(Field::Cookie(cookie.0.clone()), value),
            }
        });
        Canary { steps, mirror, reach }
    }

    fn step(&mut self, step: &written::Step, n: usize, analysis: &BTreeMap<String, Metric>) -> Option<Step> {
        let number = n.to_string();
        let path = ["strategy", "canary", "steps", &number];
        let kinds = [
            ("weight", step.weight.is_some()),
            ("pause", step.pause.is_some()),
            ("gate", step.gate.is_some()),
            ("replicas", step.replicas.is_some()),
        ];
        let said: Vec<_> = kinds.iter().filter(|(_, said)| *said).map(|(kind, _)| *kind).collect();
        let [kind] = said[..] else {
            let message = if said.is_empty() {
                format!("step {} says nothing of `weight`, `pause`, `gate` and `replicas`", n + 1)
            } else {
                format!("step {} says `{}` at once", n + 1, said.join("` and `"))
            };
            self.error(
                &path,
                message,
                "one step does one thing: `{weight: 5, for: 5m}`, `{pause: {}}`, `{gate: NAME}`, `{replicas: 2}`",
            );
            return None;
        };
        if kind != "weight" {
            let in_vain = [
                ("for", step.r#for.is_some()),
                ("samples", step.samples.is_some()),
                ("atMost", step.at_most.is_some()),
                ("limits", step.limits.is_some()),
            ];
            for (word, _) in in_vain.iter().filter(|(_, said)| *said) {
                let hint = match (kind, *word) {
                    ("pause", "for") => "write `{pause: {for: 10m}}`",
                    _ => "it belongs to a step with `weight`",
                };
                let path = [&path[..], &[word]].concat();
                self.error(&path, format!("`{word}` means nothing beside `{kind}`"), hint);
            }
        }
        if let Some(pause) = &step.pause {
            let path = [&path[..], &["pause", "for"]].concat();
            return Some(Step::Pause { lasts: pause.r#for.as_ref().map(|period| self.some_time(period, &path)) });
        }
        if let Some(gate) = &step.gate {
            return Some(Step::Gate { name: gate.0.clone() });
        }
        if let Some(count) = step.replicas {
            return Some(Step::Replicas { count });
        }
        let until = self.until(step, &path)?;
        let mut limits = BTreeMap::new();
        for (name, limit) in step.limits.iter().flat_map(|limits| &limits.0) {
            let path = [&path[..], &["limits", &name.0]].concat();
            let Some(metric) = analysis.get(&name.0) else {
                let known: Vec<_> = analysis.keys().map(String::as_str).collect();
                let hint = match crate::desired::read::closest(&name.0, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", crate::desired::read::list_of(known, "and")),
                };
                self.error(&path, format!("`analysis` has no metric `{}`", name.0), hint);
                continue;
            };
            let measure = metric.source.measure();
            let bounds = (limit.max.as_ref(), limit.min.as_ref());
            if let Some((_, value)) = self.bound(bounds, measure, Some(metric.higher_is_better), &path, &name.0) {
                limits.insert(name.0.clone(), value);
            }
        }
        Some(Step::Weight { weight: step.weight?, until, limits })
    }

    fn until(&mut self, step: &written::Step, path: &[&str]) -> Option<Until> {
        let at = |key: &'static str| [path, &[key]].concat();
        match (&step.r#for, step.samples, &step.at_most) {
            (Some(period), None, None) => Some(Until::Time(self.some_time(period, &at("for")))),
            (None, Some(samples), Some(at_most)) => {
                Some(Until::Samples { samples, at_most: self.some_time(at_most, &at("atMost")) })
            }
            (Some(_), Some(_), _) => {
                self.error(
                    &at("samples"),
                    "a step lasts `for` a time, or until so many `samples`",
                    "take one of them away",
                );
                None
            }
            (Some(_), None, Some(_)) => {
                self.error(
                    &at("atMost"),
                    "`atMost` bounds `samples`, and there are none",
                    "take it away, or write `samples` instead of `for`",
                );
                None
            }
            (None, Some(_), None) => {
                self.error(
                    &at("samples"),
                    "`samples` may never come",
                    "add `atMost: 1h`: then it holds, and somebody is told",
                );
                None
            }
            (None, None, _) => {
                self.error(
                    &at("weight"),
                    "nothing says how long this step lasts",
                    "add `for: 5m`, or `samples: 500, atMost: 1h`",
                );
                None
            }
        }
    }

    fn weights_rise(&mut self, steps: &[written::Step]) {
        let mut before = 0;
        for (n, weight) in steps.iter().enumerate().filter_map(|(n, step)| Some((n, step.weight?))) {
            if weight < before {
                let message = format!("the weight falls from {before} to {weight}");
                let hint = "weights rise from step to step; the way back is `backstay abort`";
                self.error(&["strategy", "canary", "steps", &n.to_string(), "weight"], message, hint);
            }
            before = weight;
        }
        if before == 0 {
            let hint = "add one such as `{weight: 5, for: 5m}`, or leave `steps` out for the usual ones";
            self.error(&["strategy", "canary", "steps"], "no step gives the candidate any traffic", hint);
        }
    }

    // === blueGreen and abTest ===

    fn blue_green(&mut self, declared: &written::BlueGreen, rollback: Rollback) -> BlueGreen {
        if declared.preview.is_some() {
            self.needs_gateway(&["strategy", "blueGreen", "preview"], "preview");
        }
        let ready = self.spec.workload.health.as_ref().and_then(|health| match health.ready.as_ref()? {
            written::Probe::Path(path) => Some(path.clone()),
            written::Probe::Whole(probe) => Some(probe.get("httpGet")?.get("path")?.as_str()?.to_owned()),
        });
        let smoke = declared.smoke.clone().or(ready).unwrap_or_else(|| "/".to_owned());
        if !smoke.starts_with('/') || smoke.contains(['#', ' ']) || smoke.chars().any(char::is_control) {
            let message = format!("`{}` is no path", smoke.escape_debug());
            self.error(&["strategy", "blueGreen", "smoke"], message, "it begins with `/`, and has no `#` or space");
        }
        let path = ["strategy", "blueGreen", "keepOld"];
        let keep_old = declared.keep_old.as_ref().map_or(rollback.bake, |period| self.span(period, &path));
        if keep_old < rollback.bake {
            let message = "the first set goes before the release was watched to its end";
            self.error(&path, message, "keep it as long as `rollback.bake`, 10 minutes where nothing is said");
        }
        BlueGreen { preview: declared.preview.as_ref().map(|preview| preview.host.0.clone()), smoke, keep_old }
    }

    fn ab_test(&mut self, declared: &written::AbTest) -> AbTest {
        let path = |key| ["strategy", "abTest", key];
        let (field, value) = match &declared.by {
            written::Segment::Header { header, value } => (Field::Header(lower(header)), value),
            written::Segment::Cookie { cookie, value } => (Field::Cookie(cookie.0.clone()), value),
        };
        let by = match value {
            Some(value) => {
                self.needs_gateway(&path("by"), "abTest");
                if declared.share.is_some() {
                    let message = "`share` means nothing where a value decides";
                    self.error(
                        &path("share"),
                        message,
                        "take it away, or take `value` away: then the hash of a user decides",
                    );
                }
                Segment::Value(matching(field, value))
            }
            None => {
                if self.facts.target == Some(TargetKind::Kubernetes) {
                    let message = "users cannot be split by hash on Kubernetes: an HTTPRoute matches values alone";
                    self.error(&path("by"), message, "add a `value` that marks the segment; a host splits by hash");
                }
                Segment::Hash { field, share: declared.share.unwrap_or(50) }
            }
        };
        let at_most = self.some_time(&declared.r#for, &path("for"));
        let at_least = match &declared.min {
            Some(period) => self.span(period, &path("min")),
            None => SignedDuration::from_hours(24).min(at_most),
        };
        if at_least > at_most {
            self.error(&path("min"), "`min` is longer than `for`", "the experiment would end before it may");
        }
        AbTest { by, at_least, at_most, winner: declared.winner.unwrap_or(Winner::Ask) }
    }

    /// What only a Gateway can do on Kubernetes.
    fn needs_gateway(&mut self, path: &[&str], what: &str) {
        if self.facts.target == Some(TargetKind::Kubernetes) && self.whole.at(["route", "gateway"]).is_none() {
            let message = format!("`{what}` needs a Gateway, and the agent's route names none");
            self.error(
                path,
                message,
                "add `route: {hosts: […], gateway: {name: …}}`; without one traffic follows the number of pods",
            );
        }
    }

    // === analysis ===

    fn analysis(&mut self, declared: &written::Rollout) -> Option<BTreeMap<String, Metric>> {
        let metrics = declared.metrics()?;
        if metrics.is_empty() || metrics.len() > MOST_METRICS {
            let message = format!("an analysis has 1 to {MOST_METRICS} metrics, this one has {}", metrics.len());
            self.error(
                &["analysis"],
                message,
                "leave `analysis` out for the usual ones: errors and the 99th percentile of the latency",
            );
        }
        let read = metrics
            .iter()
            .filter_map(|(name, metric)| Some(((*name).to_owned(), self.metric(name, metric, declared)?)));
        Some(read.collect())
    }

    fn metric(&mut self, name: &str, metric: &written::Metric, whole: &written::Rollout) -> Option<Metric> {
        let path = ["analysis", name];
        let at = |key: &'static str| ["analysis", name, key];
        let source = match (metric.preset, &metric.query) {
            (Some(preset), None) => Source::Preset(preset),
            (None, Some(written::Query::Value(query))) => Source::Value(query.clone()),
            (None, Some(written::Query::Rate { events, of })) => {
                Source::Rate { events: events.clone(), of: of.clone() }
            }
            (Some(_), Some(_)) => {
                self.error(&at("query"), "a metric is a `preset` or a `query`", "take one of them away");
                return None;
            }
            (None, None) => {
                self.error(
                    &path,
                    format!("`{name}` does not say what is measured"),
                    "add `preset: error_rate`, or a `query` with its `provider`",
                );
                return None;
            }
        };
        if metric.query.is_some() && metric.provider.is_none() {
            self.error(
                &at("query"),
                "nothing says who is asked",
                "add `provider: NAME`, as the daemon's configuration names it",
            );
        }
        let queries: &[&str] = match &source {
            Source::Preset(_) => &[],
            Source::Value(query) => &[query],
            Source::Rate { events, of } => &[events, of],
        };
        let compare = metric.compare.is_some();
        if compare && queries.iter().any(|query| !query.contains("$release")) {
            let message = "both releases would be asked the same question";
            self.error(&at("query"), message, "write `$release` where the id of the release belongs");
        }
        let measure = source.measure();
        let higher = match &source {
            Source::Preset(preset) => Some(preset.higher_is_better()),
            Source::Value(_) | Source::Rate { .. } => None,
        };
        let bounds = (metric.max.as_ref(), metric.min.as_ref());
        let limit = self.bound(bounds, measure, higher, &path, name);
        let declares = metric.max.is_some() || metric.min.is_some();
        if !declares && !compare {
            let message = format!("`{name}` has neither a limit nor a comparison");
            self.error(&path, message, "add `max: …`, `min: …` or `compare: stable`");
        }
        if !declares && compare && higher.is_none() {
            let message = "nothing says which way is better";
            self.error(&path, message, "add `max: …` where less is better, or `min: …`");
        }
        let margin = metric.margin.and_then(|margin| self.margin(margin, measure, compare, &at("margin")));
        let required = match metric.on_no_data {
            None | Some(Otherwise::Hold) => true,
            Some(Otherwise::Advance) => false,
            Some(Otherwise::Abort) => {
                if whole.on_no_data != Some(Otherwise::Abort) {
                    let message = "one metric alone cannot abort for want of data";
                    self.error(
                        &at("onNoData"),
                        message,
                        "write `onNoData: abort` for the rollout, and `advance` for the metrics that may be missing",
                    );
                }
                true
            }
        };
        let interval = metric.interval.as_ref().map(|period| self.some_time(period, &at("interval")));
        if interval.is_some_and(|interval| interval < SignedDuration::from_secs(1)) {
            self.error(&at("interval"), "an interval is a second at least", "write `interval: 15s`");
        }
        Some(Metric {
            provider: metric.provider.as_ref().map(|provider| provider.0.clone()),
            higher_is_better: limit.map_or(higher.unwrap_or(false), |(higher, _)| higher),
            limit: limit.map(|(_, value)| value),
            compare,
            margin,
            required,
            interval,
            source,
        })
    }

    /// The limit, and whether more is better.
    fn bound(
        &mut self,
        (max, min): (Option<&written::Bound>, Option<&written::Bound>),
        measure: Measure,
        higher: Option<bool>,
        path: &[&str],
        name: &str,
    ) -> Option<(bool, f64)> {
        let (is_min, bound) = match (max, min) {
            (Some(max), None) => (false, max),
            (None, Some(min)) => (true, min),
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let path = [path, &["min"]].concat();
                self.error(
                    &path,
                    format!("`{name}` has a `max` and a `min`"),
                    "take one of them away: it says which way is better",
                );
                return None;
            }
        };
        let key = if is_min { "min" } else { "max" };
        let path = [path, &[key]].concat();
        if higher.is_some_and(|higher| higher != is_min) {
            let (way, meant) = if is_min { ("lower", "max") } else { ("higher", "min") };
            self.error(&path, format!("`{name}` is better when it is {way}"), format!("write `{meant}`"));
            return None;
        }
        let (value, what) = match (bound, measure) {
            (written::Bound::Period(period), Measure::Duration { .. }) => {
                (self.span(period, &path).as_secs_f64() * 1000.0, "a duration")
            }
            (written::Bound::Period(_), Measure::Rate { .. } | Measure::Mean) => {
                self.error(&path, format!("`{name}` is no duration"), "write a number");
                return None;
            }
            (written::Bound::Number(number), Measure::Rate { .. }) => (*number, "a rate"),
            (written::Bound::Number(number), Measure::Duration { .. }) => (*number, "a duration"),
            (written::Bound::Number(number), Measure::Mean) => (*number, "a value"),
        };
        let fits = match measure {
            Measure::Rate { .. } if is_min => value > 0.0 && value <= 1.0,
            Measure::Rate { .. } => (0.0..1.0).contains(&value),
            Measure::Duration { .. } => value > 0.0 && value.is_finite(),
            Measure::Mean => value.is_finite(),
        };
        if !fits {
            let hint = match measure {
                Measure::Rate { .. } => "a rate is between 0 and 1: one percent is `0.01`",
                Measure::Duration { .. } => "write it with its unit: `800ms`",
                Measure::Mean => "write a plain number",
            };
            self.error(&path, format!("{what} of {value} cannot be the limit of `{name}`"), hint);
            return None;
        }
        Some((is_min, value))
    }

    fn margin(&mut self, margin: f64, measure: Measure, compare: bool, path: &[&str]) -> Option<f64> {
        if !compare {
            self.error(path, "`margin` means nothing without a comparison", "add `compare: stable`");
            return None;
        }
        let (fits, what, hint) = match measure {
            Measure::Rate { .. } => (
                margin > 0.0 && margin < 1.0,
                "the margin of a rate is a difference between 0 and 1",
                "one point is `margin: 0.01`",
            ),
            Measure::Duration { .. } | Measure::Mean => (
                margin > 1.0 && margin <= 100.0,
                "the margin of a duration or a value is a factor above 1",
                "a fifth more is `margin: 1.2`",
            ),
        };
        if !fits {
            self.error(path, what, hint);
            return None;
        }
        Some(margin)
    }

    // === rest ===

    fn rollback(&mut self, declared: &written::Rollout) -> Rollback {
        let default = Rollback::default();
        let Some(rollback) = &declared.rollback else { return default };
        let mut span = |period: Option<&Period>, key, default| {
            period.map_or(default, |period| self.span(period, &["rollback", key]))
        };
        Rollback {
            bake: span(rollback.bake.as_ref(), "bake", default.bake),
            cooldown: span(rollback.cooldown.as_ref(), "cooldown", default.cooldown),
            max_per_hour: rollback.max_per_hour.unwrap_or(default.max_per_hour),
        }
    }

    /// A time that may be none at all.
    fn span(&mut self, period: &Period, path: &[&str]) -> SignedDuration {
        let span = SignedDuration::try_from(period.duration()).unwrap_or(SignedDuration::MAX);
        if span > LONGEST {
            self.error(
                path,
                format!("`{}` is longer than 90 days", period.0),
                "a rollout that nobody remembers helps nobody",
            );
            return LONGEST;
        }
        span
    }

    /// A time that is some.
    fn some_time(&mut self, period: &Period, path: &[&str]) -> SignedDuration {
        let span = self.span(period, path);
        if span.is_zero() {
            self.error(path, format!("`{}` is no time at all", period.0), "write for example `5m`");
        }
        span
    }
}

fn matching(field: Field, value: &str) -> Match {
    Match { field, value: value.to_owned() }
}

/// Headers are the same in any case.
fn lower(name: &FieldName) -> String {
    name.0.to_ascii_lowercase()
}
