//! What a table must hold before anybody uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Address, Agent, FORMAT, Instance, Role, Route, StickyBy, Table, WHOLE};
use crate::model::{AgentName, ReleaseId, one_line};

/// Bytes that the path of a Unix socket may have.
const SOCKET_PATH: usize = 107;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `agents/support/arms/0`, like a path.
    pub at: String,
    /// A sentence without its end.
    pub what: String,
}

/// A table that may not be used: all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the routing table is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidTable(pub Vec<Problem>);

/// Collects what is wrong.
#[derive(Default)]
struct Check(Vec<Problem>);

// === impl Table ===

impl Table {
    /// Checks everything that the data plane relies on.
    ///
    /// # Guarantees
    ///
    /// In a table that passes, the weights of each agent sum to [`WHOLE`] (or it has no arm at all), and neither a weight,
    /// a match nor a mirror points at a release without instances; a route does at most at a preview.
    ///
    /// # Errors
    ///
    /// All that is wrong, not only the first.
    pub fn check(&self) -> Result<(), InvalidTable> {
        let mut check = Check::default();
        if self.format != FORMAT {
            check.say("format", format!("is {}, and this version knows {FORMAT}", self.format));
        }
        let mut taken = BTreeSet::new();
        for (index, route) in self.routes.iter().enumerate() {
            check.route(&format!("routes/{index}"), route, self, &mut taken);
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeMap::new());
        for (name, agent) in &self.agents {
            let at = format!("agents/{name}");
            check.agent(&at, agent);
            for (index, arm) in agent.arms.iter().enumerate() {
                for instance in &arm.instances {
                    check.instance(&format!("{at}/arms/{index}"), instance, &mut ids, &mut addresses);
                }
            }
        }
        if check.0.is_empty() { Ok(()) } else { Err(InvalidTable(check.0)) }
    }
}

// === impl Check ===

impl Check {
    fn say(&mut self, at: &str, what: impl Into<String>) {
        // What is quoted may be anything, and ends up on a terminal.
        let what = one_line(&what.into(), usize::MAX, '\u{fffd}');
        self.0.push(Problem { at: at.to_owned(), what });
    }

    fn route<'t>(&mut self, at: &str, route: &'t Route, table: &Table, taken: &mut BTreeSet<(&'t str, &'t str)>) {
        if !route.path.starts_with('/') || route.path.contains(['?', '#', ' ']) {
            self.say(at, format!("`{}` is no path: it begins with `/` and has no `?`, `#` or space", route.path));
        }
        for host in &route.hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
            let ip6 = name.starts_with('[') && name.ends_with(']');
            if name.is_empty() || !(ip6 || name.bytes().all(plain)) {
                self.say(at, format!("`{host}` is no host: a lower-case name, or `*.` and one"));
            }
        }
        let any = [""];
        let hosts: Vec<&str> =
            if route.hosts.is_empty() { any.to_vec() } else { route.hosts.iter().map(String::as_str).collect() };
        for host in hosts {
            if !taken.insert((host, route.path.trim_end_matches('/'))) {
                let host = if host.is_empty() { "any host" } else { host };
                self.say(at, format!("another route has {host} with `{}` already", route.path));
            }
        }
        let Some(agent) = table.agents.get(&route.agent) else {
            return self.say(at, format!("there is no agent `{}`", route.agent));
        };
        if let Some(release) = route.release {
            self.serves(at, &route.agent, agent, &release);
        }
    }

    /// A route may name a release only where something of it serves, or where it is its only way in.
    fn serves(&mut self, at: &str, name: &AgentName, agent: &Agent, release: &ReleaseId) {
        if agent.arm(release).is_none_or(|arm| arm.instances.is_empty() && arm.role != Role::Preview) {
            self.say(at, format!("points at {release} of `{name}`, which has no instance"));
        }
    }

    fn agent(&mut self, at: &str, agent: &Agent) {
        let mut releases = BTreeSet::new();
        for (index, arm) in agent.arms.iter().enumerate() {
            let at = format!("{at}/arms/{index}");
            if !releases.insert(arm.release) {
                self.say(&at, format!("{} has another arm already", arm.release));
            }
            if arm.weight > 0 && arm.instances.is_empty() {
                self.say(&at, format!("{} has weight {} and no instance", arm.release, arm.weight));
            }
            if arm.role == Role::Preview && arm.weight > 0 {
                self.say(&at, format!("{} is a preview with weight {}", arm.release, arm.weight));
            }
        }
        let sum: u64 = agent.arms.iter().map(|arm| u64::from(arm.weight)).sum();
        if !agent.arms.is_empty() && sum != u64::from(WHOLE) {
            self.say(at, format!("the weights of its arms sum to {sum}, not to {WHOLE}"));
        }
        if agent.arms.iter().filter(|arm| arm.role == Role::Stable).count() > 1 {
            self.say(at, "it has more than one stable release");
        }
        for (index, rule) in agent.matches.iter().enumerate() {
            let at = format!("{at}/matches/{index}");
            self.header(&at, &rule.header);
            match &rule.cookie {
                Some(name) if !token(name) => self.say(&at, format!("`{name}` is no name of a cookie")),
                Some(_) if rule.header != "cookie" => self.say(&at, "only the header `cookie` has cookies"),
                Some(_) | None => {}
            }
            self.points(&at, agent, &rule.release);
        }
        match agent.sticky.as_ref().map(|sticky| &sticky.by) {
            Some(StickyBy::Header(name) | StickyBy::User(name)) => self.header(&format!("{at}/sticky"), name),
            Some(StickyBy::Cookie(name)) if !token(name) => {
                self.say(&format!("{at}/sticky"), format!("`{name}` is no name of a cookie"));
            }
            Some(StickyBy::Cookie(_)) | None => {}
        }
        if let Some(sticky) = &agent.sticky
            && sticky.issue
            && !matches!(sticky.by, StickyBy::Cookie(_))
        {
            self.say(&format!("{at}/sticky"), "only a cookie can be issued");
        }
        if let Some(mirror) = &agent.mirror {
            let at = format!("{at}/mirror");
            if mirror.percent > 100 {
                self.say(&at, format!("{} percent is more than all", mirror.percent));
            }
            self.points(&at, agent, &mirror.to);
        }
    }

    fn points(&mut self, at: &str, agent: &Agent, release: &ReleaseId) {
        if agent.arm(release).is_none_or(|arm| arm.instances.is_empty()) {
            self.say(at, format!("points at {release}, which has no instance"));
        }
    }

    fn header(&mut self, at: &str, name: &str) {
        if !token(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.say(at, format!("`{name}` is no lower-case name of a header"));
        }
    }

    fn instance<'t>(
        &mut self,
        at: &str,
        instance: &'t Instance,
        ids: &mut BTreeSet<(&'t str, u64)>,
        addresses: &mut BTreeMap<&'t Address, &'t str>,
    ) {
        let Instance { id, generation, address, .. } = instance;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            self.say(at, format!("`{id}` is no id of an instance: at most 64 of a-z, 0-9, `-`, `_` and `.`"));
        }
        if !ids.insert((id, *generation)) {
            self.say(at, format!("instance `{id}` of generation {generation} stands twice"));
        }
        if let Some(other) = addresses.insert(address, id) {
            self.say(at, format!("`{id}` and `{other}` have the same address {address}"));
        }
        match address {
            Address::Unix(path) => {
                let length = path.as_os_str().len();
                if !path.is_absolute() || length > SOCKET_PATH {
                    self.say(at, format!("the socket of `{id}` is no absolute path of at most {SOCKET_PATH} bytes"));
                }
            }
            Address::Tcp(address) if address.port() == 0 || address.ip().is_unspecified() => {
                self.say(at, format!("`{id}` cannot be reached at {address}"));
            }
            Address::Tcp(_) => {}
        }
    }
}

/// Whether a text is a `token` of RFC 9110, section 5.6.2.
fn token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}
