//! How a new release gets the traffic: the declaration, with all defaults filled in.

mod preset;
mod read;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use preset::{Measure, Preset};
pub(super) use read::{Facts, read};

/// How a new release gets the traffic; the default: as Kubernetes rolls pods, and nothing is watched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// The progression.
    pub strategy: Strategy,
    /// What a newer commit does to a rollout on its way.
    pub on_new_commit: OnNewCommit,
    /// Instances younger than this do not count in either arm.
    pub warm_up: SignedDuration,
    /// Keeps a user with one release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Field>,
    /// What is measured, by name.
    pub analysis: BTreeMap<String, Metric>,
    /// What a missing measurement means.
    pub on_no_data: Otherwise,
    /// What an undecided comparison means at its deadline.
    pub on_undecided: Otherwise,
    /// When a rollback may come by itself.
    pub rollback: Rollback,
    /// The metrics of `analysis` are our own choice: then those of the watch after a promotion are, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default_analysis: bool,
}

/// The progression of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// The target replaces one instance after another.
    #[default]
    Rolling,
    /// Traffic moves in steps.
    Canary(Canary),
    /// A full second set, switched at once.
    BlueGreen(BlueGreen),
    /// Segments of users, until the experiment is decided.
    AbTest(AbTest),
}

/// Traffic moves in steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// The steps, in order; weights never fall, and there is at least one.
    pub steps: Vec<Step>,
    /// How long a copy of the requests goes to the candidate first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<SignedDuration>,
    /// Requests that reach the candidate on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Match>,
}

/// One step of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Step {
    /// The candidate gets this share of the traffic until it is known to do no harm.
    Weight {
        /// In percent: 1 to 100.
        weight: u8,
        /// How long at least, or how many requests.
        until: Until,
        /// Limits of this step, by metric: as those of [`Metric::limit`].
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        limits: BTreeMap<String, f64>,
    },
    /// Waits for a person, or for a time.
    Pause {
        /// How long; nothing: for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts: Option<SignedDuration>,
    },
    /// Waits for the word of somebody else.
    Gate {
        /// A name of the daemon's configuration.
        name: String,
    },
    /// Instances of the candidate, from here on at least.
    Replicas {
        /// How many, at least one.
        count: u32,
    },
}

/// When a step may be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Until {
    /// After that time, and its evidence; undecided after three times as long.
    Time(SignedDuration),
    /// After that many requests of the candidate, and its evidence.
    Samples {
        /// How many.
        samples: u64,
        /// When it is undecided.
        at_most: SignedDuration,
    },
}

/// A full second set, switched at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// The name of a host at which the second set is seen before the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// The path that must answer with success there.
    pub smoke: String,
    /// How long the first set stays after the switch.
    pub keep_old: SignedDuration,
}

/// Segments of users, until the experiment is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbTest {
    /// Who is in the candidate's segment.
    pub by: Segment,
    /// How long at least.
    pub at_least: SignedDuration,
    /// How long at most.
    pub at_most: SignedDuration,
    /// What follows when the candidate is better.
    pub winner: Winner,
}

/// Who is in the candidate's segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Segment {
    /// Users whose hash falls into the share.
    Hash {
        /// What names the user.
        field: Field,
        /// In percent: 1 to 99.
        share: u8,
    },
    /// All requests with one value.
    Value(Match),
}

/// A header or a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Field {
    /// A header, by its name.
    Header(String),
    /// A cookie, by its name.
    Cookie(String),
}

/// A header or a cookie with this value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Which.
    pub field: Field,
    /// Its value.
    pub value: String,
}

/// What follows when the candidate of an experiment is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Winner {
    /// It is promoted.
    Promote,
    /// A person is asked.
    #[default]
    Ask,
}

/// What a newer commit does to a rollout on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnNewCommit {
    /// It takes its place, once the traffic is back on stable.
    #[default]
    Supersede,
    /// It waits until the rollout has ended.
    Queue,
}

/// What happens where the evidence does not decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Otherwise {
    /// It waits.
    #[default]
    Hold,
    /// It goes back.
    Abort,
    /// It goes on.
    Advance,
}

/// When a rollback may come by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// How long a promoted release is watched.
    pub bake: SignedDuration,
    /// From one of them until the next release may start.
    pub cooldown: SignedDuration,
    /// In one hour.
    pub max_per_hour: u32,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// What is asked.
    pub source: Source,
    /// Who is asked, by a name of the daemon's configuration; nothing: what the target itself measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// More is better.
    #[serde(default)]
    pub higher_is_better: bool,
    /// The most that is allowed (the least, where more is better): a rate, a value, or milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// It is compared with stable over the same time.
    #[serde(default)]
    pub compare: bool,
    /// What the whole traffic may lose: a difference for rates, else a factor. Nothing: only harm is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Nothing advances without it.
    pub required: bool,
    /// How often it is asked for; nothing: as the provider likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<SignedDuration>,
}

/// What is asked of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Source {
    /// A metric that Backstay knows.
    Preset(Preset),
    /// A question that gives one value; `$release` stands for the release's id.
    Value(String),
    /// Two questions that give counters.
    Rate {
        /// Events.
        events: String,
        /// What they are a part of.
        of: String,
    },
}

// === impl Rollback ===

impl Default for Rollback {
    fn default() -> Self {
        Self { bake: SignedDuration::from_mins(10), cooldown: SignedDuration::from_mins(5), max_per_hour: 3 }
    }
}

// === impl Source ===

impl Source {
    /// Of which kind its measurements are.
    pub fn measure(&self) -> Measure {
        match self {
            Self::Preset(preset) => preset.measure(),
            Self::Value(_) => Measure::Mean,
            Self::Rate { .. } => Measure::Rate { common: false },
        }
    }
}

// === impl Metric ===

impl Metric {
    /// A required metric of a preset, without limit and comparison.
    pub fn preset(preset: Preset) -> Self {
        Self {
            source: Source::Preset(preset),
            provider: None,
            higher_is_better: preset.higher_is_better(),
            limit: None,
            compare: false,
            margin: None,
            required: true,
            interval: None,
        }
    }
}

// === impl RolloutSpec ===

impl RolloutSpec {
    /// The metrics where nothing is declared: errors at most 1 % and within one point of stable, the 99th percentile of
    /// the latency at most a second and within a factor of 1.2.
    pub fn default_metrics() -> BTreeMap<String, Metric> {
        let metric = |preset, limit, margin| Metric {
            limit: Some(limit),
            compare: true,
            margin: Some(margin),
            ..Metric::preset(preset)
        };
        BTreeMap::from([
            ("errors".to_owned(), metric(Preset::ErrorRate, 0.01, 0.01)),
            ("p99".to_owned(), metric(Preset::LatencyP99, 1000.0, 1.2)),
        ])
    }

    /// The steps where nothing is declared: 5 % for 5 minutes, 25 % for 10, 50 % for 15.
    ///
    /// With the metrics of [`default_metrics`](Self::default_metrics) the last one has stricter limits.
    pub fn default_steps(with_default_metrics: bool) -> Vec<Step> {
        let strict = BTreeMap::from([("errors".to_owned(), 0.005), ("p99".to_owned(), 800.0)]);
        let step = |weight, minutes, limits| Step::Weight {
            weight,
            until: Until::Time(SignedDuration::from_mins(minutes)),
            limits,
        };
        let last = if with_default_metrics { strict } else { BTreeMap::new() };
        vec![step(5, 5, BTreeMap::new()), step(25, 10, BTreeMap::new()), step(50, 15, last)]
    }
}
