//! Amazon `CloudWatch`: `GetMetricData` in AWS JSON 1.0, signed with Signature Version 4.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use futures::future::{BoxFuture, try_join};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::Method;
use serde_json::{Value, json};

use super::http::{Access, Question, Server, secret};
use super::points::{Growing, MAX_POINTS, Point, millis, newest};
use super::settings::CloudwatchSettings;
use super::told::{because, nothing, quote};
use super::{Asked, One, Provider, filled};
use crate::desired::rollout::{Metric, Source};
use crate::judge::{NoData, Reading};
use crate::model::Timestamp;
use crate::rollout::Measurement;

/// Seconds of one point.
const PERIOD: i64 = 60;
/// What is asked for.
const TARGET: &str = "GraniteServiceVersion20100801.GetMetricData";

/// Asks `CloudWatch`.
pub(super) struct Cloudwatch {
    server: Server,
    region: String,
    url: String,
    key_id: PathBuf,
    key: PathBuf,
    session: Option<PathBuf>,
    fresh: Duration,
    growing: Growing,
}

// === impl Cloudwatch ===

impl Cloudwatch {
    pub(super) fn new(settings: CloudwatchSettings) -> Self {
        let CloudwatchSettings {
            region,
            url,
            access_key_id_file,
            access_key_file,
            session_token_file,
            ca_file,
            fresh,
            timeout,
        } = settings;
        let usual = || format!("https://monitoring.{region}.amazonaws.com");
        let url = url.map_or_else(usual, |url| url.as_str().to_owned());
        let access = Access { ca_file, timeout: timeout.0, ..Access::default() };
        Self {
            server: Server::new(access),
            url: format!("{url}/"),
            region,
            key_id: access_key_id_file,
            key: access_key_file,
            session: session_token_file,
            fresh: fresh.0,
            growing: Growing::new(),
        }
    }

    /// The points of the one series that an expression finds; none where it finds no series.
    async fn points(&self, expression: &str, (from, until): (i64, i64), now: Timestamp) -> Result<Vec<Point>, NoData> {
        let body = json!({
            "MetricDataQueries": [{"Id": "q", "Expression": expression, "Period": PERIOD, "ReturnData": true}],
            "StartTime": from.div_euclid(1000),
            "EndTime": until.div_euclid(1000),
            "ScanBy": "TimestampAscending",
        });
        let body = body.to_string().into_bytes();
        let headers = self.signed(&body, now)?;
        let asked = Question { method: Method::POST, url: self.url.clone(), headers, body };
        let answer = self.server.ask(asked).await?.json()?;
        let one = match answer["MetricDataResults"].as_array().map(Vec::as_slice) {
            Some([one]) => one,
            Some([]) => return Ok(vec![]),
            Some(several) => return Err(because(format!("the query finds {} series, one is needed", several.len()))),
            None => return Err(because("its answer has no results")),
        };
        if one["StatusCode"] != "Complete" || answer["NextToken"].is_string() {
            let why = one["Messages"][0]["Value"].as_str().or(answer["Messages"][0]["Value"].as_str());
            return Err(because(format!("its answer is not complete: {}", quote(why.unwrap_or("without a reason")))));
        }
        let (Some(times), Some(values)) = (one["Timestamps"].as_array(), one["Values"].as_array()) else {
            return Err(because("a series without points"));
        };
        if times.len() != values.len() || times.len() > MAX_POINTS {
            return Err(because("its answer has not as many values as times, or too many"));
        }
        let point = |(time, value): (&Value, &Value)| {
            let (seconds, value) = time.as_f64().zip(value.as_f64()).ok_or(NoData::NotANumber)?;
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970; a cast of floats saturates")]
            Ok(((seconds * 1000.0) as i64, value))
        };
        times.iter().zip(values).map(point).collect()
    }

    /// The header lines, with those of the signature.
    fn signed(&self, body: &[u8], now: Timestamp) -> Result<HeaderMap, NoData> {
        let session = self.session.as_deref().map(secret).transpose()?;
        let credentials = Credentials::new(secret(&self.key_id)?, secret(&self.key)?, session, None, "backstay");
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("monitoring")
            .time(SystemTime::from(now))
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| because("the question cannot be signed"))?
            .into();
        let host = self.url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
        let own = [("content-type", "application/x-amz-json-1.0"), ("host", host), ("x-amz-target", TARGET)];
        let failed = |_| because("the question cannot be signed");
        let request =
            SignableRequest::new("POST", &self.url, own.into_iter(), SignableBody::Bytes(body)).map_err(failed)?;
        let (instructions, _) = sign(request, &params).map_err(failed)?.into_parts();
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0")),
            (HeaderName::from_static("x-amz-target"), HeaderValue::from_static(TARGET)),
        ]);
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| because("its host cannot be sent"))?);
        let (signature, _) = instructions.into_parts();
        for line in signature {
            let name: HeaderName = line.name().parse().map_err(|_| because("the question cannot be signed"))?;
            headers.insert(name, super::http::sensitive(line.value())?);
        }
        Ok(headers)
    }

    async fn value(&self, query: &str, one: One<'_>) -> Result<f64, NoData> {
        let now = one.at.as_millisecond();
        let span = (now - millis(self.fresh) - PERIOD * 1000, now);
        let points = self.points(&one.filled(query, quoted), span, one.at).await?;
        newest(&points, one.at, self.fresh + Duration::from_mins(1))
    }

    async fn counters(&self, events: &str, of: &str, one: One<'_>) -> Result<Vec<Reading>, NoData> {
        let key = (one.agent.clone(), one.release, events.to_owned(), of.to_owned());
        let span = self.growing.span(&key, one.at, self.fresh);
        if span.0 == span.1 {
            return self.growing.add(key, span, &[], &[]);
        }
        let (events, of) = (one.filled(events, quoted), one.filled(of, quoted));
        let (of, events) = try_join(self.points(&of, span, one.at), self.points(&events, span, one.at)).await?;
        self.growing.add(key, span, &of, &events)
    }
}

impl Provider for Cloudwatch {
    fn patience(&self) -> Duration {
        self.server.timeout() + Duration::from_secs(1)
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        let one = move |metric: &'a Metric| async move {
            match &metric.source {
                Source::Value(query) => asked.values(|one| self.value(query, one)).await,
                Source::Rate { events, of } => asked.counters(|one| self.counters(events, of, one)).await,
                Source::Preset(_) => nothing(metric, &because("CloudWatch knows no presets: give a `query`")),
            }
        };
        Box::pin(async move { asked.each(one).await })
    }
}

/// For a string of an expression, in quotes of either kind.
fn quoted(text: &str) -> String {
    filled::escaped(text, &['\\', '"', '\''])
}
