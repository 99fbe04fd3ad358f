//! A host in place of the lab's cluster: the same tests, against the API server within this process.
#![allow(dead_code, reason = "the tests of a cluster use a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]
#![expect(clippy::unused_async, reason = "called as the cluster's are")]

#[path = "../support/objects.rs"]
mod objects;
#[path = "../support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backstay::host::{Caller, HostApi, Store};
use backstay::ledger::SystemClock;
use backstay::observe::{Api, Limiter};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use objects::{Objects, eventually};
pub(crate) use wire::Wire;

/// What only a cluster has, by the name of its test.
const NOT_HERE: [(&str, &str); 10] = [
    ("replicas_change_hands_without_a_moment_at_one", "another controller that scales"),
    ("every_refusal_of_the_server_is_known_for_what_it_is", "kinds with immutable fields, accounts and roles"),
    ("quota_admission_and_missing_places_are_told_apart", "quotas, admission, namespaces"),
    ("a_kind_is_found_once_its_definition_is_there", "definitions of one's own"),
    ("people_ask_under_their_own_rights", "roles"),
    ("without_its_definitions_the_way_out_is_named", "definitions"),
    ("a_dry_run_tells_and_writes_nothing", "defaults"),
    ("a_record_comes_back_as_it_was_written", "printed columns"),
    ("an_announcement_is_an_event_on_the_agent", "events of the core group"),
    ("an_adoption_takes_over_what_tools_wrote", "lists whose items have owners of their own"),
];

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A host of one's own, gone at the end.
pub(crate) struct Lab {
    objects: Objects,
    port: u16,
    server: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

/// A host for a test; nothing where the test is about what a host does not have.
pub(crate) async fn lab(name: &str) -> Option<Lab> {
    if NOT_HERE.iter().any(|(not_here, _)| *not_here == name) {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("host.db"), Arc::new(SystemClock::default())).expect("a store");
    let api = HostApi::new(Arc::new(store));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = api.router(Caller::Daemon);
    let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    let namespace = format!("host-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Some(Lab { objects: Objects { client: client(port), namespace }, port, server, _folder: folder })
}

fn client(port: u16) -> kube::Client {
    let mut config = kube::Config::new(format!("http://127.0.0.1:{port}").parse().expect("a URL"));
    config.default_retry = false;
    kube::Client::try_from(config).expect("a client")
}

fn not_here() -> ! {
    panic!("a host does not have this: name the test in NOT_HERE")
}

// === impl Lab ===

impl Lab {
    pub(crate) async fn api(&self, user: Option<&str>) -> Api {
        assert_eq!(user, None, "a host has no users of its own");
        Api::new(self.client.clone(), Arc::new(Limiter::default())).with_timeout(Duration::from_secs(5))
    }

    pub(crate) async fn api_as(&self, _account: &str) -> Api {
        not_here()
    }

    pub(crate) async fn api_with_token(&self, _token: &str) -> Api {
        not_here()
    }

    pub(crate) async fn install(&self, _crd: &Value) {
        not_here()
    }

    pub(crate) async fn allow(&self, _: &str, _: Value, _: &[&str], _: &[&str], _: &[&str]) {
        not_here()
    }

    pub(crate) async fn api_over(&self, wire: &Wire) -> Api {
        Api::new(client(wire.port), Arc::new(Limiter::default())).with_timeout(Duration::from_secs(2))
    }

    pub(crate) fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl std::ops::Deref for Lab {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.server.abort();
    }
}
