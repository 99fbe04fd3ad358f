//! Smart HTTP: passwords, redirects, silence, nonsense.

use std::time::{Duration, Instant};

use backstay::source::{Auth, Secret, SourceConfig, SourceError};

use crate::git::{Answer, GitServer, TestRepo};
use crate::{checkout, config, main_and_tags, mirror, skipped, text};

#[test]
fn a_mirror_over_http() {
    let repo = TestRepo::with_one_commit();
    let server = GitServer::http(repo.parent());
    let mirror = mirror(config(server.url("agents.git")));
    assert!(mirror.poll(&main_and_tags()).expect("a poll").fetched);
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    assert!(mirror.poll(&main_and_tags()).expect("a poll").fetched);
    assert_eq!(text(&checkout(&mirror, &tip), "a.txt").as_deref(), Some("two\n"));
    let before = server.requests().len();
    assert!(!mirror.poll(&main_and_tags()).expect("a poll").fetched);
    assert_eq!(server.requests().len(), before + 1, "one request asks for the references");
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let repo = TestRepo::with_one_commit();
    let (Some((server, authority)), Some((stranger, _))) =
        (GitServer::https(repo.parent()), GitServer::https(repo.parent()))
    else {
        skipped("there is no `openssl` here (Debian: openssl)");
        return;
    };
    let named = SourceConfig { ca_file: Some(authority.path().to_owned()), ..config(server.url("agents.git")) };
    assert!(mirror(named).poll(&main_and_tags()).expect("a poll").fetched);
    let error = mirror(config(stranger.url("agents.git"))).poll(&main_and_tags()).expect_err("a stranger");
    assert!(matches!(error, SourceError::Certificate { .. }), "{error:?}");
    let wrong = SourceConfig { ca_file: Some("/nowhere/ca.pem".into()), ..config(server.url("agents.git")) };
    assert!(matches!(mirror(wrong).poll(&main_and_tags()), Err(SourceError::File { .. })));
}

#[test]
fn passwords_and_tokens_open_the_door_and_wrong_ones_are_tried_twice() {
    let repo = TestRepo::with_one_commit();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "hush\n").expect("a secret");
    let server = GitServer::http_basic(repo.parent(), "bot", "hush");
    let with = |auth| mirror(SourceConfig { auth, ..config(server.url("agents.git")) }).poll(&main_and_tags());
    let basic = |password| Auth::Basic { username: "bot".to_owned(), password };
    assert!(with(basic(Secret::Value("hush".to_owned()))).is_ok());
    assert!(with(basic(Secret::File(file.path().to_owned()))).is_ok());
    let token = GitServer::http_basic(repo.parent(), "x-access-token", "t0ken");
    let auth = Auth::Token(Secret::Value("t0ken".to_owned()));
    assert!(mirror(SourceConfig { auth, ..config(token.url("agents.git")) }).poll(&main_and_tags()).is_ok());

    let before = server.requests().len();
    let error = with(basic(Secret::Value("wrong".to_owned()))).expect_err("a wrong password");
    assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
    assert!(!format!("{error}{:?}", error.hint()).contains("wrong"));
    assert!(server.requests().len() <= before + 4, "{:?}", server.requests());
    assert!(matches!(with(Auth::None), Err(SourceError::Refused { .. })));
    let missing = with(basic(Secret::File("/nowhere/secret".into()))).expect_err("no file");
    assert!(matches!(missing, SourceError::File { .. }), "{missing:?}");
}

#[test]
fn a_redirect_to_another_host_is_refused_and_one_on_the_same_host_followed() {
    let repo = TestRepo::with_one_commit();
    let target = GitServer::http(repo.parent());
    let place = target.url("agents.git").to_string();
    let moved = |to: String| {
        GitServer::http_with(repo.parent(), move |request| {
            let to = format!("Location: {to}{}?{}", request.path.replacen("/old.git", "", 1), request.query);
            Answer::Status("301 Moved Permanently", vec![to])
        })
    };
    let away = moved(place.replace("127.0.0.1", "localhost"));
    let error = mirror(config(away.url("old.git"))).poll(&main_and_tags()).expect_err("another host");
    assert!(matches!(error, SourceError::Redirect { .. }), "{error:?}");
    assert_eq!(target.requests().len(), 0, "the other host was never asked");
    let here = moved(place);
    assert!(mirror(config(here.url("old.git"))).poll(&main_and_tags()).is_ok());
}

// S2
#[test]
fn silence_ends_at_the_limit() {
    let repo = TestRepo::with_one_commit();
    let server = GitServer::http_with(repo.parent(), |_| Answer::Hang);
    let mut quick = config(server.url("agents.git"));
    // Holds for the process: the other tests' servers answer within this, too.
    quick.limits.idle = Duration::from_secs(25);
    let began = Instant::now();
    let error = mirror(quick).poll(&main_and_tags()).expect_err("silence");
    assert!(matches!(error, SourceError::Timeout { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_mins(1));
}

// S2
#[test]
fn a_process_that_was_stopped_and_goes_on_was_not_met_with_silence() {
    let repo = TestRepo::with_one_commit();
    // While the client waits for its answer, all of this process is stopped for a moment.
    let server = GitServer::http_with(repo.parent(), |_| {
        let script = format!("kill -STOP {0}; sleep 0.1; kill -CONT {0}", std::process::id());
        let ran = std::process::Command::new("sh").args(["-c", &script]).status().expect("sh runs");
        assert!(ran.success(), "{ran}");
        Answer::Serve
    });
    mirror(config(server.url("agents.git"))).poll(&main_and_tags()).expect("a poll");
}

#[test]
fn what_servers_say_is_told_apart() {
    let repo = TestRepo::with_one_commit();
    let error = |answer: fn() -> Answer| {
        let server = GitServer::http_with(repo.parent(), move |_| answer());
        mirror(config(server.url("agents.git"))).poll(&main_and_tags()).expect_err("no poll")
    };
    let gone = error(|| Answer::Status("404 Not Found", vec![]));
    assert!(matches!(gone, SourceError::NoRepository { .. }), "{gone:?}");
    let closed = error(|| Answer::Status("403 Forbidden", vec![]));
    assert!(matches!(closed, SourceError::Refused { .. }), "{closed:?}");
    let broken = error(|| Answer::Status("500 Internal Server Error", vec![]));
    assert!(matches!(broken, SourceError::Remote { .. }), "{broken:?}");
    let nonsense = error(|| {
        let body = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\
                    Content-Length: 9\r\nConnection: close\r\n\r\nzzzz\x1b[31m";
        Answer::Raw(body.as_bytes().to_vec())
    });
    assert!(matches!(nonsense, SourceError::Remote { .. }), "{nonsense:?}");
    assert!(!nonsense.to_string().contains('\x1b'));
    let page =
        error(|| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_vec()));
    assert!(matches!(page, SourceError::Remote { .. } | SourceError::NoRepository { .. }), "{page:?}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let url = format!("http://{nobody}/agents.git").parse().expect("an address");
    let unreachable = mirror(config(url)).poll(&main_and_tags()).expect_err("nobody there");
    assert!(matches!(unreachable, SourceError::Unreachable { .. }), "{unreachable:?}");
}

// S5
#[test]
fn a_pack_that_breaks_off_leaves_the_mirror_as_it_was() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let breaking = std::sync::Arc::clone(&broken);
    let server = GitServer::http_with(repo.parent(), move |request| {
        if request.method == "POST" && breaking.load(std::sync::atomic::Ordering::Acquire) {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-result\r\nContent-Length: 5000\r\n\r\n";
            Answer::Raw([head.as_bytes(), b"0008NAK\n", b"PACK\0\0\0\x02\0\0\0\x05half"].concat())
        } else {
            Answer::Serve
        }
    });
    let mirror = mirror(config(server.url("agents.git")));
    mirror.poll(&main_and_tags()).expect("a poll");
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    broken.store(true, std::sync::atomic::Ordering::Release);
    mirror.poll(&main_and_tags()).expect_err("half a pack");
    assert_eq!(text(&checkout(&mirror, &first), "a.txt").as_deref(), Some("one\n"));
    broken.store(false, std::sync::atomic::Ordering::Release);
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&tip));
}
