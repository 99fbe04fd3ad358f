//! `rollout` in an agent's file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Keyed;
use crate::desired::read::{ComponentName, FieldName, HostName, Period};
use crate::desired::rollout::{OnNewCommit, Otherwise, Preset, Winner};

/// How a new release gets the traffic.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Rollout {
    /// The progression; absent: rolling.
    pub(in crate::desired) strategy: Option<Strategy>,
    /// What a newer commit does to a rollout on its way; absent: it supersedes.
    pub(in crate::desired) on_new_commit: Option<OnNewCommit>,
    /// New instances do not count before that.
    pub(in crate::desired) warm_up: Option<Period>,
    /// Keeps a user with one release: the header or cookie that names the user.
    pub(in crate::desired) sticky: Option<UserKey>,
    /// What is measured, by name; absent: errors and the 99th percentile of the latency.
    pub(in crate::desired) analysis: Option<Keyed<ComponentName, Metric>>,
    /// What a missing measurement means; absent: it holds.
    pub(in crate::desired) on_no_data: Option<Otherwise>,
    /// What an undecided comparison means at its deadline; absent: it holds.
    pub(in crate::desired) on_undecided: Option<Otherwise>,
    /// When a rollback may come by itself.
    pub(in crate::desired) rollback: Option<Rollback>,
}

/// The progression of a rollout.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desired) enum Strategy {
    /// Kubernetes replaces the pods.
    Rolling,
    /// Traffic moves in steps.
    Canary(Canary),
    /// A full second set, switched at once.
    BlueGreen(BlueGreen),
    /// Segments of users, until the experiment is decided.
    AbTest(AbTest),
}

/// Traffic moves in steps.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Canary {
    /// The steps; absent: 5 % for 5 minutes, 25 % for 10, 50 % for 15.
    #[schemars(length(min = 1, max = 50))]
    pub(in crate::desired) steps: Option<Vec<Step>>,
    /// A copy of the requests goes to the candidate first, and its answers are thrown away.
    pub(in crate::desired) mirror: Option<Mirror>,
    /// Requests that reach the candidate on purpose.
    pub(in crate::desired) reach: Option<Reach>,
}

/// One step of a canary: exactly one of `weight`, `pause`, `gate` and `replicas`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Step {
    /// Share of the traffic, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::desired) weight: Option<u8>,
    /// How long.
    pub(in crate::desired) r#for: Option<Period>,
    /// As long as it takes to see that many requests.
    #[schemars(range(min = 1))]
    pub(in crate::desired) samples: Option<u64>,
    /// But no longer than this.
    pub(in crate::desired) at_most: Option<Period>,
    /// Waits for a person, or for a time.
    pub(in crate::desired) pause: Option<Pause>,
    /// Asks a gate that the daemon's configuration names.
    pub(in crate::desired) gate: Option<ComponentName>,
    /// Instances of the candidate, whatever its share of the traffic.
    #[schemars(range(min = 1, max = 10000))]
    pub(in crate::desired) replicas: Option<u32>,
    /// Limits of this step, by metric.
    pub(in crate::desired) limits: Option<Keyed<ComponentName, StepLimit>>,
}

/// Waits for a person, or for a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Pause {
    /// How long; absent: until `backstay promote`.
    pub(in crate::desired) r#for: Option<Period>,
}

/// A copy of the requests goes to the candidate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Mirror {
    /// How long.
    pub(in crate::desired) r#for: Period,
}

/// Requests with this header or cookie reach the candidate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum Reach {
    /// By a header.
    Header {
        /// Its name.
        header: FieldName,
        /// Its value.
        #[schemars(length(min = 1, max = 256))]
        value: String,
    },
    /// By a cookie.
    Cookie {
        /// Its name.
        cookie: FieldName,
        /// Its value.
        #[schemars(length(min = 1, max = 256))]
        value: String,
    },
}

/// What names a user: a header or a cookie.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum UserKey {
    /// A header.
    Header {
        /// Its name.
        header: FieldName,
    },
    /// A cookie.
    Cookie {
        /// Its name.
        cookie: FieldName,
    },
}

/// Who is in a segment: users by the hash of a header or cookie, or all requests with one value of it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum Segment {
    /// By a header.
    Header {
        /// Its name.
        header: FieldName,
        /// Its value; absent: its hash decides.
        #[schemars(length(min = 1, max = 256))]
        value: Option<String>,
    },
    /// By a cookie.
    Cookie {
        /// Its name.
        cookie: FieldName,
        /// Its value; absent: its hash decides.
        #[schemars(length(min = 1, max = 256))]
        value: Option<String>,
    },
}

/// A full second set, switched at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct BlueGreen {
    /// Where the second set is seen before the switch.
    pub(in crate::desired) preview: Option<Preview>,
    /// A path that must answer with success through the preview before the switch; absent: where readiness is asked.
    pub(in crate::desired) smoke: Option<String>,
    /// How long the first set stays; absent: as long as the release is watched.
    pub(in crate::desired) keep_old: Option<Period>,
}

/// Where the second set is seen before the switch.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Preview {
    /// The name of a host.
    pub(in crate::desired) host: HostName,
}

/// Segments of users, until the experiment is decided.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct AbTest {
    /// Who is in the candidate's segment.
    pub(in crate::desired) by: Segment,
    /// Share of the users, in percent; absent: half.
    #[schemars(range(min = 1, max = 99))]
    pub(in crate::desired) share: Option<u8>,
    /// How long at least; absent: a day, or the whole time where that is less.
    pub(in crate::desired) min: Option<Period>,
    /// How long at most.
    pub(in crate::desired) r#for: Period,
    /// What follows; absent: a person is asked.
    pub(in crate::desired) winner: Option<Winner>,
}

/// One metric: a preset or a query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Metric {
    /// A metric that Backstay knows.
    pub(in crate::desired) preset: Option<Preset>,
    /// A question in the provider's language.
    pub(in crate::desired) query: Option<Query>,
    /// Who is asked: a name of the daemon's configuration; absent: what the target itself measures.
    pub(in crate::desired) provider: Option<ComponentName>,
    /// The most that is allowed.
    pub(in crate::desired) max: Option<Bound>,
    /// The least that is allowed.
    pub(in crate::desired) min: Option<Bound>,
    /// Compares with another release over the same time.
    pub(in crate::desired) compare: Option<CompareWith>,
    /// What the whole traffic may lose: a difference of rates, or a factor on a duration or a value.
    #[schemars(range(min = 0))]
    pub(in crate::desired) margin: Option<f64>,
    /// What it means that this one is missing; absent: as for all.
    pub(in crate::desired) on_no_data: Option<Otherwise>,
    /// How often it is asked for.
    pub(in crate::desired) interval: Option<Period>,
}

/// A question in the provider's language; `$release` stands for the release's id.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum Query {
    /// It gives one value.
    Value(#[schemars(length(min = 1, max = 4096))] String),
    /// Two of them give counters: bad events, and what they are a part of.
    Rate {
        /// Events, counted up.
        #[schemars(length(min = 1, max = 4096))]
        events: String,
        /// What they are a part of, counted up.
        #[schemars(length(min = 1, max = 4096))]
        of: String,
    },
}

/// A limit: a number, or a duration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum Bound {
    /// A rate, a value, or milliseconds.
    Number(f64),
    /// A duration.
    Period(Period),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desired) enum CompareWith {
    /// The release that holds the traffic.
    Stable,
}

/// The limit of a metric in one step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct StepLimit {
    /// The most that is allowed.
    pub(in crate::desired) max: Option<Bound>,
    /// The least that is allowed.
    pub(in crate::desired) min: Option<Bound>,
}

/// When a rollback may come by itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Rollback {
    /// How long a promoted release is watched.
    pub(in crate::desired) bake: Option<Period>,
    /// Between two of them.
    pub(in crate::desired) cooldown: Option<Period>,
    /// In one hour.
    #[schemars(range(min = 1, max = 60))]
    pub(in crate::desired) max_per_hour: Option<u32>,
}

// === impl Rollout ===

impl Rollout {
    /// The metrics by plain names, as they were written.
    pub(in crate::desired) fn metrics(&self) -> Option<BTreeMap<&str, &Metric>> {
        let analysis = self.analysis.as_ref()?;
        Some(analysis.0.iter().map(|(name, metric)| (name.0.as_str(), metric)).collect())
    }
}
