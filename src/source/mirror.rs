//! A bare copy of all branches and tags of the remote, which can be lost at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use git2::{Oid, Repository, RepositoryInitOptions};

use super::error::plain;
use super::remote::{self, Listing};
use super::store::{COMMIT, commit_id, oid};
use super::{SourceConfig, SourceError, Store, hermetic, sweep};
use crate::model::CommitId;

/// Where commits are held that the remote may have dropped.
const ACCEPTED: &str = "refs/backstay/accepted/";

/// A bare, full copy of all branches and tags of the remote.
///
/// # Guarantees
///
/// One process at a time keeps a mirror. What a killed process left is swept; a mirror that is gone or damaged is made
/// anew. References are moved only when all their objects are there, so that a reader never meets half a commit. Ends
/// with the last value; nothing of it must survive.
///
/// # Assumptions
///
/// Its methods block, for as long as [`super::Limits`] says. One of them talks to the remote at a time, the others
/// wait. Timeouts and further certificates hold for the whole process.
#[derive(Debug)]
pub struct Mirror {
    folder: PathBuf,
    config: SourceConfig,
    store: Store,
    network: Mutex<Kept>,
    /// Held while a reference of our own is written: of two at once, Git refuses one.
    references: Mutex<()>,
}

/// What is held while the mirror is kept.
#[derive(Debug, Default)]
struct Kept {
    lock: Option<File>,
    /// The mirror was made, and nothing was fetched into it yet.
    fresh: bool,
}

/// The references whose movement is worth a fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Branches, by short name.
    pub branches: BTreeSet<String>,
    /// Tags, by short name or glob with `*`.
    pub tags: BTreeSet<String>,
    /// Commits that are pinned: while one is missing, any movement is worth a fetch.
    pub commits: BTreeSet<CommitId>,
}

/// What one look at the remote brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polled {
    /// All branches and tags in the mirror, by full name, and the commits they come to. Tags of something else than a
    /// commit are left out.
    pub tips: BTreeMap<String, CommitId>,
    /// Whether objects were fetched.
    pub fetched: bool,
    /// Whether the mirror had to be made anew.
    pub renewed: bool,
    /// Whether the remote shows no branch and no tag. The mirror then keeps those it had.
    pub empty: bool,
    /// References of the remote with a name that cannot be used.
    pub ignored: usize,
}

// === impl Followed ===

impl Followed {
    /// Only a branch.
    pub fn branch(name: &str) -> Self {
        Self { branches: BTreeSet::from([name.to_owned()]), ..Self::default() }
    }

    fn matches(&self, reference: &str) -> bool {
        if let Some(branch) = reference.strip_prefix("refs/heads/") {
            self.branches.contains(branch)
        } else if let Some(tag) = reference.strip_prefix("refs/tags/") {
            self.tags.iter().any(|pattern| super::resolve::glob(pattern, tag))
        } else {
            false
        }
    }
}

// === impl Mirror ===

impl Mirror {
    /// Opens the mirror in `folder`, or makes it. Nothing is asked of the remote. A folder that cannot be written now (a
    /// full disk, one that can only be read) is tried again by each look, which says so.
    ///
    /// # Errors
    ///
    /// The configuration does not fit together, or another process keeps the mirror.
    pub fn open(folder: impl Into<PathBuf>, config: SourceConfig) -> Result<Self, SourceError> {
        hermetic::seal()?;
        config.check()?;
        let folder = folder.into();
        let store = Store::at(folder.join("mirror.git"));
        let mirror = Self { folder, config, store, network: Mutex::default(), references: Mutex::default() };
        let kept = mirror.keep_alive(&mut mirror.network());
        match kept {
            Err(busy @ SourceError::Busy { .. }) => Err(busy),
            Ok(()) | Err(_) => Ok(mirror),
        }
    }

    /// What is read from it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How it was set up.
    pub fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Looks at the remote, and fetches when one of `followed` moved, or the mirror is new or damaged.
    ///
    /// # Guarantees
    ///
    /// After an error the mirror is as it was. A remote that shows nothing changes nothing.
    pub fn poll(&self, followed: &Followed) -> Result<Polled, SourceError> {
        let mut kept = self.network();
        self.keep_alive(&mut kept)?;
        if !self.store.is_damaged() {
            match self.update(&self.store, followed, kept.fresh) {
                Err(SourceError::Damaged { .. }) => {}
                result => {
                    kept.fresh &= result.is_err();
                    return result;
                }
            }
        }
        let polled = self.remake()?;
        kept.fresh = false;
        Ok(polled)
    }

    /// Holds a commit under `key`, so that it stays in the mirror when the remote drops it.
    pub fn hold(&self, key: &str, commit: &CommitId) -> Result<(), SourceError> {
        let name = held_name(key);
        let _alone = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.with(|repository| {
            let commit = self.store.find(repository, commit)?;
            let failed = |error: git2::Error| self.store.failed("hold a commit", &error);
            if repository.refname_to_id(&name).is_ok_and(|held| held == commit.id()) {
                return Ok(());
            }
            repository.reference(&name, commit.id(), true, "accepted").map(drop).map_err(failed)
        })
    }

    /// Lets go of the commit that is held under `key`.
    pub fn release(&self, key: &str) -> Result<(), SourceError> {
        let _alone = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.with(|repository| match repository.find_reference(&held_name(key)) {
            Ok(mut reference) => reference.delete().map_err(|error| self.store.failed("let go of a commit", &error)),
            Err(_) => Ok(()),
        })
    }

    /// Brings back a commit that the mirror lost and no reference of the remote holds any more, where the remote
    /// gives out commits by id.
    ///
    /// # Errors
    ///
    /// [`SourceError::Lost`] when the remote does not.
    pub fn recover(&self, reference: &str, commit: &CommitId) -> Result<(), SourceError> {
        if self.store.contains(commit)? {
            return Ok(());
        }
        let mut kept = self.network();
        self.keep_alive(&mut kept)?;
        let lost = || SourceError::Lost { reference: reference.to_owned(), commit: commit.clone() };
        if self.config.url.local().is_some() {
            // A path gives whole references only.
            return self.recover_from_path(commit)?.then_some(()).ok_or_else(lost);
        }
        let wanted = format!("{commit}:{}", held_name(reference));
        let asked =
            self.store.with(|repository| remote::fetch(repository, &self.config, &self.folder, |_| Ok(vec![wanted])));
        match asked {
            Ok(_) if self.store.contains(commit)? => Ok(()),
            Ok(_) | Err(SourceError::Remote { .. } | SourceError::Internal { .. }) => Err(lost()),
            Err(error) => Err(error),
        }
    }

    /// Copies a commit that is still an object of the folder, with all that belongs to it.
    fn recover_from_path(&self, commit: &CommitId) -> Result<bool, SourceError> {
        let (Some(path), Some(id)) = (self.config.url.local(), oid(commit)) else { return Ok(false) };
        let Ok(from) = Repository::open(path) else { return Ok(false) };
        if from.find_commit(id).is_err() {
            return Ok(false);
        }
        let copied = super::push::copy(&from, self.store.git_dir(), id, &[]);
        copied.map_err(|error| self.store.failed("copy a commit", &error))?;
        self.store.contains(commit)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until nobody else talks to the remote.
    pub(super) fn exclusive(&self) -> impl Drop + '_ {
        struct Held<'a>(#[expect(dead_code, reason = "held until dropped")] MutexGuard<'a, Kept>);
        impl Drop for Held<'_> {
            fn drop(&mut self) {}
        }
        Held(self.network())
    }

    fn network(&self) -> MutexGuard<'_, Kept> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the folder, its lock and a mirror are there.
    fn keep_alive(&self, kept: &mut Kept) -> Result<(), SourceError> {
        let git_dir = self.store.git_dir();
        let lock = self.folder.join("lock");
        let opened = kept.lock.is_some() && lock.exists();
        if !opened {
            fs::create_dir_all(&self.folder).map_err(|error| file("create", &self.folder, &error))?;
            let open = File::options().write(true).create(true).truncate(false).open(&lock);
            let open = open.map_err(|error| file("open", &lock, &error))?;
            match open.try_lock() {
                Ok(()) => kept.lock = Some(open),
                Err(TryLockError::WouldBlock) => return Err(SourceError::Busy { folder: self.folder.clone() }),
                Err(TryLockError::Error(error)) => return Err(file("lock", &lock, &error)),
            }
        }
        let whole = git_dir.join("HEAD").is_file() && git_dir.join("objects").is_dir() && git_dir.join("refs").is_dir();
        if whole {
            if opened {
                return Ok(());
            }
            sweep::leftovers(git_dir)?;
            if Repository::open_bare(git_dir).is_ok_and(|repository| !repository.is_shallow()) {
                return Ok(());
            }
        }
        remove(git_dir)?;
        init(git_dir)?;
        self.store.renew();
        kept.fresh = true;
        Ok(())
    }

    /// Brings a repository up to the remote.
    fn update(&self, store: &Store, followed: &Followed, renewed: bool) -> Result<Polled, SourceError> {
        store.with(|repository| {
            let failed = |error: git2::Error| store.failed("read the mirror's references", &error);
            let before = references(repository).map_err(failed)?;
            let mut fetched = false;
            let listing = remote::fetch(repository, &self.config, &self.folder, |listing| {
                fetched = renewed || worth(repository, &before, listing, followed);
                fetched &= !listing.refs.is_empty();
                let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
                Ok(if fetched { all.map(str::to_owned).to_vec() } else { Vec::new() })
            })?;
            let empty = listing.refs.is_empty();
            if fetched {
                self.move_references(store, repository, &before, &listing)?;
                match sweep::packs(repository) {
                    Ok(0) => {}
                    Ok(_) => store.reopen(),
                    Err(error) => return Err(store.failed("join packs", &error)),
                }
            }
            let tips = tips(repository).map_err(failed)?;
            Ok(Polled { tips, fetched, renewed, empty, ignored: listing.ignored })
        })
    }

    /// Sets the mirror's references to those of the remote, now that the objects are there.
    fn move_references(
        &self,
        store: &Store,
        repository: &Repository,
        before: &BTreeMap<String, Oid>,
        listing: &Listing,
    ) -> Result<(), SourceError> {
        let failed = |error: git2::Error| store.failed("move a reference of the mirror", &error);
        let odb = repository.odb().map_err(failed)?;
        odb.refresh().map_err(failed)?;
        if repository.is_shallow() || !has_whole_history(repository, before, listing) {
            // The mirror that there is keeps its own history.
            let cut = fs::remove_file(store.git_dir().join("shallow"));
            store.renew();
            store.note_damage();
            tracing::debug!(?cut, "the remote gave a part of its history");
            let why = "the remote gave no whole history: it may be a shallow clone, which `git fetch --unshallow` ends";
            return Err(SourceError::Damaged { why: why.to_owned() });
        }
        for (name, &id) in listing.refs.iter().filter(|(name, id)| before.get(*name) != Some(*id)) {
            if is_huge(&odb, id) {
                let url = self.config.url.to_string();
                return Err(SourceError::TooMuch { url, what: "bytes in one commit", limit: COMMIT });
            }
            if !is_whole(repository, id) {
                store.note_damage();
                return Err(SourceError::Damaged { why: format!("`{name}` came without its objects") });
            }
        }
        for name in before.keys().filter(|name| !listing.refs.contains_key(*name)) {
            if let Ok(mut reference) = repository.find_reference(name) {
                reference.delete().map_err(failed)?;
            }
        }
        for (name, &id) in &listing.refs {
            if before.get(name) != Some(&id) {
                repository.reference(name, id, true, "fetched").map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes the mirror anew beside the damaged one, saves from that what is held, and puts it in its place.
    fn remake(&self) -> Result<Polled, SourceError> {
        let (fresh, old) = (self.folder.join("fresh.git"), self.folder.join("old.git"));
        remove(&fresh)?;
        remove(&old)?;
        init(&fresh)?;
        let store = Store::at(fresh.clone());
        let polled = self.update(&store, &Followed::default(), true)?;
        self.save_held(&store);
        let git_dir = self.store.git_dir();
        if git_dir.exists() {
            fs::rename(git_dir, &old).map_err(|error| file("move", git_dir, &error))?;
        }
        fs::rename(&fresh, git_dir).map_err(|error| file("move", &fresh, &error))?;
        self.store.renew();
        remove(&old)?;
        Ok(polled)
    }

    /// Copies held commits from the damaged mirror, as far as they can be read.
    fn save_held(&self, into: &Store) {
        let Ok(from) = Repository::open_bare(self.store.git_dir()) else { return };
        let Ok(held) = from.references_glob(&format!("{ACCEPTED}*")) else { return };
        for reference in held.filter_map(Result::ok) {
            let (Ok(name), Some(id)) = (reference.name(), reference.target()) else { continue };
            let saved = into.with(|to| {
                let there = to.find_commit(id).is_ok();
                if !there {
                    super::push::copy(&from, into.git_dir(), id, &[])
                        .map_err(|error| SourceError::Damaged { why: plain(error.message()) })?;
                }
                to.reference(name, id, true, "accepted")
                    .map(drop)
                    .map_err(|error| SourceError::Damaged { why: plain(error.message()) })
            });
            if let Err(error) = saved {
                tracing::warn!(reference = name, %error, "a held commit was lost with the damaged mirror");
            }
        }
    }
}

/// The name that a held commit has: any key becomes a legal one.
fn held_name(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
    let mut name = String::from(ACCEPTED);
    for part in key.split('/') {
        if !name.ends_with('/') {
            name.push('/');
        }
        for byte in part.bytes() {
            if legal(byte) {
                name.push(char::from(byte));
            } else {
                // Writing to a text does not fail.
                let _ = write!(name, "={byte:02x}");
            }
        }
        // Keeps `a` and `a/b` apart, which Git cannot hold both.
        name.push('=');
    }
    name
}

/// Whether what the remote shows calls for a fetch.
fn worth(repository: &Repository, before: &BTreeMap<String, Oid>, listing: &Listing, followed: &Followed) -> bool {
    let mut names = before.keys().chain(listing.refs.keys());
    let moved = |name: &String| before.get(name) != listing.refs.get(name);
    if names.clone().any(|name| followed.matches(name) && moved(name)) {
        return true;
    }
    let missing = |commit: &CommitId| oid(commit).is_some_and(|id| repository.find_commit(id).is_err());
    followed.commits.iter().any(missing) && names.any(moved)
}

/// Whether an object is a commit or a tag of more bytes than are read.
fn is_huge(odb: &git2::Odb<'_>, id: Oid) -> bool {
    use git2::ObjectType::{Commit, Tag};
    odb.read_header(id).is_ok_and(|(size, kind)| matches!(kind, Commit | Tag) && size > COMMIT)
}

/// Whether an object and, for a commit, its folder can be read.
fn is_whole(repository: &Repository, id: Oid) -> bool {
    let Ok(object) = repository.find_object(id, None) else { return false };
    match object.peel_to_commit() {
        Ok(commit) => commit.tree().is_ok(),
        // A tag of something else is legal, and nobody's wish.
        Err(_) => object.kind() != Some(git2::ObjectType::Commit),
    }
}

/// Whether every commit between what the mirror had and what was listed is there: what moved how is told by its history.
fn has_whole_history(repository: &Repository, before: &BTreeMap<String, Oid>, listing: &Listing) -> bool {
    let Ok(mut walk) = repository.revwalk() else { return false };
    let commit = |id: Oid| repository.find_object(id, None).ok()?.peel_to_commit().ok().map(|commit| commit.id());
    let new = listing.refs.iter().filter(|(name, id)| before.get(*name) != Some(*id));
    // What is no commit, or came without its objects, is judged by itself.
    let new: Vec<_> = new.filter_map(|(_, id)| commit(*id)).collect();
    let pushed = new.into_iter().all(|id| walk.push(id).is_ok());
    before.values().filter_map(|id| commit(*id)).for_each(|id| drop(walk.hide(id)));
    pushed && walk.all(|step| step.is_ok())
}

/// Branches and tags, by full name.
fn references(repository: &Repository) -> Result<BTreeMap<String, Oid>, git2::Error> {
    let mut all = BTreeMap::new();
    for glob in ["refs/heads/*", "refs/tags/*"] {
        for reference in repository.references_glob(glob)? {
            let reference = reference?;
            if let (Ok(name), Some(id)) = (reference.name(), reference.target()) {
                all.insert(name.to_owned(), id);
            }
        }
    }
    Ok(all)
}

/// The commits that branches and tags come to. A reference to an object that is not there is an error.
fn tips(repository: &Repository) -> Result<BTreeMap<String, CommitId>, git2::Error> {
    let mut tips = BTreeMap::new();
    for (name, id) in references(repository)? {
        if let Ok(commit) = repository.find_object(id, None)?.peel_to_commit() {
            tips.insert(name, commit_id(commit.id()));
        }
    }
    Ok(tips)
}

fn init(git_dir: &Path) -> Result<(), SourceError> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).mkpath(true).initial_head("main");
    let failed = |error: git2::Error| SourceError::File {
        deed: "make the mirror",
        path: git_dir.to_owned(),
        why: plain(error.message()),
    };
    let repository = Repository::init_opts(git_dir, &options).map_err(failed)?;
    // The first step of a connection takes this setting from here alone.
    repository.config().and_then(|mut config| config.set_bool("http.followRedirects", false)).map_err(failed)
}

fn remove(folder: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file("remove", folder, &error)),
    }
}

fn file(deed: &'static str, path: &Path, error: &std::io::Error) -> SourceError {
    SourceError::File { deed, path: path.to_owned(), why: error.to_string() }
}
