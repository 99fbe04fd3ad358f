//! What is to be done next for a Deployment: pure, one pass at a time, the same deed again until it is seen to be done.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;

use super::view::{Member, Process, Set, View};
use crate::model::{ReleaseId, Timestamp};

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
    /// The set whose instances the proxy sends every new request of this agent to.
    pub(super) serving: Option<&'k str>,
    /// The release that this agent's main process serves; none where there is none, or nothing serves yet.
    pub(super) main: Option<Main>,
    /// How long what served is kept for a way back.
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
        fill(new, process.wanted(), known.now, &mut deeds);
        // Until the switch is acknowledged, what serves is left alone.
        let switched = known.serving == Some(&newest);
        for set in old().filter(|set| switched || known.serving != Some(&set.object.name_any())) {
            let served = switched;
            for member in &set.members {
                let until = if served && member.ready { known.now.checked_add(known.keep_old).ok() } else { None };
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
            fill(new, process.wanted(), known.now, &mut deeds);
        }
    }
    let kept = last_kept(process);
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

/// What is to be done with what has no Deployment any more.
pub(super) fn clear(view: &View, now: Timestamp) -> Vec<Deed> {
    let (sets, pods) = view.orphans();
    let mut deeds = vec![];
    for member in &pods {
        retire(member, now, &mut deeds);
        if member.retired.is_some() {
            deeds.push(Deed::Stop { pod: member.object.name_any() });
        }
    }
    if pods.is_empty() {
        deeds.extend(sets.into_iter().map(|set| Deed::DropSet { set: set.name_any() }));
    }
    deeds
}

/// When something that is kept ends next.
pub(super) fn next_end(process: &Process<'_>, now: Timestamp) -> Option<Timestamp> {
    let retired = process.sets.iter().flat_map(|set| &set.members).filter_map(|member| member.retired);
    retired.map(|retired| retired.kept_until).filter(|until| *until > now).min()
}

/// Brings a set to its number of Pods.
fn fill(set: &Set<'_>, wanted: u32, now: Timestamp, deeds: &mut Vec<Deed>) {
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
    for member in set.members.iter().filter(|member| member.ordinal >= wanted) {
        retire(member, now, deeds);
    }
}

fn retire(member: &Member<'_>, kept_until: Timestamp, deeds: &mut Vec<Deed>) {
    if member.retired.is_none() {
        deeds.push(Deed::Retire { pod: member.object.name_any(), kept_until });
    }
}

/// Since when the release is kept that was left last: one way back is kept, not all of them.
fn last_kept(process: &Process<'_>) -> Option<Timestamp> {
    let sets = process
        .sets
        .iter()
        .filter_map(|set| set.members.iter().filter_map(|member| member.retired).map(|retired| retired.at).min());
    sets.max()
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
