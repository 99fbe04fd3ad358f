//! The proxy as a process, with its table and its socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use backstay::model::{AgentName, ReleaseId};
use backstay::proxy::{Address, Agent, Arm, Client, Instance, Protocol, Role, Route, State, Table, WHOLE, write_table};

use super::agent;

/// The proxy, ended with this.
pub(crate) struct Proxy {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    child: Child,
    runtime: tokio::runtime::Runtime,
    more: String,
    environment: Vec<(String, String)>,
}

pub(crate) fn release(name: &str) -> ReleaseId {
    ReleaseId::of(name.as_bytes())
}

pub(crate) fn agent_name() -> AgentName {
    "support".parse().unwrap()
}

pub(crate) fn instance(id: &str, agent: &agent::Agent) -> Instance {
    Instance { id: id.to_owned(), generation: 1, address: Address::Tcp(agent.address), protocol: Protocol::default() }
}

pub(crate) fn arm(name: &str, role: Role, weight: u32, agents: &[&agent::Agent]) -> Arm {
    let instances = agents.iter().enumerate().map(|(index, agent)| instance(&format!("{name}-{index}"), agent));
    Arm { release: release(name), role, weight, instances: instances.collect() }
}

/// A table with one agent on all hosts.
pub(crate) fn table(generation: u64, agent: Agent) -> Table {
    let mut table = Table::empty(1, generation, backstay::sys::boot_id().unwrap());
    table.routes.push(Route { hosts: vec![], path: "/".to_owned(), agent: agent_name(), release: None });
    table.agents = BTreeMap::from([(agent_name(), agent)]);
    table
}

/// A table that sends everything to one release.
pub(crate) fn to_one(generation: u64, name: &str, agents: &[&agent::Agent]) -> Table {
    table(generation, Agent { arms: vec![arm(name, Role::Stable, WHOLE, agents)], ..Agent::default() })
}

impl Proxy {
    /// Starts it with `table`, and waits until it answers.
    pub(crate) fn start(table: &Table) -> Self {
        Self::with(Some(table), "")
    }

    /// The same with more settings (TOML).
    pub(crate) fn with(table: Option<&Table>, more: &str) -> Self {
        Self::made(table, more, &[])
    }

    /// The same with more variables.
    pub(crate) fn under(table: &Table, environment: &[(&str, String)]) -> Self {
        Self::made(Some(table), "", environment)
    }

    fn made(table: Option<&Table>, more: &str, environment: &[(&str, String)]) -> Self {
        // Every process of tests has addresses of its own.
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let pid = std::process::id().to_be_bytes();
        let address = SocketAddr::from(([127, 64 + pid[2] % 128, pid[3], low.wrapping_add(high).max(1)], 18080));
        let metrics = SocketAddr::new(address.ip(), 18081);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Some(table) = table {
            write_table(&folder.path().join("routes.json"), table).unwrap();
        }
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (more, child) = (more.to_owned(), Command::new("true").spawn().unwrap());
        let mut proxy = Self { folder, address, metrics, child, runtime, more, environment };
        proxy.child = proxy.spawn();
        proxy.wait();
        proxy
    }

    fn spawn(&self) -> Child {
        let (top, sections) = self.more.split_once("---").unwrap_or((&self.more, ""));
        let settings = format!(
            "[proxy]\nlisten = ['{}']\nmetrics = '{}'\ncontrol = '{}'\ntable = '{}'\n{top}\n{sections}\n",
            self.address,
            self.metrics,
            self.control_path().display(),
            self.table_path().display(),
        );
        let file = self.folder.path().join("backstay.toml");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.args(["proxy", "--config"]).arg(file).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET").envs(self.environment.iter().cloned()).spawn().unwrap()
    }

    /// Waits until it answers on its socket.
    pub(crate) fn wait(&self) {
        let start = Instant::now();
        while self.runtime.block_on(self.client(0).state()).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the proxy does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn control_path(&self) -> PathBuf {
        self.folder.path().join("p.sock")
    }

    pub(crate) fn table_path(&self) -> PathBuf {
        self.folder.path().join("routes.json")
    }

    pub(crate) fn client(&self, epoch: u64) -> Client {
        Client::new(self.control_path(), epoch)
    }

    pub(crate) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Writes a table and has it used.
    pub(crate) fn load(&self, table: &Table) {
        write_table(&self.table_path(), table).unwrap();
        let active = self.block(self.client(table.epoch).load(table.generation)).unwrap();
        assert_eq!((active.epoch, active.generation), table.order());
    }

    pub(crate) fn state(&self) -> State {
        self.block(self.client(1).state()).unwrap()
    }

    /// Waits until the state is as asked.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&State) -> bool) -> State {
        let start = Instant::now();
        loop {
            let state = self.state();
            if is(&state) {
                return state;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "never: {what}: {state:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has the program on disk take over, and waits until it has.
    pub(crate) fn replace(&self) -> State {
        let before = self.state().pid;
        self.signal("HUP");
        self.until("another process answers", |state| state.pid != before)
    }

    /// Signals the process that takes new connections.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.state().pid.to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Kills it without a word, and starts it again.
    pub(crate) fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = self.spawn();
        self.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Ok(state) = self.runtime.block_on(self.client(0).patience(Duration::from_secs(2)).state()) {
            for pid in state.draining.iter().chain(&state.silent).chain([&state.pid]) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
