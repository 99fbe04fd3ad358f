//! Which part of all cases is tried now: the commit chooses, so that all are in the long run.

/// A number that the commit decides, the same for all who ask.
pub(crate) fn of_commit() -> usize {
    let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().expect("git runs");
    let text = String::from_utf8_lossy(&head.stdout).trim_end().to_owned();
    let last = text.get(text.len().saturating_sub(4)..).and_then(|digits| usize::from_str_radix(digits, 16).ok());
    last.unwrap_or(0)
}
