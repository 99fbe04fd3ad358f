//! The daemon: its tasks, started, watched and joined.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::{Config, Kubernetes, Place, Target};
use super::environment::Environment;
use super::git::{Git, GitError};
use super::host::{Between, Claim, HostError, Machine, Opening};
use super::notes::Notes;
use super::parts::{Parts, Settled, Shared};
use super::smoke::Front;
use super::write_back::{Turn, WriteBacks};
use super::{Metrics, Status};
use crate::apply;
use crate::ledger::{Clock, Election, Journal, JournalError, Ledger, SystemClock, Terms};
use crate::measure::{Gates, Ground, Providers, Proxy};
use crate::observe::{Account, Api, ConnectError, Kinds, Limiter, Observer, Pace, connect};
use crate::reconcile::{AgentConfig, Failure};
use crate::source::{Hinter, Person, SigningKey};

/// As whom commits are made where nobody is named.
pub const COMMITTER: &str = "Backstay <backstay@localhost>";

/// The daemon, set up and not yet running.
pub struct Daemon {
    git: Arc<Git>,
    metrics: Arc<Metrics>,
    status: Status,
    environments: Vec<(Environment, Observer, Option<Election>)>,
    settled: Vec<watch::Receiver<Settled>>,
    machines: Vec<Machine>,
    /// Who writes notes, and as whom.
    notes: Option<(Notes, Person)>,
    clock: Arc<dyn Clock>,
}

/// The daemon cannot start, or one of its tasks ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The config repository.
    #[error("cannot set up the config repository")]
    Git(#[from] GitError),
    /// An API server.
    #[error("cannot reach the cluster of `{environment}`")]
    Connect {
        /// Which environment.
        environment: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// This machine.
    #[error("cannot serve `{environment}` on this host")]
    Host {
        /// Which environment.
        environment: String,
        /// Why.
        #[source]
        source: HostError,
    },
    /// More than one environment on this machine.
    #[error("`{second}` cannot be served on this host beside `{first}`: one proxy serves one environment")]
    SecondHost {
        /// The one before it.
        first: String,
        /// The other.
        second: String,
    },
    /// The journal.
    #[error("cannot open the journal")]
    Journal(#[from] JournalError),
    /// A name of a person cannot be used in a commit.
    #[error("`person.git` cannot be used in a commit: {0}")]
    Person(String),
    /// Where pull requests are opened.
    #[error("`source.pull_request` cannot be used: {0}")]
    PullRequest(String),
    /// A task ended by itself.
    #[error("{0}")]
    Ended(String),
}

// === impl Daemon ===

impl Daemon {
    /// Opens the mirror and the journal and makes the clients; nothing is written yet.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be put to work.
    pub async fn new(config: &Config) -> Result<Self, DaemonError> {
        Self::with(config, &Between::default(), Arc::new(SystemClock::default())).await
    }

    /// The same, with something between it and the API of its own host, and by another clock than the machine's.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be put to work.
    pub async fn with(config: &Config, between: &Between, clock: Arc<dyn Clock>) -> Result<Self, DaemonError> {
        let seed = u64::from(std::process::id()) ^ u64::from(clock.now().subsec_nanosecond().unsigned_abs()) << 20;
        let mut claim = claimed(config)?;
        let git = Arc::new(Git::start(config, seed)?);
        let metrics = Arc::new(Metrics::new());
        let status = Status::serving(config.target.iter().map(|target| target.environment.clone()));
        let journal = Arc::new(std::sync::Mutex::new(journal(&config.journal.path)?));
        let shared = Shared::default();
        let people = people(config)?;
        let committer = person(COMMITTER)?;
        let signing_key = config.source.signing_key.clone();
        look_at_signing(&git, signing_key.as_deref())?;
        let forge = config.source.forge();
        let forge = forge.map_err(|(_, why, hint)| DaemonError::PullRequest(format!("{why}; {hint}")))?;
        let notes = config.source.notes.then(|| (Notes::new(), committer.clone()));
        let write_backs = Arc::new(WriteBacks {
            git: Arc::clone(&git),
            people,
            committer,
            signing_key,
            forge,
            turn: Turn::default(),
            clock: Arc::clone(&clock),
        });
        let instance = instance();
        let gates = Arc::new(Gates::new(config.gates.clone()));
        let (mut environments, mut settled, mut machines) = (vec![], vec![], vec![]);
        for (number, target) in config.target.iter().enumerate() {
            let limiter = Limiter::new(target.in_flight());
            let opening = match target.place() {
                Place::Kubernetes(_) => None,
                Place::Host(host) => match claim.take() {
                    Some(claim) => Some(Opening::new(config, target, host, claim, &git, &clock, between).await?),
                    None => continue,
                },
            };
            let (own, acting) = match (&opening, target.place()) {
                (Some(opening), _) => (opening.client(), None),
                (None, Place::Kubernetes(kubernetes)) => (
                    reach(target, kubernetes, None).await?,
                    match account(kubernetes) {
                        Some(account) => Some(reach(target, kubernetes, Some(account)).await?),
                        None => None,
                    },
                ),
                (None, Place::Host(_)) => continue,
            };
            let ground = ground(config, target);
            let api = Api::new(own.clone(), Arc::clone(&limiter));
            let writer = acting.map_or_else(|| api.clone(), |client| Api::new(client, Arc::clone(&limiter)));
            let namespace = target.namespace().to_owned();
            let ledger = Ledger::new(
                api.clone(),
                namespace.clone(),
                target.environment.clone(),
                config.installation.to_string(),
            );
            let kinds = Arc::new(Kinds::new(api.clone()));
            let observer = Observer::new(api, Arc::clone(&kinds), namespace.clone(), Pace::default());
            let lease = Api::new(own, Limiter::new(4));
            let (election, fence, role) =
                Election::new(ledger.clone(), lease, instance.clone(), Terms::default(), Arc::clone(&clock));
            if let Some(opening) = opening {
                machines.push(opening.supervise(target, role.clone(), Arc::clone(&clock))?);
            }
            let (publish, receive) = watch::channel(Settled::No);
            let parts = Parts {
                config: Arc::new(AgentConfig {
                    environment: target.environment.clone(),
                    namespace: namespace.clone(),
                    installation: config.installation.to_string(),
                    target: target.kind(),
                    gate: gate(target),
                    observe: target.observe,
                    gates: gates.patience(),
                }),
                limits: target.prune.limits(),
                git: Arc::clone(&git),
                target: Arc::new(apply::Target::new(writer, kinds, namespace, Arc::new(fence.clone()))),
                ledger,
                observer: observer.clone(),
                role,
                fence,
                journal: Arc::clone(&journal),
                notes: notes.as_ref().map(|(notes, _)| notes.clone()),
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
                status: status.clone(),
                shared: Arc::clone(&shared),
                write_backs: Arc::clone(&write_backs),
                providers: Arc::new(Providers::new(config.metrics.clone(), ground)),
                gates: Arc::clone(&gates),
                front: front(config, target),
                instance: instance.clone(),
                at_work: 2 * target.in_flight(),
                settled: publish,
            };
            let environment = Environment::new(parts, seed.wrapping_add(number as u64));
            environments.push((environment, observer, (!target.observe).then_some(election)));
            settled.push(receive);
        }
        Ok(Self { git, metrics, status, environments, settled, machines, notes, clock })
    }

    /// Brings the next look at Git forward; to be called as often as anybody likes.
    pub fn hinter(&self) -> Hinter {
        self.git.hinter()
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether it is ready.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// How far each environment is.
    pub fn settled(&self) -> Vec<watch::Receiver<Settled>> {
        self.settled.clone()
    }

    /// Runs until `stop`, or until the first task ends for whatever reason; all are joined.
    ///
    /// # Errors
    ///
    /// What ended a task.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DaemonError> {
        let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
        // Writing ends before the lease is given back.
        let (writing, reading) = (stop.child_token(), CancellationToken::new());
        let mut elections = JoinSet::new();
        for (environment, observer, election) in self.environments {
            tasks.spawn(environment.run(writing.clone()));
            let observing = reading.clone();
            elections.spawn(async move { observer.run(observing).await });
            if let Some(election) = election {
                elections.spawn(election.run(reading.clone()));
            }
        }
        for machine in self.machines {
            elections.spawn(machine.run(reading.clone()));
        }
        if let Some((notes, by)) = self.notes {
            elections.spawn(notes.run(Arc::clone(&self.git), by, self.clock, reading.clone()));
        }
        metrics_of_polls(&mut elections, &self.git, Arc::clone(&self.metrics), reading.clone());
        let first = tokio::select! {
            () = stop.cancelled() => None,
            first = tasks.join_next() => first,
            ended = elections.join_next() => Some(Ok(Err(Failure {
                kind: crate::reconcile::FailureKind::Refused,
                message: format!("a watch or an election ended: {ended:?}"),
            }))),
        };
        writing.cancel();
        while tasks.join_next().await.is_some() {}
        reading.cancel();
        while elections.join_next().await.is_some() {}
        match first {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(failure))) => Err(DaemonError::Ended(failure.message)),
            Some(Err(error)) => Err(DaemonError::Ended(error.to_string())),
        }
    }
}

/// Says at once what would keep a commit of our own from being accepted. A key that cannot be read is an error.
fn look_at_signing(git: &Git, key: Option<&Path>) -> Result<(), GitError> {
    match key {
        None if git.verifier.is_strict() => {
            tracing::warn!("`source.verify` is set without `source.signing_key`: nothing can be written back to Git");
        }
        None => {}
        Some(path) => {
            let key = SigningKey::read(path)?;
            match git.verifier.trusts(&key) {
                Ok(()) => tracing::info!(key = key.fingerprint(), "commits made here are signed"),
                Err(why) => tracing::warn!(%why, "what is written back to Git would not be accepted"),
            }
        }
    }
    Ok(())
}

/// Counts the looks at Git.
fn metrics_of_polls(tasks: &mut JoinSet<()>, git: &Arc<Git>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut status = git.status();
    tasks.spawn(async move {
        let (mut round, mut fetches) = (0, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
            }
            let now = Arc::clone(&status.borrow_and_update());
            if now.round == round {
                continue;
            }
            round = now.round;
            let ended = if now.failures == 0 { super::Ended::Success } else { super::Ended::Failure };
            if let Some(at) = now.last_poll {
                metrics.polled(ended, Duration::ZERO, at);
            }
            if now.fetches != fetches {
                fetches = now.fetches;
                metrics.fetched(ended);
            }
            if let Some(error) = &now.error {
                tracing::warn!(%error, failures = now.failures, "the config repository cannot be read");
            }
        }
    });
}

fn journal(path: &Path) -> Result<Journal, JournalError> {
    if path == Path::new("stdout") {
        return Ok(Journal::stream(Box::new(std::io::stdout())));
    }
    Journal::file(path)
}

/// A client for the cluster of a target.
pub(super) async fn reach(
    target: &Target,
    kubernetes: &Kubernetes,
    account: Option<Account>,
) -> Result<kube::Client, DaemonError> {
    let environment = || target.environment.to_string();
    let client = connect(&kubernetes.cluster(), account.as_ref()).await;
    client.map_err(|source| DaemonError::Connect { environment: environment(), source })
}

/// The account that is impersonated there.
fn account(kubernetes: &Kubernetes) -> Option<Account> {
    let name = kubernetes.service_account.as_ref()?.to_string();
    Some(Account { namespace: kubernetes.namespace.to_string(), name })
}

/// Claims this machine where an environment is on it; two are refused: the proxy knows agents by their names alone.
fn claimed(config: &Config) -> Result<Option<Claim>, DaemonError> {
    let mut hosts = config.target.iter().filter(|target| matches!(target.place(), Place::Host(_)));
    match (hosts.next(), hosts.next()) {
        (Some(first), Some(second)) => Err(DaemonError::SecondHost {
            first: first.environment.to_string(),
            second: second.environment.to_string(),
        }),
        (Some(host), None) => {
            let environment = host.environment.to_string();
            Claim::stake(config).map(Some).map_err(|source| DaemonError::Host { environment, source })
        }
        (None, _) => Ok(None),
    }
}

/// The policy gate, with the names of our own objects.
pub(super) fn gate(target: &Target) -> crate::plan::GatePolicy {
    let mut gate = target.gate();
    gate.own_names.insert(format!("backstay-{}", target.environment));
    // As `manifests/` calls them, for a target that is the daemon's own namespace.
    gate.own_names.extend(["backstay", "backstay-git", "backstay-webhooks"].map(str::to_owned));
    gate
}

/// Names this process among all that may lead.
fn instance() -> String {
    format!("{}-{}", crate::sys::machine_name(), std::process::id())
}

/// The people of the configuration, as whom they commit by the name that they are known by.
pub(super) fn people(config: &Config) -> Result<BTreeMap<String, Person>, DaemonError> {
    let known = config.person.iter().map(|someone| Ok((someone.username.clone(), person(&someone.git.to_string())?)));
    known.collect()
}

fn person(text: &str) -> Result<Person, DaemonError> {
    text.parse::<Person>().map_err(|error| DaemonError::Person(error.to_string()))
}

/// Where the preview of a second set is reached.
fn front(config: &Config, target: &Target) -> Option<Front> {
    match target.place() {
        Place::Host(_) => {
            let on = config.proxy.as_ref().and_then(|proxy| proxy.listen.first())?;
            Some(Front::Proxy(reached(on.0)))
        }
        Place::Kubernetes(_) => Some(Front::Service),
    }
}

/// Where a listener is reached from this machine.
fn reached(on: SocketAddr) -> SocketAddr {
    if !on.ip().is_unspecified() {
        return on;
    }
    let here = if on.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
    SocketAddr::new(here, on.port())
}

/// Where the releases run that are measured.
fn ground(config: &Config, target: &Target) -> Ground {
    let proxy = match target.place() {
        Place::Host(_) => {
            let proxy = config.proxy.clone().unwrap_or_default();
            Some(Proxy { control: proxy.control, table: proxy.table })
        }
        Place::Kubernetes(_) => None,
    };
    Ground { namespace: target.namespace().to_owned(), proxy }
}
