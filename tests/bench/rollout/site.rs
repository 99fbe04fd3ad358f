//! An agent that rolls out step by step, and a Git server over SSH that notes when it was pushed to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use crate::daemon::{Daemon, River, Server, holds, until};
use crate::lab::lab;
use crate::rollouts::{self, OVERLAY};
use crate::users::{Front, Got, Users};

/// Ports of the host: one rests a while after each instance.
const PORTS: u16 = 600;

/// An agent, its users' front, its daemon and its Git server.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) front: Front,
    pub(crate) river: River,
    server: Server,
    taken_back: BTreeSet<String>,
    clocks: (Instant, Timestamp),
}

/// A candidate that was taken back, and when what happened.
pub(crate) struct TakenBack {
    /// The short id of its release.
    pub(crate) release: String,
    /// The judge decided.
    pub(crate) verdict: Instant,
    /// The route says that no traffic goes to it.
    pub(crate) back: Instant,
    /// The revert commit is the branch of the Git server.
    pub(crate) told: Instant,
}

// === impl Site ===

impl Site {
    /// A host where `support` serves, and takes these steps to a new release.
    pub(crate) async fn on_a_host(name: &str, steps: &str) -> Self {
        let mut lab = lab(name).await;
        "keep_old = \"1s\"\n".clone_into(&mut lab.more);
        lab.ports.1 = lab.ports.0 + PORTS;
        let rollout = format!(
            "\nrollout:\n  strategy: {{canary: {{steps: {steps}}}}}\n  analysis: {{errors: {{preset: error_rate, max: \
             0.01, compare: stable, margin: 0.02}}}}\n  rollback: {{bake: 1s, cooldown: 0s, maxPerHour: 60}}\n"
        );
        let repo = rollouts::repo(&rollout);
        let noted = repo.parent().join("pushed").display().to_string();
        repo.hook("post-receive", &format!("at=$(date +%s%N)\nwhile read -r _ new _; do echo $new $at >> {noted}; done"));
        let server = Server::ssh();
        let source = server.ssh_source(&repo, "host");
        let river = River::with_source(lab, repo, source).await;
        let daemon = river.start().await;
        river.settled(&river.repo.head()).await;
        let front = Front::Named { address: river.lab.front.clone(), host: "support.localhost".to_owned() };
        let clocks = (Instant::now(), Timestamp::now());
        Self { daemon, front, river, server, taken_back: BTreeSet::new(), clocks }
    }

    /// The short id of the release that is stable.
    pub(crate) async fn stable(&self) -> String {
        rollouts::stable(&self.river.record("support").await.expect("a record"))
    }

    /// Pushes a candidate that fails every so-manieth question.
    pub(crate) fn push_bad(&self, turn: usize, every: u32) {
        let config = format!("progressDeadline: 60s\nconfig: {{demo: {{failEvery: {every}}}}}\n");
        self.river.repo.edit(OVERLAY, "progressDeadline: 60s\n", &config);
        self.river.repo.commit_greeting(&format!("Bad {turn}"));
    }

    /// Waits until the candidate is taken back, Git is told, and both agree again.
    pub(crate) async fn taken_back(&mut self) -> TakenBack {
        let fresh = |record: &Value| {
            let failed = &record["quarantine"][0];
            failed["git"]["commit"].is_string()
                && record["operation"].is_null()
                && !self.taken_back.contains(failed["release"].as_str().unwrap_or_default())
        };
        let record = self.river.recorded("a candidate is taken back, and Git is told", fresh).await;
        let failed = &record["quarantine"][0];
        let commit = failed["git"]["commit"].as_str().expect("a commit").to_owned();
        self.taken_back.insert(failed["release"].as_str().expect("an id").to_owned());
        let rollbacks = record["rollbacks"].as_array().expect("when releases went back");
        let verdict = rollbacks.last().and_then(Value::as_str).expect("the last one").parse().expect("a time");
        let taken_back = TakenBack {
            release: rollouts::short(&failed["release"]),
            verdict: self.instant(verdict),
            back: self.instant(self.event("Aborted", verdict).await),
            told: self.instant(self.pushed(&commit)),
        };
        self.river.repo.git(&["pull", "-q", "origin", "main"]);
        let agrees = |record: &Value| record["differs"].is_null() && holds(record, "Ready", "");
        self.river.recorded("Git agrees", agrees).await;
        taken_back
    }

    /// When an event of that reason happened, at or after `since`.
    async fn event(&self, reason: &str, since: Timestamp) -> Timestamp {
        let path = self.river.lab.path("events.k8s.io/v1/events");
        until(&format!("an event `{reason}`"), async || {
            let list = self.river.lab.ask(Method::GET, &path, None).await.ok()?;
            let times = list["items"].as_array()?.iter().filter(|event| event["reason"] == reason);
            let mut times = times.filter_map(|event| event["eventTime"].as_str()?.parse::<Timestamp>().ok());
            times.find(|time| *time >= since)
        })
        .await
    }

    /// When the Git server took a commit.
    fn pushed(&self, commit: &str) -> Timestamp {
        let noted = std::fs::read_to_string(self.river.repo.parent().join("pushed")).expect("what was pushed");
        let found = noted.lines().find_map(|line| line.strip_prefix(commit)?.trim().parse::<i128>().ok());
        Timestamp::from_nanosecond(found.expect("the commit was pushed")).expect("a time")
    }

    /// A time of day as what clients have: the clocks of one machine.
    fn instant(&self, time: Timestamp) -> Instant {
        self.clocks.0 + Duration::try_from(time.duration_since(self.clocks.1)).expect("after the start")
    }

    /// The Git server is there as long as this.
    pub(crate) fn end(self) {
        drop((self.daemon, self.river, self.server));
    }
}

// === impl TakenBack ===

impl TakenBack {
    /// What users got of it.
    pub(crate) fn got(&self, users: &Users) -> Got {
        users.got().remove(&self.release).expect("the candidate was asked")
    }
}
