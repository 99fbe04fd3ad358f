//! One look at everything, for people: what would be done now, without doing any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::{Config, Place, Target};
use super::git::{Git, Wish};
use super::run::{DaemonError, gate, reach};
use super::word::{Ask, listen};
use crate::desired::{Cache, RolloutSpec, Track};
use crate::ledger::Ledger;
use crate::measure::Gates;
use crate::model::{AgentName, Diagnostic, Diagnostics, LiveState, Origin, Timestamp};
use crate::observe::{Api, Kinds, Limiter, Observer, Pace};
use crate::reconcile::{Admitted, AgentConfig, LedgerEntry, Preview, Wanted, preview};
use crate::record::{AgentRecord, Records};
use crate::rollout::Carrier;

/// How long the first list of every kind may take.
const SIGHT: Duration = Duration::from_secs(30);

/// What would be done in one environment.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// By agent; or, in one sentence, why there is no plan.
    pub agents: BTreeMap<AgentName, Result<Preview, String>>,
    /// What is seen of each agent.
    pub live: BTreeMap<AgentName, LiveState>,
    /// What Git asks for, with the revision that it was read at.
    pub revision: Option<String>,
    /// What is wrong with the newest commit.
    pub errors: Diagnostics,
    /// Why a followed reference is not followed.
    pub refused: Option<String>,
    /// Why removals wait for a person.
    pub prune_blocked: Option<String>,
    /// How releases would get the traffic, of the agents that declare it.
    pub rollouts: BTreeMap<AgentName, Rolled>,
}

/// How releases of one agent would get the traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Rolled {
    /// As it is declared.
    pub spec: RolloutSpec,
    /// How traffic is split there.
    pub carrier: Carrier,
    /// Instances of the agent.
    pub instances: u32,
    /// The gates that the configuration names.
    pub gates: BTreeSet<String>,
    /// What is remembered of it.
    pub record: Option<Arc<AgentRecord>>,
}

/// Looks at Git, the ledger and the target of one environment, and plans every agent. Writes nothing to any of them.
///
/// `folder` takes a mirror of the repository, which is left there.
///
/// # Errors
///
/// When one of the three cannot be read.
pub async fn look(
    config: &Config,
    target: &Target,
    folder: &std::path::Path,
    now: Timestamp,
) -> Result<Looked, DaemonError> {
    let (api, ledger) = ledger_of(config, target).await?;
    let namespace = target.namespace().to_owned();
    let failed = |failure: crate::reconcile::Failure| DaemonError::Ended(failure.message);
    let record = ledger.environment().await.map_err(failed)?.map(|entry| entry.record).unwrap_or_default();
    let entries: BTreeMap<_, _> = ledger.agents().await.map_err(failed)?.into_iter().collect();
    let records: Records =
        entries.iter().filter_map(|(agent, entry)| Some((agent.clone(), Arc::clone(entry.record()?)))).collect();
    let mut elsewhere = Config::clone(config);
    elsewhere.state.folder = folder.to_owned();
    let git = Arc::new(Git::start(&elsewhere, 0)?);
    let people = super::run::people(config)?;
    let mut tracks = vec![Track::Branch(git.branch().to_owned())];
    let mut pins = vec![];
    let mut cache = Cache::default();
    let (mut elsewhere_records, mut elsewhere_unread) = (None, None);
    let mut heard = loop {
        let tracks_now = tracks.iter().map(|track: &Track| (track.clone(), record.accepted.get(&track.key()).cloned()));
        let wish = Wish { tracks: tracks_now.collect(), pins: pins.iter().cloned().collect(), ..Wish::default() };
        let round = git.wish(&target.environment, wish).unwrap_or_else(|| git.look());
        let mut status = git.status();
        let seen = status.wait_for(|status| status.round >= round).await;
        let seen = seen.map_err(|_| DaemonError::Ended("the source ended".to_owned()))?.clone();
        if let (Some(error), None) = (&seen.error, seen.last_success) {
            return Err(super::GitError::from(error.clone()).into());
        }
        let (asked, environment, record, records) =
            (Arc::clone(&git), target.environment.clone(), record.clone(), records.clone());
        let kind = target.kind();
        let elsewhere = elsewhere_records.clone();
        let people = people.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let ask = Ask {
                git: &asked,
                status: &seen,
                environment: &environment,
                target: kind,
                record: &record,
                records: &records,
                elsewhere: elsewhere.as_ref(),
                now,
                people: &people,
            };
            let heard = listen(&ask, &mut cache);
            (heard, cache)
        });
        let (heard, used) = reading.await.map_err(|error| DaemonError::Ended(error.to_string()))?;
        cache = used;
        let after = heard.word.as_ref().and_then(|word| word.desired.spec.after.as_ref());
        let bound = after.and_then(|rule| config.target(&rule.environment));
        if let (Some(other), None, None) = (bound, &elsewhere_records, &elsewhere_unread) {
            match records_of(config, other).await {
                Ok(found) => elsewhere_records = Some(found),
                Err(why) => elsewhere_unread = Some(why),
            }
            continue;
        }
        if heard.tracks == tracks && heard.pins == pins {
            break heard;
        }
        tracks.clone_from(&heard.tracks);
        pins.clone_from(&heard.pins);
    };
    heard.errors.0.extend(elsewhere_unread);
    let mut looked =
        Looked { errors: heard.errors, refused: heard.refused.map(|refused| refused.why), ..Looked::default() };
    let Some(word) = heard.word else { return Ok(looked) };
    looked.revision = Some(word.desired.tracked.to_string());
    let Admitted { agents, prune_blocked, again: _ } = word.admit(&records, &namespace, target.prune.limits(), now);
    looked.prune_blocked = prune_blocked;
    let kinds = Arc::new(Kinds::new(api.clone()));
    let observer = Observer::new(api, kinds, namespace.clone(), Pace::default());
    word.kinds(target.kind(), &gate(target)).for_each(|kind| observer.watch_kind(kind));
    let live = see(&observer, agents.keys().cloned().collect()).await;
    let shared = Arc::new(AgentConfig {
        environment: target.environment.clone(),
        namespace,
        installation: config.installation.to_string(),
        target: target.kind(),
        gate: gate(target),
        observe: true,
        gates: Gates::new(config.gates.clone()).patience(),
    });
    for (agent, admission) in agents {
        if let Wanted::Run(desired) = &admission.wanted
            && let Some(spec) = &desired.settings.rollout
        {
            let record = records.get(&agent).cloned();
            let instances = desired.settings.replicas.unwrap_or(1);
            let carrier = Carrier::of(target.kind(), &desired.settings);
            let gates = config.gates.keys().cloned().collect();
            looked.rollouts.insert(agent.clone(), Rolled { spec: spec.clone(), carrier, instances, gates, record });
        }
        let entry = entries.get(&agent).cloned().unwrap_or(LedgerEntry::Absent);
        let seen = live.get(&agent).cloned().unwrap_or_default();
        let planned = preview(&agent, &shared, &admission, entry, seen, now);
        looked.agents.insert(agent, planned);
    }
    looked.live = live;
    Ok(looked)
}

/// The cluster of a target, and the ledger of its environment there.
async fn ledger_of(config: &Config, target: &Target) -> Result<(Api, Ledger), DaemonError> {
    let client = match target.place() {
        Place::Kubernetes(kubernetes) => reach(target, kubernetes, None).await?,
        Place::Host(_) => crate::host::client(&config.host_socket()),
    };
    let api = Api::new(client, Limiter::new(target.in_flight()));
    let namespace = target.namespace().to_owned();
    let ledger = Ledger::new(api.clone(), namespace, target.environment.clone(), config.installation.to_string());
    Ok((api, ledger))
}

/// What another environment's ledger says; what `after` waits for there. An error where the caller may not read it.
async fn records_of(config: &Config, target: &Target) -> Result<Records, Diagnostic> {
    let environment = &target.environment;
    let wrong = |why: String| {
        let message = format!("cannot read the ledger of `{environment}`, which `after` waits for: {why}");
        Diagnostic::error(Origin::file(format!("environments/{environment}.yaml")), message)
    };
    let (_, ledger) = ledger_of(config, target).await.map_err(|error| wrong(error.to_string()))?;
    let entries = ledger.agents().await.map_err(|failure| wrong(failure.message))?;
    Ok(entries.into_iter().filter_map(|(agent, entry)| Some((agent, Arc::clone(entry.record()?)))).collect())
}

/// The live state of all agents, once every kind was listed.
async fn see(observer: &Observer, agents: Vec<AgentName>) -> BTreeMap<AgentName, LiveState> {
    let stop = CancellationToken::new();
    let watching = observer.run(stop.clone());
    let whole = async {
        loop {
            let first = agents.first().map(|agent| observer.snapshot(agent));
            if first.is_none_or(|live| live.synced && live.unseen.values().all(|why| !why.is_empty())) {
                return;
            }
            observer.changed().await;
        }
    };
    tokio::select! {
        () = watching => {}
        _ = tokio::time::timeout(SIGHT, whole) => {}
    }
    stop.cancel();
    agents.into_iter().map(|agent| (agent.clone(), observer.snapshot(&agent))).collect()
}
