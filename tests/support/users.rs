//! Users who ask an agent all the while, and what they get of each release.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::daemon::until;
use crate::lab::Objects;

/// Users at a time.
const USERS: usize = 8;
/// Failures of a release that are told in words.
const TOLD: usize = 5;
/// How often the endpoints of a Service are looked at.
const LOOKS: Duration = Duration::from_millis(20);

/// What users got of one release: answers, failures, and when the first and the last of its questions were sent.
#[derive(Default, Clone, Debug)]
pub(crate) struct Got {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    /// What its first failures were.
    pub(crate) why: Vec<String>,
    /// When its failures were sent.
    pub(crate) when: Vec<Timestamp>,
}

/// Where `support` is asked.
#[derive(Clone)]
pub(crate) enum Front {
    /// At one address, by the name of a host.
    Named {
        /// Host and port.
        address: String,
        /// The name.
        host: String,
    },
    /// At one of the ready endpoints of its Service, drawn for each connection as kube-proxy draws one.
    Drawn(Arc<Mutex<Vec<String>>>),
}

/// Users who ask until they are told to stop.
pub(crate) struct Users {
    got: Arc<Mutex<BTreeMap<String, Got>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Front ===

impl Front {
    /// The Service of `support` in a namespace, whose endpoints are followed until the test ends.
    pub(crate) async fn service(client: kube::Client, namespace: &str) -> Self {
        let ready = Arc::<Mutex<Vec<String>>>::default();
        let objects = Objects { client, namespace: namespace.to_owned() };
        let kept = Arc::clone(&ready);
        tokio::spawn(async move {
            let path = objects.path("discovery.k8s.io/v1/endpointslices");
            let path = format!("{path}?labelSelector=kubernetes.io/service-name%3Dsupport");
            loop {
                if let Ok(slices) = objects.ask(Method::GET, &path, None).await {
                    *kept.lock().expect("no panic before") = endpoints(&slices);
                }
                tokio::time::sleep(LOOKS).await;
            }
        });
        while ready.lock().expect("no panic before").is_empty() {
            tokio::time::sleep(LOOKS).await;
        }
        Self::Drawn(ready)
    }

    /// One question: which release answered, and what it failed with.
    pub(crate) async fn ask(
        &self,
        http: &reqwest::Client,
        headers: &[(&str, &str)],
    ) -> (Option<String>, Result<(), String>) {
        let (address, host) = match self {
            Self::Named { address, host } => (address.clone(), host.clone()),
            Self::Drawn(ready) => {
                let ready = ready.lock().expect("no panic before");
                let Some(drawn) = ready.get(draw(ready.len())) else {
                    return (None, Err("there is no endpoint".to_owned()));
                };
                (drawn.clone(), "support".to_owned())
            }
        };
        let mut asked =
            http.post(format!("http://{address}/chat")).header("host", host).header("backstay-release", "?");
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        match asked.json(&json!({"message": "refund"})).send().await {
            Ok(answer) => {
                let named = answer.headers().get("backstay-release").and_then(|name| name.to_str().ok());
                let named = named.map(str::to_owned);
                let status = answer.status();
                let text = answer.text().await.unwrap_or_else(|error| format!("{error:?}"));
                let body: Value = serde_json::from_str(&text).unwrap_or_default();
                let end = if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) };
                (named.or(body["release"].as_str().map(str::to_owned)), end)
            }
            Err(error) => (None, Err(format!("{error:?}"))),
        }
    }

    /// A client for it: what is drawn is drawn for each request.
    pub(crate) fn client(&self) -> reqwest::Client {
        let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
        let builder = if matches!(self, Self::Drawn(_)) { builder.pool_max_idle_per_host(0) } else { builder };
        builder.build().expect("a client")
    }

    /// Waits until one release answers all of so many requests, since endpoints and proxies learn of a change a moment after
    /// it stands; not one may fail meanwhile.
    pub(crate) async fn only(&self, release: &str, n: u32, headers: &[(&'static str, &'static str)]) {
        until(&format!("{release} answers all"), async || {
            let (counts, failed) = self.count(n, headers).await;
            assert_eq!(failed, 0, "{counts:?}");
            counts.keys().all(|answered| answered == release).then_some(())
        })
        .await;
    }

    /// How many of `n` requests each release answered, and how many failed; 32 at a time.
    pub(crate) async fn count(&self, n: u32, headers: &[(&'static str, &'static str)]) -> (BTreeMap<String, u32>, u32) {
        let http = self.client();
        let askers = (0..32).map(|asker| {
            let (front, http, headers) = (self.clone(), http.clone(), headers.to_vec());
            let own = n / 32 + u32::from(asker < n % 32);
            tokio::spawn(async move {
                let (mut counts, mut failed) = (BTreeMap::<String, u32>::new(), 0);
                for _ in 0..own {
                    match front.ask(&http, &headers).await {
                        (Some(release), Ok(())) => *counts.entry(release).or_default() += 1,
                        _ => failed += 1,
                    }
                }
                (counts, failed)
            })
        });
        let (mut counts, mut failed) = (BTreeMap::new(), 0);
        for asker in askers.collect::<Vec<_>>() {
            let (more, lost) = asker.await.expect("an asker");
            more.into_iter().for_each(|(release, count)| *counts.entry(release).or_default() += count);
            failed += lost;
        }
        (counts, failed)
    }
}

/// A number below `n`, as good as any.
fn draw(n: usize) -> usize {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(Instant::now());
    usize::try_from(random % u64::try_from(n.max(1)).expect("small")).expect("small")
}

/// The ready endpoints of all slices, `address:port`.
fn endpoints(slices: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of = |slice: &Value| {
        let port = slice["ports"][0]["port"].as_u64();
        let ready = list(&slice["endpoints"]).into_iter().filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let at = move |endpoint: Value| Some(format!("{}:{}", endpoint["addresses"][0].as_str()?, port?));
        ready.filter_map(at).collect::<Vec<_>>()
    };
    list(&slices["items"]).iter().flat_map(of).collect()
}

// === impl Users ===

impl Users {
    /// Eight of them, with a short pause after each answer.
    pub(crate) fn start(front: &Front) -> Self {
        let (got, stop) = (Arc::<Mutex<BTreeMap<String, Got>>>::default(), Arc::<AtomicBool>::default());
        let http = front.client();
        let user = |_| {
            let (got, stop, http, front) = (Arc::clone(&got), Arc::clone(&stop), http.clone(), front.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let sent = Timestamp::now();
                    let (release, end) = front.ask(&http, &[]).await;
                    note(&got, release, end, sent);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let tasks = (0..USERS).map(user).collect();
        Self { got, stop, tasks }
    }

    /// So many questions a second, whether they are answered or not.
    pub(crate) fn every(front: &Front, per_second: u32) -> Self {
        let (got, stop) = (Arc::<Mutex<BTreeMap<String, Got>>>::default(), Arc::<AtomicBool>::default());
        let (kept, halt, front) = (Arc::clone(&got), Arc::clone(&stop), front.clone());
        let asking = tokio::spawn(async move {
            let http = front.client();
            let mut asked = tokio::task::JoinSet::new();
            let mut clock = tokio::time::interval(Duration::from_secs(1) / per_second);
            while !halt.load(Ordering::Relaxed) {
                clock.tick().await;
                let (got, http, front) = (Arc::clone(&kept), http.clone(), front.clone());
                asked.spawn(async move {
                    let sent = Timestamp::now();
                    let (release, end) = front.ask(&http, &[]).await;
                    note(&got, release, end, sent);
                });
                while asked.try_join_next().is_some() {}
            }
            asked.join_all().await;
        });
        Self { got, stop, tasks: vec![asking] }
    }

    /// What they got so far, by release; `nobody` where no release is known.
    pub(crate) fn got(&self) -> BTreeMap<String, Got> {
        self.got.lock().expect("no panic before").clone()
    }

    /// Waits until a release has answered so many questions.
    pub(crate) async fn answered(&self, release: &str, count: u64) {
        let many = async || (self.got().get(release)?.answered > count).then_some(());
        crate::daemon::until(&format!("{release} has answered {count} questions"), many).await;
    }

    /// Lets all of them go home; gives what they got.
    pub(crate) async fn end(self) -> BTreeMap<String, Got> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a user");
        }
        Arc::try_unwrap(self.got).expect("all have gone").into_inner().expect("no panic before")
    }
}

fn note(got: &Mutex<BTreeMap<String, Got>>, release: Option<String>, end: Result<(), String>, sent: Timestamp) {
    let mut got = got.lock().expect("no panic before");
    let entry = got.entry(release.unwrap_or_else(|| "nobody".to_owned())).or_default();
    match end {
        Ok(()) => entry.answered += 1,
        Err(why) => {
            entry.failed += 1;
            entry.when.push(sent);
            if entry.why.len() < TOLD {
                entry.why.push(format!("{sent}: {why}"));
            }
        }
    }
    entry.first = entry.first.or(Some(sent));
    entry.last = Some(sent);
}
