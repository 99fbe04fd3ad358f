//! Git's word for one environment: read from the mirror, verified, resolved, and put into the terms of the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::git::{Git, key};
use crate::desired::{At, Cache, DesiredAgent, DesiredState, EnvironmentSpec, Resolve, TargetKind, Track};
use crate::desired::{environment, resolve};
use crate::judge::endpoint_slices;
use crate::model::{
    AgentName, CommitId, Diagnostic, Diagnostics, EnvironmentName, GroupKind, Origin, Revision, Timestamp,
};
use crate::plan::GatePolicy;
use crate::reconcile::{Admitted, EnvironmentInput, Followed, PruneLimits, Reason, admit, after, returns};
use crate::record::{EnvironmentRecord, Evidence, Records, RefusedMove};
use crate::render::{ROUTE_GROUP, ROUTE_KIND};
use crate::revert::{History, Step, evidence, paths_of, touches};
use crate::rollout;
use crate::source::{
    self, Checkout, Move, NotVerified, Settled, SourceError, SourceStatus, Store, Unverified, Verified,
};

/// Commits on the way of a revert that are looked at, and before them for what messages name.
const WAY: usize = 200;
/// Commits of a line that a pinned one is looked for on.
const LINE: usize = 10_000;

/// What an environment is resolved from.
pub(crate) struct Ask<'a> {
    pub(crate) git: &'a Git,
    pub(crate) status: &'a SourceStatus,
    pub(crate) environment: &'a EnvironmentName,
    /// What the environment is bound to.
    pub(crate) target: TargetKind,
    pub(crate) record: &'a EnvironmentRecord,
    pub(crate) records: &'a Records,
    /// The records of the environment that `after` names, where this daemon serves it.
    pub(crate) elsewhere: Option<&'a Records>,
    pub(crate) now: Timestamp,
    /// As whom people commit, and the name that they are known by.
    pub(crate) people: &'a BTreeMap<String, source::Person>,
}

/// Git's word for one environment.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) desired: DesiredState,
    pub(crate) standing: BTreeMap<AgentName, Arc<DesiredAgent>>,
    pub(crate) reverts: BTreeMap<AgentName, (Evidence, Vec<CommitId>)>,
    pub(crate) held: BTreeMap<AgentName, Reason>,
    /// Who wrote the commits that ask for a new release, where people must agree to it.
    pub(crate) authors: BTreeMap<AgentName, BTreeSet<rollout::Person>>,
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
            authors: &self.authors,
            namespace,
            limits,
            now,
        })
    }

    /// The kinds that agents' own manifests ask for, and those of routes and of what they lead to where one may be split.
    ///
    /// Those that the gate keeps out are not among them: nobody makes the daemon watch what it may not write.
    pub(crate) fn kinds<'a>(
        &'a self,
        target: TargetKind,
        gate: &'a GatePolicy,
    ) -> impl Iterator<Item = GroupKind> + 'a {
        let manifests = self.desired.agents.values().flatten().flat_map(|agent| &agent.settings.manifests);
        let declared = manifests.map(|manifest| manifest.object.group_kind());
        let routed = |agent: &DesiredAgent| match target {
            TargetKind::Host => agent.settings.has_sets(),
            TargetKind::Kubernetes => agent.settings.gateway().is_some(),
        };
        let routed = self.desired.agents.values().flatten().any(|agent| routed(agent));
        let route = routed.then(|| GroupKind { group: ROUTE_GROUP.to_owned(), kind: ROUTE_KIND.to_owned() });
        // Where a route leads is only looked at. A host's own proxy knows its instances.
        let slices = (routed && target == TargetKind::Kubernetes).then(endpoint_slices);
        declared.chain(route).filter(|kind| gate.kinds.contains(kind)).chain(slices)
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
    /// Whether the newest commit, or one on the way to it, is not verified.
    pub(crate) unverified: bool,
}

/// What a commit that is read beside the followed ones is trusted for.
#[derive(Clone, Copy)]
enum Trust<'a> {
    /// The ledger says that it stood here: it was verified then.
    Stood,
    /// It must be signed itself, or lie on the first-parent path of one of these, which were verified.
    Line([&'a CommitId; 2]),
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

/// What a track came to, verified.
fn checkout(
    ask: &Ask<'_>,
    revision: &Revision,
    track: &Track,
    heard: &mut Heard,
) -> Result<Verified<Checkout>, Diagnostics> {
    let last_good = ask.record.accepted.get(&track.key()).map(|last| &last.commit);
    let store = ask.git.mirror.store();
    let found = store.verified(revision, last_good, &*ask.git.verifier).and_then(|found| {
        // Anybody who pushes can make a higher tag; to go back by one needs more than that.
        let replayed = match (track, ask.status.settled.get(&key(ask.environment, track)), last_good) {
            (Track::Tags { .. }, Some(Ok(Settled { moved: Move::Forward, .. })), Some(last)) => {
                *last != revision.commit && store.is_ancestor(&revision.commit, last)?
            }
            (_, _, _) => false,
        };
        if replayed && ask.git.verifier.is_strict() {
            let why = format!(
                "the tag `{}` leads back behind what was accepted; exclude the newer tags, or make a new commit",
                revision.reference
            );
            return Err(Unverified { commit: revision.commit.clone(), why }.into());
        }
        Ok(found)
    });
    heard.unverified |= matches!(found, Err(NotVerified::Unverified(_)));
    found.map_err(|error| wrong(&error.to_string(), None))
}

/// A commit beside the followed ones, verified.
fn beside(ask: &Ask<'_>, revision: &Revision, trust: Trust<'_>) -> Result<Verified<Checkout>, NotVerified> {
    let store = ask.git.mirror.store();
    let lines = match trust {
        Trust::Stood => return store.verified(revision, Some(&revision.commit), &*ask.git.verifier),
        Trust::Line(lines) => lines,
    };
    let own = store.verified(revision, None, &*ask.git.verifier);
    if let Err(NotVerified::Unverified(_)) = &own {
        for line in lines {
            if store.commits_between(&revision.commit, line, LINE)?.reached {
                return store.verified(revision, Some(&revision.commit), &*ask.git.verifier);
            }
        }
    }
    own
}

/// Nothing: what the environment follows is not known yet.
fn hear(
    ask: &Ask<'_>,
    newest: &Revision,
    head_track: &Track,
    cache: &mut Cache,
    heard: &mut Heard,
) -> Result<Option<Word>, Diagnostics> {
    let head = checkout(ask, newest, head_track, heard)?;
    let spec = environment(&*head.tree, ask.environment)?;
    heard.pins.extend(spec.pins.values().cloned());
    let track = spec.track.clone().filter(|track| track != head_track);
    let tracked = match &track {
        None => head.clone(),
        Some(track) => {
            heard.tracks.push(track.clone());
            match settled(ask, track, heard) {
                Some(revision) => match checkout(ask, &revision, track, heard) {
                    Ok(tracked) => tracked,
                    Err(errors) => match ask.record.accepted.get(&track.key()).filter(|last| **last != revision) {
                        Some(last) => {
                            heard.errors = errors;
                            let last = last.clone();
                            checkout(ask, &last, track, heard)?
                        }
                        None => return Err(errors),
                    },
                },
                None if heard.errors.has_errors() => return Err(heard.errors.clone()),
                None => return Ok(None),
            }
        }
    };
    let (mut pinned, mut held, due) = elsewhere(ask, &spec, &tracked.revision);
    let trust = Trust::Line([&head.revision.commit, &tracked.revision.commit]);
    only_verified(ask, trust, &mut pinned, &mut held);
    for (agent, commit) in &spec.pins {
        pinned.insert(agent.clone(), commit.clone());
    }
    let desired = at(ask, &head, &tracked, &pinned, trust, cache, heard)?;
    let standing = standing(ask, &head, &tracked, &desired, &held, cache, heard);
    let reverts = reverts(ask, &desired);
    let authors = if desired.spec.approvals > 0 { authors(ask, &desired, &mut held) } else { BTreeMap::new() };
    let mut accepted = BTreeMap::from([(head_track.key(), head.revision.clone())]);
    if let Some(track) = &track {
        accepted.insert(track.key(), tracked.revision.clone());
    }
    Ok(Some(Word { desired, standing, reverts, held, authors, accepted, due }))
}

/// Who wrote the commits between what stands and what Git asks for, for each agent whose release is a new one, on whatever
/// branch they wrote them.
///
/// Where that cannot be told, anybody who approves could be the author: the agent is held.
fn authors(
    ask: &Ask<'_>,
    desired: &DesiredState,
    held: &mut BTreeMap<AgentName, Reason>,
) -> BTreeMap<AgentName, BTreeSet<rollout::Person>> {
    let store = ask.git.mirror.store();
    let known = |author: &str| {
        let person = ask.people.iter().find(|(_, person)| author.contains(&format!("<{}>", person.email)));
        rollout::Person(person.map_or_else(|| author.to_owned(), |(username, _)| username.clone()))
    };
    // Many agents go the same way, which is walked once.
    let mut ways = BTreeMap::<_, Vec<_>>::new();
    for (name, asked) in desired.agents.iter().filter_map(|(name, asked)| Some((name, asked.as_ref().ok()?))) {
        let Some(record) = ask.records.get(name).filter(|record| record.stood(asked.release.id).is_none()) else {
            continue;
        };
        if let Some(stable) = &record.stable {
            let paths = paths_of(name, ask.environment);
            ways.entry((&stable.revision.commit, &asked.revision.commit)).or_default().push((name, paths));
        }
    }
    let mut all = BTreeMap::<AgentName, BTreeSet<_>>::new();
    for ((stands, asked), agents) in ways {
        let commits = store.commits_since(stands, asked, LINE).map_err(|error| error.to_string());
        let too_many = || format!("there are more than {LINE} commits since what is stable");
        let commits = match commits.and_then(|commits| commits.ok_or_else(too_many)) {
            Ok(commits) => commits,
            Err(why) => {
                let message = format!("nobody can approve it, since its authors are not known: {why}");
                let reason = Reason { word: "AuthorsUnknown", message, stalled: true };
                for (name, _) in agents {
                    held.entry(name.clone()).or_insert_with(|| reason.clone());
                }
                continue;
            }
        };
        for commit in commits {
            // What cannot be read whole may well be about all of them.
            let changed = store.changed_paths(&commit.id).ok().filter(|changed| changed.complete);
            let is_about = |paths: &[String]| changed.as_ref().is_none_or(|changed| touches(changed, paths));
            for (name, _) in agents.iter().filter(|(_, paths)| is_about(paths)) {
                all.entry((*name).clone()).or_default().insert(known(&commit.author));
            }
        }
    }
    all
}

/// Resolves with some agents at commits of their own.
fn at(
    ask: &Ask<'_>,
    head: &Verified<Checkout>,
    tracked: &Verified<Checkout>,
    commits: &BTreeMap<AgentName, CommitId>,
    trust: Trust<'_>,
    cache: &mut Cache,
    heard: &mut Heard,
) -> Result<DesiredState, Diagnostics> {
    let store = ask.git.mirror.store();
    let mut checkouts: BTreeMap<CommitId, Verified<Checkout>> = BTreeMap::new();
    let mut unverified: BTreeMap<CommitId, Diagnostics> = BTreeMap::new();
    for commit in commits.values() {
        if checkouts.contains_key(commit) || unverified.contains_key(commit) {
            continue;
        }
        // A commit that is not there is an error of the agents that are pinned to it, told by `resolve`.
        if let Ok(revision) = store.pinned(commit) {
            match beside(ask, &revision, trust) {
                Ok(checkout) => drop(checkouts.insert(commit.clone(), checkout)),
                Err(NotVerified::Source(error)) => return Err(wrong(&error.to_string(), error.hint())),
                Err(NotVerified::Unverified(error)) => {
                    let error = wrong(&error.to_string(), None);
                    heard.unverified = true;
                    heard.errors.0.extend(error.0.clone());
                    unverified.insert(commit.clone(), error);
                }
            }
        }
    }
    let pinned = commits.iter().filter_map(|(agent, commit)| Some((agent.clone(), At::from(checkouts.get(commit)?))));
    let asked = Resolve {
        environment: ask.environment,
        head: head.into(),
        tracked: tracked.into(),
        pinned: &pinned.collect(),
        now: ask.now,
        target: Some(ask.target),
    };
    let mut state = resolve(cache, &asked)?;
    for (agent, commit) in commits {
        if let Some(error) = unverified.get(commit) {
            state.agents.insert(agent.clone(), Err(error.clone()));
        }
    }
    Ok(state)
}

/// Takes out what agents follow because of another environment, where it cannot be had or is not verified: such an
/// agent waits, and does not follow the newest commit instead.
fn only_verified(
    ask: &Ask<'_>,
    trust: Trust<'_>,
    follow: &mut BTreeMap<AgentName, CommitId>,
    held: &mut BTreeMap<AgentName, Reason>,
) {
    let store = ask.git.mirror.store();
    let mut known: BTreeMap<CommitId, Option<Reason>> = BTreeMap::new();
    follow.retain(|agent, commit| {
        let lacks = known.entry(commit.clone()).or_insert_with(|| {
            let found = store.pinned(commit).map_err(NotVerified::from);
            let found = found.and_then(|revision| beside(ask, &revision, trust));
            let word = if matches!(found, Err(NotVerified::Unverified(_))) { "Unverified" } else { "AfterUnknown" };
            found.err().map(|error| Reason { word, message: error.to_string(), stalled: true })
        });
        if let Some(reason) = lacks {
            held.insert(agent.clone(), reason.clone());
        }
        lacks.is_none()
    });
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
    heard: &mut Heard,
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
    let read = at(ask, head, tracked, &other, Trust::Stood, cache, heard);
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
