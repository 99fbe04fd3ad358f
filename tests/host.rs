//! The rooms of a target against a host: what the cluster's tests say of a real API server holds here too.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "host/lab.rs"]
mod lab;

#[path = "cluster/apply.rs"]
mod apply;
#[path = "cluster/election.rs"]
mod election;
#[path = "cluster/ledger.rs"]
mod ledger;

/// How the watches of these tests keep time.
mod network {
    use std::time::Duration;

    use backstay::observe::{Api, Pace};

    /// What has no kinds at all: a host always has its own.
    #[expect(clippy::unused_async, reason = "called as the cluster's is")]
    pub(crate) async fn empty_server() -> Api {
        panic!("a host has its kinds")
    }

    pub(crate) fn pace() -> Pace {
        Pace {
            watch: Duration::from_secs(2),
            grace: Duration::from_millis(500),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
        }
    }
}

#[path = "host/store.rs"]
mod store;
#[path = "host/people.rs"]
mod people;
#[path = "host/rollout.rs"]
mod rollout;
#[path = "host/socket.rs"]
mod socket;
