//! The one writer: data to standard output, talk to standard error, both without what a terminal would obey.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::CliError;
use super::screen::{Line, Screen, Size};
use crate::model::{Diagnostic, Diagnostics, Severity, Timestamp};

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For a pull request: `plan --from REV --to REV` alone
    Markdown,
}

/// Whether words are coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Never
    Never,
    /// Always
    Always,
}

/// A colour with a meaning; every word is legible without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Bad,
    Doubtful,
    Good,
    Quiet,
}

/// Where a command writes.
pub struct Out {
    data: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    /// How data is printed.
    pub(super) format: Format,
    data_color: bool,
    talk_color: bool,
    terminal: bool,
}

/// Something that takes a while: shown on a terminal, after a second.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: std::time::Instant,
    shown: bool,
    terminal: bool,
}

/// Longest line of a file that is drawn.
const MAX_LINE: usize = 160;
/// Time after which progress is shown.
const QUIET: Duration = Duration::from_secs(1);

// === impl Out ===

impl Out {
    /// Writes to this process's standard output and standard error.
    pub fn standard(format: Format, color: Color) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colored = |terminal: bool| match color {
            Color::Auto => terminal && allowed,
            Color::Never => false,
            Color::Always => true,
        };
        let (data, talk) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            data: Box::new(io::stdout()),
            talk: Box::new(io::stderr()),
            format,
            data_color: colored(data),
            talk_color: colored(talk),
            terminal: talk,
        }
    }

    /// Writes data.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.data, "{}", clean(&text.to_string()))?;
        Ok(())
    }

    /// Writes data as it is: what a program reads.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.data.write_all(bytes)?;
        self.data.flush()?;
        Ok(())
    }

    /// How large the terminal is that data goes to; nothing: it goes elsewhere, or cannot be drawn over.
    pub(super) fn size() -> Option<Size> {
        const USUAL: Size = Size { columns: 80, rows: 24 };
        let able = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        if !able || !io::stdout().is_terminal() {
            return None;
        }
        let told = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let told = told.map(|told| Size { columns: told.ws_col.into(), rows: told.ws_row.into() });
        Some(told.filter(|size| size.columns > 0 && size.rows > 0).unwrap_or(USUAL))
    }

    /// Draws a frame in the place of the one before it.
    pub(super) fn draw(&mut self, screen: &mut Screen, lines: &[Line], size: Size) -> Result<(), CliError> {
        let frame = screen.frame(lines, size, self.data_color);
        self.raw(frame.as_bytes())
    }

    /// Writes data as JSON, in one line, at once.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let mut bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
        bytes.push(b'\n');
        self.raw(&bytes)
    }

    /// Writes data as JSON, indented.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer_pretty(&mut self.data, value).map_err(io::Error::from)?;
        self.data.write_all(b"\n")?;
        Ok(())
    }

    /// Writes columns; empty without rows.
    pub(super) fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
        for row in rows {
            table.add_row(row.iter().map(|cell| clean(cell).replace('\n', " ")).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            writeln!(self.data, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Says something beside the data. Nobody listening is no error.
    pub(super) fn say(&mut self, text: impl Display) {
        let _ = writeln!(self.talk, "{}", clean(&text.to_string()));
    }

    pub(super) fn hint(&mut self, text: impl Display) {
        let label = painted(self.talk_color, Paint::Good, "hint");
        let _ = writeln!(self.talk, "{label}: {}", clean(&text.to_string()));
    }

    /// Says why a command did not end well.
    pub(super) fn error(&mut self, error: &CliError) {
        if error.is_closed_pipe() {
            return;
        }
        if let Some(diagnostics) = error.diagnostics() {
            let drawn = draw_all(diagnostics, self.talk_color);
            let _ = writeln!(self.talk, "{drawn}");
        }
        let label = painted(self.talk_color, Paint::Bad, "error");
        let _ = writeln!(self.talk, "{label}: {}", clean(&error.to_string()));
        for cause in error.causes() {
            let _ = writeln!(self.talk, "  because: {}", clean(&cause));
        }
        if let Some(hint) = error.way_out() {
            self.hint(hint);
        }
    }

    /// Draws what is wrong with files, as data.
    pub(super) fn show(&mut self, diagnostics: &Diagnostics) -> Result<(), CliError> {
        let drawn = draw_all(diagnostics, self.data_color);
        self.data.write_all(drawn.as_bytes())?;
        Ok(())
    }

    /// Begins something that may take a while.
    pub(super) fn progress(&self, what: impl Into<String>) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_message(clean(&what.into()));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        Progress { bar, begun: std::time::Instant::now(), shown: false, terminal: self.terminal }
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.data.flush()?;
        Ok(())
    }
}

// === impl Progress ===

impl Progress {
    /// Says what is waited for; draws it once it has taken a second.
    pub(super) fn tick(&mut self, what: &str) {
        self.bar.set_message(clean(what));
        if self.terminal && !self.shown && self.begun.elapsed() > QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(120));
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `text` with every control character shown instead of obeyed, but for line feeds and tabs.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => cleaned.push(char),
            // Marks that turn the direction of writing can make a text read as another one.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                cleaned.extend(char.escape_unicode());
            }
            char if char.is_control() => cleaned.extend(char.escape_default()),
            char => cleaned.push(char),
        }
    }
    cleaned
}

pub(super) fn painted(color: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Bad => "1;31",
        Paint::Doubtful => "1;33",
        Paint::Good => "32",
        Paint::Quiet => "2",
    };
    if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// How long ago something was, in one unit.
pub(super) fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn draw_all(Diagnostics(all): &Diagnostics, color: bool) -> String {
    all.iter().map(|diagnostic| draw(diagnostic, color)).collect::<Vec<_>>().join("\n")
}

/// One diagnostic with its line, a caret under its column, and its hint.
fn draw(diagnostic: &Diagnostic, color: bool) -> String {
    let (label, paint) = match diagnostic.severity {
        Severity::Error => ("error", Paint::Bad),
        Severity::Warning => ("warning", Paint::Doubtful),
    };
    let quiet = |text: &str| painted(color, Paint::Quiet, text);
    let mut drawn = format!("{}: {}\n", painted(color, paint, label), clean(&diagnostic.message));
    let line = diagnostic.origin.line.to_string();
    let margin = " ".repeat(if diagnostic.origin.line == 0 { 1 } else { line.len() });
    // Writing to a String cannot fail.
    let _ = writeln!(drawn, "{margin}{} {}", quiet("-->"), clean(&diagnostic.origin.to_string()));
    if let Some(snippet) = &diagnostic.snippet {
        let (first, below) = snippet.split_once('\n').unwrap_or((snippet, ""));
        let (shown, caret) = window(first, diagnostic.origin.column);
        let _ = writeln!(drawn, "{margin} {}", quiet("|"));
        let number = if diagnostic.origin.line == 0 { &margin } else { &line };
        let _ = writeln!(drawn, "{} {} {shown}", quiet(number), quiet("|"));
        if let Some(caret) = caret {
            // Whoever read the file may know how much of the line is meant.
            let marks = below.trim();
            let known = !marks.is_empty() && marks.bytes().all(|mark| mark == b'^');
            let marks = if known { marks } else { "^" };
            let room = shown.chars().count().saturating_sub(caret).max(1);
            let marks = &marks[..marks.len().min(room)];
            let _ = writeln!(drawn, "{margin} {} {}{}", quiet("|"), " ".repeat(caret), painted(color, paint, marks));
        }
    }
    if let Some(hint) = &diagnostic.hint {
        let _ =
            writeln!(drawn, "{margin} {} {}", quiet("="), painted(color, Paint::Good, "hint") + ": " + &clean(hint));
    }
    drawn
}

/// The part of a line that is drawn, and where in it the column is.
fn window(line: &str, column: u32) -> (String, Option<usize>) {
    let chars: Vec<char> = line.trim_end().chars().collect();
    let at = usize::try_from(column).unwrap_or(0);
    let begin = if at > MAX_LINE { at.saturating_sub(MAX_LINE / 2) } else { 0 };
    let part: String = chars.iter().skip(begin).take(MAX_LINE).collect();
    // A tab is drawn as one space, so that the caret stands under its column.
    let shown = clean(&part.replace('\t', " "));
    let caret = (at > 0 && at <= chars.len() + 1).then(|| at - 1 - begin);
    (shown, caret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    #[test]
    fn a_diagnostic_is_drawn_with_its_line_and_a_caret() {
        let at = Origin { file: "agents/support/agent.yaml".into(), line: 12, column: 5 };
        let diagnostic =
            Diagnostic::error(at, "there is no key `promts`").snippet("    promts: {}").hint("did you mean `prompts`?");
        insta::assert_snapshot!(draw(&diagnostic, false), @r"
        error: there is no key `promts`
          --> agents/support/agent.yaml:12:5
           |
        12 |     promts: {}
           |     ^
           = hint: did you mean `prompts`?
        ");
        let underlined =
            Diagnostic { snippet: Some("    promts: {}\n    ^^^^^^".to_owned()), hint: None, ..diagnostic };
        assert!(draw(&underlined, false).ends_with("12 |     promts: {}\n   |     ^^^^^^\n"));
        let whole = Diagnostic::warning(Origin::file("backstay.yaml"), "it is empty");
        insta::assert_snapshot!(draw(&whole, false), @r"
        warning: it is empty
         --> backstay.yaml
        ");
        assert!(draw(&whole, true).contains("\u{1b}[1;33mwarning\u{1b}[0m"));
    }

    #[test]
    fn a_long_line_is_drawn_round_its_column() {
        let long = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let (shown, caret) = window(&long, 501);
        assert_eq!(shown.chars().count(), MAX_LINE);
        assert!(shown[caret.expect("a caret")..].starts_with("HERE"));
        assert_eq!(window("ab", 9), ("ab".to_owned(), None));
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(clean("a\u{1b}[31mb\u{7}\r"), "a\\u{1b}[31mb\\u{7}\\r");
        assert_eq!(clean("a\u{202e}b\nc\td"), "a\\u{202e}b\nc\td");
    }

    #[test]
    fn ages_have_one_unit() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| ago(at(seconds), at(0)));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(ago(at(0), at(9)), "0s");
    }
}
