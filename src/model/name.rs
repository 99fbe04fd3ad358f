//! The names people choose: agents, workers, environments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An agent's and a worker's name together are at most this long, so that object names fit Kubernetes' 63 characters.
pub const MAX_AGENT_AND_WORKER: usize = 42;

/// The text cannot name an agent, a worker or an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be the name of {what}: {why}", shown(.name))]
pub struct InvalidName {
    name: String,
    what: &'static str,
    why: String,
}

/// Characters of a text that is repeated in an error.
const SHOWN: usize = 128;

/// A text of somebody else's, as it is repeated in an error: escaped, and not whole where it is long.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Why `name` is no DNS label (RFC 1123) without `--`, or nothing.
fn refuse(name: &str, longest: usize, reserved: &[&str]) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() {
        Some("it is empty".to_owned())
    } else if name.len() > longest {
        Some(format!("it is {} characters long, {longest} are allowed", name.len()))
    } else if !name.bytes().all(|byte| plain(byte) || byte == b'-') {
        Some("only lower-case letters, digits and `-` are allowed".to_owned())
    } else if !name.bytes().next().is_some_and(plain) || !name.bytes().last().is_some_and(plain) {
        Some("it must begin and end with a letter or a digit".to_owned())
    } else if name.contains("--") {
        Some("`--` separates the parts of object names and cannot be in one".to_owned())
    } else if reserved.contains(&name) {
        Some("the name is reserved".to_owned())
    } else {
        None
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $longest:expr, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                match refuse(&name, $longest, $reserved) {
                    None => Ok(Self(name)),
                    Some(why) => Err(InvalidName { name, what: $what, why }),
                }
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                name.to_owned().try_into()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name!(
    /// Names an agent: the name of its folder in `agents/`.
    AgentName,
    "an agent",
    MAX_AGENT_AND_WORKER,
    &["models", "variables"]
);
name!(
    /// Names a worker of an agent.
    WorkerName,
    "a worker",
    MAX_AGENT_AND_WORKER,
    &["main"]
);
name!(
    /// Names an environment: the stem of its file in `environments/`.
    EnvironmentName,
    "an environment",
    MAX_AGENT_AND_WORKER,
    &[]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_without_double_dashes() {
        for good in ["a", "support", "support-2", "0x"] {
            assert!(good.parse::<AgentName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a--b", "a_b", "a.b", "ä", "models", "variables", &"a".repeat(43)] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad}");
        }
        assert!("models".parse::<EnvironmentName>().is_ok());
    }
}
