//! From a Pod to what its keeper is told: variables, command, folders, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, PodSpec};
use kube::ResourceExt as _;

use super::care::Stamp;
use super::ground::Ground;
use super::instance::Trouble;
use super::probe::{self, Check, local};
use super::run::Settings;
use super::view::{PORT, container, release_in};
use crate::keeper::spec::{EnvFile, EnvPart, FORMAT, Log, Policy, Restart, Spec, Stop};
use crate::model::{AgentName, InvalidName};
use crate::plan::whole_amount;
use crate::proxy::Address;
use crate::render::{AGENT_LABEL, PROCESS_LABEL};
use crate::sys::{self, Limit, Listen};

/// Bytes of one secret.
const SECRET: u64 = 1 << 20;
/// What programs are found by where the release names no other.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Bytes of one log file, how many there are, and the age in seconds at which a new one begins.
const LOG: (u64, u32, u64) = (16 << 20, 5, 24 * 3600);

/// What a Pod needs to be launched, beside itself.
pub(super) struct Needs {
    /// The ConfigMaps that it names, as far as they exist.
    pub(super) config_maps: BTreeMap<String, ConfigMap>,
    /// Where its code is; none where it has none of its own.
    pub(super) code: Option<PathBuf>,
    pub(super) epoch: u64,
}

/// A Pod, ready to be launched.
pub(super) struct Launch {
    pub(super) spec: Spec,
    /// Where it answers.
    pub(super) address: Option<Address>,
    pub(super) probes: Probes,
    /// The folder with the release's components, and how it was when it was compared with what it should be.
    pub(super) components: (PathBuf, Stamp),
}

/// The probes of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Probes {
    pub(super) startup: Option<Check>,
    pub(super) ready: Option<Check>,
    pub(super) live: Option<Check>,
}

/// The folder of an instance.
pub(super) fn folder(settings: &Settings, pod: &str) -> PathBuf {
    settings.state.join("instances").join(pod)
}

/// The folder of an instance's logs.
pub(super) fn log_folder(settings: &Settings, pod: &Pod) -> PathBuf {
    settings.state.join("logs").join(process_name(pod)).join(pod.name_any())
}

/// The agent of a Pod.
pub(super) fn agent_name(pod: &Pod) -> Result<AgentName, Trouble> {
    let label = pod.labels().get(AGENT_LABEL).ok_or_else(|| Trouble::config("the Pod names no agent"))?;
    label.parse().map_err(|error: InvalidName| Trouble::config(error.to_string()))
}

/// `<agent>`, or `<agent>--<worker>`.
fn process_name(pod: &Pod) -> String {
    let label = |name: &str| pod.labels().get(name).map(String::as_str);
    let agent = label(AGENT_LABEL).unwrap_or("unknown");
    match label(PROCESS_LABEL) {
        Some(process) if process != "main" => format!("{agent}--{process}"),
        Some(_) | None => agent.to_owned(),
    }
}

/// Whether a Pod is to be given a port: its template declares one in any way.
pub(super) fn needs_port(spec: &PodSpec) -> bool {
    container(spec).is_some_and(|container| !declared_ports(container).is_empty())
}

/// The ConfigMaps that a Pod's container reads.
pub(super) fn config_maps(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| Some(volume.config_map.as_ref()?.name.clone()));
    let variables = container(spec).into_iter().flat_map(|container| container.env.iter().flatten());
    let variables =
        variables.filter_map(|one| Some(one.value_from.as_ref()?.config_map_key_ref.as_ref()?.name.clone()));
    volumes.chain(variables).collect()
}

/// Makes what a Pod is launched with. Writes its release's folder; starts nothing.
pub(super) fn prepare(settings: &Settings, pod: &Pod, needs: &Needs) -> Result<Launch, Trouble> {
    let pod_spec = pod.spec.as_ref().ok_or_else(|| Trouble::config("the Pod has no spec"))?;
    let container = container(pod_spec).ok_or_else(|| Trouble::config("the Pod has no container"))?;
    let release = release_in(pod.annotations()).ok_or_else(|| Trouble::config("the Pod names no release"))?;
    let components = components(settings, pod, pod_spec, &release.digest().to_string(), needs)?;
    let name = pod.name_any();
    let declared = declared_ports(container);
    let leased: Option<u16> = pod.annotations().get(PORT).and_then(|text| text.parse().ok());
    let leased = leased.filter(|_| !declared.is_empty());
    let ground = Ground::of(settings, pod)?;
    let socket = ground.place.join("listen");
    let address = match leased {
        Some(port) => Some(local(port)),
        None if declared.is_empty() && probes_http(container) => Some(Address::Unix(socket.clone())),
        None => None,
    };

    let Variables { mut env, files: env_files, texts: env_texts } =
        variables(settings, pod, container, needs, &ground)?;
    if let Some(port) = leased {
        env.insert("PORT".to_owned(), port.to_string());
    }
    env.insert("BACKSTAY_AGENT_DIR".to_owned(), components.display().to_string());
    let listen = match &address {
        Some(Address::Tcp(at)) => Some(Listen::Port(at.port())),
        Some(Address::Unix(path)) => Some(Listen::Socket(path.clone())),
        None => None,
    };
    if let Some(Listen::Socket(path)) = &listen {
        env.insert("BACKSTAY_LISTEN".to_owned(), format!("unix:{}", path.display()));
    }
    let (command, args) = command(settings, container, needs, &env, &|name| {
        env_files.contains_key(name) || env_texts.contains_key(name)
    })?;
    let nonce: String = pod.uid().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    let spec = Spec {
        format: FORMAT,
        instance: name,
        nonce,
        agent: process_name(pod),
        release: release.digest().to_string(),
        epoch: needs.epoch,
        command,
        args,
        env,
        env_files,
        env_texts,
        working_dir: needs.code.clone().unwrap_or_else(|| components.clone()),
        umask: ground.umask(matches!(listen, Some(Listen::Socket(_)))),
        writable: ground.writable,
        limits: limits(container),
        cgroup: None,
        listen,
        stop: Stop { pre_stop: pre_stop(container), grace_ms: grace(pod_spec) },
        restart: Restart { policy: Policy::Always, first_ms: 500, most_ms: 30_000, stable_ms: 60_000 },
        log: Log { folder: ground.logs, max_bytes: LOG.0, files: LOG.1, max_age_s: LOG.2 },
        dies_with_keeper: false,
        alone: false,
        trusted_uids: ground.trusted,
    };
    spec.check().map_err(|error| Trouble::config(error.to_string()))?;
    let check = |probe: &Option<_>| probe.as_ref().map(Check::of);
    let probes = Probes {
        startup: check(&container.startup_probe),
        ready: check(&container.readiness_probe),
        live: check(&container.liveness_probe),
    };
    let components = (components.clone(), Stamp::of(&components));
    Ok(Launch { spec, address, probes, components })
}

fn grace(spec: &PodSpec) -> u64 {
    let seconds = spec.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30);
    seconds.clamp(1, 3600) * 1000
}

/// A command before SIGTERM. A mere sleep is for Services that send requests for a while yet; the proxy does not.
fn pre_stop(container: &Container) -> Option<Vec<String>> {
    let exec = container.lifecycle.as_ref()?.pre_stop.as_ref()?.exec.as_ref()?;
    exec.command.clone().filter(|command| !command.is_empty())
}

/// Memory that a process may have of its own. Processor time is not limited without a cgroup.
fn limits(container: &Container) -> BTreeMap<Limit, u64> {
    let memory = container.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory"));
    memory.and_then(|quantity| whole_amount(&quantity.0)).map(|bytes| (Limit::Data, bytes)).into_iter().collect()
}

fn probes_http(container: &Container) -> bool {
    [&container.readiness_probe, &container.liveness_probe, &container.startup_probe]
        .into_iter()
        .flatten()
        .any(|probe| probe.http_get.is_some() || probe.tcp_socket.is_some())
}

/// The ports that a container is declared with: its own, those of its probes, and what `PORT` says.
fn declared_ports(container: &Container) -> BTreeSet<u16> {
    let own = container.ports.iter().flatten().filter_map(|port| u16::try_from(port.container_port).ok());
    let variable = container.env.iter().flatten().filter(|variable| variable.name == "PORT");
    let variable = variable.filter_map(|variable| variable.value.as_ref()?.parse().ok());
    let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
    let probed = probes.into_iter().flatten().filter_map(|probe| {
        let http = probe.http_get.as_ref().map(|get| &get.port);
        probe::port(http.or_else(|| probe.tcp_socket.as_ref().map(|socket| &socket.port))?)
    });
    own.chain(variable).chain(probed).filter(|port| *port != 0).collect()
}

/// The variables of a container. Those whose values only the agent may read are put together by its keeper.
#[derive(Default)]
struct Variables {
    /// Those that everybody may read.
    env: BTreeMap<String, String>,
    /// Those whose values lie in files that only the agent may read.
    files: BTreeMap<String, EnvFile>,
    /// Those with such values in their text.
    texts: BTreeMap<String, Vec<EnvPart>>,
}

/// The variables of a container: nothing is inherited.
fn variables(
    settings: &Settings,
    pod: &Pod,
    container: &Container,
    needs: &Needs,
    ground: &Ground,
) -> Result<Variables, Trouble> {
    let path = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let mut known = Variables { env: path, ..Variables::default() };
    for variable in container.env.iter().flatten() {
        let name = variable.name.clone();
        let secret = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
        let file = secret.and_then(|secret| ground.secret(&secret.name, &secret.key, secret.optional == Some(true)));
        if let Some(file) = file {
            known.files.insert(name, file);
            continue;
        }
        let Some(value) = variable_of(settings, pod, variable, needs)? else { continue };
        let parts = parts(&value, &known);
        let is_open = |part: &EnvPart| matches!(part, EnvPart::Text(_));
        if parts.iter().all(is_open) {
            known.env.insert(name, expanded(&value, &known.env));
        } else {
            known.texts.insert(name, parts);
        }
    }
    Ok(known)
}

/// A text with what is known of variables before it, as on a cluster.
fn parts(text: &str, known: &Variables) -> Vec<EnvPart> {
    let mut parts: Vec<EnvPart> = vec![];
    let mut add = |part: EnvPart| match (parts.last_mut(), part) {
        (_, EnvPart::Text(nothing)) if nothing.is_empty() => {}
        (Some(EnvPart::Text(before)), EnvPart::Text(more)) => before.push_str(&more),
        (_, part) => parts.push(part),
    };
    each(text, |piece| match piece {
        Piece::Text(text) => add(EnvPart::Text(text.to_owned())),
        Piece::Variable(name) => {
            if let Some(value) = known.env.get(name) {
                add(EnvPart::Text(value.clone()));
            } else if let Some(file) = known.files.get(name) {
                add(EnvPart::File { file: file.clone(), otherwise: format!("$({name})") });
            } else if let Some(within) = known.texts.get(name) {
                within.iter().cloned().for_each(&mut add);
            } else {
                add(EnvPart::Text(format!("$({name})")));
            }
        }
    });
    parts
}

fn variable_of(settings: &Settings, pod: &Pod, variable: &EnvVar, needs: &Needs) -> Result<Option<String>, Trouble> {
    let Some(from) = &variable.value_from else { return Ok(Some(variable.value.clone().unwrap_or_default())) };
    if let Some(secret) = &from.secret_key_ref {
        let found = secret_value(settings, &secret.name, &secret.key)?;
        if found.is_none() && secret.optional != Some(true) {
            let place = settings.secrets.join(&secret.name).join(&secret.key);
            return Err(Trouble::config(format!(
                "it needs the key `{}` of the secret `{}`: put it into the file `{}`",
                secret.key,
                secret.name,
                place.display()
            )));
        }
        return Ok(found);
    }
    if let Some(key) = &from.config_map_key_ref {
        let map = needs.config_maps.get(&key.name);
        let found = map.and_then(|map| map.data.as_ref()?.get(&key.key)).cloned();
        if found.is_none() && key.optional != Some(true) {
            return Err(Trouble::config(missing_key(&key.key, &key.name)));
        }
        return Ok(found);
    }
    if let Some(field) = &from.field_ref {
        return field_of(pod, &field.field_path).map(Some).ok_or_else(|| {
            Trouble::config(format!(
                "the variable `{}` asks for `{}`, which a host does not have",
                variable.name, field.field_path
            ))
        });
    }
    Err(Trouble::config(format!("the variable `{}` comes from something that a host does not have", variable.name)))
}

fn missing_key(key: &str, map: &str) -> String {
    format!("it needs the key `{key}` of the ConfigMap `{map}`, which does not exist")
}

/// A field of a Pod by its path, as on a cluster; the machine's own address is its loopback.
fn field_of(pod: &Pod, path: &str) -> Option<String> {
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Some(pod.labels().get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Some(pod.annotations().get(key).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "spec.serviceAccountName" => Some(pod.spec.as_ref()?.service_account_name.clone().unwrap_or_default()),
        "spec.nodeName" => Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        "status.podIP" | "status.hostIP" => Some("127.0.0.1".to_owned()),
        _ => None,
    }
}

/// The value of a secret; none where there is none.
fn secret_value(settings: &Settings, name: &str, key: &str) -> Result<Option<String>, Trouble> {
    let plain = |text: &str| !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0']);
    if !plain(name) || !plain(key) {
        return Err(Trouble::config(format!("the key of the secret `{name}` cannot be the name of a file")));
    }
    let path = settings.secrets.join(name).join(key);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Trouble::config(format!("cannot read `{}`: {error}", path.display()))),
    };
    let mut text = String::new();
    let read = file.take(SECRET).read_to_string(&mut text);
    read.map_err(|_| Trouble::config(format!("`{}` is no text", path.display())))?;
    // An editor's last line end is no part of a secret.
    Ok(Some(text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)))
}

/// A piece of a text in which `$(NAME)` is a variable.
#[derive(Clone, Copy)]
enum Piece<'t> {
    Text(&'t str),
    Variable(&'t str),
}

/// The pieces of a text, as on a cluster: `$$` is a dollar.
fn each<'t>(text: &'t str, mut piece: impl FnMut(Piece<'t>)) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        piece(Piece::Text(before));
        if let Some(after) = from.strip_prefix("$$") {
            piece(Piece::Text("$"));
            rest = after;
        } else if let Some((name, after)) = from.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            piece(Piece::Variable(name));
            rest = after;
        } else {
            piece(Piece::Text("$"));
            rest = from.get(1..).unwrap_or_default();
        }
    }
    piece(Piece::Text(rest));
}

/// `$(NAME)` of variables that are known.
fn expanded(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut made = String::with_capacity(text.len());
    each(text, |piece| match piece {
        Piece::Text(text) => made.push_str(text),
        Piece::Variable(name) => match env.get(name) {
            Some(value) => made.push_str(value),
            None => made.extend(["$(", name, ")"]),
        },
    });
    made
}

/// The program and its arguments. A first word without `/` is an interpreter that the configuration names, one with it
/// is part of the release's code: the repository chooses no program of the machine.
fn command(
    settings: &Settings,
    container: &Container,
    needs: &Needs,
    env: &BTreeMap<String, String>,
    is_secret: &dyn Fn(&str) -> bool,
) -> Result<(PathBuf, Vec<String>), Trouble> {
    let words = || container.command.iter().flatten().chain(container.args.iter().flatten());
    for word in words() {
        let mut secret = None;
        each(word, |piece| {
            if let Piece::Variable(name) = piece
                && is_secret(name)
            {
                secret = Some(name);
            }
        });
        if let Some(name) = secret {
            return Err(Trouble::command(format!(
                "its command has the variable `{name}`, which holds a secret, and everybody on a machine sees the commands \
                 of all processes: let the agent read that variable by itself"
            )));
        }
    }
    // As it is written: what is put in for a variable is nobody's to read.
    let written = words().next();
    let mut words = words().map(|word| expanded(word, env));
    let first = match (words.next(), &needs.code) {
        (Some(first), _) => first,
        (None, code) => code.as_deref().and_then(only_file).ok_or_else(|| {
            Trouble::command("nothing says what runs: declare `code.command`, or an artifact of one file")
        })?,
    };
    let named = written.unwrap_or(&first);
    let refuse = |why: &str| Trouble::command(format!("`{named}` {why}"));
    let args = words.collect();
    if !first.contains('/') && container.command.as_ref().is_some_and(|command| !command.is_empty()) {
        let known = settings.interpreters.get(&first).cloned();
        let unknown = || {
            refuse(
                "is no interpreter that this host has: name it under `host.interpreters` in the daemon's configuration, or begin the command with a path in the artifact, such as `bin/agent`",
            )
        };
        return known.map(|program| (program, args)).ok_or_else(unknown);
    }
    let Some(code) = &needs.code else {
        return Err(refuse("is a path in the artifact, and the release has none"));
    };
    let relative = Path::new(&first);
    let stays = relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !stays {
        return Err(refuse("leaves the artifact: a command is a path in it, or the name of an interpreter"));
    }
    let program = code.join(relative);
    if !program.is_file() {
        return Err(refuse("is no file in the artifact"));
    }
    Ok((program, args))
}

/// The name of the one file in a folder.
fn only_file(folder: &Path) -> Option<String> {
    let mut entries = fs::read_dir(folder).ok()?;
    let entry = entries.next()?.ok()?;
    let is_only = entries.next().is_none() && entry.file_type().ok()?.is_file();
    is_only.then(|| entry.file_name().to_string_lossy().into_owned())
}

/// The folder with a release's components, made of its ConfigMap. What stands there already is compared first.
fn components(
    settings: &Settings,
    pod: &Pod,
    spec: &PodSpec,
    release: &str,
    needs: &Needs,
) -> Result<PathBuf, Trouble> {
    let hex = release.trim_start_matches("sha256:");
    let folder = settings.state.join("releases").join(hex);
    let mut files = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        if volume.empty_dir.is_some() {
            continue;
        }
        let Some(source) = &volume.config_map else {
            return Err(Trouble::config(format!(
                "the volume `{}` is of a kind that a host does not have",
                volume.name
            )));
        };
        let map = needs.config_maps.get(&source.name);
        let map = map.ok_or_else(|| {
            Trouble::config(format!("it needs the ConfigMap `{}`, which does not exist", source.name))
        })?;
        for item in source.items.iter().flatten() {
            let text = map.data.as_ref().and_then(|data| data.get(&item.key)).map(|text| text.as_bytes().to_vec());
            let bytes = map.binary_data.as_ref().and_then(|data| data.get(&item.key)).map(|bytes| bytes.0.clone());
            let content = text.or(bytes).ok_or_else(|| Trouble::config(missing_key(&item.key, &source.name)))?;
            files.insert(PathBuf::from(&item.path), content);
        }
    }
    let failed = |error: io::Error| Trouble::machine(format!("cannot write `{}`: {error}", folder.display()));
    if is_as_written(&folder, &files) {
        return Ok(folder);
    }
    if folder.exists() {
        tracing::warn!(folder = %folder.display(), pod = %pod.name_any(), "a release's folder was changed; it is made anew");
        sys::remove_tree(&folder).map_err(failed)?;
    }
    write(&folder, &files).map_err(failed)?;
    Ok(folder)
}

fn is_as_written(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
    let same = files.iter().all(|(path, content)| fs::read(folder.join(path)).is_ok_and(|there| there == *content));
    same && count(folder).is_ok_and(|count| count == files.len())
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(found)
}

/// Writes files into a folder that appears whole or not at all.
fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    // One at a time, so that what an interrupted one has left is in the way of the next one, and goes.
    static ONE: Mutex<()> = Mutex::new(());
    let parent = folder.parent().unwrap_or(folder);
    fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let half = parent.join(format!(".{name}.{}.half", std::process::id()));
    if half.exists() {
        sys::remove_tree(&half)?;
    }
    let made = fill(&half, folder, files);
    if made.is_err() {
        let _ = sys::remove_tree(&half);
    }
    made
}

/// Fills `half` and gives it the name `folder`.
fn fill(half: &Path, folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    fs::create_dir(half)?;
    let mut folders = BTreeSet::from([half.to_owned()]);
    for (path, content) in files {
        let at = half.join(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
            folders.extend(parent.ancestors().take_while(|above| above.starts_with(half)).map(Path::to_owned));
        }
        fs::write(&at, content)?;
        fs::File::open(&at)?.sync_all()?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o444))?;
    }
    // The deepest first: what is read-only takes no new names.
    for made in folders.iter().rev() {
        fs::File::open(made)?.sync_all()?;
        fs::set_permissions(made, fs::Permissions::from_mode(0o555))?;
    }
    match fs::rename(half, folder) {
        // Another instance of the same release was faster.
        Err(error) if folder.exists() => {
            sys::remove_tree(half)?;
            if is_as_written(folder, files) { Ok(()) } else { Err(error) }
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::launcher::Launcher;
    use serde_json::json;

    fn settings(launcher: Launcher, secrets: &Path) -> Settings {
        Settings {
            state: "/state".into(),
            launcher,
            secrets: secrets.to_owned(),
            interpreters: BTreeMap::from([("sh".to_owned(), PathBuf::from("/bin/sh"))]),
            ports: 20_000..=20_001,
            keep_old: std::time::Duration::ZERO,
            table: "/table".into(),
            control: "/control".into(),
        }
    }

    /// What is made of a container's variables, by a launcher; and of its command.
    fn told(launcher: Launcher, command: &str) -> (Variables, Result<Vec<String>, Trouble>) {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("keys")).expect("a folder");
        fs::write(folder.path().join("keys/password"), "hunter2\n").expect("a secret");
        let settings = settings(launcher, folder.path());
        let of = |name: &str, key: &str, optional: bool| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "keys", "key": key, "optional": optional}}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "support-0a1b-0", "labels": {AGENT_LABEL: "support"}},
            "spec": {"containers": [{"name": "agent", "command": ["sh", "-c", command], "env": [
                of("PASSWORD", "password", false),
                of("TOKEN", "token", true),
                {"name": "USER", "value": "alice"},
                {"name": "LOGIN", "value": "$(USER):$(PASSWORD)"},
                {"name": "URL", "value": "postgres://$(LOGIN)@db/$(NAME)?token=$(TOKEN)&cost=$$(USER)"},
            ]}]},
        }))
        .expect("a Pod");
        let ground = Ground::of(&settings, &pod).expect("a ground");
        let needs = Needs { config_maps: BTreeMap::new(), code: None, epoch: 1 };
        let container = container(pod.spec.as_ref().expect("a spec")).expect("a container");
        let known = variables(&settings, &pod, container, &needs, &ground).unwrap_or_else(|why| panic!("{why:?}"));
        let is_secret = |name: &str| known.files.contains_key(name) || known.texts.contains_key(name);
        let args = super::command(&settings, container, &needs, &known.env, &is_secret).map(|(_, args)| args);
        (known, args)
    }

    #[test]
    fn a_secret_of_a_unit_is_put_together_by_its_keeper_alone() {
        let systemd = || Launcher::Systemd { keeper: "/k".into() };
        let (known, args) = told(systemd(), "echo $(USER)");
        assert_eq!(args.expect("a command"), ["-c", "echo alice"]);
        let text = |text: &str| EnvPart::Text(text.to_owned());
        let file = |name: &str, key: &str, optional| {
            let unit = "backstay-agent-support@support-0a1b-0.service";
            let file = EnvFile { path: crate::supervisor::unit::secret(unit, "keys", key), optional };
            EnvPart::File { file, otherwise: format!("$({name})") }
        };
        assert_eq!(known.texts["LOGIN"], [text("alice:"), file("PASSWORD", "password", false)]);
        let url = [
            text("postgres://alice:"),
            file("PASSWORD", "password", false),
            text("@db/$(NAME)?token="),
            file("TOKEN", "token", true),
            text("&cost=$(USER)"),
        ];
        assert_eq!(known.texts["URL"], url);
        let all = format!("{:?} {:?} {:?}", known.env, known.files, known.texts);
        assert!(!all.contains("hunter2"), "the daemon does not have it: {all}");
        let why = told(systemd(), "login $(LOGIN)").1.expect_err("refused").message;
        assert!(why.contains("`LOGIN`") && why.contains("let the agent read"), "{why}");
    }

    #[test]
    fn a_secret_of_the_daemons_account_is_in_the_text() {
        let (known, args) = told(Launcher::Fork { keeper: "/k".into() }, "true");
        assert_eq!(args.expect("a command"), ["-c", "true"]);
        assert_eq!(known.env["URL"], "postgres://alice:hunter2@db/$(NAME)?token=$(TOKEN)&cost=$(USER)");
        assert!(known.texts.is_empty() && known.files.is_empty());
    }

    #[test]
    fn variables_are_expanded_as_on_a_cluster() {
        let env = BTreeMap::from([("A".to_owned(), "one".to_owned())]);
        for (text, expected) in
            [("$(A)", "one"), ("x$(A)y", "xoney"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A", "$A"), ("$", "$")]
        {
            assert_eq!(expanded(text, &env), expected, "{text}");
        }
    }
}
