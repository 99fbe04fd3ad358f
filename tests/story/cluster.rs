//! An API server of plain values: objects with UIDs and versions, what its writes require, and its controllers.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::model::{Digest, LiveObject, ObjectRef, ResourceVersion, Uid};
use backstay::reconcile::{How, Write};
use serde_json::{Value, json};

/// The namespace of all stories.
pub(crate) const NAMESPACE: &str = "agents";
/// The sickness of pods that run for long, and whose probe fails.
pub(crate) const UNREADY: &str = "Unready";

/// What stands in one namespace.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) objects: BTreeMap<ObjectRef, Arc<LiveObject>>,
    /// The newest resourceVersion.
    pub(crate) clock: u64,
    /// Releases whose pods never get ready, with the reason a container waits for.
    pub(crate) sick: BTreeMap<String, &'static str>,
    /// What is ready behind each Service, as its slices say it; nothing: nobody watches them.
    pub(crate) endpoints: Option<Endpoints>,
    /// No gateway says anything of a route any more.
    pub(crate) silent_gateway: bool,
    /// Admission sets fields that nobody asked for, and changes some that we ask for.
    pub(crate) mutating: bool,
    /// The controllers have seen all up to here.
    seen: (u64, BTreeMap<String, &'static str>),
}

/// How the slices of Services are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// They say what is.
    Follow,
    /// They are those that stand; of a new Service there is none.
    Late,
}

/// Why the server does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum No {
    Conflict,
    Exists,
    Gone,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            clock: 100,
            sick: BTreeMap::new(),
            endpoints: None,
            silent_gateway: false,
            mutating: false,
            seen: (0, BTreeMap::new()),
        }
    }

    pub(crate) fn body(&self, object: &ObjectRef) -> &Value {
        &self.objects[object].body
    }

    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<ObjectRef> {
        self.objects.keys().find(|object| object.kind == kind && object.name == name).cloned()
    }

    /// Changes one object, as anybody may.
    pub(crate) fn edit(&mut self, object: &ObjectRef, edit: impl FnOnce(&mut Value)) {
        let mut body = (*self.objects[object].body).clone();
        edit(&mut body);
        self.put(object, body);
    }

    /// Gives an object a new version and nothing else.
    pub(crate) fn touch(&mut self, object: &ObjectRef) {
        self.clock += 1;
        let version = self.clock.to_string();
        self.edit_quietly(object, |body| body["metadata"]["resourceVersion"] = json!(version));
    }

    fn edit_quietly(&mut self, object: &ObjectRef, edit: impl FnOnce(&mut Value)) {
        let mut body = (*self.objects[object].body).clone();
        edit(&mut body);
        let live = LiveObject::of(body).expect("a live object");
        self.objects.insert(object.clone(), Arc::new(live));
    }

    /// Stores a body; its version moves only when it is another one, its generation only with its spec.
    pub(crate) fn put(&mut self, object: &ObjectRef, mut body: Value) {
        let old = self.objects.get(object);
        if old.is_some_and(|old| *old.body == body) {
            return;
        }
        self.clock += 1;
        if body.pointer("/metadata/uid").is_none() {
            body["metadata"]["uid"] = json!(format!("uid-{}", self.clock));
        }
        if old.is_none_or(|old| old.body.get("spec") != body.get("spec")) {
            body["metadata"]["generation"] = json!(self.clock);
        }
        body["metadata"]["namespace"] = json!(NAMESPACE);
        body["metadata"]["resourceVersion"] = json!(self.clock.to_string());
        let live = LiveObject::of(body).expect("a live object");
        self.objects.insert(object.clone(), Arc::new(live));
    }

    /// As Kubernetes does by and by with sets that are empty.
    pub(crate) fn forget(&mut self) {
        let empty = |live: &LiveObject| live.object.kind == "ReplicaSet" && live.body["spec"]["replicas"] == 0;
        let gone: Vec<_> = self.objects.values().filter(|live| empty(live)).map(|live| live.object.clone()).collect();
        gone.iter().for_each(|object| self.remove(object));
    }

    // === what callers do ===

    /// Carries out a write if its precondition holds.
    pub(crate) fn write(&mut self, agent: &str, write: &Write) -> Result<Arc<LiveObject>, No> {
        let object = &write.manifest.object;
        let mut body = (*write.manifest.body).clone();
        let (uid, version) = match &write.how {
            How::Create { operation } => {
                if self.objects.contains_key(object) {
                    return Err(No::Exists);
                }
                body["metadata"]["annotations"]["backstay.dev/operation"] = json!(format!("{agent}/{operation}"));
                if self.mutating {
                    admission(&mut body);
                }
                self.put(object, body);
                return Ok(Arc::clone(&self.objects[object]));
            }
            How::Apply { uid, version, .. } | How::Adopt { uid, version } | How::Handover { uid, version } => {
                (uid, version)
            }
        };
        let old = self.objects.get(object).ok_or(No::Gone)?;
        if old.uid != *uid || old.version != *version {
            return Err(No::Conflict);
        }
        let mut next = (*old.body).clone();
        if matches!(write.how, How::Apply { drops_fields: true, .. } | How::Adopt { .. }) {
            // What was ours and is no longer rendered goes; replicas have a holder of their own by then.
            let replicas = next.pointer("/spec/replicas").cloned();
            for part in ["spec", "data"] {
                next.as_object_mut().expect("an object").remove(part);
            }
            if let (Some(replicas), "Deployment") = (replicas, object.kind.as_str()) {
                next["spec"]["replicas"] = replicas;
            }
        }
        if !matches!(write.how, How::Handover { .. }) {
            merge(&mut next, &body);
        }
        if self.mutating {
            admission(&mut next);
        }
        self.put(object, next);
        Ok(Arc::clone(&self.objects[object]))
    }

    /// Deletes exactly one object, as it was read.
    pub(crate) fn delete(&mut self, object: &ObjectRef, uid: &Uid, version: &ResourceVersion) -> Result<(), No> {
        let old = self.objects.get(object).ok_or(No::Gone)?;
        // As a real server: what is not given is not compared.
        let another = !uid.0.is_empty() && old.uid != *uid || !version.0.is_empty() && old.version != *version;
        if another {
            return Err(No::Conflict);
        }
        self.remove(object);
        Ok(())
    }

    /// What somebody else deletes.
    pub(crate) fn remove(&mut self, object: &ObjectRef) {
        self.clock += 1;
        self.objects.remove(object);
    }

    // === what its controllers do ===

    /// One ReplicaSet a template, pods, the Deployment's status, and the garbage collector.
    pub(crate) fn controllers(&mut self) {
        if self.seen == (self.clock, self.sick.clone()) {
            return;
        }
        loop {
            let uids: Vec<_> = self.objects.values().map(|live| live.uid.0.clone()).collect();
            let orphan = |live: &LiveObject| {
                let owner = live.body.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str);
                owner.is_some_and(|owner| !uids.iter().any(|uid| uid == owner))
            };
            let gone: Vec<_> =
                self.objects.values().filter(|live| orphan(live)).map(|live| live.object.clone()).collect();
            if gone.is_empty() {
                break;
            }
            gone.iter().for_each(|object| self.remove(object));
        }
        let deployments: Vec<_> = self.objects.keys().filter(|object| object.kind == "Deployment").cloned().collect();
        for object in deployments {
            self.roll(&object);
        }
        let routes: Vec<_> = self.objects.keys().filter(|object| object.kind == "HTTPRoute").cloned().collect();
        for object in routes {
            self.accept(&object);
        }
        if self.endpoints == Some(Endpoints::Follow) {
            let services = self.objects.keys().filter(|object| object.kind == "Service").cloned();
            services.collect::<Vec<_>>().iter().for_each(|service| self.slice(service));
        }
        self.seen = (self.clock, self.sick.clone());
    }

    /// The ready pods that a selector finds.
    pub(crate) fn behind(&self, selector: &Value) -> Vec<&LiveObject> {
        let labels: Vec<_> = selector.as_object().into_iter().flatten().collect();
        let found = |live: &&LiveObject| {
            live.object.kind == "Pod" && labels.iter().all(|(key, value)| live.label(key) == value.as_str())
        };
        let pods = self.objects.values().map(AsRef::as_ref).filter(found);
        pods.filter(|pod| pod.body["status"]["conditions"][0]["status"] == "True").collect()
    }

    /// Keeps the slice of a Service.
    fn slice(&mut self, service: &ObjectRef) {
        let body = Arc::clone(&self.objects[service].body);
        let ready = self.behind(&body["spec"]["selector"]).len();
        let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}});
        let slice = ObjectRef {
            group: "discovery.k8s.io".to_owned(),
            kind: "EndpointSlice".to_owned(),
            name: format!("{}-1", service.name),
            ..service.clone()
        };
        let mut labels = body["metadata"]["labels"].clone();
        labels["kubernetes.io/service-name"] = json!(service.name);
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": service.name, "uid": body["metadata"]["uid"], "controller": true}]);
        let metadata = json!({"name": slice.name, "labels": labels, "ownerReferences": owner});
        let next = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": vec![endpoint; ready]});
        if self.objects.contains_key(&slice) {
            self.edit(&slice, |body| body["endpoints"] = next["endpoints"].clone());
        } else {
            self.put(&slice, next);
        }
    }

    /// The gateway says of a route that it is in force.
    fn accept(&mut self, object: &ObjectRef) {
        if self.silent_gateway {
            return;
        }
        let generation = self.body(object)["metadata"]["generation"].clone();
        let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": generation});
        let status = json!({"parents": [{"conditions": [condition("Accepted"), condition("ResolvedRefs")]}]});
        self.edit(object, |body| body["status"] = status);
    }

    fn owned_by(&self, kind: &str, owner: &Value) -> Vec<ObjectRef> {
        let owned = self.objects.values().filter(|live| {
            live.object.kind == kind && live.body.pointer("/metadata/ownerReferences/0/uid") == Some(owner)
        });
        owned.map(|live| live.object.clone()).collect()
    }

    fn roll(&mut self, object: &ObjectRef) {
        let body = Arc::clone(&self.objects[object].body);
        let uid = &body["metadata"]["uid"];
        let template = &body["spec"]["template"];
        let hash = &Digest::of(template.to_string().as_bytes()).to_string()[..8];
        let release = template.pointer("/metadata/labels/backstay.dev~1release").and_then(Value::as_str);
        let sick = release.and_then(|release| self.sick.get(release)).copied();
        let replicas = body.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let set =
            ObjectRef { kind: "ReplicaSet".to_owned(), name: format!("{}-{hash}", object.name), ..object.clone() };
        let owner = |kind: &str, name: &str, uid: &Value| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
        // Old pods go when new ones are ready; sick new ones stay beside the old.
        if sick.is_none() {
            for other in self.owned_by("ReplicaSet", uid).into_iter().filter(|other| *other != set) {
                let set_uid = self.body(&other)["metadata"]["uid"].clone();
                self.owned_by("Pod", &set_uid).iter().for_each(|pod| self.remove(pod));
                self.edit(&other, |old| {
                    old["spec"]["replicas"] = json!(0);
                    old["status"]["replicas"] = json!(0);
                });
            }
        }
        let mut next = match self.objects.get(&set) {
            Some(old) => (*old.body).clone(),
            None => {
                let meta = json!({"name": set.name, "labels": template["metadata"]["labels"],
                    "ownerReferences": owner("Deployment", &object.name, uid)});
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": {"template": template}})
            }
        };
        next["spec"]["replicas"] = json!(replicas);
        next["status"]["replicas"] = json!(replicas);
        self.put(&set, next);
        let set_uid = self.body(&set)["metadata"]["uid"].clone();
        let surplus = self.owned_by("Pod", &set_uid).into_iter().skip(usize::try_from(replicas).unwrap_or(0));
        surplus.collect::<Vec<_>>().iter().for_each(|pod| self.remove(pod));
        for n in 0..replicas {
            let name = format!("{}-{n}", set.name);
            let pod = ObjectRef { group: String::new(), kind: "Pod".to_owned(), namespace: NAMESPACE.to_owned(), name };
            let status = match sick {
                None => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
                Some(UNREADY) => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                    "containerStatuses": [{"name": "agent", "ready": false, "restartCount": 0,
                        "state": {"running": {"startedAt": "2020-01-01T00:00:00Z"}}}]}),
                Some(reason) => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                    "containerStatuses": [{"name": "agent", "ready": false, "restartCount": 4,
                        "state": {"waiting": {"reason": reason, "message": "back-off 10s"}},
                        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            };
            match self.objects.get(&pod) {
                Some(old) if old.body["status"] == status => {}
                Some(_) => self.edit(&pod, |body| body["status"] = status),
                None => {
                    let meta = json!({"name": pod.name, "labels": template["metadata"]["labels"],
                        "annotations": template["metadata"]["annotations"],
                        "ownerReferences": owner("ReplicaSet", &set.name, &set_uid)});
                    self.put(
                        &pod,
                        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta,
                        "spec": template["spec"], "status": status}),
                    );
                }
            }
        }
        let ready = if sick.is_some() { 0 } else { replicas };
        let status = json!({"observedGeneration": body["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "readyReplicas": ready, "availableReplicas": ready,
            "unavailableReplicas": replicas - ready,
            "conditions": [{"type": "Available", "status": if sick.is_some() {"False"} else {"True"}},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]});
        self.edit(object, |body| body["status"] = status);
    }
}

/// What defaulting and a mutating webhook make of an object: fields that nobody asked for, and others than were asked for.
fn admission(body: &mut Value) {
    body["metadata"]["annotations"]["policy.example.com/seen"] = json!("yes");
    match body["kind"].as_str() {
        Some("Deployment") => {
            body["spec"]["revisionHistoryLimit"] = json!(10);
            let spec = &mut body["spec"]["template"]["spec"];
            spec["terminationGracePeriodSeconds"] = json!(30);
            for container in spec["containers"].as_array_mut().into_iter().flatten() {
                container["terminationMessagePath"] = json!("/dev/termination-log");
                let image = container["image"].as_str().unwrap_or_default();
                container["image"] = json!(image.replace("registry.example.com/", "mirror.example.com/"));
            }
        }
        Some("Service") => {
            body["spec"]["ipFamilyPolicy"] = json!("SingleStack");
            for port in body["spec"]["ports"].as_array_mut().into_iter().flatten() {
                port["appProtocol"] = json!("http");
            }
        }
        Some("ConfigMap") => body["metadata"]["labels"]["cost-centre"] = json!("7"),
        _ => {}
    }
}

/// What is applied lies over what stands; lists are replaced, and so are the selectors of Services (both are atomic).
fn merge(onto: &mut Value, from: &Value) {
    match (onto, from) {
        (Value::Object(onto), Value::Object(from)) => {
            for (key, value) in from {
                if key == "selector" && value.get("matchLabels").is_none() {
                    onto.remove(key);
                }
                merge(onto.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (onto, from) => *onto = from.clone(),
    }
}
