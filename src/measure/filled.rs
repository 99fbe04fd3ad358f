//! `$release`, `$agent` and `$namespace` in queries and addresses.

/// Puts values in the place of `$name`; the longest name that fits is meant, and what is none of them stays.
pub(super) fn filled(text: &str, values: &[(&str, &str)], escape: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let name = &after[1..];
        let end = name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(name.len());
        match values.iter().find(|(known, _)| *known == &name[..end]) {
            Some((_, value)) => {
                out.push_str(&escape(value));
                rest = &name[end..];
            }
            None => {
                out.push('$');
                rest = name;
            }
        }
    }
    out.push_str(rest);
    out
}

/// With a backslash before each of these letters.
pub(super) fn escaped(text: &str, letters: &[char]) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if letters.contains(&letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_filled_in_and_values_are_escaped() {
        let values = [("release", "r-\"1"), ("agent", "a")];
        let put = |text| filled(text, &values, |value| escaped(value, &['"', '\\']));
        assert_eq!(put("x{v=\"$release\"} $agent$releases $ $$agent"), "x{v=\"r-\\\"1\"} a$releases $ $a");
        assert_eq!(put("$.a['$release'].b[?@ == $agent]"), "$.a['r-\\\"1'].b[?@ == a]");
    }
}
