//! Answers as their makers document them.

use std::sync::atomic::{AtomicU32, Ordering};

use backstay::judge::NoData;
use jiff::SignedDuration;
use serde_json::json;

use crate::ask::{binary, candidate, now, providers, question, rate, stable, totals, value, values, why};
use crate::server::{Reply, Server};

fn says(value: &serde_json::Value) -> Reply {
    Reply::Says(200, "application/json", value.to_string())
}

#[tokio::test]
async fn a_path_into_any_json_is_a_number() {
    let server = Server::start(|seen| {
        let release = seen.target.rsplit('=').next().unwrap_or_default().to_owned();
        let bad = if release == candidate().short() { 5 } else { 1 };
        says(
            &json!({"releases": {release: {"errors": bad, "requests": 100, "score": 0.5, "word": "x"}}, "all": [1, 2]}),
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let toml = format!(
        "[shop.json]\nurl = \"http://{}/stats/$agent?release=$release\"\ntoken_file = {token:?}\nheaders = {{ x-team = \"a\" }}\nheader_files = {{ x-key = {token:?} }}\n",
        server.address
    );
    let at = |key: &str| format!("$.releases['$release'].{key}");
    let metrics = [
        ("score", value("shop", &at("score"))),
        ("errors", rate("shop", &at("errors"), &at("requests"))),
        ("word", value("shop", &at("word"))),
        ("several", value("shop", "$.all[*]")),
        ("none", value("shop", "$.nothing")),
        ("mistyped", value("shop", "releases[")),
    ];
    let question = question(metrics.map(|(name, metric)| (name.to_owned(), metric)));
    let told = providers(&toml).measure(&question, now()).await;
    assert_eq!(values(&told, "score").candidate, Ok(0.5));
    let errors = totals(&told, "errors");
    assert_eq!((errors.candidate, errors.stable), (binary(100.0, 5.0), binary(100.0, 1.0)));
    assert!(why(&told, "word").contains("not a number") && why(&told, "mistyped").contains("cannot be used"));
    assert!(why(&told, "several").contains("not one value") && why(&told, "none").contains("not one value"));
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "once for each release");
    assert!(seen.iter().all(|one| one.target.starts_with("/stats/support?release=r-")));
    assert_eq!(
        (seen[0].header("authorization"), seen[0].header("x-team"), seen[0].header("x-key")),
        ("Bearer s3cret", "a", "s3cret")
    );

    // A secret that is not there is named by its file.
    std::fs::remove_file(&token).unwrap();
    let told = providers(&toml).measure(&question, now()).await;
    assert!(why(&told, "score").contains("cannot read"), "{}", why(&told, "score"));
}

// After the reference of `GET /api/v1/query` ("Query timeseries points").
#[tokio::test]
async fn datadog_tells_points_that_are_added_up() {
    let at = now();
    let begin = at.as_millisecond() - 60_000;
    let server = Server::start(move |seen| {
        let series = |points: serde_json::Value| {
            json!({"status": "ok", "res_type": "time_series", "resp_version": 1, "query": "q", "from_date": 0, "to_date": 0,
                "series": [{"metric": "m", "display_name": "m", "scope": "version:x", "expression": "m", "interval": 60,
                    "length": 2, "aggr": "sum", "pointlist": points, "unit": null}], "group_by": [], "message": "", "error": ""})
        };
        if seen.target.contains("latency") {
            return says(&series(json!([[begin - 30_000, 1.5], [begin, 2.5], [begin + 30_000, null]])));
        }
        if seen.target.contains("broken") {
            return Reply::Says(
                400,
                "application/json",
                json!({"status": "error", "errors": ["Error parsing query"]}).to_string(),
            );
        }
        // Every minute of what was asked for.
        let number = |key: &str| -> i64 {
            let text = seen.target.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{key}="))).unwrap();
            text.parse().unwrap()
        };
        let each = if seen.target.contains("errors") { 1.0 } else { 10.0 };
        let minutes: Vec<_> =
            (number("from")..number("to")).step_by(60).map(|second| json!([second * 1000, each])).collect();
        says(&series(json!(minutes)))
    });
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "k3y").unwrap();
    let toml = format!(
        "[dd.datadog]\nurl = \"http://{}\"\napi_key_file = {key:?}\napplication_key_file = {key:?}\nfresh = \"2m\"\n",
        server.address
    );
    let metrics = [
        ("latency", value("dd", "avg:latency{version:$release}")),
        ("errors", rate("dd", "sum:errors{version:$release}.as_count()", "sum:hits{version:$release}.as_count()")),
        ("broken", value("dd", "broken($release")),
    ];
    let question = question(metrics.map(|(name, metric)| (name.to_owned(), metric)));
    let providers = providers(&toml);
    let told = providers.measure(&question, at).await;
    assert_eq!(values(&told, "latency").stable, Ok(2.5));
    assert!(why(&told, "broken").contains("answers 400"), "{}", why(&told, "broken"));
    assert_eq!(totals(&told, "errors").candidate, binary(0.0, 0.0), "it is counted from here on");
    for minutes in 1..4_i32 {
        let told = providers.measure(&question, at + SignedDuration::from_mins(i64::from(minutes))).await;
        let n = f64::from(minutes);
        assert_eq!(totals(&told, "errors").candidate, binary(10.0 * n, n));
    }
    let later = providers.measure(&question, at + SignedDuration::from_hours(1)).await;
    assert_eq!(values(&later, "latency").candidate, Err(NoData::Stale));
    let first = &server.seen()[0];
    assert_eq!((first.header("dd-api-key"), first.header("dd-application-key")), ("k3y", "k3y"));
    assert!(server.seen().iter().any(|one| one.target.contains(&format!("version%3A{}", stable().short()))));
}

// After the reference of `GetMetricData`, in its JSON.
#[tokio::test]
async fn cloudwatch_is_asked_with_a_signature() {
    let at = now();
    let asked = AtomicU32::new(0);
    let server = Server::start(move |seen| {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        let (from, until) = (body["StartTime"].as_i64().unwrap(), body["EndTime"].as_i64().unwrap());
        let expression = body["MetricDataQueries"][0]["Expression"].as_str().unwrap();
        if expression.contains("partial") {
            return says(
                &json!({"MetricDataResults": [{"Id": "q", "Label": "l", "Timestamps": [], "Values": [], "StatusCode": "PartialData"}], "Messages": []}),
            );
        }
        if expression.contains("denied") {
            asked.fetch_add(1, Ordering::Relaxed);
            let said = json!({"__type": "AccessDeniedException", "message": "not authorized"});
            return Reply::Says(400, "application/x-amz-json-1.0", said.to_string());
        }
        let each = if expression.contains("Errors") { 2.0 } else { 20.0 };
        let times: Vec<i64> = (from..until).step_by(60).collect();
        let values = vec![each; times.len()];
        says(
            &json!({"MetricDataResults": [{"Id": "q", "Label": "l", "Timestamps": times, "Values": values, "StatusCode": "Complete"}], "Messages": []}),
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (id, key) = (file("id", "AKIDEXAMPLE\n"), file("key", "wJalrXUtnFEMI\n"));
    let toml = format!(
        "[aws.cloudwatch]\nregion = \"eu-central-1\"\nurl = \"http://{}\"\naccess_key_id_file = {id:?}\naccess_key_file = {key:?}\n",
        server.address
    );
    let search =
        |name: &str| format!("SUM(SEARCH('{{Agents,Release}} MetricName=\"{name}\" Release=\"$release\"', 'Sum', 60))");
    let metrics = [
        ("errors", rate("aws", &search("Errors"), &search("Requests"))),
        ("latest", value("aws", &search("Latency"))),
        ("partial", value("aws", "partial $release")),
        ("denied", value("aws", "denied $release")),
    ];
    let question = question(metrics.map(|(name, metric)| (name.to_owned(), metric)));
    let providers = providers(&toml);
    let told = providers.measure(&question, at).await;
    assert_eq!(values(&told, "latest").candidate, Ok(20.0));
    assert!(why(&told, "partial").contains("not complete") && why(&told, "denied").contains("not authorized"));
    let told = providers.measure(&question, at + SignedDuration::from_mins(2)).await;
    assert_eq!(totals(&told, "errors").stable, binary(40.0, 4.0));
    let first = &server.seen()[0];
    let signed = first.header("authorization");
    let day = at.strftime("%Y%m%d").to_string();
    assert!(
        signed.starts_with(&format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/eu-central-1/monitoring/aws4_request, "
        )),
        "{signed}"
    );
    assert!(signed.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="), "{signed}");
    assert_eq!(first.header("x-amz-target"), "GraniteServiceVersion20100801.GetMetricData");
}
