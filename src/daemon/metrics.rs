//! What the daemon counts, for Prometheus.
//!
//! Labels are environments, kinds and outcomes; never agents, so that their number is bounded by the configuration.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{EnvironmentName, Revision, Timestamp};
use crate::record::{ConditionKind, Truth};

type Seconds = Gauge<f64, AtomicU64>;

/// All counters, shared by the tasks that count and the server that shows them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    revision: Family<RevisionLabels, Gauge>,
    last_success: Seconds,
    polls: Family<ResultLabels, Counter>,
    fetches: Family<ResultLabels, Counter>,
    poll_duration: Histogram,
    hints: Family<HintLabels, Counter>,
    lag: Family<EnvironmentLabels, Seconds>,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_duration: Family<EnvironmentLabels, Histogram>,
    errors: Family<ErrorLabels, Counter>,
    drift: Family<EnvironmentLabels, Counter>,
    prune_blocked: Family<EnvironmentLabels, Gauge>,
    queue: Family<EnvironmentLabels, Gauge>,
    agents: Family<AgentLabels, Gauge>,
    operations: Family<OperationLabels, Counter>,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Success,
    /// Not.
    Failure,
}

/// What became of a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintFate {
    /// It brought the poll forward.
    Taken,
    /// It was genuine and asked for nothing.
    Ignored,
    /// Its signature was wrong or missing.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevisionLabels {
    reference: String,
    commit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HintLabels {
    provider: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnvironmentLabels {
    environment: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    environment: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    environment: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    environment: String,
    condition: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    environment: String,
    cause: &'static str,
    outcome: &'static str,
}

/// Buckets for what takes milliseconds to minutes.
fn durations() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0])
}

fn of(environment: &EnvironmentName) -> EnvironmentLabels {
    EnvironmentLabels { environment: environment.to_string() }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything; nothing has been counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("backstay");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this program", build);
        let mut metrics = Self {
            registry,
            revision: Family::default(),
            last_success: Seconds::default(),
            polls: Family::default(),
            fetches: Family::default(),
            poll_duration: durations(),
            hints: Family::default(),
            lag: Family::default(),
            reconciles: Family::default(),
            reconcile_duration: Family::new_with_constructor(durations),
            errors: Family::default(),
            drift: Family::default(),
            prune_blocked: Family::default(),
            queue: Family::default(),
            agents: Family::default(),
            operations: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("source_revision_info", "The commit that is followed, per reference", self.revision.clone());
        to.register(
            "source_last_success_timestamp_seconds",
            "When the config repository was last looked at, in seconds since 1970",
            self.last_success.clone(),
        );
        to.register("source_polls", "Looks at the config repository", self.polls.clone());
        to.register("source_fetches", "Fetches from the config repository", self.fetches.clone());
        to.register_with_unit(
            "source_poll_duration",
            "How long a look at the config repository took",
            Unit::Seconds,
            self.poll_duration.clone(),
        );
        to.register("webhook_hints", "Hints from Git hosts", self.hints.clone());
        to.register_with_unit(
            "lag",
            "How long Git and the target have differed; 0 where they agree",
            Unit::Seconds,
            self.lag.clone(),
        );
        to.register("reconcile", "Rounds of agents", self.reconciles.clone());
        to.register_with_unit(
            "reconcile_duration",
            "How long a round of an agent took",
            Unit::Seconds,
            self.reconcile_duration.clone(),
        );
        to.register("reconcile_errors", "Failed effects, by the kind of failure", self.errors.clone());
        to.register("drift_healed", "Times that drift was healed", self.drift.clone());
        to.register("prune_blocked", "Agents with something that is not pruned", self.prune_blocked.clone());
        to.register("queue_depth", "Agents that wait for their round", self.queue.clone());
        to.register("agents", "Agents by condition and status", self.agents.clone());
        to.register("operations", "Finished operations, by cause and outcome", self.operations.clone());
    }

    /// Everything in the `OpenMetrics` text format.
    ///
    /// # Errors
    ///
    /// When a metric cannot be written as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The commit that is followed now, in place of the one before.
    pub fn followed<'a>(&self, revisions: impl IntoIterator<Item = &'a Revision>) {
        self.revision.clear();
        for revision in revisions {
            let labels = RevisionLabels { reference: revision.reference.clone(), commit: revision.commit.to_string() };
            self.revision.get_or_create(&labels).set(1);
        }
    }

    /// A look at Git ended.
    pub fn polled(&self, ended: Ended, took: Duration, now: Timestamp) {
        self.polls.get_or_create(&ended.into()).inc();
        self.poll_duration.observe(took.as_secs_f64());
        if ended == Ended::Success {
            self.last_success.set(Duration::try_from(now.as_duration()).unwrap_or_default().as_secs_f64());
        }
    }

    /// A fetch ended.
    pub fn fetched(&self, ended: Ended) {
        self.fetches.get_or_create(&ended.into()).inc();
    }

    /// A hint came in through the door of `provider`.
    pub fn hinted(&self, provider: &'static str, fate: HintFate) {
        let result = match fate {
            HintFate::Taken => "taken",
            HintFate::Ignored => "ignored",
            HintFate::Refused => "refused",
        };
        self.hints.get_or_create(&HintLabels { provider, result }).inc();
    }

    /// How long Git and the target have differed, for the agent where it is longest.
    pub fn lag(&self, environment: &EnvironmentName, lag: Duration) {
        self.lag.get_or_create(&of(environment)).set(lag.as_secs_f64());
    }

    /// A round of an agent ended.
    pub fn reconciled(&self, environment: &EnvironmentName, ended: Ended, took: Duration) {
        let ResultLabels { result } = ended.into();
        let labels = ReconcileLabels { environment: environment.to_string(), result };
        self.reconciles.get_or_create(&labels).inc();
        self.reconcile_duration.get_or_create(&of(environment)).observe(took.as_secs_f64());
    }

    /// An effect failed; `reason` is the kind of failure in one word.
    pub fn failed(&self, environment: &EnvironmentName, reason: &str) {
        let labels = ErrorLabels { environment: environment.to_string(), reason: reason.to_owned() };
        self.errors.get_or_create(&labels).inc();
    }

    /// Drift was healed.
    pub fn drift_healed(&self, environment: &EnvironmentName) {
        self.drift.get_or_create(&of(environment)).inc();
    }

    /// How many agents have something that is not pruned.
    pub fn prune_blocked(&self, environment: &EnvironmentName, agents: usize) {
        self.prune_blocked.get_or_create(&of(environment)).set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    /// How many agents wait for their round.
    pub fn queued(&self, environment: &EnvironmentName, agents: usize) {
        self.queue.get_or_create(&of(environment)).set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    /// How many agents of `environment` have `condition` at `status`.
    pub fn agents(&self, environment: &EnvironmentName, condition: ConditionKind, status: Truth, agents: usize) {
        let status = match status {
            Truth::True => "true",
            Truth::False => "false",
            Truth::Unknown => "unknown",
        };
        let labels = AgentLabels { environment: environment.to_string(), condition: format!("{condition:?}"), status };
        self.agents.get_or_create(&labels).set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    /// An operation was finished.
    pub fn operation(&self, environment: &EnvironmentName, operation: &crate::record::Operation) {
        use crate::record::{Cause, Outcome};
        let cause = match operation.cause {
            Cause::Commit {} => "commit",
            Cause::Revert { .. } => "revert",
            Cause::Rollback { .. } => "rollback",
            Cause::Failed { .. } => "failed",
            Cause::Retry { .. } => "retry",
            Cause::Rename { .. } => "rename",
            Cause::Rebuilt {} => "rebuilt",
        };
        let outcome = match operation.outcome {
            Some(Outcome::Succeeded) => "succeeded",
            Some(Outcome::Failed(_)) => "failed",
            Some(Outcome::Superseded) => "superseded",
            None => return,
        };
        let labels = OperationLabels { environment: environment.to_string(), cause, outcome };
        self.operations.get_or_create(&labels).inc();
    }
}

impl From<Ended> for ResultLabels {
    fn from(ended: Ended) -> Self {
        let result = match ended {
            Ended::Success => "success",
            Ended::Failure => "error",
        };
        Self { result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Cause, Operation, OperationId, OperationKind, Outcome};

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        let production: EnvironmentName = "production".parse().expect("a name");
        let revision: Revision = "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision");
        let later: Revision = "main@sha1:0f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision");
        metrics.followed([&revision]);
        metrics.followed([&later]);
        metrics.polled(Ended::Success, Duration::from_millis(20), Timestamp::from_second(12).expect("a time"));
        metrics.polled(Ended::Failure, Duration::from_secs(2), Timestamp::from_second(99).expect("a time"));
        metrics.fetched(Ended::Success);
        metrics.hinted("github", HintFate::Taken);
        metrics.hinted("github", HintFate::Ignored);
        metrics.hinted("gitlab", HintFate::Refused);
        metrics.lag(&production, Duration::from_secs(3));
        metrics.reconciled(&production, Ended::Success, Duration::from_millis(7));
        metrics.failed(&production, "conflict");
        metrics.drift_healed(&production);
        metrics.prune_blocked(&production, 2);
        metrics.queued(&production, 4);
        metrics.agents(&production, ConditionKind::Ready, Truth::True, 5);
        let mut operation = Operation {
            id: OperationId(1),
            kind: OperationKind::Release,
            cause: Cause::Commit {},
            from: None,
            to: None,
            revision: None,
            started: Timestamp::UNIX_EPOCH,
            finished: None,
            evidence: vec![],
            outcome: None,
        };
        metrics.operation(&production, &operation);
        operation.outcome = Some(Outcome::Succeeded);
        metrics.operation(&production, &operation);

        let text = metrics.render().expect("text");
        for line in [
            concat!("backstay_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "backstay_source_revision_info{reference=\"main\",commit=\"0f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0\"} 1",
            "backstay_source_last_success_timestamp_seconds 12.0",
            "backstay_source_polls_total{result=\"success\"} 1",
            "backstay_source_polls_total{result=\"error\"} 1",
            "backstay_source_fetches_total{result=\"success\"} 1",
            "backstay_source_poll_duration_seconds_count 2",
            "backstay_webhook_hints_total{provider=\"gitlab\",result=\"refused\"} 1",
            "backstay_lag_seconds{environment=\"production\"} 3.0",
            "backstay_reconcile_total{environment=\"production\",result=\"success\"} 1",
            "backstay_reconcile_duration_seconds_count{environment=\"production\"} 1",
            "backstay_reconcile_errors_total{environment=\"production\",reason=\"conflict\"} 1",
            "backstay_drift_healed_total{environment=\"production\"} 1",
            "backstay_prune_blocked{environment=\"production\"} 2",
            "backstay_queue_depth{environment=\"production\"} 4",
            "backstay_agents{environment=\"production\",condition=\"Ready\",status=\"true\"} 5",
            "backstay_operations_total{environment=\"production\",cause=\"commit\",outcome=\"succeeded\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0\"} 1\nbackstay_source_revision_info{"),
            "{text}"
        );
        assert_eq!(text.matches("backstay_source_revision_info{").count(), 1);
    }
}
