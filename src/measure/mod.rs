//! Measurements: a question of the rollout's is answered by whoever measures.
//!
//! [`Providers::measure`] asks all of them side by side, each for no longer than its own patience, and answers always:
//! what is missing, not a number, stale, slow, absurd or hostile is [`NoData`] with the reason.
//!
//! # Who is asked
//!
//! A metric names a section of `[metrics]` in `backstay.toml`, so that no address comes from the repository; or `proxy` or
//! `scrape`, which are there without one. Where it names none, a host asks its **proxy** for `error_rate`, `latency_*` and
//! `time_to_first_token`, and **scrapes** its instances for everything else; Kubernetes scrapes.
//!
//! # What the presets are made of
//!
//! `n` are requests or calls, `x` the events among them; series in the spelling of Prometheus.
//!
//! | preset | of | from |
//! | --- | --- | --- |
//! | `error_rate` | n | `http_server_request_duration_seconds_count` |
//! | | x | those with `http_response_status_code` 5xx, or without one and with `error_type` |
//! | `latency_p50`, `_p95`, `_p99` | | `http_server_request_duration_seconds_bucket` |
//! | `time_to_first_token` | | `gen_ai_server_time_to_first_token_seconds_bucket`, else `gen_ai_client_operation_time_to_first_chunk_seconds_bucket` |
//! | `tokens_per_request` | sum | `gen_ai_client_token_usage_sum`, input and output together |
//! | | n | `backstay_agent_requests_total`, else `gen_ai_client_token_usage_count` with `gen_ai_token_type="input"` |
//! | `tool_errors` | n | `gen_ai_execute_tool_duration_seconds_count` |
//! | | x | those with `error_type` |
//! | `unexpected_tool_use` | n | `gen_ai_execute_tool_duration_seconds_count` with `gen_ai_tool_name` |
//! | | x | those of a tool that the release does not declare |
//! | `prompt_injections` | n | `backstay_agent_requests_total`, else `http_server_request_duration_seconds_count` |
//! | | x | `backstay_agent_injections_total`: at most one per request |
//! | `goal_completion` | n | `backstay_agent_goals_total` |
//! | | x | those with `outcome="completed"`, which are the good ones |
//! | `fallback_calls` | n | `gen_ai_client_operation_duration_seconds_count` |
//! | | x | `backstay_agent_fallback_calls_total` |
//!
//! Requests whose `http_route` is a probe's path or that of the figures themselves do not count; of Prometheus, which does
//! not know the probes, `/metrics`, `/health…`, `/live…` and `/ready…`. An event's series that is not exported while
//! requests are counted is no data: an agent that stopped to count injections has not stopped to have them.
//!
//! The proxy counts an **answered** request: n are those with a status, x those with 5xx, by the release or by the proxy in
//! its place where the release gave none, and those whose answer broke off in its middle. A client that left early is not
//! counted. Its latency is the time to the end of the answer, and the time to the first token that to its head.
//!
//! # Queries of one's own
//!
//! `$release` is filled in with the release's id (`r-` and 12 digits), `$agent` and `$namespace` with those names, escaped
//! for the language in question. Prometheus takes a query that gives one value, or two that give counters (not `rate(…)`) as
//! totals, by instance where it keeps that label. A JSON address takes paths of RFC 9535 to numbers. Datadog and
//! `CloudWatch` tell what happened in each interval: the value is that of the newest point, and two queries for counters are
//! added up here, minute by minute, once all points of a minute have come.
//!
//! # Gates
//!
//! [`Gates::ask`] asks whether a rollout may leave a step `{gate: NAME}`, of the server that `[gates.NAME]` names: `POST` with
//! what is on its way as JSON. A status of success opens it, 403 takes the candidate back with the answer's first line as the
//! reason, and all else holds. It is what Flagger's `confirm-…` webhooks are, and whoever answers those finds their keys
//! (`name`, `namespace`, `phase`, `checksum`, `metadata`) in the question; but to them 403 means "not yet", which
//! `on_forbidden = "hold"` says.

#![allow(clippy::disallowed_methods, reason = "a shell room: it asks servers, reads files and has a clock")]

mod cloudwatch;
mod datadog;
mod exposition;
mod filled;
mod gate;
mod http;
mod json;
mod points;
mod pods;
mod presets;
mod prometheus;
mod proxied;
mod scrape;
mod settings;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::{BoxFuture, join, join_all};

pub use exposition::{Exposition, MAX_BYTES, MAX_LINES, ParseError, Sample};
pub use gate::Gates;
pub use settings::{
    CloudwatchSettings, DatadogSettings, GateSettings, JsonSettings, OnForbidden, PrometheusSettings, Settings, Url,
    Wait, WrittenSettings,
};

use crate::desired::rollout::{Metric, Preset, Source};
use crate::judge::{Arms, NoData, Reading};
use crate::model::{AgentName, ReleaseId, Timestamp};
use crate::rollout::{Measurement, Measurements, Question};
use told::{because, nothing, quote};

/// Where the releases run that are measured.
#[derive(Clone)]
pub struct Ground {
    /// The namespace of their Pods.
    pub namespace: String,
    /// A host's proxy; nothing: a namespace of a cluster.
    pub proxy: Option<Proxy>,
}

/// The proxy of a host.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its control socket.
    pub control: PathBuf,
    /// Its routing table.
    pub table: PathBuf,
}

/// All who measure, for one target.
pub struct Providers {
    namespace: String,
    proxy: Option<Box<dyn Provider>>,
    scrape: Box<dyn Provider>,
    named: BTreeMap<String, Box<dyn Provider>>,
}

/// Who measures.
trait Provider: Send + Sync {
    /// After how long an answer is not waited for any more.
    fn patience(&self) -> Duration;

    /// Measures every metric that is asked for.
    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>>;
}

/// What one provider is asked.
#[derive(Clone, Copy)]
struct Asked<'a> {
    question: &'a Question,
    namespace: &'a str,
    metrics: &'a [(&'a str, &'a Metric)],
    at: Timestamp,
}

/// One of the two releases, as it is asked about.
#[derive(Clone, Copy)]
struct One<'a> {
    agent: &'a AgentName,
    namespace: &'a str,
    release: ReleaseId,
    tools: &'a BTreeSet<String>,
    at: Timestamp,
}

// === impl Providers ===

impl Providers {
    /// Those of the configuration, by name, and those that the target has by itself. Nothing is asked yet.
    pub fn new(named: BTreeMap<String, Settings>, ground: Ground) -> Self {
        let Ground { namespace, proxy } = ground;
        let table = proxy.as_ref().map(|proxy| proxy.table.clone());
        let pods = pods::Pods { table };
        let is_cluster = proxy.is_none();
        let make = |settings| -> Box<dyn Provider> {
            match settings {
                Settings::Prometheus(settings) => Box::new(prometheus::Prometheus::new(settings, is_cluster)),
                Settings::Datadog(settings) => Box::new(datadog::Datadog::new(settings)),
                Settings::Cloudwatch(settings) => Box::new(cloudwatch::Cloudwatch::new(settings)),
                Settings::Json(settings) => Box::new(json::Json::new(settings)),
            }
        };
        let proxied =
            |proxy: Proxy| -> Box<dyn Provider> { Box::new(proxied::Proxied::new(proxy.control, pods.clone())) };
        Self {
            namespace,
            proxy: proxy.map(proxied),
            named: named.into_iter().map(|(name, settings)| (name, make(settings))).collect(),
            scrape: Box::new(scrape::Scrape { pods }),
        }
    }

    /// Answers one question.
    ///
    /// # Guarantees
    ///
    /// Every metric of the question is in the answer, which comes after the longest patience of those that are asked (15 s
    /// for a scrape, 10 s for the proxy, a second more than its `timeout` for a server). It never fails as a whole.
    pub async fn measure(&self, question: &Question, at: Timestamp) -> Measurements {
        let mut metrics = BTreeMap::new();
        let mut by_provider: BTreeMap<&str, Vec<(&str, &Metric)>> = BTreeMap::new();
        for (name, metric) in &question.metrics {
            let provider = metric.provider.as_deref().unwrap_or_else(|| self.usual(&metric.source));
            by_provider.entry(provider).or_default().push((name, metric));
        }
        for told in join_all(by_provider.iter().map(|(name, metrics)| self.ask(name, question, metrics, at))).await {
            metrics.extend(told);
        }
        Measurements { at, metrics }
    }

    /// Asks one provider, for no longer than it may take.
    async fn ask<'a>(
        &'a self,
        name: &'a str,
        question: &'a Question,
        metrics: &'a [(&'a str, &'a Metric)],
        at: Timestamp,
    ) -> BTreeMap<String, Measurement> {
        let asked = Asked { question, namespace: &self.namespace, metrics, at };
        let provider = match self.find(name) {
            Ok(provider) => provider,
            Err(why) => return asked.nothing(&why),
        };
        let patience = provider.patience();
        let late = |_| asked.nothing(&because(format!("no answer within {} s", patience.as_secs())));
        let told = tokio::time::timeout(patience, provider.measure(asked)).await.unwrap_or_else(late);
        told.into_iter().map(|(metric, told)| (metric, from(name, told))).collect()
    }

    fn usual(&self, source: &Source) -> &'static str {
        let seen = matches!(
            source,
            Source::Preset(
                Preset::ErrorRate
                    | Preset::LatencyP50
                    | Preset::LatencyP95
                    | Preset::LatencyP99
                    | Preset::TimeToFirstToken
            )
        );
        if self.proxy.is_some() && seen { "proxy" } else { "scrape" }
    }

    fn find(&self, name: &str) -> Result<&dyn Provider, NoData> {
        match name {
            "scrape" => Ok(&*self.scrape),
            "proxy" => {
                self.proxy.as_deref().ok_or_else(|| because("`proxy` measures on a host alone: leave the provider out"))
            }
            name => self.named.get(name).map(|provider| &**provider).ok_or_else(|| {
                let name = quote(name);
                because(format!(
                    "nobody is called `{name}`: add `[metrics.{name}]` to backstay.toml, or name another provider"
                ))
            }),
        }
    }
}

/// The same with the provider's name in every reason of its own.
fn from(provider: &str, told: Measurement) -> Measurement {
    let said = |why: NoData| match why {
        NoData::Provider(why) => because(format!("`{}`: {why}", quote(provider))),
        why @ (NoData::Missing(_)
        | NoData::NotANumber
        | NoData::Negative
        | NoData::Absurd
        | NoData::Contradiction(_)
        | NoData::Boundaries
        | NoData::Kind
        | NoData::Stale
        | NoData::Time
        | NoData::Again) => why,
    };
    match told {
        Measurement::Counters(arms) => Measurement::Counters(arms.map(|side| side.map_err(said))),
        Measurement::Value(arms) => Measurement::Value(arms.map(|side| side.map_err(said))),
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// No measurement of anything, for one reason.
    fn nothing(&self, why: &NoData) -> BTreeMap<String, Measurement> {
        self.metrics.iter().map(|(name, metric)| ((*name).to_owned(), nothing(metric, why))).collect()
    }

    /// Every metric by itself, side by side.
    async fn each<F>(&self, ask: impl Fn(&'a Metric) -> F) -> BTreeMap<String, Measurement>
    where
        F: Future<Output = Measurement>,
    {
        let one = |(name, metric): &(&'a str, &'a Metric)| {
            let (name, told) = ((*name).to_owned(), ask(metric));
            async move { (name, told.await) }
        };
        join_all(self.metrics.iter().map(one)).await.into_iter().collect()
    }

    fn sides(&self) -> Arms<One<'a>> {
        let Question { agent, releases, tools, .. } = self.question;
        let one = |release, tools| One { agent, namespace: self.namespace, release, tools, at: self.at };
        Arms { candidate: one(releases.candidate, &tools.candidate), stable: one(releases.stable, &tools.stable) }
    }

    /// One value of each release, both asked at the same time.
    async fn values<F>(&self, ask: impl Fn(One<'a>) -> F) -> Measurement
    where
        F: Future<Output = Result<f64, NoData>>,
    {
        let sides = self.sides();
        let (candidate, stable) = join(ask(sides.candidate), ask(sides.stable)).await;
        Measurement::Value(Arms { candidate, stable })
    }

    /// Counters of each release, both asked at the same time.
    async fn counters<F>(&self, ask: impl Fn(One<'a>) -> F) -> Measurement
    where
        F: Future<Output = Result<Vec<Reading>, NoData>>,
    {
        let sides = self.sides();
        let (candidate, stable) = join(ask(sides.candidate), ask(sides.stable)).await;
        Measurement::Counters(Arms { candidate, stable })
    }
}

// === impl One ===

impl One<'_> {
    /// A query or address with `$release`, `$agent` and `$namespace` filled in.
    fn filled(&self, text: &str, escape: impl Fn(&str) -> String) -> String {
        let release = self.release.short();
        let values = [("release", &*release), ("agent", self.agent.as_str()), ("namespace", self.namespace)];
        filled::filled(text, &values, escape)
    }
}
