//! Whatever happens, in whatever order: it ends as the last word asks, then nothing is written, and nothing is deleted
//! that is not owned.
//!
//! Every run has the same seed, so that a change is not judged by chance; `STORY_SEED=random` takes another one and prints
//! it, `STORY_SEED=<number>` runs that one again, `STORY_CASES` runs more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

use backstay::desired::{Allow, DesiredAgent};
use backstay::model::{AgentName, ObjectRef};
use backstay::reconcile::FailureKind;
use backstay::record::{ConditionKind, Phase, RetryRequest, RollbackRequest, Truth};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use super::cluster::NAMESPACE;
use super::git::{agent, desired, extra, manifest, name};
use super::plane::Class;
use super::scenarios::request;
use super::table::rest;
use super::world::World;

const AGENTS: [&str; 2] = ["support", "helpdesk"];

/// One thing that happens; `who` is one of two agents.
#[derive(Debug, Clone)]
enum Deed {
    Commit { who: usize, prompt: u8, replicas: u32, extra: bool },
    Remove { who: usize },
    Bad { who: usize },
    Drift { who: usize },
    Label { who: usize },
    Delete { who: usize, nth: usize },
    Copy { who: usize, nth: usize },
    Crash,
    Fault { class: usize, ahead: usize },
    Rollback { who: usize },
    Retry { who: usize },
    Suspend { who: usize },
    Resume { who: usize },
    Sick { prompt: u8 },
    Refuse { kind: usize },
    Mend,
    Blind { kind: usize },
    See,
    Wait { minutes: i64 },
}

const KINDS: [&str; 5] = ["ConfigMap", "Service", "Deployment", "ReplicaSet", "Pod"];

fn deed() -> impl Strategy<Value = Deed> {
    let who = || 0..AGENTS.len();
    prop_oneof![
        6 => (who(), 0..4_u8, 1..4_u32, any::<bool>())
            .prop_map(|(who, prompt, replicas, extra)| Deed::Commit { who, prompt, replicas, extra }),
        1 => who().prop_map(|who| Deed::Remove { who }),
        1 => who().prop_map(|who| Deed::Bad { who }),
        2 => who().prop_map(|who| Deed::Drift { who }),
        1 => who().prop_map(|who| Deed::Label { who }),
        1 => (who(), 0..6_usize).prop_map(|(who, nth)| Deed::Delete { who, nth }),
        1 => (who(), 0..6_usize).prop_map(|(who, nth)| Deed::Copy { who, nth }),
        1 => Just(Deed::Crash),
        6 => (0..Class::ALL.len(), 1..9_usize).prop_map(|(class, ahead)| Deed::Fault { class, ahead }),
        1 => who().prop_map(|who| Deed::Rollback { who }),
        1 => who().prop_map(|who| Deed::Retry { who }),
        1 => who().prop_map(|who| Deed::Suspend { who }),
        1 => who().prop_map(|who| Deed::Resume { who }),
        1 => (0..4_u8).prop_map(|prompt| Deed::Sick { prompt }),
        1 => (0..3_usize).prop_map(|kind| Deed::Refuse { kind }),
        1 => Just(Deed::Mend),
        1 => (0..KINDS.len()).prop_map(|kind| Deed::Blind { kind }),
        1 => Just(Deed::See),
        2 => (0..12_i64).prop_map(|minutes| Deed::Wait { minutes }),
    ]
}

/// The seed of every run that asks for no other.
const SEED: u64 = 7;

/// Runs a property with a seed that is printed.
fn check<S: Strategy>(what: &str, cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed: u64 = match std::env::var("STORY_SEED").as_deref() {
        Ok("random") => RandomState::new().hash_one(what),
        Ok(seed) => seed.parse().expect("STORY_SEED is a number, or `random`"),
        Err(_) => SEED,
    };
    let cases = std::env::var("STORY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    println!("{what}: STORY_SEED={seed}, {cases} cases");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(strategy, test) {
        panic!("STORY_SEED={seed}: {error}");
    }
}

fn asks(who: usize, prompt: u8, replicas: u32, with: bool) -> DesiredAgent {
    desired(&name(AGENTS[who]), &format!("prompt {prompt}"), |_, settings| {
        settings.replicas = Some(replicas);
        settings.manifests = if with { vec![extra(&format!("extra-{who}"))] } else { vec![] };
    })
}

/// The objects of an agent that somebody may be at.
fn of(world: &World, who: usize) -> Vec<ObjectRef> {
    let kind = |object: &ObjectRef| matches!(object.kind.as_str(), "ConfigMap" | "Service" | "Deployment");
    let objects = world.cluster.objects.values().filter(|live| {
        kind(&live.object)
            && live.label("backstay.dev/agent") == Some(AGENTS[who])
            && !world.oracle.foreign.contains_key(&live.uid.0)
    });
    objects.map(|live| live.object.clone()).collect()
}

fn happens(world: &mut World, deed: &Deed, n: usize) {
    let id = format!("{}{n:06}", world.now.as_nanosecond());
    match deed {
        Deed::Commit { who, prompt, replicas, extra } => world.commit(asks(*who, *prompt, *replicas, *extra)),
        Deed::Remove { who } => world.remove(&name(AGENTS[*who])),
        Deed::Bad { who } => world.git.is_bad(&name(AGENTS[*who])),
        Deed::Drift { who } => {
            if let Some(object) = world.find("Deployment", AGENTS[*who]) {
                world.cluster.edit(&object, |body| body["spec"]["replicas"] = json!(8));
            }
        }
        Deed::Label { who } => {
            if let Some(object) = world.find("Service", AGENTS[*who]) {
                world.cluster.edit(&object, |body| body["metadata"]["labels"]["team"] = json!("blue"));
            }
        }
        Deed::Delete { who, nth } => {
            // Files of old releases are somebody's to delete only while something asks for them.
            let objects = of(world, *who);
            if let Some(object) = objects.get(*nth).filter(|object| object.kind != "ConfigMap") {
                world.cluster.remove(object);
            }
        }
        Deed::Copy { who, nth } => {
            if let Some(object) = of(world, *who).get(*nth).filter(|object| object.kind != "Deployment") {
                let mut body = world.cluster.body(object).clone();
                let meta = body["metadata"].as_object_mut().expect("metadata");
                meta.remove("uid");
                meta.insert("name".to_owned(), json!(format!("copy-{n}")));
                world.make_foreign(body);
            }
        }
        Deed::Crash => world.restart(),
        Deed::Fault { class, ahead } => {
            world.land();
            world.plane.hit = false;
            world.plane.fault = Some((Class::ALL[*class], world.effects + ahead));
        }
        Deed::Rollback { who } => {
            let rollback = RollbackRequest { request: request(&id), to: None, no_git: n.is_multiple_of(2) };
            world.requests_of(&name(AGENTS[*who])).rollback = Some(rollback);
        }
        Deed::Retry { who } => {
            world.requests_of(&name(AGENTS[*who])).retry = Some(RetryRequest { request: request(&id), release: None });
        }
        Deed::Suspend { who } => world.requests_of(&name(AGENTS[*who])).suspend = Some(request(&id)),
        Deed::Resume { who } => world.requests_of(&name(AGENTS[*who])).resume = Some(request(&id)),
        Deed::Sick { prompt } => {
            let id = asks(0, *prompt, 1, false).release.id.short();
            world.cluster.sick.insert(id, "CrashLoopBackOff");
        }
        Deed::Refuse { kind } => drop(world.refuse.insert(KINDS[*kind].to_owned(), FailureKind::Forbidden)),
        Deed::Mend => {
            world.refuse.clear();
            world.cluster.sick.clear();
        }
        Deed::Blind { kind } => drop(world.unseen.insert(KINDS[*kind].to_owned())),
        Deed::See => world.unseen.clear(),
        Deed::Wait { minutes } => world.wake(world.now + SignedDuration::from_mins(*minutes)),
    }
    if n % 3 != 1 {
        world.run();
    }
}

/// Time passes until all is at rest.
fn at_rest(world: &mut World) {
    for _ in 0..3 {
        world.converge();
        world.wake(world.now + SignedDuration::from_mins(11));
    }
    world.converge();
    world.sweep();
}

// K1, K2, K5, K8, K9, K13, R6
#[test]
fn any_sequence_ends_as_the_last_word_asks() {
    let deeds = prop::collection::vec(deed(), 3..18);
    check("any sequence", 32, &deeds, |deeds| {
        let mut world = World::new();
        for (n, deed) in deeds.iter().enumerate() {
            happens(&mut world, deed, n);
        }
        let copies: BTreeMap<_, _> = world
            .oracle
            .foreign
            .values()
            .filter_map(|object| Some((object.clone(), world.cluster.objects.get(object)?.clone())))
            .collect();
        prop_assert_eq!(copies.len(), world.oracle.foreign.len(), "a copy is gone");
        // People mend what is broken.
        for n in [900, 901, 902] {
            happens(&mut world, [Deed::Mend, Deed::See, Deed::Mend].get(n - 900).expect("three"), n);
        }
        for (who, agent) in AGENTS.iter().enumerate() {
            if world.ledger.get(&name(agent)).is_some_and(|entry| entry.requests.suspended().is_some()) {
                happens(&mut world, &Deed::Resume { who }, 910 + who);
            }
            world.allow(&name(agent), Allow::Prune(format!("Agent/{agent}")));
        }
        at_rest(&mut world);
        world.land();
        at_rest(&mut world);
        for agent in AGENTS {
            explained(&world, &name(agent))?;
        }
        // The last word of people: whatever was held or failed may go on.
        for who in 0..AGENTS.len() {
            if world.ledger.contains_key(&name(AGENTS[who])) {
                happens(&mut world, &Deed::Retry { who }, 920 + who);
            }
        }
        at_rest(&mut world);
        for agent in AGENTS {
            as_asked(&world, &name(agent))?;
        }
        rest(&mut world);
        prop_assert!(world.oracle.violations.is_empty(), "{:#?}", world.oracle.violations);
        for (object, copy) in copies {
            prop_assert_eq!(world.cluster.objects.get(&object), Some(&copy), "{} is somebody else's", object);
        }
        Ok(())
    });
}

/// Either it is as Git asks, or the record says why not.
fn explained(world: &World, agent: &AgentName) -> Result<(), TestCaseError> {
    let (Some(Ok(desired)), Some(record)) = (world.git.agents.get(agent), world.record_of(agent)) else {
        return Ok(());
    };
    let stands = record.stable.as_ref().is_some_and(|stable| stable.release == desired.release.id);
    let says = |kind| record.condition(kind).is_some_and(|condition| condition.status == Truth::True);
    let said = record.differs.is_some() || says(ConditionKind::Stalled) || says(ConditionKind::Degraded);
    prop_assert!(stands || said, "{} differs silently: {:#?}", agent, record);
    Ok(())
}

/// All of it is as Git asks, and nothing else is.
fn as_asked(world: &World, agent: &AgentName) -> Result<(), TestCaseError> {
    let record = world.record_of(agent);
    let ours: BTreeSet<_> = AGENTS
        .iter()
        .position(|known| *known == agent.as_str())
        .map(|who| of(world, who).into_iter().collect())
        .unwrap_or_default();
    match world.git.agents.get(agent) {
        None => {
            let gone = record.is_none_or(|record| record.phase == Phase::Removed || record.format == 0);
            prop_assert!(gone && ours.is_empty(), "{} is not gone: {:?} {:#?}", agent, ours, record);
        }
        Some(Err(_)) => {}
        Some(Ok(desired)) => {
            let record = record.expect("a record");
            let ready = record.condition(ConditionKind::Ready).map(|ready| ready.status);
            prop_assert_eq!(ready, Some(Truth::True), "{:#?}\n{:?}", record, &world.writes);
            prop_assert_eq!(record.stable.as_ref().map(|stable| stable.release), Some(desired.release.id));
            prop_assert_eq!(record.stable.as_ref().map(|stable| stable.settings), Some(desired.settings.digest));
            prop_assert_eq!(world.running_of(agent), Some(desired.release.id.short()));
            prop_assert!(record.operation.is_none(), "{:?}", record.operation);
            let owned: BTreeSet<_> = record.inventory.0.keys().cloned().collect();
            prop_assert_eq!(&owned, &ours, "the inventory is not what stands");
            for (object, uid) in &record.inventory.0 {
                prop_assert_eq!(&world.cluster.objects[object].uid, uid);
            }
            for manifest in &desired.settings.manifests {
                prop_assert!(ours.contains(&manifest.object), "{} is missing", manifest.object);
            }
            let extras = ours.iter().filter(|object| object.name.starts_with("extra")).count();
            prop_assert_eq!(extras, desired.settings.manifests.len(), "more stands than is asked for");
        }
    }
    Ok(())
}

// K6
#[test]
fn removals_beyond_the_limits_stop_and_ask() {
    let sizes = prop::collection::vec((1..14_usize, any::<bool>(), any::<bool>()), 1..7);
    check("limits", 12, &sizes, |agents| {
        let mut world = World::new();
        let named = |n: usize| name(&format!("agent-{n}"));
        for (n, (size, ..)) in agents.iter().enumerate() {
            world.commit(desired(&named(n), "hello", |_, settings| {
                settings.replicas = Some(0);
                settings.manifests = (0..*size).map(|extra_n| extra(&format!("extra-{n}-{extra_n}"))).collect();
            }));
        }
        world.converge();
        let owned = |world: &World, n: usize| world.record_of(&named(n)).map_or(0, |record| record.inventory.0.len());
        let all: usize = (0..agents.len()).map(|n| owned(&world, n)).sum();
        let mut asked = vec![];
        for (n, (_, goes, consents)) in agents.iter().enumerate() {
            if *goes {
                world.remove(&named(n));
                if *consents {
                    world.allow(&named(n), Allow::Prune(format!("Agent/agent-{n}")));
                } else {
                    asked.push(n);
                }
            }
        }
        let objects: usize = asked.iter().map(|n| owned(&world, *n)).sum();
        let every = asked.len() > 1 && agents.iter().all(|(_, goes, _)| *goes);
        let stops = objects > 20 || asked.len() > 1 && objects * 100 > all * 50 || every;
        world.converge();
        for (n, (_, goes, consents)) in agents.iter().enumerate() {
            let stands = world.find("Deployment", &format!("agent-{n}")).is_some();
            prop_assert_eq!(stands, !goes || !consents && stops, "agent-{} of {:?}: {} of {}", n, agents, objects, all);
        }
        prop_assert!(world.oracle.violations.is_empty(), "{:#?}", world.oracle.violations);
        Ok(())
    });
}

// K5
#[test]
fn what_holds_data_goes_only_by_name() {
    const KINDS: [(&str, &str); 7] = [
        ("v1", "PersistentVolumeClaim"),
        ("v1", "PersistentVolume"),
        ("v1", "Namespace"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("apps/v1", "StatefulSet"),
    ];
    let objects = prop::collection::vec((0..KINDS.len(), any::<bool>(), any::<bool>()), 1..5);
    check("what holds data", 24, &(objects, any::<bool>()), |(objects, whole)| {
        let mut world = World::new().git("hello").settle();
        let labels = json!({"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"});
        let mut made = vec![];
        for (n, (kind, consents, drags)) in objects.iter().enumerate() {
            let (version, kind) = KINDS[*kind];
            let body = json!({"apiVersion": version, "kind": kind,
                "metadata": {"name": format!("thing-{n}"), "labels": labels}});
            let object = manifest(body.clone()).object;
            world.cluster.put(&object, body);
            let uid = world.cluster.objects[&object].uid.clone();
            let precious = !matches!(kind, "ConfigMap" | "StatefulSet");
            // What belongs to the whole cluster is nobody's to delete, whatever a record says.
            let everybodys = matches!(kind, "PersistentVolume" | "Namespace" | "CustomResourceDefinition");
            if *consents {
                world.allow(&agent(), Allow::Prune(format!("{kind}/thing-{n}")));
            }
            if *drags {
                // A claim that would go with it, of which nobody speaks.
                let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {
                    "name": format!("claim-{n}"), "labels": labels, "ownerReferences": [{"uid": uid}]}});
                world.cluster.put(&ObjectRef::of(&body, NAMESPACE).expect("an identity"), body);
            }
            made.push((object, uid, everybodys || precious && !consents || *drags));
        }
        world.run();
        let entry = world.ledger.get_mut(&agent()).expect("an entry");
        entry.rewrite(|record| {
            record.inventory.0.extend(made.iter().map(|(object, uid, _)| (object.clone(), uid.clone())));
        });
        if whole {
            world.remove(&agent());
        } else {
            world.commit(desired(&agent(), "next", |_, _| {}));
        }
        world.converge();
        for (object, _, stays) in made {
            prop_assert_eq!(world.cluster.objects.contains_key(&object), stays, "{}", object);
        }
        prop_assert!(world.oracle.violations.is_empty(), "{:#?}", world.oracle.violations);
        Ok(())
    });
}

// K7
#[test]
fn an_object_that_moves_is_the_same_object() {
    let moves = prop::collection::vec((0..3_usize, 0..4_u8, any::<bool>()), 1..7);
    check("moves", 24, &moves, |moves| {
        let mut world = World::new();
        let says = |world: &mut World, holder: usize, prompt: u8| {
            for (who, agent) in AGENTS.iter().enumerate() {
                world.commit(desired(&name(agent), &format!("prompt {prompt}"), |_, settings| {
                    settings.manifests = if who == holder { vec![extra("shared")] } else { vec![] };
                }));
            }
        };
        says(&mut world, 0, 0);
        world.converge();
        let uid = world.uid("ConfigMap", "shared");
        prop_assert!(uid.is_some());
        let mut last = 0;
        for (holder, prompt, crash) in moves {
            // The third holder is a broken commit of the one that has it: it is still its object.
            if holder == 2 {
                world.git.is_bad(&name(AGENTS[last]));
            } else {
                says(&mut world, holder, prompt);
                last = holder;
            }
            if crash {
                world.plane.hit = false;
                world.plane.fault = Some((Class::CrashAfter, world.effects + 2));
            }
            world.converge();
            prop_assert_eq!(&world.uid("ConfigMap", "shared"), &uid, "it was made anew");
        }
        let owners = AGENTS.iter().filter(|agent| {
            let record = world.record_of(&name(agent)).expect("a record");
            record.inventory.0.keys().any(|object| object.name == "shared")
        });
        prop_assert_eq!(owners.copied().collect::<Vec<_>>(), vec![AGENTS[last]]);
        rest(&mut world);
        prop_assert!(world.oracle.violations.is_empty(), "{:#?}", world.oracle.violations);
        Ok(())
    });
}
