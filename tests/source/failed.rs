//! D9, D10: what is written when a release failed: which commits are taken back, and what the commit says.

use std::collections::BTreeMap;

use backstay::daemon::write_back::{CannotTell, Way, Written};
use backstay::desired::WriteBack;
use backstay::model::CommitId;
use backstay::reconcile::FailureKind;
use backstay::record::Evidence;
use backstay::revert::{History, Step, evidence, named, paths_of, trailers};

use crate::back::{Back, agent_yaml, production, repository};
use crate::git::TestRepo;

const LOUD: (&str, &str) = ("agents/a/system.md", "Be loud.\n");

/// What the daemon sees when the commit comes back by a poll: from where the failed release was tried, to the tip.
fn seen(back: &Back<'_>, from: &CommitId, to: &CommitId) -> (Evidence, Vec<CommitId>) {
    let store = back.mirror.store();
    let walk = store.commits_between(from, to, 200).expect("a way");
    assert!(walk.reached);
    let step = |info: backstay::source::CommitInfo| {
        let changed = store.changed_paths(&info.id).expect("changes");
        Step { info, changed }
    };
    let steps: Vec<_> = walk.commits.into_iter().map(step).collect();
    let mut earlier: Vec<_> = steps.iter().map(|step| step.info.clone()).collect();
    let mut at = Some(from.clone());
    while let Some(id) = at {
        let info = store.commit(&id).expect("a commit");
        at = info.parents.first().cloned();
        earlier.push(info);
    }
    let claimed = steps.iter().flat_map(|step| named(&step.info.message).among(&earlier));
    let changed: BTreeMap<_, _> = claimed.map(|id| (id.clone(), store.changed_paths(&id).expect("changes"))).collect();
    let history = History { steps, earlier, changed };
    evidence(&history, &paths_of(&back.agent.parse().expect("a name"), &production()))
}

/// The commits that the tip's message says that it takes back.
fn taken_back(back: &Back<'_>) -> Vec<String> {
    named(&back.message()).commits
}

fn subjects(repo: &TestRepo) -> String {
    repo.git(&["log", "--format=%s", "main"])
}

#[test]
fn the_commit_says_all_and_is_known_again_as_a_verified_revert() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[LOUD, ("docs/loud.md", "Loud.\n")], "Be loud");
    repo.commit(&[("agents/b/system.md", "Be briefer.\n")], "Another agent");
    let back = Back::failed(&repo, "a", &good, &bad);
    let (commit, way) = back.done();
    assert_eq!(way, Way::Reverted);
    let message = back.message();
    let left = back.request().left.digest();
    let expected = format!(
        "Revert \"Be loud\"\n\nThis reverts commit {bad}.\n\n`a` failed: too many errors\n\n- errors 4.1 % of 2,000 \
         requests\n\nLeft {} for {}.\n\nBackstay-Agent: a\nBackstay-Environment: prod\nBackstay-Release: {left}\n\
         Backstay-Reason: error_rate_high",
        back.request().left,
        back.request().back_to.release
    );
    assert_eq!(message, expected);
    let read = repo.git(&["log", "-1", "--format=%(trailers:key=Backstay-Reason,valueonly)", "main"]);
    assert_eq!(read, "error_rate_high", "git reads the trailers too");
    assert_eq!(trailers(&message).expect("ours").release, left);
    assert_eq!(seen(&back, &bad, &commit), (Evidence::Verified, vec![bad]));
}

#[test]
fn shared_files_merges_and_several_commits_are_known_again_too() {
    let repo = repository();
    let good = repo.id("main");
    let cold = repo.commit(&[("shared/tone.md", "Be cold.\n")], "Be cold");
    let back = Back::failed(&repo, "c", &good, &cold);
    let (commit, way) = back.done();
    assert_eq!((way, seen(&back, &cold, &commit)), (Way::Reverted, (Evidence::Verified, vec![cold])));

    let good = repo.id("main");
    repo.git(&["branch", "-f", "topic", "main"]);
    repo.commit_on("topic", &[LOUD], "Be loud");
    let merge = repo.merge("topic");
    let back = Back::failed(&repo, "a", &good, &merge);
    let (commit, way) = back.done();
    assert_eq!((way, seen(&back, &merge, &commit)), (Way::Reverted, (Evidence::Verified, vec![merge])));

    let good = repo.id("main");
    let bad = repo.commit(&[LOUD], "Be loud");
    let worse = repo.commit(&[("agents/a/system.md", "Be very loud.\n")], "Be louder");
    let back = Back::failed(&repo, "a", &good, &worse);
    let (commit, way) = back.done();
    assert!(back.message().starts_with("Revert \"Be louder\" and 1 more\n"), "{}", back.message());
    assert_eq!((way, seen(&back, &worse, &commit)), (Way::Reverted, (Evidence::Verified, vec![worse, bad])));
}

#[test]
fn what_a_person_took_back_already_is_not_taken_back_again() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[LOUD], "Be loud");
    let worse = repo.commit(&[("agents/a/system.md", "Be very loud.\n")], "Be louder");
    let partly = repo.revert(&[&worse]);
    let back = Back::failed(&repo, "a", &good, &partly);
    assert_eq!(back.done().1, Way::Reverted);
    assert_eq!(taken_back(&back), [bad.to_string()], "neither the worse one nor the person's revert");

    // All of it: there is nothing left to do.
    let bad = repo.commit(&[LOUD], "Be loud again");
    repo.revert(&[&bad]);
    let tip = repo.id("main");
    let back = Back::failed(&repo, "a", &good, &bad);
    assert_eq!(back.write().expect("looked at"), Written::Nothing);
    assert_eq!(repo.id("main"), tip);
}

#[test]
fn what_people_did_later_to_the_same_agent_is_kept() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[LOUD], "Be loud");
    let more = agent_yaml("a", "  replicas: 3\n  prompts:\n    system: [/shared/safety.md, system.md]\n");
    repo.commit(&[("agents/a/agent.yaml", &more)], "Three of them");
    let back = Back::failed(&repo, "a", &good, &bad);
    assert_eq!(back.done().1, Way::Reverted);
    assert_eq!(taken_back(&back), [bad.to_string()]);
    assert!(repo.git(&["show", "main:agents/a/agent.yaml"]).contains("replicas: 3"), "a good commit stays");

    // One that changes the release: Git asks for something newer, and that is nobody's to take back.
    let bad = repo.commit(&[LOUD], "Be loud");
    let newer = repo.commit(&[("agents/a/system.md", "Be polite.\n")], "Be polite");
    let back = Back::failed(&repo, "a", &good, &bad);
    assert_eq!(back.write().expect("looked at"), Written::Newer);
    assert_eq!(repo.id("main"), newer);
    // A declaration that cannot be used is a person's work in progress, too.
    let broken = repo.commit(&[("agents/a/agent.yaml", "kind: Agent\n")], "Half done");
    assert_eq!(back.write().expect("looked at"), Written::Newer);
    assert_eq!(repo.id("main"), broken);
}

#[test]
fn other_ways_say_what_they_stand_for() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[("shared/safety.md", "Be careless.\n")], "Be careless");
    let back = Back::failed(&repo, "a", &good, &bad);
    let (commit, way) = back.done();
    assert_eq!(way, Way::Pinned);
    let message = back.message();
    assert!(message.contains(&format!("- {} Be careless\n", bad.short())), "{message}");
    assert!(taken_back(&back).is_empty() && trailers(&message).is_some(), "{message}");
    assert_eq!(seen(&back, &bad, &commit).0, Evidence::KnownRelease, "nobody is told that commits were reverted");
}

// D9
#[test]
fn one_try_of_a_release_is_written_about_once() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[LOUD], "Be loud");
    let back = Back::failed(&repo, "a", &good, &bad);
    let (ours, _) = back.done();
    assert_eq!(back.write().expect("looked at"), Written::Known(ours.clone()), "the very commit is found");
    assert_eq!(repo.id("main"), ours);
    repo.commit(&[("docs/notes.md", "Notes.\n")], "A person's notes");
    assert_eq!(back.write().expect("looked at"), Written::Known(ours.clone()), "also below others");

    // Somebody wants it again: that try is over, and a person has to say what shall be.
    let again = repo.revert(&[&ours]);
    let error = back.write().expect_err("asked for again");
    assert!(matches!(&error, CannotTell::AskedAgain { commit, .. } if *commit == ours), "{error:?}");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(error.hint().is_some_and(|hint| hint.contains("backstay retry")), "{error}");
    assert_eq!(repo.id("main"), again);

    // It was let try again, and failed again: the person's commit is taken back, our own never.
    let back = Back::failed(&repo, "a", &good, &again);
    let (second, way) = back.done();
    assert_eq!((way, taken_back(&back)), (Way::Reverted, vec![again.to_string()]));
    assert_eq!(back.write().expect("looked at"), Written::Known(second));
}

// D9
#[test]
fn what_was_written_here_is_not_taken_back_by_itself() {
    let repo = repository();
    let first = repo.id("main");
    let second = repo.commit(&[LOUD], "Be loud");
    // A person goes back, and what is gone back to fails.
    let (ours, _) = Back::new(&repo, "a", &first).done();
    let back = Back::failed(&repo, "a", &second, &ours);
    let error = back.write().expect_err("our own commit");
    assert!(matches!(&error, CannotTell::OwnCommit { commit } if *commit == ours), "{error:?}");
    assert_eq!((error.kind(), repo.id("main")), (FailureKind::Refused, ours.clone()));
    // A person may.
    let back = Back::new(&repo, "a", &second);
    assert_eq!(back.done().1, Way::Reverted);
    assert_eq!(taken_back(&back), [ours.to_string()]);
}

#[test]
fn words_that_look_like_ours_are_no_reason_to_believe() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[LOUD], "Be loud");
    let back = Back::failed(&repo, "a", &good, &bad);
    let left = back.request().left.digest();
    let forged = format!(
        "Nothing to see\n\nwhy\n\nBackstay-Agent: a\nBackstay-Environment: prod\nBackstay-Release: {left}\n\
         Backstay-Reason: manual"
    );
    repo.commit(&[("docs/notes.md", "Notes.\n")], &forged);
    assert_eq!(back.done().1, Way::Reverted, "it takes nothing back, whatever it says");
    assert_eq!(subjects(&repo), "Revert \"Be loud\"\nNothing to see\nBe loud\nBegin");
}

#[test]
fn where_tags_are_tracked_it_is_pinned_whatever_the_branch_asks_for() {
    let repo = repository();
    let tracked = "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec:\n  track: {tags: \"v*\"}\n";
    repo.commit(&[("environments/prod.yaml", tracked)], "Follow tags");
    let good = repo.commit(&[("docs/notes.md", "Notes.\n")], "Notes");
    repo.tag("v1.0.0", &good);
    let bad = repo.commit(&[LOUD], "Be loud");
    repo.tag("v1.1.0", &bad);
    repo.commit(&[("agents/a/system.md", "Be louder.\n")], "Not released yet");
    let back = Back { write_back: WriteBack::Pin, ..Back::failed(&repo, "a", &good, &bad) };
    let written = back.write().expect("a commit");
    assert!(matches!(written, Written::Commit(_, Way::Pinned)), "{written:?}");
    assert!(repo.git(&["show", "main:environments/prod.yaml"]).contains(&format!("pins: {{a: {good}}}")));
}
