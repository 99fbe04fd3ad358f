//! Values of the configuration, parsed once: durations, addresses, remotes, secrets.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::model::{EnvironmentName, GroupKind};
use crate::source::{InvalidUrl, RemoteUrl};

/// Longest [`Period`].
const LONGEST: Duration = Duration::from_hours(24);
/// Shortest [`Period`].
const SHORTEST: Duration = Duration::from_secs(1);

/// A span of time as people write it: `30s`, `1m 30s`, `PT30S`; one second to one day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

/// A DNS label (RFC 1123): a namespace, an account, an installation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Label(String);

/// Address and port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

/// Ports, `first-last`, both within: 1024 and above, the last not below the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Where the config repository is: a URL, `git@host:path`, or an absolute path. Never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Remote(pub RemoteUrl);

/// `Name <address>`, as Git writes an author.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GitIdentity {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// One thing that the policy gate lets through beyond its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Allowance {
    /// `<group>/<Kind>`, or `<Kind>` of the core group.
    Kind(GroupKind),
    /// `hostNamespaces`: pods may use the node's network, processes and ports.
    HostNamespaces,
    /// `hostPaths`: pods may mount paths of the node.
    HostPaths,
    /// `privileged`: containers may be privileged.
    Privileged,
    /// `capability:<NAME>`: containers may add it.
    Capability(String),
    /// `service:<Type>`: Services may be of that type.
    ServiceType(String),
}

/// Stands for [`EnvironmentName`] in the JSON Schema.
pub(super) struct EnvironmentText;

pub(super) fn default_installation() -> Label {
    Label("backstay".to_owned())
}

pub(super) fn default_branch() -> String {
    "main".to_owned()
}

pub(super) fn default_interval() -> Period {
    Period(Duration::from_secs(30))
}

pub(super) fn default_timeout() -> Period {
    Period(Duration::from_mins(1))
}

pub(super) fn default_in_flight() -> u32 {
    16
}

pub(super) fn default_max_objects() -> u32 {
    25
}

pub(super) fn default_max_percent() -> u32 {
    50
}

pub(super) fn default_listen() -> Listen {
    Listen(SocketAddr::from(([127, 0, 0, 1], 8740)))
}

pub(super) fn default_ports() -> PortRange {
    PortRange { first: 20_000, last: 20_999 }
}

pub(super) fn default_keep_old() -> Period {
    Period(Duration::from_mins(5))
}

pub(super) fn default_level() -> String {
    "info".to_owned()
}

pub(super) fn default_journal() -> PathBuf {
    "stdout".into()
}

pub(super) fn default_state() -> PathBuf {
    "/var/lib/backstay".into()
}

impl Default for super::Prune {
    fn default() -> Self {
        Self { max_objects: default_max_objects(), max_percent: default_max_percent() }
    }
}

impl Default for super::Http {
    fn default() -> Self {
        Self { listen: default_listen() }
    }
}

impl Default for super::Log {
    fn default() -> Self {
        Self { format: super::LogFormat::default(), level: default_level() }
    }
}

impl Default for super::Journal {
    fn default() -> Self {
        Self { path: default_journal() }
    }
}

impl Default for super::State {
    fn default() -> Self {
        Self { folder: default_state() }
    }
}

/// Checks `text` against one of the formats that this module's types put into the JSON Schema.
pub(super) fn check_format(format: &str, text: &str) -> Result<(), String> {
    match format {
        "period" => text.parse::<Period>().map(drop),
        "label" => text.parse::<Label>().map(drop),
        "listen" => text.parse::<Listen>().map(drop),
        "port-range" => text.parse::<PortRange>().map(drop),
        "git-remote" => text.parse::<Remote>().map(drop),
        "git-identity" => text.parse::<GitIdentity>().map(drop),
        "allowance" => text.parse::<Allowance>().map(drop),
        "http-address" => text.parse::<crate::measure::Url>().map(drop),
        "wait" => text.parse::<crate::measure::Wait>().map(drop),
        "environment" => text.parse::<EnvironmentName>().map(drop).map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

macro_rules! parsed {
    ($type:ident, $format:literal, $description:literal) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        text_schema!($type, $format, $description);
    };
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

parsed!(Period, "period", "A span of time: `30s`, `1m 30s`; one second to one day.");
parsed!(Label, "label", "A DNS label (RFC 1123).");
parsed!(Listen, "listen", "Address and port.");
parsed!(PortRange, "port-range", "Ports, `first-last`, from 1024 on.");
parsed!(Remote, "git-remote", "Where a Git repository is.");
parsed!(GitIdentity, "git-identity", "`Name <address>`.");
parsed!(
    Allowance,
    "allowance",
    "`<group>/<Kind>`, `hostNamespaces`, `hostPaths`, `privileged`, `capability:<NAME>` or `service:<Type>`."
);
text_schema!(EnvironmentText, "environment", "The name of an environment.");
text_schema!(Secret, "secret", "A secret.");

// === impl Period ===

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a span of time such as `30s` or `5m`");
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let span = Duration::try_from(span).map_err(|_| wrong())?;
        if (SHORTEST..=LONGEST).contains(&span) {
            Ok(Self(span))
        } else {
            Err(format!("`{text}` is out of bounds: one second to one day"))
        }
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Label ===

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain);
        if ends && text.len() <= 63 && text.bytes().all(|byte| plain(byte) || byte == b'-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is not a name of 1 to 63 lower-case letters, digits and `-`"))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

// === impl Listen ===

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is not an address and port such as `127.0.0.1:8740`"))
    }
}

// === impl PortRange ===

impl PortRange {
    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port, which is not below the first.
    pub fn last(self) -> u16 {
        self.last
    }

    /// All of them, in order.
    pub fn ports(self) -> std::ops::RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok();
        let ends = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
        let (first, last) = ends.ok_or_else(|| format!("`{text}` is not a range of ports such as `20000-20999`"))?;
        if first < 1024 {
            return Err(format!("`{text}` has ports below 1024, which only root may listen on"));
        }
        if last < first {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

// === impl Remote ===

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: RemoteUrl = text.parse().map_err(|error: InvalidUrl| error.why.to_owned())?;
        if url.local().is_some_and(Path::is_relative) {
            return Err("it is neither a URL nor an absolute path".to_owned());
        }
        Ok(Self(url))
    }
}

impl Remote {
    /// Whether the way in is SSH.
    pub(super) fn is_ssh(&self) -> bool {
        self.0.host().is_some() && !self.is_http()
    }

    /// Whether the way in is HTTP, with or without TLS.
    pub(super) fn is_http(&self) -> bool {
        let text = self.0.to_string();
        text.starts_with("http://") || text.starts_with("https://")
    }
}

// === impl GitIdentity ===

impl FromStr for GitIdentity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().strip_suffix('>').and_then(|text| text.split_once('<'));
        match parts.map(|(name, email)| (name.trim(), email.trim())) {
            Some((name, email))
                if !name.is_empty()
                    && !email.is_empty()
                    && !text.chars().any(char::is_control)
                    && !email.contains(['<', '>', ' ']) =>
            {
                Ok(Self { name: name.to_owned(), email: email.to_owned() })
            }
            Some(_) | None => Err(format!("`{text}` is not `Name <address>`")),
        }
    }
}

impl fmt::Display for GitIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

// === impl Allowance ===

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is none of `<group>/<Kind>`, `<Kind>`, `hostNamespaces`, `hostPaths`, `privileged`, \
                 `capability:<NAME>`, `service:<Type>`"
            )
        };
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match text {
            "hostNamespaces" => return Ok(Self::HostNamespaces),
            "hostPaths" => return Ok(Self::HostPaths),
            "privileged" => return Ok(Self::Privileged),
            _ => {}
        }
        match text.split_once(':') {
            Some(("capability", name)) if word(name) => return Ok(Self::Capability(name.to_owned())),
            Some(("service", kind)) if word(kind) => return Ok(Self::ServiceType(kind.to_owned())),
            Some(_) => return Err(wrong()),
            None => {}
        }
        let (group, kind) = text.rsplit_once('/').unwrap_or(("", text));
        let named = word(kind) && kind.starts_with(|first: char| first.is_ascii_uppercase());
        let grouped =
            group.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
        if named && grouped && !text.starts_with('/') {
            Ok(Self::Kind(GroupKind { group: group.to_owned(), kind: kind.to_owned() }))
        } else {
            Err(wrong())
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
