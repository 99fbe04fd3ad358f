//! What two commits differ in, as a comment on a pull request.

use std::fmt::Write as _;

use super::between::{Agent, Between, What, label, named, releases};

/// Everything as Markdown: one table, what breaks, and the way back.
///
/// Free text of the repository is escaped: it cannot make markup, mentions or links.
pub(super) fn of(found: &Between) -> String {
    let mut text = format!("### Backstay: {} to {}\n\n", found.from.commit.short(), found.to.commit.short());
    // Writing to a String cannot fail.
    if !found.is_change() && !found.is_invalid() {
        text.push_str("Nothing changes in any environment.\n");
        return text;
    }
    text.push_str("| Environment | Agent | Release | Changes |\n| --- | --- | --- | --- |\n");
    for one in &found.environments {
        for agent in &one.agents {
            let changes = agent.changes.iter().map(|change| code(&named(change))).collect::<Vec<_>>().join(", ");
            let _ = writeln!(
                text,
                "| {} | {} | {} | {changes} |",
                code(one.name.as_str()),
                code(agent.name.as_str()),
                escaped(&releases(agent)),
            );
        }
    }
    section(&mut text, "Cannot be used", found, |_, agent| {
        agent.errors.0.iter().map(|error| escaped(&error.to_string())).collect()
    });
    for one in found.environments.iter().filter(|one| one.errors.has_errors()) {
        let _ = writeln!(text, "\n**{} cannot be read**\n", code(one.name.as_str()));
        for error in &one.errors.0 {
            let _ = writeln!(text, "- {}", escaped(&error.to_string()));
        }
    }
    section(&mut text, "What breaks", found, |_, agent| {
        let sure = |certain| if certain { "breaks" } else { "may break" };
        let one = |found: &crate::desired::Break| {
            format!("{} {}: {}", sure(found.certain), code(&label(found.component, &found.name)), escaped(&found.why))
        };
        agent.breaks.iter().map(one).collect()
    });
    section(&mut text, "Mind", found, |_, agent| {
        agent.warnings.0.iter().map(|warning| escaped(&warning.message)).collect()
    });
    section(&mut text, "The way back", found, |_, agent| {
        agent.way_back.iter().filter(|_| agent.what != What::Invalid).map(|way| escaped_but_code(way)).collect()
    });
    let mut late = found.environments.iter().filter_map(|one| Some((&one.name, one.when.as_ref()?))).peekable();
    if late.peek().is_some() {
        text.push_str("\n**When**\n\n");
        for (environment, when) in late {
            let _ = writeln!(text, "- {}: {}", code(environment.as_str()), escaped_but_code(when));
        }
    }
    text
}

/// A list of what `lines` says of each agent, under a title; nothing where it says nothing.
fn section(text: &mut String, title: &str, found: &Between, lines: impl Fn(&str, &Agent) -> Vec<String>) {
    let mut all = Vec::new();
    for one in &found.environments {
        for agent in &one.agents {
            let prefix = format!("{} in {}", code(agent.name.as_str()), code(one.name.as_str()));
            let said = lines(one.name.as_str(), agent);
            all.extend(said.into_iter().map(|line| format!("- {prefix}: {line}\n")));
        }
    }
    if !all.is_empty() {
        let _ = write!(text, "\n**{title}**\n\n{}", all.concat());
    }
}

/// In backticks; a backtick within cannot end them.
fn code(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() || matches!(c, '`' | '|') { ' ' } else { c }).collect();
    format!("`{plain}`")
}

/// Without anything that Markdown or HTML would act on, on one line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '@' | '~' | '!' | '&' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Our own sentences, whose backticks are meant.
fn escaped_but_code(text: &str) -> String {
    text.split('`').enumerate().map(|(n, part)| if n % 2 == 1 { code(part) } else { escaped(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_cannot_make_markup() {
        assert_eq!(escaped("a|b\n<img>@all"), "a&#124;b &#60;img&#62;&#64;all");
        assert_eq!(code("a`b|c"), "`a b c`");
        assert_eq!(escaped_but_code("brings `r-1` back *now*"), "brings `r-1` back &#42;now&#42;");
    }
}
