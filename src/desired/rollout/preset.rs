//! The metrics that Backstay knows by name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric that Backstay knows, after the conventions of OpenTelemetry for generative AI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The share of requests that fail.
    ErrorRate,
    /// The median of the latency.
    LatencyP50,
    /// The 95th percentile of the latency.
    LatencyP95,
    /// The 99th percentile of the latency.
    LatencyP99,
    /// The 95th percentile of the time until the first token.
    TimeToFirstToken,
    /// Tokens of one request, on the mean.
    TokensPerRequest,
    /// The share of calls of tools that fail.
    ToolErrors,
    /// The share of requests in which an injection was detected.
    PromptInjections,
    /// The share of calls of tools that the release does not declare.
    UnexpectedToolUse,
    /// The share of conversations that reach their goal.
    GoalCompletion,
    /// The share of calls that another model answered.
    FallbackCalls,
}

/// Of which kind the measurements of a metric are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// Events among requests.
    Rate {
        /// They are frequent: more than one in ten.
        common: bool,
    },
    /// Values with a mean.
    Mean,
    /// Durations in milliseconds, of which a quantile is looked at.
    Duration {
        /// In (0, 1).
        quantile: f64,
    },
}

// === impl Preset ===

impl Preset {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ErrorRate,
        Self::LatencyP50,
        Self::LatencyP95,
        Self::LatencyP99,
        Self::TimeToFirstToken,
        Self::TokensPerRequest,
        Self::ToolErrors,
        Self::PromptInjections,
        Self::UnexpectedToolUse,
        Self::GoalCompletion,
        Self::FallbackCalls,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::TimeToFirstToken => "time_to_first_token",
            Self::TokensPerRequest => "tokens_per_request",
            Self::ToolErrors => "tool_errors",
            Self::PromptInjections => "prompt_injections",
            Self::UnexpectedToolUse => "unexpected_tool_use",
            Self::GoalCompletion => "goal_completion",
            Self::FallbackCalls => "fallback_calls",
        }
    }

    /// Of which kind its measurements are.
    pub fn measure(self) -> Measure {
        match self {
            Self::ErrorRate
            | Self::ToolErrors
            | Self::PromptInjections
            | Self::UnexpectedToolUse
            | Self::FallbackCalls => Measure::Rate { common: false },
            Self::GoalCompletion => Measure::Rate { common: true },
            Self::TokensPerRequest => Measure::Mean,
            Self::LatencyP50 => Measure::Duration { quantile: 0.5 },
            Self::LatencyP95 | Self::TimeToFirstToken => Measure::Duration { quantile: 0.95 },
            Self::LatencyP99 => Measure::Duration { quantile: 0.99 },
        }
    }

    /// More is better.
    pub fn higher_is_better(self) -> bool {
        self == Self::GoalCompletion
    }

    /// Its events are failed requests: a candidate that fails flat out is seen by it.
    pub fn is_failures(self) -> bool {
        self == Self::ErrorRate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_files() {
        for preset in Preset::ALL {
            assert_eq!(serde_json::to_value(preset).expect("a name"), preset.as_str());
        }
    }
}
