//! A whole agent, as plain values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstay::desired::{HostSettings, Release, ReleaseSpec, Rolling, Settings, TargetKind};
use backstay::model::{AgentName, Digest, EnvironmentName, Manifest, ObjectRef, Origin};
use backstay::render::{Identity, RenderError, RenderOptions, Rendered, RendererVersion, Set, render};
use serde_json::{Value, json};

/// Everything that one rendering needs.
pub(crate) struct Agent {
    pub(crate) name: AgentName,
    pub(crate) environment: EnvironmentName,
    pub(crate) spec: Value,
    pub(crate) prompts: BTreeMap<String, Arc<[u8]>>,
    pub(crate) settings: Settings,
    pub(crate) set: Set,
    pub(crate) target: TargetKind,
    pub(crate) options: RenderOptions,
}

impl Agent {
    /// One that has a port and nothing else.
    pub(crate) fn small() -> Self {
        Self {
            name: "support".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            spec: json!({"format": 1, "code": {"image": "registry.example.com/support@sha256:0000"}, "workload": {"port": 8000}}),
            prompts: BTreeMap::new(),
            settings: Settings {
                digest: Digest::of(b"settings"),
                replicas: None,
                worker_replicas: BTreeMap::new(),
                history: 10,
                progress_deadline: Duration::from_mins(10),
                rolling: Rolling::default(),
                disruption_budget: None,
                depends_on: vec![],
                autoscaling: None,
                deployment: None,
                manifests: vec![],
                flags: None,
                route: None,
                host: HostSettings::default(),
                rollout: None,
            },
            set: Set::Rolling,
            target: TargetKind::Kubernetes,
            options: RenderOptions::default(),
        }
    }

    /// One that uses everything.
    pub(crate) fn full() -> Self {
        let mut agent = Self::small();
        agent.prompt("system", "Be kind.\n");
        agent.prompt("triage", "Sort {{customer}}.\n");
        agent.merge(json!({
            "code": {"command": ["bin/support-agent", "--serve"]},
            "models": {"primary": {"provider": "openai", "model": "gpt-4o-2024-11-20"}},
            "tools": {"search_orders": {"name": "search_orders", "inputSchema": {"type": "object"}}},
            "memory": {"database": {"secret": "agent-secrets", "key": "database-url"}},
            "config": {"rate_limits": {"requests_per_minute": 100}},
            "workload": {
                "env": {
                    "LOG_LEVEL": "WARNING",
                    "A_URL": "http://$(Z_HOST)/",
                    "Z_HOST": "orders",
                    "OPENAI_API_KEY": {"secret": "agent-secrets", "key": "openai-api-key"},
                    "POD_NAME": {"field": "metadata.name"},
                    "OTEL_RESOURCE_ATTRIBUTES": "team=care,service.version=mine",
                },
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
                "health": {
                    "live": "/health/live",
                    "ready": {"httpGet": {"path": "/health/ready", "port": 8000}, "periodSeconds": 1, "failureThreshold": 5},
                },
                "serviceAccount": "support",
                "podTemplate": {
                    "metadata": {"annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"}},
                    "spec": {
                        "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "fsGroup": 10001},
                        "imagePullSecrets": [{"name": "registry"}],
                        "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1,
                            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"backstay.dev/agent": "support"}}}],
                        "containers": [
                            {"name": "agent", "imagePullPolicy": "IfNotPresent", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
                            {"name": "sidecar", "image": "registry.example.com/sidecar@sha256:1111"},
                        ],
                        "volumes": [{"name": "tmp", "emptyDir": {}}],
                    },
                },
            },
            "workers": {"indexer": {
                "command": ["bin/indexer"],
                "env": {"LOG_LEVEL": "DEBUG"},
                "resources": {"requests": {"cpu": "100m"}},
            }},
        }));
        agent.settings.replicas = Some(3);
        agent.settings.worker_replicas.insert("indexer".parse().expect("a name"), 2);
        agent.settings.disruption_budget = Some(json!({"minAvailable": 2}));
        agent.manifest(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "support-extra", "creationTimestamp": null},
            "data": {"a": "b"}}));
        agent.manifest(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "seed"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "seed", "image": "x@sha256:2"}]}}}}));
        agent
    }

    /// A prompt with this content.
    pub(crate) fn prompt(&mut self, name: &str, content: &str) {
        self.prompts.insert(name.to_owned(), content.as_bytes().into());
        self.merge(json!({"prompts": {name: Digest::of(content.as_bytes())}}));
    }

    /// Merges into the release's declaration.
    pub(crate) fn merge(&mut self, patch: Value) {
        json_patch::merge(&mut self.spec, &patch);
    }

    /// Adds an object of `manifests/`.
    pub(crate) fn manifest(&mut self, body: Value) {
        self.settings.manifests.push(manifest(body));
    }

    pub(crate) fn release(&self) -> Release {
        let spec: ReleaseSpec = serde_json::from_value(self.spec.clone()).expect("a release");
        Release::new(spec, self.prompts.clone()).expect("a release")
    }

    pub(crate) fn try_render(&self) -> Result<Rendered, RenderError> {
        let identity = Identity {
            agent: &self.name,
            environment: &self.environment,
            namespace: "agents-production",
            installation: "3b1f",
            target: self.target,
        };
        render(&identity, &self.release(), &self.settings, RendererVersion::CURRENT, self.set, &self.options)
    }

    pub(crate) fn render(&self) -> Rendered {
        self.try_render().expect("rendered")
    }

    /// The body of the main Deployment.
    pub(crate) fn deployment(&self) -> Value {
        (*self.render().main().expect("a Deployment").body).clone()
    }

    /// The pod template of the main process.
    pub(crate) fn template(&self) -> Value {
        self.deployment()["spec"]["template"].clone()
    }

    /// The container of the main process.
    pub(crate) fn container(&self) -> Value {
        self.template()["spec"]["containers"][0].clone()
    }
}

/// An object as a file of `manifests/` declares it.
pub(crate) fn manifest(body: Value) -> Manifest {
    let object = ObjectRef::of(&body, "").expect("an identity");
    let origin = Origin { file: "agents/support/manifests/extra.yaml".into(), line: 3, column: 0 };
    Manifest { object, body: Arc::new(body), origin }
}
