//! All objects of one release of one agent in one namespace, in the order in which they are applied.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::desired::{Release, Settings, TargetKind};
use crate::model::{AgentName, EnvironmentName, Manifest, ObjectRef, Origin, ReleaseId, WorkerName};

use super::names::ROLLING_SET;
use super::object::{self, Context};
use super::{extra, pod, route};

/// Whose objects are rendered, and where.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// The environment it runs in.
    pub environment: &'a EnvironmentName,
    /// The namespace that the environment is bound to.
    pub namespace: &'a str,
    /// The id of this installation of Backstay.
    pub installation: &'a str,
    /// What the environment is bound to.
    pub target: TargetKind,
}

/// Which renderer made a pod template; kept with a release for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RendererVersion(u32);

/// Which set of pods a Deployment makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Set {
    /// One Deployment that Kubernetes rolls from release to release.
    Rolling,
    /// A Deployment of its own for each release.
    PerRelease,
}

/// What one operation asks for beside what is declared; never part of a pod template.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// In place of `maxSurge`: `100%` for a rollback, so that it does not wait for one pod after another.
    pub surge: Option<String>,
    /// In place of the main process's replicas, rendered even where an HPA would own them: then there is no HPA.
    pub replicas: Option<u32>,
    /// The least that an autoscaler shall keep of the main process, above what is declared for it.
    pub floor: Option<u32>,
    /// In place of the replicas of workers.
    pub workers: BTreeMap<WorkerName, u32>,
    /// Callers inside the cluster reach the pods of all sets, and not of this one alone.
    pub all_sets: bool,
    /// Where the agent is declared; absent: `agents/<agent>/agent.yaml`.
    pub origin: Option<Origin>,
}

/// What an object is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The ServiceAccount that the pods run as.
    Account,
    /// The release's files.
    Components,
    /// One of `manifests/`.
    Extra,
    /// A Job of `manifests/`: run once per release and content; gone is no drift, and going back runs none.
    Job,
    /// A Service: of one set, or of the agent for callers inside the cluster.
    Service,
    /// The Deployment of the main process, or of a worker.
    Workload(Option<WorkerName>),
    /// The PodDisruptionBudget.
    Disruption,
    /// The HorizontalPodAutoscaler.
    Autoscaler,
    /// The HTTPRoute that splits requests between releases: of the agent and not of one release.
    Route,
}

/// All objects of one release, in the order in which they are applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// In the order in which they are applied: accounts, files, `manifests/`, Services, workers, the agent, its
    /// budget and autoscaler.
    pub manifests: Vec<Manifest>,
    roles: BTreeMap<ObjectRef, Role>,
}

/// A release cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A newer version of Backstay rendered this release first.
    #[error("cannot render a release of renderer {0}: this version of Backstay has renderers up to {current}", current = RendererVersion::CURRENT)]
    Renderer(RendererVersion),
    /// Something in the declaration cannot be rendered.
    #[error("cannot render {what} ({origin}): {why}")]
    Invalid {
        /// The object or the field.
        what: String,
        /// Where it is declared.
        origin: Origin,
        /// Why not.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// Two declarations of one object.
    #[error("{object} is declared twice: {first} and {second}")]
    Duplicate {
        /// Which object.
        object: Box<ObjectRef>,
        /// Where first.
        first: Origin,
        /// Where again.
        second: Origin,
    },
}

// === impl Set ===

impl Set {
    /// The value of the label `backstay.dev/set`.
    pub fn label(self, release: &ReleaseId) -> String {
        match self {
            Self::Rolling => ROLLING_SET.to_owned(),
            Self::PerRelease => release.short(),
        }
    }
}

// === impl Role ===

impl Role {
    /// Its place in the order in which objects are applied.
    fn rank(&self) -> u8 {
        match self {
            Self::Account => 0,
            Self::Components => 1,
            Self::Extra | Self::Job => 2,
            Self::Service => 3,
            Self::Route => 4,
            Self::Workload(Some(_)) => 5,
            Self::Workload(None) => 6,
            Self::Disruption => 7,
            Self::Autoscaler => 8,
        }
    }
}

// === impl RendererVersion ===

impl RendererVersion {
    /// The version that renders new releases.
    pub const CURRENT: Self = Self(1);

    /// The number that is kept with a release.
    pub fn number(self) -> u32 {
        self.0
    }

    /// A version that was kept with a release.
    ///
    /// # Errors
    ///
    /// When it is newer than this binary has, or zero.
    pub fn known(version: u32) -> Result<Self, RenderError> {
        let version = Self(version);
        if version.0 >= 1 && version <= Self::CURRENT { Ok(version) } else { Err(RenderError::Renderer(version)) }
    }
}

impl fmt::Display for RendererVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Rendered ===

impl Rendered {
    /// What an object is for; nothing for an object that is not in it.
    pub fn role(&self, object: &ObjectRef) -> Option<&Role> {
        self.roles.get(object)
    }

    /// Its objects with one of these roles, in order.
    fn having(&self, wanted: impl Fn(&Role) -> bool) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().filter(move |manifest| self.role(&manifest.object).is_some_and(&wanted))
    }

    /// The ConfigMap with the release's files.
    pub fn config_map(&self) -> Option<&Manifest> {
        self.having(|role| *role == Role::Components).next()
    }

    /// The Deployment of the main process.
    pub fn main(&self) -> Option<&Manifest> {
        self.having(|role| *role == Role::Workload(None)).next()
    }

    /// All Deployments of the agent, workers first.
    pub fn deployments(&self) -> impl Iterator<Item = &Manifest> {
        self.having(|role| matches!(role, Role::Workload(_)))
    }

    /// Its Services: `<agent>`, then the one of the set.
    pub fn services(&self) -> impl Iterator<Item = &Manifest> {
        self.having(|role| *role == Role::Service)
    }

    /// Whether something else than `replicas` decides how many pods a Deployment of it has.
    pub fn is_autoscaled(&self, deployment: &Manifest) -> bool {
        deployment.object.kind == "Deployment" && deployment.body.pointer("/spec/replicas").is_none()
    }

    /// All of it, and what `other` has beside it, in the order in which objects are applied.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for manifest in &other.manifests {
            if let Some(role) = other.role(&manifest.object).filter(|_| !self.roles.contains_key(&manifest.object)) {
                both.add(role.clone(), manifest.clone());
            }
        }
        both
    }

    /// One object more, in its place.
    pub fn add(&mut self, role: Role, manifest: Manifest) {
        let at = self
            .manifests
            .partition_point(|other| self.roles.get(&other.object).is_some_and(|other| other.rank() <= role.rank()));
        self.roles.insert(manifest.object.clone(), role);
        self.manifests.insert(at, manifest);
    }

    /// What `manifests/` adds, Jobs included.
    pub fn extras(&self) -> impl Iterator<Item = &Manifest> {
        self.having(|role| matches!(role, Role::Extra | Role::Job))
    }
}

// === impl RenderError ===

impl RenderError {
    /// Adds the way out.
    #[must_use]
    pub(super) fn with_hint(mut self, way: &str) -> Self {
        if let Self::Invalid { hint, .. } = &mut self {
            *hint = Some(way.to_owned());
        }
        self
    }

    /// The way out, in one sentence without a full stop.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Renderer(_) => Some("run the version of Backstay that rendered it, or a newer one"),
            Self::Invalid { hint, .. } => hint.as_deref(),
            Self::Duplicate { .. } => Some("remove one of them"),
        }
    }

    /// Where what is wrong is declared; nothing where it is no file's fault.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Renderer(_) => None,
            Self::Invalid { origin, .. } | Self::Duplicate { second: origin, .. } => Some(origin),
        }
    }
}

/// Renders all objects of one release, in the order in which they are applied.
///
/// # Guarantees
///
/// The same input gives the same bytes. Pod templates depend on the release, the names of agent and environment, the kind
/// of target, `set` and `renderer` alone.
///
/// # Errors
///
/// When this binary lacks the renderer, a field cannot be rendered, an object is declared twice, or one is too large.
pub fn render(
    identity: &Identity<'_>,
    release: &Release,
    settings: &Settings,
    renderer: RendererVersion,
    set: Set,
    options: &RenderOptions,
) -> Result<Rendered, RenderError> {
    RendererVersion::known(renderer.0)?;
    let origin =
        options.origin.clone().unwrap_or_else(|| Origin::file(format!("agents/{}/agent.yaml", identity.agent)));
    let context = Context { identity: *identity, release, settings, renderer, set, options, origin };
    route::check_extras(&context)?;
    let extras = settings.manifests.iter().map(|manifest| extra::render(&context, manifest));
    let mut extras = extras.collect::<Result<Vec<_>, _>>()?;
    extras.sort_by_cached_key(|(role, manifest)| {
        (extra::rank(&manifest.object), *role == Role::Job, manifest.object.clone())
    });

    let mut objects = vec![];
    let declared = |kind: &str, name: &str| {
        extras
            .iter()
            .any(|(_, extra)| extra.object.kind == kind && extra.object.group.is_empty() && extra.object.name == name)
    };
    if let Some(account) = &release.spec.workload.service_account
        && !declared("ServiceAccount", account)
    {
        objects.push((Role::Account, object::service_account(&context, account)));
    }
    objects.push((Role::Components, object::config_map(&context)?));
    let main = pod::main(&context)?;
    let mut workloads = vec![];
    for (name, worker) in &release.spec.workers {
        let template = pod::worker(&context, name, worker)?;
        let replicas = options.workers.get(name).or_else(|| settings.worker_replicas.get(name)).copied();
        workloads.push((Some(name), template.body, replicas));
    }
    let services = object::services(&context, main.target_port.as_ref());
    workloads.push((None, main.body, settings.replicas));
    let scaled: Vec<_> = extras.iter().filter_map(|(_, extra)| extra::scales(&extra.body)).collect();
    let workloads = workloads.into_iter().map(|(worker, template, replicas)| {
        (Role::Workload(worker.cloned()), object::deployment(&context, worker, template, replicas, &scaled))
    });
    let workloads: Vec<_> = workloads.collect();
    objects.extend(extras);
    objects.extend(services.into_iter().map(|service| (Role::Service, service)));
    objects.extend(workloads);
    objects.extend(object::disruption_budget(&context).map(|budget| (Role::Disruption, budget)));
    let autoscaler = object::autoscaler(&context).filter(|_| options.replicas.is_none());
    objects.extend(autoscaler.map(|autoscaler| (Role::Autoscaler, autoscaler)));

    let mut roles = BTreeMap::new();
    let mut origins: BTreeMap<ObjectRef, Origin> = BTreeMap::new();
    let mut manifests = vec![];
    for (role, manifest) in objects {
        let (object, second) = (manifest.object.clone(), manifest.origin.clone());
        if let Some(first) = origins.insert(object.clone(), second.clone()) {
            return Err(RenderError::Duplicate { object: Box::new(object), first, second });
        }
        object::check_size(&manifest)?;
        roles.insert(object, role);
        manifests.push(manifest);
    }
    Ok(Rendered { manifests, roles })
}
