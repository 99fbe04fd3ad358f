//! The instances' own figures, by their Pods.

use std::sync::{Arc, Mutex};

use backstay::desired::rollout::{Metric, Preset};
use backstay::judge::Totals;
use backstay::measure::{Ground, Providers};
use backstay::model::{LiveObject, ReleaseId};
use backstay::rollout::Question;
use serde_json::json;

use crate::ask::{asked, binary, candidate, counters, now, presets, question, rate, stable, totals, value, why};
use crate::server::{Reply, Server};

/// What an agent says, in the words of its conventions; `bad` requests of a hundred fail.
pub(crate) fn figures(labels: &str, bad: u32) -> String {
    format!(
        r#"# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{{{labels}http_route="/chat",http_response_status_code="200",le="0.1"}} 50
http_server_request_duration_seconds_bucket{{{labels}http_route="/chat",http_response_status_code="200",le="+Inf"}} {good}
http_server_request_duration_seconds_count{{{labels}http_route="/chat",http_response_status_code="200"}} {good}
http_server_request_duration_seconds_bucket{{{labels}http_route="/chat",http_response_status_code="503",le="0.1"}} 0
http_server_request_duration_seconds_bucket{{{labels}http_route="/chat",http_response_status_code="503",le="+Inf"}} {bad}
http_server_request_duration_seconds_count{{{labels}http_route="/chat",http_response_status_code="503"}} {bad}
http_server_request_duration_seconds_bucket{{{labels}http_route="/health/ready",http_response_status_code="200",le="0.1"}} 7
http_server_request_duration_seconds_bucket{{{labels}http_route="/health/ready",http_response_status_code="200",le="+Inf"}} 7
http_server_request_duration_seconds_count{{{labels}http_route="/health/ready",http_response_status_code="200"}} 7
gen_ai_server_time_to_first_token_seconds_bucket{{{labels}le="0.5"}} 3
gen_ai_server_time_to_first_token_seconds_bucket{{{labels}le="+Inf"}} 4
gen_ai_client_token_usage_sum{{{labels}gen_ai_token_type="input"}} 300
gen_ai_client_token_usage_count{{{labels}gen_ai_token_type="input"}} 20
gen_ai_client_token_usage_sum{{{labels}gen_ai_token_type="output"}} 100
gen_ai_client_token_usage_count{{{labels}gen_ai_token_type="output"}} 20
gen_ai_client_operation_duration_seconds_count{{{labels}gen_ai_operation_name="chat"}} 20
gen_ai_execute_tool_duration_seconds_count{{{labels}gen_ai_tool_name="search.it"}} 5
gen_ai_execute_tool_duration_seconds_count{{{labels}gen_ai_tool_name="old"}} 2
gen_ai_execute_tool_duration_seconds_count{{{labels}gen_ai_tool_name="searchXit",error_type="undeclared"}} 1
backstay_agent_injections_total{{{labels}}} 2
backstay_agent_goals_total{{{labels}outcome="completed"}} 9
backstay_agent_goals_total{{{labels}outcome="failed"}} 3
backstay_agent_fallback_calls_total{{{labels}}} 4
"#,
        good = 100 - bad,
    )
    .replace(",}", "}")
}

/// What is measured of [`figures`], by either way of reading it.
pub(crate) fn check(told: &backstay::rollout::Measurements) {
    let errors = totals(told, "error_rate");
    assert_eq!((errors.candidate, errors.stable), (binary(100.0, 10.0), binary(100.0, 1.0)));
    let Totals::Latency { boundaries, counts } = totals(told, "latency_p99").candidate else { panic!() };
    assert_eq!((&*boundaries, counts.as_slice()), ([100.0].as_slice(), [50.0, 50.0].as_slice()));
    let Totals::Latency { boundaries, counts } = totals(told, "time_to_first_token").stable else { panic!() };
    assert_eq!((&*boundaries, counts.as_slice()), ([500.0].as_slice(), [3.0, 1.0].as_slice()));
    let tokens = totals(told, "tokens_per_request").candidate;
    assert_eq!(tokens, Totals::Mean { n: 20.0, sum: 400.0, squares: None });
    assert_eq!(totals(told, "tool_errors").candidate, binary(8.0, 1.0));
    // A tool is named whole: a dot in its name is a dot.
    let unexpected = totals(told, "unexpected_tool_use");
    assert_eq!((unexpected.candidate, unexpected.stable), (binary(8.0, 3.0), binary(8.0, 1.0)));
    assert_eq!(totals(told, "prompt_injections").candidate, binary(100.0, 2.0));
    assert_eq!(totals(told, "goal_completion").candidate, binary(12.0, 9.0));
    assert_eq!(totals(told, "fallback_calls").candidate, binary(20.0, 4.0));
}

pub(crate) fn says(text: String) -> Reply {
    Reply::Says(200, "text/plain; version=0.0.4", text)
}

/// Pods as they are seen.
#[derive(Default)]
struct Lab {
    pods: Vec<Arc<LiveObject>>,
}

impl Lab {
    fn pod(&mut self, name: &str, release: ReleaseId, port: u16, ready: bool) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "prod", "uid": name, "resourceVersion": "1",
                "labels": {
                    "backstay.dev/agent": "support", "backstay.dev/process": "main", "backstay.dev/release": release.short(),
                },
                "annotations": {"backstay.dev/release-id": release.digest().to_string()},
            },
            "spec": {"containers": [{
                "name": "agent", "ports": [{"containerPort": port}],
                "readinessProbe": {"httpGet": {"path": "/health/ready", "port": port}},
            }]},
            "status": {
                "podIP": "127.0.0.1",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                "containerStatuses": [{
                    "name": "agent", "image": "", "imageID": "", "ready": ready, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
                }],
            },
        });
        self.pods.push(Arc::new(LiveObject::of(pod).unwrap()));
    }

    fn question(&self, metrics: impl IntoIterator<Item = (String, Metric)>) -> Question {
        Question { pods: self.pods.clone(), ..question(metrics) }
    }
}

fn providers() -> Providers {
    Providers::new(std::collections::BTreeMap::new(), Ground { namespace: "prod".to_owned(), proxy: None })
}

#[tokio::test]
async fn every_preset_is_read_from_the_ready_pods_of_both_releases() {
    let (good, bad) = (Server::start(|_| says(figures("", 1))), Server::start(|_| says(figures("", 10))));
    let never = Server::start(|_| panic!("a Pod that is not ready is asked"));
    let mut lab = Lab::default();
    lab.pod("c-0", candidate(), bad.address.port(), true);
    lab.pod("s-0", stable(), good.address.port(), true);
    lab.pod("s-1", stable(), never.address.port(), false);
    lab.pod("o-0", ReleaseId::of(b"another"), never.address.port(), true);
    let mut question = lab.question(presets(None));
    let more = r#"backstay_agent_goals_total{outcome="failed"}"#;
    question.metrics.insert("own".to_owned(), rate("scrape", more, "backstay_agent_goals_total"));
    question.metrics.insert("gauge".to_owned(), value("scrape", "x"));
    question.metrics.insert("mistyped".to_owned(), rate("scrape", "rate(x[5m])", "backstay_agent_goals_total"));
    question.metrics.insert(
        "of a host".to_owned(),
        Metric { provider: Some("proxy".to_owned()), ..Metric::preset(Preset::ErrorRate) },
    );
    let told = providers().measure(&question, now()).await;
    assert_eq!(told.metrics.len(), 15);
    check(&told);
    assert_eq!(totals(&told, "own").stable, binary(12.0, 3.0));
    assert!(why(&told, "gauge").contains("`events`") && why(&told, "mistyped").contains("asked for as"));
    assert!(why(&told, "of a host").contains("on a host alone"));
    let readings = counters(&told, "error_rate").candidate.unwrap();
    assert_eq!((readings[0].instance.as_str(), readings[0].started), ("c-0", "2026-01-02T03:04:05Z".parse().ok()));
    assert!(good.seen().iter().all(|seen| seen.method == "GET" && seen.target == "/metrics"));
}

#[tokio::test]
async fn what_a_pod_hides_is_not_taken_for_good() {
    let text = Arc::new(Mutex::new(figures("", 1)));
    let own = Arc::clone(&text);
    let (one, two) =
        (Server::start(move |_| says(own.lock().unwrap().clone())), Server::start(|_| says(figures("", 1))));
    let mut lab = Lab::default();
    lab.pod("c-0", candidate(), one.address.port(), true);
    lab.pod("c-1", candidate(), two.address.port(), true);
    lab.pod("s-0", stable(), two.address.port(), true);
    let providers = providers();
    let all = lab.question(presets(None));
    let told = providers.measure(&all, now()).await;
    assert_eq!(counters(&told, "error_rate").candidate.unwrap().len(), 2);

    let candidate = |name: &'static str, said: String| {
        *text.lock().unwrap() = said;
        let (providers, all) = (&providers, &all);
        async move {
            let told = counters(&providers.measure(all, now()).await, name);
            assert!(told.stable.is_ok(), "{told:?}");
            told.candidate
        }
    };
    let usual = figures("", 1);
    // It stopped to count injections, not to have requests.
    let silent = usual.replace("backstay_agent_injections_total", "x_total");
    let error = candidate("prompt_injections", silent).await.unwrap_err().to_string();
    assert!(error.contains("`c-0`") && error.contains("does not export `backstay_agent_injections_total`"), "{error}");
    // Nothing counted yet is zero where others count.
    let young = candidate("error_rate", String::new()).await.unwrap();
    assert_eq!(young.iter().find(|one| one.instance == "c-0").unwrap().totals, binary(0.0, 0.0));
    for (name, from, to, expected) in [
        ("error_rate", "} 99\n", "} NaN\n", "not a number"),
        ("error_rate", "} 99\n", "} +Inf\n", "absurdly large"),
        ("error_rate", "} 99\n", "} -1\n", "negative"),
        ("error_rate", "} 99\n", "} 1e300\n", "absurdly large"),
        ("error_rate", "} 99\n", "} 99 1000\n", "stale"),
        ("error_rate", "http_response_status_code=", "status=", "has no label"),
        ("latency_p99", "le=\"+Inf\"} 99\n", "le=\"+Inf\"} 9\n", "buckets of the histogram fall"),
        ("latency_p99", "le=\"+Inf\"} 99\n", "le=\"x\"} 99\n", "boundaries"),
        ("error_rate", "# TYPE", "{", "line 1"),
    ] {
        let said = usual.replace(from, to);
        assert_ne!(said, usual, "{from}");
        let error = candidate(name, said).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let told = providers.measure(&question(presets(None)), now()).await;
    assert!(why(&told, "error_rate").contains("no instance is ready"));
}

#[tokio::test]
async fn what_no_instance_exports_is_named() {
    let server = Server::start(|_| says("up 1\n".to_owned()));
    let mut lab = Lab::default();
    lab.pod("c-0", candidate(), server.address.port(), true);
    lab.pod("s-0", stable(), server.address.port(), true);
    let told = providers().measure(&lab.question(presets(None)), now()).await;
    for (preset, name) in
        [("error_rate", "http_server_request_duration_seconds"), ("goal_completion", "backstay_agent_goals_total")]
    {
        assert!(why(&told, preset).contains(&format!("no instance exports `{name}`")), "{}", why(&told, preset));
    }
}

#[tokio::test]
async fn a_hostile_instance_is_no_data_within_bounds() {
    let all = [
        (Reply::Silent, "no answer within 5 s"),
        (Reply::Endless("text/plain"), "longer than 4 MiB"),
        (Reply::Head, "cannot be read"),
        (Reply::Claims(1 << 30), "no answer within 5 s"),
        (Reply::Sends("http://127.0.0.1:1/".to_owned()), "it answers 307"),
        (Reply::Says(500, "text/plain", String::new()), "it answers 500"),
        (Reply::Says(200, "text/html", "up 1\n".to_owned()), "not in the text format"),
        (Reply::Whole("text/plain", 1 << 30), "longer than 4 MiB"),
        (Reply::Drips("text/plain"), "no answer within 5 s"),
        (Reply::DripsHead, "no answer within 5 s"),
    ];
    // All at once: most of them are waited for.
    futures::future::join_all(all.map(async |(reply, expected)| {
        let answered = reply.clone();
        let server = Server::start(move |_| answered.clone());
        let mut lab = Lab::default();
        lab.pod("c-0", candidate(), server.address.port(), true);
        lab.pod("s-0", stable(), server.address.port(), true);
        let question = lab.question(presets(None));
        let told = tokio::time::timeout(std::time::Duration::from_mins(1), providers().measure(&question, now())).await;
        let why = why(&told.expect("an answer in time"), "error_rate");
        assert!(why.contains(expected), "{reply:?}: {why}");
        assert!(server.sent() < 64 << 20, "{} bytes were taken", server.sent());
    }))
    .await;
    // A metric of nobody's.
    let told = providers()
        .measure(
            &question([("x".to_owned(), asked("main", backstay::desired::rollout::Source::Preset(Preset::ErrorRate)))]),
            now(),
        )
        .await;
    assert!(why(&told, "x").contains("add `[metrics.main]` to backstay.toml"), "{}", why(&told, "x"));
}
