//! Git's word for one environment: read from the mirror, verified, resolved, and put into the terms of the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::git::{Git, key};
use crate::desired::{At, Cache, DesiredAgent, DesiredState, EnvironmentSpec, Resolve, TargetKind, Track};
use crate::desired::{environment, resolve};
use crate::model::{
    AgentName, CommitId, Diagnostic, Diagnostics, EnvironmentName, GroupKind, Origin, Revision, Timestamp,
};
use crate::reconcile::{Admitted, EnvironmentInput, Followed, PruneLimits, Reason, admit, after, returns};
use crate::record::{EnvironmentRecord, Evidence, Records, RefusedMove};
use crate::revert::{History, Step, evidence, paths_of};
use crate::source::{Checkout, NoVerification, Settled, SourceError, SourceStatus, Store, Verified};

/// Commits on the way of a revert that are looked at, and before them for what messages name.
const WAY: usize = 200;

/// What an environment is resolved from.
pub(crate) struct Ask<'a> {
    pub(crate) git: &'a Git,
    pub(crate) status: &'a SourceStatus,
    pub(crate) environment: &'a EnvironmentName,
    pub(crate) record: &'a EnvironmentRecord,
    pub(crate) records: &'a Records,
    /// The records of the environment that `after` names, where this daemon serves it.
    pub(crate) elsewhere: Option<&'a Records>,
    pub(crate) now: Timestamp,
}

/// Git's word for one environment.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) desired: DesiredState,
    pub(crate) standing: BTreeMap<AgentName, Arc<DesiredAgent>>,
    pub(crate) reverts: BTreeMap<AgentName, (Evidence, Vec<CommitId>)>,
    pub(crate) held: BTreeMap<AgentName, Reason>,
    /// What is accepted now, per reference.
    pub(crate) accepted: BTreeMap<String, Revision>,
    /// When time alone changes it.
    pub(crate) due: Option<Timestamp>,
}

// === impl Word ===

impl Word {
    /// What each agent may do, given what is remembered.
    pub(crate) fn admit(&self, records: &Records, namespace: &str, limits: PruneLimits, now: Timestamp) -> Admitted {
        admit(&EnvironmentInput {
            desired: &self.desired,
            records,
            standing: &self.standing,
            reverts: &self.reverts,
            held: &self.held,
            namespace,
            limits,
            now,
        })
    }

    /// The kinds that agents' own manifests ask for.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = GroupKind> + '_ {
        let manifests = self.desired.agents.values().flatten().flat_map(|agent| &agent.settings.manifests);
        manifests.map(|manifest| manifest.object.group_kind())
    }
}

/// What reading Git came to: its word, if it has one that can be used, and what is wrong with the newest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) word: Option<Word>,
    pub(crate) errors: Diagnostics,
    pub(crate) refused: Option<RefusedMove>,
    /// What this environment must follow for its word to be read.
    pub(crate) tracks: Vec<Track>,
    pub(crate) pins: Vec<CommitId>,
}

/// Reads Git's word.
///
/// A newest commit that cannot be used leaves the one that was accepted last in its place.
pub(crate) fn listen(ask: &Ask<'_>, cache: &mut Cache) -> Heard {
    let head = Track::Branch(ask.git.branch().to_owned());
    let mut heard = Heard { tracks: vec![head.clone()], ..Heard::default() };
    let Some(newest) = settled(ask, &head, &mut heard) else { return heard };
    let last = ask.record.accepted.get(&head.key()).filter(|last| **last != newest).cloned();
    for (at, candidate) in [Some(newest), last].into_iter().flatten().enumerate() {
        match hear(ask, &candidate, &head, cache, &mut heard) {
            Ok(Some(word)) => {
                heard.word = Some(word);
                break;
            }
            Ok(None) => break,
            Err(errors) if at == 0 => heard.errors = errors,
            Err(_) => {}
        }
    }
    heard
}

/// What a track came to at the last look, as far as it may be followed.
fn settled(ask: &Ask<'_>, track: &Track, heard: &mut Heard) -> Option<Revision> {
    let store = ask.git.mirror.store();
    match ask.status.settled.get(&key(ask.environment, track))? {
        Ok(Settled { serve, refused, .. }) => {
            if let Some(refused) = refused {
                heard.refused = Some(RefusedMove {
                    reference: refused.kept.reference.clone(),
                    to: refused.offered.as_ref().map(|offered| offered.commit.clone()),
                    why: format!("{refused}: {}", refused.hint()),
                    since: ask.now,
                });
            }
            let serve = serve.clone()?;
            // What is served stays in the mirror, whatever the remote does.
            if let Err(error) = ask.git.mirror.hold(&key(ask.environment, track), &serve.commit) {
                tracing::warn!(%error, "cannot hold a commit in the mirror");
            }
            store.contains(&serve.commit).unwrap_or(false).then_some(serve)
        }
        Err(SourceError::Lost { reference, commit }) => {
            if let Err(error) = ask.git.mirror.recover(reference, commit) {
                heard.errors = wrong(&error.to_string(), error.hint());
            }
            let found = store.contains(commit).unwrap_or(false);
            found.then(|| Revision { reference: reference.clone(), commit: commit.clone() })
        }
        Err(error) => {
            heard.errors = wrong(&error.to_string(), error.hint());
            None
        }
    }
}

fn wrong(message: &str, hint: Option<String>) -> Diagnostics {
    let diagnostic = Diagnostic::error(Origin::file("(repository)"), message);
    hint.map_or(diagnostic.clone(), |hint| diagnostic.hint(hint)).into()
}

fn checkout(ask: &Ask<'_>, revision: &Revision, track: Option<&Track>) -> Result<Verified<Checkout>, Diagnostics> {
    let last_good = track.and_then(|track| ask.record.accepted.get(&track.key())).map(|last| &last.commit);
    let found = ask.git.mirror.store().verified(revision, last_good, &NoVerification);
    found.map_err(|error| wrong(&error.to_string(), None))
}

/// Nothing: what the environment follows is not known yet.
fn hear(
    ask: &Ask<'_>,
    newest: &Revision,
    head_track: &Track,
    cache: &mut Cache,
    heard: &mut Heard,
) -> Result<Option<Word>, Diagnostics> {
    let head = checkout(ask, newest, Some(head_track))?;
    let spec = environment(&*head.tree, ask.environment)?;
    heard.pins.extend(spec.pins.values().cloned());
    let track = spec.track.clone().filter(|track| track != head_track);
    let tracked = match &track {
        None => head.clone(),
        Some(track) => {
            heard.tracks.push(track.clone());
            match settled(ask, track, heard) {
                Some(revision) => checkout(ask, &revision, Some(track))?,
                None if heard.errors.has_errors() => return Err(heard.errors.clone()),
                None => return Ok(None),
            }
        }
    };
    let (mut pinned, held, due) = elsewhere(ask, &spec, &tracked.revision);
    for (agent, commit) in &spec.pins {
        pinned.insert(agent.clone(), commit.clone());
    }
    let desired = at(ask, &head, &tracked, &pinned, cache)?;
    let standing = standing(ask, &head, &tracked, &desired, &held, cache);
    let reverts = reverts(ask, &desired);
    let mut accepted = BTreeMap::from([(head_track.key(), head.revision.clone())]);
    if let Some(track) = &track {
        accepted.insert(track.key(), tracked.revision.clone());
    }
    Ok(Some(Word { desired, standing, reverts, held, accepted, due }))
}

/// Resolves with some agents at commits of their own.
fn at(
    ask: &Ask<'_>,
    head: &Verified<Checkout>,
    tracked: &Verified<Checkout>,
    commits: &BTreeMap<AgentName, CommitId>,
    cache: &mut Cache,
) -> Result<DesiredState, Diagnostics> {
    let store = ask.git.mirror.store();
    let mut checkouts: BTreeMap<CommitId, Verified<Checkout>> = BTreeMap::new();
    for commit in commits.values() {
        if checkouts.contains_key(commit) {
            continue;
        }
        // A commit that is not there is an error of the agents that are pinned to it, told by `resolve`.
        if let Ok(revision) = store.pinned(commit) {
            checkouts.insert(commit.clone(), checkout(ask, &revision, None)?);
        }
    }
    let pinned = commits.iter().filter_map(|(agent, commit)| Some((agent.clone(), At::from(checkouts.get(commit)?))));
    resolve(
        cache,
        &Resolve {
            environment: ask.environment,
            head: head.into(),
            tracked: tracked.into(),
            pinned: &pinned.collect(),
            now: ask.now,
            target: Some(TargetKind::Kubernetes),
        },
    )
}

/// The commits that agents follow because of what is stable elsewhere, and those that wait.
fn elsewhere(
    ask: &Ask<'_>,
    spec: &EnvironmentSpec,
    tracked: &Revision,
) -> (BTreeMap<AgentName, CommitId>, BTreeMap<AgentName, Reason>, Option<Timestamp>) {
    let (mut follow, mut held, mut due) = (BTreeMap::new(), BTreeMap::new(), None);
    let Some(rule) = &spec.after else { return (follow, held, due) };
    let store = ask.git.mirror.store();
    let known = store.checkout(tracked).and_then(|checkout| {
        checkout.tree.list("agents").map_err(|error| SourceError::Setup { deed: "list agents", why: error.to_string() })
    });
    for entry in known.unwrap_or_default() {
        let Ok(agent) = entry.name.parse::<AgentName>() else { continue };
        if spec.pins.contains_key(&agent) {
            continue;
        }
        let record = ask.elsewhere.map(|records| records.get(&agent).cloned().unwrap_or_default());
        match after(rule, record.as_deref(), ask.now) {
            Followed::At(commit) => drop(follow.insert(agent, commit)),
            Followed::Held(reason, at) => {
                due = [due, at].into_iter().flatten().min();
                held.insert(agent, reason);
            }
        }
        // What is stable there now may still have to ripen.
        let ripe = record
            .and_then(|record| record.stable.clone())
            .and_then(|stable| stable.since.checked_add(jiff::SignedDuration::try_from(rule.stable_for).ok()?).ok());
        due = [due, ripe.filter(|ripe| *ripe > ask.now)].into_iter().flatten().min();
    }
    (follow, held, due)
}

/// What Git asked for at the revision that stands, for agents whose word is another one now.
fn standing(
    ask: &Ask<'_>,
    head: &Verified<Checkout>,
    tracked: &Verified<Checkout>,
    desired: &DesiredState,
    held: &BTreeMap<AgentName, Reason>,
    cache: &mut Cache,
) -> BTreeMap<AgentName, Arc<DesiredAgent>> {
    let other = ask.records.iter().filter_map(|(name, record)| {
        let stands = record.stable.as_ref()?;
        let same = desired.agents.get(name).is_some_and(|asked| {
            asked
                .as_ref()
                .is_ok_and(|asked| asked.release.id == stands.release && asked.settings.digest == stands.settings)
        });
        (!same || held.contains_key(name)).then(|| (name.clone(), stands.revision.commit.clone()))
    });
    let other: BTreeMap<_, _> = other.collect();
    if other.is_empty() {
        return BTreeMap::new();
    }
    let read = at(ask, head, tracked, &other, cache);
    let agents = read.map(|state| state.agents).unwrap_or_default();
    agents
        .into_iter()
        .filter(|(name, _)| other.contains_key(name))
        .filter_map(|(name, agent)| Some((name, agent.ok()?)))
        .collect()
}

/// For agents that Git wants back on a release that stood before: how sure, and which commits.
fn reverts(ask: &Ask<'_>, desired: &DesiredState) -> BTreeMap<AgentName, (Evidence, Vec<CommitId>)> {
    let store = ask.git.mirror.store();
    let mut ways: BTreeMap<(CommitId, CommitId), Option<History>> = BTreeMap::new();
    let found = returns(desired, ask.records).map(|(agent, record, _)| {
        let from = record.candidate.as_ref().or(record.stable.as_ref()).or(record.history.first());
        let way = from.and_then(|from| {
            let pair = (from.revision.commit.clone(), agent.revision.commit.clone());
            let way = ways.entry(pair.clone()).or_insert_with(|| history(store, &pair.0, &pair.1).ok());
            way.clone()
        });
        let sure =
            way.map_or((Evidence::KnownRelease, vec![]), |way| evidence(&way, &paths_of(&agent.name, ask.environment)));
        (agent.name.clone(), sure)
    });
    found.collect()
}

/// The way from one commit to another, with what its messages may name.
fn history(store: &Store, from: &CommitId, to: &CommitId) -> Result<History, SourceError> {
    let walk = store.commits_between(from, to, WAY)?;
    if !walk.reached {
        return Ok(History::default());
    }
    let mut history = History::default();
    for info in walk.commits {
        let changed = store.changed_paths(&info.id)?;
        history.steps.push(Step { info, changed });
    }
    let root: CommitId = from.clone();
    let mut at = Some(root);
    history.earlier = history.steps.iter().map(|step| step.info.clone()).collect();
    while let Some(id) = at.filter(|_| history.earlier.len() < 2 * WAY) {
        let info = store.commit(&id)?;
        at = info.parents.first().cloned();
        history.earlier.push(info);
    }
    let steps: Vec<_> = history.steps.iter().map(|step| step.info.message.clone()).collect();
    for message in steps {
        for id in crate::revert::named(&message).among(&history.earlier) {
            history.changed.insert(id.clone(), store.changed_paths(&id)?);
        }
    }
    Ok(history)
}
