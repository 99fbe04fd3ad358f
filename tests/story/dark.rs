//! A day without Git, and a person who stops an agent while everything else is away.

use backstay::desired::DesiredAgent;
use backstay::model::ObjectRef;
use backstay::reconcile::FailureKind;
use backstay::record::ConditionKind;
use backstay::rollout::Smoked;
use jiff::SignedDuration;
use serde_json::json;

use super::git::{desired, extra, name};
use super::rollout::{by, by_number, canary, serving};
use super::scenarios::request;
use super::world::World;

fn with_extra(who: &str) -> DesiredAgent {
    desired(&name(who), "hello", |_, settings| settings.manifests = vec![extra(&format!("{who}-extra"))])
}

// S2
#[test]
fn a_day_without_git_writes_nothing_and_deletes_nothing() {
    for (what, hours) in [("it only does not answer", 0), ("and the daemon starts again every three hours", 3)] {
        let mut world = World::new();
        for who in ["helpdesk", "support"] {
            world.commit(with_extra(who));
        }
        world.converge();
        let stood: Vec<_> = world.cluster.objects.keys().cloned().collect();
        world.writes.clear();
        for round in 0..24 * 6 {
            if hours > 0 && round % (hours * 6) == 0 {
                world = world.git_lost();
            }
            world.wake(world.now + SignedDuration::from_mins(10));
            world.converge();
        }
        assert_eq!(world.writes, Vec::<String>::new(), "{what}");
        assert_eq!(world.cluster.objects.keys().cloned().collect::<Vec<_>>(), stood, "{what}");
        assert_eq!(world.oracle.violations, [], "{what}");
        // It is back, and says what it said: nothing is to be done.
        for who in ["helpdesk", "support"] {
            world.commit(with_extra(who));
        }
        world.converge();
        assert_eq!(world.writes, Vec::<String>::new(), "{what}");
    }
}

/// What stands, those apart that its own controllers make.
fn ours(world: &World) -> Vec<ObjectRef> {
    let objects = world.cluster.objects.keys();
    objects.filter(|object| !matches!(&*object.kind, "Pod" | "ReplicaSet")).cloned().collect()
}

/// What is away while a person suspends the agent.
type Down = fn(&mut World);

// R8
#[test]
fn a_suspension_works_whatever_else_is_down() {
    let git: Down = |world| {
        world.restart();
        world.git.lost = true;
    };
    let metrics: Down = |world| world.traffic.silent = true;
    let gate: Down = |world| world.gate = None;
    let preview: Down = |world| world.preview = Smoked::Unreached("no route to host".to_owned());
    let ledger: Down = |world| {
        world.refuse.insert("record".to_owned(), FailureKind::Unavailable { retry_after: None });
    };
    let some: [(&str, &[Down]); 6] = [
        ("Git", &[git]),
        ("metrics", &[metrics]),
        ("the gate", &[gate]),
        ("who keeps the records", &[ledger]),
        ("Git, metrics, the gate and the preview", &[git, metrics, gate, preview]),
        ("all of it", &[git, metrics, gate, preview, ledger]),
    ];
    for (what, down) in some {
        for counted in [false, true] {
            let begun = if counted {
                World::new().git_with("good", by_number(canary())).settle().git_with("better", by_number(canary()))
            } else {
                serving().git_with("better", by(canary()))
            };
            let mut world = begun.settle().until_woken().until_woken();
            assert!(world.record().rollout.is_some(), "{what}: it is on its way");
            down.iter().for_each(|down| down(&mut world));
            world.requests().suspend = Some(request("1"));
            world.run();
            let keeps = !world.refuse.contains_key("record");
            assert_eq!(world.holds(ConditionKind::Suspended), keeps, "{what}: {:?}", world.record().conditions);
            // Nothing is written any more, whatever happens, and nobody is asked anything.
            world.writes.clear();
            let (objects, asked) = (ours(&world), world.gate_asked.len());
            let deployment = world.cluster.objects.keys().find(|object| object.kind == "Deployment").cloned();
            let deployment = deployment.expect("a Deployment");
            world.cluster.edit(&deployment, |body| body["spec"]["replicas"] = json!(7));
            for _ in 0..60 {
                world.wake(world.now + SignedDuration::from_mins(1));
                world.run();
            }
            assert_eq!(world.writes, Vec::<String>::new(), "{what}");
            assert_eq!(world.cluster.body(&deployment)["spec"]["replicas"], json!(7), "{what}");
            assert_eq!((world.gate_asked.len(), world.oracle.violations.len()), (asked, 0), "{what}");
            assert_eq!(ours(&world), objects, "{what}");
            // All of it is back: it is told, and goes on when a person says so.
            world.refuse.clear();
            world.wake(world.now + SignedDuration::from_mins(11));
            world.run();
            assert!(world.holds(ConditionKind::Suspended), "{what}: {:?}", world.record().conditions);
            (world.traffic.silent, world.preview) = (false, Smoked::Answers);
            world.git.lost = false;
            world.requests().resume = Some(request("2"));
            world.converge();
            assert!(!world.holds(ConditionKind::Suspended), "{what}");
            let mut deployments = world.cluster.objects.values().filter(|live| live.object.kind == "Deployment");
            assert!(deployments.all(|live| live.body["spec"]["replicas"] != json!(7)), "{what}: it is healed");
        }
    }
}
