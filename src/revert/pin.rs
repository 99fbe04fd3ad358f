//! A pin written into an environment's file, with everything else of the file as it was.

use crate::model::{AgentName, CommitId};

/// The file cannot be edited without changing more of it than the pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pin cannot be written into the environment's file: {0}")]
pub struct CannotPin(&'static str);

/// Sets `spec.pins.<agent>` in the text of an environment's file; comments and order stay.
///
/// Knows the block form and the flow form of `pins`, each on its own lines. The result is meant to be parsed again
/// before it is used.
///
/// # Errors
///
/// When there is no `spec:` in block form, or `pins` is written in a form of several lines in braces.
pub fn pin(text: &str, agent: &AgentName, commit: &CommitId) -> Result<String, CannotPin> {
    let lines: Vec<&str> = text.lines().collect();
    let key = |line: &str| line.trim_end().trim_start().split_once(':').map(|(key, _)| key.trim().to_owned());
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let indent = |line: &str| line.len() - line.trim_start().len();
    let spec = lines.iter().position(|line| line.trim_end() == "spec:" || line.starts_with("spec: #"));
    let spec = spec.ok_or(CannotPin("it has no `spec:` with its fields on lines of their own"))?;
    let end = lines[spec + 1..].iter().position(|line| !is_blank(line) && indent(line) == 0);
    let end = end.map_or(lines.len(), |at| spec + 1 + at);
    let body = spec + 1..end;
    let first = body.clone().find(|&at| !is_blank(lines[at]));
    let step = first.map_or(2, |at| indent(lines[at]));
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let pins = body.clone().find(|&at| indent(lines[at]) == step && key(lines[at]).as_deref() == Some("pins"));
    let Some(pins) = pins else {
        out.insert(spec + 1, format!("{}pins: {{{agent}: {commit}}}", " ".repeat(step)));
        return Ok(joined(&out));
    };
    let (_, value) = lines[pins].split_once(':').unwrap_or_default();
    let (value, comment) = value.split_once(" #").map_or((value, None), |(value, comment)| (value, Some(comment)));
    let value = value.trim();
    if value.is_empty() {
        let children = pins + 1..end;
        let inner = children.clone().take_while(|&at| is_blank(lines[at]) || indent(lines[at]) > step);
        let inner: Vec<_> = inner.filter(|&at| !is_blank(lines[at])).collect();
        let depth = inner.first().map_or(step * 2, |&at| indent(lines[at]));
        let line = format!("{}{agent}: {commit}", " ".repeat(depth));
        match inner.iter().find(|&&at| key(lines[at]).as_deref() == Some(agent.as_str())) {
            Some(&at) => out[at] = line,
            None => out.insert(pins + 1, line),
        }
        return Ok(joined(&out));
    }
    let inside = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inside = inside.ok_or(CannotPin("`pins` is written over several lines in braces"))?;
    let others = inside
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty() && pair.split_once(':').is_none_or(|(name, _)| name.trim() != agent.as_str()));
    let pairs: Vec<_> = others.map(str::to_owned).chain([format!("{agent}: {commit}")]).collect();
    let comment = comment.map(|comment| format!(" #{comment}")).unwrap_or_default();
    out[pins] = format!("{}pins: {{{}}}{comment}", " ".repeat(step), pairs.join(", "));
    Ok(joined(&out))
}

fn joined(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(text: &str) -> String {
        let commit = "3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a commit id");
        pin(text, &"support".parse().expect("a name"), &commit).expect("a pin")
    }

    #[test]
    fn a_file_without_pins_gets_them() {
        let text = "kind: Environment\nspec:\n  # what it follows\n  track: {branch: main}\n";
        let expected = "kind: Environment\nspec:\n  pins: {support: 3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0}\n  # what it follows\n  track: {branch: main}\n";
        assert_eq!(pinned(text), expected);
    }

    #[test]
    fn flow_pins_keep_the_others() {
        let text = "spec:\n  pins: {research: aaaa, support: bbbb} # why\n";
        let expected = "spec:\n  pins: {research: aaaa, support: 3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0} # why\n";
        assert_eq!(pinned(text), expected);
    }

    #[test]
    fn block_pins_keep_the_others() {
        let text = "spec:\n  pins:\n    research: aaaa\n    support: bbbb\n  images: tags\n";
        let expected = "spec:\n  pins:\n    research: aaaa\n    support: 3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0\n  images: tags\n";
        assert_eq!(pinned(text), expected);
        let text = "spec:\n  pins:\n    research: aaaa\n  images: tags\n";
        assert!(pinned(text).contains("    support: 3f9c2ab1d0"), "{}", pinned(text));
    }

    #[test]
    fn what_cannot_be_edited_is_refused() {
        let commit = "3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a commit id");
        let agent = "support".parse().expect("a name");
        for text in ["spec: {track: {branch: main}}\n", "spec:\n  pins: {a: b,\n    c: d}\n", ""] {
            assert!(pin(text, &agent, &commit).is_err(), "{text}");
        }
    }
}
