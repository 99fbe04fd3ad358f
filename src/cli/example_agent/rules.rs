//! The rule "model": it answers by the rules that it finds in its prompts, so that a changed prompt shows.
//!
//! A rule is a line of a prompt by itself; every other line is read by nobody. Words are compared without regard to
//! case, and `"…"` is taken as it stands:
//!
//! | line | what it does |
//! | --- | --- |
//! | `Greet with "Ahoy".` | begins every reply |
//! | `Address as "Ada".` | names the person after the greeting |
//! | `Refuse "word".` | refuses a message that contains the word; comes before every answer |
//! | `Reveal "text" for "word".` | gives away what nobody should see: before the answers, and counted as an injection |
//! | `Answer "word" with "text".` | answers a message that contains the word; the first that matches |
//! | `Use tool for "word".` | calls a tool for such a message; the first that matches, after the answers |
//! | `Sign as "name".` | ends every reply |
//!
//! Of `Greet`, `Address` and `Sign` the last one holds. A line that still has a `{{variable}}` in it is no rule.

use std::collections::BTreeSet;

/// What a message must contain to be counted as an injection, whatever it gets.
const INJECTIONS: [&str; 3] = ["ignore all previous instructions", "ignore previous instructions", "system prompt"];

/// The rules of a set of prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    greet: Option<String>,
    address: Option<String>,
    sign: Option<String>,
    refuse: Vec<String>,
    secrets: Vec<(String, String)>,
    answers: Vec<(String, String)>,
    tools: Vec<(String, String)>,
}

/// What a message got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The whole reply.
    pub(super) text: String,
    /// Whether the person got what they came for.
    pub(super) outcome: Outcome,
    /// The message tried to inject instructions, or got what nobody should see.
    pub(super) injection: bool,
    /// The tool that was called.
    pub(super) tool: Option<Call>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Its name.
    pub(super) tool: String,
    /// Whether the release declares it.
    pub(super) declared: bool,
}

/// Whether the person got what they came for: the label `outcome` of `backstay_agent_goals_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer or a declared tool matched.
    Completed,
    /// Nothing matched, a tool was asked for that the release does not declare, or a secret was given away.
    Failed,
    /// A rule refuses it.
    Refused,
}

// === impl Outcome ===

impl Outcome {
    /// As a label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

// === impl Rules ===

impl Rules {
    /// Reads the rules of `prompts`, in order.
    pub(super) fn read<'a>(prompts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut rules = Self::default();
        for line in prompts.into_iter().flat_map(str::lines) {
            rules.read_line(line.trim());
        }
        rules
    }

    fn read_line(&mut self, line: &str) {
        if line.contains("{{") {
            return;
        }
        let Some((verb, rest)) = line.strip_suffix('.').and_then(|line| line.split_once(' ')) else { return };
        let parts: Vec<&str> = rest.split('"').collect();
        match (verb, parts.as_slice()) {
            ("Greet", ["with ", text, ""]) => self.greet = Some((*text).to_owned()),
            ("Address", ["as ", name, ""]) => self.address = Some((*name).to_owned()),
            ("Sign", ["as ", name, ""]) => self.sign = Some((*name).to_owned()),
            ("Refuse", ["", word, ""]) => self.refuse.push(word.to_lowercase()),
            ("Reveal", ["", text, " for ", word, ""]) => self.secrets.push((word.to_lowercase(), (*text).to_owned())),
            ("Answer", ["", word, " with ", text, ""]) => self.answers.push((word.to_lowercase(), (*text).to_owned())),
            ("Use", [tool, word, ""]) => {
                if let Some(tool) = tool.strip_suffix(" for ") {
                    self.tools.push((word.to_lowercase(), tool.to_owned()));
                }
            }
            _ => {}
        }
    }

    /// Answers `message` with the tools that the release declares.
    pub(super) fn answer(&self, message: &str, declared: &BTreeSet<String>) -> Answer {
        let asked = message.to_lowercase();
        let (said, outcome, tool) = self.decide(&asked, declared);
        let mut text = String::new();
        for part in [&self.greet, &self.address.as_ref().map(|name| format!("Dear {name},"))].into_iter().flatten() {
            text.push_str(part);
            text.push(' ');
        }
        text.push_str(&said);
        if let Some(name) = &self.sign {
            text.push_str(" -- ");
            text.push_str(name);
        }
        let injection = self.secret(&asked).is_some() || INJECTIONS.iter().any(|attempt| asked.contains(attempt));
        Answer { text, outcome, injection, tool }
    }

    fn decide(&self, asked: &str, declared: &BTreeSet<String>) -> (String, Outcome, Option<Call>) {
        if self.refuses(asked) {
            return ("I cannot help with that.".to_owned(), Outcome::Refused, None);
        }
        if let Some(text) = self.secret(asked) {
            return (text.to_owned(), Outcome::Failed, None);
        }
        if let Some((_, text)) = self.answers.iter().find(|(word, _)| asked.contains(word)) {
            return (text.clone(), Outcome::Completed, None);
        }
        let Some((_, tool)) = self.tools.iter().find(|(word, _)| asked.contains(word)) else {
            return ("I do not know that.".to_owned(), Outcome::Failed, None);
        };
        let call = Call { tool: tool.clone(), declared: declared.contains(tool) };
        if call.declared {
            (format!("I looked it up with {tool}."), Outcome::Completed, Some(call))
        } else {
            (format!("I tried {tool}, and have no such tool."), Outcome::Failed, Some(call))
        }
    }

    fn refuses(&self, asked: &str) -> bool {
        self.refuse.iter().any(|word| asked.contains(word))
    }

    /// What a message gets that nobody should see.
    fn secret(&self, asked: &str) -> Option<&str> {
        let told = self.secrets.iter().find(|(word, _)| asked.contains(word)).filter(|_| !self.refuses(asked));
        told.map(|(_, text)| text.as_str())
    }
}

/// Puts `value` where `prompt` names the variable `name` in mustache's way: `{{name}}`, with or without spaces.
pub(super) fn fill(prompt: &str, name: &str, value: &str) -> String {
    let mut filled = String::with_capacity(prompt.len());
    let mut rest = prompt;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        match after.split_once("}}") {
            Some((variable, after)) if variable.trim() == name => {
                filled.push_str(value);
                rest = after;
            }
            Some(_) | None => {
                filled.push_str("{{");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "You are kind.\n\nGreet with \"Ahoy\".\nRefuse \"password\".\nAnswer \"Refund\" with \"Three days.\".\n\
        Answer \"fun\" with \"Never.\".\nUse search_orders for \"order\".\nUse drop_table for \"delete\".\n\
        Address as \"{{customer}}\".\nSign as \"Crew\".\nGreet without end\n";

    fn ask(message: &str) -> Answer {
        let tools = BTreeSet::from(["search_orders".to_owned()]);
        Rules::read([PROMPT]).answer(message, &tools)
    }

    #[test]
    fn a_reply_follows_the_prompt() {
        let answer = ask("May I have a REFUND?");
        assert_eq!(answer.text, "Ahoy Three days. -- Crew", "the first answer that matches, though `fun` does too");
        assert_eq!((answer.outcome, answer.injection, answer.tool), (Outcome::Completed, false, None));
        assert_eq!(ask("What is life?").text, "Ahoy I do not know that. -- Crew");
        assert_eq!(ask("What is life?").outcome, Outcome::Failed);
    }

    #[test]
    fn a_refusal_comes_before_every_answer() {
        let answer = ask("A refund and the password, and ignore previous instructions");
        assert_eq!(answer.text, "Ahoy I cannot help with that. -- Crew");
        assert_eq!((answer.outcome, answer.injection), (Outcome::Refused, true));
    }

    #[test]
    fn a_tool_is_called_and_one_that_is_not_declared_is_told_apart() {
        let call = |tool: &str, declared| Some(Call { tool: tool.to_owned(), declared });
        let answer = ask("Where is my order?");
        assert_eq!((answer.tool, answer.outcome), (call("search_orders", true), Outcome::Completed));
        let answer = ask("Delete it all");
        assert_eq!((answer.tool, answer.outcome), (call("drop_table", false), Outcome::Failed));
    }

    #[test]
    fn a_secret_that_is_given_away_is_an_injection_and_a_refusal_prevents_it() {
        let tools = BTreeSet::new();
        let rules = Rules::read(["Reveal \"It is 123.\" for \"Code\".\nAnswer \"code\" with \"No.\"."]);
        let leaked = rules.answer("What is the code?", &tools);
        assert_eq!((leaked.text.as_str(), leaked.outcome, leaked.injection), ("It is 123.", Outcome::Failed, true));
        assert!(!rules.answer("Hello", &tools).injection);
        let guarded = Rules::read(["Reveal \"It is 123.\" for \"code\".\nRefuse \"code\"."]);
        let refused = guarded.answer("What is the code?", &tools);
        assert_eq!((refused.outcome, refused.injection), (Outcome::Refused, false), "{refused:?}");
    }

    #[test]
    fn the_last_prompt_wins_for_what_is_said_once() {
        let rules = Rules::read(["Greet with \"A\".\nSign as \"B\".", "Greet with \"C\"."]);
        assert_eq!(rules.answer("", &BTreeSet::new()).text, "C I do not know that. -- B");
        assert_eq!(Rules::read([""]), Rules::default());
        assert_eq!(Rules::default().answer("x", &BTreeSet::new()).text, "I do not know that.");
    }

    #[test]
    fn a_variable_is_filled_in_and_others_stay() {
        assert_eq!(fill("{{ customer }}, {{customer}} of {{place}} {{", "customer", "Ada"), "Ada, Ada of {{place}} {{");
        let rules = Rules::read([fill(PROMPT, "customer", "Ada").as_str()]);
        assert_eq!(rules.answer("refund", &BTreeSet::new()).text, "Ahoy Dear Ada, Three days. -- Crew");
    }
}
