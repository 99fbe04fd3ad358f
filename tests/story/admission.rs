//! A server that changes what it is given: defaults, and a webhook that wants other values than we do.

use jiff::SignedDuration;
use serde_json::json;

use super::git::extra;
use super::world::World;

/// Two releases on a server that changes what it is given.
fn changed() -> World {
    let mut world = World::new();
    world.cluster.mutating = true;
    let with = |world: World, prompt: &str| {
        world.git_with(prompt, |_, settings| settings.manifests = vec![extra("extra")]).settle()
    };
    let mut world = with(with(world, "hello"), "next");
    world.converge();
    let image = &world.body("Deployment", "support")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(image.as_str().is_some_and(|image| image.starts_with("mirror.example.com/")), "{image}");
    world
}

// K13
#[test]
fn what_admission_changes_is_written_once() {
    let mut world = changed();
    for round in 0..5 {
        world.writes.clear();
        if round > 1 {
            world.restart();
        }
        // Everything is shown anew: somebody touched it.
        for object in world.cluster.objects.keys().cloned().collect::<Vec<_>>() {
            world.cluster.touch(&object);
        }
        world.wake(world.now + SignedDuration::from_mins(7));
        world.converge();
        assert_eq!(world.writes, Vec::<String>::new(), "round {round}");
    }
    assert_eq!(world.oracle.violations, []);
}

// K13, K8
#[test]
fn beside_what_admission_changes_drift_is_healed_once() {
    for restarted in [false, true] {
        let mut world = changed();
        if restarted {
            world.restart();
            world.converge();
        }
        world.writes.clear();
        world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(9));
        world.converge();
        assert_eq!(world.body("Deployment", "support")["spec"]["replicas"], json!(2));
        let heals = world.writes.iter().filter(|write| *write != "record").collect::<Vec<_>>();
        assert_eq!(heals, ["~ Deployment/support"], "after a restart: {restarted}");
        world.writes.clear();
        world.wake(world.now + SignedDuration::from_mins(7));
        world.converge();
        assert_eq!(world.writes, Vec::<String>::new(), "after a restart: {restarted}");
    }
}

// K13
#[test]
fn a_webhook_that_comes_later_changes_nothing_until_something_is_written() {
    let mut world = World::new().git("hello").settle();
    world.cluster.mutating = true;
    world.writes.clear();
    world.restart();
    world.converge();
    assert_eq!(world.writes, Vec::<String>::new());
    let mut world = world.git("next").settle();
    world.converge();
    world.writes.clear();
    super::table::rest(&mut world);
    assert_eq!((&world.writes, world.oracle.violations.len()), (&vec![], 0), "{:?}", world.oracle.violations);
}
