//! What Git says: values in place of a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backstay::desired::{
    Code, Consent, DesiredAgent, DesiredState, EnvironmentSpec, Gateway, ImagePolicy, Release, ReleaseSpec, Rolling,
    Route, Settings, Workload, WriteBack,
};
use backstay::model::{
    AgentName, Diagnostic, Diagnostics, Digest, Manifest, ObjectRef, Origin, ReleaseId, Revision, Timestamp,
};
use backstay::reconcile::TellGit;
use backstay::record::Standing;
use serde_json::{Value, json};

use super::cluster::NAMESPACE;

/// Git's word, and all that it ever said.
#[derive(Clone, Default)]
pub(crate) struct Git {
    pub(crate) agents: BTreeMap<AgentName, Result<Arc<DesiredAgent>, Diagnostics>>,
    pub(crate) consents: Vec<Consent>,
    /// Nothing of it can be read, not even the mirror, until somebody commits again.
    pub(crate) lost: bool,
    /// It said something, be it that nobody is left.
    spoken: bool,
    known: Vec<Arc<DesiredAgent>>,
    /// Commits of ours that the next poll brings.
    pushed: BTreeMap<AgentName, Arc<DesiredAgent>>,
    /// What commits of ours took back.
    own: BTreeSet<(AgentName, ReleaseId)>,
}

pub(crate) fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

pub(crate) fn agent() -> AgentName {
    name("support")
}

pub(crate) fn start() -> Timestamp {
    "2026-03-02T10:00:00Z".parse().expect("a time")
}

pub(crate) fn revision(text: &str) -> Revision {
    let commit = Digest::of(text.as_bytes()).to_string()[..40].parse().expect("a commit id");
    Revision { reference: "main".to_owned(), commit }
}

/// What Git asks for: an agent whose prompt is `prompt`.
pub(crate) fn desired(
    name: &AgentName,
    prompt: &str,
    edit: impl FnOnce(&mut ReleaseSpec, &mut Settings),
) -> DesiredAgent {
    let bytes: Arc<[u8]> = prompt.as_bytes().into();
    let mut spec = ReleaseSpec {
        format: 1,
        code: Code { image: Some("registry.example.com/agent:1".to_owned()), artifact: None, command: None },
        prompts: BTreeMap::from([("system".to_owned(), Digest::of(&bytes))]),
        models: BTreeMap::new(),
        tools: BTreeMap::new(),
        memory: None,
        config: None,
        workload: Workload { port: Some(8000), ..Workload::default() },
        workers: BTreeMap::new(),
    };
    let mut settings = Settings {
        digest: Digest::of(b""),
        replicas: Some(2),
        worker_replicas: BTreeMap::new(),
        history: 3,
        progress_deadline: Duration::from_mins(10),
        rolling: Rolling::default(),
        disruption_budget: None,
        depends_on: vec![],
        autoscaling: None,
        deployment: None,
        manifests: vec![],
        flags: None,
        route: None,
        host: backstay::desired::HostSettings::default(),
        rollout: None,
    };
    edit(&mut spec, &mut settings);
    let settings = settings.named().expect("settings");
    DesiredAgent {
        name: name.clone(),
        revision: revision(&format!("{name} {prompt} {}", settings.digest)),
        release: Arc::new(Release::new(spec, BTreeMap::from([("system".to_owned(), bytes)])).expect("a release")),
        settings: Arc::new(settings),
        renamed_from: None,
        origin: Origin::file("agents/support/agent.yaml"),
        warnings: Diagnostics::default(),
    }
}

/// A route of a Gateway, as agents have it whose requests are split.
pub(crate) fn route() -> Route {
    let gateway = Gateway { name: "public".to_owned(), namespace: Some("gateways".to_owned()) };
    Route { hosts: vec!["support.example.com".to_owned()], path: "/".to_owned(), gateway: Some(gateway) }
}

/// An object of an agent's `manifests/`.
pub(crate) fn manifest(body: Value) -> Manifest {
    Manifest {
        object: ObjectRef::of(&body, NAMESPACE).expect("an identity"),
        body: body.into(),
        origin: Origin::file("agents/support/manifests/extra.yaml"),
    }
}

/// A ConfigMap of an agent's `manifests/`.
pub(crate) fn extra(name: &str) -> Manifest {
    manifest(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}))
}

impl Git {
    pub(crate) fn says(&mut self, desired: DesiredAgent) {
        (self.lost, self.spoken) = (false, true);
        let desired = Arc::new(desired);
        self.known.push(Arc::clone(&desired));
        self.pushed.remove(&desired.name);
        self.agents.insert(desired.name.clone(), Ok(desired));
    }

    /// A commit whose declaration of the agent cannot be used.
    pub(crate) fn is_bad(&mut self, agent: &AgentName) {
        (self.lost, self.spoken) = (false, true);
        let origin = Origin { file: format!("agents/{agent}/agent.yaml").into(), line: 3, column: 1 };
        self.agents.insert(agent.clone(), Err(Diagnostic::error(origin, "unknown field").into()));
    }

    /// A commit without the agent.
    pub(crate) fn removes(&mut self, agent: &AgentName) {
        (self.lost, self.spoken) = (false, true);
        self.agents.remove(agent);
    }

    pub(crate) fn has_spoken(&self) -> bool {
        self.spoken && !self.lost
    }

    pub(crate) fn state(&self) -> DesiredState {
        DesiredState {
            environment: "production".parse().expect("a name"),
            head: revision("head"),
            tracked: revision("head"),
            spec: EnvironmentSpec {
                track: None,
                after: None,
                agents: None,
                pins: BTreeMap::new(),
                images: ImagePolicy::Digest,
                waves: backstay::desired::Waves::default(),
                freezes: vec![],
                approvals: 0,
                write_back: WriteBack::Revert,
                origin: Origin::file("environments/production.yaml"),
            },
            agents: self.agents.clone(),
            consents: self.consents.clone(),
            warnings: Diagnostics::default(),
        }
    }

    /// What it said at the revision that stands.
    pub(crate) fn at(&self, name: &AgentName, standing: &Standing) -> Option<Arc<DesiredAgent>> {
        let mut known = self.known.iter().rev().filter(|known| known.name == *name);
        known.find(|known| known.revision == standing.revision).cloned()
    }

    /// Our own commit is pushed, unless Git already says so; the next poll brings it.
    pub(crate) fn told(&mut self, tell: &TellGit) -> Option<String> {
        let asks = self.agents.get(&tell.agent)?.as_ref().ok()?;
        let told = (tell.agent.clone(), tell.left.release);
        if asks.release.id != tell.left.release {
            return self.own.contains(&told).then(|| "c0ffee".to_owned());
        }
        let back = self.known.iter().rev().find(|known| {
            known.name == tell.agent
                && known.release.id == tell.back_to.release
                && known.settings.digest == tell.back_to.settings
        });
        if let Some(back) = back {
            self.pushed.insert(tell.agent.clone(), Arc::clone(back));
        }
        self.own.insert(told);
        Some("c0ffee".to_owned())
    }

    /// All but its last words is forgotten.
    pub(crate) fn forget(&mut self) {
        let surplus = self.known.len().saturating_sub(60);
        self.known.drain(..surplus);
        self.own.clear();
    }

    /// A poll: says whether it brought anything.
    pub(crate) fn arrive(&mut self) -> bool {
        let pushed = std::mem::take(&mut self.pushed);
        let any = !pushed.is_empty();
        self.agents.extend(pushed.into_iter().map(|(name, desired)| (name, Ok(desired))));
        any
    }
}
