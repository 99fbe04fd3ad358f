//! What the agent's machine knows: nothing that ledger, checkout and live state cannot rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;

use super::{Admission, FailureKind, LedgerEntry, TellGit, Write};
use crate::desired::{DesiredAgent, Release, Settings, TargetKind};
use crate::model::{
    AgentName, Digest, EnvironmentName, LiveObject, LiveState, ObjectRef, ReleaseId, ResourceVersion, Timestamp,
};
use crate::plan::GatePolicy;
use crate::record::{AgentRecord, MAX_SETTINGS, Requests, RolloutRecord, Standing};
use crate::render::{MANAGED_BY, MANAGED_BY_LABEL, Rendered, config_map_name};
use crate::rollout::{Answer, GateQuestion, Instances, Judging, Rollout, Smoked};

/// How long what our own calls showed counts for more than a watch that has not caught up.
const OVERLAY: SignedDuration = SignedDuration::from_secs(10);
/// The same of an object that no watch of ours shows, since somebody else made it.
const UNWATCHED: SignedDuration = SignedDuration::from_mins(2);
/// Releases, settings and renderings that are kept in memory for one agent.
const MEMORY: usize = 4;

/// What is the same for all agents of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// The environment.
    pub environment: EnvironmentName,
    /// The namespace it is bound to.
    pub namespace: String,
    /// The id of this installation.
    pub installation: String,
    /// What the environment is bound to.
    pub target: TargetKind,
    /// What may be written at all.
    pub gate: GatePolicy,
    /// Nothing is written, neither to the target nor to the ledger.
    pub observe: bool,
    /// The gates that the daemon's configuration names, and how long an answer of each may take.
    pub gates: BTreeMap<String, SignedDuration>,
}

/// What the machine of one agent knows.
#[derive(Debug, Clone)]
pub struct AgentState {
    pub(super) agent: AgentName,
    pub(super) config: Arc<AgentConfig>,
    pub(super) admission: Option<Arc<Admission>>,
    pub(super) ledger: Option<Ledger>,
    pub(super) pending: Option<Pending>,
    pub(super) memory: Memory,
    pub(super) backoff: Backoff,
    /// The same of telling Git, which is another server.
    pub(super) git_backoff: Backoff,
    /// What the ledger holds was read past all caches, or written by us, since the start.
    pub(super) ledger_confirmed: bool,
    pub(super) fenced: Option<String>,
    /// The judge of the rollout that is on its way.
    pub(super) judging: Option<Judging>,
    /// What came of a look at a release through its preview, until the rollout has heard it.
    pub(super) smoked: Option<(ReleaseId, Smoked)>,
    /// The same of a gate.
    pub(super) gate_said: Option<(Box<GateQuestion>, Answer)>,
    seen: Arc<LiveState>,
    overlay: BTreeMap<ObjectRef, Overlay>,
    /// `seen` with `overlay` over it.
    pub(super) live: Arc<LiveState>,
    /// When it asked to be woken.
    pub(super) woken_at: Option<Timestamp>,
    /// When it has a reason to be woken: the one for which it asked may have gone since.
    pub(super) wants: Option<Timestamp>,
}

/// The ledger's entry as it was read or written last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger {
    pub(super) record: Arc<AgentRecord>,
    pub(super) requests: Requests,
    /// Nothing: the ledger has no entry yet.
    pub(super) version: Option<ResourceVersion>,
    /// An object stands there, but without a record: its status was lost, or never written.
    pub(super) blank: bool,
}

/// The one effect that is outstanding.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pending {
    Record(Arc<AgentRecord>),
    Write { write: Write, heal: bool },
    DryRun { write: Write, asked: Digest },
    Delete(ObjectRef),
    Read(ObjectRef),
    ReadLedger,
    TellGit(TellGit),
}

/// What our own calls showed of one object.
#[derive(Debug, Clone, PartialEq)]
struct Overlay {
    /// Nothing: it was not there.
    object: Option<Arc<LiveObject>>,
    until: Timestamp,
}

/// What is remembered only to spare requests; losing it costs some.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Differences that the server would not change.
    pub(super) accepted: BTreeMap<ObjectRef, Digest>,
    /// The rendering that stood here without any difference: the server takes it as it is.
    pub(super) clean: Option<RenderKey>,
    /// Objects that were refused, as they were asked for.
    pub(super) refused: BTreeMap<ObjectRef, Refusal>,
    /// How often in a row a write of an object came to nothing, for reasons that may pass.
    pub(super) in_vain: BTreeMap<ObjectRef, InVain>,
    /// The same of the ledger.
    pub(super) ledger_in_vain: u32,
    /// Objects whose replicas this operation handed over.
    pub(super) handed_over: BTreeSet<ObjectRef>,
    /// Objects whose former fields this operation dropped.
    pub(super) dropped: BTreeSet<ObjectRef>,
    /// Objects that a fresh read, or our own deletion, showed to be gone.
    pub(super) gone: BTreeSet<ObjectRef>,
    /// When drift of an object was healed, the latest last.
    pub(super) heals: BTreeMap<ObjectRef, Vec<Timestamp>>,
    /// Since when the pods of the stable release are not all ready.
    pub(super) unhealthy_since: Option<Timestamp>,
    /// Contested objects that were read to learn who changes them.
    pub(super) asked_who: BTreeSet<ObjectRef>,
    /// Objects that are not healed any more, with who changes them.
    pub(super) contested: BTreeMap<ObjectRef, String>,
    /// Objects that a write may or may not have reached: read before anything else.
    pub(super) unsure: Vec<ObjectRef>,
    /// The same of the ledger.
    pub(super) ledger_unsure: bool,
    /// Take-backs that the record does not count yet: healing waits for nobody, and is told after.
    pub(super) untold: u64,
    /// When this decision wants to be looked at again.
    pub(super) alarm: Option<Timestamp>,
    /// Since when the candidate of a rollout has fewer instances than it shall have.
    pub(super) unsized_since: Option<Timestamp>,
    /// The instances that the candidate had, all of them ready.
    pub(super) had: Option<Instances>,
    /// When the evidence of a rollout was recorded last.
    pub(super) evidence_saved: Option<Timestamp>,
    /// When the preview of a rollout was asked last.
    pub(super) smoke_asked: Option<Timestamp>,
    /// How often it failed in a row.
    pub(super) smoke_failed: u32,
    /// When the gate that a rollout is at was asked last, and whether its answer is still to come.
    pub(super) gate_asked: Option<(Timestamp, bool)>,
    /// The rollout that the record holds, read.
    pub(super) rollout: Option<(RolloutRecord, Rollout)>,
    /// What Git asked for when it could last be used.
    pub(super) last_run: Option<Arc<DesiredAgent>>,
    releases: Vec<Arc<Release>>,
    settings: Vec<Arc<Settings>>,
    pub(super) renderings: Vec<(RenderKey, Arc<Rendered>)>,
}

/// What a rendering depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RenderKey {
    pub(super) release: ReleaseId,
    pub(super) settings: Digest,
    pub(super) renderer: u32,
    pub(super) own_set: bool,
    pub(super) shape: Shape,
}

/// What is asked for beside what is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Pods are replaced all at once.
    pub(super) surge: bool,
    /// As many instances, and not as the settings say.
    pub(super) instances: Option<Instances>,
    /// An autoscaler has the agent's own instances, and keeps at least as many.
    pub(super) autoscaled: bool,
    /// Callers inside the cluster reach all sets.
    pub(super) all_sets: bool,
}

/// Writes of one object that came to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InVain {
    pub(super) times: u32,
    /// The last one was a creation, and met an object: one that is there is an answer.
    pub(super) met: bool,
}

/// The server refused an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// As it was asked for: another body is tried at once.
    pub(super) asked: Digest,
    pub(super) why: String,
    pub(super) kind: FailureKind,
    /// When it is tried again, since quotas and policies change.
    pub(super) until: Timestamp,
}

/// How long to wait after failures: doubled each time from a quarter of a second to a minute, with jitter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Backoff {
    failures: u32,
    pub(super) until: Option<Timestamp>,
    pub(super) why: String,
}

// === impl AgentState ===

impl AgentState {
    /// Knows nothing yet but its name and what the target has in common.
    pub fn new(agent: AgentName, config: Arc<AgentConfig>) -> Self {
        Self {
            agent,
            config,
            admission: None,
            ledger: None,
            pending: None,
            memory: Memory::default(),
            backoff: Backoff::default(),
            git_backoff: Backoff::default(),
            ledger_confirmed: false,
            fenced: None,
            judging: None,
            smoked: None,
            gate_said: None,
            seen: Arc::default(),
            overlay: BTreeMap::new(),
            live: Arc::default(),
            woken_at: None,
            wants: None,
        }
    }

    /// The record as it was read or written last.
    pub fn record(&self) -> Option<&Arc<AgentRecord>> {
        self.ledger.as_ref().map(|ledger| &ledger.record)
    }

    /// Whether this very entry is the one that it goes by: read, or written by itself and acknowledged.
    pub fn holds(&self, entry: &LedgerEntry) -> bool {
        match (&self.ledger, entry) {
            (Some(held), LedgerEntry::Present { record, requests, generation, version }) => {
                held.version.as_ref() == Some(version)
                    && held.record.observed_generation == Some(*generation)
                    && held.requests == *requests
                    && held.record == *record
                    && !self.memory.ledger_unsure
                    && !matches!(self.pending, Some(Pending::ReadLedger))
            }
            (Some(_) | None, LedgerEntry::Absent) | (None, LedgerEntry::Present { .. }) => false,
        }
    }

    /// Whether an effect is outstanding.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether there still is a reason to wake it, at the time that it asked for; if not, nothing need be decided.
    pub fn is_due(&mut self, now: Timestamp) -> bool {
        let due = self.wants.is_some_and(|at| at <= now);
        if !due {
            self.woken_at = None;
        }
        due
    }

    /// Forgets what can be seen and rendered again, where nothing is under way; says whether it did.
    ///
    /// [`rouse`](Self::rouse) must come before its next step.
    pub fn doze(&mut self) -> bool {
        let open = self.record().is_some_and(|record| record.operation.is_some());
        let waits = self.backoff.until.is_some() || self.memory.unhealthy_since.is_some();
        if self.is_busy() || open || waits || !self.overlay.is_empty() {
            return false;
        }
        self.seen = Arc::default();
        self.live = Arc::default();
        self.memory.renderings = Vec::new();
        // A release that Git asks for is kept there anyway; of others the ConfigMap still stands.
        self.memory.releases.retain(|release| Arc::strong_count(release) > 1);
        true
    }

    /// Shows what stands to a machine that rested.
    pub fn rouse(&mut self, seen: LiveState) {
        self.seen = Arc::new(seen);
        self.merge();
    }

    /// Takes what Git asks for where it is what it asked for before, at another commit: nothing need be decided.
    pub fn follow(&mut self, admission: &Arc<Admission>) {
        self.learn(admission);
    }

    /// Takes what the watches saw; what our own calls showed since stays over it until the watches catch up.
    pub(super) fn see(&mut self, seen: LiveState, now: Timestamp) {
        let caught_up = |object: &ObjectRef, overlay: &Overlay| match (&overlay.object, seen.objects.get(object)) {
            (Some(ours), Some(theirs)) => theirs.version.is_at_least(&ours.version),
            (None, Some(_)) | (Some(_), None) => false,
            (None, None) => true,
        };
        self.overlay.retain(|object, overlay| overlay.until > now && !caught_up(object, overlay));
        self.seen = Arc::new(seen);
        self.merge();
    }

    /// Takes what a call of ours showed of one object; nothing: it is not there.
    pub(super) fn note(&mut self, object: &ObjectRef, shown: Option<Arc<LiveObject>>, now: Timestamp) {
        if shown.is_some() {
            self.memory.gone.remove(object);
        } else {
            self.memory.gone.insert(object.clone());
            self.memory.refused.remove(object);
        }
        // No watch shows what is not labelled as ours: asking for it every few seconds would never end.
        let watched = shown.as_ref().is_none_or(|live| live.label(MANAGED_BY_LABEL) == Some(MANAGED_BY));
        let lasts = if watched { OVERLAY } else { UNWATCHED };
        self.overlay.insert(object.clone(), Overlay { object: shown, until: now.saturating_add(lasts).unwrap_or(now) });
        self.merge();
    }

    /// Whether a call of ours showed this very object, and not a watch alone.
    pub(super) fn was_shown(&self, live: &LiveObject) -> bool {
        let shown = self.overlay.get(&live.object).and_then(|overlay| overlay.object.as_ref());
        shown.is_some_and(|shown| shown.uid == live.uid)
    }

    /// When the next overlay ends.
    pub(super) fn overlay_ends(&self) -> Option<Timestamp> {
        self.overlay.values().map(|overlay| overlay.until).min()
    }

    /// Drops overlays whose time has passed.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let before = self.overlay.len();
        self.overlay.retain(|_, overlay| overlay.until > now);
        if self.overlay.len() != before {
            self.merge();
        }
        self.memory.refused.retain(|_, refusal| refusal.until > now);
    }

    fn merge(&mut self) {
        if self.overlay.is_empty() {
            self.live = Arc::clone(&self.seen);
            return;
        }
        let mut live = LiveState::clone(&self.seen);
        for (object, overlay) in &self.overlay {
            match &overlay.object {
                // The watch was faster than the answer, and tells no more of it.
                Some(shown) if self.seen.objects.get(object).is_some_and(|seen| is_newer(seen, shown)) => {}
                Some(shown) => drop(live.objects.insert(object.clone(), Arc::clone(shown))),
                None => drop(live.objects.remove(object)),
            }
        }
        self.live = Arc::new(live);
    }

    /// The content of a release: from Git, from memory, or from the ConfigMap that still stands.
    pub(super) fn release(&mut self, id: ReleaseId) -> Option<Arc<Release>> {
        if let Some(known) = self.memory.releases.iter().find(|release| release.id == id) {
            return Some(Arc::clone(known));
        }
        let name = config_map_name(&self.agent, &id);
        let found = self.live.of_kind("", "ConfigMap").find(|live| live.object.name == name)?;
        let release = Arc::new(read_release(found).filter(|release| release.id == id)?);
        self.memory.keep_release(&release);
        Some(release)
    }

    /// Settings by their digest: from Git, from memory, or from the record; where nobody knows them any more, those that
    /// Git asks for now.
    pub(super) fn settings(&mut self, digest: Digest) -> Option<Arc<Settings>> {
        if let Some(known) = self.memory.settings.iter().find(|settings| settings.digest == digest) {
            return Some(Arc::clone(known));
        }
        let kept = self.record().and_then(|record| Settings::from_canonical(record.settings.as_ref()?, digest));
        if let Some(kept) = kept.map(Arc::new) {
            self.memory.keep_settings(&kept);
            return Some(kept);
        }
        self.memory.last_run.as_ref().map(|desired| Arc::clone(&desired.settings))
    }

    /// Remembers what Git asks for.
    pub(super) fn learn(&mut self, admission: &Arc<Admission>) {
        if let Some(standing) = &admission.standing {
            self.memory.keep(standing);
        }
        if let super::Wanted::Run(desired) = &admission.wanted {
            self.memory.keep(desired);
            self.memory.last_run = Some(Arc::clone(desired));
        } else if let (None, Some(standing)) = (&self.memory.last_run, &admission.standing) {
            self.memory.last_run = Some(Arc::clone(standing));
        }
        self.admission = Some(Arc::clone(admission));
    }
}

/// Settings as a record keeps them; nothing where they are too long for it.
pub(super) fn to_keep(settings: &Settings) -> Option<String> {
    settings.canonical().ok().filter(|text| text.len() <= MAX_SETTINGS)
}

/// Reads the release that a ConfigMap holds, if its content hashes to what it is named by.
pub fn read_release(config_map: &LiveObject) -> Option<Release> {
    let data = config_map.body.get("data")?.as_object()?;
    let canonical = data.get("release.json")?.as_str()?;
    let prompt = |(key, text): (&String, &serde_json::Value)| {
        let name = key.strip_prefix("prompts.")?.strip_suffix(".md")?;
        Some((name.to_owned(), Arc::from(text.as_str()?.as_bytes())))
    };
    Release::from_parts(canonical.as_bytes(), data.iter().filter_map(prompt).collect()).ok()
}

// === impl Memory ===

impl Memory {
    fn keep(&mut self, desired: &Arc<DesiredAgent>) {
        self.keep_release(&desired.release);
        self.keep_settings(&desired.settings);
    }

    fn keep_settings(&mut self, settings: &Arc<Settings>) {
        self.settings.retain(|known| known.digest != settings.digest);
        self.settings.insert(0, Arc::clone(settings));
        self.settings.truncate(MEMORY);
    }

    fn keep_release(&mut self, release: &Arc<Release>) {
        self.releases.retain(|known| known.id != release.id);
        self.releases.insert(0, Arc::clone(release));
        self.releases.truncate(MEMORY);
    }

    /// Drops what is remembered of objects that the record no longer names: each release has some of its own.
    pub(super) fn keep_to(&mut self, record: &AgentRecord) {
        let named = |object: &ObjectRef| record.inventory.0.contains_key(object) || record.making.contains(object);
        self.gone.retain(&named);
        self.accepted.retain(|object, _| named(object));
        let refused = &self.refused;
        self.in_vain.retain(|object, _| named(object) || refused.contains_key(object));
    }

    /// Forgets what belongs to one operation.
    pub(super) fn new_operation(&mut self) {
        self.handed_over.clear();
        self.dropped.clear();
        self.heals.clear();
        self.asked_who.clear();
        self.contested.clear();
        (self.unsized_since, self.had, self.evidence_saved, self.smoke_asked) = (None, None, None, None);
        self.smoke_failed = 0;
        self.gate_asked = None;
    }
}

// === impl Backoff ===

impl Backoff {
    /// Counts a failure; `retry_after` in seconds is respected, `seed` spreads the herd.
    pub(super) fn fail(&mut self, why: &str, retry_after: Option<u64>, now: Timestamp, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        why.clone_into(&mut self.why);
        let least = 250_u64.saturating_mul(1 << self.failures.min(8)).min(60_000);
        let asked = retry_after.unwrap_or(0).saturating_mul(1000).min(600_000);
        let wait = least.max(asked);
        let jitter = seed % (wait / 2).max(1);
        let wait = SignedDuration::from_millis(i64::try_from(wait + jitter).unwrap_or(60_000));
        self.until = Some(now.saturating_add(wait).unwrap_or(now));
    }

    /// Something worked.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether it is too early.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

/// Whether what the watch shows is the object of an answer, as new as that or newer.
fn is_newer(seen: &LiveObject, shown: &LiveObject) -> bool {
    seen.uid == shown.uid && seen.version.is_at_least(&shown.version)
}

/// The objects that the history keeps: ConfigMaps of known releases and of the one that went back last, and those that live ReplicaSets mount.
pub(super) fn kept(agent: &AgentName, namespace: &str, record: &AgentRecord, live: &LiveState) -> BTreeSet<ObjectRef> {
    let config_map = |name: String| ObjectRef {
        group: String::new(),
        kind: "ConfigMap".to_owned(),
        namespace: namespace.to_owned(),
        name,
    };
    let stood = record.stable.iter().chain(&record.candidate).chain(&record.history);
    let standing: Vec<&Standing> = stood.chain(&record.left).collect();
    let known = standing.into_iter().map(|standing| config_map_name(agent, &standing.release));
    let has_pods = |set: &&Arc<LiveObject>| {
        let count = |path: &str| set.body.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
        count("/spec/replicas") > 0 || count("/status/replicas") > 0
    };
    let mounted = live.of_kind("apps", "ReplicaSet").filter(has_pods).flat_map(|set| {
        let volumes = set.body.pointer("/spec/template/spec/volumes").and_then(serde_json::Value::as_array);
        let name = |volume: &serde_json::Value| volume.pointer("/configMap/name")?.as_str().map(str::to_owned);
        volumes.into_iter().flatten().filter_map(name).collect::<Vec<_>>()
    });
    known.chain(mounted).map(config_map).collect()
}
