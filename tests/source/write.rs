//! Commits made here: edits and reverts.

use backstay::model::{CommitId, Timestamp};
use backstay::source::{Draft, Edit, Person, Reverted, SourceError, Store, TreeError, WriteError};

use crate::at;
use crate::git::TestRepo;

fn store(repo: &TestRepo) -> Store {
    Store::open(&repo.path()).expect("a repository")
}

fn person(text: &str) -> Person {
    text.parse().expect("a person")
}

fn commit(draft: &Draft) -> Result<CommitId, WriteError> {
    let (author, committer) = (person("Alice Example <alice@example.com>"), person("Backstay <backstay@example.com>"));
    draft.commit(&author, &committer, "2026-11-24T10:00:00Z".parse::<Timestamp>().expect("a time"), "By us\n")
}

fn write(path: &str, text: &str) -> Edit {
    Edit::Write { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn restore(path: &str, from: &CommitId) -> Edit {
    Edit::Restore { path: path.to_owned(), from: from.clone() }
}

fn files(repo: &TestRepo, commit: &CommitId) -> Vec<String> {
    repo.git(&["ls-tree", "-r", "--name-only", commit.as_str()]).lines().map(str::to_owned).collect()
}

#[test]
fn edits_become_a_commit_as_git_would_make_it() {
    let repo = TestRepo::new();
    let old = repo.commit(&[("agents/a/agent.yaml", "1\n"), ("agents/a/prompts/s.md", "s\n"), ("b", "b\n")], "first");
    let base =
        repo.commit(&[("agents/a/agent.yaml", "2\n"), ("agents/a/new.md", "n\n"), ("agents/c/d/e", "e\n")], "second");
    let mut draft = store(&repo).draft(&base).expect("a draft");
    draft
        .edit(&[
            restore("agents/a", &old),
            write("pins/production.yaml", "pins: {}\n"),
            Edit::Remove { path: "agents/c/d/e".to_owned() },
            Edit::Remove { path: "nothing/here".to_owned() },
            restore("agents/x", &old),
        ])
        .expect("edits");
    assert_eq!(draft.changed().expect("changes").paths.len(), 4);
    assert!(draft.tree().find("pins/production.yaml").expect("found").is_some());
    let made = commit(&draft).expect("a commit");
    assert_eq!(files(&repo, &made), ["agents/a/agent.yaml", "agents/a/prompts/s.md", "b", "pins/production.yaml"]);
    assert_eq!(repo.git(&["show", &format!("{made}:agents/a/agent.yaml")]), "1");
    let who = repo.git(&["log", "-1", "--format=%an <%ae> %cn <%ce> %P %s", made.as_str()]);
    assert_eq!(who, format!("Alice Example <alice@example.com> Backstay <backstay@example.com> {base} By us"));
    repo.git(&["fsck", "--strict", made.as_str()]);
}

#[test]
fn what_would_do_harm_is_no_commit() {
    let repo = TestRepo::with_one_commit();
    let root = repo.id("main");
    let store = store(&repo);
    let draft = || store.draft(&root).expect("a draft");
    assert_eq!(commit(&draft()), Err(WriteError::Unchanged));
    let mut same = draft();
    same.edit(&[write("a.txt", "one\n")]).expect("an edit");
    assert_eq!(commit(&same), Err(WriteError::Unchanged));
    let mut none = draft();
    none.edit(&[Edit::Remove { path: "a.txt".to_owned() }]).expect("an edit");
    assert_eq!(commit(&none), Err(WriteError::Empty));
    assert_eq!(draft().revert(std::slice::from_ref(&root)), Err(WriteError::Root(root.clone())));
    for bad in ["", "../x", ".git/hooks/x", "a\nb", "/a"] {
        assert!(matches!(draft().edit(&[write(bad, "x")]), Err(WriteError::Path(TreeError::Name { .. }))), "{bad:?}");
    }
    assert!(matches!(draft().edit(&[write("a.txt/b", "x")]), Err(WriteError::Path(TreeError::Kind { .. }))));
    let nowhere: CommitId = "12".repeat(20).parse().expect("an id");
    assert!(matches!(store.draft(&nowhere), Err(SourceError::NoCommit { .. })));
    assert!(draft().edit(&[restore("a.txt", &nowhere)]).is_err());
    let wrong = Person { name: String::new(), email: "x".to_owned() };
    let mut fine = draft();
    fine.edit(&[write("b", "b\n")]).expect("an edit");
    assert!(matches!(fine.commit(&wrong, &wrong, Timestamp::UNIX_EPOCH, "m"), Err(WriteError::Person(_))));
}

// D10, D11
#[test]
fn reverts_take_back_what_a_commit_did_and_keep_the_rest() {
    let repo = TestRepo::new();
    repo.commit(&[("a.md", "1\n2\n3\n4\n5\n6\n7\n8\n9\n"), ("b.md", "b\n")], "first");
    let bad = repo.commit(&[("a.md", "1\nBAD\n3\n4\n5\n6\n7\n8\n9\n"), ("bad.md", "bad\n")], "bad");
    let later = repo.commit(&[("a.md", "1\nBAD\n3\n4\n5\n6\n7\n8\nnine\n"), ("b.md", "better\n")], "later");
    let store = store(&repo);
    let mut draft = store.draft(&later).expect("a draft");
    assert_eq!(draft.revert(std::slice::from_ref(&bad)), Ok(Reverted::Clean));
    let made = commit(&draft).expect("a commit");
    assert_eq!(repo.git(&["show", &format!("{made}:a.md")]), "1\n2\n3\n4\n5\n6\n7\n8\nnine");
    assert_eq!(files(&repo, &made), ["a.md", "b.md"]);
    // The very folder that `git revert` makes.
    let theirs = repo.revert(&[&bad]);
    let tree = |commit: &CommitId| repo.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
    assert_eq!(tree(&made), tree(&theirs));
    let mut again = store.draft(&made).expect("a draft");
    assert_eq!(again.revert(std::slice::from_ref(&bad)), Ok(Reverted::Clean));
    assert_eq!(commit(&again), Err(WriteError::Unchanged), "it is taken back already");
}

#[test]
fn several_reverts_and_a_merge() {
    let repo = TestRepo::new();
    let first = repo.commit(&[("a.md", "1\n"), ("b.md", "b\n")], "first");
    let two = repo.commit(&[("a.md", "2\n")], "two");
    let three = repo.commit(&[("a.md", "3\n")], "three");
    repo.force("side", &three);
    repo.commit_on("side", &[("side.md", "side\n")], "side one");
    repo.commit_on("side", &[("b.md", "side\n")], "side two");
    repo.commit(&[("c.md", "c\n")], "meanwhile");
    let merge = repo.merge("side");
    let store = store(&repo);
    let mut draft = store.draft(&merge).expect("a draft");
    assert_eq!(draft.revert(&[merge.clone(), three, two]), Ok(Reverted::Clean));
    let made = commit(&draft).expect("a commit");
    assert_eq!(files(&repo, &made), ["a.md", "b.md", "c.md"]);
    let checkout = store.checkout(&at("main", &made)).expect("a checkout");
    assert_eq!(crate::text(&checkout, "a.md").as_deref(), Some("1\n"));
    assert_eq!(crate::text(&checkout, "b.md").as_deref(), Some("b\n"));
    assert!(store.is_ancestor(&first, &made).expect("walked"));
}

// D10
#[test]
fn a_conflict_is_said_and_leaves_the_draft() {
    let repo = TestRepo::new();
    repo.commit(&[("a.md", "1\n")], "first");
    let bad = repo.commit(&[("a.md", "2\n")], "bad");
    let tip = repo.commit(&[("a.md", "3\n")], "later, on the same line");
    let store = store(&repo);
    let mut draft = store.draft(&tip).expect("a draft");
    let Reverted::Conflict(conflict) = draft.revert(std::slice::from_ref(&bad)).expect("no failure") else {
        panic!("no conflict")
    };
    assert_eq!((conflict.commit, conflict.paths), (bad, vec!["a.md".to_owned()]));
    assert_eq!(commit(&draft), Err(WriteError::Unchanged));
    repo.switch("main");
    let moved = repo.commit(&[("a.md", ""), ("moved.md", "3\n")], "moved");
    let mut draft = store.draft(&moved).expect("a draft");
    assert!(matches!(draft.revert(&[tip]), Ok(Reverted::Conflict(_))), "renames are not guessed");
}
