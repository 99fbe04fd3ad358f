//! The small languages that texts in our files are written in: names, durations, paths, images.
//!
//! Each is one pattern, published in the JSON Schema and checked here by the same expression, so that an editor and
//! the daemon agree.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::desired::freeze;
use crate::model::{AgentName, CommitId, EnvironmentName, WorkerName};

/// One small language.
pub(in crate::desired) struct Grammar {
    /// Its name: `format` in the JSON Schema.
    pub(in crate::desired) format: &'static str,
    pattern: &'static str,
    /// Characters at most.
    longest: usize,
    /// Stands after "cannot be".
    pub(in crate::desired) what: &'static str,
    pub(in crate::desired) example: &'static str,
    /// Says more than "does not match", where it can.
    why: fn(&str) -> Option<String>,
}

fn silent(_: &str) -> Option<String> {
    None
}

/// What `parse` has to say against the text, without the text itself.
fn because<T: std::str::FromStr<Err = crate::model::InvalidName>>(text: &str) -> Option<String> {
    let refused = text.parse::<T>().err()?.to_string();
    refused.rsplit_once(": ").map(|(_, why)| why.to_owned())
}

macro_rules! segment {
    () => {
        r"(?:[^./\\\p{Cc}][^/\\\p{Cc}]*|\.[^./\\\p{Cc}][^/\\\p{Cc}]*|\.\.[^/\\\p{Cc}]+)"
    };
}

const LABELS: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";
const SUBDOMAIN: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";

static GRAMMARS: [Grammar; 26] = [
    Grammar {
        format: "agent-name",
        pattern: LABELS,
        longest: 42,
        what: "the name of an agent",
        example: "support",
        why: because::<AgentName>,
    },
    Grammar {
        format: "worker-name",
        pattern: LABELS,
        longest: 42,
        what: "the name of a worker",
        example: "indexer",
        why: because::<WorkerName>,
    },
    Grammar {
        format: "environment-name",
        pattern: LABELS,
        longest: 42,
        what: "the name of an environment",
        example: "production",
        why: because::<EnvironmentName>,
    },
    Grammar {
        format: "commit-id",
        pattern: "^([0-9a-f]{40}|[0-9a-f]{64})$",
        longest: 64,
        what: "a commit",
        example: "3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b",
        why: |_| Some("the full id is expected, 40 lower-case hex digits".to_owned()),
    },
    Grammar {
        format: "period",
        pattern: "^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$",
        longest: 40,
        what: "a duration",
        example: "1h30m",
        why: why_not_a_period,
    },
    Grammar {
        format: "repository-path",
        pattern: concat!("^/?", segment!(), "(/", segment!(), ")*$"),
        longest: 1024,
        what: "a path in the repository",
        example: "prompts/system.md",
        why: why_not_a_path,
    },
    Grammar {
        format: "day",
        pattern: "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
        longest: 10,
        what: "a date",
        example: "2027-01-14",
        why: |text| {
            text.parse::<jiff::civil::Date>().err().map(|_| "a year, a month and a day are expected".to_owned())
        },
    },
    Grammar {
        format: "expiry",
        pattern: r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))?$",
        longest: 40,
        what: "a date or a time",
        example: "2027-01-14",
        why: |text| {
            Expiry(text.to_owned()).end().is_none().then(|| "a date, or a time after RFC 3339, is expected".to_owned())
        },
    },
    Grammar {
        format: "image",
        pattern: r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        longest: 512,
        what: "a container image",
        example: "registry.example.com/agent@sha256:…",
        why: silent,
    },
    Grammar {
        format: "quantity",
        pattern: r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
        longest: 32,
        what: "a quantity",
        example: "500m, 1Gi",
        why: silent,
    },
    Grammar {
        format: "percent",
        pattern: "^(100|[0-9]{1,2})%$",
        longest: 4,
        what: "a percentage",
        example: "25%",
        why: silent,
    },
    Grammar {
        format: "variable-name",
        pattern: "^[A-Za-z_][A-Za-z0-9_]*$",
        longest: 256,
        what: "the name of an environment variable",
        example: "LOG_LEVEL",
        why: silent,
    },
    Grammar {
        format: "component-name",
        pattern: "^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$",
        longest: 63,
        what: "a name here",
        example: "search_orders",
        why: |_| Some("letters, digits, `_` and `-` are allowed, 63 at most".to_owned()),
    },
    Grammar {
        format: "secret-name",
        pattern: SUBDOMAIN,
        longest: 253,
        what: "the name of a Secret",
        example: "agent-secrets",
        why: silent,
    },
    Grammar {
        format: "secret-key",
        pattern: "^[-._A-Za-z0-9]+$",
        longest: 253,
        what: "a key of a Secret",
        example: "openai-api-key",
        why: silent,
    },
    Grammar {
        format: "object-name",
        pattern: SUBDOMAIN,
        longest: 253,
        what: "the name of an object",
        example: "support",
        why: silent,
    },
    Grammar {
        format: "reference",
        pattern: r"^[^\s~^:?*\[\\\p{Cc}@-][^\s~^:?*\[\\\p{Cc}]*$",
        longest: 200,
        what: "the name of a branch or tag",
        example: "main",
        why: |text| text.contains("..").then(|| "`..` cannot be in one".to_owned()),
    },
    Grammar {
        format: "tag-pattern",
        pattern: r"^[^\s~^:?\[\\\p{Cc}-][^\s~^:?\[\\\p{Cc}]*$",
        longest: 200,
        what: "a pattern of tags",
        example: "v*",
        why: silent,
    },
    Grammar {
        format: "address",
        pattern: r"^https?://[^\s/?#@\p{Cc}]+(/[^\s#\p{Cc}]*)?$",
        longest: 2048,
        what: "an address",
        example: "https://api.example.com/v1",
        why: |text| {
            text.split('/')
                .nth(2)
                .is_some_and(|host| host.contains('@'))
                .then(|| "a user or a password in it is refused".to_owned())
        },
    },
    Grammar {
        format: "kind-and-name",
        pattern: r"^[A-Z][A-Za-z0-9]*/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        longest: 320,
        what: "an object",
        example: "ConfigMap/support-settings",
        why: |_| Some("its kind and its name are expected".to_owned()),
    },
    Grammar {
        format: "release-id",
        pattern: "^(r-[0-9a-f]{12}|[0-9a-f]{64})$",
        longest: 64,
        what: "a release",
        example: "r-3f9c2ab1d0f6",
        why: |_| Some("`r-` and 12 hex digits, or all 64, are expected".to_owned()),
    },
    Grammar {
        format: "sha256",
        pattern: "^[0-9a-f]{64}$",
        longest: 64,
        what: "a digest",
        example: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        why: |_| Some("64 lower-case hex digits are expected, as `sha256sum` prints them".to_owned()),
    },
    Grammar {
        format: "field-name",
        pattern: "^[A-Za-z0-9!#$%&'*+.^_|~-]+$",
        longest: 128,
        what: "the name of a header or a cookie",
        example: "x-user-id",
        why: silent,
    },
    Grammar {
        format: "host-name",
        pattern: SUBDOMAIN,
        longest: 253,
        what: "the name of a host",
        example: "preview.example.com",
        why: silent,
    },
    Grammar {
        format: "cron",
        pattern: r"^[^\s]+( +[^\s]+){4}$",
        longest: 120,
        what: "a schedule",
        example: "0 17 * * FRI",
        why: freeze::why_no_schedule,
    },
    Grammar {
        format: "time-zone",
        pattern: "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$",
        longest: 64,
        what: "a time zone",
        example: "Europe/Berlin",
        why: freeze::why_no_zone,
    },
];

/// The grammar that `format` names.
pub(in crate::desired) fn by_format(format: &str) -> Option<&'static Grammar> {
    GRAMMARS.iter().find(|grammar| grammar.format == format)
}

// === impl Grammar ===

impl Grammar {
    /// Whether the text is not of this language, and why.
    pub(in crate::desired) fn refuses(&self, text: &str) -> Option<String> {
        if text.chars().count() <= self.longest && self.expression().is_some_and(|expression| expression.is_match(text))
        {
            // What a pattern cannot say: reserved names, the 31st of February.
            return if matches!(self.format, "commit-id" | "component-name" | "kind-and-name" | "release-id" | "sha256")
            {
                None
            } else {
                (self.why)(text)
            };
        }
        Some((self.why)(text).unwrap_or_default())
    }

    fn expression(&self) -> Option<&'static Regex> {
        static EXPRESSIONS: OnceLock<BTreeMap<&'static str, Regex>> = OnceLock::new();
        let compiled = EXPRESSIONS.get_or_init(|| {
            GRAMMARS.iter().filter_map(|grammar| Some((grammar.format, Regex::new(grammar.pattern).ok()?))).collect()
        });
        compiled.get(self.format)
    }

    fn schema(&self) -> Schema {
        json_schema!({
            "type": "string",
            "format": self.format,
            "pattern": self.pattern,
            "minLength": 1,
            "maxLength": self.longest,
            "examples": [self.example],
        })
    }
}

fn why_not_a_path(text: &str) -> Option<String> {
    let inside = text.strip_prefix('/').unwrap_or(text);
    if text.contains('\\') {
        Some("folders are separated by `/`".to_owned())
    } else if inside.split('/').any(|name| name == ".." || name == ".") {
        Some(
            "`.` and `..` are refused: write it from the agent's folder, or from the root with a leading `/`"
                .to_owned(),
        )
    } else if inside.split('/').any(str::is_empty) {
        Some("a name between two `/` is empty".to_owned())
    } else {
        None
    }
}

fn why_not_a_period(text: &str) -> Option<String> {
    period(text)
        .is_none()
        .then(|| "numbers with the units `d`, `h`, `m`, `s`, `ms` are expected, the largest first".to_owned())
}

/// Reads `1h30m`.
fn period(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    for (unit, milliseconds) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let Some(after) = after.strip_prefix(unit) else { continue };
        // The `m` of `ms` is no minute.
        if unit == "m" && after.starts_with('s') {
            continue;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(milliseconds)?)?;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_millis(total))
}

macro_rules! texts {
    ($($(#[$doc:meta])* $type:ident = $format:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(transparent)]
        pub(in crate::desired) struct $type(pub(in crate::desired) String);

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                by_format($format).map(Grammar::schema).unwrap_or_default()
            }
        }
    )*};
}

texts! {
    /// `1h30m`.
    Period = "period";
    /// A path: from the agent's folder, or from the root of the repository with a leading `/`.
    RepoPath = "repository-path";
    /// A date, in UTC.
    Day = "day";
    /// A date (to its end, in UTC) or a time.
    Expiry = "expiry";
    /// A container image.
    Image = "image";
    /// `500m`, `1Gi`.
    Quantity = "quantity";
    /// `25%`.
    Percent = "percent";
    /// The name of an environment variable.
    VariableName = "variable-name";
    /// The name of a prompt, a model or a tool.
    ComponentName = "component-name";
    /// The name of a Secret.
    SecretName = "secret-name";
    /// A key of a Secret.
    SecretKeyName = "secret-key";
    /// The name of a Kubernetes object.
    ObjectName = "object-name";
    /// The name of a branch or a tag.
    Reference = "reference";
    /// A pattern of tags, with `*`.
    TagPattern = "tag-pattern";
    /// An HTTP address.
    Address = "address";
    /// `Kind/name`.
    KindAndName = "kind-and-name";
    /// `r-` and 12 hex digits, or the whole digest.
    ReleaseIdText = "release-id";
    /// The SHA-256 of an artifact.
    Sha256Text = "sha256";
    /// The name of a header or a cookie.
    FieldName = "field-name";
    /// The name of a host.
    HostName = "host-name";
    /// `0 17 * * FRI`: minute, hour, day of the month, month, day of the week.
    CronText = "cron";
    /// `Europe/Berlin`.
    ZoneName = "time-zone";
}

macro_rules! names {
    ($($type:ident = $format:literal;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = by_format($format).map(Grammar::schema).unwrap_or_default();
                let reserved: &[&str] = match $format {
                    "agent-name" => &["models", "variables"],
                    "worker-name" => &["main"],
                    _ => &[],
                };
                if !reserved.is_empty() {
                    schema.insert("not".to_owned(), serde_json::json!({"enum": reserved}));
                }
                schema
            }
        }
    )*};
}

names! {
    AgentName = "agent-name";
    WorkerName = "worker-name";
    EnvironmentName = "environment-name";
    CommitId = "commit-id";
}

// === impl Period ===

impl Period {
    pub(in crate::desired) fn duration(&self) -> Duration {
        period(&self.0).unwrap_or_default()
    }
}

// === impl Day ===

impl Day {
    /// When it begins, in UTC.
    pub(in crate::desired) fn start(&self) -> Option<jiff::Timestamp> {
        let date: jiff::civil::Date = self.0.parse().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    }
}

// === impl Expiry ===

impl Expiry {
    /// The first moment at which it has passed.
    pub(in crate::desired) fn end(&self) -> Option<jiff::Timestamp> {
        if self.0.contains('T') {
            return self.0.parse().ok();
        }
        let date: jiff::civil::Date = self.0.parse().ok()?;
        Some(date.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(format: &str, text: &str) -> bool {
        let grammar = by_format(format).expect("a grammar");
        let schema = grammar.schema().to_value();
        let published = jsonschema::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema)
            .expect("a schema")
            .is_valid(&serde_json::json!(text));
        let here = grammar.refuses(text).is_none();
        assert!(published || !here, "{format}: the schema refuses `{text}`, which is read");
        here
    }

    #[test]
    fn each_language_takes_its_own_and_no_other() {
        for (format, good, bad) in [
            ("agent-name", "support-2 a", "A a--b -a a- models"),
            ("worker-name", "indexer", "main In_dexer"),
            ("environment-name", "production", "Production"),
            ("commit-id", "3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b", "3f9c2ab1 HEAD main"),
            ("period", "10m 1h30m 500ms 14d 1m500ms 0s 90s", "10 m 1.5h 30m1h -1s 1w 1hh"),
            ("repository-path", "prompts/a.md /shared/a ..a/b .a a...b", "../a a/../b ./a a//b / a/ a\\b ."),
            ("day", "2027-01-14", "2027-1-14 14.01.2027 2027-02-30 soon"),
            ("expiry", "2027-01-14 2027-01-14T10:00:00Z 2027-01-14T10:00:00+02:00", "2027-01-14T10:00 tomorrow"),
            (
                "image",
                "agent:1.0 registry.example.com:5000/a/b-c:v1 nginx \
                 a/b@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                "Agent:1 a:b:c a@sha256:2c26 /a a: https://example.com/a",
            ),
            ("quantity", "500m 1Gi 2 0.5 1e3 100Mi", "1GB m 1,5 -"),
            ("percent", "25% 0% 100%", "25 101% %"),
            ("variable-name", "LOG_LEVEL _a a1", "1A A-B A.B"),
            ("component-name", "search_orders a-b A", "a.b a/b -a a_"),
            ("secret-name", "agent-secrets a.b", "Agent a_b"),
            ("secret-key", "openai-api-key a.b_c", "a/b"),
            ("object-name", "support", "Support"),
            ("reference", "main release/1.0 v1.4.2", "-a a..b a:b a?b"),
            ("tag-pattern", "v* release-*", "-v v:"),
            (
                "address",
                "https://api.example.com/v1 http://models.inference.svc:8000/v1",
                "ftp://a https://a:b@c/ api.example.com",
            ),
            ("kind-and-name", "ConfigMap/a-b Deployment/x.y", "configmap/a ConfigMap ConfigMap/A/b"),
            ("release-id", "r-3f9c2ab1d0f6", "r-3f9c 3f9c2ab1d0f6"),
            ("sha256", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "2c26 r-3f9c2ab1d0f6"),
            ("field-name", "x-user-id X_A", "a:b a/b"),
            ("host-name", "preview.example.com a", "Preview.example.com a_b *.a"),
            ("time-zone", "UTC Europe/Berlin America/Argentina/Ushuaia Etc/GMT+3", "Europe/Berln MESZ +02:00 /UTC"),
        ] {
            for text in good.split_whitespace() {
                assert!(accepts(format, text), "{format} refuses {text}");
            }
            for text in bad.split(' ').filter(|text| !text.is_empty()).chain([""]) {
                assert!(!accepts(format, text), "{format} takes `{text}`");
            }
        }
        assert_eq!(GRAMMARS.iter().filter(|grammar| grammar.expression().is_some()).count(), GRAMMARS.len());
    }

    #[test]
    fn schedules_have_five_fields_and_come() {
        for good in ["0 17 * * FRI", "*/5 9-17 1,15 * 1-5", "0  0 29 2 *", "0 0 L * *"] {
            assert!(accepts("cron", good), "{good}");
        }
        for bad in ["0 17 * *", "0 0 17 * * FRI", "61 * * * *", "0 0 30 2 *", "@daily", "a b c d e", "0 17 * * FRX"] {
            assert!(!accepts("cron", bad), "{bad}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(period("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(period("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(period("99999999999999999999d"), None);
    }

    #[test]
    fn a_date_lasts_to_its_end() {
        let end = Expiry("2036-06-30".to_owned()).end().expect("a time");
        assert_eq!(end.to_string(), "2036-07-01T00:00:00Z");
        let end = Expiry("2036-06-30T12:00:00+02:00".to_owned()).end().expect("a time");
        assert_eq!(end.to_string(), "2036-06-30T10:00:00Z");
    }
}
