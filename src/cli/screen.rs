//! Lines with a meaning in their colour, and a place of a terminal that is drawn over and over.

use std::fmt::Write as _;

use super::output::{Paint, clean, painted};

/// One line: pieces of text, each with a colour or without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<(Option<Paint>, String)>);

/// What fits on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// A place of a terminal that is drawn over and over.
///
/// # Guarantees
///
/// A frame is one write, and each line of it takes the place of the one before it: nothing is wiped first, so nothing
/// flickers. It never scrolls what stands above it away, and needs no more than [`Size`] gives.
#[derive(Debug, Default)]
pub(super) struct Screen {
    drawn: usize,
}

/// No line of a frame is longer, however wide the terminal is.
const WIDEST: usize = 79;

// === impl Line ===

impl Line {
    /// Without colours.
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    pub(super) fn push(&mut self, paint: Option<Paint>, text: impl Into<String>) {
        self.0.push((paint, text.into()));
    }

    /// What of it fits into so many columns, with an ellipsis where something is left out.
    fn cut(&self, columns: usize) -> Self {
        let whole: usize = self.0.iter().map(|(_, text)| width(text)).sum();
        if whole <= columns {
            return self.clone();
        }
        let mut room = columns.saturating_sub(1);
        let mut cut = Self::default();
        for (paint, text) in &self.0 {
            let mut part = String::new();
            for char in text.chars() {
                let columns = char_width(char);
                if columns > room {
                    cut.push(*paint, part);
                    cut.push(None, "…");
                    return cut;
                }
                room -= columns;
                part.push(char);
            }
            cut.push(*paint, part);
        }
        cut
    }

    fn draw(&self, color: bool) -> String {
        self.0
            .iter()
            .map(|(paint, text)| match paint {
                Some(paint) => painted(color, *paint, text),
                None => text.clone(),
            })
            .collect()
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self(vec![(None, text)])
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

// === impl Size ===

impl Size {
    /// Columns that a line may take: the last one stays free, where terminals differ in what they do.
    pub(super) fn width(self) -> usize {
        self.columns.saturating_sub(1).clamp(1, WIDEST)
    }
}

// === impl Screen ===

impl Screen {
    /// The bytes that put `lines` in the place of the frame before.
    pub(super) fn frame(&mut self, lines: &[Line], size: Size, color: bool) -> String {
        let mut bytes = String::new();
        if self.drawn > 0 {
            // Writing to a String cannot fail.
            let _ = write!(bytes, "\r\u{1b}[{}A", self.drawn);
        }
        // The cursor ends below the last line.
        let shown: Vec<&Line> = lines.iter().take(size.rows.saturating_sub(1).max(1)).collect();
        for line in &shown {
            let cleaned =
                Line(line.0.iter().map(|(paint, text)| (*paint, clean(text).replace(['\n', '\t'], " "))).collect());
            let _ = write!(bytes, "{}\u{1b}[K\r\n", cleaned.cut(size.width()).draw(color));
        }
        bytes.push_str("\u{1b}[J");
        self.drawn = shown.len();
        bytes
    }
}

/// `text` in lines of at most `columns`, broken between words.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().map_or(0, |line| width(line));
        match lines.last_mut() {
            Some(line) if last == 0 => line.push_str(word),
            Some(line) if last + 1 + width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Columns of a text; where fonts differ, the larger number.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(char: char) -> usize {
    match u32::from(char) {
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f000.. => 2,
        _ => 1,
    }
}

/// The last of `points` as bars, the lowest at zero and the highest at the most of them; `-` where there is none.
pub(super) fn sparkline(points: impl ExactSizeIterator<Item = Option<f64>>, columns: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let left_out = points.len().saturating_sub(columns);
    let points: Vec<_> = points.skip(left_out).collect();
    let most = points.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |point: Option<f64>| {
        let Some(point) = point.filter(|point| point.is_finite()) else { return '-' };
        let part = if most > 0.0 { point.max(0.0) / most } else { 0.0 };
        // The highest bar whose foot is not above the point.
        let height =
            (1..BARS.len()).rev().find(|height| part * 8.0 >= f64::from(u8::try_from(*height).unwrap_or(0)) + 0.5);
        BARS[height.unwrap_or(0)]
    };
    points.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { columns: 20, rows: 5 };

    /// A terminal that knows what a frame is made of, and wraps what is too long.
    struct Terminal {
        rows: Vec<String>,
        at: usize,
        columns: usize,
    }

    impl Terminal {
        fn new(columns: usize) -> Self {
            Self { rows: vec![String::new()], at: 0, columns }
        }

        fn obey(&mut self, bytes: &str) {
            let mut column = 0;
            let mut rest = bytes;
            while let Some(char) = rest.chars().next() {
                if let Some(command) = rest.strip_prefix("\u{1b}[") {
                    let end = command.find(|c: char| c.is_ascii_alphabetic()).expect("a command");
                    let number: usize = command[..end].parse().unwrap_or(1);
                    match &command[end..=end] {
                        "A" => self.at = self.at.checked_sub(number).expect("the frame is where it was"),
                        "K" => self.rows[self.at] = self.rows[self.at].chars().take(column).collect(),
                        "J" => {
                            self.rows.truncate(self.at + 1);
                            self.rows[self.at] = self.rows[self.at].chars().take(column).collect();
                        }
                        "m" => {}
                        other => panic!("{other}"),
                    }
                    rest = &command[end + 1..];
                    continue;
                }
                match char {
                    '\r' => column = 0,
                    '\n' => {
                        self.at += 1;
                        if self.at == self.rows.len() {
                            self.rows.push(String::new());
                        }
                    }
                    char => {
                        assert!(column < self.columns, "a line wraps");
                        let mut row: Vec<char> = self.rows[self.at].chars().collect();
                        row.resize(row.len().max(column + 1), ' ');
                        row[column] = char;
                        self.rows[self.at] = row.into_iter().collect();
                        column += 1;
                    }
                }
                rest = &rest[char.len_utf8()..];
            }
        }
    }

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line::from(*text)).collect()
    }

    #[test]
    fn a_frame_takes_the_place_of_the_one_before() {
        let mut terminal = Terminal::new(20);
        terminal.obey("$ backstay\r\n");
        let mut screen = Screen::default();
        for frame in [&["one", "two", "three"][..], &["1"], &["a", "b", "c", "d"], &["a longer line", "x"]] {
            terminal.obey(&screen.frame(&lines(frame), SMALL, true));
            let mut expected = vec!["$ backstay"];
            expected.extend(frame);
            expected.push("");
            assert_eq!(terminal.rows, expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut terminal = Terminal::new(20);
        let mut painted = Line::from("0123456789");
        painted.push(Some(Paint::Bad), "abcdefghijklmn");
        let mut screen = Screen::default();
        let frame = [vec![painted], lines(&["b", "c", "d", "e", "f"])].concat();
        terminal.obey(&screen.frame(&frame, SMALL, true));
        assert_eq!(terminal.rows, ["0123456789abcdefgh…", "b", "c", "d", ""]);
        let wide = Screen::default().frame(&lines(&["日本語日本語日本語日本語"]), SMALL, false);
        assert!(wide.starts_with("日本語日本語日本語…"), "{wide}");
    }

    #[test]
    fn nothing_in_a_line_is_obeyed() {
        let frame = Screen::default().frame(&lines(&["a\u{1b}[2Jb\nc"]), SMALL, false);
        assert!(frame.contains("a\\u{1b}[2Jb c"), "{frame:?}");
        let bare = Screen::default().frame(&[Line(vec![(Some(Paint::Bad), "harm".to_owned())])], SMALL, false);
        assert!(!bare.contains("[1;31m"), "{bare:?}");
    }

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensibilities all", 8), ["incomprehensibilities", "all"]);
        assert_eq!(wrapped("", 8), [""]);
    }

    #[test]
    fn a_sparkline_has_its_foot_at_zero() {
        let drawn = |points: &[Option<f64>]| sparkline(points.iter().copied(), 8);
        assert_eq!(drawn(&[Some(0.0), Some(0.5), Some(1.0), None]), "▁▄█-");
        assert_eq!(drawn(&[Some(0.0), Some(0.0)]), "▁▁");
        assert_eq!(drawn(&[Some(5.0); 20]), "████████");
        assert_eq!(drawn(&[]), "");
    }
}
