//! A Git server that means harm: whatever it does, it can only delay, and what was good stays.

use std::time::{Duration, Instant};

use backstay::model::CommitId;
use backstay::source::{Auth, Followed, Limits, Mirror, RemoteUrl, SourceConfig, SourceError, SshKey};

use crate::git::{GitServer, TestRepo};
use crate::raw::{Asked, Out, Raw};

const ADVERTISEMENT: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nConnection: close\r\n";
const RESULT: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-result\r\n";
/// A line of git's protocol, with its length before it.
fn line(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// A list of one branch, with what the server says that it can do.
fn advertised(can: &str) -> String {
    let refs = line(&format!("{} refs/heads/main\0{can}\n", "12".repeat(20)));
    let body = format!("001e# service=git-upload-pack\n0000{refs}0000");
    format!("{ADVERTISEMENT}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        // Holds for the whole process: every test of this file has the same.
        idle: Duration::from_secs(20),
        whole: Duration::from_secs(2),
        refs: 1000,
        bytes: 8 << 20,
        objects: 10_000,
    }
}

/// A mirror that has seen a good commit, and now gets another remote.
struct Seen {
    folder: tempfile::TempDir,
    repo: TestRepo,
    good: CommitId,
}

impl Seen {
    fn new() -> Self {
        let (folder, repo) = (tempfile::tempdir().expect("a temporary folder"), TestRepo::with_one_commit());
        let good = repo.id("main");
        let seen = Self { folder, repo, good };
        seen.mirror(seen.repo.url(), Auth::None).poll(&Followed::branch("main")).expect("a first poll");
        seen
    }

    fn mirror(&self, url: RemoteUrl, auth: Auth) -> Mirror {
        let config = SourceConfig { limits: limits(), auth, ..SourceConfig::new(url) };
        Mirror::open(self.folder.path().join("mirror"), config).expect("a mirror")
    }

    /// Polls a hostile remote, which must fail; the good commit stays, and the next good poll goes on.
    fn fails(&self, what: &str, url: &str, auth: Auth) -> SourceError {
        self.repo.commit(&[("a.txt", &format!("{what}\n"))], what);
        let began = Instant::now();
        let hostile = self.mirror(url.parse().expect("an address"), auth);
        let error = hostile.poll(&Followed::branch("main")).expect_err(what);
        println!("{:>8.3?}  {what}: {error}", began.elapsed());
        let told = format!("{error}{}", error.hint().unwrap_or_default());
        assert!(told.len() < 2000 && !told.chars().any(char::is_control), "{what}: {told:?}");
        let checkout = hostile
            .store()
            .checkout(&backstay::model::Revision { reference: "main".to_owned(), commit: self.good.clone() });
        let tree = checkout.expect("the good commit stays").tree;
        assert_eq!(tree.read("a.txt", 100).expect("read").as_deref(), Some(&b"one\n"[..]), "{what}");
        drop(hostile);
        let polled = self.mirror(self.repo.url(), Auth::None).poll(&Followed::branch("main"));
        let tip = polled.unwrap_or_else(|error| panic!("{what}: it goes on: {error}")).tips["refs/heads/main"].clone();
        assert_eq!(tip, self.repo.id("main"), "{what}");
        error
    }

    fn fails_http(&self, what: &str, server: &Raw) -> SourceError {
        self.fails(what, &format!("http://{}/agents.git", server.address), Auth::None)
    }
}

fn is_late(error: &SourceError) -> bool {
    matches!(error, SourceError::Timeout { limit, .. } if *limit == limits().whole)
}

fn is_too_much(error: &SourceError, of: &str) -> bool {
    matches!(error, SourceError::TooMuch { what, .. } if *what == of)
}

// S2, S6: a byte now and then is no silence, and still ends.
#[test]
fn a_server_that_drips_is_cut_at_the_limit() {
    let seen = Seen::new();
    let head = |_: &Asked, out: &mut Out<'_>| {
        out.send("HTTP/1.1 200 OK\r\nX-Slow: ");
        out.drip(b'x');
    };
    let status = |_: &Asked, out: &mut Out<'_>| {
        out.send("HTTP/1.1 200 ");
        out.drip(b'O');
    };
    let list = |_: &Asked, out: &mut Out<'_>| {
        out.send(format!("{ADVERTISEMENT}Content-Length: 9000000000\r\n\r\n001e# service=git-upload-pack\n0000fff0"));
        out.drip(b'x');
    };
    let pack = |asked: &Asked, out: &mut Out<'_>| {
        if asked.line.starts_with("GET") {
            out.send(advertised("ofs-delta"));
        } else {
            out.send(format!("{RESULT}Content-Length: 9000000000\r\n\r\n0008NAK\n"));
            // One large file, deflated as it is: its bytes come one by one.
            out.send(b"PACK\0\0\0\x02\0\0\0\x01\xbf\xff\x7f\x78\x01\x00\xff\xff\x00\x00");
            out.drip(b'x');
        }
    };
    for (what, server) in [
        ("the status drips", Raw::http(status)),
        ("a header drips", Raw::http(head)),
        ("the list of references drips", Raw::http(list)),
        ("the pack drips", Raw::http(pack)),
    ] {
        let error = seen.fails_http(what, &server);
        assert!(is_late(&error), "{what}: {error:?}");
    }
    let key = SshKey { key: "/dev/null".into(), passphrase: None, known_hosts: "/dev/null".into() };
    let banner = Raw::tcp(|out| {
        out.send("SSH-2.0-");
        out.drip(b'x');
    });
    let error =
        seen.fails("a banner of SSH drips", &format!("ssh://git@{}/agents.git", banner.address), Auth::Ssh(key));
    assert!(is_late(&error), "{error:?}");
}

// S7: as much as anybody likes is sent, and little of it taken.
#[test]
fn a_server_that_never_ends_is_cut_at_the_limit() {
    let seen = Seen::new();
    let list = |_: &Asked, out: &mut Out<'_>| {
        out.send(format!("{ADVERTISEMENT}Content-Length: 9000000000\r\n\r\n001e# service=git-upload-pack\n0000"));
        out.flood(line(&format!("{} refs/heads/{}\n", "12".repeat(20), "x".repeat(40))));
    };
    let header = |_: &Asked, out: &mut Out<'_>| {
        out.send("HTTP/1.1 200 OK\r\nX-Long: ");
        out.flood("x".repeat(1000));
    };
    let headers = |_: &Asked, out: &mut Out<'_>| {
        out.send("HTTP/1.1 200 OK\r\n");
        out.flood("X-Many: y\r\n");
    };
    for (what, server) in [
        ("references without end", Raw::http(list)),
        ("a header without end", Raw::http(header)),
        ("headers without end", Raw::http(headers)),
    ] {
        let error = seen.fails_http(what, &server);
        assert!(is_too_much(&error, "references") || matches!(error, SourceError::Remote { .. }), "{what}: {error:?}");
        assert!(server.sent() < 32 << 20, "{what}: {} bytes", server.sent());
    }
    let pack = |talk: bool| {
        Raw::http(move |asked, out| {
            if asked.line.starts_with("GET") {
                let caps = if talk { "side-band-64k ofs-delta" } else { "ofs-delta" };
                out.send(advertised(caps));
            } else if talk {
                out.send(format!("{RESULT}Content-Length: 9000000000\r\n\r\n0008NAK\n"));
                out.flood(line(&format!("\x02{}", "so much to tell\n".repeat(60))));
            } else {
                out.send(format!("{RESULT}Content-Length: 9000000000\r\n\r\n0008NAK\n"));
                out.send(b"PACK\0\0\0\x02\x7f\xff\xff\xff");
                // A blob of `x`, deflated, again and again.
                out.flood(b"\x31\x78\x9c\xab\x00\x00\x00\x79\x00\x79");
            }
        })
    };
    let server = pack(false);
    let error = seen.fails_http("a pack without end", &server);
    assert!(is_too_much(&error, "objects") || is_too_much(&error, "bytes"), "{error:?}");
    assert!(server.sent() < 32 << 20, "{} bytes", server.sent());
    let server = pack(true);
    let error = seen.fails_http("talk without end", &server);
    assert!(is_too_much(&error, "bytes") || is_late(&error), "{error:?}");
}

// S7
#[test]
fn more_references_than_allowed_are_not_taken() {
    let seen = Seen::new();
    let server = Raw::http(|_, out| {
        let mut body = "001e# service=git-upload-pack\n0000".to_owned();
        for n in 0..1001 {
            let caps = if n == 0 { "\0ofs-delta" } else { "" };
            body += &line(&format!("{} refs/heads/b{n:06}{caps}\n", "12".repeat(20)));
        }
        out.send(format!("{ADVERTISEMENT}Content-Length: {}\r\n\r\n{body}0000", body.len() + 4));
    });
    let error = seen.fails_http("1,001 references", &server);
    assert!(is_too_much(&error, "references"), "{error:?}");
    assert_eq!(server.asked(), 1, "nothing is fetched");
}

// S3, S5: what a wrong server sends never becomes what is read.
#[test]
fn what_is_not_what_its_name_says_is_not_taken() {
    let seen = Seen::new();
    let (real, other) = (GitServer::http(seen.repo.parent()), TestRepo::new());
    other.commit(&[("evil.txt", "evil\n")], "of somebody else");
    let elsewhere = GitServer::http(other.parent());
    let address = |server: &GitServer| {
        let url = server.url("agents.git").to_string();
        let authority = url.trim_start_matches("http://").split('/').next().expect("an authority").to_owned();
        authority.parse().expect("an address")
    };
    let (real_at, other_at) = (address(&real), address(&elsewhere));
    let is_pack = |asked: &Asked| asked.line.starts_with("POST");
    // The pack is in one packet: its length, the number of its band, its bytes.
    let flipped = move |checksum: bool| {
        Raw::between(real_at, move |asked, mut answer| {
            if is_pack(asked) {
                let pack = answer.windows(4).position(|four| four == b"PACK").expect("a pack");
                let length = std::str::from_utf8(&answer[pack - 5..pack - 1]).expect("a length");
                let end = pack - 5 + usize::from_str_radix(length, 16).expect("a length");
                let at = if checksum { end - 1 } else { pack + 16 };
                answer[at] ^= 0xff;
            }
            answer
        })
    };
    for (what, server) in [("a checksum that is wrong", flipped(true)), ("an object that is changed", flipped(false))] {
        let error = seen.fails_http(what, &server);
        assert!(matches!(error, SourceError::Remote { .. } | SourceError::Damaged { .. }), "{what}: {error:?}");
    }
    let missing = Raw::between(real_at, move |asked, answer| {
        if is_pack(asked) {
            return answer;
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let tip =
            text.split(" refs/heads/main").next().and_then(|before| before.get(before.len() - 40..)).unwrap_or("");
        let tip = tip.to_owned();
        text.replace(&tip, &"12".repeat(20)).into_bytes()
    });
    let error = seen.fails_http("a reference to what is not there", &missing);
    assert!(matches!(error, SourceError::Remote { .. } | SourceError::Damaged { .. }), "{error:?}");
    // The references of one repository, the pack of another.
    let swapped = Raw::http(move |asked, out| {
        use std::io::{Read as _, Write as _};
        let to = if is_pack(asked) { other_at } else { real_at };
        let Ok(mut far) = std::net::TcpStream::connect(to) else { return };
        let tip = other.id("main");
        let want = line(&format!("want {tip} ofs-delta\n"));
        let body = if is_pack(asked) { format!("{want}00000009done\n").into_bytes() } else { asked.body.clone() };
        let head: String = asked
            .head
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("content-length"))
            .fold(String::new(), |head, line| if line.is_empty() { head } else { head + line + "\r\n" });
        let request = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        let mut answer = Vec::new();
        let asked = far.write_all(&[request.as_bytes(), &body].concat());
        if asked.and_then(|()| far.read_to_end(&mut answer)).is_ok() {
            out.send(answer);
        }
    });
    let error = seen.fails_http("the pack of another repository", &swapped);
    assert!(matches!(error, SourceError::Remote { .. } | SourceError::Damaged { .. }), "{error:?}");
    let page = Raw::http(|asked, out| {
        let kind = if asked.line.starts_with("GET") { ADVERTISEMENT } else { RESULT };
        out.send(format!("{kind}Content-Length: 22\r\n\r\n<html>\x1b[31mlogin</html>"));
    });
    let error = seen.fails_http("a page instead of references", &page);
    assert!(matches!(error, SourceError::Remote { .. } | SourceError::NoRepository { .. }), "{error:?}");
    let shut = Raw::http(|_, _| {});
    let error = seen.fails_http("a connection that is closed", &shut);
    assert!(matches!(error, SourceError::Remote { .. } | SourceError::Unreachable { .. }), "{error:?}");
}

// S7: a commit is read whole, so it may not be of any size.
#[test]
fn a_commit_of_megabytes_is_not_read() {
    let seen = Seen::new();
    let big = TestRepo::new();
    let raw = big.raw();
    let tree = big.tree(&[("100644", b"a.txt", big.blob(b"evil\n"))]);
    let text = format!(
        "tree {tree}\nauthor A <a@b> 1790000000 +0000\ncommitter A <a@b> 1790000000 +0000\n\n{}\n",
        "x".repeat(2 << 20)
    );
    let id = raw.odb().expect("objects").write(git2::ObjectType::Commit, text.as_bytes()).expect("a commit");
    raw.reference("refs/heads/main", id, true, "big").expect("a branch");
    let error = seen.fails("a commit of 2 MB", &big.url().to_string(), Auth::None);
    assert!(is_too_much(&error, "bytes in one commit"), "{error:?}");
}

// Section 3, a malicious Git server: no way leads to another host, file or protocol.
#[test]
fn no_redirect_leads_away() {
    let seen = Seen::new();
    let aim = Raw::http(|_, _| {});
    let port = aim.address.port();
    for target in [
        format!("http://localhost:{port}/agents.git"),
        format!("http://[::1]:{port}/agents.git"),
        format!("//localhost:{port}/agents.git"),
        format!("ssh://git@127.0.0.1:{port}/agents.git"),
        format!("git://127.0.0.1:{port}/agents.git"),
        format!("file://{}", seen.repo.path().display()),
        seen.repo.path().display().to_string(),
    ] {
        let to = target.clone();
        let server = Raw::http(move |_, out| {
            let location = format!("{to}/info/refs?service=git-upload-pack");
            out.send(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"));
        });
        let error = seen.fails_http(&format!("a redirect to {target}"), &server);
        let kinds = matches!(
            error,
            SourceError::Redirect { .. }
                | SourceError::Remote { .. }
                | SourceError::NoRepository { .. }
                | SourceError::Unreachable { .. }
        );
        assert!(kinds, "{target}: {error:?}");
    }
    assert_eq!(aim.asked(), 0, "the other place was never asked");
    let round = Raw::http(|asked, out| {
        let path = asked.line.split(' ').nth(1).unwrap_or("/").to_owned();
        let host = asked.head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default().to_owned();
        out.send(format!("HTTP/1.1 302 Found\r\nLocation: http://{host}{path}\r\nContent-Length: 0\r\n\r\n"));
    });
    let error = seen.fails_http("redirects in a circle", &round);
    assert!(!matches!(error, SourceError::Timeout { .. }), "{error:?}");
    assert!(round.asked() <= 20, "{} requests", round.asked());
}
