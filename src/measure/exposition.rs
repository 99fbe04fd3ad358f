//! What a process tells Prometheus: the text format 0.0.4, and `OpenMetrics` 1.0 where it says the same in other words.
//!
//! The reader is strict: a text that is wrong anywhere says nothing, since whoever writes half of it right may have
//! left out what matters.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// Bytes of a text.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Lines of a text.
pub const MAX_LINES: usize = 100_000;
/// Labels of one series.
const MAX_LABELS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 256;
/// Bytes of a label's value.
const MAX_VALUE: usize = 4096;

/// A text, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition<'a> {
    /// Every sample, in the order of the text.
    pub samples: Vec<Sample<'a>>,
    /// The names that have a `# TYPE`.
    pub typed: BTreeSet<&'a str>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Its name, with any suffix.
    pub name: &'a str,
    /// Its labels; no name twice.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value; NaN and the infinities among them.
    pub value: f64,
    /// The time that it carries: milliseconds in 0.0.4, seconds in `OpenMetrics`.
    pub time: Option<f64>,
}

/// The text breaks the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

// === impl Sample ===

impl Sample<'_> {
    /// The value of a label; an empty one is none, as Prometheus has it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| *own == name).map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }
}

// === impl Exposition ===

impl<'a> Exposition<'a> {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// At the first line that breaks the format, or a bound: [`MAX_BYTES`], [`MAX_LINES`], 64 labels, names of 256 bytes,
    /// values of 4 KiB.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        let mut read = Self::default();
        if text.len() > MAX_BYTES {
            return Err(ParseError { line: 0, why: "the text is longer than 4 MiB" });
        }
        let mut ended = false;
        for (number, line) in text.split('\n').enumerate() {
            let wrong = |why| ParseError { line: number + 1, why };
            if number >= MAX_LINES {
                return Err(wrong("the text has more than 100,000 lines"));
            }
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            if ended {
                return Err(wrong("there is more after `# EOF`"));
            }
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_ascii_whitespace();
                match words.next() {
                    Some("EOF") => ended = true,
                    Some("TYPE") => {
                        let name = words.next().filter(|name| is_name(name, true));
                        read.typed.insert(name.ok_or_else(|| wrong("a `# TYPE` without a name"))?);
                    }
                    Some(_) | None => {}
                }
                continue;
            }
            read.samples.push(sample(line).map_err(wrong)?);
        }
        Ok(read)
    }

    /// The samples of this name.
    pub fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Sample<'a>> + 's {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// Whether the process says that it counts this, be it that nothing was counted yet.
    pub fn has(&self, name: &str) -> bool {
        let stem = name.strip_suffix("_total").unwrap_or(name);
        let is_part = |sample: &Sample<'_>| {
            let rest = sample.name.strip_prefix(name);
            matches!(rest, Some("" | "_count" | "_sum" | "_bucket"))
        };
        self.typed.contains(name) || self.typed.contains(stem) || self.samples.iter().any(is_part)
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':');
    name.len() <= MAX_NAME && name.bytes().all(plain) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// `name{label="value",…} value [time] [# exemplar]`.
fn sample(line: &str) -> Result<Sample<'_>, &'static str> {
    let end = line.find(['{', ' ', '\t']).ok_or("a series without a value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("this is not the name of a series");
    }
    let mut labels = vec![];
    rest = rest.trim_start_matches([' ', '\t']);
    if let Some(inner) = rest.strip_prefix('{') {
        (labels, rest) = self::labels(inner)?;
    }
    // What comes after is an exemplar, which says nothing of the count.
    let rest = rest.split_once(" # ").map_or(rest, |(value, _)| value);
    let mut words = rest.split_ascii_whitespace();
    let value = number(words.next().ok_or("a series without a value")?)?;
    let time = words.next().map(number).transpose()?;
    if words.next().is_some() {
        return Err("there is more after the value and its time");
    }
    Ok(Sample { name, labels, value, time })
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Labels up to and with the brace that ends them.
fn labels(mut rest: &str) -> Result<(Labels<'_>, &str), &'static str> {
    let mut labels: Labels<'_> = vec![];
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, inner) = rest.split_once('=').ok_or("a label without `=`")?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name, false) {
            return Err("this is not the name of a label");
        }
        if labels.iter().any(|(own, _)| *own == name) {
            return Err("a label is there twice");
        }
        if labels.len() == MAX_LABELS {
            return Err("a series has more than 64 labels");
        }
        let inner = inner.trim_start_matches([' ', '\t']).strip_prefix('"').ok_or("a label's value without quotes")?;
        let (value, after) = quoted(inner)?;
        labels.push((name, value));
        rest = after.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
        } else if !rest.starts_with('}') {
            return Err("labels are not separated by `,`");
        }
    }
}

/// A value up to and with the quote that ends it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut owned: Option<String> = None;
    let mut from = 0;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if at > MAX_VALUE {
            return Err("a label's value is longer than 4 KiB");
        }
        match byte {
            b'"' => {
                let last = &text[from..at];
                let value = match owned {
                    Some(mut owned) => {
                        owned.push_str(last);
                        Cow::Owned(owned)
                    }
                    None => Cow::Borrowed(last),
                };
                return Ok((value, &text[at + 1..]));
            }
            b'\\' => {
                let meant = match bytes.next() {
                    Some((_, b'n')) => '\n',
                    Some((_, b'"')) => '"',
                    Some((_, b'\\')) => '\\',
                    Some(_) | None => return Err("a label's value has an escape that there is not"),
                };
                let owned = owned.get_or_insert_default();
                owned.push_str(&text[from..at]);
                owned.push(meant);
                from = at + 2;
            }
            _ => {}
        }
    }
    Err("a label's value does not end")
}

/// A number as Go writes it.
pub(super) fn number(word: &str) -> Result<f64, &'static str> {
    match word {
        "NaN" => Ok(f64::NAN),
        "+Inf" | "Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        word if word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
            word.parse().map_err(|_| "this is not a number")
        }
        _ => Err("this is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total What\\n it is.\n# TYPE a_total counter\n\na_total{x=\"1\",y=\"q\\\"\\\\\\n,}\"} 3 1395066363000\n  b 1.5e3\nc{} NaN\r\nd{le=\"+Inf\",} +Inf\n";

    #[test]
    fn both_formats_are_read() {
        let read = Exposition::parse(TEXT).unwrap();
        assert_eq!(read.samples.len(), 4);
        let first = &read.samples[0];
        assert_eq!((first.name, first.value, first.time), ("a_total", 3.0, Some(1_395_066_363_000.0)));
        assert_eq!((first.label("x"), first.label("y"), first.label("z")), (Some("1"), Some("q\"\\\n,}"), None));
        assert!((read.samples[1].value - 1500.0).abs() < f64::EPSILON && read.samples[2].value.is_nan());
        assert_eq!((read.samples[3].label("le"), read.samples[3].value), (Some("+Inf"), f64::INFINITY));
        assert!(read.has("a_total") && read.has("b") && !read.has("a"));
        assert!(Exposition::parse("h_count 0").unwrap().has("h"), "a histogram is there by its parts");

        let open = "# TYPE a counter\na_total 1.0 1.5 # {trace=\"} # \"} 1\na_created 2\n# EOF\n";
        let read = Exposition::parse(open).unwrap();
        assert_eq!((read.samples[0].value, read.samples[0].time, read.has("a_total")), (1.0, Some(1.5), true));
    }

    #[test]
    fn what_breaks_the_format_says_where() {
        let long = format!("a{{x=\"{}\"}} 1", "y".repeat(5000));
        let many = format!("a{{{}}} 1", (0..65).map(|n| format!("l{n}=\"\",")).collect::<String>());
        for (text, line, why) in [
            ("a", 1, "without a value"),
            ("ok 1\n1a 2", 2, "not the name of a series"),
            ("a{x=1} 2", 1, "without quotes"),
            ("a{x=\"1} 2", 1, "does not end"),
            ("a{x=\"\\t\"} 2", 1, "escape"),
            ("a{x=\"1\" y=\"2\"} 2", 1, "separated"),
            ("a{x=\"1\",x=\"2\"} 2", 1, "twice"),
            ("a{x:y=\"1\"} 2", 1, "name of a label"),
            ("a 1 2 3", 1, "more after the value"),
            ("a 0x10", 1, "not a number"),
            ("a infinity", 1, "not a number"),
            ("# EOF\na 1", 2, "after `# EOF`"),
            ("# TYPE", 1, "without a name"),
            (&long, 1, "4 KiB"),
            (&many, 1, "64 labels"),
        ] {
            let error = Exposition::parse(text).unwrap_err();
            assert!(error.line == line && error.why.contains(why), "{text}: {error}");
        }
        assert!(Exposition::parse(&"\n".repeat(MAX_LINES + 1)).unwrap_err().why.contains("lines"));
        assert!(Exposition::parse(&"x".repeat(MAX_BYTES + 1)).unwrap_err().why.contains("4 MiB"));
    }
}
