//! What was seen, by agent: a plain value that the watches feed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::kept::Kept;
use crate::model::{AgentName, GroupKind, LiveObject, LiveState, ObjectRef, ResourceVersion};
use crate::render::{MANAGED_BY, MANAGED_BY_LABEL};

/// A kind that fails without a clear word counts as unseen after so many failures in a row.
const PATIENCE: u32 = 2;

/// Whose live state is another than when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These agents'.
    Agents(BTreeSet<AgentName>),
    /// Everybody's: a kind became seen or unseen, or all first lists are in.
    Everyone,
}

/// All live objects of a namespace.
#[derive(Default)]
pub(crate) struct Live {
    agents: HashMap<AgentName, Vec<Kept>>,
    owners: HashMap<Arc<ObjectRef>, AgentName>,
    kinds: BTreeMap<GroupKind, Seen>,
    changed: BTreeSet<AgentName>,
    everyone: bool,
    synced: bool,
}

/// How far a kind was seen.
#[derive(Default)]
struct Seen {
    /// It belongs to those that must be listed before anything is decided.
    base: bool,
    listed: bool,
    /// Why it is not seen whole.
    unseen: Option<String>,
    /// Everything up to here was told.
    at: Option<ResourceVersion>,
}

// === impl Live ===

impl Live {
    /// Begins with a kind; it is unseen until it was listed. False when it is known already.
    pub(crate) fn begin(&mut self, kind: GroupKind, base: bool) -> bool {
        if self.kinds.contains_key(&kind) {
            return false;
        }
        let unseen = Some("it was not listed yet".to_owned());
        self.kinds.insert(kind, Seen { base, unseen, ..Seen::default() });
        // Who has no objects of this kind must learn that too.
        self.everyone |= self.synced;
        true
    }

    /// A whole list of a kind at a version.
    pub(crate) fn listed(&mut self, kind: &GroupKind, objects: Vec<Kept>, at: &ResourceVersion) {
        let there: HashSet<_> = objects.iter().map(|kept| Arc::clone(&kept.object)).collect();
        let held: Vec<_> = self.owners.keys().filter(|object| is_of(object, kind)).cloned().collect();
        for object in held {
            if !there.contains(&object) {
                self.drop_at(&object, at);
            }
        }
        for kept in objects {
            self.put(kept);
        }
        let seen = self.kinds.entry(kind.clone()).or_default();
        seen.listed = true;
        seen.at = Some(at.clone());
        self.everyone |= seen.unseen.take().is_some();
        self.sync();
    }

    /// One object was made or changed.
    pub(crate) fn changed(&mut self, kind: &GroupKind, kept: Kept) {
        self.told(kind, &kept.version);
        self.put(kept);
    }

    /// One object is gone, or carries our labels no longer.
    pub(crate) fn gone(&mut self, kind: &GroupKind, kept: &Kept) {
        self.told(kind, &kept.version);
        self.drop_at(&kept.object, &kept.version);
    }

    /// Everything of a kind was told up to here; it is seen whole again.
    pub(crate) fn told(&mut self, kind: &GroupKind, at: &ResourceVersion) {
        let seen = self.kinds.entry(kind.clone()).or_default();
        if seen.at.as_ref().is_none_or(|held| at.is_at_least(held)) {
            seen.at = Some(at.clone());
        }
        if seen.listed {
            self.everyone |= seen.unseen.take().is_some();
        }
    }

    /// A kind could not be listed or watched; `clear`: the server said that it will not be.
    pub(crate) fn trouble(&mut self, kind: &GroupKind, why: String, clear: bool, failures: u32) {
        let seen = self.kinds.entry(kind.clone()).or_default();
        if clear || failures >= PATIENCE {
            // A word that changes with every attempt is no news; that the kind is unseen, and a clear word, are.
            self.everyone |= seen.unseen.is_none() || clear && seen.unseen.as_ref() != Some(&why);
            seen.unseen = Some(why);
            // An answer all the same: others are not kept waiting for this kind.
            if clear || failures > PATIENCE {
                seen.base &= seen.listed;
            }
        }
        self.sync();
    }

    /// An object as a write's answer had it: known at once, if no watch has told of later things.
    pub(crate) fn note(&mut self, live: &LiveObject) {
        let seen = self.kinds.get(&live.object.group_kind());
        let told = seen.and_then(|seen| seen.at.as_ref()).is_some_and(|at| at.is_at_least(&live.version));
        if seen.is_some() && !told && live.label(MANAGED_BY_LABEL) == Some(MANAGED_BY) {
            self.put(Kept::of(lean(live)));
        }
    }

    /// What was seen of one agent; its objects are kept whole until [`rest`](Self::rest).
    pub(crate) fn state(&mut self, agent: &AgentName) -> LiveState {
        let objects = self.agents.get_mut(agent).into_iter().flatten().filter_map(Kept::warm);
        let objects = objects.map(|live| (live.object.clone(), live)).collect();
        let unseen = self.kinds.iter().filter_map(|(kind, seen)| Some((kind.clone(), seen.unseen.clone()?)));
        LiveState { objects, unseen: unseen.collect(), synced: self.synced }
    }

    /// Nobody looks at an agent any more: its objects are kept as small as they can be.
    pub(crate) fn rest(&mut self, agent: &AgentName) {
        self.agents.get_mut(agent).into_iter().flatten().for_each(Kept::cool);
    }

    /// Whether the first list of every kind is there.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Agents that have any object.
    pub(crate) fn agents(&self) -> BTreeSet<AgentName> {
        self.agents.keys().cloned().collect()
    }

    /// Whose state is another than when this was asked last.
    pub(crate) fn take_changed(&mut self) -> Option<Changed> {
        let agents = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.everyone) {
            return Some(Changed::Everyone);
        }
        (!agents.is_empty()).then_some(Changed::Agents(agents))
    }

    fn put(&mut self, kept: Kept) {
        if let Some(held) = self.held(&kept.object) {
            // An answer may have overtaken the watch.
            if !kept.version.is_at_least(&held.version) || held.version == kept.version {
                return;
            }
        }
        self.remove(&kept.object);
        if let Some(owner) = kept.agent.clone() {
            self.changed.insert(owner.clone());
            self.owners.insert(Arc::clone(&kept.object), owner.clone());
            self.agents.entry(owner).or_default().push(kept);
        }
    }

    /// Removes an object that was gone at a version, if nothing later is known of it.
    fn drop_at(&mut self, object: &ObjectRef, at: &ResourceVersion) {
        if self.held(object).is_some_and(|held| at.is_at_least(&held.version)) {
            self.remove(object);
        }
    }

    fn held(&self, object: &ObjectRef) -> Option<&Kept> {
        self.agents.get(self.owners.get(object)?)?.iter().find(|kept| *kept.object == *object)
    }

    fn remove(&mut self, object: &ObjectRef) {
        let Some(owner) = self.owners.remove(object) else { return };
        if let Some(objects) = self.agents.get_mut(&owner) {
            objects.retain(|kept| *kept.object != *object);
            if objects.is_empty() {
                self.agents.remove(&owner);
            }
        }
        self.changed.insert(owner);
    }

    /// Synced: every base kind was listed or refused, and something was listed at all.
    fn sync(&mut self) {
        if self.synced {
            return;
        }
        let answered = self.kinds.values().all(|seen| !seen.base || seen.listed);
        let any = self.kinds.values().any(|seen| seen.listed);
        self.synced = answered && any;
        self.everyone |= self.synced;
    }
}

fn is_of(object: &ObjectRef, kind: &GroupKind) -> bool {
    object.group == kind.group && object.kind == kind.kind
}

/// Without `managedFields`, as watches keep it.
fn lean(live: &LiveObject) -> LiveObject {
    if live.body.pointer("/metadata/managedFields").is_none() {
        return live.clone();
    }
    let mut body = (*live.body).clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    LiveObject { body: Arc::new(body), ..live.clone() }
}

/// What a container's and a pod's spec keep in memory for nobody: the controllers carry them out, and nothing judges them.
const OF_CONTAINERS: [&str; 7] = ["args", "command", "env", "envFrom", "resources", "securityContext", "volumeMounts"];
const OF_PODS: [&str; 4] = ["affinity", "securityContext", "tolerations", "topologySpreadConstraints"];

/// A pod or replica set of a controller's without what nobody judges; all else as it is.
///
/// They are most of what there is, each with a copy of the pod's whole spec: ten thousand agents fit into memory.
pub(crate) fn slim(mut body: Value) -> Value {
    let at = match body.get("kind").and_then(Value::as_str) {
        Some("Pod") => "/spec",
        Some("ReplicaSet") => "/spec/template/spec",
        Some(_) | None => return body,
    };
    let owners = body.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controlled = owners.into_iter().flatten().any(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let Some(spec) = body.pointer_mut(at).and_then(Value::as_object_mut).filter(|_| controlled) else { return body };
    spec.retain(|field, _| !OF_PODS.contains(&field.as_str()));
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(volume) = volume.as_object_mut() {
            volume.remove("projected");
        }
        // Which release it mounts counts, not where its files go.
        if let Some(source) = volume.get_mut("configMap").and_then(Value::as_object_mut) {
            source.remove("items");
        }
    }
    for containers in ["containers", "initContainers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.retain(|field, _| !OF_CONTAINERS.contains(&field.as_str()));
            }
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::AGENT_LABEL;

    fn kind() -> GroupKind {
        GroupKind { group: String::new(), kind: "ConfigMap".to_owned() }
    }

    fn pods() -> GroupKind {
        GroupKind { group: String::new(), kind: "Pod".to_owned() }
    }

    fn at(version: u32) -> ResourceVersion {
        ResourceVersion(version.to_string())
    }

    fn object(name: &str, agent: &str, version: u32) -> LiveObject {
        let labels = json!({AGENT_LABEL: agent, MANAGED_BY_LABEL: MANAGED_BY});
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "resourceVersion": version.to_string(),
            "labels": labels, "managedFields": [{}]});
        LiveObject::of(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})).expect("an object")
    }

    fn agent(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    fn names(live: &mut Live, name: &str) -> Vec<String> {
        live.state(&agent(name)).objects.keys().map(|object| object.name.clone()).collect()
    }

    fn only(names: &[&str]) -> Changed {
        Changed::Agents(names.iter().map(|name| agent(name)).collect())
    }

    fn kept(name: &str, agent: &str, version: u32) -> Kept {
        Kept::of(object(name, agent, version))
    }

    fn listed(objects: Vec<Kept>, version: u32) -> Live {
        let mut live = Live::default();
        assert!(live.begin(kind(), true) && !live.begin(kind(), true));
        live.listed(&kind(), objects, &at(version));
        assert_eq!(live.take_changed(), Some(Changed::Everyone));
        assert!(live.state(&agent("a")).synced);
        live
    }

    #[test]
    fn only_what_controllers_made_is_slimmed() {
        let spec = json!({"containers": [{"name": "a", "env": [{}], "readinessProbe": {}}], "affinity": {},
            "volumes": [{"configMap": {"name": "c", "items": [{}]}}], "readinessGates": [{}]});
        let small = json!({"containers": [{"name": "a", "readinessProbe": {}}],
            "volumes": [{"configMap": {"name": "c"}}], "readinessGates": [{}]});
        let owners = json!({"ownerReferences": [{"kind": "Deployment", "controller": true}]});
        let set = |spec: &Value| json!({"kind": "ReplicaSet", "metadata": owners, "spec": {"replicas": 1, "template": {"spec": spec}}});
        assert_eq!(slim(set(&spec)), set(&small));
        let pod = |spec: &Value| json!({"kind": "Pod", "metadata": owners, "spec": spec});
        assert_eq!(slim(pod(&spec)), pod(&small));
        for whole in [
            json!({"kind": "Pod", "metadata": {}, "spec": spec}),
            json!({"kind": "Deployment", "metadata": owners, "spec": {"template": {"spec": spec}}}),
            json!({"kind": "Pod", "metadata": owners, "spec": 7}),
        ] {
            assert_eq!(slim(whole.clone()), whole);
        }
    }

    #[test]
    fn events_change_one_agent_and_lists_take_away_what_is_gone() {
        let mut live = listed(vec![kept("one", "a", 3), kept("two", "b", 4)], 5);
        live.changed(&kind(), kept("one", "a", 6));
        assert_eq!(live.take_changed(), Some(only(&["a"])));
        assert_eq!(live.take_changed(), None);
        live.gone(&kind(), &kept("two", "b", 7));
        assert_eq!(live.take_changed(), Some(only(&["b"])));
        live.listed(&kind(), vec![kept("three", "b", 8)], &at(9));
        assert_eq!(live.take_changed(), Some(only(&["a", "b"])));
        assert_eq!((names(&mut live, "a"), names(&mut live, "b")), (vec![], vec!["three".to_owned()]));
        assert_eq!(live.agents(), [agent("b")].into());
    }

    #[test]
    fn an_object_moves_with_its_label() {
        let mut live = listed(vec![kept("one", "a", 3)], 5);
        live.changed(&kind(), kept("one", "b", 6));
        assert_eq!(live.take_changed(), Some(only(&["a", "b"])));
        assert_eq!((names(&mut live, "a"), names(&mut live, "b")), (vec![], vec!["one".to_owned()]));
        live.changed(&kind(), kept("one", "no agent", 7));
        assert_eq!(names(&mut live, "b"), Vec::<String>::new());
    }

    #[test]
    fn an_answer_is_known_at_once_and_never_brings_back_what_is_gone() {
        let mut live = listed(vec![], 5);
        live.note(&object("one", "a", 8));
        assert_eq!(names(&mut live, "a"), ["one"]);
        assert!(live.state(&agent("a")).objects.values().all(|live| live.body["metadata"]["managedFields"].is_null()));
        // The watch lags behind: what it tells of earlier times is not believed.
        live.changed(&kind(), kept("one", "b", 7));
        live.listed(&kind(), vec![], &at(7));
        assert_eq!(names(&mut live, "a"), ["one"]);
        live.gone(&kind(), &kept("one", "a", 9));
        live.note(&object("one", "a", 8));
        assert_eq!(names(&mut live, "a"), Vec::<String>::new());
        // What no watch would ever take away again is not taken in.
        let mut bare = object("two", "a", 20);
        bare.body = Arc::new(json!({"metadata": {"labels": {AGENT_LABEL: "a"}}}));
        live.note(&bare);
        assert_eq!(names(&mut live, "a"), Vec::<String>::new());
    }

    // K4
    #[test]
    fn a_kind_that_is_refused_is_unseen_and_keeps_nobody_waiting() {
        let mut live = Live::default();
        live.begin(kind(), true);
        live.begin(pods(), true);
        live.trouble(&pods(), "forbidden".to_owned(), true, 1);
        assert!(!live.state(&agent("a")).synced, "nothing was listed");
        live.listed(&kind(), vec![], &at(1));
        let state = live.state(&agent("a"));
        assert!(state.synced);
        assert_eq!(state.unseen, [(pods(), "forbidden".to_owned())].into());
        live.take_changed();
        live.listed(&pods(), vec![], &at(2));
        assert_eq!(live.take_changed(), Some(Changed::Everyone));
        assert!(live.state(&agent("a")).unseen.is_empty());
    }

    #[test]
    fn one_hiccup_is_no_blindness_but_a_second_is() {
        let mut live = listed(vec![kept("one", "a", 3)], 5);
        live.trouble(&kind(), "reset".to_owned(), false, 1);
        assert!(live.state(&agent("a")).unseen.is_empty() && live.take_changed().is_none());
        live.trouble(&kind(), "reset".to_owned(), false, 2);
        assert_eq!(live.take_changed(), Some(Changed::Everyone));
        assert_eq!(live.state(&agent("a")).unseen.len(), 1);
        assert_eq!(names(&mut live, "a"), ["one"], "what was known is still shown");
        live.trouble(&kind(), "reset again".to_owned(), false, 3);
        assert_eq!(live.take_changed(), None);
        live.told(&kind(), &at(6));
        assert!(live.state(&agent("a")).unseen.is_empty());
    }
}
