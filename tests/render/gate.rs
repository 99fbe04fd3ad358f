//! What the policy gate keeps out.

use backstay::model::GroupKind;
use backstay::plan::{GatePolicy, admit, violations};
use serde_json::{Value, json};

use crate::agent::{Agent, manifest};

const NAMESPACE: &str = "agents-production";

/// A policy as a daemon has it, with accounts and objects of its own in the namespace.
fn policy() -> GatePolicy {
    let mut policy = GatePolicy::of(NAMESPACE);
    policy.accounts.insert("backstay-production".into());
    policy.own_names.insert("backstay-lease".into());
    policy.own_names.insert("backstay-git".into());
    policy
}

fn object(api: &str, kind: &str, fields: Value) -> Value {
    let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE}});
    json_patch::merge(&mut body, &fields);
    body
}

/// A Deployment with this pod spec over a harmless one.
fn pod(patch: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
    json_patch::merge(&mut spec, &patch);
    object("apps/v1", "Deployment", json!({"spec": {"template": {"spec": spec}}}))
}

/// A Deployment whose container has these fields.
fn container(fields: Value) -> Value {
    let mut container = json!({"name": "a", "image": "i"});
    json_patch::merge(&mut container, &fields);
    pod(json!({"containers": [container]}))
}

fn security(context: Value) -> Value {
    container(json!({"securityContext": context}))
}

/// The forbidden objects, each with the field that is to blame.
fn forbidden() -> Vec<(Value, &'static str)> {
    vec![
        // What it is.
        (object("v1", "Namespace", json!({})), ""),
        (object("v1", "Node", json!({})), ""),
        (object("v1", "PersistentVolume", json!({})), ""),
        (object("rbac.authorization.k8s.io/v1", "ClusterRole", json!({})), ""),
        (object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", json!({})), ""),
        (object("rbac.authorization.k8s.io/v1", "Role", json!({})), ""),
        (object("rbac.authorization.k8s.io/v1", "RoleBinding", json!({})), ""),
        (object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", json!({})), ""),
        (object("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", json!({})), ""),
        (object("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", json!({})), ""),
        (object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({})), ""),
        (object("apiregistration.k8s.io/v1", "APIService", json!({})), ""),
        (object("scheduling.k8s.io/v1", "PriorityClass", json!({})), ""),
        (object("storage.k8s.io/v1", "StorageClass", json!({})), ""),
        (object("certificates.k8s.io/v1", "CertificateSigningRequest", json!({})), ""),
        (object("v1", "Secret", json!({})), ""),
        (object("v1", "Pod", json!({})), ""),
        (object("v1", "Endpoints", json!({})), ""),
        (object("discovery.k8s.io/v1", "EndpointSlice", json!({})), ""),
        (object("coordination.k8s.io/v1", "Lease", json!({})), ""),
        (object("v1", "Event", json!({})), ""),
        (object("v1", "ResourceQuota", json!({})), ""),
        (object("apps/v1", "DaemonSet", json!({})), ""),
        (object("backstay.dev/v1alpha1", "AgentRelease", json!({})), ""),
        (object("backstay.dev/v1alpha1", "AgentEnvironment", json!({})), ""),
        (object("x.backstay.dev/v1", "Thing", json!({})), ""),
        // Where, and by which name.
        (object("v1", "ConfigMap", json!({"metadata": {"namespace": "other"}})), "metadata.namespace"),
        (object("v1", "ConfigMap", json!({"metadata": {"namespace": "kube-system"}})), "metadata.namespace"),
        (object("v1", "ConfigMap", json!({"metadata": {"name": "backstay-lease"}})), "metadata.name"),
        (object("v1", "ServiceAccount", json!({"metadata": {"name": "backstay-production"}})), "metadata.name"),
        (
            object("v1", "ConfigMap", json!({"metadata": {"ownerReferences": [{"uid": "1"}]}})),
            "metadata.ownerReferences",
        ),
        (object("v1", "ConfigMap", json!({"metadata": {"finalizers": ["x"]}})), "metadata.finalizers"),
        (object("v1", "ConfigMap", json!({"metadata": {"generateName": "x-"}})), "metadata.generateName"),
        // Services.
        (object("v1", "Service", json!({"spec": {"type": "NodePort"}})), "spec.type"),
        (object("v1", "Service", json!({"spec": {"type": "LoadBalancer"}})), "spec.type"),
        (object("v1", "Service", json!({"spec": {"type": "ExternalName", "externalName": "x"}})), "spec.type"),
        (object("v1", "Service", json!({"spec": {"externalName": "x"}})), "spec.externalName"),
        (object("v1", "Service", json!({"spec": {"externalIPs": ["10.0.0.1"]}})), "spec.externalIPs"),
        (object("v1", "Service", json!({"spec": {"ports": [{"port": 1, "nodePort": 30000}]}})), "spec.ports"),
        // Pods.
        (pod(json!({"hostNetwork": true})), "spec.template.spec.hostNetwork"),
        (pod(json!({"hostPID": true})), "spec.template.spec.hostPID"),
        (pod(json!({"hostIPC": true})), "spec.template.spec.hostIPC"),
        (pod(json!({"hostNetwork": "yes"})), "spec.template.spec.hostNetwork"),
        (pod(json!({"serviceAccountName": "backstay-production"})), "spec.template.spec.serviceAccountName"),
        (pod(json!({"serviceAccount": "backstay-production"})), "spec.template.spec.serviceAccount"),
        (pod(json!({"nodeName": "node-1"})), "spec.template.spec.nodeName"),
        (pod(json!({"priorityClassName": "system-node-critical"})), "spec.template.spec.priorityClassName"),
        (pod(json!({"ephemeralContainers": [{"name": "e"}]})), "spec.template.spec.ephemeralContainers"),
        (pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})), "spec.template.spec.volumes[v].hostPath"),
        (
            pod(json!({"volumes": [{"name": "v", "gitRepo": {"repository": "x"}}]})),
            "spec.template.spec.volumes[v].gitRepo",
        ),
        (pod(json!({"volumes": [{"name": "v", "flexVolume": {}}]})), "spec.template.spec.volumes[v].flexVolume"),
        (pod(json!({"volumes": [{"name": "v", "nfs": {"server": "x"}}]})), "spec.template.spec.volumes[v].nfs"),
        (
            pod(json!({"volumes": [{"name": "v", "secret": {"secretName": "backstay-git"}}]})),
            "spec.template.spec.volumes[v].secret.secretName",
        ),
        (
            pod(json!({"volumes": [{"name": "v", "configMap": {"name": "backstay-git"}}]})),
            "spec.template.spec.volumes[v].configMap.name",
        ),
        (
            pod(json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "backstay-git"}}]}}]})),
            "spec.template.spec.volumes[v].projected.sources.secret.name",
        ),
        (pod(json!({"imagePullSecrets": [{"name": "backstay-git"}]})), "spec.template.spec.imagePullSecrets[0].name"),
        (
            pod(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
            "spec.template.spec.securityContext.sysctls[kernel.msgmax]",
        ),
        (
            pod(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "spec.template.spec.securityContext.seccompProfile.type",
        ),
        (
            pod(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
            "spec.template.spec.securityContext.windowsOptions.hostProcess",
        ),
        (
            pod(json!({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}})),
            "spec.template.spec.securityContext.seLinuxOptions",
        ),
        (
            pod(json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}]})),
            "spec.template.spec.initContainers[i].securityContext.privileged",
        ),
        // Containers.
        (security(json!({"privileged": true})), "spec.template.spec.containers[a].securityContext.privileged"),
        (
            security(json!({"allowPrivilegeEscalation": true})),
            "spec.template.spec.containers[a].securityContext.allowPrivilegeEscalation",
        ),
        (
            security(json!({"capabilities": {"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}})),
            "spec.template.spec.containers[a].securityContext.capabilities.add",
        ),
        (
            security(json!({"capabilities": {"add": ["CAP_NET_RAW"]}})),
            "spec.template.spec.containers[a].securityContext.capabilities.add",
        ),
        (security(json!({"procMount": "Unmasked"})), "spec.template.spec.containers[a].securityContext.procMount"),
        (
            security(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "spec.template.spec.containers[a].securityContext.appArmorProfile.type",
        ),
        (
            security(json!({"seLinuxOptions": {"user": "system_u"}})),
            "spec.template.spec.containers[a].securityContext.seLinuxOptions",
        ),
        (container(json!({"ports": [{"containerPort": 1, "hostPort": 1}]})), "spec.template.spec.containers[a].ports"),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "169.254.169.254"}}})),
            "spec.template.spec.containers[a].livenessProbe.httpGet.host",
        ),
        (
            container(json!({"lifecycle": {"preStop": {"tcpSocket": {"host": "x"}}}})),
            "spec.template.spec.containers[a].lifecycle.preStop.tcpSocket.host",
        ),
        (
            container(
                json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "backstay-git", "key": "k"}}}]}),
            ),
            "spec.template.spec.containers[a].env[X].valueFrom.secretKeyRef.name",
        ),
        (
            container(json!({"envFrom": [{"secretRef": {"name": "backstay-git"}}]})),
            "spec.template.spec.containers[a].envFrom.secretRef.name",
        ),
        (
            object(
                "apps/v1",
                "Deployment",
                json!({"spec": {"template": {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}}}}}),
            ),
            "spec.template.metadata.annotations",
        ),
        // Pods elsewhere.
        (
            object(
                "batch/v1",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostPID": true}}}}}}),
            ),
            "spec.jobTemplate.spec.template.spec.hostPID",
        ),
        (
            object("batch/v1", "Job", json!({"spec": {"template": {"spec": {"hostPID": true}}}})),
            "spec.template.spec.hostPID",
        ),
        (
            object("apps/v1", "StatefulSet", json!({"spec": {"template": {"spec": {"hostPID": true}}}})),
            "spec.template.spec.hostPID",
        ),
    ]
}

#[test]
fn forbidden_objects_are_named_with_field_file_and_way_out() {
    let all = forbidden();
    assert!(all.len() >= 40);
    for (body, field) in all {
        let manifest = manifest(body);
        let refused = admit(&manifest, &policy()).expect_err(&format!("{} {field} passes", manifest.object));
        assert_eq!(refused.field, field, "{refused}");
        assert_eq!(refused.object, manifest.object);
        assert!(
            refused.to_string().starts_with(&format!(
                "refused to write {} (agents/support/manifests/extra.yaml:3): ",
                manifest.object
            ))
        );
        assert!(field.is_empty() || refused.why.contains(field), "{refused}");
        assert!(!refused.hint.is_empty(), "{refused}");
    }
}

#[test]
fn what_is_rendered_passes() {
    let mut agent = Agent::full();
    agent.settings.autoscaling = Some(json!({"maxReplicas": 9}));
    for manifest in agent.render().manifests {
        assert_eq!(violations(&manifest, &policy()), [], "{}", manifest.object);
    }
}

#[test]
fn ordinary_objects_pass() {
    for body in [
        object("v1", "Service", json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "externalIPs": []}})),
        object("v1", "PersistentVolumeClaim", json!({})),
        object("networking.k8s.io/v1", "NetworkPolicy", json!({})),
        object("gateway.networking.k8s.io/v1", "HTTPRoute", json!({})),
        pod(
            json!({"hostNetwork": false, "hostPID": null, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
            "seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"level": "s0"}}, "priorityClassName": "high"}),
        ),
        security(
            json!({"privileged": false, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "procMount": "Default"}),
        ),
        container(
            json!({"livenessProbe": {"httpGet": {"path": "/", "port": 1}}, "ports": [{"containerPort": 1, "hostPort": 0}]}),
        ),
        pod(
            json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}]}),
        ),
    ] {
        assert_eq!(violations(&manifest(body.clone()), &policy()), [], "{body}");
    }
}

#[test]
fn the_daemons_configuration_can_allow_more() {
    let mut open = policy();
    for (group, kind) in [("", "Secret"), ("", "Pod"), ("argoproj.io", "Rollout"), ("apps", "DaemonSet")] {
        open.kinds.insert(GroupKind { group: group.into(), kind: kind.into() });
    }
    open.host_namespaces = true;
    open.host_paths = true;
    open.service_types.extend(["LoadBalancer".into(), "NodePort".into(), "ExternalName".into()]);
    open.capabilities.insert("NET_RAW".into());
    let passes = |body: Value, policy: &GatePolicy| violations(&manifest(body), policy).is_empty();
    assert!(passes(object("v1", "Secret", json!({})), &open));
    assert!(passes(object("v1", "Pod", json!({"spec": {"hostPID": true}})), &open));
    assert!(passes(container(json!({"ports": [{"containerPort": 1, "hostPort": 1}]})), &open));
    assert!(passes(pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})), &open));
    assert!(passes(
        object("v1", "Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 3}]}})),
        &open
    ));
    assert!(passes(object("v1", "Service", json!({"spec": {"type": "ExternalName", "externalName": "x"}})), &open));
    assert!(passes(security(json!({"capabilities": {"add": ["CAP_NET_RAW"]}})), &open));
    assert!(!passes(security(json!({"privileged": true})), &open));
    open.privileged = true;
    assert!(passes(security(json!({"privileged": true, "seccompProfile": {"type": "Unconfined"}})), &open));
    assert!(passes(
        pod(
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}, "sysctls": [{"name": "kernel.msgmax"}]}})
        ),
        &open
    ));

    // Not even then.
    for (body, field) in [
        (object("v1", "Secret", json!({"type": "kubernetes.io/service-account-token"})), "type"),
        (
            object("v1", "Pod", json!({"spec": {"serviceAccountName": "backstay-production"}})),
            "spec.serviceAccountName",
        ),
        (
            object(
                "argoproj.io/v1alpha1",
                "Rollout",
                json!({"spec": {"template": {"spec": {"containers": [], "nodeName": "n"}}}}),
            ),
            "spec.template.spec.nodeName",
        ),
        (
            object(
                "argoproj.io/v1alpha1",
                "Rollout",
                json!({"spec": {"many": [{"initContainers": [], "nodeName": "n"}]}}),
            ),
            "spec.many[0].nodeName",
        ),
    ] {
        assert_eq!(violations(&manifest(body.clone()), &open).first().map(|f| f.field.as_str()), Some(field), "{body}");
    }
    open.kinds.insert(GroupKind { group: "backstay.dev".into(), kind: "AgentRelease".into() });
    open.kinds.insert(GroupKind { group: String::new(), kind: "Namespace".into() });
    assert!(!passes(object("backstay.dev/v1alpha1", "AgentRelease", json!({})), &open));
    assert!(!passes(object("v1", "Namespace", json!({})), &open));
}

#[test]
fn a_namespace_of_the_cluster_is_never_a_target() {
    let body = object("v1", "ConfigMap", json!({"metadata": {"namespace": "kube-system"}}));
    let refused = admit(&manifest(body), &GatePolicy::of("kube-system")).expect_err("refused");
    assert_eq!(refused.field, "metadata.namespace");
}

#[test]
fn a_pod_without_an_account_runs_as_the_default_one() {
    let mut strict = policy();
    strict.accounts.insert("default".into());
    assert_eq!(
        admit(&manifest(pod(json!({}))), &strict).expect_err("refused").field,
        "spec.template.spec.serviceAccountName"
    );
    assert!(admit(&manifest(pod(json!({"serviceAccountName": "own"}))), &strict).is_ok());
}

#[test]
fn a_body_is_what_it_is_named_as() {
    let mut disguised = manifest(object("v1", "ConfigMap", json!({})));
    disguised.body = std::sync::Arc::new(object("v1", "Pod", json!({"spec": {"hostPID": true}})));
    assert!(admit(&disguised, &policy()).is_err());
    disguised.body = std::sync::Arc::new(json!({}));
    assert!(admit(&disguised, &policy()).is_err());
}

#[test]
fn everything_that_is_wrong_is_found() {
    let body = pod(
        json!({"hostPID": true, "hostIPC": true, "containers": [{"name": "a", "securityContext": {"privileged": true}}]}),
    );
    assert_eq!(violations(&manifest(body), &policy()).len(), 3);
}
