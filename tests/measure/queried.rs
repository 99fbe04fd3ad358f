//! A real Prometheus that scrapes two agents on the loopback.

use std::time::{Duration, Instant};

use backstay::rollout::Measurement;

use crate::ask::{candidate, now, presets, providers, question, rate, stable, value, values, why};
use crate::prometheus::Prometheus;
use crate::scrape::{check, figures, says};
use crate::server::Server;

#[tokio::test]
async fn a_real_prometheus_gives_counters_by_instance_and_values() {
    let agent = |release: String, bad| {
        Server::start(move |_| {
            let start = "process_start_time_seconds{LABELS} 1767323045\n"
                .replace("LABELS", &format!("service_version=\"{release}\""));
            says(figures(&format!("service_version=\"{release}\","), bad) + &start)
        })
    };
    let (new, old) = (agent(candidate().short(), 10), agent(stable().short(), 1));
    let targets = format!("static_configs: [{{targets: ['{}', '{}']}}]", new.address, old.address);
    let Some(server) = Prometheus::start(&targets) else { return };
    let toml = format!(
        "[main.prometheus]\nurl = \"{}\"\nselector = 'service_version=\"$release\",job=\"agents\"'\n",
        server.url
    );
    let providers = providers(&toml);
    let mut question = question(presets(Some("main")));
    let goals = "sum(backstay_agent_goals_total{service_version=\"$release\"})";
    question.metrics.insert("goals".to_owned(), value("main", goals));
    question.metrics.insert(
        "own".to_owned(),
        rate("main", "backstay_agent_fallback_calls_total{service_version=\"$release\"}", &format!("{goals} + 0")),
    );
    question.metrics.insert("several".to_owned(), value("main", "backstay_agent_goals_total"));
    question.metrics.insert("nan".to_owned(), value("main", "0 / 0"));
    question.metrics.insert("inf".to_owned(), value("main", "1 / 0"));
    question.metrics.insert("mistyped".to_owned(), value("main", "sum("));
    question.metrics.insert("gone".to_owned(), value("main", "nothing_of_that_name"));
    let began = Instant::now();
    let told = loop {
        let told = providers.measure(&question, now()).await;
        let seen = |name: &str| matches!(&told.metrics[name], Measurement::Counters(arms) if arms.candidate.is_ok() && arms.stable.is_ok());
        if presets(None).keys().all(|name| seen(name)) {
            break told;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "never: {told:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    check(&told);
    let readings = crate::ask::counters(&told, "error_rate").candidate.unwrap();
    assert_eq!(readings[0].instance, new.address.to_string());
    assert_eq!(readings[0].started, "2026-01-02T03:04:05Z".parse().ok());
    assert_eq!((values(&told, "goals").candidate, values(&told, "goals").stable), (Ok(12.0), Ok(12.0)));
    assert!(why(&told, "own").contains("does not count the events"), "an instance is not all of them");
    assert!(why(&told, "several").contains("finds 4 series"), "{}", why(&told, "several"));
    assert!(why(&told, "nan").contains("not a number") && why(&told, "inf").contains("absurdly large"));
    assert!(
        why(&told, "mistyped").contains("refuses the query (400)") && why(&told, "gone").contains("finds no series")
    );

    // Twenty minutes later nothing of it is fresh.
    let later = now() + Duration::from_mins(20);
    let told = providers.measure(&question, later).await;
    assert!(why(&told, "goals").contains("finds no series") && why(&told, "error_rate").contains("finds no series"));
}
