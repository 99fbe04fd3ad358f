//! What was measured, as a table and as JSON.

use std::path::Path;

use serde_json::{Value, json};

use super::cost::Cost;
use super::counted::{Counted, Tally};

/// One row: a case, or one number of it.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) case: String,
    /// What was measured, with its unit.
    pub(crate) measured: String,
    /// The same as a number: seconds, or bytes.
    pub(crate) value: f64,
    /// What it is measured against, in words and as a number.
    pub(crate) limit: String,
    /// Measured divided by the limit, where there is one in the same run.
    pub(crate) ratio: Option<f64>,
    /// Whether it reaches what it must.
    pub(crate) reached: bool,
    pub(crate) requests: Option<Counted>,
    pub(crate) cost: Option<Cost>,
}

// === impl Row ===

impl Row {
    /// Where its time went: at the API server, and in the daemon.
    fn spent(&self, requests: &Counted) -> String {
        let served = requests.seconds();
        let cpu = self.cost.map(|cost| format!(", {:.2} s of CPU in the daemon", cost.cpu)).unwrap_or_default();
        format!("the API server worked {served:.2} s on its requests, one beside the other{cpu}")
    }
}

/// All rows.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

// === impl Table ===

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        // Said at once too: a long run is watched.
        eprintln!("{}: {} (limit: {}){}", row.case, row.measured, row.limit, if row.reached { "" } else { " MISSED" });
        self.rows.push(row);
    }

    /// Something beside the cases.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// Prints the table, and writes it as JSON where a file is named.
    pub(crate) fn show(&self, file: Option<&Path>) {
        println!("{}", self.text());
        if let Some(file) = file {
            std::fs::write(file, self.json().to_string()).expect("the file can be written");
        }
    }

    /// The table as people read it.
    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["case", "measured", "limit", "ratio", "requests", "CPU s", "peak MB", "reached"]);
        for row in &self.rows {
            let requests = row.requests.as_ref();
            table.add_row([
                row.case.clone(),
                row.measured.clone(),
                row.limit.clone(),
                row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                requests.map(|all| format!("{} ({} writes)", all.all(), all.writes())).unwrap_or_default(),
                row.cost.map(|cost| format!("{:.2}", cost.cpu)).unwrap_or_default(),
                row.cost.map(|cost| megabytes(cost.peak)).unwrap_or_default(),
                if row.reached { "yes" } else { "no" }.to_owned(),
            ]);
        }
        let mut text = format!("{table}\n");
        for row in &self.rows {
            let Some(requests) = &row.requests else { continue };
            text.push_str(&format!("\n{}: {}\n", row.case, row.spent(requests)));
            for (what, tally) in &requests.0 {
                let each = tally.seconds * 1e3 / tally.count.max(1) as f64;
                let Tally { count, seconds } = tally;
                text.push_str(&format!("{count:>8} {what:40} {seconds:>8.2} s of the API server, {each:.1} ms each\n"));
            }
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    /// The same as JSON.
    fn json(&self) -> Value {
        let counts = |requests: &Counted| {
            requests.0.iter().map(|(what, tally)| (what.clone(), json!(tally.count))).collect::<serde_json::Map<_, _>>()
        };
        let row = |row: &Row| {
            json!({
                "case": row.case, "measured": row.measured, "value": row.value, "limit": row.limit, "ratio": row.ratio,
                "reached": row.reached, "requests": row.requests.as_ref().map(counts), "serverSeconds": row.requests.as_ref().map(Counted::seconds),
                "cpuSeconds": row.cost.map(|cost| cost.cpu), "peakBytes": row.cost.map(|cost| cost.peak),
                "residentBytes": row.cost.map(|cost| cost.resident),
            })
        };
        json!({"rows": self.rows.iter().map(row).collect::<Vec<_>>(), "notes": self.notes})
    }
}

/// Bytes as megabytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
