//! Any address that answers with JSON: a metric is a `JSONPath` (RFC 9535) to a number in it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::Method;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::http::{Access, Question, Server, encoded};
use super::settings::JsonSettings;
use super::told::{because, counted, nothing, quote, valued};
use super::{Asked, One, Provider, filled};
use crate::desired::rollout::{Metric, Source};
use crate::judge::{Arms, NoData, Reading, Totals};
use crate::rollout::Measurement;

/// Letters of a path.
const MAX_PATH: usize = 4096;
/// Brackets and parentheses within one another: what a path is read in doubles with each.
const MAX_NESTED: usize = 6;
/// Commas: what a path finds doubles with each.
const MAX_COMMAS: usize = 3;

/// Asks one address.
pub(super) struct Json {
    server: Server,
    url: String,
}

// === impl Json ===

impl Json {
    pub(super) fn new(settings: JsonSettings) -> Self {
        let JsonSettings { url, ca_file, token_file, username, password_file, headers, header_files, timeout } =
            settings;
        let access = Access { ca_file, token_file, username, password_file, headers, header_files, timeout: timeout.0 };
        Self { server: Server::new(access), url: url.as_str().to_owned() }
    }

    /// The answer for one release: asked once, whatever is looked for in it.
    async fn answer(&self, one: One<'_>) -> Result<Value, NoData> {
        let url = one.filled(&self.url, encoded);
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        self.server.ask(Question { method: Method::GET, url, headers, body: vec![] }).await?.json()
    }
}

impl Provider for Json {
    fn patience(&self) -> Duration {
        self.server.timeout() + Duration::from_secs(1)
    }

    fn measure<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, BTreeMap<String, Measurement>> {
        Box::pin(async move {
            let sides = asked.sides();
            let (candidate, stable) =
                futures::future::join(self.answer(sides.candidate), self.answer(sides.stable)).await;
            let answers = Arms { candidate, stable };
            let one = |(name, metric): &(&str, &Metric)| {
                let within = |side: One<'_>, answer: &Result<Value, NoData>, path: &str| {
                    number(answer.as_ref().map_err(NoData::clone)?, &side.filled(path, quoted))
                };
                let told = match &metric.source {
                    Source::Value(path) => {
                        let value = |side, answer| within(side, answer, path).and_then(valued);
                        Measurement::Value(Arms {
                            candidate: value(sides.candidate, &answers.candidate),
                            stable: value(sides.stable, &answers.stable),
                        })
                    }
                    Source::Rate { events, of } => {
                        let reading = |side, answer| {
                            let n = within(side, answer, of).and_then(counted)?;
                            let x = within(side, answer, events).and_then(counted)?;
                            Ok(vec![Reading {
                                instance: "all".to_owned(),
                                started: None,
                                totals: Totals::Binary { n, x },
                            }])
                        };
                        Measurement::Counters(Arms {
                            candidate: reading(sides.candidate, &answers.candidate),
                            stable: reading(sides.stable, &answers.stable),
                        })
                    }
                    Source::Preset(_) => nothing(metric, &because("a JSON address knows no presets: give a `query`")),
                };
                ((*name).to_owned(), told)
            };
            asked.metrics.iter().map(one).collect()
        })
    }
}

/// For a string of a path, in quotes of either kind.
fn quoted(text: &str) -> String {
    filled::escaped(text, &['\\', '"', '\''])
}

/// Why it may take far longer to read a path, or to look it up, than it and the answer are long.
fn unbounded(path: &str) -> Option<&'static str> {
    let (mut quote, mut before) = (None, ' ');
    let (mut nested, mut commas, mut descents) = (0_usize, 0, 0);
    let mut letters = path.char_indices();
    while let Some((at, letter)) = letters.next() {
        match quote {
            Some(_) if letter == '\\' => {
                letters.next();
            }
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None => match letter {
                '\'' | '"' => quote = Some(letter),
                '(' | '[' => nested += 1,
                ')' | ']' => nested = nested.saturating_sub(1),
                ',' => commas += 1,
                '.' if before == '.' => descents += 1,
                '$' if at > 0 => return Some("within a filter, `$` begins a path of its own: write `@`"),
                _ => {}
            },
        }
        before = if quote.is_some() { ' ' } else { letter };
        if nested > MAX_NESTED {
            return Some("it is nested more than 6 levels deep");
        }
        if descents > 1 {
            return Some("it says `..` more than once");
        }
        if commas > MAX_COMMAS {
            return Some("it names more than 4 things at once");
        }
    }
    None
}

/// The one number at a path.
fn number(answer: &Value, path: &str) -> Result<f64, NoData> {
    let wrong = |why: String| because(format!("`{}` cannot be used: {}", quote(path), quote(&why)));
    if path.len() > MAX_PATH {
        return Err(wrong("it is longer than 4,096 letters".to_owned()));
    }
    if let Some(why) = unbounded(path) {
        return Err(wrong(why.to_owned()));
    }
    let parsed = JsonPath::parse(path).map_err(|error| wrong(error.to_string()))?;
    let found =
        parsed.query(answer).exactly_one().map_err(|_| because(format!("`{}` is not one value", quote(path))))?;
    found.as_f64().ok_or_else(|| because(format!("the value at `{}` is not a number", quote(path))))
}
