//! Whom agents may name as a provider: the `[metrics.NAME]` sections of `backstay.toml`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// One server that measures. Its secrets stand in files, which are read at every question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenSettings")]
pub enum Settings {
    /// The HTTP API of Prometheus, or of whoever speaks it.
    Prometheus(PrometheusSettings),
    /// Datadog.
    Datadog(DatadogSettings),
    /// Amazon `CloudWatch`.
    Cloudwatch(CloudwatchSettings),
    /// An address that answers with JSON.
    Json(JsonSettings),
}

/// A [`Settings`] as it is written: exactly one of its kinds is given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    inline,
    extend("oneOf" = [
        {"required": ["prometheus"]},
        {"required": ["datadog"]},
        {"required": ["cloudwatch"]},
        {"required": ["json"]},
    ])
)]
pub struct WrittenSettings {
    /// The HTTP API of Prometheus, or of whoever speaks it.
    #[serde(default)]
    prometheus: Option<PrometheusSettings>,
    /// Datadog.
    #[serde(default)]
    datadog: Option<DatadogSettings>,
    /// Amazon `CloudWatch`.
    #[serde(default)]
    cloudwatch: Option<CloudwatchSettings>,
    /// An address that answers with JSON.
    #[serde(default)]
    json: Option<JsonSettings>,
}

/// A server with the HTTP API of Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct PrometheusSettings {
    /// Where it is; `/api/v1/query` is added.
    pub url: Url,
    /// Certificates that are trusted in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File that holds a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Name, where it asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password for `username`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Header lines of every question.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Header lines whose values stand in files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Label matchers by which presets find the series of one release: `$release`, `$agent` and `$namespace` are filled in.
    /// Absent: `service_version="$release"`, on Kubernetes with `namespace="$namespace"`.
    #[serde(default)]
    pub selector: Option<String>,
    /// How old a sample may be.
    #[serde(default = "two_minutes")]
    pub fresh: Wait,
    /// Time for one answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Wait,
}

/// Datadog.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct DatadogSettings {
    /// Its site, such as `datadoghq.eu`.
    #[serde(default = "datadog_site")]
    pub site: String,
    /// Another address than `https://api.<site>`.
    #[serde(default)]
    pub url: Option<Url>,
    /// File that holds the API key.
    pub api_key_file: PathBuf,
    /// File that holds the application key.
    pub application_key_file: PathBuf,
    /// Certificates that are trusted in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How late points may come.
    #[serde(default = "two_minutes")]
    pub fresh: Wait,
    /// Time for one answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Wait,
}

/// Amazon `CloudWatch`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct CloudwatchSettings {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// Another address than `https://monitoring.<region>.amazonaws.com`.
    #[serde(default)]
    pub url: Option<Url>,
    /// File that holds the id of the access key.
    pub access_key_id_file: PathBuf,
    /// File that holds the access key's secret.
    pub access_key_file: PathBuf,
    /// File that holds the token of a session, where the key is of one.
    #[serde(default)]
    pub session_token_file: Option<PathBuf>,
    /// Certificates that are trusted in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How late points may come.
    #[serde(default = "two_minutes")]
    pub fresh: Wait,
    /// Time for one answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Wait,
}

/// An address that answers with JSON; a metric's query is a `JSONPath` (RFC 9535) into the answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct JsonSettings {
    /// Where it is: `$release`, `$agent` and `$namespace` are filled in.
    pub url: Url,
    /// Certificates that are trusted in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File that holds a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Name, where it asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password for `username`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Header lines of every question.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Header lines whose values stand in files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Time for one answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Wait,
}

/// Who says whether a rollout may leave a step that waits for a gate. Asked with `POST`: a status of success opens it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct GateSettings {
    /// Where it is.
    pub url: Url,
    /// Certificates that are trusted in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File that holds a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Name, where it asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password for `username`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Header lines of every question.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Header lines whose values stand in files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Time for one answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Wait,
    /// What 403 means: `abort` takes the candidate back, `hold` is "not yet", as gates made for Flagger have it.
    #[serde(default)]
    pub on_forbidden: OnForbidden,
}

/// What 403 of a gate means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnForbidden {
    /// The candidate is taken back.
    #[default]
    Abort,
    /// Not yet.
    Hold,
}

/// `http://…` or `https://…`, without a name, password or fragment in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url(String);

/// A span of time, `100ms` to `15m`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Wait(pub Duration);

fn two_minutes() -> Wait {
    Wait(Duration::from_mins(2))
}

fn ten_seconds() -> Wait {
    Wait(Duration::from_secs(10))
}

fn datadog_site() -> String {
    "datadoghq.com".to_owned()
}

// === impl Settings ===

impl Settings {
    /// The names of its kinds, as they are written.
    pub const KINDS: [&'static str; 4] = ["prometheus", "datadog", "cloudwatch", "json"];
    /// Names that stand for what the target itself measures: no section may have one.
    pub const OWN: [&'static str; 2] = ["proxy", "scrape"];
}

impl TryFrom<WrittenSettings> for Settings {
    type Error = &'static str;

    fn try_from(written: WrittenSettings) -> Result<Self, Self::Error> {
        let WrittenSettings { prometheus, datadog, cloudwatch, json } = written;
        let kinds = [
            prometheus.map(Self::Prometheus),
            datadog.map(Self::Datadog),
            cloudwatch.map(Self::Cloudwatch),
            json.map(Self::Json),
        ];
        let mut given = kinds.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) | (None, _) => {
                Err("a provider is one of `prometheus`, `datadog`, `cloudwatch` and `json`")
            }
        }
    }
}

// === impl Url ===

impl Url {
    /// As it is asked, without a `/` at its end.
    pub fn as_str(&self) -> &str {
        self.0.trim_end_matches('/')
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `$release` and the like may stand in it: they are letters once filled in.
        let plain = text.replace('$', "");
        let uri: http::Uri =
            plain.parse().map_err(|_| "it is not an address such as `https://host/path`".to_owned())?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return Err("it is not an address such as `https://host/path`".to_owned());
        }
        if host.contains('@') {
            return Err("a name or password has no place in an address".to_owned());
        }
        let ends = text.find("://").map_or(0, |at| at + 3);
        if text[ends..].split(['/', '?']).next().is_some_and(|host| host.contains('$')) || text.contains('#') {
            return Err("its host is fixed, and it has no `#`".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

// === impl Wait ===

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("`{text}` is not a span of time from `100ms` to `15m`");
        let span: jiff::SignedDuration = text.parse().map_err(|_| no())?;
        let span = Duration::try_from(span).map_err(|_| no())?;
        if (Duration::from_millis(100)..=Duration::from_mins(15)).contains(&span) { Ok(Self(span)) } else { Err(no()) }
    }
}

impl TryFrom<String> for Wait {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_schema {
    ($type:ident, $format:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "description": $description})
            }
        }
    };
}

text_schema!(Url, "http-address", "`http://…` or `https://…`.");
text_schema!(Wait, "wait", "A span of time, `100ms` to `15m`.");
