//! The API of a host on a Unix socket: who may ask, and what a caller cannot do to it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay::host::{self, Caller, HostApi, ListenError, Store, client, listen, serve};
use backstay::ledger::{Ask, Asker, Ledger, SystemClock, whoami};
use backstay::model::Timestamp;
use backstay::observe::{Api, Limiter};
use backstay::reconcile::FailureKind;
use backstay::record::AgentRecord;
use backstay::sys;
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const SUPPORT: &str = "/apis/backstay.dev/v1alpha1/namespaces/development/agentreleases/support";

/// A host that is served on a socket, with one agent in its ledger.
pub(crate) struct Served {
    pub(crate) folder: TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) api: HostApi,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

// === impl Served ===

impl Served {
    /// Served at `state/host/api.sock` of a folder of its own.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Another account can come as far as the socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opened");
        let host = folder.path().join("state/host");
        fs::create_dir_all(&host).expect("a folder");
        let store = Store::open(&host.join("host.db"), Arc::new(SystemClock::default())).expect("a store");
        let api = HostApi::new(Arc::new(store));
        let (socket, stop) = (host.join("api.sock"), CancellationToken::new());
        let listener = listen(&socket).expect("a socket");
        let task = tokio::spawn(serve(listener, api.clone(), BTreeSet::new(), stop.clone()));
        let served = Self { folder, socket, api, stop, task };
        let daemon = ledger(served.api.client());
        daemon.claim().await.expect("claimed");
        let agent = "support".parse().expect("a name");
        daemon.record(&agent, None, &AgentRecord::default()).await.expect("recorded");
        served
    }

    pub(crate) async fn end(self) -> TempDir {
        self.stop.cancel();
        self.task.await.expect("joined").expect("served");
        self.folder
    }
}

/// The ledger of the environment, over a client.
pub(crate) fn ledger(client: kube::Client) -> Ledger {
    let environment = "development".parse().expect("a name");
    Ledger::new(api(client), "development".to_owned(), environment, "demo")
}

fn api(client: kube::Client) -> Api {
    Api::new(client, Arc::new(Limiter::default())).with_timeout(Duration::from_secs(5))
}

fn asker(by: &str) -> Asker {
    Asker { by: by.to_owned(), reason: "a try".to_owned(), at: Timestamp::now() }
}

/// The status of a patch of an agent's record.
async fn patch(client: &kube::Client, path: &str, content_type: &str, body: Value) -> u16 {
    let request = Request::patch(path).header("content-type", content_type).body(body.to_string().into_bytes());
    match client.request::<Value>(request.expect("a request")).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn a_person_is_known_by_their_account_and_asks_in_their_own_name() {
    let served = Served::start().await;
    let me = sys::account(sys::own_uid());
    let asks = ledger(client(&served.socket));
    assert_eq!(whoami(&api(client(&served.socket))).await.expect("a name"), me);
    let agent = "support".parse().expect("a name");
    asks.request(&agent, &Ask::Suspend, &asker(&me)).await.expect("asked");
    let refused = asks.request(&agent, &Ask::Resume, &asker("mallory")).await.expect_err("another's name");
    assert_eq!(refused.kind, FailureKind::Forbidden, "{refused:?}");
    assert!(refused.message.contains("nobody asks in another's name"), "{refused:?}");
    served.end().await;
}

#[tokio::test]
async fn a_person_changes_nothing_but_their_requests() {
    let served = Served::start().await;
    let client = client(&served.socket);
    let me = sys::account(sys::own_uid());
    let asks = json!({"suspend": {"id": "1", "by": me}});
    for (path, content_type, body) in [
        (SUPPORT, MERGE, json!({"spec": {"suspend": null}})),
        (SUPPORT, MERGE, json!({"spec": {"suspend": {"id": "1"}}})),
        (SUPPORT, MERGE, json!({"spec": null})),
        (SUPPORT, MERGE, json!({"spec": asks, "metadata": {"labels": {"a": "b"}}})),
        (SUPPORT, MERGE, json!([])),
        (SUPPORT, "application/apply-patch+yaml", json!({"spec": asks})),
        (SUPPORT, "application/json-patch+json", json!([{"op": "remove", "path": "/spec"}])),
        (&format!("{SUPPORT}/status"), MERGE, json!({"status": {}})),
        ("/apis/apps/v1/namespaces/development/deployments/support", MERGE, json!({"spec": asks})),
    ] {
        assert_eq!(patch(&client, path, content_type, body.clone()).await, 403, "{path} {content_type} {body}");
    }
    assert_eq!(patch(&client, SUPPORT, MERGE, json!({"spec": asks})).await, 200);
    for method in ["DELETE", "PUT", "POST"] {
        let path = if method == "POST" { SUPPORT.trim_end_matches("/support") } else { SUPPORT };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer = client.request::<Value>(request.body(b"{}".to_vec()).expect("a request")).await;
        let Err(kube::Error::Api(status)) = answer else { panic!("{method}: {answer:?}") };
        assert_eq!(status.code, 403, "{method}");
    }
    served.end().await;
}

#[tokio::test]
async fn anybody_else_only_reads() {
    let served = Served::start().await;
    let reader = kube::Client::new(served.api.router(Caller::Reader("bob".to_owned())), "default");
    assert_eq!(patch(&reader, SUPPORT, MERGE, json!({"spec": {"suspend": {"id": "1", "by": "bob"}}})).await, 403);
    ledger(reader).agent(&"support".parse().expect("a name")).await.expect("read");
    // The same from an account of its own, where this one may become another.
    if sys::own_uid() == 0 {
        let socket = served.socket.clone();
        let told = tokio::task::spawn_blocking(move || as_nobody(&socket)).await.expect("joined");
        assert_eq!(told, "GET 200 PATCH 403");
    }
    served.end().await;
}

/// What the API answers to an account that the configuration does not name.
fn as_nobody(socket: &Path) -> String {
    let script = r#"
import http.client, json, socket, sys
def ask(method, body=None):
    c = http.client.HTTPConnection("localhost", timeout=10)
    c.sock = socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1])
    c.request(method, sys.argv[2], body, {"content-type": "application/merge-patch+json"})
    return f"{method} {c.getresponse().status}"
print(ask("GET"), ask("PATCH", json.dumps({"spec": {"suspend": {"id": "1", "by": "nobody"}}})))
"#;
    let mut python = std::process::Command::new("/usr/bin/python3");
    let ran = python.args(["-c", script]).arg(socket).arg(SUPPORT).current_dir("/").uid(65_534).gid(65_534).output();
    let ran = ran.expect("python");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_left_socket_is_replaced_and_one_that_answers_never() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    drop(listen(&socket).expect("a socket"));
    let listener = listen(&socket).expect("the left one is replaced");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o666);
    assert!(matches!(listen(&socket), Err(ListenError::Taken(_))));
    host::answers(&socket).await.expect("the first still answers");
    drop(listener);
    let file = folder.path().join("file");
    fs::write(&file, "mine").expect("written");
    assert!(matches!(listen(&file), Err(ListenError::NoSocket(_))));
    assert_eq!(fs::read_to_string(&file).expect("there"), "mine");
}

#[tokio::test]
async fn a_path_may_be_longer_than_an_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("a".repeat(100)).join("b".repeat(100));
    fs::create_dir_all(&deep).expect("a folder");
    let socket = deep.join("api.sock");
    let listener = listen(&socket).expect("a socket");
    host::answers(&socket).await.expect("it is reached");
    drop(listener);
    assert!(host::answers(&socket).await.is_err());
    listen(&socket).expect("and replaced");
}

#[tokio::test]
async fn one_account_cannot_take_all_connections_and_a_slow_head_is_cut() {
    let served = Served::start().await;
    let mut open = vec![];
    for _ in 0..64 {
        let mut stream = UnixStream::connect(&served.socket).await.expect("connected");
        stream.write_all(b"GET /").await.expect("sent");
        open.push(stream);
    }
    let mut more = UnixStream::connect(&served.socket).await.expect("connected");
    let closed = tokio::time::timeout(Duration::from_secs(10), more.read(&mut [0; 16])).await.expect("in time");
    assert!(closed.map_or(true, |count| count == 0), "a 65th connection of one account is closed");
    // A head that never ends is not waited for, and its place is free again.
    let mut first = open.remove(0);
    let mut answer = vec![];
    let cut = tokio::time::timeout(Duration::from_secs(30), first.read_to_end(&mut answer)).await;
    assert!(cut.is_ok(), "a head that never ends was waited for");
    drop(open);
    served.end().await;
}

#[tokio::test]
async fn a_stop_cuts_watches() {
    let served = Served::start().await;
    let mut watch = UnixStream::connect(&served.socket).await.expect("connected");
    let collection = SUPPORT.trim_end_matches("/support");
    let request = format!("GET {collection}?watch=true&resourceVersion=0 HTTP/1.1\r\nhost: h\r\n\r\n");
    watch.write_all(request.as_bytes()).await.expect("sent");
    let mut head = [0; 12];
    watch.read_exact(&mut head).await.expect("it answers");
    assert_eq!(&head, b"HTTP/1.1 200");
    tokio::time::timeout(Duration::from_secs(10), served.end()).await.expect("a watch does not hold it up");
}
