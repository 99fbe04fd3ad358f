//! Datadog: `GET /api/v1/query`, the timeseries of a query.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::{BoxFuture, try_join};
use http::header::{HeaderMap, HeaderName};
use reqwest::Method;
use serde_json::Value;

use super::http::{Access, Question, Server, encoded, secret, sensitive};
use super::points::{Growing, MAX_POINTS, Point, millis, newest};
use super::settings::DatadogSettings;
use super::told::{because, nothing, quote};
use super::{Asked, One, Provider};
use crate::desired::rollout::{Metric, Source};
use crate::judge::{NoData, Reading};
use crate::rollout::Measurement;

/// Asks Datadog.
pub(super) struct Datadog {
    server: Server,
    url: String,
    api_key: PathBuf,
    application_key: PathBuf,
    fresh: Duration,
    growing: Growing,
}

// === impl Datadog ===

impl Datadog {
    pub(super) fn new(settings: DatadogSettings) -> Self {
        let DatadogSettings { site, url, api_key_file, application_key_file, ca_file, fresh, timeout } = settings;
        let url = url.map_or_else(|| format!("https://api.{site}"), |url| url.as_str().to_owned());
        let access = Access { ca_file, timeout: timeout.0, ..Access::default() };
        Self {
            server: Server::new(access),
            url: format!("{url}/api/v1/query"),
            api_key: api_key_file,
            application_key: application_key_file,
            fresh: fresh.0,
            growing: Growing::new(),
        }
    }

    /// The points of the one series that a query finds; none where it finds no series.
    async fn points(&self, query: &str, (from, until): (i64, i64)) -> Result<Vec<Point>, NoData> {
        let seconds = |millis: i64| millis.div_euclid(1000);
        let url = format!("{}?from={}&to={}&query={}", self.url, seconds(from), seconds(until), encoded(query));
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static("dd-api-key"), sensitive(&secret(&self.api_key)?)?),
            (HeaderName::from_static("dd-application-key"), sensitive(&secret(&self.application_key)?)?),
        ]);
        let answer = self.server.ask(Question { method: Method::GET, url, headers, body: vec![] }).await?.json()?;
        if answer["status"] != "ok" {
            let why = answer["error"].as_str().unwrap_or("without a reason");
            return Err(because(format!("it refuses the query: {}", quote(why))));
        }
        let points = match answer["series"].as_array().map(Vec::as_slice) {
            Some([]) => return Ok(vec![]),
            Some([one]) => one["pointlist"].as_array().ok_or_else(|| because("a series without points"))?,
            Some(several) => return Err(because(format!("the query finds {} series, one is needed", several.len()))),
            None => return Err(because("its answer has no series")),
        };
        if points.len() > MAX_POINTS {
            return Err(NoData::Absurd);
        }
        let point = |point: &Value| match point.as_array().map(Vec::as_slice) {
            Some([_, Value::Null]) => None,
            Some([time, value]) => Some(time.as_f64().zip(value.as_f64()).ok_or(NoData::NotANumber)),
            Some(_) | None => Some(Err(because("a point is no pair of time and value"))),
        };
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970; a cast of floats saturates")]
        points.iter().filter_map(point).map(|point| point.map(|(time, value)| (time as i64, value))).collect()
    }

    async fn value(&self, query: &str, one: One<'_>) -> Result<f64, NoData> {
        let now = one.at.as_millisecond();
        let points = self.points(&one.filled(query, tag), (now - millis(self.fresh), now)).await?;
        newest(&points, one.at, self.fresh)
    }

    async fn counters(&self, events: &str, of: &str, one: One<'_>) -> Result<Vec<Reading>, NoData> {
        let key = (one.agent.clone(), one.release, events.to_owned(), of.to_owned());
        let span = self.growing.span(&key, one.at, self.fresh);
        if span.0 == span.1 {
            return self.growing.add(key, span, &[], &[]);
        }
        let (events, of) = (one.filled(events, tag), one.filled(of, tag));
        let (of, events) = try_join(self.points(&of, span), self.points(&events, span)).await?;
        self.growing.add(key, span, &of, &events)
    }
}

impl Provider for Datadog {
    fn patience(&self) -> Duration {
        self.server.timeout() + Duration::from_secs(1)
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        let one = move |metric: &'a Metric| async move {
            match &metric.source {
                Source::Value(query) => asked.values(|one| self.value(query, one)).await,
                Source::Rate { events, of } => asked.counters(|one| self.counters(events, of, one)).await,
                Source::Preset(_) => nothing(metric, &because("Datadog knows no presets: give a `query`")),
            }
        };
        Box::pin(async move { asked.each(one).await })
    }
}

/// Ids and names are letters that a tag may have.
fn tag(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).collect()
}
