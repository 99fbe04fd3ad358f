//! The presets in the words of Prometheus: which series each of them is made of (the table is in the room's own docs).

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Exposition, Sample};
use super::told::{because, counted, latency};
use crate::desired::rollout::Preset;
use crate::judge::{NoData, Totals};

/// Requests that an agent answers, in seconds.
pub(super) const HTTP: &str = "http_server_request_duration_seconds";
/// The time until the first token, in seconds, by either name of the conventions.
pub(super) const FIRST_TOKEN: [&str; 2] =
    ["gen_ai_server_time_to_first_token_seconds", "gen_ai_client_operation_time_to_first_chunk_seconds"];
/// Tokens of the operations of models.
pub(super) const TOKENS: &str = "gen_ai_client_token_usage";
/// Operations of models, in seconds.
pub(super) const OPERATIONS: &str = "gen_ai_client_operation_duration_seconds";
/// Calls of tools, in seconds.
pub(super) const TOOLS: &str = "gen_ai_execute_tool_duration_seconds";
/// Requests as the agent itself counts them.
pub(super) const REQUESTS: &str = "backstay_agent_requests_total";
/// Requests with an injection.
pub(super) const INJECTIONS: &str = "backstay_agent_injections_total";
/// Conversations, by how they ended.
pub(super) const GOALS: &str = "backstay_agent_goals_total";
/// Operations that another model answered.
pub(super) const FALLBACKS: &str = "backstay_agent_fallback_calls_total";
/// The outcome of a conversation that reached its goal.
pub(super) const REACHED: &str = "completed";

/// What is known of one release beside its figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Paths that only probes and scrapes ask for.
    pub(super) probes: &'a BTreeSet<String>,
    /// The tools that it declares.
    pub(super) tools: &'a BTreeSet<String>,
}

/// The totals of one process; nothing where it has not counted any yet.
///
/// # Errors
///
/// What it says does not add up, or it counts what was done but not what is asked for.
pub(super) fn totals(preset: Preset, told: &Exposition<'_>, known: Known<'_>) -> Result<Option<Totals>, NoData> {
    let http = |sample: &&Sample<'_>| !sample.label("http_route").is_some_and(|route| known.probes.contains(route));
    match preset {
        Preset::ErrorRate => {
            let name = count_of(HTTP);
            let samples: Vec<_> = told.named(&name).filter(http).collect();
            if samples.iter().any(|one| status(one).is_none() && one.label("error_type").is_none()) {
                let why = format!("`{HTTP}` has no label `http_response_status_code`");
                return if sum(samples)? > 0.0 { Err(because(why)) } else { Ok(None) };
            }
            let failed = |one: &&&Sample<'_>| status(one).is_none_or(|status| status.starts_with('5'));
            binary(sum(samples.iter().copied())?, sum(samples.iter().filter(failed).copied())?, !samples.is_empty())
        }
        Preset::LatencyP50 | Preset::LatencyP95 | Preset::LatencyP99 => histogram(told, HTTP, http),
        Preset::TimeToFirstToken => {
            let name = FIRST_TOKEN.into_iter().find(|name| told.has(name)).unwrap_or(FIRST_TOKEN[0]);
            histogram(told, name, |_| true)
        }
        Preset::TokensPerRequest => {
            let (count, total) = (count_of(TOKENS), format!("{TOKENS}_sum"));
            let operations = || told.named(&count).filter(|one| one.label("gen_ai_token_type") == Some("input"));
            let n = if told.has(REQUESTS) { sum(told.named(REQUESTS))? } else { sum(operations())? };
            let tokens = sum(told.named(&total))?;
            if n == 0.0 {
                return Ok(None);
            }
            if told.named(&total).next().is_none() {
                return Err(lacks(TOKENS));
            }
            Ok(Some(Totals::Mean { n, sum: tokens, squares: None }))
        }
        Preset::ToolErrors => {
            let name = count_of(TOOLS);
            let failed = told.named(&name).filter(|one| one.label("error_type").is_some());
            binary(sum(told.named(&name))?, sum(failed)?, told.has(TOOLS))
        }
        Preset::UnexpectedToolUse => {
            let name = count_of(TOOLS);
            let tool = |one: &Sample<'_>| one.label("gen_ai_tool_name").map(|tool| known.tools.contains(tool));
            let named = told.named(&name).filter(|one| tool(one).is_some());
            let (n, x) = (sum(named)?, sum(told.named(&name).filter(|one| tool(one) == Some(false)))?);
            if n == 0.0 && sum(told.named(&name))? > 0.0 {
                return Err(because(format!("`{TOOLS}` has no label `gen_ai_tool_name`")));
            }
            binary(n, x, told.has(TOOLS))
        }
        Preset::PromptInjections => {
            let name = count_of(HTTP);
            let n = if told.has(REQUESTS) { sum(told.named(REQUESTS))? } else { sum(told.named(&name).filter(http))? };
            among(told, n, told.has(REQUESTS) || told.has(HTTP), INJECTIONS)
        }
        Preset::FallbackCalls => {
            let name = count_of(OPERATIONS);
            among(told, sum(told.named(&name))?, told.has(OPERATIONS), FALLBACKS)
        }
        Preset::GoalCompletion => {
            let reached = told.named(GOALS).filter(|one| one.label("outcome") == Some(REACHED));
            binary(sum(told.named(GOALS))?, sum(reached)?, told.has(GOALS))
        }
    }
}

/// The series that a preset cannot do without, for whoever looks for them.
pub(super) fn wanted(preset: Preset) -> &'static str {
    match preset {
        Preset::ErrorRate | Preset::LatencyP50 | Preset::LatencyP95 | Preset::LatencyP99 => HTTP,
        Preset::TimeToFirstToken => FIRST_TOKEN[0],
        Preset::TokensPerRequest => TOKENS,
        Preset::ToolErrors | Preset::UnexpectedToolUse => TOOLS,
        Preset::PromptInjections => INJECTIONS,
        Preset::GoalCompletion => GOALS,
        Preset::FallbackCalls => FALLBACKS,
    }
}

pub(super) fn lacks(name: &str) -> NoData {
    because(format!("the agent does not export `{name}`"))
}

fn count_of(name: &str) -> String {
    format!("{name}_count")
}

fn status<'s>(sample: &'s Sample<'_>) -> Option<&'s str> {
    sample.label("http_response_status_code")
}

/// Events that are counted apart from what they are a part of: a process that stopped counting them is not a good one.
fn among(told: &Exposition<'_>, n: f64, is_counted: bool, events: &str) -> Result<Option<Totals>, NoData> {
    if n > 0.0 && !told.has(events) {
        return Err(lacks(events));
    }
    binary(n, sum(told.named(events))?, is_counted)
}

#[expect(clippy::unnecessary_wraps, reason = "as its callers answer")]
fn binary(n: f64, x: f64, is_counted: bool) -> Result<Option<Totals>, NoData> {
    Ok(is_counted.then_some(Totals::Binary { n, x }))
}

pub(super) fn sum<'s, 'a: 's>(samples: impl IntoIterator<Item = &'s Sample<'a>>) -> Result<f64, NoData> {
    let mut total = 0.0;
    for sample in samples {
        total += counted(sample.value)?;
    }
    counted(total)
}

fn histogram<'s, 'a: 's>(
    told: &'s Exposition<'a>,
    name: &str,
    keep: impl Fn(&&'s Sample<'a>) -> bool,
) -> Result<Option<Totals>, NoData> {
    let bucket = format!("{name}_bucket");
    // By the bound: how many series have it, and what they count.
    let mut bounds: BTreeMap<u64, (f64, usize, f64)> = BTreeMap::new();
    let samples: Vec<_> = told.samples.iter().filter(|sample| sample.name == bucket).filter(keep).collect();
    for sample in samples {
        let bound = sample.label("le").and_then(|bound| super::exposition::number(bound).ok());
        let bound = bound.filter(|bound| !bound.is_nan()).ok_or(NoData::Boundaries)?;
        let entry = bounds.entry(bound.to_bits()).or_insert((bound, 0, 0.0));
        entry.1 += 1;
        entry.2 += counted(sample.value)?;
    }
    let Some(series) = bounds.values().next().map(|bound| bound.1) else {
        return if told.named(&count_of(name)).any(|one| one.value > 0.0) {
            Err(because(format!("`{name}` has no buckets")))
        } else {
            Ok(None)
        };
    };
    if bounds.values().any(|bound| bound.1 != series) {
        return Err(NoData::Boundaries);
    }
    latency(bounds.into_values().map(|(bound, _, count)| (bound, count)).collect()).map(Some)
}
