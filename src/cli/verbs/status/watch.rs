//! `backstay status --watch AGENT`: what is rolled out, as it happens, until it has ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cli::client::Place;
use crate::cli::output::ago;
use crate::cli::screen::{Line, Screen, Size, sparkline, wrapped};
use crate::cli::view::rollout::{self, Shown, Wide};
use crate::cli::{CliError, Exit, Format, Out, wait};
use crate::model::{AgentName, Timestamp};
use crate::record::{AgentRecord, Operation, OperationId, OperationKind, Outcome};
use crate::rollout::{Phase, Rollout};

/// Time between two looks at the ledger.
const PACE: Duration = Duration::from_millis(500);
/// How long the ledger may be away: a daemon that starts anew, an API server that is upgraded.
const AWAY: Duration = Duration::from_mins(1);
/// Figures of a metric that are remembered.
const MOST_POINTS: usize = 64;

/// What is looked at, how it ended, and what was seen meanwhile.
struct Watch<'w> {
    place: &'w Place,
    agent: &'w AgentName,
    operation: OperationId,
    points: BTreeMap<String, Points>,
    screen: Screen,
    /// What was said last, to a pipe.
    said: Option<String>,
    /// Since when the ledger does not answer.
    unheard: Option<Timestamp>,
}

/// The figures of one metric that were seen.
#[derive(Debug, Default)]
struct Points {
    seen: VecDeque<Option<f64>>,
    /// When the last one was measured: looked at twice, it counts once.
    measured: Option<Timestamp>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct End {
    /// The candidate is stable now.
    promoted: bool,
    /// In one sentence.
    message: String,
}

/// One change, as `-o json` prints it: one line each.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change<'c> {
    at: Timestamp,
    #[serde(flatten)]
    now: &'c Now<'c>,
}

/// What is so now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Now<'n> {
    agent: &'n AgentName,
    environment: &'n str,
    operation: OperationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<&'n Shown>,
    /// Why the rollout cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'n str>,
    /// What the operation waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'n End>,
}

/// Shows what is on its way until it has ended.
pub(super) async fn run(place: &Place, agent: &AgentName, out: &mut Out) -> Result<Exit, CliError> {
    let mut record = place.agent(agent).await?.record;
    let Some(operation) = on_its_way(&record) else {
        let message = format!("nothing is rolling out of `{agent}` in `{}`", place.environment);
        return Err(CliError::new(Exit::Refused, message)
            .hint(format!("`backstay status {agent}` shows what runs, `backstay history {agent}` what was done")));
    };
    let (points, screen) = (BTreeMap::new(), Screen::default());
    let mut watch = Watch { place, agent, operation, points, screen, said: None, unheard: None };
    let mut last_seen = Instant::now();
    loop {
        let now = Timestamp::now();
        let shown = rollout::shown(&record, now);
        let end = ended(&record, operation);
        let shown = shown.as_ref();
        watch.remember(shown);
        watch.tell(&record, shown, end.as_ref(), now, out)?;
        if let Some(end) = end {
            return Ok(if end.promoted { Exit::Done } else { Exit::No });
        }
        sleep(PACE).await;
        match place.agent(agent).await {
            Ok(seen) => {
                record = seen.record;
                last_seen = Instant::now();
                watch.unheard = None;
            }
            // What was seen last stays on the screen meanwhile.
            Err(error) if error.exit() == Exit::Broken && last_seen.elapsed() < AWAY => {
                watch.unheard.get_or_insert_with(Timestamp::now);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The operation that moves the agent to another release; nothing: none does.
fn on_its_way(record: &AgentRecord) -> Option<OperationId> {
    let open = record.operation.as_ref().filter(|operation| operation.kind == OperationKind::Release);
    match record.rollout.as_ref().map(Rollout::read) {
        Some(Ok(rollout)) if rollout.is_over() => None,
        Some(Ok(rollout)) => Some(rollout.operation()),
        Some(Err(_)) | None => open.map(|operation| operation.id),
    }
}

/// How `operation` ended; nothing: it has not.
fn ended(record: &AgentRecord, operation: OperationId) -> Option<End> {
    let not = |message: String| Some(End { promoted: false, message });
    let rollout = record.rollout.as_ref().and_then(|saved| Rollout::read(saved).ok());
    if let Some(rollout) = rollout.filter(|rollout| rollout.operation() == operation) {
        if let Phase::Aborted { reason, .. } = rollout.phase() {
            return not(format!("{} went back to {}: {reason}", rollout.candidate(), rollout.stable()));
        }
        if let Phase::Done { .. } = rollout.phase() {
            return Some(End { promoted: true, message: format!("{} is promoted", rollout.candidate()) });
        }
        return None;
    }
    if record.operation.as_ref().is_some_and(|open| open.id == operation) {
        return None;
    }
    match record.operations.iter().find(|finished| finished.id == operation) {
        Some(finished) => Some(End::of(finished)),
        None => not("its operation is not in the ledger any more: `backstay history` tells what was done".to_owned()),
    }
}

// === impl Watch ===

impl Watch<'_> {
    fn remember(&mut self, shown: Option<&Result<Shown, String>>) {
        let Some(Ok(shown)) = shown else { return };
        for metric in &shown.metrics {
            self.points.entry(metric.name.clone()).or_default().see(metric.measured, metric.point());
        }
    }

    fn tell(
        &mut self,
        record: &AgentRecord,
        shown: Option<&Result<Shown, String>>,
        end: Option<&End>,
        now: Timestamp,
        out: &mut Out,
    ) -> Result<(), CliError> {
        let waiting = if shown.is_some() { None } else { wait::waiting_for(record) };
        if out.format == Format::Json {
            let now_so = Now {
                agent: self.agent,
                environment: self.place.environment.as_str(),
                operation: self.operation,
                rollout: shown.and_then(|shown| shown.as_ref().ok()),
                unreadable: shown.and_then(|shown| shown.as_ref().err()).map(String::as_str),
                waiting,
                ended: end,
            };
            let said = serde_json::to_string(&now_so).map_err(std::io::Error::from)?;
            if self.is_news(said) {
                out.json_line(&Change { at: now, now: &now_so })?;
            }
            return Ok(());
        }
        if let Some(size) = Out::size() {
            let lines = self.frame(record, shown, waiting.as_deref(), end, size, now);
            return out.draw(&mut self.screen, &lines, size);
        }
        let said = match (end, shown) {
            (Some(end), _) => end.message.clone(),
            (None, Some(Ok(shown))) => rollout::sentence(shown),
            (None, Some(Err(why))) => why.clone(),
            (None, None) => waiting.unwrap_or_else(|| "on its way".to_owned()),
        };
        if self.is_news(said.clone()) {
            out.line(format!("{} {said}", now.strftime("%H:%M:%SZ")))?;
            out.flush()?;
        }
        Ok(())
    }

    fn is_news(&mut self, said: String) -> bool {
        let is_news = self.said.as_ref() != Some(&said);
        self.said = Some(said);
        is_news
    }

    fn frame(
        &self,
        record: &AgentRecord,
        shown: Option<&Result<Shown, String>>,
        waiting: Option<&str>,
        end: Option<&End>,
        size: Size,
        now: Timestamp,
    ) -> Vec<Line> {
        let clock = now.strftime("%H:%M:%SZ");
        let mut lines = vec![Line::from(format!("{}  in {}  {clock}", self.agent, self.place.environment))];
        let indented = |text: &str| {
            let parts = wrapped(text, size.width().saturating_sub(2).max(1));
            parts.into_iter().map(|part| Line::from(format!("  {part}"))).collect::<Vec<_>>()
        };
        match shown {
            Some(Ok(shown)) => {
                let sparks = |name: &str, columns: usize| {
                    let points = self.points.get(name).map(|points| sparkline(points.seen.iter().copied(), columns));
                    points.unwrap_or_default()
                };
                let wide = Wide { columns: Some(size.width()), sparks: &sparks };
                lines.extend(rollout::lines(shown, now, &wide));
            }
            Some(Err(why)) => lines.extend(indented(why)),
            None => {
                if let Some(Operation { from, to, .. }) = record.operation.as_ref() {
                    let from = from.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
                    let to = to.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
                    lines.push(format!("  {from} -> {to}").into());
                }
                lines.extend(waiting.into_iter().flat_map(indented));
            }
        }
        if let Some(unheard) = self.unheard {
            lines.push(format!("  (the ledger has not answered for {})", ago(now, unheard)).into());
        }
        if let Some(end) = end {
            lines.push(Line::default());
            lines.extend(wrapped(&end.message, size.width()).into_iter().map(Line::from));
        }
        lines
    }
}

// === impl Points ===

impl Points {
    fn see(&mut self, measured: Option<Timestamp>, point: Option<f64>) {
        if self.measured == measured && !self.seen.is_empty() {
            return;
        }
        self.measured = measured;
        self.seen.push_back(point);
        if self.seen.len() > MOST_POINTS {
            self.seen.pop_front();
        }
    }
}

// === impl End ===

impl End {
    fn of(finished: &Operation) -> Self {
        let to = finished.to.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let from = finished.from.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        match &finished.outcome {
            Some(Outcome::Succeeded) => Self { promoted: true, message: format!("{to} is promoted") },
            Some(Outcome::Failed(why)) => Self { promoted: false, message: format!("{to} went back to {from}: {why}") },
            Some(Outcome::Superseded) | None => {
                Self { promoted: false, message: format!("another operation took the place of {to}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::rollout::samples;

    fn end(record: &AgentRecord) -> Option<End> {
        ended(record, OperationId(7))
    }

    fn finished(outcome: Outcome) -> AgentRecord {
        let mut record = AgentRecord { operation: Some(samples::operation()), ..AgentRecord::default() };
        record.finish(outcome, samples::now());
        record
    }

    #[test]
    fn a_rollout_is_watched_from_its_operation_to_its_end() {
        let canary = samples::canary();
        assert_eq!(on_its_way(&canary), Some(OperationId(7)));
        assert_eq!(end(&canary), None);
        for record in [samples::aborting(), samples::baking(), samples::waiting_for_approval()] {
            assert_eq!(end(&record), None);
        }
        assert_eq!(on_its_way(&samples::newer()), Some(OperationId(7)), "it has an open operation");
        let back = end(&samples::aborted()).expect("it is over");
        assert!(!back.promoted && back.message.contains(" went back to "), "{back:?}");
        assert!(end(&samples::done()).is_some_and(|end| end.promoted));
        assert_eq!(on_its_way(&samples::done()), None);
        assert_eq!(on_its_way(&AgentRecord::default()), None);
    }

    #[test]
    fn an_operation_says_how_a_rollout_ended_that_is_gone() {
        assert!(end(&finished(Outcome::Succeeded)).is_some_and(|end| end.promoted));
        let failed = end(&finished(Outcome::Failed("errors: worse".to_owned()))).expect("it is over");
        assert!(!failed.promoted && failed.message.ends_with("errors: worse"), "{failed:?}");
        assert!(end(&finished(Outcome::Superseded)).is_some_and(|end| !end.promoted));
        assert!(end(&AgentRecord::default()).is_some_and(|end| !end.promoted));
        let open = AgentRecord { operation: Some(samples::operation()), ..AgentRecord::default() };
        assert_eq!((on_its_way(&open), end(&open)), (Some(OperationId(7)), None), "the target replaces them by itself");
    }

    #[test]
    fn a_figure_that_was_looked_at_twice_counts_once() {
        let mut points = Points::default();
        let mut add = |second: i64, value: f64| {
            points.see(Timestamp::from_second(second).ok(), Some(value));
            points.seen.len()
        };
        assert_eq!([add(1, 0.1), add(1, 0.1), add(2, 0.2)], [1, 1, 2]);
        assert_eq!((3..200).map(|second| add(second, 0.3)).max(), Some(MOST_POINTS));
    }
}
