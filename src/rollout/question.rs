//! What the shell is asked to measure, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::rollout::Metric;
use crate::judge::{Arms, NoData, Reading};
use crate::model::{AgentName, EnvironmentName, LiveObject, ReleaseId, Revision, Timestamp};

/// What is to be measured of one agent: every metric, of both releases, at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Whose releases.
    pub agent: AgentName,
    /// Which two.
    pub releases: Arms<ReleaseId>,
    /// The tools that each of them declares: a call to any other one is unexpected.
    pub tools: Arms<BTreeSet<String>>,
    /// The Pods of the agent's own process, of every release, as they were seen last.
    pub pods: Vec<Arc<LiveObject>>,
    /// What is asked, by name.
    pub metrics: BTreeMap<String, Metric>,
}

/// What a gate is asked: whether a rollout may leave the step that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateQuestion {
    /// Its name.
    pub gate: String,
    /// Whose rollout.
    pub agent: AgentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The namespace that it is bound to.
    pub namespace: String,
    /// The two releases.
    pub releases: Arms<ReleaseId>,
    /// Where the candidate was read.
    pub revision: Revision,
    /// The step, from 0.
    pub step: usize,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    /// When: each reading counts up to here.
    pub at: Timestamp,
    /// By name; a metric that is not there was not answered in time.
    pub metrics: BTreeMap<String, Measurement>,
}

/// What was measured of one metric. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Measurement {
    /// Counters of every instance, which only grow until it starts anew.
    Counters(Arms<Result<Vec<Reading>, NoData>>),
    /// One value for the time since the last answer, as a provider that knows no counters gives it.
    Value(Arms<Result<f64, NoData>>),
}
