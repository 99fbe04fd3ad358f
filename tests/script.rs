//! The command line as a person types it: what is right, and what people get wrong.

#[path = "support/script.rs"]
mod script;

#[test]
fn what_people_type() {
    script::run_all("tests/script", &[], numbered);
}

/// Ids of releases and commits by the order in which they are said: they change with every byte of `example-repo`.
#[expect(clippy::needless_pass_by_value, reason = "it is handed over as a function of this form")]
fn numbered(said: String) -> String {
    let mut known: Vec<String> = Vec::new();
    let lines = said.lines().map(|line| {
        if line.starts_with("$ ") {
            return line.to_owned();
        }
        let mut out = String::new();
        let mut rest = line;
        while let Some(begin) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            out.push_str(&rest[..begin]);
            let word = rest[begin..]
                .find(|c: char| !c.is_ascii_alphanumeric())
                .map_or(&rest[begin..], |end| &rest[begin..begin + end]);
            let hex = word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            let is_id = hex && (word.len() == 8 || word.len() == 12 && out.ends_with("r-"));
            if is_id {
                let number = known.iter().position(|id| id == word).unwrap_or(known.len());
                if number == known.len() {
                    known.push(word.to_owned());
                }
                out.push_str(&format!("#{}", number + 1));
            } else {
                out.push_str(word);
            }
            rest = &rest[begin + word.len()..];
        }
        out + rest
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}
