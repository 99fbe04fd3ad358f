//! Prometheus, and whoever speaks its HTTP API: `POST /api/v1/query`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{BoxFuture, try_join3};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::Method;
use serde_json::Value;

use super::http::{Access, Question, Server, encoded};
use super::presets::{FALLBACKS, FIRST_TOKEN, GOALS, HTTP, INJECTIONS, OPERATIONS, REACHED, REQUESTS, TOKENS, TOOLS};
use super::settings::PrometheusSettings;
use super::told::{because, counted, latency, quote, valued};
use super::{Asked, One, Provider, filled};
use crate::desired::rollout::{Metric, Preset, Source};
use crate::judge::{NoData, Reading, Totals};
use crate::model::Timestamp;
use crate::rollout::Measurement;

/// Series of one answer.
const MAX_SERIES: usize = 50_000;
/// What tells one instance from another.
const BY: &str = "sum by (instance, pod)";
/// Routes that only probes and scrapes ask for.
const PROBES: &str = r#"http_route!~"/(metrics|healthz?|livez?|readyz?|health/.*)""#;

/// Asks one server.
pub(super) struct Prometheus {
    server: Server,
    url: String,
    selector: String,
    fresh: Duration,
}

/// The queries of one preset: requests, events, or a histogram.
enum Queries {
    Counts { n: String, x: String },
    Mean { n: String, sum: String },
    Buckets(String),
}

/// Values by instance.
type Vector = Vec<(BTreeMap<String, String>, f64)>;

// === impl Prometheus ===

impl Prometheus {
    pub(super) fn new(settings: PrometheusSettings, has_namespaces: bool) -> Self {
        let PrometheusSettings {
            url,
            ca_file,
            token_file,
            username,
            password_file,
            headers,
            header_files,
            selector,
            fresh,
            timeout,
        } = settings;
        let access = Access { ca_file, token_file, username, password_file, headers, header_files, timeout: timeout.0 };
        let usual = if has_namespaces {
            r#"namespace="$namespace",service_version="$release""#
        } else {
            r#"service_version="$release""#
        };
        let selector = selector.unwrap_or_else(|| usual.to_owned());
        Self { server: Server::new(access), url: format!("{}/api/v1/query", url.as_str()), selector, fresh: fresh.0 }
    }

    async fn query(&self, query: &str, at: Timestamp) -> Result<Value, NoData> {
        let form = format!(
            "query={}&time={}&timeout={}ms&lookback_delta={}ms",
            encoded(query),
            at.as_duration().as_secs_f64(),
            self.server.timeout().as_millis(),
            self.fresh.as_millis(),
        );
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        let asked = Question { method: Method::POST, url: self.url.clone(), headers, body: form.into_bytes() };
        let answer = self.server.ask(asked).await?;
        // An error says why in the same form.
        let read: Value = match serde_json::from_slice(&answer.body) {
            Ok(read) => read,
            Err(_) => answer.json()?,
        };
        if read["status"] != "success" {
            let why = read["error"].as_str().unwrap_or("without a reason");
            return Err(because(format!("it refuses the query ({}): {}", answer.status, quote(why))));
        }
        Ok(read["data"].clone())
    }

    async fn vector(&self, query: &str, at: Timestamp) -> Result<Vector, NoData> {
        let data = self.query(query, at).await?;
        if data["resultType"] != "vector" {
            return Err(because("its answer is not a vector"));
        }
        let series = data["result"].as_array().ok_or_else(|| because("its answer has no result"))?;
        if series.len() > MAX_SERIES {
            return Err(NoData::Absurd);
        }
        let one = |series: &Value| {
            let labels = series["metric"].as_object().ok_or_else(|| because("a series without labels"))?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let labels = labels.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            Ok((labels, sample(&series["value"], at, self.fresh)?))
        };
        series.iter().map(one).collect()
    }

    /// One number.
    async fn value(&self, query: &str, at: Timestamp) -> Result<f64, NoData> {
        let data = self.query(query, at).await?;
        let found = match data["resultType"].as_str() {
            Some("scalar") => sample(&data["result"], at, self.fresh)?,
            Some("vector") => match data["result"].as_array().map(Vec::as_slice) {
                Some([one]) => sample(&one["value"], at, self.fresh)?,
                Some([]) => return Err(because("the query finds no series")),
                Some(several) => {
                    return Err(because(format!("the query finds {} series, one is needed", several.len())));
                }
                None => return Err(because("its answer has no result")),
            },
            Some(_) | None => return Err(because("its answer is neither a scalar nor a vector")),
        };
        valued(found)
    }

    async fn readings(&self, queries: Queries, one: &One<'_>) -> Result<Vec<Reading>, NoData> {
        let at = one.at;
        let started = async { Ok(self.started(one).await) };
        let nothing = async { Ok::<Vector, NoData>(vec![]) };
        match queries {
            Queries::Counts { n, x } => {
                let (n, x, started) = try_join3(self.vector(&n, at), self.vector(&x, at), started).await?;
                let (n, x) = (by_instance(n)?, by_instance(x)?);
                let reading = |(instance, n): (String, f64)| {
                    let x = match x.get(&instance) {
                        Some(x) => *x,
                        None if n == 0.0 => 0.0,
                        None => return Err(because(format!("`{}` does not count the events", quote(&instance)))),
                    };
                    Ok(Reading { started: started.get(&instance).copied(), instance, totals: Totals::Binary { n, x } })
                };
                found(n.into_iter().map(reading).collect::<Result<_, _>>()?)
            }
            Queries::Mean { n, sum } => {
                let (n, sum, started) = try_join3(self.vector(&n, at), self.vector(&sum, at), started).await?;
                let (n, sums) = (by_instance(n)?, by_instance(sum)?);
                let reading = |(instance, n): (String, f64)| {
                    let sum =
                        *sums.get(&instance).ok_or_else(|| because(format!("`{}` has no sum", quote(&instance))))?;
                    let totals = Totals::Mean { n, sum, squares: None };
                    Ok(Reading { started: started.get(&instance).copied(), instance, totals })
                };
                found(n.into_iter().map(reading).collect::<Result<_, _>>()?)
            }
            Queries::Buckets(query) => {
                let (vector, _, started) = try_join3(self.vector(&query, at), nothing, started).await?;
                let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
                for (labels, count) in vector {
                    let bound = labels.get("le").and_then(|bound| super::exposition::number(bound).ok());
                    let bound = bound.filter(|bound| !bound.is_nan()).ok_or(NoData::Boundaries)?;
                    buckets.entry(instance(&labels)).or_default().push((bound, count));
                }
                let reading = |(instance, buckets)| {
                    Ok(Reading { started: started.get(&instance).copied(), totals: latency(buckets)?, instance })
                };
                found(buckets.into_iter().map(reading).collect::<Result<_, _>>()?)
            }
        }
    }

    /// When the instances started, where that is exported.
    async fn started(&self, one: &One<'_>) -> BTreeMap<String, Timestamp> {
        let query =
            format!("max by (instance, pod) (process_start_time_seconds{{{}}})", one.filled(&self.selector, escape));
        let told = self.vector(&query, one.at).await.and_then(by_instance).unwrap_or_default();
        let time = |seconds: f64| Timestamp::from_duration(jiff::SignedDuration::try_from_secs_f64(seconds).ok()?).ok();
        told.into_iter().filter_map(|(instance, seconds)| Some((instance, time(seconds)?))).collect()
    }

    /// The queries of a preset, for one release.
    fn preset(&self, preset: Preset, one: &One<'_>) -> Queries {
        let of = one.filled(&self.selector, escape);
        let count = |name: &str, more: &str| format!("{BY} ({name}_count{{{of}{more}}})");
        let total = |name: &str, more: &str| format!("{BY} ({name}{{{of}{more}}})");
        let http = |more: &str| count(HTTP, &format!(",{PROBES}{more}"));
        // What was not counted yet is zero where it would be counted.
        let or_zero = |events: String, among: String| format!("{events} or 0 * {among}");
        match preset {
            Preset::ErrorRate => Queries::Counts {
                n: http(""),
                x: or_zero(
                    format!(
                        "{BY} ({HTTP}_count{{{of},{PROBES},http_response_status_code=~\"5..\"}} or \
                         {HTTP}_count{{{of},{PROBES},http_response_status_code=\"\",error_type!=\"\"}})"
                    ),
                    http(",http_response_status_code!=\"\""),
                ),
            },
            Preset::LatencyP50 | Preset::LatencyP95 | Preset::LatencyP99 => {
                Queries::Buckets(format!("sum by (instance, pod, le) ({HTTP}_bucket{{{of},{PROBES}}})"))
            }
            Preset::TimeToFirstToken => {
                let [first, second] =
                    FIRST_TOKEN.map(|name| format!("sum by (instance, pod, le) ({name}_bucket{{{of}}})"));
                Queries::Buckets(format!("{first} or {second}"))
            }
            Preset::TokensPerRequest => Queries::Mean {
                n: format!("{} or {}", total(REQUESTS, ""), count(TOKENS, ",gen_ai_token_type=\"input\"")),
                sum: format!("{BY} ({TOKENS}_sum{{{of}}})"),
            },
            Preset::ToolErrors => {
                Queries::Counts { n: count(TOOLS, ""), x: or_zero(count(TOOLS, ",error_type!=\"\""), count(TOOLS, "")) }
            }
            Preset::UnexpectedToolUse => {
                let named = ",gen_ai_tool_name!=\"\"";
                let other = if one.tools.is_empty() {
                    named.to_owned()
                } else {
                    let declared: Vec<String> = one.tools.iter().map(|tool| regex::escape(tool)).collect();
                    format!("{named},gen_ai_tool_name!~\"{}\"", escape(&declared.join("|")))
                };
                Queries::Counts { n: count(TOOLS, named), x: or_zero(count(TOOLS, &other), count(TOOLS, named)) }
            }
            Preset::PromptInjections => {
                Queries::Counts { n: format!("{} or {}", total(REQUESTS, ""), http("")), x: total(INJECTIONS, "") }
            }
            Preset::FallbackCalls => Queries::Counts { n: count(OPERATIONS, ""), x: total(FALLBACKS, "") },
            Preset::GoalCompletion => Queries::Counts {
                n: total(GOALS, ""),
                x: or_zero(total(GOALS, &format!(",outcome=\"{REACHED}\"")), total(GOALS, "")),
            },
        }
    }
}

impl Provider for Prometheus {
    fn patience(&self) -> Duration {
        self.server.timeout() + Duration::from_secs(1)
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        let one = move |metric: &'a Metric| async move {
            match &metric.source {
                Source::Value(query) => {
                    let value = |one: One<'a>| async move { self.value(&one.filled(query, escape), one.at).await };
                    asked.values(value).await
                }
                Source::Rate { events, of } => {
                    let counters = |one: One<'a>| async move {
                        let (x, n) = (one.filled(events, escape), one.filled(of, escape));
                        self.readings(Queries::Counts { n, x }, &one).await
                    };
                    asked.counters(counters).await
                }
                Source::Preset(preset) => {
                    let counters = |one: One<'a>| async move { self.readings(self.preset(*preset, &one), &one).await };
                    asked.counters(counters).await
                }
            }
        };
        Box::pin(async move { asked.each(one).await })
    }
}

fn found(readings: Vec<Reading>) -> Result<Vec<Reading>, NoData> {
    if readings.is_empty() { Err(because("the query finds no series")) } else { Ok(readings) }
}

/// `[time, "value"]`.
fn sample(value: &Value, at: Timestamp, fresh: Duration) -> Result<f64, NoData> {
    let pair = value.as_array().map(Vec::as_slice);
    let Some([time, Value::String(text)]) = pair else { return Err(because("a sample is no pair of time and value")) };
    let time = time.as_f64().ok_or_else(|| because("a sample without a time"))?;
    if (at.as_duration().as_secs_f64() - time).abs() > fresh.as_secs_f64() {
        return Err(NoData::Stale);
    }
    super::exposition::number(text).map_err(because)
}

/// The pod and the address, or what of them there is.
fn instance(labels: &BTreeMap<String, String>) -> String {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
    match (label("pod"), label("instance")) {
        (Some(pod), Some(instance)) => format!("{pod}/{instance}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "all".to_owned(),
    }
}

fn by_instance(vector: Vector) -> Result<BTreeMap<String, f64>, NoData> {
    let mut all = BTreeMap::new();
    for (labels, value) in vector {
        let name = instance(&labels);
        if all.insert(name.clone(), counted(value)?).is_some() {
            return Err(because(format!("the query finds several series of `{}`: add them up", quote(&name))));
        }
    }
    Ok(all)
}

/// For a string of `PromQL` in double quotes.
fn escape(text: &str) -> String {
    filled::escaped(text, &['\\', '"'])
}
