//! What happens to an environment in ordinary weeks, word by word.

use backstay::desired::{Allow, DesiredAgent};
use backstay::record::{Request, RetryRequest, RollbackRequest};
use jiff::SignedDuration;
use serde_json::json;

use super::git::{agent, desired, extra, name};
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

pub(crate) const ALL: [Scenario; 13] = [
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
];

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
