//! A stand-in for the API of a Git host: what GitHub, GitLab and Gitea document of their pull requests, as far as it is
//! asked here, with answers that were recorded from them (cut to the fields that anybody could read).

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backstay::daemon::write_back::{Forge, Host};
use backstay::source::Secret;
use serde_json::{Value, json};

use crate::git::{TestRepo, certificates};

/// The token.
pub(crate) const HUSH: &str = "hush-0123456789";
const REPOSITORY: &str = "acme/agents";

/// What the stand-in is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It does what it should.
    Good,
    /// What it opens is there, and the answer gets lost.
    LosesAnswers,
    /// The same, and then it is away.
    LosesAnswersAndGoes,
    /// Away.
    Away,
    /// Its next list is empty.
    HidesOnce,
    /// 429 with `Retry-After`.
    Busy,
    /// Something that is no JSON.
    Nonsense,
    /// An answer that does not end.
    Endless,
    /// Elsewhere.
    Redirects,
    /// An address that steers a terminal.
    Hostile,
    /// 422 for what is opened.
    Refuses,
}

#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) title: String,
    pub(crate) body: String,
    pub(crate) head: String,
    pub(crate) base: String,
    state: &'static str,
}

struct Shared {
    host: Host,
    repo: Arc<TestRepo>,
    mood: Mutex<Mood>,
    opened: Mutex<Vec<Opened>>,
    log: Mutex<Vec<String>>,
    ended: AtomicBool,
}

pub(crate) struct StandIn {
    at: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Value,
}

impl StandIn {
    pub(crate) fn start(host: Host, repo: &Arc<TestRepo>) -> Self {
        Self::listen(host, repo, None)
    }

    /// With a certificate of an authority that nobody knows.
    pub(crate) fn start_tls(host: Host, repo: &Arc<TestRepo>) -> Option<(Self, tempfile::NamedTempFile)> {
        let (tls, authority) = certificates()?;
        Some((Self::listen(host, repo, Some(tls)), authority))
    }

    fn listen(host: Host, repo: &Arc<TestRepo>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let at = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            host,
            repo: Arc::clone(repo),
            mood: Mutex::new(Mood::Good),
            opened: Mutex::default(),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&serving);
                let tls = tls.clone();
                // Ends with its client.
                std::thread::spawn(move || match tls {
                    None => drop(shared.serve(stream, at, "http")),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls).expect("a session");
                        drop(shared.serve(rustls::StreamOwned::new(session, stream), at, "https"));
                    }
                });
            }
        });
        Self { at, scheme, shared, thread: Some(thread) }
    }

    pub(crate) fn forge(&self) -> Forge {
        let version = match self.shared.host {
            Host::GitHub => "/api/v3",
            Host::GitLab => "/api/v4",
            Host::Gitea => "/api/v1",
        };
        Forge {
            host: self.shared.host,
            api: format!("{}://{}{version}", self.scheme, self.at),
            repository: REPOSITORY.to_owned(),
            token: Secret::Value(HUSH.to_owned()),
            ca_file: None,
        }
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.shared.mood.lock().expect("the mood") = mood;
    }

    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.shared.opened.lock().expect("what was opened").clone()
    }

    /// A person closes one.
    pub(crate) fn close(&self, number: usize) {
        self.shared.opened.lock().expect("what was opened")[number - 1].state = "closed";
    }

    /// Where people look at one.
    pub(crate) fn address(&self, number: usize) -> String {
        self.shared.address(number, self.at, self.scheme)
    }

    /// The requests that came, as `GET /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.log.lock().expect("the log").clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.at));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn address(&self, number: usize, at: SocketAddr, scheme: &str) -> String {
        let what = match self.host {
            Host::GitHub => "pull",
            Host::GitLab => "-/merge_requests",
            Host::Gitea => "pulls",
        };
        format!("{scheme}://{at}/{REPOSITORY}/{what}/{number}")
    }

    fn serve<S: Read + Write>(&self, stream: S, at: SocketAddr, scheme: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let Some(asked) = read(&mut reader)? else { return Ok(()) };
        self.log.lock().expect("the log").push(format!("{} {}", asked.method, asked.path));
        let mood = *self.mood.lock().expect("the mood");
        let (status, answer) = self.answer(&asked, mood, at, scheme);
        let stream = reader.get_mut();
        let mut headers = String::new();
        match mood {
            Mood::Away => return Ok(()),
            Mood::LosesAnswers | Mood::LosesAnswersAndGoes if asked.method == "POST" => {
                if mood == Mood::LosesAnswersAndGoes {
                    *self.mood.lock().expect("the mood") = Mood::Away;
                }
                return Ok(());
            }
            Mood::Endless => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[")?;
                // Until the client has had enough.
                for _ in 0..1024 {
                    stream.write_all(&vec![b' '; 64 * 1024])?;
                }
                return stream.flush();
            }
            Mood::Busy => headers.push_str("Retry-After: 7\r\n"),
            Mood::Redirects => headers.push_str("Location: http://127.0.0.1:1/\r\n"),
            Mood::HidesOnce if asked.method == "GET" => *self.mood.lock().expect("the mood") = Mood::Good,
            Mood::Good
            | Mood::LosesAnswers
            | Mood::LosesAnswersAndGoes
            | Mood::HidesOnce
            | Mood::Nonsense
            | Mood::Hostile
            | Mood::Refuses => {}
        }
        let body = if mood == Mood::Nonsense { "<html>".to_owned() } else { answer.to_string() };
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        stream.flush()
    }

    fn answer(&self, asked: &Asked, mood: Mood, at: SocketAddr, scheme: &str) -> (&'static str, Value) {
        let header = |name: &str| asked.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let let_in = match self.host {
            Host::GitHub => {
                header("authorization") == Some(&*format!("Bearer {HUSH}"))
                    && header("accept") == Some("application/vnd.github+json")
                    && header("x-github-api-version") == Some("2022-11-28")
            }
            Host::GitLab => header("private-token") == Some(HUSH),
            Host::Gitea => header("authorization") == Some(&*format!("token {HUSH}")),
        };
        if !let_in || header("user-agent").is_none() {
            let message = if self.host == Host::GitLab { "401 Unauthorized" } else { "Bad credentials" };
            return ("401 Unauthorized", json!({"message": message}));
        }
        let there = match self.host {
            Host::GitHub => "/api/v3/repos/acme/agents/pulls",
            Host::GitLab => "/api/v4/projects/acme%2Fagents/merge_requests",
            Host::Gitea => "/api/v1/repos/acme/agents/pulls",
        };
        if asked.path != there {
            return ("404 Not Found", json!({"message": "Not Found"}));
        }
        match mood {
            Mood::Busy => return ("429 Too Many Requests", json!({"message": "Too Many Requests"})),
            Mood::Redirects => return ("302 Found", Value::Null),
            Mood::HidesOnce if asked.method == "GET" => return ("200 OK", json!([])),
            Mood::Hostile if asked.method == "GET" => {
                let text = "javascript:\u{1b}[2J";
                return ("200 OK", json!([{"state": text, "html_url": text, "message": text}, 7, null, "x"]));
            }
            Mood::Hostile => {
                let address = "https://x/\u{1b}[2J";
                return ("201 Created", json!({"state": "open", "html_url": address, "web_url": address}));
            }
            Mood::Refuses if asked.method == "POST" => {
                let errors = json!([{"resource": "PullRequest", "code": "custom", "message": "No commits between main and x\u{1b}[2J"}]);
                return ("422 Unprocessable Entity", json!({"message": "Validation Failed", "errors": errors}));
            }
            Mood::Good
            | Mood::LosesAnswers
            | Mood::LosesAnswersAndGoes
            | Mood::Away
            | Mood::HidesOnce
            | Mood::Nonsense
            | Mood::Endless
            | Mood::Refuses => {}
        }
        match &*asked.method {
            "GET" => ("200 OK", self.list(asked, at, scheme)),
            "POST" => self.open(asked, at, scheme),
            _ => ("405 Method Not Allowed", json!({"message": "Method Not Allowed"})),
        }
    }

    /// GitHub and GitLab filter by branches, Gitea does not.
    fn list(&self, asked: &Asked, at: SocketAddr, scheme: &str) -> Value {
        let query = |name: &str| asked.query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        assert_eq!(query("state"), Some("all"));
        let all = self.opened.lock().expect("what was opened");
        let wanted = |one: &Opened| match self.host {
            Host::GitHub => query("head") == Some(&*format!("acme:{}", one.head)) && query("base") == Some(&*one.base),
            Host::GitLab => query("source_branch") == Some(&*one.head) && query("target_branch") == Some(&*one.base),
            Host::Gitea => true,
        };
        let shown = all.iter().enumerate().filter(|(_, one)| wanted(one));
        shown.map(|(at_list, one)| self.shown(at_list + 1, one, at, scheme)).rev().collect::<Vec<_>>().into()
    }

    fn open(&self, asked: &Asked, at: SocketAddr, scheme: &str) -> (&'static str, Value) {
        let text = |name: &str| asked.body[name].as_str().unwrap_or_default().to_owned();
        let (body, head, base) = match self.host {
            Host::GitHub | Host::Gitea => ("body", "head", "base"),
            Host::GitLab => ("description", "source_branch", "target_branch"),
        };
        let new = Opened { title: text("title"), body: text(body), head: text(head), base: text(base), state: "open" };
        let missing = self.repo.raw().find_reference(&format!("refs/heads/{}", new.head)).is_err();
        if missing || new.title.is_empty() || asked.headers.iter().all(|(name, _)| name != "content-type") {
            return ("422 Unprocessable Entity", json!({"message": "Validation Failed"}));
        }
        let mut all = self.opened.lock().expect("what was opened");
        if let Some(known) = all.iter().position(|one| one.state == "open" && one.head == new.head) {
            return match self.host {
                Host::GitHub => {
                    let message = format!("A pull request already exists for acme:{}.", new.head);
                    let errors = json!([{"resource": "PullRequest", "code": "custom", "message": message}]);
                    ("422 Unprocessable Entity", json!({"message": "Validation Failed", "errors": errors}))
                }
                Host::GitLab => {
                    let message =
                        format!("Another open merge request already exists for this source branch: !{}", known + 1);
                    ("409 Conflict", json!({"message": [message]}))
                }
                Host::Gitea => {
                    let message = format!("pull request already exists for these targets [id: {}]", known + 1);
                    ("409 Conflict", json!({"message": message, "url": "/api/swagger"}))
                }
            };
        }
        all.push(new.clone());
        ("201 Created", self.shown(all.len(), &new, at, scheme))
    }

    fn shown(&self, number: usize, one: &Opened, at: SocketAddr, scheme: &str) -> Value {
        let address = self.address(number, at, scheme);
        match self.host {
            Host::GitHub => json!({
                "id": 1_000 + number, "number": number, "state": one.state, "locked": false, "title": one.title,
                "html_url": address, "merged_at": null, "draft": false,
                "head": {"label": format!("acme:{}", one.head), "ref": one.head, "repo": {"full_name": REPOSITORY}},
                "base": {"label": format!("acme:{}", one.base), "ref": one.base, "repo": {"full_name": REPOSITORY}},
            }),
            Host::GitLab => json!({
                "id": 1_000 + number, "iid": number, "project_id": 3, "title": one.title,
                "state": if one.state == "open" { "opened" } else { one.state }, "merged_at": null,
                "source_branch": one.head, "target_branch": one.base, "web_url": address,
                "merge_status": "unchecked",
            }),
            Host::Gitea => {
                // Where its branch is gone, the reference is the one that Gitea keeps itself.
                let gone = self.repo.raw().find_reference(&format!("refs/heads/{}", one.head)).is_err();
                let head = if gone { format!("refs/pull/{number}/head") } else { one.head.clone() };
                json!({
                    "id": 1_000 + number, "number": number, "state": one.state, "title": one.title,
                    "html_url": address, "merged": false, "merged_at": null,
                    "head": {"label": one.head, "ref": head, "repo_id": 3},
                    "base": {"label": one.base, "ref": one.base, "repo_id": 3},
                })
            }
        }
    }
}

fn read(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| {
        let value = value.replace("%2F", "/").replace("%3A", ":");
        (name.to_owned(), value)
    });
    let (method, path, query) = (method.to_owned(), path.to_owned(), query.collect());
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![];
    reader.take(length.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(Some(Asked { method, path, query, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }))
}
