//! What whoever measures answers, and what is made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use backstay::desired::rollout::{Metric, Preset, Source};
use backstay::judge::{Arms, NoData, Reading};
use backstay::measure::{Exposition, Gates, Ground, Providers};
use backstay::model::{LiveObject, ReleaseId};
use backstay::rollout::{Answer, Closed, GateQuestion, Measurement, Measurements, Question};

use super::stand::{Says, Stand};
use super::{assert_plain, commit, now};

/// What an agent says at `/metrics`.
pub(super) fn exposition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Exposition::parse(text) {
        assert_plain(&error.to_string());
    }
}

/// All who measure, their one server, and the runtime in which they ask.
struct Lab {
    stand: Stand,
    providers: Providers,
    gates: Gates,
    runtime: Mutex<tokio::runtime::Runtime>,
}

fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let stand = Stand::start();
        let key = super::scratch().keep().join("key");
        std::fs::write(&key, "k3y").expect("a key");
        let key = key.display();
        let url = format!("url = \"http://{}\"\ntimeout = \"2s\"\n", stand.address);
        let named = format!(
            "[prometheus.prometheus]\n{url}[datadog.datadog]\n{url}api_key_file = \"{key}\"\napplication_key_file = \"{key}\"\n\
             [cloudwatch.cloudwatch]\n{url}region = \"x\"\naccess_key_id_file = \"{key}\"\naccess_key_file = \"{key}\"\n\
             [json.json]\n{url}"
        );
        let named = toml::from_str(&named).expect("settings");
        let providers = Providers::new(named, Ground { namespace: "agents".to_owned(), proxy: None });
        let gates = format!("[abort]\n{url}[hold]\n{url}on_forbidden = \"hold\"\n");
        let gates = Gates::new(toml::from_str(&gates).expect("settings"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Lab { stand, providers, gates, runtime: Mutex::new(runtime) }
    })
}

fn metric(provider: &str, source: Source) -> Metric {
    Metric { source, provider: Some(provider.to_owned()), ..Metric::preset(Preset::ErrorRate) }
}

fn value(provider: &str, query: &str) -> Metric {
    metric(provider, Source::Value(query.to_owned()))
}

fn rate(provider: &str) -> Metric {
    metric(provider, Source::Rate { events: "$.x".to_owned(), of: "$.n".to_owned() })
}

fn asked(metrics: impl IntoIterator<Item = Metric>) -> Question {
    let metrics: BTreeMap<_, _> =
        metrics.into_iter().enumerate().map(|(number, metric)| (format!("m{number}"), metric)).collect();
    let tools = || ["search.it".to_owned()].into();
    Question {
        agent: "support".parse().expect("a name"),
        releases: Arms { candidate: ReleaseId::of(b"candidate"), stable: ReleaseId::of(b"stable") },
        tools: Arms { candidate: tools(), stable: tools() },
        pods: vec![],
        metrics,
    }
}

/// Every metric is answered, with a number that can be one or a reason that can be shown.
fn check(question: &Question, told: &Measurements) {
    assert!(told.metrics.keys().eq(question.metrics.keys()), "every metric is in the answer");
    let because = |why: &NoData| {
        let why = why.to_string();
        assert_plain(&why);
        assert!(why.len() < 8192, "{} bytes", why.len());
    };
    let readings = |side: &Result<Vec<Reading>, NoData>| match side {
        Ok(readings) => assert!(!readings.is_empty() && !format!("{readings:?}").contains("NaN"), "{readings:?}"),
        Err(why) => because(why),
    };
    for measurement in told.metrics.values() {
        match measurement {
            Measurement::Counters(arms) => [&arms.candidate, &arms.stable].into_iter().for_each(readings),
            Measurement::Value(arms) => {
                for side in [&arms.candidate, &arms.stable] {
                    match side {
                        Ok(value) => assert!(value.is_finite(), "{value}"),
                        Err(why) => because(why),
                    }
                }
            }
        }
    }
}

/// Asks while the server says this.
fn measure(question: &Question, says: Says) {
    let lab = lab();
    let _turn = lab.stand.says([says]);
    let runtime = lab.runtime.lock().unwrap_or_else(PoisonError::into_inner);
    check(question, &runtime.block_on(lab.providers.measure(question, now())));
}

/// A digit for the status, and a body.
fn answer(data: &[u8]) -> Option<(u8, Says)> {
    let (first, body) = data.split_first()?;
    let status = [200, 200, 200, 201, 400, 403, 404, 429, 500, 302][usize::from(first.wrapping_sub(b'0') % 10)];
    Some((*first, Says::Body(status, body.to_vec())))
}

/// A digit, a letter that chooses what is asked, and an answer.
pub(super) fn prometheus(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let Some((_, says)) = answer(rest) else { return };
    let which = usize::from(*which) % (Preset::ALL.len() + 2);
    let metric = match Preset::ALL.get(which) {
        Some(preset) => metric("prometheus", Source::Preset(*preset)),
        None if which == Preset::ALL.len() => value("prometheus", "q"),
        None => rate("prometheus"),
    };
    measure(&asked([metric]), says);
}

pub(super) fn datadog(data: &[u8]) {
    let Some((_, says)) = answer(data) else { return };
    measure(&asked([value("datadog", "q"), rate("datadog")]), says);
}

pub(super) fn cloudwatch(data: &[u8]) {
    let Some((_, says)) = answer(data) else { return };
    measure(&asked([value("cloudwatch", "q"), rate("cloudwatch")]), says);
}

/// A path, a line's end, and an answer.
pub(super) fn json(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (Ok(path), Some((_, says))) =
        (std::str::from_utf8(&data[..at]), answer(data.get(at + 1..).unwrap_or_default()))
    else {
        return;
    };
    measure(&asked([value("json", path), rate("json")]), says);
}

/// An answer of a gate: success alone opens it.
pub(super) fn gate(data: &[u8]) {
    let Some((first, says)) = answer(data) else { return };
    let Says::Body(status, _) = &says else { return };
    let status = *status;
    let question = GateQuestion {
        gate: if first < b'a' { "abort" } else { "hold" }.to_owned(),
        agent: "support".parse().expect("a name"),
        environment: "production".parse().expect("a name"),
        namespace: "agents".to_owned(),
        releases: Arms { candidate: ReleaseId::of(b"candidate"), stable: ReleaseId::of(b"stable") },
        revision: backstay::model::Revision { reference: "main".to_owned(), commit: commit() },
        step: 1,
    };
    let lab = lab();
    let _turn = lab.stand.says([says]);
    let runtime = lab.runtime.lock().unwrap_or_else(PoisonError::into_inner);
    match runtime.block_on(lab.gates.ask(&question)) {
        Answer::Open => assert!((200..300).contains(&status)),
        Answer::Refused(why) => {
            assert!(status == 403 && question.gate == "abort");
            assert_plain(&why);
            assert!(why.len() < 4096);
        }
        Answer::Closed(Closed::Because(why)) => {
            assert!(!(200..300).contains(&status), "{why}");
            assert_plain(&why);
            assert!(why.len() < 4096);
        }
        Answer::Closed(Closed::Unnamed) => panic!("it is named"),
    }
}

/// All bytes that an instance says when it is asked for its figures.
pub(super) fn scrape(data: &[u8]) {
    let lab = lab();
    let pod = |name: &str, release: ReleaseId| {
        let (port, address) = (lab.stand.address.port(), lab.stand.address.ip().to_string());
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "agents", "uid": name, "resourceVersion": "1",
                "labels": {"backstay.dev/agent": "support", "backstay.dev/process": "main",
                    "backstay.dev/release": release.short()},
                "annotations": {"backstay.dev/release-id": release.digest().to_string()},
            },
            "spec": {"containers": [{"name": "agent", "ports": [{"containerPort": port}],
                "readinessProbe": {"httpGet": {"path": "/health/ready", "port": port}}}]},
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}]},
        });
        Arc::new(LiveObject::of(pod).expect("a pod"))
    };
    let presets = Preset::ALL.map(|preset| Metric { provider: Some("scrape".to_owned()), ..Metric::preset(preset) });
    let mut question = asked(presets);
    question.pods = vec![pod("new", question.releases.candidate), pod("old", question.releases.stable)];
    let says = if data.starts_with(b"HTTP/") {
        Says::Bare(data.to_vec())
    } else {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", data.len());
        Says::Bare([head.as_bytes(), data].concat())
    };
    measure(&question, says);
}
