//! A host: its API, the artifacts that it unpacks, and the files and the talk of its keepers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use backstay::host::{Caller, HostApi, Store};
use backstay::keeper::client::Client;
use backstay::keeper::folder::{Standing, look};
use backstay::keeper::logs::{self, Reader};
use backstay::keeper::spec::Spec;
use backstay::keeper::wire::{Answer, Hello, Identity, Request, Status, VERSION};
use backstay::ledger::SystemClock;
use backstay::model::Digest;
use backstay::supervisor::{ArtifactSource, Artifacts};
use backstay::sys::{self, ProcessId, Word};
use hyper::service::Service as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{assert_plain, parts, scratch};

// === the API ===

/// Requests, each ended by a zero: a line with caller, method, path and type, and a body.
pub(super) fn api(data: &[u8]) {
    let folder = scratch();
    let store = Store::open(&folder.path().join("db"), Arc::new(SystemClock::default())).expect("a database");
    let api = HostApi::new(Arc::new(store));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut before = version(&api).await;
        for part in parts(data).take(12) {
            asked(&api, part).await;
            let after = version(&api).await;
            let caller = part.first().copied().unwrap_or_default();
            let may_change = caller != b'r' && (caller != b'p' || part.starts_with(b"p PATCH /apis/backstay.dev/"));
            assert!(
                after >= before && (may_change || after == before),
                "{before} {after} {:?}",
                String::from_utf8_lossy(part)
            );
            before = after;
        }
    });
}

async fn version(api: &HostApi) -> u64 {
    let (status, listed) =
        answer(api, Caller::Daemon, "GET", "/api/v1/namespaces/a/pods", "", &[]).await.expect("a request");
    assert_eq!(status, 200);
    listed["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).expect("a version")
}

async fn asked(api: &HostApi, part: &[u8]) {
    let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
    let Ok(line) = std::str::from_utf8(&part[..end]) else { return };
    let body = part.get(end + 1..).unwrap_or_default();
    let mut words = line.split(' ');
    let (caller, method, path, kind) = (words.next(), words.next(), words.next(), words.next().unwrap_or_default());
    let caller = match caller {
        Some("r") => Caller::Reader("bob".to_owned()),
        Some("p") => Caller::Person("alice".to_owned()),
        _ => Caller::Daemon,
    };
    let (method, path) = (method.unwrap_or_default(), path.unwrap_or_default());
    let Some((status, told)) = answer(api, caller.clone(), method, path, kind, body).await else { return };
    if status >= 400 {
        assert_eq!((&told["kind"], &told["code"]), (&Value::from("Status"), &Value::from(status)), "{told}");
        assert_eq!(told["status"], "Failure");
        return;
    }
    // What was written stands there.
    let written =
        matches!(method, "PUT" | "POST" | "PATCH") && !path.contains("dryRun") && told["metadata"]["uid"].is_string();
    if written {
        let plain = path.split('?').next().unwrap_or_default().trim_end_matches("/status");
        let name = told["metadata"]["name"].as_str().unwrap_or_default();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let place = if method == "POST" { format!("{plain}/{name}") } else { plain.to_owned() };
        if is_name || method != "POST" {
            let again = answer(api, Caller::Daemon, "GET", &place, "", &[]).await;
            assert_eq!(again, Some((200, told)), "{line}");
        }
    }
}

/// Status and body of an answer; nothing where it is no request, or a watch, which goes on for long.
async fn answer(
    api: &HostApi,
    caller: Caller,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Option<(u16, Value)> {
    let service = hyper_util::service::TowerToHyperService::new(api.router(caller));
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let answer = service.call(request.body(axum::body::Body::from(body.to_vec())).ok()?).await.expect("an answer");
    let status = answer.status().as_u16();
    if status == 200 && path.contains("watch") {
        return None;
    }
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a whole answer");
    Some((status, serde_json::from_slice(&bytes).expect("JSON")))
}

// === artifacts ===

/// The bytes of an artifact: a file, or the `tar.gz` that they are.
pub(super) fn artifact(data: &[u8]) {
    unpacked(data);
}

/// Entries of an archive, each ended by a zero: a letter for its kind, one for its mode, its path, a line's end, and what is
/// in it or where it leads. A `!` before all of that: the rest is put into the archive as it is.
pub(super) fn archive(data: &[u8]) {
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    let mut put = |bytes: &[u8]| packed.write_all(bytes).expect("memory");
    for part in parts(data).take(64) {
        if let Some(raw) = part.strip_prefix(b"!") {
            put(raw);
            continue;
        }
        let [kind, mode, rest @ ..] = part else { continue };
        let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (path, content) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
        let mut header = tar::Header::new_gnu();
        let kinds = *b"0512g7x3LK6";
        let kind = kinds[usize::from(*kind) % kinds.len()];
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode([0o644, 0o755, 0o000, 0o4755, 0o777][usize::from(*mode) % 5]);
        let leads = matches!(kind, b'1' | b'2');
        header.set_size(if leads { 0 } else { content.len() as u64 });
        let raw = header.as_old_mut();
        let fill = |field: &mut [u8], text: &[u8]| {
            let count = text.len().min(field.len());
            field[..count].copy_from_slice(&text[..count]);
        };
        fill(&mut raw.name, path);
        if leads {
            fill(&mut raw.linkname, content);
        }
        header.set_cksum();
        put(header.as_bytes());
        if !leads {
            put(content);
            put(&[0; 512][..content.len().next_multiple_of(512) - content.len()]);
        }
    }
    put(&[0; 1024]);
    unpacked(&packed.finish().expect("memory"));
}

/// Takes an artifact in, and looks at everything that was made by it.
fn unpacked(bytes: &[u8]) {
    let folder = scratch();
    let root = folder.path().canonicalize().expect("a folder");
    let (outside, kept) = (root.join("outside"), root.join("kept"));
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("packed"), bytes).expect("a file");
    let artifacts = Artifacts::new(kept.clone(), Some(outside.clone()), None).expect("a folder");
    let sha256 = Digest::of(bytes);
    let from = ArtifactSource::Folder("packed".to_owned());
    let made = artifacts.ensure(&sha256, Some(&from));
    assert_eq!(names(&root), ["kept", "outside"], "nothing is written beside it");
    assert_eq!(names(&outside), ["packed"]);
    assert_eq!(fs::read(outside.join("packed")).expect("it is there"), bytes);
    match made {
        Ok(made) => {
            assert_eq!(made, kept.join(sha256.to_string()));
            let total = looked_at(&made, &made);
            assert!(total <= 1 << 28, "{total} bytes");
            assert!(artifacts.has(&sha256));
            assert_eq!(artifacts.ensure(&sha256, None).expect("it is there"), made);
        }
        Err(error) => {
            assert_plain(&error.to_string());
            assert!(names(&kept).is_empty(), "nothing is left half-made: {:?}", names(&kept));
        }
    }
    artifacts.sweep(|_| false).expect("it can be removed");
    assert!(names(&kept).is_empty());
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Bytes of all files beneath a folder: there are files, folders and links within, and nobody may write.
fn looked_at(folder: &Path, root: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        assert_plain(&path.to_string_lossy());
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            // Wherever it leads, also to nothing, it is within.
            let target = fs::read_link(&path).expect("a link");
            assert!(!target.is_absolute(), "{}", target.display());
            if let Ok(found) = path.canonicalize() {
                assert!(found.starts_with(root), "{} leads to {}", path.display(), found.display());
            }
        } else if meta.is_dir() {
            assert_eq!(mode, 0o555, "{}", path.display());
            total += looked_at(&path, root);
        } else {
            assert!(meta.is_file() && matches!(mode, 0o444 | 0o555), "{} {mode:o}", path.display());
            total += meta.len();
        }
    }
    total
}

/// Names in the folder of artifacts, each ended by a zero: what is half-made goes, what is no artifact stays.
pub(super) fn artifacts(data: &[u8]) {
    let folder = scratch();
    let kept = folder.path().join("kept");
    fs::create_dir(&kept).expect("a folder");
    fs::write(folder.path().join("beside"), "").expect("a file");
    let (mut made, mut folders) = (BTreeSet::new(), false);
    for name in parts(data).take(40) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name.is_empty() || name.len() > 200 || name.contains('/') || name == "." || name == ".." {
            continue;
        }
        folders = !folders;
        let path = kept.join(name);
        let done = if folders { fs::create_dir(&path) } else { fs::write(&path, "x") };
        if done.is_ok() {
            made.insert(name.to_owned());
        }
    }
    let sweeps = Artifacts::new(kept.clone(), None, None).expect("it can be swept");
    made.retain(|name| !name.starts_with('.'));
    assert!(names(&kept).iter().eq(&made), "what is half-made goes alone: {:?}", names(&kept));
    sweeps.sweep(|_| false).expect("it can be swept");
    let is_artifact = |name: &String| name.strip_suffix(".listing").unwrap_or(name).parse::<Digest>().is_ok();
    made.retain(|name| !is_artifact(name));
    assert!(names(&kept).iter().eq(&made), "artifacts go alone: {:?}", names(&kept));
    assert!(folder.path().join("beside").exists());
}

// === keepers ===

/// The three files of an instance's folder, each ended by a zero.
pub(super) fn instance(data: &[u8]) {
    let folder = scratch();
    let mut files = parts(data);
    for name in ["spec.json", "keeper.json", "state.json"] {
        fs::write(folder.path().join(name), files.next().unwrap_or_default()).expect("a file");
    }
    match Spec::read(folder.path()) {
        Ok(spec) => {
            let other = scratch();
            spec.write(other.path()).expect("what was read can be written");
            assert_eq!(Spec::read(other.path()).ok(), Some(spec));
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    for intent in [None, Some(("a", "nonce123"))] {
        match look(folder.path(), intent) {
            Ok(Standing::Dead { .. } | Standing::OtherBoot { .. }) => {}
            Ok(other) => panic!("nobody holds it: {other:?}"),
            Err(error) => assert_plain(&error.to_string()),
        }
    }
}

/// What was read is written as it is read.
fn round<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(line) {
        let text = serde_json::to_vec(&value).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<T>(&text).expect("what was written can be read"), value);
    }
}

/// A keeper that says this: each line is an answer, and `hello` the right one to a hello.
pub(super) fn keeper(data: &[u8]) {
    struct Stand {
        folder: PathBuf,
        script: Arc<Mutex<Vec<Vec<u8>>>>,
        turn: Mutex<()>,
    }
    static STAND: OnceLock<Stand> = OnceLock::new();
    for line in data.split(|byte| *byte == b'\n') {
        round::<Hello>(line);
        round::<Request>(line);
        round::<Answer>(line);
        round::<Identity>(line);
        round::<Status>(line);
    }
    let stand = STAND.get_or_init(|| {
        let folder = scratch().keep();
        let listener = UnixListener::bind(folder.join("s")).expect("a socket");
        let script = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let own = Arc::clone(&script);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(says(stream, &own))));
        Stand { folder, script, turn: Mutex::default() }
    });
    let _turn = stand.turn.lock().unwrap_or_else(PoisonError::into_inner);
    *stand.script.lock().unwrap_or_else(PoisonError::into_inner) =
        data.split_inclusive(|byte| *byte == b'\n').rev().map(<[u8]>::to_vec).collect();
    let told = Client::connect(&stand.folder, Some(1)).and_then(|mut client| {
        assert_eq!(client.identity().process.pid, std::process::id(), "it is who the kernel says");
        client.status()?;
        client.listening()?;
        client.signal(Word::Term)?;
        client.probe(vec!["x".to_owned()], Duration::from_secs(1))?;
        client.next(1, Duration::from_secs(5))?;
        client.restart(Duration::from_secs(5))?;
        client.stop(None, Duration::from_secs(5))
    });
    if let Err(error) = told {
        assert_plain(&error.to_string());
        assert!(error.to_string().len() < 8192, "it is short");
    }
}

/// Answers each line that comes with the next of the script.
fn says(mut stream: UnixStream, script: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut asked = vec![];
    while lines.read_until(b'\n', &mut asked)? > 0 {
        let next = script.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut line) = next else { break };
        if line == b"hello\n" {
            let process = ProcessId { pid: std::process::id(), start: 1 };
            let (boot, nonce) = (sys::boot_id().unwrap_or_default(), "nonce123".to_owned());
            let (keeper, instance) = ("1".to_owned(), "a".to_owned());
            let identity = Identity {
                version: VERSION,
                keeper,
                program: None,
                instance,
                nonce,
                process,
                boot,
                since_ms: 1,
                epoch: 1,
            };
            line = serde_json::to_vec(&Answer::Hello(identity)).unwrap_or_default();
            line.push(b'\n');
        }
        stream.write_all(&line)?;
        // Half a line is waited for until the connection ends.
        if !line.ends_with(b"\n") {
            break;
        }
    }
    Ok(())
}

/// Files of a log, a name and a content after it, each ended by a zero.
pub(super) fn logs(data: &[u8]) {
    let folder = scratch();
    let parts: Vec<_> = parts(data).take(24).collect();
    for pair in parts.chunks(2) {
        let (Ok(name), content) = (std::str::from_utf8(pair[0]), pair.get(1).copied().unwrap_or_default()) else {
            continue;
        };
        if !name.is_empty() && name.len() < 200 && !name.contains('/') && name != "." && name != ".." {
            fs::write(folder.path().join(name), content).expect("a file");
        }
    }
    let files = logs::files(folder.path()).expect("a folder");
    assert!(files.is_sorted_by(|one, other| (one.number, one.begun_s) <= (other.number, other.begun_s)));
    // Two files of one number are nothing that a keeper makes.
    if files.windows(2).any(|two| two[0].number == two[1].number) {
        return;
    }
    let whole: Vec<u8> = files.iter().flat_map(|file| fs::read(&file.path).expect("a file")).collect();
    assert_eq!(rest(Reader::oldest(folder.path())), whole);
    let starts = |at: usize| {
        let mut ends = files.iter().scan(0, |sum, file| {
            *sum += usize::try_from(fs::metadata(&file.path).expect("a file").len()).unwrap_or(usize::MAX);
            Some(*sum)
        });
        at == 0 || whole[at - 1] == b'\n' || ends.any(|end| end == at)
    };
    for lines in [0, 1, 2, 5] {
        let told = rest(Reader::tail(folder.path(), lines).expect("a folder"));
        assert!(whole.ends_with(&told) && starts(whole.len() - told.len()), "the last {lines} lines are whole ones");
        let count = told.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).count();
        assert!(count <= lines, "{count} lines where {lines} were asked for");
    }
}

fn rest(mut reader: Reader) -> Vec<u8> {
    let (mut all, mut piece) = (vec![], [0; 97]);
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        all.extend(&piece[..count]);
    }
    all
}
