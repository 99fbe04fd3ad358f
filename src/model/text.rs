//! Words of others, as people are shown them.

/// One line of somebody else's words: its first `most` characters, with `instead` in place of each control character, which
/// a terminal might obey.
pub fn one_line(text: &str, most: usize, instead: char) -> String {
    text.chars().take(most).map(|c| if c.is_control() { instead } else { c }).collect()
}
