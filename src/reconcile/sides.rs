//! Two releases of one agent side by side: what stands of each, what shall stand of both, and the route between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::state::{AgentState, Shape};
use super::target::{Target, content, identity, rendering};
use crate::desired::rollout::{BlueGreen, Segment, Strategy};
use crate::desired::{Release, Settings, TargetKind};
use crate::judge::{AgentHealth, agent_health, endpoints, route_is_in_force};
use crate::model::{LiveObject, Manifest, ObjectRef, Timestamp};
use crate::plan::Plan;
use crate::record::{AgentRecord, Standing};
use crate::render::{Backend, ROUTE_GROUP, ROUTE_KIND, Rendered, Role, Routing, Set, route, service_name};
use crate::rollout::{Carrier, Instances, Phase, Rollout, Sides, Split, Wanted};

/// One release of a rollout, as it shall stand.
pub(super) struct Side {
    pub(super) release: Arc<Release>,
    settings: Arc<Settings>,
    standing: Standing,
    rendered: Arc<Rendered>,
    /// None of it shall stand.
    nothing: bool,
}

/// The set of a standing release.
pub(super) fn set_of(standing: &Standing) -> Set {
    if standing.own_set { Set::PerRelease } else { Set::Rolling }
}

/// Both releases of a rollout, as it wants them now.
///
/// # Errors
///
/// In one sentence, when one of them cannot be rendered.
pub(super) fn sides(state: &mut AgentState, record: &AgentRecord, rollout: &Rollout) -> Result<Sides<Side>, String> {
    let missing = || "the record of a rollout lacks one of its releases".to_owned();
    let (stable, candidate) =
        (record.stable.clone().ok_or_else(missing)?, record.candidate.clone().ok_or_else(missing)?);
    let wanted = rollout.wanted();
    let all_sets = rollout.carrier() == Carrier::Counted && (1..100).contains(&wanted.routes.split.weight());
    let Sides { candidate: ours, stable: theirs } = wanted.instances;
    Ok(Sides {
        candidate: Side::of(state, candidate, ours, Scaling::candidate(rollout), all_sets)?,
        stable: Side::of(state, stable, theirs, Scaling::Floor, all_sets)?,
    })
}

/// What an autoscaler that is declared has to say about one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    /// All.
    Free,
    /// No fewer instances than now: they are the way back, however little they have to do meanwhile.
    Floor,
    /// Nothing yet: what is on its way is sized by its weight.
    Fixed,
}

/// Whether the candidate has all of the traffic, and an autoscaler may have it.
fn whole(rollout: &Rollout) -> bool {
    matches!(rollout.phase(), Phase::Baking { .. } | Phase::Keeping { .. } | Phase::Done { .. })
}

// === impl Scaling ===

impl Scaling {
    fn candidate(rollout: &Rollout) -> Self {
        if whole(rollout) { Self::Free } else { Self::Fixed }
    }
}

// === impl Side ===

impl Side {
    fn of(
        state: &mut AgentState,
        standing: Standing,
        wanted: Instances,
        scaling: Scaling,
        all_sets: bool,
    ) -> Result<Self, String> {
        let (release, settings) = content(state, &standing)?;
        let nothing = wanted.agent == 0 && wanted.workers.values().all(|count| *count == 0);
        let declared = settings.autoscaling.is_some();
        // What Kubernetes rolls from release to release is its autoscaler's as ever.
        let scaling = if standing.own_set { scaling } else { Scaling::Free };
        let instances = (!declared || scaling != Scaling::Free).then_some(wanted);
        let autoscaled = declared && scaling != Scaling::Fixed;
        let shape = Shape { surge: false, instances, autoscaled, all_sets };
        let rendered = rendering(state, &release, &settings, &standing, shape)?;
        Ok(Self { release, settings, standing, rendered, nothing })
    }

    /// How its instances are.
    pub(super) fn health(&self, state: &AgentState, now: Timestamp) -> AgentHealth {
        self.health_of(state, self.rendered.deployments(), now)
    }

    /// How many of its instances are ready: of those that a route leads to, no more than its Service knows.
    pub(super) fn ready(&self, state: &AgentState, now: Timestamp) -> Instances {
        let mut ready = Instances::default();
        for deployment in self.rendered.deployments() {
            let count = self.health_of(state, [deployment], now).ready;
            match self.rendered.role(&deployment.object) {
                Some(Role::Workload(Some(worker))) => drop(ready.workers.insert(worker.clone(), count)),
                Some(_) | None => ready.agent = self.known(state).map_or(count, |known| known.min(count)),
            }
        }
        ready
    }

    /// How many of its instances a gateway may know of, where one leads to them.
    fn known(&self, state: &AgentState) -> Option<u32> {
        let is_routed = carrier(state, &self.settings) == Carrier::Routed;
        let service = service_name(&state.agent, set_of(&self.standing), &self.release.id);
        if is_routed { endpoints(&state.live, &service) } else { None }
    }

    fn health_of<'m>(
        &self,
        state: &AgentState,
        deployments: impl IntoIterator<Item = &'m Manifest>,
        now: Timestamp,
    ) -> AgentHealth {
        let live = &state.live;
        let stand =
            deployments.into_iter().filter_map(|manifest| live.objects.get(&manifest.object)).map(AsRef::as_ref);
        let of = |group, kind| live.of_kind(group, kind).map(AsRef::as_ref).collect::<Vec<&LiveObject>>();
        let id = &self.release.id;
        agent_health(id, &stand.collect::<Vec<_>>(), &of("apps", "ReplicaSet"), &of("", "Pod"), now)
    }

    /// When it is looked at for whose fault it is that it lacks instances since then.
    pub(super) fn deadline(&self, since: Timestamp) -> Option<Timestamp> {
        let allowed = SignedDuration::try_from(self.settings.progress_deadline).ok()?;
        since.checked_add(allowed).ok()
    }

    fn backend(&self, weight: u8) -> Backend {
        Backend { release: self.release.id, set: set_of(&self.standing), weight }
    }
}

// === impl Sides ===

impl Sides<Side> {
    /// What shall stand of both, with the route between them.
    ///
    /// What both have in common is the candidate's, except the address for callers inside the cluster, which is of who has
    /// the traffic; once the candidate goes back, all is stable's.
    pub(super) fn target(&self, state: &AgentState, rollout: &Rollout) -> Target {
        let wanted = rollout.wanted();
        let back = matches!(rollout.phase(), Phase::Waiting | Phase::Aborting { .. } | Phase::Aborted { .. });
        let counted_whole = rollout.carrier() == Carrier::Counted && wanted.routes.split == Split::CANDIDATE;
        let (ours, theirs) = (&self.candidate, &self.stable);
        let mut rendered = match (ours.nothing, theirs.nothing) {
            (true, _) => (*theirs.rendered).clone(),
            (false, true) => (*ours.rendered).clone(),
            (false, false) if back => theirs.rendered.beside(&ours.rendered),
            (false, false) if whole(rollout) || counted_whole => ours.rendered.beside(&theirs.rendered),
            (false, false) => with_callers_of(&theirs.rendered, &ours.rendered.beside(&theirs.rendered)),
        };
        if rollout.carrier() == Carrier::Routed
            && let Some(manifest) = self.route(state, rollout, &wanted)
        {
            rendered.add(Role::Route, manifest);
        }
        let settings = if back { &theirs.settings } else { &ours.settings };
        let previous = theirs.rendered.beside(&ours.rendered);
        Target::of_sides(state, self.candidate.release.id, Arc::new(rendered), Arc::new(previous), Arc::clone(settings))
    }

    /// The route, where both have a port.
    fn route(&self, state: &AgentState, rollout: &Rollout, wanted: &Wanted) -> Option<Manifest> {
        let spec = rollout.spec();
        let weight = match wanted.routes.split {
            Split::Weight(weight) => weight,
            Split::Segment => 0,
        };
        let port = self.stable.release.spec.workload.port?;
        let attached = wanted.routes.attached;
        // What is taken back is reached by nobody, not even on purpose.
        let open = attached && !matches!(rollout.phase(), Phase::Aborting { .. });
        let (stable, candidate) = if self.stable.nothing && weight == 100 {
            (self.candidate.backend(weight), None)
        } else {
            (self.stable.backend(100 - weight), attached.then(|| self.candidate.backend(weight)))
        };
        let (reach, preview) = match &spec.strategy {
            Strategy::Canary(canary) => (canary.reach.as_ref(), None),
            Strategy::BlueGreen(declared) => (None, preview_of(state, declared)),
            Strategy::AbTest(test) => match &test.by {
                Segment::Value(matched) if wanted.routes.split == Split::Segment => (Some(matched), None),
                Segment::Value(_) | Segment::Hash { .. } => (None, None),
            },
            Strategy::Rolling => (None, None),
        };
        let sticky = match &spec.strategy {
            Strategy::AbTest(test) => match &test.by {
                Segment::Hash { field, .. } => Some(field),
                Segment::Value(_) => None,
            },
            Strategy::Canary(_) | Strategy::BlueGreen(_) | Strategy::Rolling => spec.sticky.as_ref(),
        };
        let routing = Routing {
            stable,
            candidate,
            mirror: wanted.routes.mirror,
            reach: reach.filter(|_| open),
            sticky,
            preview: preview.as_deref().filter(|_| open),
        };
        // A Gateway that comes with the candidate leads to stable first.
        let (ours, theirs) = (&self.candidate.settings, &self.stable.settings);
        let settings = if carrier(state, theirs) == Carrier::Routed { theirs } else { ours };
        Some(route(&identity(state), settings, port, &routing))
    }
}

/// The name of a host at which the second set is seen: a host's proxy knows releases by names alone, so that there it has one
/// in every case.
pub(super) fn preview_of(state: &AgentState, declared: &BlueGreen) -> Option<String> {
    let usual = || (state.config.target == TargetKind::Host).then(|| format!("preview.{}.localhost", state.agent));
    declared.preview.clone().or_else(usual)
}

/// How traffic is split between two releases with such settings.
pub(super) fn carrier(state: &AgentState, settings: &Settings) -> Carrier {
    Carrier::of(state.config.target, settings)
}

/// The route to one release that has all of the traffic; none where requests reach it without one.
pub(super) fn whole_route(
    state: &AgentState,
    standing: &Standing,
    release: &Release,
    settings: &Settings,
) -> Option<Manifest> {
    let port = release.spec.workload.port?;
    // A host's proxy finds what rolls by its Service.
    let by_service = state.config.target == TargetKind::Host && !standing.own_set;
    if by_service || carrier(state, settings) != Carrier::Routed {
        return None;
    }
    let stable = Backend { release: standing.release, set: set_of(standing), weight: 100 };
    let sticky = settings.rollout.as_ref().and_then(|spec| spec.sticky.as_ref());
    let routing = Routing { stable, candidate: None, mirror: false, reach: None, sticky, preview: None };
    Some(route(&identity(state), settings, port, &routing))
}

/// `all`, with the address for callers inside the cluster as `of` has it.
fn with_callers_of(of: &Rendered, all: &Rendered) -> Rendered {
    let shared: BTreeMap<&ObjectRef, &Manifest> = of.services().map(|service| (&service.object, service)).collect();
    let mut mixed = all.clone();
    for manifest in &mut mixed.manifests {
        if let Some(theirs) = shared.get(&manifest.object) {
            *manifest = (*theirs).clone();
        }
    }
    mixed
}

/// Whether what carries the traffic is as `plan` was made for, and in force.
pub(super) fn is_in_force(state: &AgentState, rollout: &Rollout, plan: &Plan) -> bool {
    let (group, kind) = match rollout.carrier() {
        Carrier::InPlace => return false,
        Carrier::Routed => (ROUTE_GROUP, ROUTE_KIND),
        Carrier::Counted => ("", "Service"),
    };
    let is_carrier =
        |object: &ObjectRef| object.group == group && object.kind == kind && object.name == state.agent.as_str();
    let waits = plan.steps.iter().any(|step| is_carrier(step.object()));
    let live = state.live.of_kind(group, kind).find(|live| is_carrier(&live.object));
    match (rollout.carrier(), live) {
        (Carrier::Routed, Some(live)) => !waits && route_is_in_force(live),
        // An agent without a port has no address, and nothing to wait for.
        (Carrier::Routed | Carrier::Counted, _) => !waits,
        (Carrier::InPlace, _) => false,
    }
}
