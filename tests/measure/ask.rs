//! Questions, and what is made of the answers.

use std::collections::BTreeMap;

use backstay::desired::rollout::{Metric, Preset, Source};
use backstay::judge::{Arms, NoData, Reading, Totals};
use backstay::measure::{Ground, Providers, Settings};
use backstay::model::{ReleaseId, Timestamp};
use backstay::rollout::{Measurement, Measurements, Question};

pub(crate) fn candidate() -> ReleaseId {
    ReleaseId::of(b"candidate")
}

pub(crate) fn stable() -> ReleaseId {
    ReleaseId::of(b"stable")
}

/// A metric of a query.
pub(crate) fn asked(provider: &str, source: Source) -> Metric {
    Metric { source, provider: Some(provider.to_owned()), ..Metric::preset(Preset::ErrorRate) }
}

pub(crate) fn value(provider: &str, query: &str) -> Metric {
    asked(provider, Source::Value(query.to_owned()))
}

pub(crate) fn rate(provider: &str, events: &str, of: &str) -> Metric {
    asked(provider, Source::Rate { events: events.to_owned(), of: of.to_owned() })
}

/// Every preset, by its name.
pub(crate) fn presets(provider: Option<&str>) -> BTreeMap<String, Metric> {
    let metric = |preset| Metric { provider: provider.map(str::to_owned), ..Metric::preset(preset) };
    Preset::ALL.map(|preset| (preset.as_str().to_owned(), metric(preset))).into()
}

pub(crate) fn question(metrics: impl IntoIterator<Item = (String, Metric)>) -> Question {
    let tools =
        Arms { candidate: ["search.it".to_owned()].into(), stable: ["search.it".to_owned(), "old".to_owned()].into() };
    Question {
        agent: "support".parse().unwrap(),
        releases: Arms { candidate: candidate(), stable: stable() },
        tools,
        pods: vec![],
        metrics: metrics.into_iter().collect(),
    }
}

/// The providers of one section.
pub(crate) fn providers(toml: &str) -> Providers {
    let named: BTreeMap<String, Settings> = toml::from_str(toml).unwrap();
    Providers::new(named, Ground { namespace: "agents".to_owned(), proxy: None })
}

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

pub(crate) fn counters(told: &Measurements, name: &str) -> Arms<Result<Vec<Reading>, NoData>> {
    let Measurement::Counters(arms) = told.metrics[name].clone() else { panic!("{name}: {told:?}") };
    arms
}

/// The one instance of each release.
pub(crate) fn totals(told: &Measurements, name: &str) -> Arms<Totals> {
    counters(told, name).map(|side| {
        let mut readings = side.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(readings.len(), 1, "{name}: {readings:?}");
        readings.remove(0).totals
    })
}

pub(crate) fn values(told: &Measurements, name: &str) -> Arms<Result<f64, NoData>> {
    let Measurement::Value(arms) = told.metrics[name].clone() else { panic!("{name}: {told:?}") };
    arms
}

/// Why neither release was measured.
pub(crate) fn why(told: &Measurements, name: &str) -> String {
    let arms = match told.metrics[name].clone() {
        Measurement::Counters(arms) => arms.map(|side| side.map(|readings| format!("{readings:?}"))),
        Measurement::Value(arms) => arms.map(|side| side.map(|value| value.to_string())),
    };
    assert!(arms.candidate.is_err() && arms.stable.is_err(), "{name}: {arms:?}");
    arms.candidate.unwrap_err().to_string()
}

pub(crate) fn binary(n: f64, x: f64) -> Totals {
    Totals::Binary { n, x }
}
