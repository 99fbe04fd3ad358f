//! What the supervisor looks after unasked: leftovers, and what others change behind its back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;

use super::run::Term;
use super::view::release_of;
use crate::keeper::folder;
use crate::sys;

/// Between two looks at what tells nothing by itself: the proxy, and the file of its table.
pub(super) const GLANCE: Duration = Duration::from_secs(2);

/// Between two tries to remove what could not be removed.
pub(super) const CLEAN: Duration = Duration::from_secs(5);

/// How long the proxy may take to answer when nothing is asked of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a file, or a folder with all that is in it, is on disk: another one when anybody wrote there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

// === impl Stamp ===

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut paths = vec![path.to_owned()];
        while let Some(path) = paths.pop() {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            (path.as_os_str(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()).hash(&mut hasher);
            if found.is_dir() {
                let mut within: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().collect();
                within.sort_by_key(fs::DirEntry::file_name);
                paths.extend(within.iter().map(fs::DirEntry::path));
            }
        }
        Self(hasher.finish())
    }
}

// === impl Term ===

impl Term {
    /// Whether something is to be done because the proxy does not answer, or somebody wrote into its table's file.
    pub(super) async fn glance(&mut self) -> bool {
        if self.active.is_none() || self.obstacle.is_some() {
            return false;
        }
        let asked = self.proxy.clone().patience(PATIENCE).state().await;
        let away = asked.err().map(|error| folder::told(&error));
        if let Some(why) = &away {
            tracing::warn!("the proxy does not answer: {why}");
        }
        self.obstacle = away;
        let edited = self.written.is_some_and(|written| written != Stamp::of(&self.shared.settings.table));
        if edited {
            tracing::warn!(table = %self.shared.settings.table.display(), "somebody changed the proxy's table; it is written anew");
            self.written = None;
        }
        edited || self.obstacle.is_some()
    }

    /// Ends what no Pod explains, and removes what no set has a use for; false if some of it is still there.
    pub(super) async fn sweep(&self) -> bool {
        let pods = self.stores.pods.state();
        let intents: BTreeMap<String, String> = pods
            .iter()
            .map(|pod| {
                let nonce = pod.uid().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
                (pod.name_any(), nonce)
            })
            .collect();
        let (root, epoch) = (self.shared.settings.state.join("instances"), self.shared.epoch);
        let launcher = self.shared.settings.launcher.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let mut all = true;
            for found in folder::find(&root, &intents)? {
                let name = found.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if intents.contains_key(&name) {
                    continue;
                }
                tracing::warn!(folder = %found.folder.display(), "nothing explains this instance: it is ended");
                if let Err(why) = launcher.end(&found.folder, epoch, Duration::from_mins(1)) {
                    tracing::warn!(folder = %found.folder.display(), "it does not end: {why}");
                    all = false;
                }
            }
            Ok::<_, io::Error>(all)
        });
        let swept = swept.await.unwrap_or(Ok(false)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for instances that nothing explains");
            false
        });
        self.tidy("").await && swept
    }

    /// Removes the folders of releases that no set but `gone` has a use for, and the logs of its instances; false if some of it
    /// is still there.
    pub(super) async fn tidy(&self, gone: &str) -> bool {
        let sets = self.stores.sets.state();
        let stay: Vec<_> = sets.iter().filter(|set| set.name_any() != gone).collect();
        let names: BTreeSet<String> = stay.iter().map(|set| set.name_any()).collect();
        let releases = stay.iter().filter_map(|set| release_of(set.spec.template.as_ref()?));
        let releases: BTreeSet<String> = releases.map(|release| hex(&release.digest().to_string())).collect();
        let state = self.shared.settings.state.clone();
        let tidied = tokio::task::spawn_blocking(move || {
            remove_others(&state.join("releases"), |name| releases.contains(name))?;
            for process in entries(&state.join("logs"))? {
                let of_set = |pod: &str| pod.rsplit_once('-').is_some_and(|(set, _)| names.contains(set));
                remove_others(&process, of_set)?;
            }
            Ok::<_, io::Error>(())
        });
        let tidied = tidied.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        tidied.inspect_err(|error| tracing::warn!(%error, "cannot remove what old releases left")).is_ok()
    }

    /// Tries again what could not be removed.
    pub(super) async fn clean(&mut self) {
        if self.untidy && self.cleaned.is_none_or(|cleaned| cleaned.elapsed() >= CLEAN) {
            self.untidy = !self.sweep().await;
            self.cleaned = Some(Instant::now());
        }
    }
}

/// A digest as it names a folder.
fn hex(digest: &str) -> String {
    digest.trim_start_matches("sha256:").to_owned()
}

/// Removes every entry of a folder that nobody wants by its name, and what another process left half-made.
fn remove_others(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in entries(folder)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let being_made = name.starts_with('.') && name.contains(&format!(".{}.", std::process::id()));
        if !being_made && !is_wanted(&name) {
            tracing::info!(folder = %entry.display(), "no release has a use for it any more: it is removed");
            sys::remove_tree(&entry)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_a_changed_file_within_a_folder_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("prompts")).expect("a folder");
        fs::write(folder.path().join("prompts/system.md"), "Greet.").expect("written");
        let before = Stamp::of(folder.path());
        assert_eq!(before, Stamp::of(folder.path()));
        fs::write(folder.path().join("prompts/system.md"), "Scold.").expect("written");
        assert_ne!(before, Stamp::of(folder.path()));
    }

    #[test]
    fn what_is_wanted_and_what_is_being_made_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let being_made = format!(".new.{}.1", std::process::id());
        for name in ["wanted", "old", ".old.0.1", &being_made] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        remove_others(folder.path(), |name| name == "wanted").expect("removed");
        let mut left: Vec<_> = entries(folder.path()).expect("a list");
        left.sort();
        assert_eq!(left, [folder.path().join(&being_made), folder.path().join("wanted")]);
    }
}
