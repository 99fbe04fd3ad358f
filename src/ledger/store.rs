//! The two custom resources: read, written with compare-and-swap, and asked by people.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};

use super::crd::{GROUP, VERSION};
use super::entry::{EnvironmentEntry, Kept, KeptAgent, agent_status, environment_status};
use crate::model::{AgentName, EnvironmentName, ResourceVersion, Uid};
use crate::observe::{Api, Call, Refusal, listed, segment};
use crate::reconcile::{Failure, FailureKind, LedgerEntry};
use crate::record::{AgentRecord, EnvironmentRecord, FORMAT};

/// Objects of one page of a list.
pub(super) const PAGE: u32 = 500;
/// How often a claim or an epoch is tried again when somebody else wrote in between.
const ATTEMPTS: usize = 5;

/// The ledger of one environment in its namespace.
///
/// # Guarantees
///
/// Records are written with compare-and-swap only; a record of a newer format, or one that cannot be read, is never
/// written. Nothing carries finalizers or owner references.
#[derive(Clone)]
pub struct Ledger {
    pub(super) api: Api,
    pub(super) namespace: String,
    pub(super) environment: EnvironmentName,
    pub(super) installation: String,
    /// What was written or seen last of each agent: a watch that lags behind is not believed.
    pub(super) newest: Arc<Mutex<HashMap<AgentName, (Uid, ResourceVersion)>>>,
}

/// Whether this installation may write to the namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// It is ours.
    Ours(Box<EnvironmentEntry>),
    /// Another installation, or another environment, is at home here: we only read. Why, in one sentence.
    ReadOnly(String),
}

// === impl Ledger ===

impl Ledger {
    /// The ledger of `environment` in `namespace`; `api` speaks as the daemon itself, never impersonated.
    pub fn new(
        api: Api,
        namespace: impl Into<String>,
        environment: EnvironmentName,
        installation: impl Into<String>,
    ) -> Self {
        let (namespace, installation) = (namespace.into(), installation.into());
        Self { api, namespace, environment, installation, newest: Arc::default() }
    }

    /// All agents that it holds, tombstones included.
    pub async fn agents(&self) -> Result<Vec<(AgentName, LedgerEntry)>, Failure> {
        let deed = format!("list the AgentReleases of {}", self.namespace);
        let path = self.collection("agentreleases").map_err(|refusal| refusal.failure(&deed))?;
        let listed = listed(&self.api, &path, "", PAGE, KeptAgent::of).await;
        let (kept, _) = listed.map_err(|refusal| refusal.failure(&deed))?;
        let entries = kept.into_iter().map(|kept| {
            self.saw(&kept.agent, &kept.uid, &kept.version);
            (kept.agent, kept.entry)
        });
        Ok(entries.collect())
    }

    /// One agent.
    pub async fn agent(&self, agent: &AgentName) -> Result<LedgerEntry, Failure> {
        let deed = format!("read AgentRelease/{}/{agent}", self.namespace);
        match self.get("agentreleases", agent.as_str()).await.map_err(|refusal| refusal.failure(&deed))? {
            None => Ok(LedgerEntry::Absent),
            Some(kept) => {
                self.saw(agent, &kept.uid, &kept.version);
                Ok(kept.agent_entry())
            }
        }
    }

    /// Writes a record if the ledger still holds `expected`; nothing expected: makes it. Gives the version it has now.
    ///
    /// # Errors
    ///
    /// `Conflict` when it holds another version, or something where nothing was expected; `Gone` when it was deleted;
    /// `Fenced` for a record of a newer format.
    pub async fn record(
        &self,
        agent: &AgentName,
        expected: Option<&ResourceVersion>,
        record: &AgentRecord,
    ) -> Result<ResourceVersion, Failure> {
        let deed = format!("record AgentRelease/{}/{agent}", self.namespace);
        if !record.is_writable() {
            return Err(newer(&deed, record.format));
        }
        let status = agent_status(&AgentRecord { format: record.format.max(record.least_format()), ..record.clone() });
        let kept = self
            .swap("agentreleases", "AgentRelease", agent.as_str(), expected, status)
            .await
            .map_err(|refusal| refusal.failure(&deed))?;
        self.saw(agent, &kept.uid, &kept.version);
        Ok(kept.version)
    }

    /// The environment; nothing where the ledger has none.
    pub async fn environment(&self) -> Result<Option<EnvironmentEntry>, Failure> {
        let deed = format!("read AgentEnvironment/{}/{}", self.namespace, self.environment);
        let kept = self.get("agentenvironments", self.environment.as_str()).await;
        Ok(kept.map_err(|refusal| refusal.failure(&deed))?.map(Kept::environment_entry))
    }

    /// The environment, read past all watches with the rights that a daemon has: it may list, and not get.
    pub async fn environment_listed(&self) -> Result<Option<EnvironmentEntry>, Failure> {
        let listed = self.environments(&format!("list the AgentEnvironments of {}", self.namespace)).await?;
        let ours = listed.into_iter().find(|kept| kept.name == self.environment.as_str());
        Ok(ours.map(Kept::environment_entry))
    }

    /// All environments of the namespace.
    async fn environments(&self, deed: &str) -> Result<Vec<Kept>, Failure> {
        let path = self.collection("agentenvironments").map_err(|refusal| refusal.failure(deed))?;
        let listed = listed(&self.api, &path, "", PAGE, Kept::of).await;
        Ok(listed.map_err(|refusal| refusal.failure(deed))?.0)
    }

    /// Writes the environment's record if the ledger still holds `expected`; gives the version it has now.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub async fn record_environment(
        &self,
        expected: Option<&ResourceVersion>,
        record: &EnvironmentRecord,
    ) -> Result<ResourceVersion, Failure> {
        let deed = format!("record AgentEnvironment/{}/{}", self.namespace, self.environment);
        if record.format > FORMAT {
            return Err(newer(&deed, record.format));
        }
        let status = environment_status(&EnvironmentRecord { format: FORMAT, ..record.clone() });
        let kept =
            self.swap("agentenvironments", "AgentEnvironment", self.environment.as_str(), expected, status).await;
        Ok(kept.map_err(|refusal| refusal.failure(&deed))?.version)
    }

    /// Makes the namespace ours where nobody's is, and says whose it is.
    ///
    /// The first environment of the namespace, by the server's creation time, is at home in it.
    pub async fn claim(&self) -> Result<Claim, Failure> {
        let deed = format!("claim {} for AgentEnvironment {}", self.namespace, self.environment);
        for _ in 0..ATTEMPTS {
            let mut kept = self.environments(&deed).await?;
            kept.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
            let (expected, mut record) = match kept.into_iter().next() {
                None => (None, EnvironmentRecord::default()),
                Some(first) if first.name != self.environment.as_str() => {
                    let why = format!("AgentEnvironment `{}` is at home in namespace {}", first.name, self.namespace);
                    return Ok(Claim::ReadOnly(why));
                }
                Some(first) => {
                    let entry = first.environment_entry();
                    if entry.record.format > FORMAT {
                        let why = format!("the ledger has the newer format {}", entry.record.format);
                        return Ok(Claim::ReadOnly(why));
                    }
                    if entry.record.installation == self.installation {
                        return Ok(Claim::Ours(Box::new(entry)));
                    }
                    if !entry.record.installation.is_empty() {
                        let (theirs, place) = (&entry.record.installation, &self.namespace);
                        return Ok(Claim::ReadOnly(format!("installation `{theirs}` is at home in namespace {place}")));
                    }
                    (Some(entry.version), entry.record)
                }
            };
            record.installation.clone_from(&self.installation);
            match self.record_environment(expected.as_ref(), &record).await {
                // Looked at again: somebody may have made another environment at the same time.
                Ok(_) => {}
                Err(failure) if failure.kind == FailureKind::Conflict => {}
                Err(failure) => return Err(failure),
            }
        }
        let message = format!("cannot {deed}: others kept writing to it");
        Err(Failure { kind: FailureKind::Conflict, message })
    }

    /// Begins a new epoch, as the first deed of a leader: the number, or why we only read.
    pub async fn begin_epoch(&self) -> Result<Result<u64, String>, Failure> {
        let deed = format!("begin an epoch of AgentEnvironment/{}/{}", self.namespace, self.environment);
        for _ in 0..ATTEMPTS {
            let entry = match self.claim().await? {
                Claim::Ours(entry) => entry,
                Claim::ReadOnly(why) => return Ok(Err(why)),
            };
            let mut record = entry.record;
            record.epoch += 1;
            match self.record_environment(Some(&entry.version), &record).await {
                Ok(_) => return Ok(Ok(record.epoch)),
                Err(failure) if failure.kind == FailureKind::Conflict => {}
                Err(failure) => return Err(failure),
            }
        }
        let message = format!("cannot {deed}: others kept writing to it");
        Err(Failure { kind: FailureKind::Conflict, message })
    }

    /// Remembers a version, so that nothing older is told of again.
    pub(super) fn saw(&self, agent: &AgentName, uid: &Uid, version: &ResourceVersion) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = newest.get(agent).is_none_or(|(_, held)| version.is_at_least(held));
        if newer {
            newest.insert(agent.clone(), (uid.clone(), version.clone()));
        }
    }

    /// The UID of an agent's object, where it was seen.
    pub(super) fn uid(&self, agent: &AgentName) -> Option<Uid> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(agent).map(|(uid, _)| uid.clone())
    }

    pub(super) fn collection(&self, plural: &str) -> Result<String, Refusal> {
        Ok(format!("/apis/{GROUP}/{VERSION}/namespaces/{}/{plural}", segment(&self.namespace)?))
    }

    pub(super) async fn get(&self, plural: &str, name: &str) -> Result<Option<Kept>, Refusal> {
        let path = format!("{}/{}", self.collection(plural)?, segment(name)?);
        match self.api.call(Call::get(path)).await {
            Ok(body) => Kept::of(body).map(Some).ok_or_else(unreadable),
            Err(refusal) if refusal.kind() == FailureKind::Gone => Ok(None),
            Err(refusal) => Err(without_definition(refusal)),
        }
    }

    /// At most two requests: an object without a record is made first, where nothing is expected.
    async fn swap(
        &self,
        plural: &str,
        kind: &str,
        name: &str,
        expected: Option<&ResourceVersion>,
        status: Value,
    ) -> Result<Kept, Refusal> {
        let collection = self.collection(plural)?;
        let (api_version, name_in_path) = (format!("{GROUP}/{VERSION}"), segment(name)?);
        let version = if let Some(version) = expected {
            version.clone()
        } else {
            let body = json!({
                "apiVersion": api_version, "kind": kind, "spec": {},
                "metadata": {"name": name, "namespace": self.namespace},
            });
            let call = Call::new(Method::POST, collection.clone()).query("fieldManager", "backstay").json(body);
            match self.api.call(call).await {
                Ok(made) => Kept::of(made).ok_or_else(unreadable)?.version,
                Err(refusal) if refusal.kind() == FailureKind::Exists => {
                    return Err(Refusal::Here(FailureKind::Conflict, "it is there already".to_owned()));
                }
                Err(refusal) => return Err(without_definition(refusal)),
            }
        };
        let body = json!({
            "apiVersion": api_version, "kind": kind, "status": status,
            "metadata": {"name": name, "namespace": self.namespace, "resourceVersion": version},
            "spec": {},
        });
        let call = Call::new(Method::PUT, format!("{collection}/{name_in_path}/status"))
            .query("fieldManager", "backstay")
            .json(body);
        let written = self.api.call(call).await.map_err(without_definition)?;
        Kept::of(written).ok_or_else(unreadable)
    }
}

fn newer(deed: &str, format: u32) -> Failure {
    let message = match format {
        super::UNREADABLE => format!("cannot {deed}: what stands there cannot be read; a person must look at it"),
        format => format!("cannot {deed}: it has format {format}, and this version writes {FORMAT}: it only reads"),
    };
    Failure { kind: FailureKind::Fenced, message }
}

/// Where the kinds are not served, the way out is named.
fn without_definition(refusal: Refusal) -> Refusal {
    if refusal.is_unserved() {
        let why = "the API server does not know this kind; apply manifests/crds.yaml".to_owned();
        return Refusal::Here(FailureKind::Refused, why);
    }
    refusal
}

fn unreadable() -> Refusal {
    Refusal::Unreachable("the answer has no name, UID or version".to_owned())
}
