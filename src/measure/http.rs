//! One server of the configuration, asked over HTTP: no redirects, no proxies of the environment, bounded in size and time.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method};
use tokio::sync::{Mutex, Semaphore};

use super::told::{because, quote};
use crate::judge::NoData;

/// Bytes of an answer.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a file with a secret or certificates.
const MAX_FILE: u64 = 1024 * 1024;
/// Letters of the shortest secret that is looked for in an answer.
const MIN_SECRET: usize = 6;
/// Questions that one server is asked at the same time.
const AT_ONCE: usize = 16;

/// How a server is reached, and as whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) header_files: BTreeMap<String, PathBuf>,
    pub(super) timeout: Duration,
}

/// One server.
pub(super) struct Server {
    access: Access,
    /// The client, and the certificates that it was made with.
    client: Mutex<Option<(Option<Vec<u8>>, Client)>>,
    turns: Semaphore,
}

/// One question.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// One answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

// === impl Server ===

impl Server {
    pub(super) fn new(access: Access) -> Self {
        Self { access, client: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.access.timeout
    }

    /// Asks, within the time that is configured.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, NoData> {
        let timeout = self.access.timeout;
        let late = |_| Err(because(format!("no answer within {} ms", timeout.as_millis())));
        tokio::time::timeout(timeout, self.exchange(question)).await.unwrap_or_else(late)
    }

    async fn exchange(&self, question: Question) -> Result<Answer, NoData> {
        let _turn = self.turns.acquire().await.map_err(|_| because("nothing is asked any more"))?;
        let mut unsaid = vec![];
        let mut headers = self.credentials(&mut unsaid)?;
        headers.extend(question.headers);
        for value in headers.values().filter(|value| value.is_sensitive()) {
            // With the scheme and without: whoever repeats a header may leave that away.
            let (whole, bare) = (value.as_bytes(), value.as_bytes().splitn(2, |byte| *byte == b' ').last());
            unsaid.extend([whole, bare.unwrap_or_default()].map(<[u8]>::to_vec));
        }
        let client = self.client().await?;
        let asked = client.request(question.method, question.url).headers(headers).body(question.body);
        let mut answer = asked.send().await.map_err(plain)?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(because("it sends elsewhere, where nobody is asked"));
        }
        let too_long = || because("its answer is longer than 4 MiB");
        if answer.content_length().is_some_and(|length| length > MAX_BYTES as u64) {
            return Err(too_long());
        }
        let mut body = vec![];
        while let Some(part) = answer.chunk().await.map_err(plain)? {
            if body.len() + part.len() > MAX_BYTES {
                return Err(too_long());
            }
            body.extend_from_slice(&part);
        }
        // Somebody reads what it says, and it knows all that it was told.
        for secret in unsaid {
            blank(&mut body, &secret);
        }
        Ok(Answer { status: status.as_u16(), body })
    }

    /// The client; made anew when the certificates that it trusts have changed.
    async fn client(&self) -> Result<Client, NoData> {
        let trusted = self.access.ca_file.as_deref().map(file).transpose()?;
        let mut kept = self.client.lock().await;
        if let Some((own, client)) = &*kept
            && *own == trusted
        {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(self.access.timeout)
            .timeout(self.access.timeout);
        if let Some(bytes) = &trusted {
            let certificates =
                Certificate::from_pem_bundle(bytes).map_err(|_| because("`ca_file` has no certificates"))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(plain)?;
        *kept = Some((trusted, client.clone()));
        Ok(client)
    }

    /// The header lines that say who asks; what is secret in them and not seen there goes to `unsaid`.
    fn credentials(&self, unsaid: &mut Vec<Vec<u8>>) -> Result<HeaderMap, NoData> {
        let Access { token_file, username, password_file, headers, header_files, .. } = &self.access;
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(
                header(name)?,
                HeaderValue::from_str(value).map_err(|_| because(format!("the header `{name}` cannot be sent")))?,
            );
        }
        for (name, path) in header_files {
            all.insert(header(name)?, sensitive(&secret(path)?)?);
        }
        if let Some(path) = token_file {
            all.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", secret(path)?))?);
        }
        if let (Some(name), Some(path)) = (username, password_file) {
            let password = secret(path)?;
            let both = crate::render::base64(format!("{name}:{password}").as_bytes());
            unsaid.push(password.into_bytes());
            all.insert(AUTHORIZATION, sensitive(&format!("Basic {both}"))?);
        }
        Ok(all)
    }
}

// === impl Answer ===

impl Answer {
    /// The JSON of an answer of success.
    pub(super) fn json(&self) -> Result<serde_json::Value, NoData> {
        if !(200..300).contains(&self.status) {
            let said = quote(&String::from_utf8_lossy(&self.body));
            return Err(because(format!("it answers {}: {said}", self.status)));
        }
        serde_json::from_slice(&self.body).map_err(|_| because("its answer is not JSON"))
    }
}

/// Puts stars in place of a secret wherever it stands. What is shorter than any secret should be stands in numbers too,
/// and stays.
fn blank(body: &mut Vec<u8>, secret: &[u8]) {
    if secret.len() < MIN_SECRET {
        return;
    }
    let mut from = 0;
    while let Some(at) = body[from..].windows(secret.len()).position(|part| part == secret) {
        body.splice(from + at..from + at + secret.len(), *b"***");
        from += at + 3;
    }
}

fn header(name: &str) -> Result<HeaderName, NoData> {
    name.parse().map_err(|_| because(format!("`{}` is not the name of a header", quote(name))))
}

/// A header's value that is never shown.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, NoData> {
    let mut value = HeaderValue::from_str(text).map_err(|_| because("a secret has letters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A secret's file, without the line's end.
pub(super) fn secret(path: &Path) -> Result<String, NoData> {
    let bytes = file(path)?;
    let text =
        String::from_utf8(bytes).map_err(|_| because(format!("the secret in `{}` is not UTF-8", path.display())))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(because(format!("the secret in `{}` is empty", path.display()))),
        text => Ok(text.to_owned()),
    }
}

fn file(path: &Path) -> Result<Vec<u8>, NoData> {
    let read = || {
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is not a file"));
        }
        let mut bytes = vec![];
        std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| because(format!("cannot read `{}`: {error}", path.display())))
}

/// What went wrong, down to its cause; never with the address, which may say more than it should.
fn plain(error: reqwest::Error) -> NoData {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    for _ in 0..8 {
        let Some(inner) = cause else { break };
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    because(format!("cannot be asked: {}", quote(&text)))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}
