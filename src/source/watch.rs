//! Being told of changes in a repository that is a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::Bell;

/// Rings whenever references of a folder's repository change.
///
/// The poll is the truth: where nothing can be watched, only time is lost.
pub(super) struct Watch {
    path: PathBuf,
    bell: Arc<Bell>,
    armed: Option<(Vec<(u64, u64)>, RecommendedWatcher)>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(path: &Path, bell: Arc<Bell>) -> Self {
        let mut watch = Self { path: path.to_owned(), bell, armed: None };
        watch.renew();
        watch
    }

    /// Watches again when the folder is another one than before: deleted and made anew.
    pub(super) fn renew(&mut self) {
        let Ok(repository) = git2::Repository::open(&self.path) else {
            self.armed = None;
            return;
        };
        let git_dir = repository.commondir().to_owned();
        let refs = git_dir.join("refs");
        let identity: Vec<_> = [&git_dir, &refs].into_iter().filter_map(|path| identity(path)).collect();
        if self.armed.as_ref().is_some_and(|(armed, _)| *armed == identity) {
            return;
        }
        self.armed = None;
        match arm(&git_dir, &refs, Arc::clone(&self.bell)) {
            Ok(watcher) => self.armed = Some((identity, watcher)),
            Err(error) => tracing::debug!(%error, "the repository's folder cannot be watched; it is polled"),
        }
    }
}

fn arm(git_dir: &Path, refs: &Path, bell: Arc<Bell>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Our own reading is an access.
        let read = event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_)));
        if !read {
            bell.ring();
        }
    })?;
    // The folder, not the file: `packed-refs` is replaced as a whole.
    watcher.watch(git_dir, RecursiveMode::NonRecursive)?;
    watcher.watch(refs, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}
