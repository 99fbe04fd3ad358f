//! Finding the environment that is meant, and the way to its ledger.

use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::config::{self, Config, Label, Launcher, Target, nearest};
use crate::host;
use crate::ledger::{Asker, GROUP, Ledger, VERSION, whoami};
use crate::model::{AgentName, Digest, EnvironmentName, Timestamp};
use crate::observe::{Api, Cluster, Limiter, connect, listed};
use crate::reconcile::{Failure, FailureKind, LedgerEntry};
use crate::record::{AgentRecord, Requests};
use crate::source::SourceConfig;

use super::exit::{CliError, Exit};
use super::{Globals, verbs::Known};

/// Requests in flight of one command.
const IN_FLIGHT: usize = 8;
/// Environments of one page of a list.
const PAGE: u32 = 500;

/// One environment, where it lives.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) environment: EnvironmentName,
    pub(super) namespace: String,
    pub(super) api: Api,
    /// Who starts processes there, where it is this machine.
    pub(super) host: Option<Launcher>,
}

/// One agent as the ledger holds it.
pub(super) struct Seen {
    pub(super) record: AgentRecord,
    pub(super) requests: Requests,
}

/// All environments that are meant, at least one.
pub(super) async fn places(globals: &Globals) -> Result<Vec<Place>, CliError> {
    let config = globals.config()?;
    let wanted = globals.environment.as_ref();
    if let Some(namespace) = &globals.namespace {
        let target =
            config.as_ref().and_then(|config| config.target.iter().find(|target| target.namespace() == namespace));
        let host = target.and_then(launcher);
        let api = reach(globals, config.as_ref(), target).await?;
        let found = environments(&api, Some(namespace)).await?;
        if found.is_empty() {
            let message = format!("no environment of Backstay is at home in the namespace `{namespace}`");
            return Err(CliError::usage(message).hint(
                "`kubectl get agentenvironments --all-namespaces` lists them; the daemon makes one at its first start",
            ));
        }
        return chosen(found, wanted, &api, host, &format!("the namespace `{namespace}`"));
    }
    if let Some(config) = config {
        let mut places = Vec::new();
        for target in targets(&config, wanted)? {
            let api = reach(globals, Some(&config), Some(target)).await?;
            let namespace = target.namespace().to_owned();
            let host = launcher(target);
            places.push(Place { environment: target.environment.clone(), namespace, api, host });
        }
        return Ok(places);
    }
    let api = reach(globals, None, None).await?;
    let found = environments(&api, None).await?;
    if found.is_empty() {
        return Err(CliError::usage("no environment of Backstay is in this cluster")
            .hint("is this the right cluster? `--context` and `--kubeconfig` name another"));
    }
    chosen(found, wanted, &api, None, "this cluster")
}

/// The one environment that is meant.
pub(super) async fn place(globals: &Globals) -> Result<Place, CliError> {
    let mut places = places(globals).await?;
    if places.len() == 1 {
        return Ok(places.remove(0));
    }
    let names = places.iter().map(|place| format!("`{}`", place.environment)).collect::<Vec<_>>().join(", ");
    Err(CliError::usage("which environment is meant?").hint(format!("name one with `--environment`: {names}")))
}

/// The targets that `wanted` means: itself, or all.
pub(super) fn targets<'a>(config: &'a Config, wanted: Option<&EnvironmentName>) -> Result<Vec<&'a Target>, CliError> {
    let Some(wanted) = wanted else { return Ok(config.target.iter().collect()) };
    let known: Known = config.target.iter().map(|target| target.environment.as_str()).collect();
    let found = config.target(wanted).map(|target| vec![target]);
    found.ok_or_else(|| unknown_environment(wanted, "the configuration", &known))
}

fn chosen(
    found: Vec<(EnvironmentName, String)>,
    wanted: Option<&EnvironmentName>,
    api: &Api,
    host: Option<Launcher>,
    within: &str,
) -> Result<Vec<Place>, CliError> {
    let known: Known = found.iter().map(|(environment, _)| environment.as_str()).collect();
    if let Some(wanted) = wanted.filter(|wanted| !known.0.contains(wanted.as_str())) {
        return Err(unknown_environment(wanted, within, &known));
    }
    let meant = found.into_iter().filter(|(environment, _)| wanted.is_none_or(|wanted| wanted == environment));
    let place = |(environment, namespace)| Place { environment, namespace, api: api.clone(), host };
    Ok(meant.map(place).collect())
}

fn unknown_environment(wanted: &EnvironmentName, within: &str, known: &Known) -> CliError {
    CliError::usage(format!("there is no environment `{wanted}` in {within}")).hint(known.hint(wanted.as_str()))
}

async fn reach(globals: &Globals, config: Option<&Config>, target: Option<&Target>) -> Result<Api, CliError> {
    let configured = match target.map(Target::place) {
        Some(config::Place::Kubernetes(kubernetes)) => kubernetes.cluster(),
        Some(config::Place::Host(_)) => return of_host(&config.map(Config::host_socket).unwrap_or_default()).await,
        None => Cluster::default(),
    };
    let cluster = Cluster {
        kubeconfig: globals.kubeconfig.clone().or(configured.kubeconfig),
        context: globals.context.clone().or(configured.context),
        // Whoever runs the command named it, or has it as their own.
        own: true,
    };
    let client = connect(&cluster, None).await?;
    Ok(Api::new(client, Limiter::new(IN_FLIGHT)))
}

/// Who starts processes at a target that is this machine.
fn launcher(target: &Target) -> Option<Launcher> {
    match target.place() {
        config::Place::Kubernetes(_) => None,
        config::Place::Host(host) => Some(host.launcher),
    }
}

/// The API of this machine, which the daemon serves at `socket`.
pub(super) async fn of_host(socket: &Path) -> Result<Api, CliError> {
    match host::answers(socket).await {
        Ok(()) => Ok(Api::new(host::client(socket), Limiter::new(IN_FLIGHT))),
        Err(error) => Err(not_served(socket, error)),
    }
}

/// Why the daemon of this machine cannot be asked.
fn not_served(socket: &Path, error: io::Error) -> CliError {
    let (shown, kind) = (socket.display(), error.kind());
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        let how = if kind == io::ErrorKind::NotFound { "is not there" } else { "is not answered" };
        return CliError::new(Exit::Broken, format!("the daemon of this machine is not running: `{shown}` {how}")).hint(
            "start it: `backstay run --config FILE`, or its service; agents go on without it, and `backstay logs AGENT` \
             needs none",
        );
    }
    if kind == io::ErrorKind::PermissionDenied {
        return CliError::new(Exit::Refused, format!("this account may not reach the daemon at `{shown}`"))
            .because(error)
            .hint("whoever may enter the folder may look; `ls -ld` shows who that is");
    }
    CliError::new(Exit::Broken, format!("cannot reach the daemon at `{shown}`")).because(error)
}

/// The environments of a namespace or of the cluster, with their namespaces.
async fn environments(api: &Api, namespace: Option<&str>) -> Result<Vec<(EnvironmentName, String)>, CliError> {
    let within = match namespace {
        Some(namespace) => format!("the namespace `{namespace}`"),
        None => "the cluster".to_owned(),
    };
    let deed = format!("list the environments of {within}");
    let path = match namespace {
        Some(namespace) => {
            let label: Label = namespace.parse().map_err(|why: String| {
                CliError::usage(format!("`{namespace}` cannot be the name of a namespace")).hint(why)
            })?;
            format!("/apis/{GROUP}/{VERSION}/namespaces/{label}/agentenvironments")
        }
        None => format!("/apis/{GROUP}/{VERSION}/agentenvironments"),
    };
    let (objects, _) = listed(api, &path, "", PAGE, Some).await.map_err(|refusal| {
        if refusal.is_unserved() {
            return CliError::new(Exit::Refused, "Backstay is not installed in this cluster")
                .hint("apply its `manifests/`, or name another cluster with `--context` or `--kubeconfig`");
        }
        let failure = refusal.failure(&deed);
        let forbidden = failure.kind == FailureKind::Forbidden;
        let error = CliError::from(failure);
        if forbidden && namespace.is_none() { error.hint("name the namespace with `--namespace`") } else { error }
    })?;
    let named = objects.iter().filter_map(|object| {
        let text = |at: &str| object.pointer(at).and_then(serde_json::Value::as_str);
        Some((text("/metadata/name")?.parse().ok()?, text("/metadata/namespace")?.to_owned()))
    });
    Ok(named.collect())
}

/// A mirror of the caller's own: the daemon's is kept by the daemon.
pub(super) fn mirror_folder(source: &SourceConfig) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or(home).unwrap_or_else(std::env::temp_dir);
    let name = Digest::of(source.url.to_string().as_bytes()).to_string();
    cache.join("backstay").join(name.get(..16).unwrap_or_default())
}

// === impl Place ===

impl Place {
    /// Its ledger, to read and to ask; nothing is recorded through it.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(self.api.clone(), self.namespace.clone(), self.environment.clone(), "")
    }

    /// Why a request of a person was not taken.
    pub(super) fn refused(&self, failure: Failure) -> CliError {
        let forbidden = failure.kind == FailureKind::Forbidden;
        let error = CliError::from(failure);
        if self.host.is_some() && forbidden {
            return error.hint("on a host root, the daemon's account and every `[[person]] username` may ask");
        }
        error
    }

    /// The person who asks, by the name that the API server knows them by.
    pub(super) async fn asker(&self, reason: &str) -> Result<Asker, CliError> {
        let by = whoami(&self.api).await?;
        Ok(Asker { by, reason: reason.to_owned(), at: Timestamp::now() })
    }

    /// All agents of its ledger, by name.
    pub(super) async fn agents(&self) -> Result<Vec<(AgentName, Seen)>, CliError> {
        let mut agents: Vec<_> = self
            .ledger()
            .agents()
            .await?
            .into_iter()
            .filter_map(|(name, entry)| Some((name, Seen::of(entry)?)))
            .collect();
        agents.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(agents)
    }

    /// One agent, which must be there.
    pub(super) async fn agent(&self, name: &AgentName) -> Result<Seen, CliError> {
        if let Some(seen) = Seen::of(self.ledger().agent(name).await?) {
            return Ok(seen);
        }
        let agents = self.agents().await?;
        let known: Known = agents.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("there is no agent `{name}` in the environment `{}`", self.environment);
        Err(CliError::usage(message).hint(known.hint(name.as_str())))
    }
}

// === impl Seen ===

impl Seen {
    pub(super) fn of(entry: LedgerEntry) -> Option<Self> {
        match entry {
            LedgerEntry::Absent => None,
            LedgerEntry::Present { record, requests, .. } => {
                Some(Self { record: std::sync::Arc::unwrap_or_clone(record), requests })
            }
        }
    }
}

// === impl Known ===

impl Known<'_> {
    /// What somebody may have meant, or all there is.
    pub(super) fn hint(&self, typed: &str) -> String {
        match nearest(typed, self.0.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.0.is_empty() => "there is none yet: the first commit that declares one makes it".to_owned(),
            None => {
                format!("there is {}", self.0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_daemon_the_way_out_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api.sock");
        let missing = of_host(&socket).await.err().expect("nobody serves it");
        assert_eq!(missing.exit(), Exit::Broken);
        assert!(missing.to_string().starts_with("the daemon of this machine is not running"), "{missing}");
        assert!(missing.way_out().is_some_and(|way| way.contains("backstay run")), "{missing:?}");
        drop(host::listen(&socket).expect("a socket"));
        let left = of_host(&socket).await.err().expect("nobody serves it");
        assert!(left.to_string().ends_with("is not answered"), "{left}");
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("other")).expect("a socket"));
        let denied = not_served(&socket, io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(denied.exit(), Exit::Refused);
    }
}
