//! The mirror: fetched, swept, made anew.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstay::source::{Followed, Mirror, SourceError, Track};

use crate::git::{Answer, GitServer, TestRepo};
use crate::{TestMirror, at, checkout, config, main_and_tags, mirror, text};

#[test]
fn a_mirror_fetches_only_when_something_followed_moved() {
    let repo = TestRepo::with_one_commit();
    let mirror = mirror(config(repo.url()));
    let first = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(first.fetched && first.renewed && !first.empty);
    assert_eq!(first.tips.get("refs/heads/main"), Some(&repo.id("main")));
    assert!(!mirror.poll(&main_and_tags()).expect("a poll").fetched, "nothing moved");

    let other = repo.commit_on("other", &[("b.txt", "other\n")], "another branch");
    let second = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(!second.fetched, "nobody follows it");
    assert_eq!(second.tips.get("refs/heads/other"), None);

    let pinned = Followed { commits: [other.clone()].into(), ..main_and_tags() };
    assert!(mirror.poll(&pinned).expect("a poll").fetched, "a pinned commit is missing");
    assert_eq!(text(&checkout(&mirror, &other), "b.txt").as_deref(), Some("other\n"));

    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    repo.annotated_tag("v1.0.0", &tip);
    let third = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(third.fetched);
    assert_eq!(third.tips.get("refs/tags/v1.0.0"), Some(&tip), "tags come to commits");
    assert_eq!(text(&checkout(&mirror, &tip), "a.txt").as_deref(), Some("two\n"));
}

#[test]
fn a_branch_can_become_a_folder_of_branches() {
    let repo = TestRepo::with_one_commit();
    repo.force("team", &repo.id("main"));
    let mirror = mirror(config(repo.url()));
    mirror.poll(&Followed::branch("team")).expect("a poll");
    repo.delete_branch("team");
    repo.force("team/one", &repo.id("main"));
    let polled = mirror.poll(&Followed::branch("team")).expect("a poll");
    assert_eq!(polled.tips.keys().map(String::as_str).collect::<Vec<_>>(), ["refs/heads/main", "refs/heads/team/one"]);
}

// S2
#[test]
fn a_remote_that_is_away_or_empty_changes_nothing() {
    let repo = TestRepo::with_one_commit();
    let tip = repo.id("main");
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");

    let away = repo.parent().join("away.git");
    std::fs::rename(repo.path(), &away).expect("a move");
    let error = mirror.poll(&main_and_tags()).expect_err("no repository");
    assert!(matches!(error, SourceError::NoRepository { .. }), "{error:?}");
    assert!(error.hint().is_some());
    std::fs::create_dir(repo.path()).expect("a folder");
    assert!(matches!(mirror.poll(&main_and_tags()), Err(SourceError::NoRepository { .. })));
    std::fs::remove_dir(repo.path()).expect("the folder");

    git2::Repository::init_bare(repo.path()).expect("an empty repository");
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(polled.empty && !polled.fetched);
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&tip), "what was there stays");
    assert_eq!(text(&checkout(&mirror, &tip), "a.txt").as_deref(), Some("one\n"));
}

// S5
#[test]
fn what_a_killed_fetch_leaves_is_swept() {
    let repo = TestRepo::with_one_commit();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Mirror::open(folder.path(), config(repo.url())).expect("a mirror");
    open().poll(&main_and_tags()).expect("a poll");
    let git_dir = folder.path().join("mirror.git");
    let left = [
        "refs/heads/main.lock",
        "packed-refs.lock",
        "HEAD.lock",
        "config.lock",
        "objects/pack/tmp_pack_Zx81",
        "objects/pack/pack_git2_0123456789abcdef",
        "objects/pack/tmp_idx_a",
    ];
    for name in left {
        std::fs::write(git_dir.join(name), b"PACK\0\0\0\x02half of a pack").expect("a leftover");
    }
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    let mirror = open();
    assert!(left.iter().all(|name| !git_dir.join(name).exists()), "all swept");
    assert!(mirror.poll(&main_and_tags()).expect("a poll").fetched);
    assert_eq!(text(&checkout(&mirror, &tip), "a.txt").as_deref(), Some("two\n"));
}

/// Where the child of the next test fetches to, and from.
const CHILD: &str = "BACKSTAY_TEST_FETCH";

/// A fetch of its own, or, as the child of the next test, the one that it is told.
#[test]
fn a_fetch_in_a_process_of_its_own() {
    let (folder, repo) = (tempfile::tempdir().expect("a temporary folder"), TestRepo::with_one_commit());
    let told = std::env::var(CHILD).unwrap_or_else(|_| format!("{} {}", folder.path().display(), repo.url()));
    let (folder, url) = told.split_once(' ').expect("a folder and an address");
    let mirror = Mirror::open(folder, config(url.parse().expect("an address"))).expect("a mirror");
    assert!(mirror.poll(&main_and_tags()).expect("a poll").fetched);
}

// S5
#[test]
fn a_process_that_is_killed_in_a_fetch_leaves_nothing_that_matters() {
    let repo = TestRepo::with_one_commit();
    let noise: String = (0..9_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    let tip = repo.commit(&[("noise", &noise)], "enough to be half of");
    let server =
        GitServer::http_with(
            repo.parent(),
            |request| {
                if request.method == "POST" { Answer::Half } else { Answer::Serve }
            },
        );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "fetch::a_fetch_in_a_process_of_its_own"])
        .env(CHILD, format!("{} {}", folder.path().display(), server.url("agents.git")))
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    server.wait_for("POST", 1);
    let packs = folder.path().join("mirror.git/objects/pack");
    let halves = || {
        let files = std::fs::read_dir(&packs).into_iter().flatten().filter_map(Result::ok);
        files.filter(|file| file.file_name().to_string_lossy().contains("_git2_")).count()
    };
    let began = Instant::now();
    while halves() == 0 && began.elapsed() < Duration::from_mins(1) {
        std::thread::yield_now();
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    assert_eq!(halves(), 1, "killed in the middle of it");

    let mirror = opened_again(folder.path(), &repo);
    assert_eq!(halves(), 0);
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&tip));
}

// S5
#[test]
fn a_mirror_that_is_deleted_while_running_is_made_anew() {
    let repo = TestRepo::with_one_commit();
    let tip = repo.id("main");
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    let old = checkout(&mirror, &tip);
    std::fs::remove_dir_all(mirror.folder.path().join("mirror")).expect("the mirror");
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(polled.renewed && polled.fetched);
    assert_eq!(text(&checkout(&mirror, &tip), "a.txt").as_deref(), Some("one\n"));
    assert_eq!(text(&old, "a.txt").as_deref(), Some("one\n"), "a checkout from before still reads");
}

// S5
#[test]
fn a_damaged_mirror_is_made_anew_and_keeps_what_is_held() {
    let repo = TestRepo::with_one_commit();
    let held = repo.id("main");
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    mirror.hold("heads/main", &held).expect("held");
    // The remote forgets it.
    repo.delete_branch("main");
    let tip = repo.commit(&[("b.txt", "b\n")], "another history");
    repo.git(&["reflog", "expire", "--expire=now", "--all"]);
    repo.git(&["gc", "-q", "--prune=now"]);
    mirror.poll(&main_and_tags()).expect("a poll");

    // The pack with the newer commit is lost, while nobody has it open.
    let TestMirror { mirror, folder } = mirror;
    drop(mirror);
    let id = git2::Oid::from_str(tip.as_str()).expect("an id");
    let packs = std::fs::read_dir(folder.path().join("mirror/mirror.git/objects/pack")).expect("packs");
    let mut lost = 0;
    for index in packs.filter_map(Result::ok).map(|entry| entry.path()) {
        if index.extension().is_some_and(|extension| extension == "idx")
            && std::fs::read(&index).expect("an index").windows(20).any(|bytes| bytes == id.as_bytes())
        {
            std::fs::remove_file(index.with_extension("pack")).expect("a pack");
            std::fs::remove_file(&index).expect("an index");
            lost += 1;
        }
    }
    assert_eq!(lost, 1);
    let mirror = opened_again(&folder.path().join("mirror"), &repo);
    mirror.store().checkout(&at("main", &tip)).expect_err("a missing commit");
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&tip));
    assert_eq!(text(&checkout(&mirror, &tip), "b.txt").as_deref(), Some("b\n"));
    assert_eq!(text(&checkout(&mirror, &held), "a.txt").as_deref(), Some("one\n"), "the held one was saved");
}

/// Opens a mirror that was kept a moment ago: a process that another test is just starting may hold a copy of the lock.
fn opened_again(folder: &std::path::Path, repo: &TestRepo) -> Mirror {
    let tries = (0..500).find_map(|_| match Mirror::open(folder, config(repo.url())) {
        Err(SourceError::Busy { .. }) => {
            std::thread::sleep(std::time::Duration::from_millis(10));
            None
        }
        opened => Some(opened),
    });
    tries.expect("the lock is free").expect("a mirror")
}

#[test]
fn a_mirror_that_is_no_repository_any_more_is_made_anew() {
    let repo = TestRepo::with_one_commit();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || opened_again(folder.path(), &repo);
    open().poll(&main_and_tags()).expect("a poll");
    std::fs::write(folder.path().join("mirror.git/HEAD"), "garbage").expect("a file");
    std::fs::write(folder.path().join("mirror.git/config"), "[core\n").expect("a file");
    let polled = open().poll(&main_and_tags()).expect("a poll");
    assert!(polled.fetched);
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&repo.id("main")));
}

#[test]
fn one_process_keeps_a_mirror() {
    let repo = TestRepo::with_one_commit();
    let mirror = mirror(config(repo.url()));
    let again = Mirror::open(mirror.folder.path().join("mirror"), config(repo.url()));
    assert!(matches!(again, Err(SourceError::Busy { .. })), "{again:?}");
}

#[test]
fn nobody_elses_configuration_is_read() {
    let repo = TestRepo::with_one_commit();
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    for level in [git2::ConfigLevel::System, git2::ConfigLevel::Global, git2::ConfigLevel::XDG] {
        #[expect(unsafe_code, reason = "git2 marks the reading of this setting so")]
        // SAFETY: nothing changes these settings after the first mirror was opened.
        let path = unsafe { git2::opts::get_search_path(level) }.expect("a search path");
        assert_eq!(path.to_bytes(), b"", "{level:?}");
    }
}

// S7
#[test]
fn caps_hold() {
    let repo = TestRepo::with_one_commit();
    (0..20).for_each(|n| repo.force(&format!("b{n}"), &repo.id("main")));
    let mut few = config(repo.url());
    few.limits.refs = 10;
    let error = mirror(few).poll(&main_and_tags()).expect_err("too many references");
    assert!(matches!(error, SourceError::TooMuch { what: "references", limit: 10, .. }), "{error:?}");

    let noise: String = (0..40_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    repo.commit(&[("noise", &noise)], "large");
    let mut small = config(repo.url());
    small.limits.bytes = 10_000;
    let small = mirror(small);
    let error = small.poll(&main_and_tags()).expect_err("too many bytes");
    assert!(matches!(error, SourceError::TooMuch { what: "bytes", .. }), "{error:?}");
    assert_eq!(small.store().resolve(&Track::Branch("main".to_owned())), Ok(None), "nothing of it is seen");
}

#[test]
fn many_hold_a_commit_at_once() {
    let repo = TestRepo::with_one_commit();
    let commits = [repo.id("main"), repo.commit(&[("a.txt", "two\n")], "second")];
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    let mirror: &Mirror = &mirror;
    std::thread::scope(|scope| {
        let holds = |number: usize| {
            let commit = &commits[number % 2];
            scope.spawn(move || (0..50).try_for_each(|_| mirror.hold("development/heads/main", commit)))
        };
        for thread in (0..8).map(holds).collect::<Vec<_>>() {
            thread.join().expect("no panic").expect("held");
        }
    });
}

#[test]
fn packs_are_joined_before_there_are_too_many() {
    let repo = TestRepo::with_one_commit();
    let mirror = mirror(config(repo.url()));
    for n in 0..90 {
        repo.commit(&[("a.txt", &format!("{n}\n"))], "again");
        mirror.poll(&main_and_tags()).expect("a poll");
    }
    let packs = std::fs::read_dir(mirror.folder.path().join("mirror/mirror.git/objects/pack")).expect("packs");
    let packs = packs.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|e| e == "pack"));
    assert!(packs.count() <= 45);
    for back in [0, 1, 44, 45, 89, 90] {
        let commit = repo.id(&format!("main~{back}"));
        let wanted = if back == 90 { "one\n".to_owned() } else { format!("{}\n", 89 - back) };
        assert_eq!(text(&checkout(&mirror, &commit), "a.txt"), Some(wanted));
    }
}

// R2
#[test]
fn packs_that_were_joined_are_not_kept_open() {
    let repo = TestRepo::with_one_commit();
    let mirror = mirror(config(repo.url()));
    let folder = mirror.folder.path().canonicalize().expect("a path");
    // Of this process, which runs other tests too: those in this mirror alone.
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("open files").filter_map(Result::ok);
        let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let ours = links.filter(|link| link.starts_with(&folder));
        let (gone, there) = ours.partition::<Vec<_>, _>(|link| link.to_string_lossy().ends_with(" (deleted)"));
        (gone.len(), there.len())
    };
    let mut most = 0;
    for n in 0..130 {
        let tip = repo.commit(&[("a.txt", &format!("{n}\n"))], "again");
        mirror.poll(&main_and_tags()).expect("a poll");
        // Several read at once, each with a handle of its own.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(text(&checkout(&mirror, &tip), "a.txt").is_some()));
            }
        });
        let (gone, there) = open();
        assert_eq!(gone, 0, "after {n} fetches, packs that are gone are open");
        most = most.max(there);
    }
    // Four handles, each with all packs that there are until they are joined, and the lock.
    assert!(most <= 4 * 42 + 8, "{most} files of the mirror are open");
}
