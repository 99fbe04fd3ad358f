//! Whole stories of a host's processes on plain values: deeds are done to objects until nothing is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decide::{Deed, Known, Main, Still, clear, decide, left};
use super::table::{self, Serving, Word};
use super::view::{KEPT_UNTIL, LAUNCH, ORDINAL, RETIRED, View, template_hash};
use super::{probe, status};
use crate::model::{AgentName, Digest, ReleaseId, Timestamp};
use crate::proxy::Table;
use crate::render::{AGENT_LABEL, PROCESS_LABEL, RELEASE_ID_ANNOTATION};

pub(super) const KEEP: i64 = 300;

/// A host without processes: its objects, what is ready, and what the proxy was told.
pub(super) struct Host {
    pub(super) view: View,
    ready: BTreeSet<String>,
    /// Pods whose release never gets ready are not made so.
    pub(super) broken: BTreeSet<String>,
    serving: Serving,
    pub(super) table: Table,
    /// What became of the route in that table.
    pub(super) word: Option<Word>,
    pub(super) proxy_answers: bool,
    /// Pods at which requests are open.
    pub(super) open: BTreeSet<String>,
    now: Timestamp,
    uids: u32,
    /// Ended, in their order.
    pub(super) ended: Vec<String>,
}

pub(super) fn release(name: &str) -> ReleaseId {
    ReleaseId::from(Digest::of(name.as_bytes()))
}

pub(super) fn agent() -> AgentName {
    "support".parse().unwrap()
}

// === impl Host ===

impl Host {
    pub(super) fn new() -> Self {
        let service = json!({"metadata": {"name": "support", "namespace": "n"}, "spec": {}});
        Self {
            view: View { services: vec![Arc::new(serde_json::from_value(service).unwrap())], ..View::default() },
            ready: BTreeSet::new(),
            broken: BTreeSet::new(),
            serving: BTreeMap::new(),
            table: Table::empty(1, 0, ""),
            word: None,
            proxy_answers: true,
            open: BTreeSet::new(),
            now: Timestamp::UNIX_EPOCH,
            uids: 0,
            ended: vec![],
        }
    }

    pub(super) fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid{}", self.uids)
    }

    /// Declares a process, as an apply does: the same object with another template.
    pub(super) fn apply(&mut self, process: &str, of: &str, replicas: u32) {
        let name = if process == "main" { "support".to_owned() } else { format!("support--{process}") };
        let known = self.view.deployments.iter().find(|one| one.name_any() == name).and_then(|one| one.uid());
        let uid = known.unwrap_or_else(|| self.uid());
        let deployment = json!({
            "metadata": {"name": name, "uid": uid, "generation": 1, "labels": {AGENT_LABEL: "support", PROCESS_LABEL: process}},
            "spec": {"replicas": replicas, "selector": {}, "template": {
                "metadata": {"annotations": {RELEASE_ID_ANNOTATION: release(of).digest().to_string()}},
                "spec": {"containers": [{"name": "agent"}]},
            }},
        });
        self.view.deployments.retain(|one| one.name_any() != name);
        self.view.deployments.push(Arc::new(serde_json::from_value(deployment).unwrap()));
    }

    /// Looks once, as the task does: the table first, then the deeds. Gives what was done.
    pub(super) fn pass(&mut self) -> Vec<Deed> {
        for pod in &self.view.pods {
            let of = pod.annotations().get(RELEASE_ID_ANNOTATION).unwrap();
            if self.broken.contains(of) {
                self.ready.remove(&pod.name_any());
            } else {
                self.ready.insert(pod.name_any());
            }
        }
        let ready = self.ready.clone();
        let is_ready = |pod: &Pod| ready.contains(&pod.name_any());
        let processes = self.view.processes(is_ready);
        let pods: Vec<_> = self.view.pods.iter().map(|pod| pod.name_any()).collect();
        let port = |pod: &str| pods.iter().position(|one| one == pod).map(|at| u16::try_from(at + 1).unwrap());
        let address = |pod: &str| Some(probe::local(port(pod)?));
        let chosen = table::choose(&self.view, &processes, &self.serving, address, Table::empty(1, 0, ""));
        chosen.table.check().unwrap();
        for (name, agent) in &chosen.table.agents {
            for instance in agent.arms.iter().flat_map(|arm| &arm.instances) {
                assert!(ready.contains(&instance.id), "{name} gets traffic at {}, which is not ready", instance.id);
            }
        }
        if self.proxy_answers {
            self.serving = chosen.serving;
            self.word = chosen.words.into_values().next();
            self.table = chosen.table;
        }
        let names = |pod: &str| table::names(&self.table, pod);
        let keep_old = SignedDuration::from_secs(KEEP);
        let left = left(&self.view, &processes);
        let still = Still { is_ready: &is_ready, names: &names, keep_old, now: self.now };
        let mut deeds = clear(&self.view, &left, &still);
        for process in &processes {
            let main = processes.iter().find(|one| one.carries_traffic && !one.per_release).map(|main| Main {
                wanted: main.release,
                serves: self.serving.get(&main.deployment.name_any()).and_then(|name| main.set(name)?.release()),
            });
            let known = Known {
                serving: self.serving.get(&process.deployment.name_any()).map(String::as_str),
                names: &names,
                main: main.filter(|_| !process.per_release),
                left: left.get(&process.agent).copied().filter(|_| process.carries_traffic),
                keep_old,
                now: self.now,
            };
            deeds.extend(decide(process, &known));
        }
        drop(processes);
        for deed in &deeds {
            self.carry_out(deed);
        }
        deeds
    }

    fn carry_out(&mut self, deed: &Deed) {
        match deed {
            Deed::MakeSet { deployment, name } => {
                let deployment =
                    self.view.deployments.iter().find(|one| one.name_any() == *deployment).unwrap().clone();
                let known = self.view.sets.iter_mut().find(|one| one.name_any() == *name);
                if let Some(orphan) = known {
                    let owners = vec![serde_json::from_value(owner(&deployment.uid().unwrap())).unwrap()];
                    Arc::make_mut(orphan).metadata.owner_references = Some(owners);
                    return;
                }
                let uid = self.uid();
                let set = json!({
                    "metadata": {"name": name, "uid": uid, "ownerReferences": [owner(&deployment.uid().unwrap())],
                        "annotations": {"deployment.kubernetes.io/revision": uid.trim_start_matches("uid")}},
                    "spec": {"replicas": 0, "selector": {}, "template": deployment.spec.template},
                });
                self.view.sets.push(Arc::new(serde_json::from_value(set).unwrap()));
            }
            Deed::Scale { set, replicas } => {
                let set = self.view.sets.iter_mut().find(|one| one.name_any() == *set).unwrap();
                Arc::make_mut(set).spec.replicas = Some(i32::try_from(*replicas).unwrap());
            }
            Deed::Launch { set, pod, ordinal } => {
                assert!(self.view.pods.iter().all(|one| one.name_any() != *pod), "{pod} is launched twice");
                let set = self.view.sets.iter().find(|one| one.name_any() == *set).unwrap().clone();
                let template = set.spec.template.clone().unwrap().metadata.unwrap();
                let mut annotations = template.annotations.unwrap();
                annotations.insert(ORDINAL.to_owned(), ordinal.to_string());
                annotations.insert(LAUNCH.to_owned(), self.now.as_millisecond().to_string());
                let uid = self.uid();
                let object = json!({"metadata": {
                    "name": pod, "uid": uid, "annotations": annotations, "labels": template.labels, "ownerReferences": [owner(&set.uid().unwrap())],
                }});
                self.view.pods.push(Arc::new(serde_json::from_value(object).unwrap()));
            }
            Deed::Retire { pod, kept_until } => {
                let now = self.now.to_string();
                let annotations = self.pod(pod);
                annotations.insert(RETIRED.to_owned(), now);
                annotations.insert(KEPT_UNTIL.to_owned(), kept_until.to_string());
            }
            Deed::Recall { pod } => {
                let annotations = self.pod(pod);
                annotations.remove(RETIRED);
                annotations.remove(KEPT_UNTIL);
            }
            Deed::Stop { pod } => {
                // The task waits as long as a table names it, or requests are open there.
                if !table::names(&self.table, pod) && !self.open.contains(pod) {
                    self.view.pods.retain(|one| one.name_any() != *pod);
                    self.ready.remove(pod);
                    self.ended.push(pod.clone());
                }
            }
            Deed::DropSet { set } => self.view.sets.retain(|one| one.name_any() != *set),
        }
    }

    pub(super) fn pod(&mut self, name: &str) -> &mut BTreeMap<String, String> {
        let pod = self.view.pods.iter_mut().find(|one| one.name_any() == name).unwrap();
        Arc::make_mut(pod).metadata.annotations.get_or_insert_default()
    }

    /// Until nothing more is done.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            let before = self.serving.clone();
            if self.pass().is_empty() && before == self.serving {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.pass());
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// The releases that run, by process: how many Pods, kept ones in the second number.
    pub(super) fn runs(&self, of: &str) -> (usize, usize) {
        let digest = release(of).digest().to_string();
        let pods = self.view.pods.iter().filter(|pod| pod.annotations().get(RELEASE_ID_ANNOTATION) == Some(&digest));
        let (kept, live): (Vec<_>, Vec<_>) = pods.partition(|pod| pod.annotations().contains_key(RETIRED));
        (live.len(), kept.len())
    }

    fn serves(&self) -> Option<ReleaseId> {
        Some(self.table.agents.get(&agent())?.arms.first()?.release)
    }

    fn deployment_status(&self) -> Value {
        self.status_of("support")
    }

    pub(super) fn status_of(&self, deployment: &str) -> Value {
        let processes = self.view.processes(|pod| self.ready.contains(&pod.name_any()));
        let one = processes.iter().find(|one| one.deployment.name_any() == deployment).unwrap();
        status::of_deployment(one, self.serving.get(deployment).map(String::as_str), None, None, self.now)
    }
}

fn owner(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true})
}

#[test]
fn a_first_release_serves_when_all_of_it_is_ready() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    assert_eq!((host.runs("one"), host.serves()), ((2, 0), Some(release("one"))));
    assert_eq!(host.deployment_status()["availableReplicas"], 2);
}

#[test]
fn a_change_switches_whole_and_keeps_the_old_one_for_a_while() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    host.apply("main", "two", 2);
    host.settle();
    assert_eq!((host.serves(), host.runs("two"), host.runs("one")), (Some(release("two")), (2, 0), (0, 2)));
    assert!(host.ended.is_empty(), "{:?}", host.ended);
    host.later(KEEP + 1);
    host.settle();
    assert_eq!((host.runs("two"), host.runs("one")), ((2, 0), (0, 0)));
}

#[test]
fn what_answered_when_that_was_told_last_is_kept_though_nobody_has_looked_again() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    for pod in &mut host.view.pods {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        Arc::make_mut(pod).status = Some(serde_json::from_value(status).unwrap());
    }
    // A daemon that has just begun has looked at what comes, and not yet at what was.
    host.broken.insert(release("one").digest().to_string());
    host.apply("main", "two", 2);
    host.settle();
    assert_eq!((host.serves(), host.runs("two"), host.runs("one")), (Some(release("two")), (2, 0), (0, 2)));
    assert!(host.ended.is_empty(), "{:?}", host.ended);
}

#[test]
fn a_revert_within_that_time_is_another_table_and_no_launch() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    host.apply("main", "two", 2);
    host.settle();
    host.later(KEEP / 2);
    host.apply("main", "one", 2);
    let mut deeds = host.pass();
    assert_eq!(host.serves(), Some(release("one")), "the first look is enough");
    for _ in 0..5 {
        deeds.extend(host.pass());
    }
    assert!(!deeds.iter().any(|deed| matches!(deed, Deed::Launch { .. } | Deed::MakeSet { .. })), "{deeds:?}");
    host.settle();
    assert_eq!((host.runs("one"), host.runs("two")), ((2, 0), (0, 2)));
}

#[test]
fn what_never_gets_ready_gets_no_traffic_and_goes_when_it_is_taken_back() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    host.broken.insert(release("bad").digest().to_string());
    host.apply("main", "bad", 2);
    host.settle();
    assert_eq!((host.serves(), host.runs("one"), host.runs("bad")), (Some(release("one")), (2, 0), (2, 0)));
    let status = host.deployment_status();
    assert_eq!((&status["updatedReplicas"], &status["availableReplicas"]), (&json!(2), &json!(2)), "{status}");
    assert_eq!(status["replicas"], 4);
    host.apply("main", "one", 2);
    host.settle();
    assert_eq!((host.serves(), host.runs("one"), host.runs("bad")), (Some(release("one")), (2, 0), (0, 0)));
}

#[test]
fn while_the_proxy_is_silent_nothing_that_serves_is_touched() {
    let mut host = Host::new();
    host.apply("main", "one", 1);
    host.settle();
    host.proxy_answers = false;
    host.apply("main", "two", 1);
    for _ in 0..10 {
        host.pass();
    }
    assert_eq!((host.runs("one"), host.runs("two")), ((1, 0), (1, 0)));
    assert_eq!(host.deployment_status()["availableReplicas"], 1, "what is available is what serves");
    host.proxy_answers = true;
    host.settle();
    assert_eq!((host.serves(), host.runs("one")), (Some(release("two")), (0, 1)));
}

#[test]
fn one_way_back_is_kept_and_not_all_of_them() {
    let mut host = Host::new();
    for name in ["one", "two", "three"] {
        host.apply("main", name, 1);
        host.settle();
        host.later(1);
    }
    host.settle();
    assert_eq!((host.runs("one"), host.runs("two"), host.runs("three")), ((0, 0), (0, 1), (1, 0)));
}

#[test]
fn what_was_written_by_a_clock_that_was_ahead_keeps_nothing_for_ever() {
    const YEARS: i64 = 10 * 365 * 86_400;
    let mut host = Host::new();
    host.apply("main", "one", 1);
    host.settle();
    host.later(YEARS);
    host.apply("main", "two", 1);
    host.settle();
    assert_eq!((host.runs("one"), host.serves()), ((0, 1), Some(release("two"))));
    // The clock is set right.
    host.later(-YEARS);
    host.settle();
    assert_eq!((host.runs("one"), host.serves()), ((0, 1), Some(release("two"))), "it is kept as long as any other");
    host.later(KEEP + 1);
    host.settle();
    assert_eq!((host.runs("one"), host.runs("two")), ((0, 0), (1, 0)));
}

#[test]
fn a_clock_that_leaps_ahead_ends_what_was_kept_and_nothing_that_serves() {
    let mut host = Host::new();
    host.apply("main", "one", 1);
    host.settle();
    host.apply("main", "two", 1);
    host.settle();
    host.later(10 * 365 * 86_400);
    host.settle();
    assert_eq!((host.runs("one"), host.runs("two"), host.serves()), ((0, 0), (1, 0), Some(release("two"))));
}

#[test]
fn fewer_replicas_end_the_last_ones_and_none_end_all() {
    let mut host = Host::new();
    host.apply("main", "one", 3);
    host.settle();
    host.apply("main", "one", 1);
    host.settle();
    assert_eq!(host.runs("one"), (1, 0));
    assert_eq!(host.table.agents[&agent()].arms[0].instances.len(), 1);
    host.apply("main", "one", 0);
    host.settle();
    assert_eq!((host.runs("one"), host.serves()), ((0, 0), None));
}

#[test]
fn a_worker_follows_the_switch_and_never_runs_beside_its_old_self() {
    let mut host = Host::new();
    host.apply("main", "one", 1);
    host.apply("indexer", "one", 1);
    host.settle();
    assert_eq!(host.runs("one"), (2, 0));
    host.broken.insert(release("bad").digest().to_string());
    host.apply("main", "bad", 1);
    host.apply("indexer", "bad", 1);
    host.settle();
    assert_eq!((host.runs("one"), host.runs("bad")), ((2, 0), (1, 0)), "the old worker goes on beside the old release");
    host.apply("main", "two", 1);
    host.apply("indexer", "two", 1);
    let mut together = false;
    for _ in 0..20 {
        host.pass();
        let workers = host.view.pods.iter().filter(|pod| pod.name_any().starts_with("support--indexer"));
        together |= workers.count() > 1;
    }
    assert!(!together, "two workers ran at once");
    assert_eq!((host.runs("two"), host.runs("one")), ((2, 0), (0, 1)));
}

#[test]
fn what_is_gone_from_git_ends() {
    let mut host = Host::new();
    host.apply("main", "one", 2);
    host.settle();
    host.view.deployments.clear();
    host.view.services.clear();
    host.settle();
    assert!(host.view.pods.is_empty() && host.view.sets.is_empty());
    assert_eq!(host.serves(), None);
}

#[test]
fn sets_are_told_apart_by_their_template() {
    let mut host = Host::new();
    host.apply("main", "one", 1);
    let one = template_hash(&host.view.deployments[0].spec.template);
    host.apply("main", "two", 1);
    let two = template_hash(&host.view.deployments[0].spec.template);
    assert_ne!(one, two);
    assert_eq!(one.len(), 10);
}
