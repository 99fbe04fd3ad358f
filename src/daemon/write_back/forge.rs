//! Pull requests at a Git host, by its API: found again, or opened.
//!
//! What is asked and answered follows the hosts' own documents: GitHub REST 2022-11-28 ("List pull requests", "Create a
//! pull request"; a second one for the same branches is a 422), GitLab API v4 ("List project merge requests", "Create
//! MR"; a second open one is a 409), Gitea and Forgejo API v1 (`repoListPullRequests`, `repoCreatePullRequest`; 409).

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::redirect::Policy;
use reqwest::{Certificate, StatusCode};
use serde_json::{Value, json};

use crate::model::one_line;
use crate::reconcile::FailureKind;
use crate::source::{Secret, SourceError};

/// How long a host may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request may take.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER: u64 = 8 << 20;
/// Bytes of a file with certificates.
const CERTIFICATES: u64 = 1 << 20;
/// Pull requests on one page of a list, and pages that are looked at.
const PAGE: usize = 50;
const PAGES: usize = 4;
/// Characters of a title that every host takes.
const TITLE: usize = 250;

/// Whose API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// GitHub, also one's own.
    GitHub,
    /// GitLab: what it opens are merge requests.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
}

/// Where pull requests are opened.
#[derive(Debug, Clone)]
pub struct Forge {
    /// Whose API it is.
    pub host: Host,
    /// Its address, without a slash at the end: `https://api.github.com`, `https://gitlab.com/api/v4`, ….
    pub api: String,
    /// The repository there: `owner/name`, or with more groups at GitLab.
    pub repository: String,
    /// What it is asked with.
    pub token: Secret,
    /// Certificates (PEM) that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A pull request, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where people look at it: `http://…` or `https://…`, in one short line.
    pub address: String,
    /// How far it is.
    pub state: State,
}

/// How far a pull request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// People may merge it.
    Open,
    /// People did.
    Merged,
    /// People will not.
    Closed,
}

/// What a pull request is made of.
pub struct Proposal<'a> {
    /// Its first line.
    pub title: &'a str,
    /// The rest, as Markdown.
    pub body: &'a str,
    /// The branch with the commit.
    pub head: &'a str,
    /// The branch that it is for.
    pub base: &'a str,
}

/// A pull request cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// No answer, or half of one.
    #[error("cannot reach the API at `{api}`: {why}")]
    Unreachable {
        /// Its address.
        api: String,
        /// What happened.
        why: String,
    },
    /// It has no time for us.
    #[error("the API at `{api}` answers {status}")]
    Busy {
        /// Its address.
        api: String,
        /// What it answered.
        status: u16,
        /// In how many seconds it may be asked again.
        retry_after: Option<u64>,
    },
    /// It does not do it.
    #[error("the API at `{api}` refuses to {deed}: {status}{said}")]
    Refused {
        /// Its address.
        api: String,
        /// What it was asked for.
        deed: &'static str,
        /// What it answered.
        status: u16,
        /// In which words; nothing, or after `: `.
        said: String,
    },
    /// It says something that is not understood.
    #[error("the API at `{api}` answers something else than {expected}")]
    Nonsense {
        /// Its address.
        api: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A person closed it.
    #[error("the pull request was closed: {address}")]
    Closed {
        /// Where it is.
        address: String,
    },
    /// It was merged, and Git asks for the release again.
    #[error("the pull request was merged, and Git asks for the release again: {address}")]
    Merged {
        /// Where it is.
        address: String,
    },
    /// The token or the certificates cannot be read, or not be used.
    #[error(transparent)]
    File(#[from] SourceError),
}

// === impl ForgeError ===

impl ForgeError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { .. } => "look at `[source.pull_request] api` and `ca_file`; it is tried again",
            Self::Busy { .. } => "nothing: it is tried again",
            Self::Refused { .. } => {
                "look at `[source.pull_request]`: `api`, `repository`, and whether the token may open pull requests there"
            }
            Self::Nonsense { .. } => "look at `[source.pull_request] forge` and `api`",
            Self::Closed { .. } => "reopen it, or take the release back by hand",
            Self::Merged { .. } => "take the release back by hand, or let it try again: `backstay retry`",
            Self::File(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }

    /// What follows for who asked.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Unreachable { .. } | Self::Nonsense { .. } | Self::File(_) => {
                FailureKind::Unavailable { retry_after: None }
            }
            Self::Busy { retry_after, .. } => FailureKind::Unavailable { retry_after: *retry_after },
            Self::Refused { status: 401 | 403, .. } => FailureKind::Forbidden,
            Self::Refused { .. } | Self::Closed { .. } | Self::Merged { .. } => FailureKind::Refused,
        }
    }
}

// === impl Forge ===

impl Forge {
    /// The pull request from `head` to `base`, the open one first; nothing where there was never one.
    ///
    /// # Errors
    ///
    /// It cannot be asked, refuses, or answers what is no list of pull requests.
    pub fn find(&self, head: &str, base: &str) -> Result<Option<Opened>, ForgeError> {
        let client = self.client()?;
        let mut found: Option<Opened> = None;
        for page in 1..=PAGES {
            let query = self.query(head, base, page);
            let query = query.iter().map(|(name, value)| format!("{name}={}", coded(value)));
            let address = format!("{}?{}", self.address(), query.collect::<Vec<_>>().join("&"));
            let (status, answer) = self.ask(client.get(address))?;
            if !status.is_success() {
                return Err(self.refused("list pull requests", status, &answer));
            }
            let Value::Array(all) = answer else { return Err(self.nonsense("a list of pull requests")) };
            for one in all.iter().filter(|one| self.is_between(one, head, base)) {
                let opened = self.opened(one)?;
                if opened.state == State::Open {
                    return Ok(Some(opened));
                }
                found.get_or_insert(opened);
            }
            if found.is_some() || all.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    /// Opens a pull request; one that is there already, or whose answer was lost, is found again.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn open(&self, proposal: &Proposal<'_>) -> Result<Opened, ForgeError> {
        let title: String = proposal.title.chars().take(TITLE).collect();
        let body = match self.host {
            Host::GitHub | Host::Gitea => json!({
                "title": title, "body": proposal.body, "head": proposal.head, "base": proposal.base,
            }),
            Host::GitLab => json!({
                "title": title, "description": proposal.body,
                "source_branch": proposal.head, "target_branch": proposal.base, "remove_source_branch": true,
            }),
        };
        let request = self.client()?.post(self.address()).header("Content-Type", "application/json");
        let asked = self.ask(request.body(body.to_string()));
        let again = |error: ForgeError| self.find(proposal.head, proposal.base).ok().flatten().ok_or(error);
        match asked {
            Ok((status, answer)) if status.is_success() => match self.opened(&answer) {
                Ok(opened) => Ok(opened),
                Err(error) => again(error),
            },
            Ok((status, answer)) => {
                let error = self.refused("open a pull request", status, &answer);
                let exists = matches!(status, StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY);
                if exists { again(error) } else { Err(error) }
            }
            // It may have happened, and only the answer was lost.
            Err(error @ ForgeError::Unreachable { .. }) => again(error),
            Err(error) => Err(error),
        }
    }

    /// Where its pull requests are.
    fn address(&self) -> String {
        match self.host {
            Host::GitHub | Host::Gitea => format!("{}/repos/{}/pulls", self.api, self.repository),
            Host::GitLab => format!("{}/projects/{}/merge_requests", self.api, self.repository.replace('/', "%2F")),
        }
    }

    fn query(&self, head: &str, base: &str, page: usize) -> Vec<(&'static str, String)> {
        let mut query = match self.host {
            Host::GitHub => {
                let owner = self.repository.split('/').next().unwrap_or_default();
                vec![("state", "all".to_owned()), ("head", format!("{owner}:{head}")), ("base", base.to_owned())]
            }
            Host::GitLab => vec![
                ("state", "all".to_owned()),
                ("source_branch", head.to_owned()),
                ("target_branch", base.to_owned()),
            ],
            // It lists them all.
            Host::Gitea => vec![("state", "all".to_owned()), ("sort", "recentupdate".to_owned())],
        };
        let size = if self.host == Host::Gitea { "limit" } else { "per_page" };
        query.extend([(size, PAGE.to_string()), ("page", page.to_string())]);
        query
    }

    fn is_between(&self, one: &Value, head: &str, base: &str) -> bool {
        let is = |pointer: &str, wanted: &str| one.pointer(pointer).and_then(Value::as_str) == Some(wanted);
        match self.host {
            Host::GitHub => is("/head/ref", head) && is("/base/ref", base),
            Host::GitLab => is("/source_branch", head) && is("/target_branch", base),
            // The reference is another one when the branch is gone; the label keeps its name.
            Host::Gitea => (is("/head/ref", head) || is("/head/label", head)) && is("/base/ref", base),
        }
    }

    /// What an answer says of a pull request.
    fn opened(&self, one: &Value) -> Result<Opened, ForgeError> {
        let text = |name: &str| one.get(name).and_then(Value::as_str);
        let address = match self.host {
            Host::GitHub | Host::Gitea => text("html_url"),
            Host::GitLab => text("web_url"),
        };
        let merged = text("state") == Some("merged")
            || one.get("merged") == Some(&Value::Bool(true))
            || text("merged_at").is_some_and(|at| !at.is_empty());
        let state = match text("state") {
            _ if merged => State::Merged,
            Some("open" | "opened" | "locked") => State::Open,
            Some("closed") => State::Closed,
            Some(_) | None => return Err(self.nonsense("a pull request")),
        };
        let is_shown = |address: &&str| {
            let plain = address.len() <= 500 && !address.chars().any(|c| c.is_control() || c.is_whitespace());
            plain && (address.starts_with("https://") || address.starts_with("http://"))
        };
        let address = address.filter(is_shown).ok_or_else(|| self.nonsense("the address of a pull request"))?;
        Ok(Opened { address: address.to_owned(), state })
    }

    fn client(&self) -> Result<Client, ForgeError> {
        let mut builder = Client::builder()
            .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .redirect(Policy::none());
        if let Some(path) = &self.ca_file {
            let failed = |why: String| SourceError::File { deed: "read the certificates in", path: path.clone(), why };
            let mut text = Vec::new();
            let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
            file.take(CERTIFICATES).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&text).map_err(|error| failed(error.to_string()))?;
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map_err(|error| self.unreachable(error))
    }

    /// Sends a request; gives the status and, where it is JSON, the answer.
    fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Value), ForgeError> {
        let token = self.token.reveal()?;
        let request = match self.host {
            Host::GitHub => request
                .header("Accept", "application/vnd.github+json")
                .header("X-GitHub-Api-Version", "2022-11-28")
                .bearer_auth(token.trim()),
            Host::GitLab => request.header("PRIVATE-TOKEN", token.trim()),
            Host::Gitea => request.header("Authorization", format!("token {}", token.trim())),
        };
        let answer = request.send().map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        if let Some(busy) = self.busy(&answer) {
            return Err(busy);
        }
        let mut bytes = Vec::new();
        let read = answer.take(ANSWER + 1).read_to_end(&mut bytes);
        read.map_err(|error| ForgeError::Unreachable { api: self.api.clone(), why: error.to_string() })?;
        if bytes.len() as u64 > ANSWER {
            return Err(self.nonsense("a short answer"));
        }
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// Whether it says that it has no time for us: 429, 5xx, and GitHub's 403 for too many requests.
    fn busy(&self, answer: &Response) -> Option<ForgeError> {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let retry_after = header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        let status = answer.status();
        let limited =
            status == StatusCode::FORBIDDEN && (retry_after.is_some() || header("x-ratelimit-remaining") == Some("0"));
        (status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() || limited).then(|| ForgeError::Busy {
            api: self.api.clone(),
            status: status.as_u16(),
            retry_after,
        })
    }

    fn refused(&self, deed: &'static str, status: StatusCode, answer: &Value) -> ForgeError {
        let said = said(answer);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        ForgeError::Refused { api: self.api.clone(), deed, status: status.as_u16(), said }
    }

    fn nonsense(&self, expected: &'static str) -> ForgeError {
        ForgeError::Nonsense { api: self.api.clone(), expected }
    }

    /// What went wrong, down to its cause; the token is in a header, which is never part of it.
    fn unreachable(&self, error: reqwest::Error) -> ForgeError {
        let error = error.without_url();
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            why = format!("{why}: {inner}");
            cause = inner.source();
        }
        ForgeError::Unreachable { api: self.api.clone(), why }
    }
}

/// A value within a query (RFC 3986, section 2.3).
fn coded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut coded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            coded.push(char::from(byte));
        } else {
            coded.push_str(&format!("%{byte:02X}"));
        }
        coded
    })
}

/// The words of a refusal: `message` and the messages of `errors`, as all of these hosts write them. Plain and short.
fn said(answer: &Value) -> String {
    let mut words = vec![];
    let mut add =
        |value: &Value| match value {
            Value::String(text) => words.push(text.clone()),
            Value::Array(all) => words.extend(all.iter().filter_map(|one| {
                one.as_str().or_else(|| one.get("message").and_then(Value::as_str)).map(str::to_owned)
            })),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        };
    for name in ["message", "error", "errors"] {
        if let Some(value) = answer.get(name) {
            add(value);
        }
    }
    one_line(&words.join("; "), 300, ' ').trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forge(host: Host) -> Forge {
        Forge {
            host,
            api: "https://git.example.com/api".to_owned(),
            repository: "acme/platform/agents".to_owned(),
            token: Secret::Value("hush".to_owned()),
            ca_file: None,
        }
    }

    #[test]
    fn a_state_that_is_not_known_is_no_pull_request() {
        let address = "https://git.example.com/acme/agents/pulls/7";
        let one = |state: Value| json!({"html_url": address, "web_url": address, "state": state});
        for host in [Host::GitHub, Host::GitLab, Host::Gitea] {
            let opened = |value: &Value| forge(host).opened(value).map(|opened| opened.state).ok();
            assert_eq!(opened(&one(json!("closed"))), Some(State::Closed));
            for bad in [json!("draft?"), json!(null), json!(7), json!(["open"])] {
                assert_eq!(opened(&one(bad)), None);
            }
        }
        let merged = json!({"html_url": address, "state": "closed", "merged_at": "2026-11-24T10:00:00Z"});
        assert_eq!(forge(Host::GitHub).opened(&merged).expect("one").state, State::Merged);
        for bad in ["javascript:alert(1)", "https://x/\u{1b}[2J", "https://x/ y", ""] {
            let one = json!({"html_url": bad, "state": "open"});
            assert!(forge(Host::GitHub).opened(&one).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_project_in_groups_is_one_word() {
        let address = forge(Host::GitLab).address();
        assert_eq!(address, "https://git.example.com/api/projects/acme%2Fplatform%2Fagents/merge_requests");
    }

    #[test]
    fn refusals_are_read_in_each_hosts_words() {
        let github = json!({"message": "Validation Failed", "errors": [{"message": "No commits between main and x"}]});
        assert_eq!(said(&github), "Validation Failed; No commits between main and x");
        assert_eq!(said(&json!({"message": ["Another open merge request"]})), "Another open merge request");
        assert_eq!(said(&json!({"message": "a\u{1b}[2J"})), "a [2J");
        assert_eq!(said(&json!([1, 2])), "");
    }
}
