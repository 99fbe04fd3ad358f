//! More of `health.rs`, with the same helpers.

use super::*;

#[test]
fn whose_fault_it_is() {
    let crash = |restarts: u32, last: Value| {
        container(json!({"restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=agent"}}, "lastState": {"terminated": last}}))
    };
    let pod = |status: Value| {
        let mut all = json!({"phase": "Pending", "conditions": [condition("Ready", "False", "", "")]});
        json_patch::merge(&mut all, &status);
        all
    };
    let unscheduled =
        |reason: &str, message: &str| pod(json!({"conditions": [condition("PodScheduled", "False", reason, message)]}));
    let init = |state: Value| {
        pod(
            json!({"initContainerStatuses": [{"name": "setup", "restartCount": 4, "state": state, "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}),
        )
    };
    let running = |since: &str, fields: Value| {
        let mut state = json!({"state": {"running": {"startedAt": since}}});
        json_patch::merge(&mut state, &fields);
        container(state)
    };
    let pull = "rpc error: code = Unknown desc = failed to pull and unpack image \"registry.example.com/support:1\": failed to resolve reference: ";
    let cases = [
        (
            crash(5, json!({"exitCode": 1, "reason": "Error", "message": "OPENAI_API_KEY=sk-abcdef"})),
            Release,
            Cause::CrashLoop,
            true,
            "ended with exit code 1, restarted 5 times",
        ),
        (
            crash(1, json!({"exitCode": 2, "reason": "Error"})),
            Release,
            Cause::CrashLoop,
            false,
            "ended with exit code 2, restarted once",
        ),
        (crash(5, json!({"exitCode": 0, "reason": "Completed"})), Release, Cause::CrashLoop, true, "exit code 0"),
        (
            crash(5, json!({"exitCode": 137, "reason": "OOMKilled"})),
            Release,
            Cause::OutOfMemory,
            true,
            "ran out of its memory limit",
        ),
        (
            crash(2, json!({"exitCode": 128, "reason": "StartError", "message": "exec: \"bin/x\": no such file"})),
            Release,
            Cause::Command,
            true,
            "cannot run its command",
        ),
        (
            crash(2, json!({"exitCode": 137, "reason": "ContainerStatusUnknown"})),
            Environment,
            Cause::Node,
            false,
            "lost by its node",
        ),
        (crash(4, Value::Null), Release, Cause::CrashLoop, true, "ends again and again, restarted 4 times"),
        (
            container(json!({"restartCount": 1, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}})),
            Release,
            Cause::CrashLoop,
            false,
            "exit code 1",
        ),
        (
            init(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
            Release,
            Cause::InitFailed,
            true,
            "container `setup` of pod `new-0` ended with exit code 3",
        ),
        (
            init(json!({"terminated": {"exitCode": 3, "reason": "Error"}})),
            Release,
            Cause::InitFailed,
            true,
            "exit code 3",
        ),
        (
            waiting("CreateContainerConfigError", "secret \"agent-secrets\" not found"),
            Release,
            Cause::Config,
            true,
            "needs the Secret `agent-secrets`, which does not exist",
        ),
        (
            waiting("CreateContainerConfigError", "secrets \"agent-secrets\" not found"),
            Release,
            Cause::Config,
            true,
            "needs the Secret `agent-secrets`",
        ),
        (
            waiting("CreateContainerConfigError", "object \"agents\"/\"agent-secrets\" not registered"),
            Environment,
            Cause::Other,
            false,
            "waits for its node",
        ),
        (
            waiting("CreateContainerConfigError", "configmap \"c\" not found"),
            Release,
            Cause::Config,
            true,
            "needs the ConfigMap `c`",
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key openai in Secret agents/agent-secrets"),
            Release,
            Cause::Config,
            true,
            "needs the key `openai` of the Secret `agents/agent-secrets`",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"x\", container: agent)",
            ),
            Release,
            Cause::Config,
            true,
            "must not run as root",
        ),
        (waiting("CreateContainerConfigError", "something else"), Release, Cause::Config, true, "cannot be used"),
        (
            waiting("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition"),
            Environment,
            Cause::Other,
            false,
            "waits for its node",
        ),
        (
            waiting(
                "RunContainerError",
                "failed to create containerd task: exec: \"bin/x\": stat bin/x: no such file or directory",
            ),
            Release,
            Cause::Command,
            true,
            "cannot run its command",
        ),
        (
            waiting("RunContainerError", "context deadline exceeded"),
            Environment,
            Cause::Other,
            false,
            "cannot be made by its node",
        ),
        (
            waiting("CreateContainerError", "no command specified"),
            Release,
            Cause::Command,
            true,
            "cannot run its command",
        ),
        (
            waiting("CreateContainerError", "mount: no space left on device"),
            Environment,
            Cause::Other,
            false,
            "cannot be made by its node",
        ),
        (waiting("CreateContainerError", "strange"), Environment, Cause::Other, false, "cannot be made by its node"),
        (
            waiting(
                "CreateContainerError",
                "the agent is not enrolled on this machine: `backstay host enrol a` as root",
            ),
            Environment,
            Cause::Other,
            false,
            "cannot be started: the agent is not enrolled on this machine: `backstay host enrol a` as root",
        ),
        (waiting("PostStartHookError", "x"), Release, Cause::Command, false, "start hook"),
        (waiting("InvalidImageName", "x"), Release, Cause::NoImage, true, "that is none"),
        (
            waiting("ErrImagePull", &format!("{pull}registry.example.com/support:1: not found")),
            Release,
            Cause::NoImage,
            true,
            "`registry.example.com/support:1`: it does not exist",
        ),
        (
            waiting(
                "ImagePullBackOff",
                "Back-off pulling image \"x\": ErrImagePull: manifest unknown: manifest unknown",
            ),
            Release,
            Cause::NoImage,
            true,
            "does not exist",
        ),
        (
            waiting("ErrImagePull", &format!("{pull}Head \"https://r/v2\": dial tcp: lookup r: no such host")),
            Environment,
            Cause::Pull,
            false,
            "registry does not answer",
        ),
        (
            waiting("ErrImagePull", &format!("{pull}dial tcp 10.0.0.1:443: connect: connection refused")),
            Environment,
            Cause::Pull,
            false,
            "registry does not answer",
        ),
        (
            waiting("ErrImagePull", &format!("{pull}unexpected status from HEAD request: 503 Service Unavailable")),
            Environment,
            Cause::Pull,
            false,
            "registry does not answer",
        ),
        (
            waiting(
                "ErrImagePull",
                &format!("{pull}pull access denied, repository does not exist or may require authorization"),
            ),
            Environment,
            Cause::Pull,
            false,
            "may not pull",
        ),
        (waiting("ImagePullBackOff", "Back-off pulling image \"x\""), Environment, Cause::Pull, false, "cannot pull"),
        (
            unscheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu."),
            Environment,
            Cause::Unschedulable,
            false,
            "pod `new-0` fits on no node: 0/3 nodes are available: 3 Insufficient cpu",
        ),
        (unscheduled("SchedulingGated", ""), Environment, Cause::Unschedulable, false, "scheduling gate"),
        (unscheduled("Unschedulable", ""), Environment, Cause::Unschedulable, false, "has no node yet"),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            Environment,
            Cause::Node,
            false,
            "its node ran short",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."}),
            Release,
            Cause::Disk,
            false,
            "more disk than its limit",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Mi\"."}),
            Release,
            Cause::Disk,
            false,
            "filled a volume",
        ),
        (json!({"phase": "Failed", "reason": "NodeShutdown"}), Environment, Cause::Node, false, "ended by its node"),
        (
            json!({"phase": "Failed", "reason": "DeadlineExceeded"}),
            Release,
            Cause::Other,
            false,
            "activeDeadlineSeconds",
        ),
        (json!({"phase": "Running", "reason": "NodeLost"}), Environment, Cause::Node, false, "taken from its node"),
        (
            pod(json!({"conditions": [condition("DisruptionTarget", "True", "DeletionByTaintManager", "")]})),
            Environment,
            Cause::Node,
            false,
            "taken from its node",
        ),
        (
            json!({"phase": "Running", "conditions": [condition("Ready", "False", "", "")], "containerStatuses": [{"name": "agent", "ready": true}]}),
            Environment,
            Cause::Node,
            false,
            "does not answer",
        ),
        (
            running("2026-11-24T10:00:00Z", json!({})),
            Release,
            Cause::NotReady,
            false,
            "has run for 600 s and is not ready: its readiness probe fails",
        ),
        (
            running("2026-11-24T10:00:00Z", json!({"restartCount": 2})),
            Release,
            Cause::NotReady,
            false,
            "restarted 2 times",
        ),
        (
            running("2026-11-24T10:00:00Z", json!({"started": false})),
            Release,
            Cause::NotStarted,
            false,
            "startup probe",
        ),
        (
            running(
                "2026-11-24T10:09:59Z",
                json!({"restartCount": 7, "lastState": {"terminated": {"exitCode": 9, "reason": "Error"}}}),
            ),
            Release,
            Cause::CrashLoop,
            true,
            "exit code 9, restarted 7 times",
        ),
    ];
    for (status, fault, cause, certain, words) in cases {
        let found = findings(status.clone());
        assert_eq!(found.len(), 1, "{status}: {found:?}");
        let finding = &found[0];
        assert_eq!(
            (finding.fault, finding.cause, finding.certain),
            (fault, cause, certain),
            "{status}: {}",
            finding.sentence
        );
        assert!(finding.sentence.contains(words), "{:?} has no {words:?}", finding.sentence);
        assert!(finding.sentence.contains("new-0"), "{}", finding.sentence);
        assert!(!finding.sentence.contains("sk-abcdef"), "{}", finding.sentence);
    }
}

#[test]
fn nothing_is_said_without_evidence() {
    for status in [
        json!({}),
        json!({"phase": "Pending"}),
        waiting("ContainerCreating", ""),
        waiting("PodInitializing", ""),
        // Within the probe's own patience: 3 × 2 s and a second.
        container(json!({"state": {"running": {"startedAt": "2026-11-24T10:09:54Z"}}})),
        container(json!({"state": {"running": {"startedAt": "nonsense"}}})),
        ready(),
    ] {
        let judged = World::new(vec![status.clone()]).judge();
        assert_eq!(judged.findings, [], "{status}");
        assert_eq!(judged.blame(), None);
    }
    let mut world = World::new(vec![waiting("ContainerCreating", "")]);
    world.deployment["status"]["conditions"] =
        json!([condition("Progressing", "False", "ProgressDeadlineExceeded", "")]);
    let judged = world.judge();
    assert!(
        matches!(judged.health, Health::Degraded { fault: None, .. }),
        "a deadline alone blames nobody: {:?}",
        judged.health
    );
}

#[test]
fn an_agent_is_healthy_when_only_its_release_runs_and_all_are_ready() {
    let mut world = World::new(vec![ready(), ready()]);
    let judged = world.judge();
    assert_eq!((judged.ready, judged.wanted, judged.old), (2, 2, 1));
    assert_eq!(code(&judged.health).0, "P", "the old pod is yet to end");
    world.deployment["status"] = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
    world.pods.remove(0);
    let judged = world.judge();
    assert_eq!((judged.health, judged.old), (Health::Healthy, 0));
    world.deployment["spec"]["template"] = template(&ReleaseId::of(b"other"));
    let judged = world.judge();
    assert!(code(&judged.health).1.contains(&format!("does not run {} yet", release())), "{:?}", judged.health);
    let nothing = agent_health(&release(), &[], &[], &[], NOW.parse().expect("a time"));
    assert_eq!(nothing.health, Health::Missing);
}

#[test]
fn the_releases_own_fault_comes_first_and_degrades_at_once_when_it_is_certain() {
    let unscheduled =
        json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", "0/1 nodes")]});
    let judged =
        World::new(vec![unscheduled.clone(), waiting("CreateContainerConfigError", "secret \"s\" not found")]).judge();
    assert_eq!(judged.findings.len(), 2);
    assert_eq!(judged.blame().map(|finding| finding.cause), Some(Cause::Config));
    assert_eq!(judged.obstacle().map(|finding| finding.cause), Some(Cause::Unschedulable));
    assert!(
        matches!(&judged.health, Health::Degraded { fault: Some(Release), reason } if reason.contains("needs the Secret `s`")),
        "{:?}",
        judged.health
    );
    let judged = World::new(vec![unscheduled]).judge();
    assert!(
        matches!(&judged.health, Health::Progressing { reason } if reason.contains("fits on no node")),
        "{:?}",
        judged.health
    );
    assert_eq!(judged.blame(), None);
}

#[test]
fn pods_that_could_not_be_made() {
    for (message, cause, words) in [
        (
            "pods \"x\" is forbidden: exceeded quota: small, requested: cpu=2, used: cpu=3, limited: cpu=4",
            Cause::Quota,
            "the quota is used up: small, requested: cpu=2",
        ),
        (
            "admission webhook \"deny.example.com\" denied the request: token sk-123",
            Cause::Admission,
            "the admission webhook `deny.example.com` refuses its pods",
        ),
        (
            "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot",
            Cause::Admission,
            "Pod Security level",
        ),
        (
            "pods \"x\" is forbidden: error looking up service account agents/s: serviceaccount \"s\" not found",
            Cause::Admission,
            "ServiceAccount does not exist",
        ),
        (
            "pods \"x\" is forbidden: maximum cpu usage per Container is 1, but limit is 2",
            Cause::Admission,
            "LimitRange",
        ),
        ("anything", Cause::Admission, "the API server refuses its pods"),
    ] {
        let mut world = World::new(vec![]);
        world.new_set["status"]["conditions"] = json!([condition("ReplicaFailure", "True", "FailedCreate", message)]);
        let found = world.judge().findings;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].fault, found[0].cause), (Environment, cause));
        assert!(found[0].sentence.contains(words) && !found[0].sentence.contains("sk-123"), "{}", found[0].sentence);
        assert_eq!(found[0].object, "ReplicaSet/support-new");
    }
}

#[test]
fn a_copied_label_makes_no_pod_ours() {
    let mut world = World::new(vec![ready()]);
    let mut strange = world.pods[1].clone();
    strange["metadata"]["name"] = json!("strange");
    strange["metadata"]["ownerReferences"] = json!([{"uid": "r2"}, {"uid": "other", "controller": true}]);
    strange["metadata"]["annotations"] = json!({"backstay.dev/release-id": release().digest()});
    strange["status"] = waiting("CrashLoopBackOff", "");
    world.pods.push(strange);
    let judged = world.judge();
    assert_eq!((judged.findings.len(), judged.ready), (0, 1));
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "Running",
        "Failed",
        "True",
        "False",
        "CrashLoopBackOff",
        "ErrImagePull",
        "Ready",
        "2026-11-24T10:00:00Z",
        "couldn't find key ",
        "\u{1b}",
    ]);
    let keys = prop::sample::select(vec![
        "spec",
        "status",
        "metadata",
        "conditions",
        "type",
        "status",
        "reason",
        "message",
        "phase",
        "replicas",
        "containerStatuses",
        "state",
        "waiting",
        "terminated",
        "running",
        "startedAt",
        "observedGeneration",
        "generation",
        "containers",
        "name",
        "template",
        "env",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        Just(json!(i64::MIN)),
        words.prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    // R5
    /// What a cluster shows may be anything: nothing panics.
    #[test]
    fn every_reader_is_total(a in any_json(), b in any_json(), kind in prop::sample::select(vec!["Deployment", "Pod", "ReplicaSet", "Job"])) {
        let api = match kind { "Pod" => "v1", "Job" => "batch/v1", _ => "apps/v1" };
        let mut body = json!({"apiVersion": api, "kind": kind});
        for (key, value) in a.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata") {
            body[key] = value.clone();
        }
        body["metadata"] = json!({"name": "x", "namespace": "agents", "uid": "d1", "resourceVersion": "1", "ownerReferences": [{"uid": "d1", "controller": true}]});
        let object = LiveObject::of(body.clone()).expect("an object");
        let _ = health(&object);
        let _ = agent_health(&release(), &[&object], &[&object], &[&object], NOW.parse().expect("a time"));
        let _ = backstay::plan::drift(&body, &b);
        let _ = backstay::plan::dropped(&body, &b);
        let changes = backstay::plan::changes(&body, &b);
        let _ = backstay::plan::object_lines(backstay::plan::Mark::Change, &object.object, &changes);
        let manifest = crate::agent::manifest(body);
        let _ = backstay::plan::violations(&manifest, &backstay::plan::GatePolicy::of("agents"));
        let mut agent = crate::agent::Agent::small();
        if backstay::desired::canonical::to_bytes(&a).is_ok() {
            agent.merge(json!({"workload": {"podTemplate": a}}));
        }
        agent.settings.manifests.push(manifest);
        agent.settings.deployment = Some(b.clone());
        agent.settings.disruption_budget = Some(b.clone());
        agent.settings.autoscaling = Some(b);
        agent.options.surge = Some("100%".into());
        let _ = agent.try_render();
    }
}
