//! The artifacts of a host: from real repositories, folders, archives and a real server; evil ones too.
#![expect(clippy::disallowed_methods, reason = "tests read and write files, and start threads")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use backstay::desired::artifact::{Listing, Mode};
use backstay::model::Digest;
use backstay::source::Store;
use backstay::supervisor::{ArtifactError, ArtifactSource, Artifacts};
use tar::{Builder, EntryType, Header};

/// A state folder, a folder of artifacts, and a repository.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["outside", "repository"] {
            fs::create_dir(root.path().join(folder)).expect("made");
        }
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn store(&self) -> PathBuf {
        self.at("artifacts")
    }

    /// As a daemon that starts makes it.
    fn artifacts(&self) -> Artifacts {
        let mirror = Store::open(&self.at("repository")).ok();
        Artifacts::new(self.store(), Some(self.at("outside")), mirror).expect("a store")
    }

    /// Puts a file into the folder of artifacts.
    fn put(&self, path: &str, bytes: &[u8]) -> ArtifactSource {
        let at = self.at("outside").join(path);
        fs::create_dir_all(at.parent().expect("a folder")).expect("made");
        fs::write(at, bytes).expect("written");
        ArtifactSource::Folder(path.to_owned())
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(self.at("repository"))
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .expect("git");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// What is left of unfinished work.
    fn half_made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Asks for a packed artifact, which is refused; gives the words.
    fn refused(&self, packed: &[u8]) -> String {
        let source = self.put("evil.tar.gz", packed);
        let digest = Digest::of(packed);
        let error = self.artifacts().ensure(&digest, Some(&source)).expect_err("refused");
        assert!(error.hint().is_some());
        assert!(!self.store().join(digest.to_string()).exists() && self.half_made().is_empty(), "{error}");
        error.to_string()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("packed");
    out.finish().expect("packed")
}

/// One entry with the very bytes of its name, which no well-meaning packer would write.
fn raw(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, mode: u32, target: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    tar.append(&header, bytes).expect("appended");
}

fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    gzip(&tar.into_inner().expect("whole"))
}

#[test]
fn a_file_of_the_repository_is_the_agent() {
    let host = Host::new();
    host.git(&["init", "-q", "-b", "main"]);
    fs::write(host.at("repository/agent.sh"), "#!/bin/sh\n").expect("written");
    host.git(&["add", "-A"]);
    host.git(&["commit", "-qm", "one"]);
    let source = ArtifactSource::Git(host.git(&["rev-parse", "HEAD:agent.sh"]));
    let digest = Digest::of(b"#!/bin/sh\n");
    let artifacts = host.artifacts();
    let folder = artifacts.ensure(&digest, Some(&source)).expect("an artifact");
    assert_eq!(folder, host.store().join(digest.to_string()));
    assert_eq!(fs::read(folder.join("agent")).expect("a file"), b"#!/bin/sh\n");
    assert_eq!((mode(&folder.join("agent")), mode(&folder)), (0o555, 0o555));
    // Once it is here nobody is asked again.
    assert_eq!(artifacts.ensure(&digest, None).expect("an artifact"), folder);
    assert!(artifacts.has(&digest) && host.half_made().is_empty());
}

#[test]
fn a_folder_of_the_repository_keeps_modes_and_links() {
    let host = Host::new();
    host.git(&["init", "-q", "-b", "main"]);
    fs::create_dir_all(host.at("repository/dist/bin")).expect("made");
    fs::write(host.at("repository/dist/bin/real"), "run").expect("written");
    fs::write(host.at("repository/dist/lib.py"), "lib").expect("written");
    std::os::unix::fs::symlink("bin/real", host.at("repository/dist/run")).expect("a link");
    host.git(&["add", "-A"]);
    host.git(&["update-index", "--chmod=+x", "dist/bin/real"]);
    host.git(&["commit", "-qm", "one"]);
    let source = ArtifactSource::Git(host.git(&["rev-parse", "HEAD:dist"]));
    let mut listing = Listing::default();
    listing.insert("bin/real".to_owned(), Mode::Executable, Digest::of(b"run"));
    listing.insert("lib.py".to_owned(), Mode::Plain, Digest::of(b"lib"));
    listing.insert("run".to_owned(), Mode::Link, Digest::of(b"bin/real"));
    let folder = host.artifacts().ensure(&listing.digest(), Some(&source)).expect("an artifact");
    let modes = ["bin", "bin/real", "lib.py"].map(|path| mode(&folder.join(path)));
    assert_eq!(modes, [0o555, 0o555, 0o444]);
    assert_eq!(fs::read(folder.join("run")).expect("through the link"), b"run");

    let other = Digest::of(b"other");
    let error = host.artifacts().ensure(&other, Some(&source)).expect_err("another digest");
    assert!(matches!(error, ArtifactError::Digest { expected, .. } if expected == other), "{error}");
    let gone = ArtifactSource::Git("0".repeat(40));
    let error = host.artifacts().ensure(&other, Some(&gone)).expect_err("no object");
    assert!(matches!(error, ArtifactError::Repository { .. }), "{error}");
    let error = host.artifacts().ensure(&other, None).expect_err("no source");
    assert!(matches!(error, ArtifactError::NoSource { .. }) && error.hint().is_some(), "{error}");
}

#[test]
fn an_archive_is_unpacked_once_its_digest_is_known() {
    let host = Host::new();
    let packed = archive(|tar| {
        raw(tar, "./", EntryType::Directory, 0o777, "", b"");
        raw(tar, "./bin/", EntryType::Directory, 0o700, "", b"");
        raw(tar, "./bin/run", EntryType::Regular, 0o775, "", b"run");
        raw(tar, "lib/deep/er", EntryType::Regular, 0o666, "", b"lib");
        raw(tar, "again", EntryType::Link, 0o644, "bin/run", b"");
        raw(tar, "lib/link", EntryType::Symlink, 0o777, "../bin/run", b"");
    });
    let source = host.put("builds/a.tar.gz", &packed);
    let digest = Digest::of(&packed);
    let artifacts = host.artifacts();
    let folder = artifacts.ensure(&digest, Some(&source)).expect("an artifact");
    let modes = ["bin", "bin/run", "lib/deep/er", "again"].map(|path| mode(&folder.join(path)));
    assert_eq!(modes, [0o555, 0o555, 0o444, 0o555]);
    assert_eq!(fs::read(folder.join("lib/link")).expect("through the link"), b"run");
    assert_eq!(artifacts.ensure(&digest, None).expect("still whole"), folder);
    assert!(host.half_made().is_empty());
    // The whole path on the machine names it too.
    let whole = host.at("outside/builds/a.tar.gz").canonicalize().expect("a path");
    let whole = ArtifactSource::Folder(whole.display().to_string().trim_start_matches('/').to_owned());
    artifacts.sweep(|_| false).expect("swept");
    assert_eq!(fs::read_dir(host.store()).expect("a folder").count(), 0, "nothing is kept of what nobody wants");
    assert_eq!(artifacts.ensure(&digest, Some(&whole)).expect("an artifact"), folder);
}

#[test]
fn evil_archives_are_refused_and_leave_nothing() {
    let host = Host::new();
    let file = EntryType::Regular;
    let link = EntryType::Symlink;
    for (says, packed) in [
        ("leads out of it", archive(|tar| raw(tar, "../evil", file, 0o644, "", b"x"))),
        ("leads out of it", archive(|tar| raw(tar, "a/../../evil", file, 0o644, "", b"x"))),
        ("absolute path", archive(|tar| raw(tar, "/tmp/evil", file, 0o644, "", b"x"))),
        ("out of it", archive(|tar| raw(tar, "a", link, 0o777, "/etc/passwd", b""))),
        ("out of it", archive(|tar| raw(tar, "a/b", link, 0o777, "../../x", b""))),
        (
            "lies beneath what is no folder",
            archive(|tar| {
                raw(tar, "a", link, 0o777, ".", b"");
                raw(tar, "a/b", file, 0o644, "", b"x");
            }),
        ),
        (
            // Each link stays within by its text; the second would leave through the first.
            "out of it",
            archive(|tar| {
                raw(tar, "d/e/f", link, 0o777, "..", b"");
                raw(tar, "d/e/g", link, 0o777, "f/../..", b"");
            }),
        ),
        (
            "stands there twice",
            archive(|tar| {
                raw(tar, "a", file, 0o644, "", b"x");
                raw(tar, "./a", link, 0o777, "b", b"");
            }),
        ),
        (
            "stands there twice",
            archive(|tar| {
                raw(tar, "a", link, 0o777, ".", b"");
                raw(tar, "a/", EntryType::Directory, 0o755, "", b"");
            }),
        ),
        ("setuid", archive(|tar| raw(tar, "a", file, 0o4755, "", b"x"))),
        ("setgid", archive(|tar| raw(tar, "a", file, 0o2755, "", b"x"))),
        ("device", archive(|tar| raw(tar, "a", EntryType::Char, 0o644, "", b""))),
        ("device", archive(|tar| raw(tar, "a", EntryType::Block, 0o644, "", b""))),
        ("device", archive(|tar| raw(tar, "a", EntryType::Fifo, 0o644, "", b""))),
        ("no whole `tar.gz`", archive(|tar| raw(tar, "a", EntryType::GNUSparse, 0o644, "", b""))),
        ("hard link to no file", archive(|tar| raw(tar, "a", EntryType::Link, 0o644, "etc/passwd", b""))),
        ("leads out of it", archive(|tar| raw(tar, "a", EntryType::Link, 0o644, "../../etc/passwd", b""))),
        ("no path that may be in it", archive(|tar| raw(tar, "a\nb", file, 0o644, "", b"x"))),
        ("no files", archive(|_| {})),
        ("no whole `tar.gz`", gzip(b"this is no archive of anything, and it has far too few bytes")),
        ("no whole `tar.gz`", {
            let mut cut = archive(|tar| raw(tar, "a", file, 0o644, "", &[7; 4096]));
            cut.truncate(cut.len() / 2);
            cut
        }),
    ] {
        let found = host.refused(&packed);
        assert!(found.contains(says), "{says}: {found}");
    }
    assert!(!host.at("evil").exists());
}

#[test]
fn bombs_are_cut_off_and_name_the_largest() {
    let host = Host::new();
    let zeros = vec![0; 4 << 20];
    let bomb = archive(|tar| {
        for n in 0..70 {
            raw(tar, &format!("zeros-{n:03}"), EntryType::Regular, 0o644, "", &zeros);
        }
    });
    assert!(bomb.len() < 4 << 20, "{} bytes", bomb.len());
    let found = host.refused(&bomb);
    assert!(found.contains("more than 256 MiB; the largest is `zeros-000`"), "{found}");
    let many = archive(|tar| (0..20_001).for_each(|n| raw(tar, &format!("{n}"), EntryType::Directory, 0o755, "", b"")));
    let found = host.refused(&many);
    assert!(found.contains("more than 20000 entries"), "{found}");
}

#[test]
fn what_is_not_as_its_name_says_is_made_again() {
    let host = Host::new();
    let packed = archive(|tar| {
        raw(tar, "bin/run", EntryType::Regular, 0o755, "", b"run");
        raw(tar, "lib", EntryType::Regular, 0o644, "", b"lib");
    });
    let source = host.put("a.tar.gz", &packed);
    let digest = Digest::of(&packed);
    let artifacts = host.artifacts();
    let folder = artifacts.ensure(&digest, Some(&source)).expect("an artifact");
    let (run, bin) = (folder.join("bin/run"), folder.join("bin"));
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    let damages: [(&str, &dyn Fn()); 5] = [
        ("changed", &|| {
            open(&run, 0o755);
            fs::write(&run, "evil").expect("written");
        }),
        ("executable no more", &|| open(&run, 0o444)),
        ("gone", &|| {
            open(&bin, 0o755);
            fs::remove_file(&run).expect("removed");
        }),
        ("further", &|| {
            open(&bin, 0o755);
            fs::write(bin.join("more"), "x").expect("written");
        }),
        ("its listing gone", &|| {
            fs::remove_file(host.store().join(format!("{digest}.listing"))).expect("removed");
        }),
    ];
    for (what, damage) in damages {
        damage();
        assert!(!artifacts.has(&digest), "{what}");
        let error = artifacts.ensure(&digest, None).expect_err("nobody has it");
        assert!(matches!(error, ArtifactError::NoSource { .. }), "{what}: {error}");
        artifacts.ensure(&digest, Some(&source)).expect("made again");
        assert_eq!(fs::read(&run).expect("a file"), b"run", "{what}");
        assert!(artifacts.has(&digest) && host.half_made().is_empty(), "{what}");
    }
}

#[test]
fn what_is_half_made_is_never_used_and_goes_at_the_next_start() {
    let host = Host::new();
    let source = host.put("agent", b"whole");
    let digest = Digest::of(b"whole");
    let half = host.store().join(format!(".{digest}.1"));
    fs::create_dir_all(&half).expect("made");
    fs::write(half.join("agent"), b"who").expect("written");
    fs::set_permissions(&half, fs::Permissions::from_mode(0o555)).expect("set");
    fs::write(host.store().join(format!(".{digest}.1.packed")), b"x").expect("written");
    // One that was renamed too early, as no version of ours does.
    let early = host.store().join(digest.to_string());
    fs::create_dir(&early).expect("made");
    fs::write(early.join("agent"), b"who").expect("written");
    let artifacts = host.artifacts();
    assert!(host.half_made().is_empty() && !artifacts.has(&digest));
    let folder = artifacts.ensure(&digest, Some(&source)).expect("an artifact");
    assert_eq!(fs::read(folder.join("agent")).expect("a file"), b"whole");
}

#[test]
fn nothing_leaves_the_folder_of_artifacts() {
    let host = Host::new();
    fs::write(host.at("secret"), "secret").expect("written");
    std::os::unix::fs::symlink(host.at("secret"), host.at("outside/link")).expect("a link");
    let digest = Digest::of(b"secret");
    let artifacts = host.artifacts();
    for path in ["link", "../secret", "none"] {
        let error = artifacts.ensure(&digest, Some(&ArtifactSource::Folder(path.to_owned()))).expect_err("refused");
        assert!(matches!(error, ArtifactError::Folder { .. }), "{path}: {error}");
    }
    host.put("folder/a", b"a");
    std::os::unix::fs::symlink("../../secret", host.at("outside/folder/link")).expect("a link");
    let source = ArtifactSource::Folder("folder".to_owned());
    let error = artifacts.ensure(&digest, Some(&source)).expect_err("refused");
    assert!(error.to_string().contains("out of it"), "{error}");
    fs::remove_file(host.at("outside/folder/link")).expect("removed");
    fs::set_permissions(host.at("outside/folder/a"), fs::Permissions::from_mode(0o4755)).expect("set");
    let error = artifacts.ensure(&digest, Some(&source)).expect_err("refused");
    assert!(error.to_string().contains("setuid"), "{error}");
    let none = Artifacts::new(host.at("other"), None, None).expect("a store");
    let error = none.ensure(&digest, Some(&source)).expect_err("no folder");
    assert!(matches!(error, ArtifactError::NoFolder { .. }), "{error}");
    assert!(host.half_made().is_empty());
}

/// Answers requests one after another, each with the text for its path.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut asked, mut byte) = (Vec::new(), [0]);
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                asked.push(byte[0]);
            }
            let asked = String::from_utf8_lossy(&asked).into_owned();
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let answer = answers.iter().find(|(of, _)| *of == path);
            stream.write_all(answer.map_or(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n", |(_, answer)| answer)).ok();
        }
    });
    format!("http://{address}")
}

#[test]
fn what_is_fetched_is_checked_before_it_is_opened() {
    let host = Host::new();
    let packed = archive(|tar| raw(tar, "bin/run", EntryType::Regular, 0o755, "", b"run"));
    let ok = |bytes: &[u8]| {
        [format!("HTTP/1.1 200 ok\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len()).as_bytes(), bytes]
            .concat()
    };
    let to = |place: &str| {
        format!("HTTP/1.1 302 go\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let base = serve(vec![
        ("/a.tar.gz", ok(&packed)),
        ("/agent", ok(b"binary")),
        ("/moved", to("/agent")),
        ("/circle", to("/circle")),
        ("/away", to("http://example.invalid/agent")),
        ("/cut", b"HTTP/1.1 200 ok\r\ncontent-length: 100\r\nconnection: close\r\n\r\nbin".to_vec()),
        ("/huge", b"HTTP/1.1 200 ok\r\ncontent-length: 300000000\r\nconnection: close\r\n\r\n".to_vec()),
    ]);
    let artifacts = host.artifacts();
    let get =
        |path: &str, digest: &Digest| artifacts.ensure(digest, Some(&ArtifactSource::Url(format!("{base}{path}"))));
    let folder = get("/a.tar.gz", &Digest::of(&packed)).expect("an artifact");
    assert_eq!(fs::read(folder.join("bin/run")).expect("a file"), b"run");
    let binary = Digest::of(b"binary");
    let error = get("/a.tar.gz", &binary).expect_err("another digest");
    assert!(matches!(error, ArtifactError::Digest { found, .. } if found == Digest::of(&packed)), "{error}");
    for (path, says) in [
        ("/none", "404"),
        ("/cut", ""),
        ("/huge", "more than 256 MiB"),
        ("/circle", "from one place to another"),
        ("/away", "not HTTPS"),
    ] {
        let error = get(path, &binary).expect_err("refused");
        assert!(matches!(error, ArtifactError::Fetch { .. }) && error.to_string().contains(says), "{path}: {error}");
    }
    let folder = get("/moved", &binary).expect("an artifact");
    assert_eq!(fs::read(folder.join("agent")).expect("a file"), b"binary");
    let plain = ArtifactSource::Url("http://example.com/agent".to_owned());
    let error = artifacts.ensure(&Digest::of(b"x"), Some(&plain)).expect_err("refused");
    assert!(error.to_string().contains("neither HTTPS nor this machine's"), "{error}");
    assert!(host.half_made().is_empty());
}

#[test]
fn the_annotation_is_read_as_it_is_written() {
    for (text, source) in [
        (r#"{"git":"abc"}"#, ArtifactSource::Git("abc".to_owned())),
        (r#"{"folder":"a/b"}"#, ArtifactSource::Folder("a/b".to_owned())),
        (r#"{"url":"https://example.com/a"}"#, ArtifactSource::Url("https://example.com/a".to_owned())),
    ] {
        assert_eq!(serde_json::from_str::<ArtifactSource>(text).expect("a source"), source);
        assert_eq!(serde_json::to_string(&source).expect("text"), text);
    }
}

#[test]
fn a_pod_has_the_artifact_that_it_names() {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{from_value, json};

    let host = Host::new();
    let source = serde_json::to_string(&host.put("agent", b"whole")).expect("text");
    let named = |digest: Digest| json!({"backstay.dev/artifact": format!("sha256:{digest}")});
    let pod = |annotations| from_value::<Pod>(json!({"metadata": {"annotations": annotations}})).expect("a Pod");
    let deployment = |digest| {
        let template = json!({"metadata": {"annotations": named(digest)}});
        let annotations = json!({"backstay.dev/artifact-source": source});
        let spec = json!({"selector": {}, "template": template});
        from_value::<Deployment>(json!({"metadata": {"annotations": annotations}, "spec": spec})).expect("a Deployment")
    };
    let code = std::sync::Arc::new(host.artifacts()).code();
    assert_eq!(code(&pod(json!({})), None).expect("no artifact"), None);
    let (whole, other) = (Digest::of(b"whole"), Digest::of(b"other"));
    let wrong = code(&pod(named(other)), Some(&deployment(other))).expect_err("another digest");
    assert!(wrong.is_wrong && wrong.why.contains(&whole.to_string()), "{wrong:?}");
    let before = code(&pod(named(other)), Some(&deployment(whole))).expect_err("no source of that one");
    assert!(!before.is_wrong && before.why.contains("nothing says where its bytes come from"), "{before:?}");
    let folder = code(&pod(named(whole)), Some(&deployment(whole))).expect("an artifact").expect("one");
    assert_eq!(fs::read(folder.join("agent")).expect("a file"), b"whole");
    assert_eq!(code(&pod(named(whole)), None).expect("here already"), Some(folder));
    assert!(code(&pod(json!({"backstay.dev/artifact": "sha256:x"})), None).expect_err("no digest").is_wrong);
}
