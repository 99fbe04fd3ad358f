//! What shall stand, rendered; its plan, its health, and how the record tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::learn::body_digest;
use super::sides::{set_of, whole_route};
use super::state::{AgentState, RenderKey, Shape, kept, to_keep};
use super::{FailureKind, Reason, Wanted};
use crate::desired::{Release, Settings};
use crate::judge::{AgentHealth, Health, agent_health};
use crate::model::{LiveObject, Manifest, ObjectRef, ReleaseId, Severity, Timestamp, Uid};
use crate::plan::{Plan, PlanInput, WaitingOn, owns, plan};
use crate::record::{AgentRecord, ConditionKind, MAX_MAKING, Operation, OperationKind, Requests, Standing, Truth};
use crate::render::{FIELD_MANAGER, Identity, RenderOptions, Rendered, RendererVersion, Role, TRAFFIC_MANAGER, render};

/// Renderings kept in memory for one agent.
const RENDERINGS: usize = 3;

/// What shall stand: of the open operation, or of the stable release.
pub(super) struct Target {
    release: Option<ReleaseId>,
    rendered: Option<Arc<Rendered>>,
    previous: Option<Arc<Rendered>>,
    settings: Option<Arc<Settings>>,
    /// What its rendering depends on.
    pub(super) key: Option<RenderKey>,
    pub(super) leaves: BTreeMap<ObjectRef, bool>,
}

impl Target {
    /// Nothing shall stand and nothing is open: `None`.
    ///
    /// # Errors
    ///
    /// In one sentence, when what shall stand cannot be rendered.
    pub(super) fn of(state: &mut AgentState, record: &AgentRecord) -> Result<Option<Self>, String> {
        let nothing = Self::nothing(state);
        let newest = record.operation.as_ref().or(record.operations.first());
        let goes_back = newest.is_some_and(|operation| operation.cause.goes_back());
        let standing = match &record.operation {
            Some(open) if open.kind == OperationKind::Removal => {
                return Ok(Some(nothing));
            }
            Some(_) => record.candidate.as_ref(),
            None => record.stable.as_ref(),
        };
        let Some(standing) = standing.cloned() else { return Ok(None) };
        // A set of its own never rolls: a rollout has made it already, and nothing of it is in a hurry.
        let surge = goes_back && !standing.own_set;
        let (release, settings) = content(state, &standing)?;
        let mut rendered = rendering(state, &release, &settings, &standing, Shape { surge, ..Shape::default() })?;
        let before = record.stable.clone().filter(|_| record.operation.is_some());
        let previous = match before {
            Some(before) => content(state, &before)
                .ok()
                .filter(|(_, found)| found.digest == before.settings)
                .and_then(|(release, settings)| rendering(state, &release, &settings, &before, Shape::default()).ok()),
            None => Some(Arc::clone(&rendered)),
        };
        if let Some(manifest) = whole_route(state, &standing, &release, &settings) {
            Arc::make_mut(&mut rendered).add(Role::Route, manifest);
        }
        let key = key(&release, &settings, &standing, Shape { surge, ..Shape::default() });
        let release = Some(standing.release);
        let (rendered, settings, key) = (Some(rendered), Some(settings), Some(key));
        Ok(Some(Self { release, rendered, previous, settings, key, ..nothing }))
    }

    /// Both sides of a rollout.
    pub(super) fn of_sides(
        state: &AgentState,
        candidate: ReleaseId,
        rendered: Arc<Rendered>,
        previous: Arc<Rendered>,
        settings: Arc<Settings>,
    ) -> Self {
        let (release, rendered, settings) = (Some(candidate), Some(rendered), Some(settings));
        Self { release, rendered, previous: Some(previous), settings, ..Self::nothing(state) }
    }

    /// Nothing of one's own, as while an agent goes.
    pub(super) fn nothing(state: &AgentState) -> Self {
        let leaves = state.admission.as_deref().map(|admission| admission.leaves.clone()).unwrap_or_default();
        Self { release: None, rendered: None, previous: None, settings: None, key: None, leaves }
    }

    /// Whether it asks for an object of this name.
    pub(super) fn asks(&self, object: &ObjectRef) -> bool {
        self.manifests().iter().any(|manifest| manifest.object == *object)
    }

    fn manifests(&self) -> &[Manifest] {
        self.rendered.as_ref().map_or(&[], |rendered| &rendered.manifests)
    }

    /// How many old releases keep their ConfigMap.
    pub(super) fn history(&self) -> usize {
        self.settings.as_ref().map_or(10, |settings| settings.history as usize)
    }

    /// The settings of a standing, for the record.
    pub(super) fn settings_to_keep(&self, standing: &Standing) -> Option<String> {
        to_keep(self.settings.as_ref().filter(|settings| settings.digest == standing.settings)?)
    }

    /// When an operation that is not healthy by then is looked at for whose fault it is.
    pub(super) fn deadline(&self, open: &Operation) -> Option<Timestamp> {
        let allowed = SignedDuration::try_from(self.settings.as_ref()?.progress_deadline).ok()?;
        open.started.checked_add(allowed).ok()
    }

    /// The health of the release that shall stand.
    pub(super) fn health(&self, state: &AgentState, now: Timestamp) -> AgentHealth {
        let Some(release) = &self.release else {
            return AgentHealth { health: Health::Healthy, findings: vec![], ready: 0, wanted: 0, old: 0 };
        };
        let live = &state.live;
        let ours = self.rendered.iter().flat_map(|rendered| rendered.deployments());
        let deployments: Vec<&LiveObject> =
            ours.filter_map(|manifest| live.objects.get(&manifest.object)).map(AsRef::as_ref).collect();
        let of = |group, kind| live.of_kind(group, kind).map(AsRef::as_ref).collect::<Vec<&LiveObject>>();
        agent_health(release, &deployments, &of("apps", "ReplicaSet"), &of("", "Pod"), now)
    }

    /// What brings the target to it.
    pub(super) fn plan(&self, state: &AgentState, record: &AgentRecord, health: &AgentHealth) -> Plan {
        let missing = self.rendered.iter().flat_map(|rendered| rendered.deployments());
        let missing = missing.map(|manifest| &manifest.object).find(|object| !state.live.objects.contains_key(object));
        let unhealthy = match (&health.health, missing) {
            (_, Some(object)) => Some(format!("{object} to be there")),
            (Health::Healthy | Health::Suspended, None) => None,
            (Health::Progressing { reason } | Health::Degraded { reason, .. }, None) => {
                Some(format!("it to become ready: {reason}"))
            }
            (Health::Missing | Health::Unknown, None) => Some("its pods to be seen".to_owned()),
        };
        self.plan_where(state, record, unhealthy.as_deref())
    }

    /// The same, where it is known what is still waited for before anything is pruned; nothing: no more.
    pub(super) fn plan_where(&self, state: &AgentState, record: &AgentRecord, unhealthy: Option<&str>) -> Plan {
        let admission = state.admission.as_deref();
        let none: BTreeMap<ObjectRef, Uid> = BTreeMap::new();
        let consents = admission.map_or(&[][..], |admission| &admission.consents);
        // Digests are taken of what was refused alone: that is seldom anything.
        let asked = |object: &ObjectRef| {
            let manifest = self.manifests().iter().find(|manifest| manifest.object == *object)?;
            Some(body_digest(&manifest.body))
        };
        let refused = state.memory.refused.iter();
        let refused = refused.filter(|(object, refusal)| asked(object).is_none_or(|asked| asked == refusal.asked));
        let refused = refused
            .map(|(object, refusal)| (object.clone(), (refusal.why.clone(), refusal.kind == FailureKind::Immutable)))
            .collect();
        let mut plan = plan(&PlanInput {
            agent: &state.agent,
            desired: self.manifests(),
            previous: self.previous.as_ref().map(|previous| &*previous.manifests),
            live: &state.live,
            record,
            takes: admission.map_or(&none, |admission| &admission.takes),
            leaves: &self.leaves,
            consents,
            kept: &if self.release.is_some() {
                kept(&state.agent, &state.config.namespace, record, &state.live)
            } else {
                std::collections::BTreeSet::default()
            },
            accepted: &state.memory.accepted,
            refused: &refused,
            handed_over: &state.memory.handed_over,
            dropped: &state.memory.dropped,
            unhealthy,
            gate: &state.config.gate,
        });
        if record.unconfirmed {
            plan.keep_back_prunes("the ledger was rebuilt, and `backstay retry` has not confirmed it yet");
        }
        plan
    }

    /// Who wrote the fields of `object` last beside us, as far as the server says.
    pub(super) fn who_writes(state: &AgentState, object: &ObjectRef) -> String {
        let live = state.live.objects.get(object);
        let managers = live.and_then(|live| live.body.pointer("/metadata/managedFields")?.as_array());
        let text = |entry: &serde_json::Value, field: &str| {
            entry.get(field).and_then(serde_json::Value::as_str).map(str::to_owned)
        };
        let others = managers.into_iter().flatten().filter(|entry| {
            text(entry, "manager").is_some_and(|manager| ![FIELD_MANAGER, TRAFFIC_MANAGER].contains(&&*manager))
                && text(entry, "subresource").is_none()
        });
        let newest = others.max_by_key(|entry| text(entry, "time"));
        newest
            .and_then(|entry| text(entry, "manager"))
            .map_or_else(|| "somebody".to_owned(), |manager| format!("`{manager}`"))
    }
}

/// Release and settings of a standing.
pub(super) fn content(state: &mut AgentState, standing: &Standing) -> Result<(Arc<Release>, Arc<Settings>), String> {
    let release = state.release(standing.release).ok_or_else(|| {
        format!("the content of {} is not known: neither Git nor a ConfigMap has it", standing.release)
    })?;
    let settings = state
        .settings(standing.settings)
        .ok_or_else(|| format!("the settings of {} are not known until Git can be read", standing.release))?;
    Ok((release, settings))
}

fn key(release: &Release, settings: &Settings, standing: &Standing, shape: Shape) -> RenderKey {
    let (renderer, own_set) = (standing.renderer, standing.own_set);
    RenderKey { release: release.id, settings: settings.digest, renderer, own_set, shape }
}

/// Whose objects are rendered, and where.
pub(super) fn identity(state: &AgentState) -> Identity<'_> {
    let config = &state.config;
    Identity {
        agent: &state.agent,
        environment: &config.environment,
        namespace: &config.namespace,
        installation: &config.installation,
        target: config.target,
    }
}

/// The objects of one release as it stands, from memory where they were rendered before.
pub(super) fn rendering(
    state: &mut AgentState,
    release: &Release,
    settings: &Settings,
    standing: &Standing,
    shape: Shape,
) -> Result<Arc<Rendered>, String> {
    let key = key(release, settings, standing, shape);
    if let Some((_, rendered)) = state.memory.renderings.iter().find(|(known, _)| *known == key) {
        return Ok(Arc::clone(rendered));
    }
    let version = RendererVersion::known(standing.renderer).map_err(|error| error.to_string())?;
    let Shape { surge, instances, autoscaled, all_sets } = &key.shape;
    let agent = instances.as_ref().map(|instances| instances.agent);
    let options = RenderOptions {
        surge: surge.then(|| "100%".to_owned()),
        replicas: agent.filter(|_| !autoscaled),
        floor: agent.filter(|_| *autoscaled),
        workers: instances.as_ref().map(|instances| instances.workers.clone()).unwrap_or_default(),
        all_sets: *all_sets,
        origin: None,
    };
    let rendered = render(&identity(state), release, settings, version, set_of(standing), &options);
    let rendered = Arc::new(rendered.map_err(|error| error.to_string())?);
    state.memory.renderings.insert(0, (key, Arc::clone(&rendered)));
    state.memory.renderings.truncate(RENDERINGS);
    Ok(rendered)
}

impl AgentState {
    /// An object of the inventory, or one that an operation set out to make, that is not seen, or seen as another one,
    /// and that no fresh read told of.
    pub(super) fn missed(&self, target: &Target, record: &AgentRecord) -> Option<ObjectRef> {
        let doubtful = |object: &&ObjectRef| {
            !self.live.objects.contains_key(object)
                && !self.memory.gone.contains(object)
                && target.leaves.get(object) != Some(&true)
                && !target.asks(object)
        };
        let seen = |object: &&ObjectRef| !self.live.unseen.contains_key(&object.group_kind());
        let mut making = record.making.iter().filter(doubtful);
        // What is not listed tells by and by; an agent that goes has no later.
        let removal = target.release.is_none();
        let made = making.find(|object| removal || seen(object));
        let other = |(object, _): &(&ObjectRef, &Uid)| {
            self.live.objects.get(*object).is_some_and(|live| self.in_doubt(record, live))
                && target.leaves.get(*object) != Some(&true)
        };
        let other = record.inventory.0.iter().find(other).map(|(object, _)| object);
        record.inventory.0.keys().filter(doubtful).find(seen).or(other).or(made).cloned()
    }

    /// Whether a list shows another object than the inventory has: the list may be old, so a fresh read decides.
    fn in_doubt(&self, record: &AgentRecord, live: &LiveObject) -> bool {
        record.inventory.0.get(&live.object).is_some_and(|uid| *uid != live.uid) && !self.was_shown(live)
    }

    /// Notes the names of what `target` asks for and does not stand yet.
    pub(super) fn set_out(&self, target: &Target, record: &mut AgentRecord) {
        let stands = |object: &ObjectRef| {
            self.live.objects.get(object).is_some_and(|live| record.inventory.owns(object, &live.uid))
        };
        let asked = target.manifests().iter().map(|manifest| &manifest.object);
        let missing: Vec<_> = asked.filter(|object| !stands(object)).cloned().collect();
        record.making.extend(missing);
        // What this operation makes stays, whatever earlier ones may have left.
        while record.making.len() > MAX_MAKING
            && let Some(oldest) = record.making.iter().find(|object| !target.asks(object)).cloned()
        {
            record.making.remove(&oldest);
        }
    }

    /// Puts every object of ours that stands into the inventory, and takes out what is gone.
    pub(super) fn collect_inventory(&self, target: &Target, record: &mut AgentRecord) {
        let none = BTreeMap::new();
        let takes = self.admission.as_deref().map_or(&none, |admission| &admission.takes);
        let asked = target.manifests().iter().map(|manifest| &manifest.object);
        let named = asked.chain(&record.making).chain(record.inventory.0.keys());
        let named = named.filter_map(|object| self.live.objects.get(object));
        // Somebody else's object under a name of ours is not ours for that.
        let ours = named.filter(|live| {
            owns(&self.agent, record, takes, live)
                && target.leaves.get(&live.object) != Some(&true)
                && !self.in_doubt(record, live)
        });
        let mut next: BTreeMap<_, _> = ours.map(|live| (live.object.clone(), live.uid.clone())).collect();
        let decided = |object: &ObjectRef| {
            self.live.objects.contains_key(object)
                || self.memory.gone.contains(object)
                || target.leaves.get(object) == Some(&true)
        };
        record.making.retain(|object| !decided(object));
        for (object, uid) in &record.inventory.0 {
            // A watch alone proves neither absence nor another one in its place: a list may be old.
            let live = self.live.objects.get(object);
            let replaced = live.is_some_and(|live| live.uid != *uid && !self.in_doubt(record, live));
            let done_job = object.kind == "Job" && target.asks(object);
            let gone = replaced || self.memory.gone.contains(object) && !done_job;
            let moved = target.leaves.get(object) == Some(&true);
            if !gone && !moved {
                next.entry(object.clone()).or_insert_with(|| uid.clone());
            }
        }
        record.inventory.0 = next;
    }
}

// === how the record tells of it ===

/// How an agent stands, for its conditions.
pub(super) enum Situation<'a> {
    Suspended(&'a Requests),
    Progressing {
        waiting: &'a [WaitingOn],
        stalled: Option<&'a str>,
    },
    /// A rollout is on its way: how far, and what a person must do.
    Rolling {
        text: &'a str,
        stalled: Option<&'a str>,
    },
    Stalled {
        word: &'static str,
        why: &'a str,
    },
    Failed {
        why: &'a str,
    },
    Unhealthy {
        word: &'static str,
        why: &'a str,
        contested: Option<&'a str>,
    },
    Ready {
        contested: Option<&'a str>,
        blocked: &'a [WaitingOn],
    },
    Kept(&'a Reason),
    Removed,
}

impl Situation<'_> {
    /// Writes the conditions; nothing changes where they say so already.
    pub(super) fn tell(&self, record: &mut AgentRecord, now: Timestamp) {
        use ConditionKind::{Contested, Degraded, GitBehind, Progressing, PruneBlocked, Ready, Stalled, Suspended};
        let mut set =
            |kind, status, reason: &str, message: &str| record.set_condition(kind, status, reason, message, now);
        match self {
            Self::Suspended(requests) => {
                let by = requests.suspended().map_or("somebody", |request| &request.by);
                set(Suspended, Truth::True, "Suspended", &format!("suspended by {by}: `backstay resume` ends it"));
                return;
            }
            Self::Progressing { waiting, stalled } => {
                let text: Vec<_> = waiting.iter().map(ToString::to_string).collect();
                let text = if text.is_empty() { String::new() } else { format!("waiting for {}", text.join("; ")) };
                set(Progressing, Truth::True, "Progressing", &text);
                set(Ready, Truth::False, "Progressing", &text);
                let person = waiting.iter().find(|waiting| waiting.needs_a_person()).map(ToString::to_string);
                let person = person.map(|what| format!("waiting for {what}"));
                let prune = waiting.iter().find(|waiting| waiting.holds_a_prune()).map(ToString::to_string);
                match prune {
                    Some(what) => {
                        let text = format!("waiting for {what}");
                        record.set_condition(PruneBlocked, Truth::True, "Waiting", &text, now);
                    }
                    None => record.clear_condition(PruneBlocked),
                }
                match stalled.map(str::to_owned).or(person) {
                    Some(why) => record.set_condition(Stalled, Truth::True, "Waiting", &why, now),
                    None => record.clear_condition(Stalled),
                }
            }
            Self::Rolling { text, stalled } => {
                set(Progressing, Truth::True, "Rollout", text);
                set(Ready, Truth::False, "Rollout", text);
                record.clear_condition(PruneBlocked);
                match stalled {
                    Some(why) => record.set_condition(Stalled, Truth::True, "Waiting", why, now),
                    None => record.clear_condition(Stalled),
                }
            }
            Self::Stalled { word, why } => {
                set(Stalled, Truth::True, word, why);
                set(Ready, Truth::False, word, why);
            }
            Self::Failed { why } => {
                set(Degraded, Truth::True, "Failed", why);
                set(Ready, Truth::False, "Failed", why);
                record.clear_condition(Progressing);
            }
            Self::Unhealthy { word, why, contested } => {
                set(Ready, Truth::False, word, why);
                set(Degraded, Truth::True, word, why);
                record.clear_condition(Progressing);
                contest(record, *contested, now);
            }
            Self::Ready { contested, blocked } => {
                record.clear_condition(Progressing);
                record.clear_condition(Stalled);
                match record.differs.clone() {
                    Some(differs) => {
                        set_ready(record, Truth::False, "Differs", &differs.why, now);
                        record.set_condition(Degraded, Truth::True, "Differs", &differs.why, now);
                    }
                    None => {
                        set_ready(record, Truth::True, "Ready", "", now);
                        record.clear_condition(Degraded);
                    }
                }
                contest(record, *contested, now);
                let text: Vec<_> = blocked.iter().map(ToString::to_string).collect();
                if text.is_empty() {
                    record.clear_condition(PruneBlocked);
                } else {
                    let text = format!("waiting for {}", text.join("; "));
                    record.set_condition(PruneBlocked, Truth::True, "Waiting", &text, now);
                }
            }
            Self::Kept(reason) => {
                if reason.stalled {
                    set(Stalled, Truth::True, reason.word, &reason.message);
                }
                set(Ready, Truth::False, reason.word, &reason.message);
            }
            Self::Removed => {
                for kind in [Progressing, Degraded, Stalled, Contested, PruneBlocked, GitBehind] {
                    record.clear_condition(kind);
                }
                record.set_condition(Ready, Truth::False, "Removed", "Git no longer has it", now);
            }
        }
        record.clear_condition(Suspended);
        behind(record, now);
    }
}

fn set_ready(record: &mut AgentRecord, status: Truth, reason: &str, message: &str, now: Timestamp) {
    record.set_condition(ConditionKind::Ready, status, reason, message, now);
}

fn contest(record: &mut AgentRecord, why: Option<&str>, now: Timestamp) {
    match why {
        Some(why) => record.set_condition(ConditionKind::Contested, Truth::True, "Contested", why, now),
        None => record.clear_condition(ConditionKind::Contested),
    }
}

fn behind(record: &mut AgentRecord, now: Timestamp) {
    use crate::record::Told;
    let failed = record.differs.as_ref().and_then(|differs| record.quarantined(differs.desired));
    let failed = failed.filter(|failed| !failed.word.is_empty());
    let text = match record.hold.as_ref().map(|hold| (&hold.git, hold)) {
        Some((Told::Refused(why), _)) => format!("Git could not be told of the rollback, and is tried again: {why}"),
        None if failed.is_some() => match failed.map(|failed| (&failed.git, failed.release)) {
            Some((Told::Refused(why), _)) => format!("Git could not be told of the failure, and is tried again: {why}"),
            Some((Told::ByHand, release)) => {
                format!("{release} failed, and this environment does not tell Git: revert it there")
            }
            Some((Told::Commit(proposed), _)) if proposed.contains("://") => {
                format!("a person must merge what takes it back: {proposed}")
            }
            Some((Told::Pending | Told::Commit(_), _)) | None => {
                return record.clear_condition(ConditionKind::GitBehind);
            }
        },
        Some((Told::ByHand, hold)) => {
            format!("{} moved the target back without telling Git: revert {} there", hold.by, hold.left)
        }
        Some((Told::Pending | Told::Commit(_), _)) | None => {
            return record.clear_condition(ConditionKind::GitBehind);
        }
    };
    record.set_condition(ConditionKind::GitBehind, Truth::True, "NotTold", &text, now);
}

// === impl Plan ===

impl Plan {
    /// What the linter says must not be carried out.
    pub(super) fn errors(&self) -> impl Iterator<Item = String> + '_ {
        self.notes.iter().filter(|note| note.severity == Severity::Error).map(|note| note.kind.to_string())
    }

    /// Takes deletions out of what is done now, and waits for a person instead.
    pub(super) fn keep_back_prunes(&mut self, why: &str) {
        let (prunes, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.steps).into_iter().partition(|step| step.mark() == '-');
        self.steps = others;
        self.waiting.extend(prunes.iter().map(|step| WaitingOn::Consent {
            allow: "prune",
            object: step.object().clone(),
            why: why.to_owned(),
        }));
    }
}

impl Wanted {
    /// Whether it asks for something to run.
    pub fn runs(&self) -> bool {
        matches!(self, Self::Run(_))
    }
}
