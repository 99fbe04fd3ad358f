//! One writer: who leads, who follows, and when a fence closes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::apply::Fence as _;
use backstay::ledger::{Election, LeaseFence, Role, SystemClock, Terms};
use backstay::observe::Api;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, Wire, lab};
use crate::ledger::ledger;

const LEASES: &str = "coordination.k8s.io/v1/leases";

struct Candidate {
    fence: LeaseFence,
    role: watch::Receiver<Role>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    fn start(api: Api, lab: &Lab, installation: &str, name: &str) -> Self {
        let terms = Terms {
            lease: Duration::from_secs(3),
            renew: Duration::from_millis(500),
            margin: Duration::from_millis(500),
        };
        let ledger = ledger(api.clone(), lab, installation);
        let (election, fence, role) = Election::new(ledger, api, name, terms, Arc::new(SystemClock::default()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(election.run(stop.clone()));
        Self { fence, role, stop, task }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Role) -> bool) -> Role {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.role.wait_for(is)).await;
        waited.unwrap_or_else(|_| panic!("not within 20 s: {what}")).expect("it runs").clone()
    }

    async fn leads(&mut self) -> u64 {
        match self.until("it leads", |role| matches!(role, Role::Leading(_))).await {
            Role::Leading(epoch) => epoch,
            role @ (Role::Following(_) | Role::ReadOnly(_)) => panic!("{role:?}"),
        }
    }
}

#[tokio::test]
async fn one_leads_and_the_next_one_follows_it() {
    let Some(lab) = lab("one_leads_and_the_next_one_follows_it").await else { return };
    let mut first = Candidate::start(lab.api(None).await, &lab, "here", "first");
    assert_eq!(first.leads().await, 1);
    assert!(first.fence.holds() && first.fence.epoch() == 1);
    let mut second = Candidate::start(lab.api(None).await, &lab, "here", "second");
    let follows = Role::Following(Some("first".to_owned()));
    second.until("it follows", |role| *role == follows).await;
    assert!(!second.fence.holds());
    // A stop gives the lease back: nobody waits for its end.
    first.stop.cancel();
    first.task.await.expect("ended");
    assert!(!first.fence.holds());
    let asked = Instant::now();
    assert_eq!(second.leads().await, 2);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // A crash does not: the lease runs out first.
    second.task.abort();
    let died = Instant::now();
    let mut third = Candidate::start(lab.api(None).await, &lab, "here", "third");
    assert_eq!(third.leads().await, 3);
    assert!(died.elapsed() >= Duration::from_millis(2500), "{:?}", died.elapsed());
    assert!(!second.fence.holds());
    let lease = lab.see(LEASES, "backstay-production").await.expect("a lease");
    assert_eq!(lease["spec"]["holderIdentity"], "third");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
    third.stop.cancel();
}

#[tokio::test]
async fn a_leader_that_hears_nothing_stops_before_another_begins() {
    // F1
    let Some(lab) = lab("a_leader_that_hears_nothing_stops_before_another_begins").await else { return };
    let wire = Wire::to(lab.server()).await;
    let mut first = Candidate::start(lab.api_over(&wire).await, &lab, "here", "first");
    first.leads().await;
    let mut second = Candidate::start(lab.api(None).await, &lab, "here", "second");
    second.until("it follows", |role| matches!(role, Role::Following(Some(_)))).await;
    wire.fall_silent();
    let fence = first.fence.clone();
    let watched = tokio::spawn(async move {
        while fence.holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    });
    assert_eq!(second.leads().await, 2);
    let led = Instant::now();
    assert!(!first.fence.holds(), "both at once");
    let closed = watched.await.expect("it closed");
    assert!(closed < led);
    // Back again, it finds its successor, and follows.
    wire.speak();
    wire.cut();
    first.until("it follows", |role| *role == Role::Following(Some("second".to_owned()))).await;
    assert!(!first.fence.holds());
    // Whoever reads a later epoch than its own in the ledger is late, whatever its lease says.
    second.fence.saw_epoch(3);
    assert!(!second.fence.holds());
    first.stop.cancel();
    second.stop.cancel();
}

#[tokio::test]
async fn another_installation_only_reads() {
    // F3
    let Some(lab) = lab("another_installation_only_reads").await else { return };
    let mut here = Candidate::start(lab.api(None).await, &lab, "here", "here-1");
    here.leads().await;
    here.stop.cancel();
    here.task.await.expect("ended");
    let mut there = Candidate::start(lab.api(None).await, &lab, "there", "there-1");
    let role = there.until("it only reads", |role| matches!(role, Role::ReadOnly(_))).await;
    let Role::ReadOnly(why) = role else { panic!("{role:?}") };
    assert!(why.contains("`here`"), "{why}");
    assert!(!there.fence.holds());
    there.stop.cancel();
}

#[tokio::test]
async fn a_lease_that_somebody_broke_is_no_lease_to_write_under() {
    let Some(lab) = lab("a_lease_that_somebody_broke_is_no_lease_to_write_under").await else { return };
    let mut first = Candidate::start(lab.api(None).await, &lab, "here", "first");
    first.leads().await;
    lab.merge(LEASES, "backstay-production", "somebody", &json!({"spec": {"holderIdentity": "a-stranger"}})).await;
    first.until("it follows", |role| *role == Role::Following(Some("a-stranger".to_owned()))).await;
    assert!(!first.fence.holds());
    // The stranger never renews: its lease runs out, and a new epoch begins.
    assert_eq!(first.leads().await, 2);
    assert!(first.fence.holds());
    lab.remove(LEASES, "backstay-production").await;
    first.until("a new lease, a new epoch", |role| *role == Role::Leading(3)).await;
    first.stop.cancel();
}
