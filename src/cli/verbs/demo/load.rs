//! Clients of an agent: one question, and many at a time on connections that are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER: usize = 64 << 10;
/// Between two questions of one connection.
const PAUSE: Duration = Duration::from_millis(2);
/// The header by which an answer is asked for its release, and names it.
pub(super) const RELEASE: &str = "backstay-release";

/// Whom to ask, and what.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) message: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `r-…`, as the proxy says it.
    pub(super) release: Option<String>,
    /// What the agent says; empty where it is no answer of an agent.
    pub(super) reply: String,
}

/// What the answers of a time were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests that were answered with 200.
    pub(super) answered: u64,
    /// Requests that were not, or not with that.
    pub(super) failed: u64,
    /// How the first of these failed.
    pub(super) first_failure: Option<String>,
    /// When the first request that each release answered was sent.
    pub(super) first_sent: BTreeMap<String, Instant>,
    /// When the last request that each release answered was sent.
    pub(super) last_sent: BTreeMap<String, Instant>,
    /// How many answers each release gave.
    pub(super) by_release: BTreeMap<String, u64>,
    /// What each release said first, by what it was asked.
    pub(super) said: BTreeMap<String, BTreeMap<String, String>>,
}

/// Many clients at once, until they are stopped.
pub(super) struct Load {
    tallies: Vec<Arc<Mutex<Tally>>>,
    clients: JoinSet<()>,
    stop: CancellationToken,
}

type Sender = SendRequest<Full<Bytes>>;

// === impl Asked ===

impl Asked {
    /// Asks once, on a connection of its own.
    pub(super) async fn once(&self) -> io::Result<Answer> {
        let mut sender = self.connect().await?;
        self.on(&mut sender).await
    }

    async fn connect(&self) -> io::Result<Sender> {
        let connecting = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(sender)
        };
        tokio::time::timeout(PATIENCE, connecting).await?
    }

    async fn on(&self, sender: &mut Sender) -> io::Result<Answer> {
        let body = serde_json::json!({"message": self.message}).to_string();
        let request = Request::post("/chat")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(RELEASE, "?")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let answering = async {
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let body = Limited::new(body, ANSWER).collect().await.map_err(io::Error::other)?.to_bytes();
            let said: Value = serde_json::from_slice(&body).unwrap_or_default();
            let release = head.headers.get(RELEASE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let reply = said.get("reply").and_then(Value::as_str).unwrap_or_default().to_owned();
            Ok(Answer { status: head.status, release, reply })
        };
        tokio::time::timeout(PATIENCE, answering).await?
    }

    /// The same with another question.
    pub(super) fn asking(&self, message: &str) -> Self {
        Self { message: message.to_owned(), ..self.clone() }
    }

    /// Asks one after the other, again and again on one connection that is kept, and counts.
    async fn again(all: Vec<Self>, tally: Arc<Mutex<Tally>>, stop: CancellationToken) {
        let mut kept: Option<Sender> = None;
        for asking in all.iter().cycle() {
            if stop.is_cancelled() {
                return;
            }
            // One that the other side has closed between two requests was never asked anything.
            let ready = match kept.take() {
                Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
                None => None,
            };
            let sent = Instant::now();
            let asked = async {
                let mut sender = match ready {
                    Some(sender) => sender,
                    None => asking.connect().await?,
                };
                let answer = asking.on(&mut sender).await?;
                Ok::<_, io::Error>((sender, answer))
            };
            let ended = asked.await;
            {
                let mut counted = tally.lock().unwrap_or_else(PoisonError::into_inner);
                match ended {
                    Ok((sender, answer)) => {
                        kept = Some(sender);
                        counted.count(sent, &asking.message, &answer);
                    }
                    Err(error) => counted.failed(&error.to_string()),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Counts an answer to a request that was sent at `sent`, and asked that.
    pub(super) fn count(&mut self, sent: Instant, asked: &str, answer: &Answer) {
        if answer.status != StatusCode::OK {
            return self.failed(&format!("status {}", answer.status.as_u16()));
        }
        self.answered += 1;
        if let Some(release) = &answer.release {
            *self.by_release.entry(release.clone()).or_default() += 1;
            let last = self.last_sent.entry(release.clone()).or_insert(sent);
            *last = sent.max(*last);
            let first = self.first_sent.entry(release.clone()).or_insert(sent);
            *first = sent.min(*first);
            let said = self.said.entry(release.clone()).or_default();
            if !said.contains_key(asked) {
                said.insert(asked.to_owned(), answer.reply.clone());
            }
        }
    }

    fn failed(&mut self, why: &str) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| why.to_owned());
    }

    /// Takes in what was counted elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
        for (release, count) in &other.by_release {
            *self.by_release.entry(release.clone()).or_default() += count;
        }
        for (release, sent) in &other.last_sent {
            let last = self.last_sent.entry(release.clone()).or_insert(*sent);
            *last = (*sent).max(*last);
        }
        for (release, sent) in &other.first_sent {
            let first = self.first_sent.entry(release.clone()).or_insert(*sent);
            *first = (*sent).min(*first);
        }
        for (release, said) in &other.said {
            let all = self.said.entry(release.clone()).or_default();
            for (asked, reply) in said {
                all.entry(asked.clone()).or_insert_with(|| reply.clone());
            }
        }
    }

    /// All requests.
    pub(super) fn requests(&self) -> u64 {
        self.answered + self.failed
    }

    /// How long after `since` the last request was sent that `release` answered; zero if there was none after it.
    pub(super) fn last_after(&self, release: &str, since: Instant) -> Duration {
        self.last_sent.get(release).map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
    }
}

// === impl Load ===

impl Load {
    /// Asks on that many connections: on each all questions in turn, from another one on.
    pub(super) fn start(asked: &[Asked], connections: usize) -> Self {
        let (mut tallies, mut clients, stop) = (vec![], JoinSet::new(), CancellationToken::new());
        for number in 0..connections {
            let tally = Arc::<Mutex<Tally>>::default();
            let mut turned = asked.to_vec();
            turned.rotate_left(number % asked.len().max(1));
            clients.spawn(Asked::again(turned, Arc::clone(&tally), stop.clone()));
            tallies.push(tally);
        }
        Self { tallies, clients, stop }
    }

    /// What was counted so far.
    pub(super) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.tallies {
            sum.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// Lets open requests end, and gives what was counted.
    pub(super) async fn stop(mut self) -> Tally {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.tally()
    }
}
