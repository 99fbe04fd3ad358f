//! What a demo needs before it begins: free ports, its configuration, its secrets.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::layout::{Layout, make, write};
use crate::cli::{CliError, Exit};
use crate::model::Digest;
use crate::sys::{self, FolderLock, LockError};

/// Ports of a demo's agents.
const AGENTS: u16 = 100;
/// Of these the first few are tried: agents begin there.
const TRIED: u16 = 8;
/// What systems use where they do not say.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
/// Longest wait for other demos to have their ports.
const TURN: Duration = Duration::from_mins(1);
/// Secrets that the example's agents name. Nobody is asked with them.
const SECRETS: [(&str, &str); 2] =
    [("openai-api-key", "sk-demo-of-nobody"), ("database-url", "postgres://demo@localhost/nowhere")];

/// Ports that nobody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// Where clients find the agents.
    pub(super) proxy: u16,
    /// The daemon's own HTTP server.
    pub(super) daemon: u16,
    /// The agents' own.
    pub(super) agents: RangeInclusive<u16>,
}

/// The programs that a demo runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) backstay: PathBuf,
    pub(super) keeper: PathBuf,
}

// === impl Programs ===

impl Programs {
    /// This very program, and the keeper beside it.
    pub(super) fn find() -> Result<Self, CliError> {
        let backstay = std::env::current_exe()
            .map_err(|error| CliError::new(Exit::Broken, "cannot find this program's own file").because(error))?;
        let keeper = backstay.with_file_name("backstay-keeper");
        if !keeper.is_file() {
            let message = format!("`{}` is missing: it holds each process of the demo", keeper.display());
            return Err(CliError::new(Exit::Broken, message)
                .hint("`cargo build --release` builds both programs; a copy of one needs the other beside it"));
        }
        Ok(Self { backstay, keeper })
    }
}

// === impl Ports ===

impl Ports {
    /// Ports that are free now, for a demo in `dir`: each folder looks in another place first.
    pub(super) fn find(dir: &Path) -> Result<Self, CliError> {
        let first = Digest::of(dir.as_os_str().as_encoded_bytes()).to_string();
        let turn = first.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or(0);
        Self::choose(turn, &ephemeral(), is_free).ok_or_else(|| {
            CliError::new(Exit::Broken, "this machine has no ports left for a demo")
                .hint("`ss -ltn` shows who listens; `backstay demo --stop` ends a demo that was left running")
        })
    }

    fn choose(turn: u16, ephemeral: &RangeInclusive<u16>, is_free: impl Fn(u16) -> bool) -> Option<Self> {
        let proxy = (8080..8180).find(|port| is_free(*port))?;
        let daemon = (8740..8840).find(|port| is_free(*port))?;
        let outside = |first: &u16| !(ephemeral.contains(first) || ephemeral.contains(&(first + AGENTS - 1)));
        let blocks: Vec<u16> =
            (20_000..32_000).chain(10_000..20_000).step_by(usize::from(AGENTS)).filter(outside).collect();
        let begin = usize::from(turn) % blocks.len().max(1);
        let mut turned = blocks.iter().cycle().skip(begin).take(blocks.len());
        let first = turned.find(|first| (**first..**first + TRIED).all(&is_free))?;
        Some(Self { proxy, daemon, agents: *first..=first + AGENTS - 1 })
    }
}

/// The ports that any connection may take.
fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().map(str::parse::<u16>);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => EPHEMERAL,
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

/// Waits until no other demo of this account is looking for ports, and keeps others from it.
pub(super) fn turn() -> Result<FolderLock, CliError> {
    let folder = std::env::temp_dir();
    let name = format!("backstay-demo-{}.lock", sys::own_uid());
    let begun = Instant::now();
    loop {
        match sys::lock_folder(&folder, &name) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held(_)) if begun.elapsed() < TURN => std::thread::sleep(Duration::from_millis(50)),
            Err(LockError::Held(_)) => {
                return Err(CliError::new(Exit::Refused, "another demo has been starting for a minute")
                    .hint("end it, or wait for it"));
            }
            Err(error) => {
                return Err(CliError::new(Exit::Broken, format!("cannot lock `{}`", folder.join(name).display()))
                    .because(error)
                    .hint("`TMPDIR` names another folder"));
            }
        }
    }
}

/// The account that the demo runs as: the person of its configuration.
pub(super) fn account() -> String {
    sys::account(sys::own_uid())
}

/// Writes configuration and secrets.
pub(super) fn prepare(layout: &Layout, ports: &Ports, programs: &Programs) -> Result<(), CliError> {
    let secrets = layout.secrets().join("agent-secrets");
    [&secrets, &layout.state(), &layout.proxy(), &layout.keepers()].into_iter().try_for_each(|folder| make(folder))?;
    SECRETS.iter().try_for_each(|(name, value)| write(&secrets.join(name), value))?;
    write(&layout.config(), &config(layout, ports, programs, &account()))
}

/// The text of the demo's `backstay.toml`.
fn config(layout: &Layout, ports: &Ports, programs: &Programs, account: &str) -> String {
    let text = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let (first, last) = (ports.agents.start(), ports.agents.end());
    let proxy = layout.proxy();
    format!(
        "\
# The configuration of a demo: one machine, one environment, a repository in a folder.
installation = \"demo\"

[source]
url = {repository}
branch = \"main\"
interval = \"2s\"                        # a push to a folder is seen at once, too

[[target]]
environment = \"development\"

[target.host]                          # this machine
secrets = {secrets}
ports = \"{first}-{last}\"
keep_old = \"5m\"                        # the release before stays, for an instant way back
keeper = {keeper}
interpreters = {{ backstay = {backstay} }}

[[person]]
username = \"{account}\"
git = \"{account} <{account}@localhost>\"

[http]
listen = \"127.0.0.1:{daemon}\"

[log]
format = \"human\"

[journal]
path = {journal}

[state]
folder = {state}

[proxy]                                # read by `backstay proxy`
listen = [\"127.0.0.1:{port}\"]
control = {control}
table = {table}

[proxy.limits]
drain = \"5s\"
",
        repository = text(&layout.repository()),
        secrets = text(&layout.secrets()),
        keeper = text(&programs.keeper),
        backstay = text(&programs.backstay),
        daemon = ports.daemon,
        journal = text(&layout.journal()),
        state = text(&layout.state()),
        port = ports.proxy,
        control = text(&proxy.join("control.sock")),
        table = text(&proxy.join("routes.json")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Config, Place};

    #[test]
    fn the_configuration_is_valid_and_serves_this_machine() {
        let outside = tempfile::tempdir().unwrap();
        let layout = Layout::take(&outside.path().join("a \"demo\"")).unwrap();
        let ports = Ports { proxy: 8080, daemon: 8740, agents: 20_100..=20_199 };
        let programs = Programs { backstay: "/opt/backstay".into(), keeper: "/opt/backstay-keeper".into() };
        let text = config(&layout, &ports, &programs, "alice");
        let read = Config::parse("backstay.toml", Some(&text), &std::collections::BTreeMap::new());
        let read = read.unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
        let target = &read.target[0];
        let Place::Host(host) = target.place() else { panic!("{target:?}") };
        assert_eq!(host.interpreters["backstay"], programs.backstay);
        assert_eq!(host.secrets, Some(layout.secrets()));
        assert_eq!(read.host_socket(), layout.socket());
        assert!(read.person("alice").is_some() && read.proxy.is_some());
    }

    #[test]
    fn two_demos_have_ports_of_their_own() {
        let all = |_| true;
        let one = Ports::choose(0, &EPHEMERAL, all).unwrap();
        assert_eq!(one, Ports { proxy: 8080, daemon: 8740, agents: 20_000..=20_099 });
        let taken = |port| ![one.proxy, one.daemon].contains(&port) && !one.agents.contains(&port);
        let other = Ports::choose(0, &EPHEMERAL, taken).unwrap();
        assert_eq!(other, Ports { proxy: 8081, daemon: 8741, agents: 20_100..=20_199 });
        assert_eq!(Ports::choose(3, &EPHEMERAL, all).unwrap().agents, 20_300..=20_399);
        let wide = Ports::choose(0, &(15_000..=65_535), all).unwrap();
        assert_eq!(wide.agents, 10_000..=10_099, "outside what connections may take");
        assert_eq!(Ports::choose(0, &EPHEMERAL, |_| false), None);
    }
}
