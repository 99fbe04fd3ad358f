//! What `backstay proxy` is told: the `[proxy]` section of `backstay.toml`, or flags.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// What the proxy is told.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Settings {
    /// Addresses and ports for clients; with sockets from systemd none is needed.
    #[serde(default)]
    pub listen: Vec<ListenOn>,
    /// Addresses and ports for clients that speak TLS.
    #[serde(default)]
    pub listen_tls: Vec<ListenOn>,
    /// The certificate for `listen_tls`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Address and port of `/metrics` and `/healthz`; absent: none.
    #[serde(default)]
    pub metrics: Option<ListenOn>,
    /// The socket by which the daemon speaks to it.
    #[serde(default = "default_control")]
    pub control: PathBuf,
    /// Accounts (numbers) that may speak there, beside the proxy's own and root.
    #[serde(default)]
    pub control_uids: Vec<u32>,
    /// The routing table.
    #[serde(default = "default_table")]
    pub table: PathBuf,
    /// Proxies before this one whose `X-Forwarded-*` are believed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub trusted_hops: u8,
    /// A file for one line of JSON per request, or `stdout`; absent: none.
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// How much clients and agents may ask.
    #[serde(default)]
    pub limits: Limits,
}

/// The certificate; both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Tls {
    /// The chain (PEM), the proxy's own first.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

/// How much clients and agents may ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Limits {
    /// Bytes of a request's head.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub head_bytes: u32,
    /// Header lines of a request.
    #[schemars(range(min = 8, max = 1000))]
    pub headers: u32,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Connections of clients at a time; more wait.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// From the first byte of a head to its last.
    pub head: Span,
    /// Between two requests of a connection.
    pub idle: Span,
    /// Without a byte of a body, or without taking one of an answer.
    pub stall: Span,
    /// To connect to an instance.
    pub connect: Span,
    /// From a request to the head of its answer, the sending of its body included.
    pub answer: Span,
    /// Without a byte of an answer's body: an agent that streams must say something that often.
    pub silence: Span,
    /// For open requests to end when the proxy stops or is replaced.
    pub drain: Span,
}

/// An address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenOn(pub SocketAddr);

/// A length of time, written `90s`, `5m` or `1h 30m`; from 1 ms to 30 days.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// The settings contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the settings of the proxy cannot be used: {0}")]
pub struct InvalidSettings(String);

// === impl Settings ===

impl Settings {
    /// Checks what the types alone do not say.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let no = |why: &str| Err(InvalidSettings(why.to_owned()));
        if !self.listen_tls.is_empty() && self.tls.is_none() {
            return no("`listen_tls` needs `tls` with a certificate and a key");
        }
        if !(8192..=1024 * 1024).contains(&self.limits.head_bytes) {
            return no("`limits.head_bytes` is from 8192 to 1048576");
        }
        if !(8..=1000).contains(&self.limits.headers) {
            return no("`limits.headers` is from 8 to 1000");
        }
        if !(1..=1_000_000).contains(&self.limits.connections) {
            return no("`limits.connections` is from 1 to 1000000");
        }
        if self.trusted_hops > 16 {
            return no("`trusted_hops` is at most 16");
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listen_tls: Vec::new(),
            tls: None,
            metrics: None,
            control: default_control(),
            control_uids: Vec::new(),
            table: default_table(),
            trusted_hops: 0,
            access_log: None,
            limits: Limits::default(),
        }
    }
}

fn default_control() -> PathBuf {
    "/run/backstay/proxy.sock".into()
}

fn default_table() -> PathBuf {
    "/var/lib/backstay/routes.json".into()
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        let s = |seconds| Span(Duration::from_secs(seconds));
        Self {
            head_bytes: 64 * 1024,
            headers: 100,
            body_bytes: 64 * 1024 * 1024,
            connections: 16 * 1024,
            head: s(10),
            idle: s(75),
            stall: s(60),
            connect: s(2),
            answer: s(300),
            silence: s(3600),
            drain: s(3600),
        }
    }
}

// === impl ListenOn ===

impl FromStr for ListenOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no address with a port, like `127.0.0.1:8080`"))
    }
}

impl TryFrom<String> for ListenOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

// === impl Span ===

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("`{text}` is no length of time from 1ms to 30 days, like `90s` or `5m`");
        let span: jiff::SignedDuration = text.parse().map_err(|_| no())?;
        let span = Duration::try_from(span).map_err(|_| no())?;
        let most = Duration::from_hours(30 * 24);
        if (Duration::from_millis(1)..=most).contains(&span) { Ok(Self(span)) } else { Err(no()) }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_schema {
    ($type:ident, $description:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $description})
            }
        }
    };
}

text_schema!(ListenOn, "Address and port.");
text_schema!(Span, "A length of time, like `90s` or `5m`.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_strict() {
        let read = |text: &str| toml::from_str::<Settings>(text).map_err(|error| error.message().to_owned());
        let settings = read("listen = ['127.0.0.1:80']\ntrusted_hops = 1\n[limits]\nidle = '5m'").unwrap();
        assert_eq!((settings.limits.idle.0.as_secs(), settings.limits.head.0.as_secs()), (300, 10));
        assert!(read("listne = []").unwrap_err().contains("unknown field `listne`"));
        assert!(read("listen = ['80']").unwrap_err().contains("no address"));
        assert!(read("[limits]\nidle = '0s'").unwrap_err().contains("no length of time"));
        assert!(Settings { listen_tls: settings.listen.clone(), ..settings }.check().is_err());
    }
}
