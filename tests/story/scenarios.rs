//! What happens to an environment in ordinary weeks, word by word.

use backstay::desired::rollout::{BlueGreen, Canary, Rollback, Step, Strategy, Until};
use backstay::desired::{Allow, DesiredAgent, RolloutSpec};
use backstay::reconcile::FailureKind;
use backstay::record::{Request, RetryRequest, RollbackRequest};
use jiff::SignedDuration;
use serde_json::json;

use super::git::{agent, desired, extra, name, route};
use super::world::World;

/// One word of Git or of a person; the world comes to rest after each.
pub(crate) type Word = fn(&mut World);

/// A story whose every effect is struck by every fault.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The promises that it is about, whatever strikes.
    pub(crate) promises: &'static [&'static str],
    pub(crate) words: &'static [Word],
}

pub(crate) const ALL: [Scenario; 24] = [
    Scenario { name: "install", promises: &["K13"], words: &[|world| commit(world, "hello")] },
    Scenario {
        name: "change",
        promises: &["K13"],
        words: &[|world| commit(world, "hello"), |world| commit(world, "next")],
    },
    Scenario {
        name: "revert",
        promises: &["K13"],
        words: &[|world| commit(world, "hello"), |world| commit(world, "bad"), |world| commit(world, "hello")],
    },
    Scenario {
        name: "rollback",
        promises: &["R6"],
        words: &[
            |world| commit(world, "hello"),
            |world| commit(world, "bad"),
            |world| {
                world.requests().rollback = Some(RollbackRequest { request: request("1"), to: None, no_git: false })
            },
            |world| commit(world, "better"),
        ],
    },
    Scenario {
        name: "remove",
        promises: &["K5", "K6"],
        words: &[
            |world| commit_with_extra(world, "hello"),
            |world| commit(world, "next"),
            |world| world.remove(&agent()),
        ],
    },
    Scenario { name: "rename", promises: &["K7"], words: &[|world| says(world, "helpdesk", "hello", None), rename] },
    Scenario { name: "move", promises: &["K7"], words: &[two_agents, moved, moved_back] },
    Scenario {
        name: "adopt",
        promises: &["K9"],
        words: &[
            |world| {
                world.make_foreign(json!({"apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": "support", "labels": {"team": "other"}},
                    "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}}));
                commit(world, "hello");
            },
            |world| world.allow(&agent(), Allow::Adopt("Service/support".to_owned())),
            |world| commit(world, "next"),
        ],
    },
    Scenario {
        name: "pin moved",
        promises: &["R6"],
        words: &[
            |world| commit(world, "one"),
            |world| commit(world, "two"),
            |world| commit(world, "three"),
            |world| commit(world, "one"),
            |world| commit(world, "three"),
        ],
    },
    Scenario {
        name: "suspended and resumed",
        promises: &["R8", "K8"],
        words: &[
            |world| commit(world, "hello"),
            |world| world.requests().suspend = Some(request("1")),
            |world| {
                world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(7));
                commit(world, "next");
            },
            |world| world.requests().resume = Some(request("2")),
            |world| world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(9)),
        ],
    },
    Scenario {
        name: "lost ledger",
        promises: &["K2", "R6"],
        words: &[
            |world| commit(world, "hello"),
            |world| commit(world, "next"),
            |world| {
                world.lose_ledger();
                world.restart();
            },
            |world| commit(world, "third"),
            |world| world.requests().retry = Some(RetryRequest { request: request("1"), release: None }),
        ],
    },
    Scenario {
        name: "settings",
        promises: &["K13"],
        words: &[
            |world| commit_with_extra(world, "hello"),
            |world| {
                let scaling = json!({"minReplicas": 2, "maxReplicas": 9});
                world.commit(desired(&agent(), "hello", |_, settings| settings.autoscaling = Some(scaling)));
            },
            |world| commit(world, "next"),
        ],
    },
    Scenario {
        name: "failed and retried",
        promises: &["D9"],
        words: &[
            |world| commit(world, "hello"),
            |world| {
                let id = desired(&agent(), "bad", |_, _| {}).release.id.short();
                world.cluster.sick.insert(id, "CrashLoopBackOff");
                commit(world, "bad");
            },
            |world| world.wake(world.now + SignedDuration::from_mins(11)),
            |world| {
                world.cluster.sick.clear();
                world.requests().retry = Some(RetryRequest { request: request("1"), release: None });
            },
        ],
    },
    Scenario {
        name: "canary with promotion",
        promises: &["T1", "T3"],
        words: &[|world| split(world, "hello", canary()), |world| split(world, "next", canary())],
    },
    Scenario {
        name: "canary with abort and revert",
        promises: &["T1", "T3", "D9"],
        words: &[
            |world| split(world, "hello", canary()),
            |world| {
                let id = desired(&agent(), "bad", by(canary())).release.id.short();
                world.traffic.errors.insert(id, 0.5);
                split(world, "bad", canary());
            },
        ],
    },
    Scenario {
        name: "blue-green switch and back",
        promises: &["T1", "T3"],
        words: &[
            |world| split(world, "hello", blue_green()),
            |world| split(world, "next", blue_green()),
            |world| split(world, "hello", blue_green()),
        ],
    },
    Scenario {
        name: "superseding commit",
        promises: &["T1", "T3"],
        words: &[
            |world| split(world, "hello", canary()),
            |world| split(world, "next", held()),
            |world| split(world, "third", canary()),
        ],
    },
    Scenario {
        name: "canary by pods with abort",
        promises: &["T1", "T3", "D9"],
        words: &[
            |world| split_by_number(world, "hello", canary()),
            |world| split_by_number(world, "next", canary()),
            |world| {
                let id = desired(&agent(), "bad", |_, settings| {
                    settings.replicas = Some(4);
                    settings.rollout = Some(canary());
                });
                world.traffic.errors.insert(id.release.id.short(), 0.5);
                split_by_number(world, "bad", canary());
            },
        ],
    },
    Scenario {
        name: "blue-green by selector",
        promises: &["T1", "T3"],
        words: &[
            |world| split_by_number(world, "hello", blue_green()),
            |world| split_by_number(world, "next", blue_green()),
            |world| split_by_number(world, "hello", blue_green()),
        ],
    },
    Scenario {
        name: "canary at a gate",
        promises: &["T3"],
        words: &[
            |world| split(world, "hello", gated()),
            |world| {
                world.gate_opens = Some(world.now + SignedDuration::from_secs(15));
                split(world, "next", gated());
            },
        ],
    },
    Scenario {
        name: "suspended on the way",
        promises: &["R8", "T3"],
        words: &[
            |world| split(world, "hello", canary()),
            |world| split(world, "next", held()),
            |world| world.requests().suspend = Some(request("1")),
            |world| world.requests().resume = Some(request("2")),
            |world| world.requests().promote = Some(request("3")),
        ],
    },
    Scenario {
        name: "one that is refused",
        promises: &["K12", "K14"],
        words: &[
            two_agents,
            |world| {
                world.refuse.insert("ConfigMap/poison".to_owned(), FailureKind::Refused);
                world.commit(desired(&agent(), "next", |_, settings| settings.manifests = vec![extra("poison")]));
                says(world, "helpdesk", "next", None);
            },
            |world| says(world, "helpdesk", "third", None),
            |world| {
                world.refuse.clear();
                world.wake(world.now + SignedDuration::from_mins(3));
            },
        ],
    },
    Scenario {
        name: "admission that changes",
        promises: &["K13", "K8"],
        words: &[
            |world| {
                world.cluster.mutating = true;
                commit_with_extra(world, "hello");
            },
            |world| commit_with_extra(world, "next"),
            World::restart,
            |world| world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(9)),
            |world| {
                world.restart();
                world.edit("Service", "support", |body| body["spec"]["ports"][0]["port"] = json!(81));
            },
        ],
    },
    Scenario {
        name: "another strategy",
        promises: &["T1"],
        words: &[
            |world| commit(world, "hello"),
            |world| split(world, "next", canary()),
            |world| commit(world, "third"),
        ],
    },
];

/// Half of the traffic for two seconds, then all of it, watched for two; the errors alone are looked at.
fn canary() -> RolloutSpec {
    let half = Step::Weight {
        weight: 50,
        until: Until::Time(SignedDuration::from_secs(2)),
        limits: std::collections::BTreeMap::new(),
    };
    let mut analysis = RolloutSpec::default_metrics();
    analysis.retain(|name, _| name == "errors");
    RolloutSpec {
        strategy: Strategy::Canary(Canary { steps: vec![half], mirror: None, reach: None }),
        analysis,
        rollback: Rollback { bake: SignedDuration::from_secs(2), ..Rollback::default() },
        ..RolloutSpec::default()
    }
}

/// A person first, and then half of the traffic.
fn held() -> RolloutSpec {
    let Strategy::Canary(mut usual) = canary().strategy else { panic!("a canary") };
    usual.steps.insert(0, Step::Pause { lasts: None });
    RolloutSpec { strategy: Strategy::Canary(usual), ..canary() }
}

/// A gate first, and then half of the traffic.
fn gated() -> RolloutSpec {
    let Strategy::Canary(mut usual) = canary().strategy else { panic!("a canary") };
    usual.steps.insert(0, Step::Gate { name: "load".to_owned() });
    RolloutSpec { strategy: Strategy::Canary(usual), ..canary() }
}

fn blue_green() -> RolloutSpec {
    let switch = BlueGreen { preview: None, smoke: "/".to_owned(), keep_old: SignedDuration::from_secs(3) };
    RolloutSpec { strategy: Strategy::BlueGreen(switch), ..canary() }
}

fn by(spec: RolloutSpec) -> impl FnOnce(&mut backstay::desired::ReleaseSpec, &mut backstay::desired::Settings) {
    move |_, settings| {
        settings.route = Some(route());
        settings.rollout = Some(spec);
    }
}

/// A commit whose release is rolled out by the number of its pods.
fn split_by_number(world: &mut World, prompt: &str, spec: RolloutSpec) {
    world.traffic.rate = 5000.0;
    world.commit(desired(&agent(), prompt, |_, settings| {
        settings.replicas = Some(4);
        settings.rollout = Some(spec);
    }));
}

/// A commit whose release is rolled out so, before many users.
fn split(world: &mut World, prompt: &str, spec: RolloutSpec) {
    world.traffic.rate = 5000.0;
    world.commit(desired(&agent(), prompt, by(spec)));
}

pub(crate) fn request(id: &str) -> Request {
    Request { id: id.to_owned(), by: "alice".to_owned(), reason: "answers are wrong".to_owned() }
}

fn commit(world: &mut World, prompt: &str) {
    world.commit(desired(&agent(), prompt, |_, _| {}));
}

fn commit_with_extra(world: &mut World, prompt: &str) {
    world.commit(desired(&agent(), prompt, |_, settings| settings.manifests = vec![extra("extra")]));
}

fn says(world: &mut World, who: &str, prompt: &str, renamed_from: Option<&str>) {
    let desired = desired(&name(who), prompt, |_, settings| settings.manifests = vec![extra("extra")]);
    world.commit(DesiredAgent { renamed_from: renamed_from.map(name), ..desired });
}

fn rename(world: &mut World) {
    world.remove(&name("helpdesk"));
    says(world, "support", "hello", Some("helpdesk"));
}

fn two_agents(world: &mut World) {
    says(world, "helpdesk", "hello", None);
    commit(world, "hello");
}

fn moved(world: &mut World) {
    world.commit(desired(&name("helpdesk"), "hello", |_, _| {}));
    commit_with_extra(world, "hello");
}

fn moved_back(world: &mut World) {
    says(world, "helpdesk", "hello", None);
    commit(world, "hello");
}
