//! What is to be done next for a Deployment: pure, one pass at a time, the same deed again until it is seen to be done.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::view::{Member, Process, Retired, Set, View, owner};
use crate::model::{AgentName, ReleaseId, Timestamp};
use crate::render::AGENT_LABEL;

/// One thing to do. Done twice, it does nothing more.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    /// Makes the set of a Deployment's template.
    MakeSet { deployment: String, name: String },
    /// Says how many Pods a set has.
    Scale { set: String, replicas: u32 },
    /// Makes a Pod, which launches it.
    Launch { set: String, pod: String, ordinal: u32 },
    /// Takes a Pod away from its agent, and keeps it until a time for a way back.
    Retire { pod: String, kept_until: Timestamp },
    /// Takes a retired Pod back.
    Recall { pod: String },
    /// Ends a Pod's process once it answers nothing more, then the Pod.
    Stop { pod: String },
    /// Removes a set that nothing needs.
    DropSet { set: String },
}

/// What is known beside the objects.
pub(super) struct Known<'k> {
    /// The set whose instances the proxy sends every new request of this Deployment to.
    pub(super) serving: Option<&'k str>,
    /// Whether the proxy sends requests to a Pod, as far as that is known.
    pub(super) names: &'k dyn Fn(&str) -> bool,
    /// The release that this agent's main process serves; none where there is none, or nothing serves yet.
    pub(super) main: Option<Main>,
    /// Since when the release is kept that this agent left last; none for what is no main process.
    pub(super) left: Option<Timestamp>,
    /// How long what served is kept for a way back.
    pub(super) keep_old: SignedDuration,
    pub(super) now: Timestamp,
}

/// What is known beside the objects of what has no Deployment any more.
pub(super) struct Still<'k> {
    /// Whether a Pod answers.
    pub(super) is_ready: &'k dyn Fn(&Pod) -> bool,
    /// As [`Known::names`].
    pub(super) names: &'k dyn Fn(&str) -> bool,
    /// As [`Known::keep_old`].
    pub(super) keep_old: SignedDuration,
    pub(super) now: Timestamp,
}

/// The main process of the agent whose worker is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Main {
    /// What its Deployment asks for.
    pub(super) wanted: Option<ReleaseId>,
    /// What serves.
    pub(super) serves: Option<ReleaseId>,
}

/// The name of a set's Pod.
pub(super) fn pod_name(set: &str, ordinal: u32) -> String {
    format!("{set}-{ordinal}")
}

/// What is to be done for one Deployment.
pub(super) fn decide(process: &Process<'_>, known: &Known<'_>) -> Vec<Deed> {
    let newest = process.newest();
    let Some(new) = process.set(&newest) else {
        return vec![Deed::MakeSet { deployment: process.deployment.name_any(), name: newest }];
    };
    let mut deeds = vec![];
    let old = || process.sets.iter().filter(|set| set.object.name_any() != newest);
    if process.carries_traffic {
        // A release that is left altogether is kept for a way back; one that is made smaller is not.
        let leaves = process.per_release && process.wanted() == 0;
        let kept = known.now.checked_add(known.keep_old).ok().filter(|_| leaves);
        fill(new, process.wanted(), known, kept, &mut deeds);
        // Until the switch is acknowledged, what serves is left alone.
        let switched = known.serving == Some(&newest);
        for set in old().filter(|set| switched || known.serving != Some(&set.object.name_any())) {
            let served = switched;
            for member in &set.members {
                let until = if served && member.answers { known.now.checked_add(known.keep_old).ok() } else { None };
                retire(member, until.unwrap_or(known.now), &mut deeds);
            }
        }
    } else {
        let first = old().all(|set| set.members.is_empty());
        // A worker follows its agent's switch: until then the old one goes on beside the old release.
        let may_go =
            first || known.main.is_none_or(|main| main.wanted != process.release || main.serves == main.wanted);
        if may_go {
            old().flat_map(|set| &set.members).for_each(|member| retire(member, known.now, &mut deeds));
        }
        if first || may_go && process.overlaps() {
            fill(new, process.wanted(), known, None, &mut deeds);
        }
    }
    let kept = last_kept(&process.sets).max(known.left);
    for member in process.sets.iter().flat_map(|set| &set.members) {
        let Some(retired) = member.retired else { continue };
        let is_last = kept.is_none_or(|kept| retired.at >= kept);
        let longest = known.now.checked_add(known.keep_old).ok();
        if retired.kept_until <= known.now || !is_last {
            deeds.push(Deed::Stop { pod: member.object.name_any() });
        } else if let Some(longest) = longest.filter(|longest| retired.kept_until > *longest) {
            // Written when the clock was ahead, or more was to be kept: from now on at the most.
            deeds.push(Deed::Retire { pod: member.object.name_any(), kept_until: longest });
        }
    }
    for set in old() {
        let name = set.object.name_any();
        let is_wanted = known.serving == Some(&name) && known.serving != Some(&newest);
        if !is_wanted && replicas(set.object) != 0 {
            deeds.push(Deed::Scale { set: name, replicas: 0 });
        }
    }
    deeds.extend(beyond_history(process, &newest));
    deeds
}

/// What is to be done with what has no Deployment any more: it ends, but for a release that its agent may come back to.
pub(super) fn clear(view: &View, left: &Left, known: &Still<'_>) -> Vec<Deed> {
    let now = known.now;
    let (sets, pods) = view.orphans(known.is_ready);
    let longest = now.checked_add(known.keep_old).unwrap_or(now);
    let mut deeds = vec![];
    for member in &pods {
        let pod = member.object.name_any();
        let may_return = view.may_return(member.object);
        // Until the proxy sends it nothing more, it is left alone.
        if (known.names)(&pod) {
            continue;
        }
        retire(member, if may_return && member.answers { longest } else { now }, &mut deeds);
        let Some(retired) = member.retired else { continue };
        let is_last = agent_of(member).and_then(|agent| left.get(&agent)).is_none_or(|left| retired.at >= *left);
        if !may_return || retired.kept_until <= now || !is_last {
            deeds.push(Deed::Stop { pod });
        } else if retired.kept_until > longest {
            deeds.push(Deed::Retire { pod, kept_until: longest });
        }
    }
    let is_empty = |set: &&ReplicaSet| {
        let uid = set.metadata.uid.as_deref();
        uid.is_none_or(|uid| pods.iter().all(|member| owner(&member.object.metadata) != Some(uid)))
    };
    deeds.extend(sets.into_iter().filter(is_empty).map(|set| Deed::DropSet { set: set.name_any() }));
    deeds
}

/// By agent, since when the release is kept that it left last.
pub(super) type Left = BTreeMap<AgentName, Timestamp>;

/// What each agent left last: one way back is kept, whether it is a set of the same Deployment, a Deployment of its own, or
/// one that is gone.
pub(super) fn left(view: &View, processes: &[Process<'_>]) -> Left {
    let mut left = Left::new();
    let mut saw = |agent: AgentName, at: Timestamp| {
        let newest = left.entry(agent).or_insert(at);
        *newest = at.max(*newest);
    };
    for process in processes.iter().filter(|process| process.carries_traffic) {
        if let Some(at) = last_kept(&process.sets) {
            saw(process.agent.clone(), at);
        }
    }
    let mut gone: BTreeMap<(AgentName, String), Timestamp> = BTreeMap::new();
    let (_, pods) = view.orphans(|_| false);
    for member in pods.iter().filter(|member| view.may_return(member.object)) {
        let Some(retired) = member.retired.filter(Retired::is_kept) else { continue };
        let set = owner(&member.object.metadata).unwrap_or_default().to_owned();
        let Some(agent) = agent_of(member) else { continue };
        let first = gone.entry((agent, set)).or_insert(retired.at);
        *first = retired.at.min(*first);
    }
    gone.into_iter().for_each(|((agent, _), at)| saw(agent, at));
    left
}

fn agent_of(member: &Member<'_>) -> Option<AgentName> {
    member.object.labels().get(AGENT_LABEL)?.parse().ok()
}

/// When something that is kept ends next.
pub(super) fn next_end(view: &View, processes: &[Process<'_>], now: Timestamp) -> Option<Timestamp> {
    let orphans = view.orphans(|_| false).1;
    let members = processes.iter().flat_map(|process| &process.sets).flat_map(|set| &set.members).chain(&orphans);
    let retired = members.filter_map(|member| member.retired);
    retired.map(|retired| retired.kept_until).filter(|until| *until > now).min()
}

/// Brings a set to its number of Pods; those that answered and are too many are kept until `kept`, if that is said.
fn fill(set: &Set<'_>, wanted: u32, known: &Known<'_>, kept: Option<Timestamp>, deeds: &mut Vec<Deed>) {
    let name = set.object.name_any();
    if replicas(set.object) != i64::from(wanted) {
        deeds.push(Deed::Scale { set: name.clone(), replicas: wanted });
    }
    for ordinal in 0..wanted {
        match set.members.iter().find(|member| member.ordinal == ordinal) {
            None => deeds.push(Deed::Launch { set: name.clone(), pod: pod_name(&name, ordinal), ordinal }),
            Some(member) if member.retired.is_some() => deeds.push(Deed::Recall { pod: member.object.name_any() }),
            Some(_) => {}
        }
    }
    // Until the proxy sends it nothing more, it is left alone.
    let free = |member: &&Member<'_>| !(known.names)(&member.object.name_any());
    for member in set.members.iter().filter(|member| member.ordinal >= wanted).filter(free) {
        retire(member, kept.filter(|_| member.answers).unwrap_or(known.now), deeds);
    }
}

fn retire(member: &Member<'_>, kept_until: Timestamp, deeds: &mut Vec<Deed>) {
    if member.retired.is_none() {
        deeds.push(Deed::Retire { pod: member.object.name_any(), kept_until });
    }
}

/// Since when the release is kept that was left last: one way back is kept, not all of them.
fn last_kept(sets: &[Set<'_>]) -> Option<Timestamp> {
    let retired = |set: &Set<'_>| {
        let kept = set.members.iter().filter_map(|member| member.retired).filter(Retired::is_kept);
        kept.map(|retired| retired.at).min()
    };
    sets.iter().filter_map(retired).max()
}

fn replicas(set: &ReplicaSet) -> i64 {
    i64::from(set.spec.replicas.unwrap_or(1))
}

/// Empty sets beyond `revisionHistoryLimit`, the oldest.
fn beyond_history(process: &Process<'_>, newest: &str) -> Vec<Deed> {
    let limit = process.deployment.spec.revision_history_limit.unwrap_or(10);
    let mut empty: Vec<_> = process
        .sets
        .iter()
        .filter(|set| set.members.is_empty() && set.object.name_any() != newest)
        .map(|set| (super::run::revision(&set.object.metadata), set.object.name_any()))
        .collect();
    empty.sort();
    let surplus = empty.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    empty.into_iter().take(surplus).map(|(_, set)| Deed::DropSet { set }).collect()
}
