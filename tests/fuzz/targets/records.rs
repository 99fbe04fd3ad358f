//! What is kept and read back, and the core that is fed with it.

use std::collections::BTreeMap;

use backstay::desired::Release;
use backstay::model::{
    AgentName, CommitId, Digest, EnvironmentName, LiveObject, Manifest, ObjectRef, Origin, Revision, WorkerName,
};
use backstay::plan::{GatePolicy, changes, created_lines, drift, dropped, mask_text, object_lines, violations};
use backstay::reconcile::read_release;
use backstay::record::{AgentRecord, ConditionKind, EnvironmentRecord, EnvironmentRequests, Operation, Requests};
use backstay::source::{Person, RemoteUrl};
use jiff::SignedDuration;
use serde_json::Value;

use super::now;
use crate::plane::Class;
use crate::world::World;

pub(super) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = |text: Result<String, String>| text.unwrap_or_else(|error| error);
    for word in [
        shown(text.parse::<AgentName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<EnvironmentName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<WorkerName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<CommitId>().map(|id| id.short().to_owned()).map_err(|error| error.to_string())),
        shown(text.parse::<Digest>().map(|digest| digest.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<Person>().map(|_| String::new()).map_err(|error| error.to_string())),
    ] {
        assert!(!word.chars().any(char::is_control), "{word:?}");
    }
    if let Ok(revision) = text.parse::<Revision>() {
        assert_eq!(revision.to_string().parse::<Revision>().as_ref(), Ok(&revision));
    }
    match text.parse::<RemoteUrl>() {
        Ok(url) => drop((url.host().map(str::to_owned), url.local().is_some(), url.to_string())),
        Err(error) => drop(error.to_string()),
    }
    let _ = mask_text(text);
}

pub(super) fn records(data: &[u8]) {
    if let Ok(mut record) = serde_json::from_slice::<AgentRecord>(data) {
        let text = serde_json::to_string(&record).expect("what was read can be written");
        assert!(serde_json::from_str::<AgentRecord>(&text).is_ok_and(|back| back == record), "{text}");
        let _ = (record.is_writable(), record.next_operation());
        record.bound(3, None);
        record.set_condition(ConditionKind::Ready, backstay::record::Truth::True, "Ready", "", now());
        // The core takes whatever the ledger holds.
        let mut world = World::new();
        world.ledger.entry(crate::git::agent()).or_default().rewrite(|known| *known = record);
        world.git("one").run();
    }
    let _ = serde_json::from_slice::<EnvironmentRecord>(data);
    let _ = serde_json::from_slice::<Requests>(data);
    let _ = serde_json::from_slice::<EnvironmentRequests>(data);
    let _ = serde_json::from_slice::<Operation>(data);
}

/// The files of a release, as a ConfigMap holds them.
pub(super) fn release(data: &[u8]) {
    let Ok(Value::Object(files)) = serde_json::from_slice::<Value>(data) else {
        let _ = Release::from_parts(data, BTreeMap::new());
        return;
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let canonical = files.get("release.json").map(text).unwrap_or_default();
    let prompts = files.iter().filter(|(name, _)| *name != "release.json");
    let prompts = prompts.map(|(name, value)| (name.clone(), text(value).into())).collect();
    if let Ok(release) = Release::from_parts(&canonical, prompts) {
        drop(release.files());
    }
    let mut world = World::new();
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": files,
        "metadata": {"name": "support-r-x", "labels": {"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"}}});
    if let Some(map) = LiveObject::of(body.clone()) {
        let _ = read_release(&map);
    }
    world = world.foreign(body).git("one");
    world.run();
}

/// Two objects: ours, and what stands there.
pub(super) fn live(data: &[u8]) {
    let mut pair = serde_json::Deserializer::from_slice(data).into_iter::<Value>().flatten();
    let (Some(ours), theirs) = (pair.next(), pair.next().unwrap_or_default()) else { return };
    drop((drift(&ours, &theirs), dropped(&ours, &theirs)));
    let Some(object) = ObjectRef::of(&ours, "agents") else { return };
    let changed = changes(&theirs, &ours);
    for line in
        object_lines(backstay::plan::Mark::Change, &object, &changed).iter().chain(&created_lines(&object, &ours))
    {
        assert!(!line.to_string().chars().any(char::is_control), "{line}");
    }
    let manifest = Manifest { object, body: ours.into(), origin: Origin::file("x.yaml") };
    for forbidden in violations(&manifest, &GatePolicy::of("agents")) {
        assert!(!forbidden.to_string().chars().any(char::is_control), "{forbidden}");
    }
    if let Some(live) = LiveObject::of(theirs) {
        let _ = (live.is_terminating(), live.version.is_at_least(&live.version));
        if ["Pod", "Deployment", "ReplicaSet", "ConfigMap"].contains(&live.object.kind.as_str()) {
            let mut world = World::new().git("one");
            world.run();
            let mut body = (*live.body).clone();
            let labels =
                serde_json::json!({"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"});
            if body["metadata"].is_object() {
                body["metadata"]["labels"] = labels;
                drop(world.foreign(body).past());
            }
        }
    }
}

/// Two amounts, with a line break between.
pub(super) fn quantity(data: &[u8]) {
    let Some((one, other)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    let pod = |cpu: &str| {
        serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}}})
    };
    let found = drift(&pod(one), &pod(other));
    assert!(one != other || found.is_empty(), "{one} is itself");
    assert_eq!(found.is_empty(), drift(&pod(other), &pod(one)).is_empty(), "{one:?} {other:?}");
}

/// Bytes as a story: what people, controllers and faults do, one byte each.
pub(super) fn reconcile(data: &[u8]) {
    let mut world = World::new().git("one");
    for pair in data.chunks(2).take(24) {
        let (deed, with) = (pair[0], usize::from(pair.get(1).copied().unwrap_or_default()));
        world.effects = 0;
        world = match deed % 14 {
            0 => world.git(["one", "two", "three", "four"][with % 4]),
            1 => world.git_removes(),
            2 => world.git_is_bad(),
            3 => world.later(SignedDuration::from_secs([1, 11, 90, 700, 90_000][with % 5])),
            4 => {
                world.restart();
                world
            }
            5 => {
                let class = if with % 2 == 0 { Class::CrashBefore } else { Class::CrashAfter };
                world.plane.fault = Some((class, 1 + with % 9));
                world
            }
            6 => {
                let kind = ["ConfigMap", "Deployment", "Service", "ServiceAccount"][with % 4];
                if let Some(object) = world.cluster.objects.keys().find(|object| object.kind == kind).cloned() {
                    world.delete(kind, &object.name);
                }
                world
            }
            7 => {
                if world.find("Deployment", "support").is_some() {
                    world.edit("Deployment", "support", |body| body["spec"]["replicas"] = serde_json::json!(with));
                }
                world
            }
            8 => {
                let kind = ["ConfigMap", "Deployment", "Service"][with % 3].to_owned();
                if !world.unseen.remove(&kind) {
                    world.unseen.insert(kind);
                }
                world
            }
            9 => {
                let release = world.running().unwrap_or_default();
                if world.cluster.sick.remove(&release).is_none() {
                    world.cluster.sick.insert(release, "CrashLoopBackOff");
                }
                world
            }
            10 => {
                world.plane.stale = (with % 2 == 0).then(|| world.past());
                world
            }
            11 => {
                world.lose_ledger();
                world
            }
            12 => {
                *world.requests() = Requests::default();
                world
            }
            _ => world,
        };
        // What is old is shown for one deed only.
        world.plane.stale = world.plane.stale.filter(|_| deed % 14 == 10);
        world.run();
        // A crash strikes in what is done next.
        world.plane.fault = world.plane.fault.filter(|_| deed % 14 == 5);
    }
}
