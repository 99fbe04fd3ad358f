//! Gates: whether a rollout may leave a step that waits for one, asked of the server that `[gates.NAME]` names.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::json;

use super::http::{Access, Answer as Said, Question, Server};
use super::settings::{GateSettings, OnForbidden};
use super::told::quote;
use crate::judge::NoData;
use crate::rollout::{Answer, Closed, GateQuestion};

/// The status of a refusal.
const FORBIDDEN: u16 = 403;

/// All gates of the configuration, by name.
pub struct Gates(BTreeMap<String, Gate>);

/// One gate.
struct Gate {
    server: Server,
    url: String,
    on_forbidden: OnForbidden,
}

// === impl Gates ===

impl Gates {
    /// Those of the configuration. Nobody is asked yet.
    pub fn new(named: BTreeMap<String, GateSettings>) -> Self {
        Self(named.into_iter().map(|(name, settings)| (name, Gate::new(settings))).collect())
    }

    /// How long an answer of each may take, by name.
    pub fn patience(&self) -> BTreeMap<String, SignedDuration> {
        let patience = |gate: &Gate| {
            SignedDuration::try_from(gate.server.timeout() + Duration::from_secs(1)).unwrap_or(SignedDuration::MAX)
        };
        self.0.iter().map(|(name, gate)| (name.clone(), patience(gate))).collect()
    }

    /// Asks one gate.
    ///
    /// # Guarantees
    ///
    /// It answers always, and no later than its `timeout`. Open is only what says so with a status of success, whole and in
    /// time; what is silent, slow, broken, too long or elsewhere is closed, with the reason. Nobody's text is longer than a
    /// line, and no terminal obeys it.
    pub async fn ask(&self, asked: &GateQuestion) -> Answer {
        match self.0.get(&asked.gate) {
            Some(gate) => gate.ask(asked).await,
            None => Answer::Closed(Closed::Unnamed),
        }
    }
}

// === impl Gate ===

impl Gate {
    fn new(settings: GateSettings) -> Self {
        let GateSettings {
            url,
            ca_file,
            token_file,
            username,
            password_file,
            headers,
            header_files,
            timeout,
            on_forbidden,
        } = settings;
        let access = Access { ca_file, token_file, username, password_file, headers, header_files, timeout: timeout.0 };
        Self { server: Server::new(access), url: url.as_str().to_owned(), on_forbidden }
    }

    async fn ask(&self, asked: &GateQuestion) -> Answer {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)]);
        let (method, url, body) = (Method::POST, self.url.clone(), body(asked));
        let closed = |why: String| Answer::Closed(Closed::Because(why));
        let said = match self.server.ask(Question { method, url, headers, body }).await {
            Ok(said) => said,
            Err(NoData::Provider(why)) => return closed(why),
            Err(why) => return closed(why.to_string()),
        };
        let words = first_line(&said);
        match (said.status, self.on_forbidden) {
            (200..300, _) => Answer::Open,
            (FORBIDDEN, OnForbidden::Abort) if words.is_empty() => {
                Answer::Refused("it says no more than 403".to_owned())
            }
            (FORBIDDEN, OnForbidden::Abort) => Answer::Refused(words),
            (status, _) if words.is_empty() => closed(format!("it answers {status}")),
            (status, _) => closed(format!("it answers {status}: {words}")),
        }
    }
}

/// What is on its way; and the same under the keys that Flagger's webhooks have.
fn body(asked: &GateQuestion) -> Vec<u8> {
    let GateQuestion { gate, agent, environment, namespace, releases, revision, step } = asked;
    let (release, stable) = (releases.candidate.short(), releases.stable.short());
    let (revision, step) = (revision.to_string(), step + 1);
    let body = json!({
        "agent": agent,
        "environment": environment,
        "release": release,
        "stable": stable,
        "revision": revision,
        "step": step,
        "gate": gate,
        "name": agent,
        "namespace": namespace,
        "phase": "Progressing",
        "checksum": release,
        "metadata": {"gate": gate, "revision": revision, "step": step.to_string()},
    });
    body.to_string().into_bytes()
}

/// The first line that says anything.
fn first_line(said: &Said) -> String {
    let text = String::from_utf8_lossy(&said.body);
    quote(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
}
