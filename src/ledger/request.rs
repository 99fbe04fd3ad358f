//! What people ask, written under their own rights.

use http::Method;
use serde_json::{Value, json};

use super::store::Ledger;
use crate::model::{AgentName, CommitId, Timestamp};
use crate::observe::{Api, Call, Refusal, segment};
use crate::reconcile::{Failure, FailureKind};

/// What is asked of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Not to be reconciled at all.
    Suspend,
    /// The end of that.
    Resume,
    /// Back to a release that was stable before.
    Rollback {
        /// Which one (`r-…` or the whole digest); absent: the one before.
        to: Option<String>,
        /// Leaves telling Git to a person.
        no_git: bool,
    },
    /// A quarantined release may try again.
    Retry {
        /// Which one; absent: the one that Git asks for.
        release: Option<String>,
    },
    /// The rollout on its way may go on.
    Promote,
    /// It goes back.
    Abort,
    /// It waits where it is.
    Pause,
}

/// Who asks, why and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The name that the API server knows them by ([`whoami`]).
    pub by: String,
    /// In their words; may be empty.
    pub reason: String,
    /// Now: makes the request's id.
    pub at: Timestamp,
}

/// The name that the API server knows the caller by.
pub async fn whoami(api: &Api) -> Result<String, Failure> {
    let deed = "ask the API server for one's own name";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let call = Call::new(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned()).json(body);
    let answer = api.call(call).await.map_err(|refusal| refusal.failure(deed))?;
    let name = answer.pointer("/status/userInfo/username").and_then(Value::as_str).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| Failure {
        kind: FailureKind::Forbidden,
        message: format!("cannot {deed}: it knows none; are you signed in?"),
    })
}

// === impl Ledger ===

impl Ledger {
    /// Writes one request into an agent's `spec`; gives its id.
    ///
    /// # Errors
    ///
    /// `Gone` when the ledger has no such agent: nothing is made.
    pub async fn request(&self, agent: &AgentName, ask: &Ask, asker: &Asker) -> Result<String, Failure> {
        let deed = format!("ask for {} of AgentRelease/{}/{agent}", ask.word(), self.namespace);
        // A merge keeps what it does not name: every optional field is named.
        let own = match ask {
            Ask::Suspend | Ask::Resume | Ask::Promote | Ask::Abort | Ask::Pause => json!({}),
            Ask::Rollback { to, no_git } => json!({"to": to, "noGit": no_git}),
            Ask::Retry { release } => json!({"release": release}),
        };
        let hint = format!("`backstay status` lists the agents of {}", self.environment);
        self.ask("agentreleases", agent.as_str(), ask.word(), own, asker)
            .await
            .map_err(|refusal| with_hint(refusal.failure(&deed), &hint))
    }

    /// Asks to look at Git now; with a commit, accepts that a followed reference was rewound to it. Gives its id.
    ///
    /// # Errors
    ///
    /// `Gone` when the ledger has no such environment: nothing is made.
    pub async fn request_sync(&self, accept_rewind: Option<&CommitId>, asker: &Asker) -> Result<String, Failure> {
        let name = self.environment.as_str();
        let deed = format!("ask for sync of AgentEnvironment/{}/{name}", self.namespace);
        self.ask("agentenvironments", name, "sync", json!({"acceptRewind": accept_rewind}), asker)
            .await
            .map_err(|refusal| with_hint(refusal.failure(&deed), "the daemon makes it at its first start here"))
    }

    async fn ask(
        &self,
        plural: &str,
        name: &str,
        word: &str,
        mut request: Value,
        asker: &Asker,
    ) -> Result<String, Refusal> {
        let id = asker.at.as_nanosecond().to_string();
        if let Some(request) = request.as_object_mut() {
            request.insert("id".to_owned(), id.clone().into());
            request.insert("by".to_owned(), asker.by.clone().into());
            let reason = Some(asker.reason.as_str()).filter(|reason| !reason.is_empty());
            request.insert("reason".to_owned(), reason.into());
        }
        let path = format!("{}/{}", self.collection(plural)?, segment(name)?);
        let call = Call::new(Method::PATCH, path)
            .query("fieldManager", "backstay-cli")
            .query("fieldValidation", "Strict")
            .body("application/merge-patch+json", json!({"spec": {word: request}}));
        self.api.call(call).await?;
        Ok(id)
    }
}

fn with_hint(mut failure: Failure, hint: &str) -> Failure {
    if failure.kind == FailureKind::Gone {
        failure.message = format!("{}; {hint}", failure.message);
    }
    failure
}

// === impl Ask ===

impl Ask {
    /// The field of the spec.
    fn word(&self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Rollback { .. } => "rollback",
            Self::Retry { .. } => "retry",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
        }
    }
}
