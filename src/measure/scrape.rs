//! The figures of the instances themselves: what each ready one says at its `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exposition::{Exposition, MAX_BYTES, Sample};
use super::pods::{Instance, Pods};
use super::presets::{Known, sum, totals, wanted};
use super::told::{because, emptied, nothing};
use super::{Asked, Provider};
use crate::desired::rollout::{Metric, Source};
use crate::judge::{Arms, NoData, Reading, Totals};
use crate::model::Timestamp;
use crate::proxy::Address;
use crate::rollout::Measurement;

/// Time for one instance's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for all of them, and for who they are.
const WHOLE: Duration = Duration::from_secs(15);
/// Instances that are asked at the same time.
const AT_ONCE: usize = 64;
/// Bytes of a head.
const MAX_HEAD: usize = 64 * 1024;
/// How old a sample may be that says its time, in seconds.
const OLDEST: f64 = 120.0;

/// Asks the instances.
pub(super) struct Scrape {
    pub(super) pods: Pods,
}

/// What one instance said of every metric, by its place among those that were asked for.
type Said = Vec<Result<Option<Totals>, NoData>>;

impl Provider for Scrape {
    fn patience(&self) -> Duration {
        WHOLE
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        Box::pin(async move {
            let question = asked.question;
            let instances = match self.pods.of(question) {
                Ok(instances) => instances,
                Err(why) => return asked.nothing(&why),
            };
            let candidate = arm(&instances.candidate, &asked, &question.tools.candidate);
            let stable = arm(&instances.stable, &asked, &question.tools.stable);
            let (candidate, stable) = futures::future::join(candidate, stable).await;
            let mut told = BTreeMap::new();
            for (place, (name, metric)) in asked.metrics.iter().enumerate() {
                if matches!(metric.source, Source::Value(_)) {
                    let why = "instances have counters: ask for `events` and what they are a part `of`";
                    told.insert((*name).to_owned(), nothing(metric, &because(why)));
                    continue;
                }
                let sides = Arms { candidate: &candidate, stable: &stable };
                told.insert((*name).to_owned(), Measurement::Counters(joined(place, metric, sides)));
            }
            told
        })
    }
}

/// What every instance of a release said; an instance that said nothing that can be read is an error of its own.
async fn arm<'i>(
    instances: &'i [Instance],
    asked: &Asked<'_>,
    tools: &BTreeSet<String>,
) -> Vec<(&'i Instance, Result<Said, NoData>)> {
    let one = |instance: &'i Instance| async move {
        let said = match get(instance).await {
            Ok(body) => read(&body, instance, asked, tools),
            Err(why) => Err(why),
        };
        let named = said.map_err(|why| because(format!("`{}`: {why}", instance.name)));
        (instance, named)
    };
    let asking: Vec<_> = instances.iter().map(one).collect();
    let mut answers: Vec<_> = futures::stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|one, other| one.0.name.cmp(&other.0.name));
    answers
}

fn read(body: &Body, instance: &Instance, asked: &Asked<'_>, tools: &BTreeSet<String>) -> Result<Said, NoData> {
    let text = std::str::from_utf8(&body.text).map_err(|_| because("its figures are not UTF-8"))?;
    let told = Exposition::parse(text).map_err(|error| because(format!("its figures cannot be read: {error}")))?;
    let unit = if body.open { 1.0 } else { 1000.0 };
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let now = asked.at.as_second() as f64;
    let is_stale = |sample: &Sample<'_>| sample.time.is_some_and(|time| now - time / unit > OLDEST);
    if told.samples.iter().any(is_stale) {
        return Err(NoData::Stale);
    }
    let known = Known { probes: &instance.probes, tools };
    let one = |(_, metric): &(&str, &Metric)| match &metric.source {
        Source::Preset(preset) => totals(*preset, &told, known),
        Source::Rate { events, of } => rate(&told, events, of),
        Source::Value(_) => Ok(None),
    };
    Ok(asked.metrics.iter().map(one).collect())
}

/// Two series by name, with labels that they must have: `name{label="value"}`.
fn rate(told: &Exposition<'_>, events: &str, of: &str) -> Result<Option<Totals>, NoData> {
    let counted = |query: &str| -> Result<Option<f64>, NoData> {
        let asked = Exposition::parse(&format!("{} 0", query.trim()).replace('\n', " "))
            .ok()
            .filter(|asked| asked.samples.len() == 1)
            .map(|asked| asked.samples.into_iter().next().map(owned))
            .and_then(|asked| asked)
            .ok_or_else(|| because("of an instance, series are asked for as `name{label=\"value\"}`"))?;
        let is = |one: &&Sample<'_>| asked.1.iter().all(|(label, value)| one.label(label) == Some(value));
        if told.has(&asked.0) { sum(told.named(&asked.0).filter(is)).map(Some) } else { Ok(None) }
    };
    let Some(n) = counted(of)? else { return Ok(None) };
    match counted(events)? {
        Some(x) => Ok(Some(Totals::Binary { n, x })),
        None if n == 0.0 => Ok(Some(Totals::Binary { n, x: 0.0 })),
        None => Err(because("the events are not exported")),
    }
}

fn owned(sample: Sample<'_>) -> (String, Vec<(String, String)>) {
    let labels = sample.labels.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned()));
    (sample.name.to_owned(), labels.collect())
}

/// What one instance has counted, by its name and when it started; nothing yet, where it does not export it.
type Read = (String, Option<Timestamp>, Option<Totals>);

/// Readings of both releases. An instance that cannot be read leaves its release without data: what it hides may be
/// the worst of it. One that has not counted yet counts as zero once any other has.
fn joined(
    place: usize,
    metric: &Metric,
    sides: Arms<&Vec<(&Instance, Result<Said, NoData>)>>,
) -> Arms<Result<Vec<Reading>, NoData>> {
    let said = |side: &Vec<(&Instance, Result<Said, NoData>)>| -> Result<Vec<Read>, NoData> {
        if side.is_empty() {
            return Err(because("no instance is ready"));
        }
        let one = |(instance, said): &(&Instance, Result<Said, NoData>)| {
            let totals = said.as_ref().map_err(NoData::clone)?[place].clone();
            let totals = totals.map_err(|why| because(format!("`{}`: {why}", instance.name)))?;
            Ok((instance.name.clone(), instance.started, totals))
        };
        side.iter().map(one).collect()
    };
    let sides = sides.map(said);
    let shape =
        [&sides.candidate, &sides.stable].into_iter().flatten().flatten().find_map(|one| one.2.as_ref()).map(emptied);
    sides.map(|side| {
        let side = side?;
        let Some(shape) = &shape else {
            let what = match &metric.source {
                Source::Preset(preset) => format!("no instance exports `{}` yet", wanted(*preset)),
                Source::Rate { of, .. } | Source::Value(of) => {
                    format!("no instance exports `{}` yet", super::told::quote(of))
                }
            };
            return Err(because(what));
        };
        let reading = |(instance, started, totals): (String, Option<Timestamp>, Option<Totals>)| Reading {
            instance,
            started,
            totals: totals.unwrap_or_else(|| shape.clone()),
        };
        Ok(side.into_iter().map(reading).collect())
    })
}

/// An answer.
struct Body {
    text: Bytes,
    /// It is `OpenMetrics`.
    open: bool,
}

async fn get(instance: &Instance) -> Result<Body, NoData> {
    let Some(at) = &instance.at else { return Err(because("it has no port to be asked at")) };
    let asked = async {
        match at {
            Address::Tcp(at) => {
                let stream =
                    TcpStream::connect(at).await.map_err(|error| because(format!("cannot be reached: {error}")))?;
                ask(stream, &instance.path, &at.to_string()).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                ask(
                    stream.map_err(|error| because(format!("cannot be reached: {error}")))?,
                    &instance.path,
                    "localhost",
                )
                .await
            }
        }
    };
    let late = |_| Err(because(format!("no answer within {} s", PATIENCE.as_secs())));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
}

async fn ask<S>(stream: S, path: &str, host: &str) -> Result<Body, NoData>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| because(format!("its answer cannot be read: {error}"));
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with this: the connection is dropped with the guard.
    let driving = Driving(tokio::spawn(connection));
    let request = http::Request::get(path)
        .header("host", host)
        .header("user-agent", concat!("backstay/", env!("CARGO_PKG_VERSION")))
        .header("accept", "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| because("its path cannot be asked for"))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() != http::StatusCode::OK {
        return Err(because(format!("it answers {}", answer.status().as_u16())));
    }
    let kind = answer.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let open = kind.starts_with("application/openmetrics-text");
    if !(open || kind.starts_with("text/plain") || kind.is_empty()) {
        return Err(because("its answer is not in the text format of Prometheus"));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let text = body.map_err(|_| because("its answer breaks off, or is longer than 4 MiB"))?.to_bytes();
    drop(driving);
    Ok(Body { text, open })
}

/// A connection that ends with this.
struct Driving(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
