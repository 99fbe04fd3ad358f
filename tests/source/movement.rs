//! S4: what happens when a reference moves against its history.

use backstay::model::{CommitId, Revision};
use backstay::source::{
    Checkout, Move, MovePolicy, NoVerification, NotVerified, Rewind, SourceError, Store, Track, Unverified, Verify,
};

use crate::git::TestRepo;
use crate::{TestMirror, at, config, main_and_tags, mirror};

fn main() -> Track {
    Track::Branch("main".to_owned())
}

/// Polls, and judges `main` from an accepted commit, under the given policy.
fn settle(mirror: &TestMirror, last: Option<&CommitId>, policy: &MovePolicy) -> backstay::source::Settled {
    mirror.poll(&main_and_tags()).expect("a poll");
    let last = last.map(|last| at("main", last));
    mirror.store().settle(&main(), last.as_ref(), policy).expect("settled")
}

fn refuse() -> MovePolicy {
    MovePolicy::default()
}

fn accept() -> MovePolicy {
    MovePolicy { rewind: Rewind::Accept, ..MovePolicy::default() }
}

fn once(commit: &CommitId) -> MovePolicy {
    MovePolicy { accepted: [commit.clone()].into(), ..MovePolicy::default() }
}

#[test]
fn forward_is_followed() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let mirror = mirror(config(repo.url()));
    assert_eq!(settle(&mirror, None, &refuse()).moved, Move::First);
    assert_eq!(settle(&mirror, Some(&first), &refuse()).moved, Move::Unchanged);
    repo.commit_on("side", &[("b.txt", "b\n")], "side");
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    let settled = settle(&mirror, Some(&first), &refuse());
    assert_eq!((settled.moved, settled.serve, settled.refused), (Move::Forward, Some(at("main", &tip)), None));
}

// S4
#[test]
fn a_force_push_is_refused_until_it_is_accepted() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let good = repo.commit(&[("a.txt", "two\n")], "second");
    let mirror = mirror(config(repo.url()));
    settle(&mirror, Some(&good), &refuse());

    repo.force("main", &base);
    let back = settle(&mirror, Some(&good), &refuse());
    assert_eq!(back.moved, Move::Rewound { base: Some(base.clone()) });
    assert_eq!(back.serve, Some(at("main", &good)));
    let refused = back.refused.expect("refused");
    assert_eq!(refused.to_string(), format!("`main` was taken back to {}; {} stays", base.short(), good.short()));
    assert!(refused.hint().contains(&format!("--accept-rewind {base}")), "{}", refused.hint());

    let rewritten = repo.commit(&[("a.txt", "three\n")], "another second");
    let settled = settle(&mirror, Some(&good), &refuse());
    assert_eq!(settled.moved, Move::Rewound { base: Some(base.clone()) });
    assert!(settled.refused.expect("refused").to_string().contains("rewritten"));
    assert_eq!(settle(&mirror, Some(&good), &accept()).serve, Some(at("main", &rewritten)));
    assert_eq!(settle(&mirror, Some(&good), &once(&rewritten)).serve, Some(at("main", &rewritten)));
    assert_eq!(settle(&mirror, Some(&good), &once(&base)).serve, Some(at("main", &good)), "another one was accepted");
}

// S4
#[test]
fn a_deleted_branch_stays_and_a_recreated_one_is_judged_by_its_history() {
    let repo = TestRepo::with_one_commit();
    let good = repo.id("main");
    repo.force("keep", &good);
    let mirror = mirror(config(repo.url()));
    settle(&mirror, Some(&good), &refuse());

    repo.delete_branch("main");
    for policy in [refuse(), accept()] {
        let settled = settle(&mirror, Some(&good), &policy);
        assert_eq!((settled.moved, settled.serve), (Move::Deleted, Some(at("main", &good))));
        let refused = settled.refused.expect("refused");
        assert!(refused.to_string().contains("was deleted") && refused.hint().contains("push"), "{refused}");
    }
    repo.force("main", &good);
    assert_eq!(settle(&mirror, Some(&good), &refuse()).moved, Move::Unchanged);

    repo.delete_branch("main");
    let unrelated = repo.commit(&[("z.txt", "z\n")], "another history");
    let settled = settle(&mirror, Some(&good), &refuse());
    assert_eq!((settled.moved, settled.serve), (Move::Unrelated, Some(at("main", &good))));
    assert!(settled.refused.expect("refused").to_string().contains("no history in common"));
    assert_eq!(settle(&mirror, Some(&good), &accept()).serve, Some(at("main", &unrelated)));
}

// S4
#[test]
fn an_empty_repository_is_nothing_and_later_keeps_what_was() {
    let repo = TestRepo::new();
    let mirror = mirror(config(repo.url()));
    let settled = settle(&mirror, None, &refuse());
    assert_eq!((settled.moved, settled.serve, settled.refused), (Move::Absent, None, None));
    let good = repo.commit(&[("a.txt", "one\n")], "first");
    assert_eq!(settle(&mirror, None, &refuse()).serve, Some(at("main", &good)));
    repo.delete_branch("main");
    let settled = settle(&mirror, Some(&good), &refuse());
    assert_eq!(settled.serve, Some(at("main", &good)), "an empty list is not `delete all`");
}

// S4
#[test]
fn a_moved_tag_is_refused_wherever_it_goes() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let second = repo.commit(&[("a.txt", "two\n")], "second");
    repo.annotated_tag("v1.0.0", &first);
    let mirror = mirror(config(repo.url()));
    let judge = |track: &Track, last: &Revision, policy: &MovePolicy| {
        mirror.poll(&main_and_tags()).expect("a poll");
        mirror.store().settle(track, Some(last), policy).expect("settled")
    };
    let last = at("v1.0.0", &first);
    let track = Track::Tag("v1.0.0".to_owned());
    assert_eq!(judge(&track, &last, &refuse()).moved, Move::Unchanged);
    repo.annotated_tag("v1.0.0", &second);
    let all = Track::Tags { pattern: "v*".to_owned(), exclude: [].into() };
    for track in [&track, &all] {
        let settled = judge(track, &last, &refuse());
        assert_eq!((settled.moved, settled.serve), (Move::MovedTag, Some(last.clone())));
        assert!(settled.refused.expect("refused").to_string().contains("was moved"));
        assert_eq!(judge(track, &last, &accept()).serve, Some(at("v1.0.0", &second)));
    }
    // Asking for another tag is a commit of its own.
    assert_eq!(judge(&Track::Tag("v1.0.0".to_owned()), &at("v0.9.0", &second), &refuse()).moved, Move::Chosen);
}

#[test]
fn of_several_tags_the_next_one_is_followed_and_a_deleted_one_kept() {
    let repo = TestRepo::with_one_commit();
    let (old, new) = (repo.id("main"), repo.commit(&[("a.txt", "two\n")], "second"));
    repo.tag("v1.4.0", &old);
    repo.tag("v1.5.0", &new);
    let mirror = mirror(config(repo.url()));
    let judge = |exclude: &[&str], last: &Revision| {
        mirror.poll(&main_and_tags()).expect("a poll");
        let exclude = exclude.iter().map(|&tag| tag.to_owned()).collect();
        let track = Track::Tags { pattern: "v*".to_owned(), exclude };
        mirror.store().settle(&track, Some(last), &refuse()).expect("settled")
    };
    assert_eq!(judge(&[], &at("v1.4.0", &old)).moved, Move::Forward);
    let back = judge(&["v1.5.0"], &at("v1.5.0", &new));
    assert_eq!((back.moved, back.serve), (Move::Chosen, Some(at("v1.4.0", &old))), "Git asks for it");
    repo.delete_tag("v1.5.0");
    let gone = judge(&[], &at("v1.5.0", &new));
    assert_eq!((gone.moved, gone.serve), (Move::Deleted, Some(at("v1.5.0", &new))));
    assert!(gone.refused.is_some());
    let none = judge(&["v1.5.0", "v1.4.0"], &at("v1.5.0", &new));
    assert_eq!((none.moved, none.serve), (Move::Absent, None), "all are passed over");
}

// S4, S5
#[test]
fn an_accepted_commit_survives_the_mirror_or_its_loss_is_said() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let good = repo.commit(&[("a.txt", "two\n")], "second");
    let mirror = mirror(config(repo.url()));
    settle(&mirror, Some(&good), &refuse());
    repo.force("main", &base);
    std::fs::remove_dir_all(mirror.folder.path().join("mirror")).expect("the mirror");
    mirror.poll(&main_and_tags()).expect("a poll");
    let settle = || mirror.store().settle(&main(), Some(&at("main", &good)), &refuse());
    assert!(matches!(settle(), Err(SourceError::Lost { .. })));
    mirror.recover("main", &good).expect("still an object over there");
    assert_eq!(settle().expect("settled").serve, Some(at("main", &good)));

    repo.git(&["reflog", "expire", "--expire=now", "--all"]);
    repo.git(&["gc", "-q", "--prune=now"]);
    std::fs::remove_dir_all(mirror.folder.path().join("mirror")).expect("the mirror");
    mirror.poll(&main_and_tags()).expect("a poll");
    let error = mirror.recover("main", &good).expect_err("gone");
    assert!(matches!(error, SourceError::Lost { .. }), "{error:?}");
    assert!(error.hint().expect("a way out").contains("--accept-rewind"));
    let accepted = mirror.store().settle(&main(), Some(&at("main", &good)), &once(&base)).expect("settled");
    assert_eq!(accepted.serve, Some(at("main", &base)));
}

/// Lets nothing through.
struct Nothing;

impl Verify for Nothing {
    fn verify(&self, _: &Store, checkout: &Checkout, _: Option<&CommitId>) -> Result<(), Unverified> {
        Err(Unverified { commit: checkout.commit.id.clone(), why: "nothing passes".to_owned() })
    }
}

// S1
#[test]
fn only_what_the_verifier_lets_through_comes_out() {
    let repo = TestRepo::with_one_commit();
    let tip = repo.id("main");
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    let revision = at("main", &tip);
    let verified = mirror.store().verified(&revision, None, &NoVerification).expect("verified");
    assert_eq!(verified.commit.id, tip);
    assert_eq!(verified.commit.author, "Alice Example <alice@example.com>");
    let error = mirror.store().verified(&revision, None, &Nothing).expect_err("unverified");
    assert!(matches!(error, NotVerified::Unverified(_)), "{error:?}");
    let nowhere = at("main", &"0".repeat(40).parse().expect("an id"));
    let error = mirror.store().verified(&nowhere, None, &NoVerification).expect_err("no commit");
    assert!(matches!(error, NotVerified::Source(SourceError::NoCommit { .. })), "{error:?}");
}
