//! A rollout in lines, and in one sentence.

use super::metric::thousands;
use super::{Count, MetricShown, Shown, SideShown, Word};
use crate::cli::output::{Paint, ago};
use crate::cli::screen::{Line, width, wrapped};
use crate::model::Timestamp;

/// Columns before what a key says.
const KEY: usize = 14;
/// Longest name of a metric that is shown whole.
const LONGEST_NAME: usize = 18;
/// Spaces between columns.
const GAP: usize = 2;
/// Columns of a sparkline: the least that says something, and the most that is of use.
const SPARKS: std::ops::RangeInclusive<usize> = 6..=20;

/// How wide lines may be, and what is drawn beside a metric.
pub(in crate::cli) struct Wide<'w> {
    /// Nothing: as long as they are.
    pub(in crate::cli) columns: Option<usize>,
    /// The figures of a metric that were seen, in so many columns.
    pub(in crate::cli) sparks: &'w dyn Fn(&str, usize) -> String,
}

/// The block of a rollout.
pub(in crate::cli) fn lines(shown: &Shown, now: Timestamp, wide: &Wide<'_>) -> Vec<Line> {
    let mut lines = vec![];
    let mut pair = |key: &str, paint: Option<Paint>, value: &str| {
        let value = match wide.columns {
            Some(columns) => wrapped(value, columns.saturating_sub(KEY).max(20)),
            None => vec![value.to_owned()],
        };
        for (n, part) in value.into_iter().enumerate() {
            let mut line = Line::from(format!("  {:<12}", if n == 0 { key } else { "" }));
            line.push(paint, part);
            lines.push(line);
        }
    };
    pair("rollout", None, &head(shown, now));
    if !shown.steps.is_empty() {
        pair("steps", None, &steps(shown));
    }
    if let Some(segment) = &shown.segment {
        pair("segment", None, segment);
    }
    if let Some(reason) = &shown.reason {
        pair("because", Some(Paint::Bad), reason);
    }
    if let Some(then) = &shown.then {
        pair("then", None, then);
    }
    // A clock is told by the time that is left.
    if let Some(waiting_for) = shown.waiting_for.as_ref().filter(|_| !shown.by_clock) {
        pair("waiting", None, &format!("for {waiting_for}"));
    }
    if let Some(approvals) = &shown.approvals {
        let by = if approvals.by.is_empty() { "nobody yet".to_owned() } else { approvals.by.join(", ") };
        pair("approvals", None, &format!("{} of {}: {by}", approvals.by.len(), approvals.needed));
    }
    if let Some(next) = &shown.next {
        pair("next", None, &format!("{next}, when this rollout has ended"));
    }
    // What sent it back stands above.
    if let Some(said) = shown.judge.as_ref().filter(|said| shown.reason.as_ref() != Some(&said.sentence)) {
        let at = said.at.map_or_else(String::new, |at| format!(" {} ago", ago(now, at)));
        pair("judge", None, &format!("{}{at}: {}", said.verdict, said.sentence));
    }
    if let Some(requests) = &shown.requests {
        let needed = requests.needed.map_or_else(String::new, |needed| format!(" of {}", thousands(needed)));
        pair(
            "requests",
            None,
            &format!(
                "{} of the candidate ({}{needed} in this step), {} of stable",
                thousands(requests.candidate),
                thousands(requests.in_step),
                thousands(requests.stable),
            ),
        );
    }
    for metric in &shown.metrics {
        if let Some(why) = &metric.no_data {
            pair("no data", Some(Paint::Doubtful), &format!("{}: {why}", metric.name));
        }
    }
    lines.extend(sides(shown));
    if !shown.metrics.is_empty() {
        lines.extend(metrics(&shown.metrics, wide));
    }
    lines
}

/// The strategy, where it is, since when, and how long it still takes.
fn head(shown: &Shown, now: Timestamp) -> String {
    let place = match &shown.step {
        Some(step) if shown.since.is_some() => format!("step {} of {}", step.number, step.of),
        Some(step) => format!("step {} of {}, not in force yet", step.number, step.of),
        None => shown.told.to_owned(),
    };
    let mut head = format!("{}: {place}", shown.strategy);
    if let Some(since) = shown.since {
        head += &format!(" since {}", ago(now, since));
    }
    let left = |until: Timestamp| ago(until, now);
    match (shown.until, shown.earliest, shown.deadline) {
        (Some(until), _, _) => head += &format!(", {} left", left(until)),
        (None, Some(earliest), _) if earliest > now => head += &format!(", at least {} left", left(earliest)),
        (None, _, Some(deadline)) if deadline > now => head += &format!(", to be decided within {}", left(deadline)),
        (None, _, Some(deadline)) => head += &format!(", undecided {} after its deadline", ago(now, deadline)),
        (None, _, None) => {}
    }
    head
}

fn steps(shown: &Shown) -> String {
    let at = shown.step.as_ref().map(|step| step.number);
    let steps = shown.steps.iter().enumerate().map(
        |(n, step)| {
            if at == Some(n + 1) { format!("[{step}]") } else { step.clone() }
        },
    );
    let mut steps: Vec<String> = steps.collect();
    let all = match shown.phase {
        "promoting" | "baking" | "keeping" | "done" => "[100 %]",
        _ => "100 %",
    };
    steps.push(all.to_owned());
    steps.join(" > ")
}

/// Where it is, what it waits for and what the judge says, in one line without ages: equal lines are no change.
pub(in crate::cli) fn sentence(shown: &Shown) -> String {
    let mut told = format!("{}: ", shown.strategy);
    told += &match &shown.step {
        Some(step) => format!("step {} of {}", step.number, step.of),
        None => shown.told.to_owned(),
    };
    if let Some(weight) = shown.candidate().and_then(|side| side.weight) {
        told += &format!(", candidate {weight} %");
    }
    if let Some(waiting_for) = shown.waiting_for.as_ref().filter(|_| !shown.by_clock) {
        told += &format!(", waiting for {waiting_for}");
    }
    let words: Vec<_> =
        shown.metrics.iter().map(|metric| format!("{} {}", metric.name, metric.verdict.told())).collect();
    if !words.is_empty() {
        told += &format!("; {}", words.join(", "));
    }
    match &shown.reason {
        Some(reason) => told + &format!("; because: {reason}"),
        None => told,
    }
}

impl Shown {
    fn candidate(&self) -> Option<&SideShown> {
        self.sides.iter().find(|side| side.side == "candidate")
    }

    fn name_of(&self, side: &SideShown) -> String {
        match (side.active, self.strategy) {
            (Some(true), _) => "active".to_owned(),
            (Some(false), _) => "standby".to_owned(),
            (None, "abTest") if side.side == "stable" => "A, stable".to_owned(),
            (None, "abTest") => "B, candidate".to_owned(),
            (None, _) => side.side.to_owned(),
        }
    }
}

/// Both sides as a table.
fn sides(shown: &Shown) -> Vec<Line> {
    let head = if shown.strategy == "abTest" { "ARM" } else { "SIDE" };
    let mut rows = vec![[head, "RELEASE", "TRAFFIC", "READY", "HEALTH"].map(str::to_owned).to_vec()];
    let with_workers = shown.sides.iter().any(|side| !side.workers.is_empty());
    for side in &shown.sides {
        let mut row = vec![
            shown.name_of(side),
            side.release.clone(),
            traffic(shown, side),
            count(side.instances),
            side.health.to_owned(),
        ];
        if with_workers {
            let workers = side.workers.iter().map(|(name, of)| format!("{name} {}", count(*of)));
            row.push(workers.collect::<Vec<_>>().join(", "));
        }
        rows.push(row);
    }
    if let (true, Some(head)) = (with_workers, rows.first_mut()) {
        head.push("WORKERS".to_owned());
    }
    let painted = |row: usize, column: usize| {
        let side = row.checked_sub(1).and_then(|row| shown.sides.get(row)).filter(|_| column == 4)?;
        match side.health {
            "ready" => Some(Paint::Good),
            "not ready" => Some(Paint::Bad),
            "not all ready" => Some(Paint::Doubtful),
            _ => None,
        }
    };
    table(&rows, painted)
}

/// What is in force, and what is asked for where that is something else.
fn traffic(shown: &Shown, side: &SideShown) -> String {
    match (side.weight, side.in_force) {
        (Some(asked), Some(force)) if asked != force => format!("{force} % -> {asked} %"),
        (Some(asked), _) => format!("{asked} %"),
        (None, _) if shown.segment.is_some() && shown.phase == "experiment" => {
            if side.side == "candidate" { "segment" } else { "the rest" }.to_owned()
        }
        (None, _) => "-".to_owned(),
    }
}

fn count(count: Count) -> String {
    match count.ready {
        Some(ready) if ready > count.wanted => format!("{ready} -> {}", count.wanted),
        Some(ready) => format!("{ready} of {}", count.wanted),
        None => format!("? of {}", count.wanted),
    }
}

/// All metrics as a table; where there is no room for sparklines, stable's intervals give way, and then the limits.
fn metrics(metrics: &[MetricShown], wide: &Wide<'_>) -> Vec<Line> {
    let cells = |intervals: bool, limits: bool| {
        let is_experiment = metrics.iter().any(|metric| metric.effect.is_some());
        // Nothing has a limit there, and what is looked for is the difference.
        let last = if is_experiment { "EFFECT" } else { "LIMIT" };
        let head = ["METRIC", "VERDICT", "CANDIDATE", "STABLE", last];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(metrics.iter().map(|metric| {
            vec![
                short(&metric.name),
                metric.verdict.told().to_owned(),
                metric.candidate_cell(),
                metric.stable_cell(intervals),
                metric.effect_cell().unwrap_or_else(|| metric.limit_cell()),
            ]
        }));
        if !limits {
            rows.iter_mut().for_each(|row| row.truncate(head.len() - 1));
        }
        rows
    };
    let painted = |row: usize, column: usize| {
        let metric = row.checked_sub(1).and_then(|row| metrics.get(row)).filter(|_| column == 1)?;
        Some(match metric.verdict {
            Word::Harm | Word::Worse => Paint::Bad,
            Word::Undecided | Word::NoData | Word::BothOver => Paint::Doubtful,
            Word::NoHarm | Word::Better | Word::Watched => Paint::Good,
        })
    };
    let Some(columns) = wide.columns else { return table(&cells(true, true), painted) };
    let room =
        |rows: &[Vec<String>]| columns.saturating_sub(widths(rows).iter().map(|width| width + GAP).sum::<usize>() + 4);
    let fits = |rows: &Vec<Vec<String>>| room(rows) >= *SPARKS.start();
    let all = [(true, true), (false, true), (false, false)].map(|(intervals, limits)| cells(intervals, limits));
    let mut rows = all.iter().find(|rows| fits(rows)).unwrap_or(&all[1]).clone();
    let sparks = room(&rows).min(*SPARKS.end());
    if sparks >= *SPARKS.start() {
        for (row, metric) in rows.iter_mut().skip(1).zip(metrics) {
            row.push((wide.sparks)(&metric.name, sparks));
        }
    }
    table(&rows, painted)
}

fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| width(cell));
    (0..columns).map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect()
}

/// Columns with the head first, a step to the right of the keys.
fn table(rows: &[Vec<String>], paint: impl Fn(usize, usize) -> Option<Paint>) -> Vec<Line> {
    let widths = widths(rows);
    let lines = rows.iter().enumerate().map(|(n, row)| {
        let mut line = Line::from("    ");
        let last = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
        for (column, cell) in row.iter().enumerate().take(last + 1) {
            let quiet = (n == 0).then_some(Paint::Quiet);
            line.push(quiet.or_else(|| paint(n, column)), cell.clone());
            if column < last {
                line.push(None, " ".repeat(widths[column] - width(cell) + GAP));
            }
        }
        line
    });
    lines.collect()
}
