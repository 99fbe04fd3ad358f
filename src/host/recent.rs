//! The newest changes, for those who watch: as text, and only so many bytes of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::kinds::Key;
use super::refused::Refused;

/// Changes that a watch can go on from.
const MOST: usize = 8192;
/// Bytes of their objects: as values they would take ten times as much.
const MOST_BYTES: usize = 4 << 20;
/// Changes that a watch takes at a time.
const AT_ONCE: usize = 64;

/// The labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels(Vec<(Box<str>, Box<str>)>);

/// One change of one object.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) version: u64,
    /// None of what was made.
    pub(super) was: Option<Arc<Labels>>,
    /// None after its end.
    pub(super) is: Option<Arc<Labels>>,
    /// As it is now; after its end, as it was last, at the version of its end.
    pub(super) text: Box<str>,
}

/// Keeps the newest changes, and tells that there are more.
#[derive(Debug)]
pub(super) struct Recent {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The version before the oldest of them.
    forgotten: u64,
}

/// What changes from a version on.
#[derive(Debug)]
pub(super) struct Following {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Receiver<u64>,
    taken: VecDeque<Arc<Change>>,
    /// The newest change that was given.
    at: u64,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Over {
    /// Nothing changes any more.
    Closed,
    /// What came next is forgotten.
    Expired,
}

// === impl Labels ===

impl Labels {
    pub(super) fn of(object: &Value) -> Self {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        Self(labels.filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into()))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| **own == *name).map(|(_, value)| &**value)
    }
}

// === impl Change ===

impl Change {
    /// `text` is what `object` says, or said last.
    pub(super) fn new(key: Key, version: u64, before: Option<&Value>, object: Option<&Value>, text: String) -> Self {
        let is = object.map(|object| Arc::new(Labels::of(object)));
        let was = before.map(|before| {
            let was = Labels::of(before);
            // They seldom change.
            is.as_ref().filter(|is| ***is == was).cloned().unwrap_or_else(|| Arc::new(was))
        });
        Self { key, version, was, is, text: text.into() }
    }
}

// === impl Recent ===

impl Recent {
    /// Begins after `version`.
    pub(super) fn after(version: u64) -> Self {
        let kept = Kept { forgotten: version, ..Kept::default() };
        Self { kept: Arc::new(Mutex::new(kept)), newest: watch::Sender::new(version) }
    }

    /// Takes in changes, each of a later version than all before.
    pub(super) fn add(&self, changes: Vec<Change>) {
        let Some(newest) = changes.last().map(|change| change.version) else { return };
        let mut kept = lock(&self.kept);
        for change in changes {
            kept.bytes += change.text.len();
            kept.changes.push_back(Arc::new(change));
        }
        kept.shrink();
        drop(kept);
        self.newest.send_replace(newest);
    }

    /// What changed after `version`, and what will.
    ///
    /// # Errors
    ///
    /// When not all of it is known any more.
    pub(super) fn follow(&self, version: u64) -> Result<Following, Refused> {
        let mut following = Following {
            kept: Arc::clone(&self.kept),
            newest: self.newest.subscribe(),
            taken: VecDeque::new(),
            at: version,
        };
        following.take().map_err(|_| Refused::expired())?;
        Ok(following)
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Kept ===

impl Kept {
    fn shrink(&mut self) {
        while self.changes.len() > MOST || (self.bytes > MOST_BYTES && self.changes.len() > 1) {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.bytes -= oldest.text.len();
            self.forgotten = oldest.version;
        }
    }
}

// === impl Following ===

impl Following {
    /// The version of the newest change that was given.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next change, once there is one.
    pub(super) async fn next(&mut self) -> Result<Arc<Change>, Over> {
        loop {
            if let Some(change) = self.taken.pop_front() {
                self.at = change.version;
                return Ok(change);
            }
            self.newest.borrow_and_update();
            self.take()?;
            if self.taken.is_empty() && self.newest.changed().await.is_err() {
                return Err(Over::Closed);
            }
        }
    }

    fn take(&mut self) -> Result<(), Over> {
        let kept = lock(&self.kept);
        if self.at < kept.forgotten {
            return Err(Over::Expired);
        }
        let first = kept.changes.partition_point(|change| change.version <= self.at);
        self.taken.extend(kept.changes.range(first..).take(AT_ONCE).cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::kinds::KINDS;

    fn change(version: u64, bytes: usize) -> Change {
        let key = Key { kind: &KINDS[0], namespace: "n".to_owned(), name: "one".to_owned() };
        Change::new(key, version, None, Some(&json!({})), "x".repeat(bytes))
    }

    #[tokio::test]
    async fn whoever_is_far_behind_is_told_so_and_everybody_else_gets_all_in_order() {
        let recent = Recent::after(6);
        let (mut slow, mut quick) = (recent.follow(6).expect("known"), recent.follow(6).expect("known"));
        assert!(recent.follow(5).is_err(), "what was before the start is not known");
        for version in 7..=200 {
            recent.add(vec![change(version, MOST_BYTES / 100)]);
            assert_eq!(quick.next().await.expect("the change").version, version);
        }
        assert!(matches!(slow.next().await, Err(Over::Expired)));
        let mut late = recent.follow(150).expect("known");
        for version in 151..=200 {
            assert_eq!((late.next().await.expect("the change").version, late.at()), (version, version));
        }
        drop(recent);
        assert!(matches!(late.next().await, Err(Over::Closed)));
    }

    #[tokio::test]
    async fn one_change_is_kept_however_large_it_is() {
        let recent = Recent::after(0);
        let mut following = recent.follow(0).expect("known");
        recent.add(vec![change(1, MOST_BYTES + 1)]);
        assert_eq!(following.next().await.expect("the change").version, 1);
        assert!(recent.follow(0).is_ok());
    }

    #[test]
    fn labels_that_stay_are_kept_once() {
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        let key = change(1, 0).key;
        let change = Change::new(key, 1, Some(&object), Some(&object), String::new());
        assert!(change.was.as_ref().zip(change.is.as_ref()).is_some_and(|(was, is)| Arc::ptr_eq(was, is)));
        assert_eq!(change.is.and_then(|labels| labels.get("a").map(str::to_owned)).as_deref(), Some("b"));
    }
}
