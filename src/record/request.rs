//! What people ask of one agent: the `spec` of its `AgentRelease`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One field per kind of request; each is handled once, by its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requests {
    /// The agent is not reconciled at all while this stands without a later `resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<Request>,
    /// Ends a `suspend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Request>,
    /// Moves the target back to a release that was stable before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackRequest>,
    /// Lets a quarantined release try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryRequest>,
    /// Lets the rollout on its way go on: agrees to its start, or ends what it waits at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote: Option<Request>,
    /// Takes the rollout on its way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Request>,
    /// Holds the rollout on its way where it is, until a later `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Request>,
}

/// Somebody asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Unique; the time it was asked, in nanoseconds since 1970, so that later ones are larger.
    pub id: String,
    /// Who: the name that the API server knows the caller by.
    pub by: String,
    /// In their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Somebody asks for a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackRequest {
    /// Id, name and reason.
    #[serde(flatten)]
    pub request: Request,
    /// To which release (`r-…` or the whole digest); absent: the one that was stable before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Leaves telling Git to a person.
    #[serde(default)]
    pub no_git: bool,
}

/// Somebody asks that a quarantined release be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryRequest {
    /// Id, name and reason.
    #[serde(flatten)]
    pub request: Request,
    /// Which release; absent: the one that Git asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

// === impl Requests ===

impl Requests {
    /// The suspension that stands: asked for, and not resumed later.
    pub fn suspended(&self) -> Option<&Request> {
        let suspend = self.suspend.as_ref()?;
        let later = |resume: &Request| order(&resume.id) >= order(&suspend.id);
        (!self.resume.as_ref().is_some_and(later)).then_some(suspend)
    }
}

/// Ids are numbers of any length; others are older than all numbers.
fn order(id: &str) -> (usize, &str) {
    let digits = id.trim_start_matches('0');
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { (digits.len(), digits) } else { (0, "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_resume_ends_a_suspension() {
        let at = |id: &str| Some(Request { id: id.to_owned(), by: "alice".to_owned(), reason: String::new() });
        let requests = |suspend: Option<Request>, resume| Requests { suspend, resume, ..Requests::default() };
        assert!(requests(None, None).suspended().is_none());
        assert!(requests(at("9"), None).suspended().is_some());
        assert!(requests(at("9"), at("10")).suspended().is_none());
        assert!(requests(at("11"), at("10")).suspended().is_some());
    }
}
