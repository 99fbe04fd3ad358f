//! A person's checkout and the repository that it is pushed to, without the program `git`.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{Commit, Repository, RepositoryInitOptions, Signature};
use serde::Serialize;

use crate::cli::{CliError, Exit};

const BRANCH: &str = "refs/heads/main";

/// A checkout with the remote `origin`.
pub(super) struct Checkout {
    repository: Repository,
    folder: PathBuf,
    account: String,
}

/// A text in a file that becomes another one, as `sed` would do it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

/// A commit, as `git log` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Logged {
    pub(super) id: String,
    pub(super) author: String,
    pub(super) message: String,
}

// === impl Edit ===

impl Edit {
    pub(super) const fn new(file: &'static str, from: &'static str, to: &'static str) -> Self {
        Self { file, from, to }
    }

    /// The command that does the same.
    pub(super) fn command(&self) -> String {
        let line = |text: &str| text.replace('\n', "\\n");
        format!("sed -i 's/{}/{}/' {}", line(self.from), line(self.to), self.file)
    }

    fn applied(&self, text: &str) -> Option<String> {
        text.contains(self.from).then(|| text.replacen(self.from, self.to, 1))
    }
}

// === impl Checkout ===

impl Checkout {
    /// Makes a bare repository and a checkout of it with `files`, committed by `account` and not yet pushed.
    pub(super) fn create(bare: &Path, folder: &Path, files: &[(&str, &str)], account: &str) -> Result<Self, CliError> {
        let failed = |deed: &'static str| move |error| broken(deed, error);
        let options = || {
            let mut options = RepositoryInitOptions::new();
            options.initial_head("main").external_template(false);
            options
        };
        Repository::init_opts(bare, options().bare(true)).map_err(failed("make the repository"))?;
        let repository = Repository::init_opts(folder, &options()).map_err(failed("make the checkout"))?;
        let configured = repository.config().and_then(|mut config| {
            // So that `git commit` works for whoever plays on, and `git push` needs no more words.
            config.set_str("user.name", account)?;
            config.set_str("user.email", &format!("{account}@localhost"))?;
            config.set_bool("commit.gpgsign", false)?;
            config.set_str("branch.main.remote", "origin")?;
            config.set_str("branch.main.merge", BRANCH)
        });
        configured.map_err(failed("set up the checkout"))?;
        repository.remote("origin", &bare.display().to_string()).map_err(failed("set up the checkout"))?;
        let checkout = Self { repository, folder: folder.to_owned(), account: account.to_owned() };
        for (path, text) in files {
            checkout.write(path, text)?;
        }
        checkout.commit("two agents, and where they run")?;
        Ok(checkout)
    }

    /// Makes edits and commits them; gives the short id of the commit.
    pub(super) fn change(&self, edits: &[Edit], message: &str) -> Result<String, CliError> {
        self.edit(edits)?;
        self.commit(message)
    }

    /// Makes edits in the files. What is to be replaced must be there.
    pub(super) fn edit(&self, edits: &[Edit]) -> Result<(), CliError> {
        for edit in edits {
            let path = self.folder.join(edit.file);
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| {
                CliError::new(Exit::Broken, format!("cannot read `{}`", path.display())).because(error)
            })?;
            let changed = edit.applied(&text).ok_or_else(|| {
                CliError::new(Exit::Broken, format!("`{}` does not say `{}` any more", path.display(), edit.from))
            })?;
            self.write(edit.file, &changed)?;
        }
        Ok(())
    }

    /// Adds lines to a file and commits that; gives the short id of the commit.
    pub(super) fn append(&self, file: &str, lines: &str, message: &str) -> Result<String, CliError> {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path);
        let text = text
            .map_err(|error| CliError::new(Exit::Broken, format!("cannot read `{}`", path.display())).because(error))?;
        self.write(file, &format!("{}\n{lines}", text.trim_end()))?;
        self.commit(message)
    }

    /// Writes the commit that takes the last one back, as `git revert` does.
    pub(super) fn revert(&self) -> Result<String, CliError> {
        self.reverted().map_err(|error| broken("revert the last commit", error))
    }

    /// Pushes the branch to `origin`.
    pub(super) fn push(&self) -> Result<(), CliError> {
        let pushed = self.repository.find_remote("origin").and_then(|mut origin| {
            let mut refused = None;
            let mut callbacks = git2::RemoteCallbacks::new();
            callbacks.push_update_reference(|_, why| {
                refused = why.map(str::to_owned);
                Ok(())
            });
            let mut options = git2::PushOptions::new();
            options.remote_callbacks(callbacks);
            origin.push(&[format!("{BRANCH}:{BRANCH}")], Some(&mut options))?;
            drop(options);
            refused.map_or(Ok(()), |why| Err(git2::Error::from_str(&why)))
        });
        pushed.map_err(|error| broken("push", error))
    }

    /// Takes in what others pushed, as `git pull --ff-only` does, and gives the newest commit.
    pub(super) fn pull(&self) -> Result<Logged, CliError> {
        self.pulled().map_err(|error| broken("pull", error))
    }

    fn pulled(&self) -> Result<Logged, git2::Error> {
        let spec = format!("{BRANCH}:refs/remotes/origin/main");
        self.repository.find_remote("origin")?.fetch(&[spec], None, None)?;
        let theirs = self.repository.find_reference("refs/remotes/origin/main")?.peel_to_commit()?;
        let ours = self.head()?.ok_or_else(|| git2::Error::from_str("there is no commit"))?;
        if ours.id() != theirs.id() && !self.repository.graph_descendant_of(theirs.id(), ours.id())? {
            return Err(git2::Error::from_str("the checkout has commits that were not pushed"));
        }
        self.repository.reference(BRANCH, theirs.id(), true, "pull")?;
        let mut force = git2::build::CheckoutBuilder::new();
        self.repository.checkout_head(Some(force.force()))?;
        let author = theirs.author();
        let [name, email] = [author.name(), author.email()].map(|part| part.unwrap_or_default().to_owned());
        let message = theirs.message().unwrap_or_default().trim_end().to_owned();
        Ok(Logged { id: theirs.id().to_string(), author: format!("{name} <{email}>"), message })
    }

    fn write(&self, path: &str, text: &str) -> Result<(), CliError> {
        let path = self.folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written
            .map_err(|error| CliError::new(Exit::Broken, format!("cannot write `{}`", path.display())).because(error))
    }

    fn commit(&self, message: &str) -> Result<String, CliError> {
        let committed = (|| {
            let mut index = self.repository.index()?;
            index.add_all(["*"], git2::IndexAddOption::DEFAULT, None)?;
            index.update_all(["*"], None)?;
            index.write()?;
            let tree = index.write_tree()?;
            self.record(tree, message)
        })();
        committed.map_err(|error| broken("commit", error))
    }

    fn reverted(&self) -> Result<String, git2::Error> {
        let last = self.head()?.ok_or_else(|| git2::Error::from_str("there is no commit"))?;
        let mut index = self.repository.revert_commit(&last, &last, 0, None)?;
        if index.has_conflicts() {
            return Err(git2::Error::from_str("the files have changed since"));
        }
        let tree = index.write_tree_to(&self.repository)?;
        let subject = last.summary()?.unwrap_or_default();
        let id = self.record(tree, &format!("Revert \"{subject}\"\n\nThis reverts commit {}.\n", last.id()))?;
        let mut force = git2::build::CheckoutBuilder::new();
        self.repository.checkout_head(Some(force.force()))?;
        Ok(id)
    }

    fn record(&self, tree: git2::Oid, message: &str) -> Result<String, git2::Error> {
        let tree = self.repository.find_tree(tree)?;
        let who = Signature::now(&self.account, &format!("{}@localhost", self.account))?;
        let parent = self.head()?;
        let parents: Vec<&Commit<'_>> = parent.iter().collect();
        let id = self.repository.commit(Some("HEAD"), &who, &who, message, &tree, &parents)?;
        Ok(id.to_string().chars().take(8).collect())
    }

    fn head(&self) -> Result<Option<Commit<'_>>, git2::Error> {
        match self.repository.head() {
            Ok(head) => head.peel_to_commit().map(Some),
            Err(error) if error.code() == git2::ErrorCode::UnbornBranch => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn broken(deed: &str, error: git2::Error) -> CliError {
    CliError::new(Exit::Broken, format!("cannot {deed}")).because(error)
}

#[cfg(test)]
mod tests {
    use super::super::files::EXAMPLE;
    use super::*;

    impl Checkout {
        fn open(bare: &Path, folder: &Path) -> Self {
            let repository = Repository::clone(bare.to_str().unwrap(), folder).unwrap();
            Self { repository, folder: folder.to_owned(), account: "bob".to_owned() }
        }
    }

    fn text(bare: &Path, file: &str) -> String {
        let bare = Repository::open(bare).unwrap();
        let tip = bare.find_reference(BRANCH).unwrap().peel_to_tree().unwrap();
        let entry = tip.get_path(Path::new(file)).unwrap();
        String::from_utf8(bare.find_blob(entry.id()).unwrap().content().to_vec()).unwrap()
    }

    #[test]
    fn what_is_pushed_changed_and_reverted_is_in_the_repository() {
        let outside = tempfile::tempdir().unwrap();
        let (bare, work) = (outside.path().join("agents.git"), outside.path().join("work"));
        let checkout = Checkout::create(&bare, &work, EXAMPLE, "alice").unwrap();
        checkout.push().unwrap();
        let file = "agents/support/prompts/system.md";
        let first = text(&bare, file);
        let edit = Edit::new(file, "three working days", "five working days");
        checkout.change(&[edit], "refunds take five days").unwrap();
        assert_eq!(text(&bare, file), first, "nothing is pushed yet");
        checkout.push().unwrap();
        assert!(text(&bare, file).contains("five working days"));
        let again = checkout.change(&[edit], "again").unwrap_err();
        assert!(again.to_string().contains("does not say `three working days`"), "{again}");

        checkout.revert().unwrap();
        checkout.push().unwrap();
        assert_eq!(text(&bare, file), first);
        assert_eq!(fs::read_to_string(work.join(file)).unwrap(), first, "the checkout follows");
        let tip = Repository::open(&bare)
            .unwrap()
            .find_reference(BRANCH)
            .unwrap()
            .peel_to_commit()
            .unwrap()
            .message()
            .unwrap()
            .to_owned();
        assert!(tip.starts_with("Revert \"refunds take five days\"\n\nThis reverts commit "), "{tip}");

        // Somebody else pushes, and the checkout follows.
        let other = Checkout::open(&bare, &outside.path().join("other"));
        other.change(&[edit], "refunds take five days, after all").unwrap();
        other.push().unwrap();
        let pulled = checkout.pull().unwrap();
        assert_eq!(pulled.message, "refunds take five days, after all");
        assert_eq!(pulled.author, "bob <bob@localhost>");
        assert!(fs::read_to_string(work.join(file)).unwrap().contains("five working days"));
        checkout.revert().unwrap();
        other.change(&[Edit::new(file, "five working days", "no time")], "no time").unwrap();
        other.push().unwrap();
        assert!(checkout.pull().is_err(), "what was not pushed is not thrown away");
        assert_eq!(edit.command(), "sed -i 's/three working days/five working days/' agents/support/prompts/system.md");
    }
}
