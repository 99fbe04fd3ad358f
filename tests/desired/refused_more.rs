//! More of `refused.rs`, with the same helpers.

use super::*;

// === workload ===

#[test]
fn workloads_that_cannot_run() {
    assert_snapshot!(spec("  workload:\n    health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}\n    resources: {requests: {cpu: 1 core, memory: true}, limit: {}}\n    env: {A: {secret: x}, B: {feild: metadata.name}, C: [1]}\n"), @r#"
    agents/a/agent.yaml:7:62: error: `port` is missing in `httpGet`
      |     health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}
      |                                                              ^
    agents/a/agent.yaml:7:89: error: `periodSeconds` cannot be `0`: 1 is the least
      |     health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}
      |                                                                                         ^
    agents/a/agent.yaml:8:33: error: `1 core` cannot be a quantity
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                 ^^^^^^
      hint: for example `500m, 1Gi`
    agents/a/agent.yaml:8:49: error: `memory` is a boolean, text or a number is expected
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                                 ^^^^
      hint: write it in quotes: `"true"`
    agents/a/agent.yaml:8:56: error: unknown field `limit` in `resources`
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                                        ^^^^^
      hint: did you mean `limits`?
    agents/a/agent.yaml:9:14: error: `key` is missing in `A`
    agents/a/agent.yaml:9:30: error: `B` needs `secret` or `field`
      hint: did you mean `field`?
    agents/a/agent.yaml:9:57: error: `C` is a list, text, `{secret, key}` or `{field}` is expected
    "#);
    assert_snapshot!(spec("  workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}\n  workers: {w: {health: {live: /x}}}\n"), @"
    agents/a/agent.yaml:6:41: error: `live` is no path: it begins with `/`
      |   workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}
      |                                         ^^^^^^
    agents/a/agent.yaml:6:49: error: the probe `ready` needs exactly one of `exec`, `httpGet`, `tcpSocket` and `grpc`
      |   workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}
      |                                                 ^^^^^
    agents/a/agent.yaml:7:32: error: `live` is a path, and the process has no `port`
      |   workers: {w: {health: {live: /x}}}
      |                                ^^
      hint: write a whole probe: `httpGet: {path: …, port: …}`
    ");
    assert_snapshot!(spec("  rolling: {maxSurge: 0, maxUnavailable: 0%}\n  autoscaling: {minReplicas: 5, maxReplicas: 3}\n  dependsOn: [a]\n  progressDeadline: 0s\n"), @"
    agents/a/agent.yaml:6:3: error: with `maxSurge` and `maxUnavailable` both 0 no pod could be replaced
      |   rolling: {maxSurge: 0, maxUnavailable: 0%}
      |   ^^^^^^^
      hint: `{maxSurge: 1, maxUnavailable: 0}` keeps all pods serving
    agents/a/agent.yaml:7:30: error: `minReplicas` is more than `maxReplicas`
      |   autoscaling: {minReplicas: 5, maxReplicas: 3}
      |                              ^
    agents/a/agent.yaml:8:15: error: `a` cannot wait for itself
      |   dependsOn: [a]
      |               ^
    agents/a/agent.yaml:9:21: error: the deadline is less than a second
      |   progressDeadline: 0s
      |                     ^^
    ");
    assert_snapshot!(spec("  rolling: {maxSurge: 120%}\n  autoscaling: {}\n  disruptionBudget: {minAvailable: 1, maxUnavailable: 1}\n  dependsOn: [b, b, A]\n"), @"
    agents/a/agent.yaml:6:23: error: `120%` cannot be a percentage
      |   rolling: {maxSurge: 120%}
      |                       ^^^^
      hint: for example `25%`
    agents/a/agent.yaml:7:16: error: `maxReplicas` is missing in `autoscaling`
      |   autoscaling: {}
      |                ^
    agents/a/agent.yaml:8:39: error: `disruptionBudget` takes only one of `maxUnavailable` or `minAvailable`
      |   disruptionBudget: {minAvailable: 1, maxUnavailable: 1}
      |                                       ^^^^^^^^^^^^^^
    agents/a/agent.yaml:9:18: error: `b` stands in `dependsOn` twice
      |   dependsOn: [b, b, A]
      |                  ^
    agents/a/agent.yaml:9:21: error: `A` cannot be the name of an agent: only lower-case letters, digits and `-` are allowed
      |   dependsOn: [b, b, A]
      |                     ^
      hint: for example `support`
    ");
}

#[test]
fn deployments_of_your_own_that_do_not_fit() {
    let manifest =
        |workload: &str, text: &str| with(&format!("  workload: {workload}\n"), &[("agents/a/deployment.yaml", text)]);
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\nspec:\n  replicas: two\n  template:\n    spec:\n      containers: [{{name: web, image: \"a@{DIGEST}\"}}, {{name: side, image: side}}]\n"
    );
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: agent, serviceAccount: x}", &deployment), @r#"
    agents/a/agent.yaml:6:52: error: the Deployment has no container `agent`
      |   workload: {manifest: deployment.yaml, container: agent, serviceAccount: x}
      |                                                    ^^^^^
      hint: it has `web` and `side`
    agents/a/agent.yaml:6:59: error: `serviceAccount` belongs into the manifest
      |   workload: {manifest: deployment.yaml, container: agent, serviceAccount: x}
      |                                                           ^^^^^^^^^^^^^^
      hint: write `serviceAccountName` there, and the ServiceAccount in `manifests/`
    agents/a/deployment.yaml:5:13: error: `replicas` is no number of pods
      |   replicas: two
      |             ^^^
    agents/a/deployment.yaml:8:137: error: the image has no tag and no digest
      | 413413422d706483bfa0f98a5e886266e7ae"}, {name: side, image: side}]
      |                                                             ^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    "#);
    assert_snapshot!(manifest("{manifest: deployment.yaml}", &deployment), @"
    agents/a/agent.yaml:6:24: error: `container` is missing beside `manifest`
      |   workload: {manifest: deployment.yaml}
      |                        ^^^^^^^^^^^^^^^
      hint: name the container of the Deployment that is the agent
    ");
    assert_snapshot!(manifest("{container: agent}", &deployment), @"
    agents/a/agent.yaml:6:25: error: `container` names a container of `manifest`, which is missing
      |   workload: {container: agent}
      |                         ^^^^^
    ");
    assert_snapshot!(manifest("{manifest: deploy.yaml, container: web}", &deployment), @"
    agents/a/agent.yaml:6:24: error: `agents/a/deploy.yaml` does not exist
      |   workload: {manifest: deploy.yaml, container: web}
      |                        ^^^^^^^^^^^
      hint: paths are from `agents/a`; a leading `/` is the root of the repository
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "apiVersion: apps/v1\nkind: StatefulSet\n---\nkind: Service\n"), @"
    agents/a/deployment.yaml:2:7: error: a Deployment of `apps/v1` is expected
      | kind: StatefulSet
      |       ^^^^^^^^^^^
    agents/a/deployment.yaml:4:1: error: a further document stands in the agent's Deployment
      | kind: Service
      | ^
      hint: further objects belong into `manifests/`
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "---\n"), @"
    agents/a/agent.yaml:6:24: error: `deployment.yaml` holds no Deployment
      |   workload: {manifest: deployment.yaml, container: web}
      |                        ^^^^^^^^^^^^^^^
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "apiVersion: apps/v1\nkind: Deployment\nspec: {}\n"), @"
    agents/a/deployment.yaml:3:1: error: the Deployment has no `spec.template`
      | spec: {}
      | ^^^^
    ");
    let bare = small().with("agents/a/agent.yaml", agent("a", "  workload: {manifest: d.yaml, container: web}\n"));
    assert_snapshot!(wrong(&bare.with("agents/a/d.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{name: web}]}}}\n")), @"
    agents/a/d.yaml:3:39: error: the agent's container has no image, and `code.image` is missing
      | spec: {template: {spec: {containers: [{name: web}]}}}
      |                                       ^
    ");
}

#[test]
fn manifests_that_no_agent_may_ask_for() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: w, namespace: other}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: w--z}\n---\napiVersion: backstay.dev/v1alpha1\nkind: AgentRelease\nmetadata: {name: x}\n---\nkind: ConfigMap\nmetadata: {generateName: x}\n---\n- a\n---\napiVersion: v1\nkind: List\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: q, uid: x, ownerReferences: []}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", text), ("agents/a/manifests/y.yml", "a: 1"), ("agents/a/manifests/sub/z.yaml", "a: 1")]), @"
    agents/a/manifests/sub: error: this is no file of manifests
      hint: `manifests/` holds `.yaml` files and nothing else
    agents/a/manifests/x.yaml:2:7: error: `Namespace` is an object of the whole cluster, not of an agent
      | kind: Namespace
      |       ^^^^^^^^^
      hint: who runs the cluster makes it
    agents/a/manifests/x.yaml:7:32: error: the namespace is not for the repository to choose
      | metadata: {name: w, namespace: other}
      |                                ^^^^^
      hint: take the line away: the daemon's configuration says where an environment lives
    agents/a/manifests/x.yaml:11:18: error: `w--z` has `--` in its name
      | metadata: {name: w--z}
      |                  ^^^^
      hint: `--` separates the parts of the names that Backstay makes
    agents/a/manifests/x.yaml:14:7: error: `AgentRelease` is Backstay's own
      | kind: AgentRelease
      |       ^^^^^^^^^^^^
    agents/a/manifests/x.yaml:17:1: error: `apiVersion` is missing in the object
      | kind: ConfigMap
      | ^
    agents/a/manifests/x.yaml:18:1: error: `metadata.name` is missing in the object
      | metadata: {generateName: x}
      | ^^^^^^^^
    agents/a/manifests/x.yaml:20:1: error: an object is a map, this is a list
      | - a
      | ^
    agents/a/manifests/x.yaml:23:7: error: a `List` is not read
      | kind: List
      |       ^^^^
      hint: write its items as documents, with `---` between them
    agents/a/manifests/x.yaml:28:21: error: `metadata.uid` is for the cluster to write
      | metadata: {name: q, uid: x, ownerReferences: []}
      |                     ^^^
    agents/a/manifests/x.yaml:28:29: error: `metadata.ownerReferences` is for the cluster to write
      | metadata: {name: q, uid: x, ownerReferences: []}
      |                             ^^^^^^^^^^^^^^^
    agents/a/manifests/y.yml: error: this is no file of manifests
      hint: `manifests/` holds `.yaml` files and nothing else
    ");
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: w}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", twice), ("agents/a/manifests/z.yaml", twice)]), @"
    agents/a/manifests/z.yaml:3:18: error: `ConfigMap/w` is declared twice
      | metadata: {name: w}
      |                  ^
      hint: it stands in agents/a/manifests/x.yaml:1:1 too
    ");
    let own = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", own)]), @"
    agents/a/manifests/x.yaml:1:1: error: Backstay itself makes `Deployment/a`
      hint: give the object another name
    ");
    let many: String =
        (0..64).map(|n| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\n")).collect();
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", &many)]), @r#"
    agents/a/agent.yaml:5:3: error: the agent has 66 objects, 64 are allowed
      |   code: {image: "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}
      |   ^
      hint: split it into several agents
    "#);
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", "a: {b: yes")]), @r#"
    agents/a/manifests/x.yaml:1:4: error: this is not YAML: unclosed bracket '{'
      | a: {b: yes
      |    ^
    agents/a/manifests/x.yaml:1:8: error: some read `yes` as a boolean, others as text
      | a: {b: yes
      |        ^^^
      hint: write `true`, or `"yes"` for text
    "#);
}

#[test]
fn a_release_that_is_too_large() {
    let large = "x".repeat(500 * 1024);
    let prompts = "  prompts: {one: one.md, two: two.md}\n";
    assert_snapshot!(with(prompts, &[("agents/a/one.md", &large), ("agents/a/two.md", &format!("{large}y"))]), @"
    agents/a/agent.yaml: error: the files of the release have 1024280 bytes together, 921600 are allowed
      hint: the largest is `prompts/two.md` with 512001 bytes
    ");
    assert_snapshot!(with("  prompts: {one: one.md}\n", &[("agents/a/one.md", &large.repeat(3))]), @"
    agents/a/agent.yaml:6:18: error: `agents/a/one.md` has more than 1048576 bytes
      |   prompts: {one: one.md}
      |                  ^^^^^^
    ");
}

// === agents among each other ===

#[test]
fn agents_against_one_another() {
    let image = format!("  code: {{image: \"a@{DIGEST}\"}}\n");
    let tree = small()
        .with("agents/a/agent.yaml", agent("a", &format!("{image}  dependsOn: [b, nobody]\n")))
        .with("agents/b/agent.yaml", agent("b", &format!("{image}  dependsOn: [c]\n")))
        .with("agents/c/agent.yaml", agent("c", &format!("{image}  dependsOn: [a]\n")))
        .with("agents/d/agent.yaml", agent("d", &image).replace("{name: d}", "{name: d, renamedFrom: a}"))
        .with("agents/e/agent.yaml", agent("e", &image).replace("{name: e}", "{name: e, renamedFrom: old}"))
        .with("agents/f/agent.yaml", agent("f", &image).replace("{name: f}", "{name: f, renamedFrom: old}"))
        .with("agents/g/agent.yaml", agent("g", &image))
        .with("agents/g/manifests/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
        .with("agents/h/agent.yaml", agent("h", &image))
        .with("agents/h/manifests/y.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: i}\n")
        .with("agents/i/agent.yaml", agent("i", &image))
        .with("agents/j/agent.yaml", agent("j", &image));
    let state = resolved(&tree, "prod");
    let told: Vec<_> = state
        .agents
        .iter()
        .map(|(name, agent)| match agent {
            Ok(_) => format!("{name} is good"),
            Err(errors) => told(errors),
        })
        .collect();
    assert_snapshot!(told.join("\n"), @"
    agents/a/agent.yaml:6:15: error: agents wait for one another in a circle: `a`, `b` and `c`
      |   dependsOn: [b, nobody]
      |               ^
    agents/a/agent.yaml:6:18: error: the agent `nobody` is not in this environment
      |   dependsOn: [b, nobody]
      |                  ^^^^^^
    agents/b/agent.yaml:6:15: error: agents wait for one another in a circle: `b`, `c` and `a`
      |   dependsOn: [c]
      |               ^
    agents/c/agent.yaml:6:15: error: agents wait for one another in a circle: `c`, `a` and `b`
      |   dependsOn: [a]
      |               ^
    agents/d/agent.yaml:3:34: error: the agent `a` still exists: this cannot be its new name
      | metadata: {name: d, renamedFrom: a}
      |                                  ^
      hint: take its folder away in the same commit, or this line
    e is good
    agents/f/agent.yaml:3:34: error: `e` says that it was `old` too
      | metadata: {name: f, renamedFrom: old}
      |                                  ^^^
    agents/g/manifests/x.yaml:1:1: error: `ConfigMap/x` is declared by the agent `h` too
      hint: one object belongs to one agent
    agents/h/manifests/y.yaml:1:1: error: `ConfigMap/x` is declared by the agent `g` too
      hint: one object belongs to one agent
    agents/h/manifests/y.yaml:5:1: error: `Deployment/i` is declared by the agent `i` too
      hint: one object belongs to one agent
    agents/i/agent.yaml: error: `Deployment/i` is declared by the agent `h` too
      hint: one object belongs to one agent
    j is good
    ");
}

// === not delivered yet ===

#[test]
fn what_is_not_delivered_is_never_ignored() {
    assert_snapshot!(spec("  drain: {mode: finish}\n  rollout:\n    strategy: {canary: {steps: [{weight: 5, for: 5m}]}}\n    onNewCommit: queue\n    warmUp: 30s\n    analysis: {errors: {preset: error_rate, max: 0.01}}\n    onNoData: hold\n    onUndecided: hold\n    rollback: {bake: 10m}\n"), @"
    agents/a/agent.yaml:6:3: error: `drain` is not delivered by this version
      |   drain: {mode: finish}
      |   ^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:8:16: error: `canary` moves traffic, and the agent has no port
      |     strategy: {canary: {steps: [{weight: 5, for: 5m}]}}
      |                ^^^^^^
      hint: add `workload.port`, or write `strategy: rolling`
    ");
    assert_snapshot!(spec("  rollout: {strategy: {blueGreen: {keepOld: 1h}}}\n"), @"
    agents/a/agent.yaml:6:24: error: `blueGreen` moves traffic, and the agent has no port
      |   rollout: {strategy: {blueGreen: {keepOld: 1h}}}
      |                        ^^^^^^^^^
      hint: add `workload.port`, or write `strategy: rolling`
    ");
    assert_snapshot!(spec("  rollout: {strategy: {abTest: {by: {header: x}, for: 14d}}}\n"), @"
    agents/a/agent.yaml:6:24: error: `abTest` moves traffic, and the agent has no port
      |   rollout: {strategy: {abTest: {by: {header: x}, for: 14d}}}
      |                        ^^^^^^
      hint: add `workload.port`, or write `strategy: rolling`
    agents/a/agent.yaml:6:33: error: users cannot be split by hash on Kubernetes: an HTTPRoute matches values alone
      |   rollout: {strategy: {abTest: {by: {header: x}, for: 14d}}}
      |                                 ^^
      hint: add a `value` that marks the segment; a host splits by hash
    ");
    assert_snapshot!(spec("  rollout: {strategy: canary}\n"), @"
    agents/a/agent.yaml:6:23: error: `strategy` cannot be `canary`: `rolling` is expected
      |   rollout: {strategy: canary}
      |                       ^^^^^^
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", agent("a", "  code: {artifact: {path: /dist/a}}\n"))), @"
    agents/a/agent.yaml:5:10: error: `code.artifact` is for a host, and this environment runs on Kubernetes
      |   code: {artifact: {path: /dist/a}}
      |          ^^^^^^^^
      hint: an overlay takes it away here: `code: {artifact: null}`
    ");
}

#[test]
fn a_route_on_kubernetes_is_of_a_gateway_and_leads_to_a_port() {
    assert_snapshot!(spec("  route: {hosts: [a.example.com, \"A b\"], path: \"x?\"}\n"), @r#"
    agents/a/agent.yaml:6:3: error: on Kubernetes a route needs a Gateway, and this one names none
      |   route: {hosts: [a.example.com, "A b"], path: "x?"}
      |   ^^^^^
      hint: add `gateway: {name: …, namespace: …}`, or take the route away here by an overlay: `route: null`
    agents/a/agent.yaml:6:11: error: `A b` is no name of a host
      |   route: {hosts: [a.example.com, "A b"], path: "x?"}
      |           ^^^^^
      hint: a lower-case name without a port, such as `support.example.com`, or `*.` and one
    agents/a/agent.yaml:6:11: error: a route leads to a port, and the agent has none
      |   route: {hosts: [a.example.com, "A b"], path: "x?"}
      |           ^^^^^
      hint: add `workload.port`
    agents/a/agent.yaml:6:48: error: `x?` is no path
      |   route: {hosts: [a.example.com, "A b"], path: "x?"}
      |                                                ^^^^
      hint: it begins with `/`, has no `?`, `#`, space, `//` or `..`, and is not longer than 1024
    "#);
    let gateway = "gateway: {name: public, namespace: gateways}";
    let two = |path: &str| {
        let declared = |name: &str, path: &str| {
            agent(
                name,
                &format!(
                    "  code: {{image: \"a@{DIGEST}\"}}\n  workload: {{port: 80}}\n  route: {{hosts: [x.example.com], path: {path}, {gateway}}}\n"
                ),
            )
        };
        small().with("agents/a/agent.yaml", declared("a", "/")).with("agents/b/agent.yaml", declared("b", path))
    };
    good(&two("/b"), "prod", "b");
    assert!(wrong(&two("/")).contains("x.example.com/"), "{}", wrong(&two("/")));
}

// === rollouts ===

/// What is wrong with a rollout; nothing where it is good.
fn rollout(rollout: &str) -> String {
    let lines = format!("  workload: {{port: 8000}}\n  rollout:\n{rollout}");
    let state = resolved(&small().with("agents/a/agent.yaml", with_image(&lines)), "prod");
    let Err(errors) = &state.agents[&name("a")] else { return String::new() };
    let told = told(errors);
    let lines = told.lines().filter(|line| line.contains("error: ") || line.contains("hint: "));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn steps_that_mean_nothing() {
    assert_snapshot!(rollout(
        "    strategy:\n      canary:\n        steps:\n        - {weight: 25, for: 5m}\n        - {weight: 5}\n        - {}\n        - {weight: 50, pause: {}}\n        - {pause: {}, for: 5m}\n        - {weight: 50, samples: 5}\n        - {weight: 50, for: 5m, atMost: 1h}\n        - {weight: 50, for: 0s}\n        - {weight: 60, for: 5m, limits: {error: {max: 0.1}, errors: {min: 0.1}}}\n"
    ));
    assert_snapshot!(rollout(
        "    strategy: {canary: {steps: [{pause: {}}], mirror: {for: 2m}, reach: {header: X-Canary, value: \"1\"}}}\n    sticky: {cookie: user}\n"
    ));
    assert_snapshot!(rollout("    strategy: {blueGreen: {keepOld: 1m, smoke: health}}\n"));
    assert_snapshot!(rollout(
        "    strategy: {abTest: {by: {header: x-group, value: b}, for: 1h, min: 2h, share: 10}}\n"
    ));
}

#[test]
fn an_experiment_of_everything() {
    let compared = |count: usize| {
        let one = |n: usize| format!("m{n}: {{preset: error_rate, compare: stable}}");
        let all: Vec<_> = (0..count).map(one).collect();
        rollout(&format!(
            "    strategy: {{abTest: {{by: {{header: x-group, value: b}}, for: 1d}}}}\n    analysis: {{{}}}\n",
            all.join(", ")
        ))
    };
    assert!(!compared(16).contains("at most"), "{}", compared(16));
    assert!(compared(17).contains("an experiment compares at most 16 metrics, this one 17"), "{}", compared(17));
}

#[test]
fn a_gate_is_a_step_of_its_own() {
    assert_eq!(rollout("    strategy: {canary: {steps: [{weight: 5, for: 5m}, {gate: load_test}]}}\n"), "");
}

#[test]
fn freezes_that_never_come() {
    assert_snapshot!(prod(
        "  freezes:\n  - {cron: \"0 17 * *\", for: 64h}\n  - {cron: \"0 0 30 2 *\", for: 1h}\n  - {cron: \"0 0 * * FRX\", for: 1h}\n  - {cron: \"0 0 * * FRI\", for: 0s}\n  - {cron: \"0 0 * * FRI\", for: 1h, timezone: Europe/Berln}\n"
    ));
}

// === environments ===

fn prod(spec: &str) -> String {
    let text = format!("apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec:\n{spec}");
    told(
        &environment(
            &small()
                .with("environments/prod.yaml", text)
                .with("environments/staging.yaml", "spec: {after: {environment: prod, for: 1h}}"),
            &name("prod"),
        )
        .expect_err("a bad environment"),
    )
}

#[test]
fn environments_that_are_wrong() {
    assert_snapshot!(prod("  track: {brnch: main}\n  images: digst\n  agents: [a, a, B]\n  pins: {a: 3f9c2ab1}\n  writeBack: revrt\n  frezes: []\n"), @"
    environments/prod.yaml:5:10: error: `track` needs `branch`, `tag` or `tags`
      |   track: {brnch: main}
      |          ^
      hint: did you mean `branch`?
    environments/prod.yaml:6:11: error: `images` cannot be `digst`: `digest` or `tags` is expected
      |   images: digst
      |           ^^^^^
      hint: did you mean `digest`?
    environments/prod.yaml:7:15: error: `a` stands in `agents` twice
      |   agents: [a, a, B]
      |               ^
    environments/prod.yaml:7:18: error: `B` cannot be the name of an agent: only lower-case letters, digits and `-` are allowed
      |   agents: [a, a, B]
      |                  ^
      hint: for example `support`
    environments/prod.yaml:8:13: error: `3f9c2ab1` cannot be a commit: the full id is expected, 40 lower-case hex digits
      |   pins: {a: 3f9c2ab1}
      |             ^^^^^^^^
      hint: for example `3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b`
    environments/prod.yaml:9:14: error: `writeBack` cannot be `revrt`: `revert`, `pin`, `pullRequest` or `none` is expected
      |   writeBack: revrt
      |              ^^^^^
      hint: did you mean `revert`?
    environments/prod.yaml:10:3: error: unknown field `frezes` in `spec`
      |   frezes: []
      |   ^^^^^^
      hint: did you mean `freezes`?
    ");
    assert_snapshot!(prod("  track: {branch: main, tag: v1}\n"), @"
    environments/prod.yaml:5:25: error: unknown field `tag` in `track`
      |   track: {branch: main, tag: v1}
      |                         ^^^
      hint: allowed here: `branch`
    ");
    assert_snapshot!(prod("  track: main\n  after: {environment: staging}\n"), @"
    environments/prod.yaml:5:10: error: `track` is text, `{branch}`, `{tag}` or `{tags}` is expected
      |   track: main
      |          ^^^^
    environments/prod.yaml:6:10: error: `for` is missing in `after`
      |   after: {environment: staging}
      |          ^
    ");
    assert_snapshot!(prod("  track: {tags: v1.4.2, exclude: [v1.4.2]}\n"), @"
    environments/prod.yaml:5:25: error: every tag would be excluded by `v1.4.2`
      |   track: {tags: v1.4.2, exclude: [v1.4.2]}
      |                         ^^^^^^^
    ");
    assert_snapshot!(prod("  after: {environment: stagin, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: the environment `stagin` does not exist
      |   after: {environment: stagin, for: 1h}
      |                        ^^^^^^
      hint: did you mean `staging`?
    ");
    assert_snapshot!(prod("  after: {environment: staging, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: `prod` waits for `staging`, which waits for `prod` in the end
      |   after: {environment: staging, for: 1h}
      |                        ^^^^^^^
    ");
    assert_snapshot!(prod("  after: {environment: prod, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: `prod` cannot wait for itself
      |   after: {environment: prod, for: 1h}
      |                        ^^^^
    ");
    assert_snapshot!(told(&environment(&small(), &name("prdo")).expect_err("none")), @"
    environments/prdo.yaml: error: the environment `prdo` does not exist
      hint: did you mean `prod`?
    ");
    assert_snapshot!(told(&environment(&MemoryTree::default(), &name("prod")).expect_err("none")), @"
    environments/prod.yaml: error: the environment `prod` does not exist
      hint: write `environments/<name>.yaml`
    ");
    let other = small().with(
        "environments/prod.yaml",
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: production}\n",
    );
    assert_snapshot!(told(&environment(&other, &name("prod")).expect_err("another name")), @"
    environments/prod.yaml:3:18: error: the environment calls itself `production`, its file `prod`
      | metadata: {name: production}
      |                  ^^^^^^^^^^
      hint: write `name: prod`
    ");
    assert_snapshot!(told(&environments(&small().with("environments/Prod.yaml", "").with("environments/dev.yml", "")).expect_err("names")), @"
    environments/Prod.yaml: error: `Prod` cannot be the name of an environment: only lower-case letters, digits and `-` are allowed
    environments/dev.yml: error: this file is not read
      hint: call it `.yaml`
    ");
}

#[test]
fn environments_that_name_nobody() {
    let text = "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec:\n  agents: [a, suport]\n  pins: {b: 3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b}\n";
    let tree = small().with("environments/prod.yaml", text).with("agents/support/agent.yaml", "x");
    assert_snapshot!(told(&resolved(&tree, "prod").warnings), @"
    environments/prod.yaml:5:15: warning: the agent `suport` does not exist
      |   agents: [a, suport]
      |               ^^^^^^
      hint: did you mean `support`?
    environments/prod.yaml:6:13: warning: `b` is pinned, and not one of the environment's agents
      |   pins: {b: 3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b}
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    ");
}

#[test]
fn variables_that_are_wrong() {
    assert_snapshot!(with("", &[("environments/prod/variables.yaml", "A: 1\nB-C: x\nD: {secret: x}\n")]), @r#"
    environments/prod/variables.yaml:1:4: error: `A` is a number, text, `{secret, key}` or `{field}` is expected
      | A: 1
      |    ^
      hint: write it in quotes: `"1"`
    environments/prod/variables.yaml:2:1: error: `B-C` cannot be the name of an environment variable
      | B-C: x
      | ^^^
      hint: for example `LOG_LEVEL`
    environments/prod/variables.yaml:3:4: error: `key` is missing in `D`
    "#);
}

#[test]
fn pins_that_cannot_be_kept() {
    let text = format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec:\n  pins: {{a: {:040x}}}\n",
        u128::MAX
    );
    assert_snapshot!(wrong(&small().with("environments/prod.yaml", text)), @"
    environments/prod.yaml:5:13: error: the commit that `a` is pinned to was not found
      |   pins: {a: 00000000ffffffffffffffffffffffffffffffff}
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: it must be reachable from a branch or a tag
    ");
}

// === consents ===

#[test]
fn consents_that_are_wrong() {
    let tree = small()
        .with("consent/a.yaml", "agent: a\nenvironment: prod\nallow: retry\nrelease: r-3f9c2ab1d0f6\nexpires: 2027-01-01\n")
        .with("consent/b.yaml", "agent: a\nenvironment: prod\nallow: retri\nexpires: never\nreason: x\n")
        .with("consent/c.yaml", "agent: a\nenvironment: prod\nallow: adopt\nexpires: 2027-01-01\n")
        .with("consent/d.yaml", "agent: a\nenvironment: prod\nallow: prune\nobject: ConfigMap/x\nrelease: r-3f9c2ab1d0f6\nexpires: 2027-01-01\n")
        .with("consent/e.yaml", "agent: a\nenvironment: prod\nallow: lossyDown\nobject: ConfigMap/x\nexpires: 2027-01-01\n")
        .with("consent/f.yaml", "agent: a\nenvironment: prod\nallow: retry\nexpires: 2027-01-01\n")
        .with("consent/g.yaml", "agent: a\nenvironment: prod\nallow: replace\nobject: service\nexpires: 2027-01-01\n")
        .with("consent/h.txt", "x")
        .with("consent/README.md", "x");
    let (good, bad) = consents(&tree);
    assert_eq!(good.len(), 1);
    assert_snapshot!(told(&bad), @"
    consent/b.yaml:3:8: error: `allow` cannot be `retri`: `retry`, `adopt`, `prune`, `replace` or `lossyDown` is expected
      | allow: retri
      |        ^^^^^
      hint: did you mean `retry`?
    consent/b.yaml:4:10: error: `never` cannot be a date or a time: a date, or a time after RFC 3339, is expected
      | expires: never
      |          ^^^^^
      hint: for example `2027-01-14`
    consent/b.yaml:5:1: error: unknown field `reason` in the file
      | reason: x
      | ^^^^^^
      hint: allowed here: `agent`, `allow`, `environment`, `expires`, `object` and `release`
    consent/c.yaml:3:8: error: `object` is missing: it says what is allowed
      | allow: adopt
      |        ^^^^^
    consent/d.yaml:5:1: error: `release` does not go with this deed
      | release: r-3f9c2ab1d0f6
      | ^^^^^^^
    consent/e.yaml:4:1: error: `object` does not go with this deed
      | object: ConfigMap/x
      | ^^^^^^
    consent/f.yaml:3:8: error: `release` is missing: it says what is allowed
      | allow: retry
      |        ^^^^^
    consent/g.yaml:4:9: error: `service` cannot be an object: its kind and its name are expected
      | object: service
      |         ^^^^^^^
      hint: for example `ConfigMap/support-settings`
    consent/h.txt: error: this is no file of a consent
      hint: `consent/` holds `.yaml` files, each with one consent
    ");
    let state = resolved(&tree, "prod");
    assert_eq!((state.consents.len(), state.warnings.0.len()), (1, bad.0.len()));
}

// === the tree itself ===

/// A tree with one thing in it that is refused.
#[derive(Debug)]
struct Evil {
    files: MemoryTree,
    at: &'static str,
}

impl Evil {
    fn refuse(&self, path: &str) -> Result<(), TreeError> {
        if path == self.at {
            return Err(TreeError::LfsPointer { path: path.to_owned() });
        }
        Ok(())
    }
}

impl Tree for Evil {
    fn find(&self, path: &str) -> Result<Option<backstay::source::Entry>, TreeError> {
        self.files.find(path)
    }

    fn list(&self, path: &str) -> Result<Vec<backstay::source::Entry>, TreeError> {
        self.refuse(path)?;
        self.files.list(path)
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<std::sync::Arc<[u8]>>, TreeError> {
        self.refuse(path)?;
        self.files.read(path, limit)
    }

    fn link(&self, _: &str) -> Result<Option<std::sync::Arc<str>>, backstay::source::TreeError> {
        Ok(None)
    }
}

#[test]
fn what_the_tree_refuses_is_an_error_of_the_agent_that_needs_it() {
    let lines = "  prompts: {p: p.md}\n  tools: {t: t.json}\n  models: {m: {use: fast}}\n  memory: {database: {secret: s, key: k}, migrations: m}\n";
    let files = || {
        small()
            .with("agents/a/agent.yaml", with_image(lines))
            .with("agents/a/p.md", "x")
            .with(
                "agents/a/t.json",
                "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\"}}",
            )
            .with("agents/a/m/1_a.up.sql", "A;")
            .with("agents/a/m/1_a.down.sql", "a;")
            .with("agents/a/manifests/x.yaml", "")
            .with("agents/a/flags.json", "{\"flags\": {}}")
            .with("shared/models.yaml", "fast: {provider: p, model: m}\n")
            .with("environments/prod/a.yaml", "")
    };
    assert!(resolved(&files(), "prod").agents[&name("a")].is_ok());
    let places = [
        "agents/a/agent.yaml",
        "agents/a/p.md",
        "agents/a/t.json",
        "agents/a/m",
        "agents/a/m/1_a.up.sql",
        "agents/a/manifests",
        "agents/a/manifests/x.yaml",
        "agents/a/flags.json",
        "shared/models.yaml",
        "environments/prod/a.yaml",
        "agents",
        "backstay.yaml",
        "environments/prod",
        "environments/prod.yaml",
        "consent",
    ];
    for place in places {
        let tree = Evil { files: files(), at: place };
        let told = match at(&mut backstay::desired::Cache::default(), &tree, "prod", 1) {
            Err(errors) => told(&errors),
            Ok(state) => match &state.agents[&name("a")] {
                Err(errors) => told(errors),
                Ok(_) => told(&state.warnings),
            },
        };
        assert!(told.contains("is a Git LFS pointer, the file itself is expected"), "{place}: {told}");
    }
}
