//! Which processes belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use super::process::{is_gone, stat};
use crate::sys::ProcessId;

/// Processes of one tree that are looked at; a tree with more is ended in several rounds.
const MOST: usize = 100_000;

/// All living processes beneath `root`, which is not among them: children, their children, and so on.
///
/// # Guarantees
///
/// Beneath a subreaper it finds what called `setsid` or lost its parent. Processes that start while it walks may be missed: who ends
/// a tree walks again until nothing is found.
pub fn descendants(root: u32) -> io::Result<Vec<ProcessId>> {
    let children = if has_children_file() { None } else { Some(all_children()?) };
    let mut found = vec![];
    let mut seen = BTreeSet::from([root]);
    let mut left = vec![root];
    while let Some(parent) = left.pop() {
        let next = match &children {
            Some(all) => all.get(&parent).cloned().unwrap_or_default(),
            None => children_of(parent)?,
        };
        for child in next {
            if seen.len() >= MOST || !seen.insert(child) {
                continue;
            }
            left.push(child);
            if let Some(stat) = stat(child)?.filter(super::process::Stat::lives) {
                found.push(ProcessId { pid: child, start: stat.start });
            }
        }
    }
    Ok(found)
}

/// Whether `pid` is beneath `ancestor`, by the parents that the kernel names now.
pub fn descends_from(pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    for _ in 0..MOST {
        match stat(at) {
            Ok(Some(stat)) if stat.parent == ancestor => return true,
            Ok(Some(stat)) if stat.parent > 1 => at = stat.parent,
            _ => return false,
        }
    }
    false
}

/// All living processes that were started with `mark` (`NAME=value`) in their environment, as far as this account may look.
///
/// It finds what lost its parents. A process that writes over its own environment is not found.
pub fn marked(mark: &str) -> io::Result<Vec<ProcessId>> {
    let own = std::process::id();
    let mut found = vec![];
    for pid in numbers("/proc")? {
        if pid != own
            && is_marked(pid, mark)
            && let Some(stat) = stat(pid)?.filter(super::process::Stat::lives)
        {
            found.push(ProcessId { pid, start: stat.start });
        }
    }
    Ok(found)
}

/// Whether that process was started with `mark` in its environment. What cannot be read is not marked.
pub fn is_marked(pid: u32, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn has_children_file() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// The children of all threads of a process.
fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = vec![];
    let threads = match numbers(&format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => return Ok(children),
        Err(error) => return Err(error),
    };
    for thread in threads {
        match fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")) {
            Ok(text) => children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// Children by parent, for kernels that keep no list of them.
fn all_children() -> io::Result<BTreeMap<u32, Vec<u32>>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in numbers("/proc")? {
        if let Some(stat) = stat(pid)? {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    Ok(children)
}

fn numbers(folder: &str) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn both_ways_of_finding_children_agree() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let (listed, scanned) = (children_of(own).unwrap(), all_children().unwrap());
        assert!(listed.contains(&child.id()) && scanned[&own].contains(&child.id()));
        assert!(descends_from(child.id(), own) && !descends_from(own, child.id()));
        assert!(descendants(own).unwrap().iter().any(|found| found.pid == child.id()));
        child.kill().unwrap();
        assert!(
            !descendants(own)
                .unwrap()
                .iter()
                .any(|found| found.pid == child.id() && stat(found.pid).unwrap().is_none())
        );
        child.wait().unwrap();
    }
}
