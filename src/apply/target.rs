//! One namespace of a cluster: each action carried out with exactly its precondition.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::Fence;
use super::fields::{Take, taken_over};
use crate::model::{AgentName, LiveObject, Manifest, ObjectRef, ResourceVersion, Uid};
use crate::observe::{Api, Call, Kinds, Refusal, Resource};
use crate::reconcile::{Done, Failure, FailureKind, How, Write};
use crate::render::{FIELD_MANAGER, OPERATION_ANNOTATION, TRAFFIC_MANAGER, route_ref};

/// The field manager that keeps a field alive while its owner changes.
pub const HANDOVER: &str = "backstay-handover";

/// Writes to one namespace of one cluster.
///
/// # Guarantees
///
/// Each effect is one request (a handing over of fields before it apart) under the precondition that the action names:
/// what does not stand there as it was read is left as it is. Nothing is retried here.
pub struct Target {
    api: Api,
    kinds: Arc<Kinds>,
    namespace: String,
    fence: Arc<dyn Fence>,
    whole_cluster: bool,
}

/// Whether something is done, or only asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Do,
    DryRun,
}

/// Under which name something is written, and on exactly what.
#[derive(Clone, Copy)]
struct Onto<'a> {
    manager: &'a str,
    uid: &'a Uid,
    version: &'a ResourceVersion,
    mode: Mode,
}

// === impl Target ===

impl Target {
    /// Writes to `namespace` through `api`, which is the environment's `ServiceAccount`, as long as `fence` holds.
    pub fn new(api: Api, kinds: Arc<Kinds>, namespace: impl Into<String>, fence: Arc<dyn Fence>) -> Self {
        Self { api, kinds, namespace: namespace.into(), fence, whole_cluster: false }
    }

    /// Also writes kinds that live in no namespace: only where the daemon's configuration says so.
    #[must_use]
    pub fn with_whole_cluster(mut self) -> Self {
        self.whole_cluster = true;
        self
    }

    /// Writes one object for `agent`: [`Done::Written`], or why not.
    ///
    /// # Errors
    ///
    /// A write under `drops_fields` or an adoption is two requests; when the second fails, the first has changed
    /// `managedFields` only, and the object's version.
    pub async fn write(&self, agent: &AgentName, write: &Write) -> Result<Done, Failure> {
        let live = self.put(agent, write, Mode::Do).await?;
        Ok(Done::Written(Arc::new(live)))
    }

    /// Asks what a write would give: [`Done::WouldBe`]; nothing is written.
    ///
    /// Fields that `drops_fields` would drop are still there in the answer; what would be made has the empty version.
    pub async fn dry_run(&self, agent: &AgentName, write: &Write) -> Result<Done, Failure> {
        let live = self.put(agent, write, Mode::DryRun).await?;
        Ok(Done::WouldBe(Arc::new(live)))
    }

    /// Deletes exactly this object as it was read, its dependants in the background: [`Done::Deleted`], also when it is
    /// gone already.
    pub async fn delete(&self, object: &ObjectRef, uid: &Uid, version: &ResourceVersion) -> Result<Done, Failure> {
        let deed = format!("delete {object}");
        let gone = || Ok(Done::Deleted(object.clone()));
        let resource = self.resource(object, None).await.map_err(|refusal| refusal.failure(&deed))?;
        let options = json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
            "preconditions": {"uid": uid, "resourceVersion": version},
        });
        let path = resource.object(&object.namespace, &object.name).map_err(|refusal| refusal.failure(&deed))?;
        match self.effect(&resource, Call::new(Method::DELETE, path).json(options)).await {
            Ok(_) => gone(),
            Err(refusal) if refusal.kind() == FailureKind::Gone => gone(),
            Err(refusal) => Err(refusal.failure(&deed)),
        }
    }

    /// Reads one object past every cache, with `managedFields`: [`Done::Seen`].
    pub async fn read(&self, object: &ObjectRef) -> Result<Done, Failure> {
        let deed = format!("read {object}");
        let resource = self.resource(object, None).await.map_err(|refusal| refusal.failure(&deed))?;
        let seen = self.get(&resource, object).await.map_err(|refusal| refusal.failure(&deed))?;
        Ok(Done::Seen(object.clone(), seen.map(Arc::new)))
    }

    async fn put(&self, agent: &AgentName, write: &Write, mode: Mode) -> Result<LiveObject, Failure> {
        let object = &write.manifest.object;
        let deed = match (&write.how, mode) {
            (How::Create { .. }, Mode::Do) => format!("create {object}"),
            (How::Create { .. }, Mode::DryRun) => format!("dry-run the creation of {object}"),
            (How::Apply { .. } | How::Handover { .. }, Mode::Do) => format!("apply {object}"),
            (How::Adopt { .. }, Mode::Do) => format!("adopt {object}"),
            (How::Apply { .. } | How::Adopt { .. } | How::Handover { .. }, Mode::DryRun) => {
                format!("dry-run the apply of {object}")
            }
        };
        self.answer(agent, write, mode).await.map_err(|refusal| {
            let mut failure = refusal.failure(&deed);
            // Nothing was there to be gone: the creation met something else that is not served.
            if failure.kind == FailureKind::Gone && matches!(write.how, How::Create { .. }) {
                failure.kind = FailureKind::Refused;
            }
            failure
        })
    }

    async fn answer(&self, agent: &AgentName, write: &Write, mode: Mode) -> Result<LiveObject, Refusal> {
        let Manifest { object, body, .. } = &write.manifest;
        let api_version = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let resource = self.resource(object, Some(api_version)).await?;
        let manager = manager_of(agent, object);
        match &write.how {
            How::Create { operation } => {
                let body = annotated(body, &format!("{agent}/{operation}"));
                let call = Call::new(Method::POST, resource.collection(&object.namespace)?)
                    .query("fieldManager", manager)
                    .query("fieldValidation", "Strict")
                    .json(body);
                self.live(&resource, call, mode).await
            }
            How::Apply { uid, version, drops_fields: false } => {
                let onto = Onto { manager, uid, version, mode };
                match self.patch(&resource, &write.manifest, &onto).await {
                    // Somebody chose another member of a union of ours: theirs only goes when it is ours to drop.
                    Err(refusal) if refusal.is_two_of_one() && mode == Mode::Do => {
                        self.take_and_patch(&resource, &write.manifest, Take::Unions, &onto).await
                    }
                    answer => answer,
                }
            }
            How::Apply { uid, version, drops_fields: true } => {
                let onto = Onto { manager, uid, version, mode };
                self.take_and_patch(&resource, &write.manifest, Take::Own, &onto).await
            }
            How::Adopt { uid, version } => {
                let onto = Onto { manager, uid, version, mode };
                self.take_and_patch(&resource, &write.manifest, Take::Tools, &onto).await
            }
            How::Handover { uid, version } => {
                let onto = Onto { manager: HANDOVER, uid, version, mode };
                self.patch(&resource, &write.manifest, &onto).await
            }
        }
    }

    /// Takes fields over, and applies on the version that this gives.
    async fn take_and_patch(
        &self,
        resource: &Resource,
        manifest: &Manifest,
        take: Take,
        onto: &Onto<'_>,
    ) -> Result<LiveObject, Refusal> {
        let version = self.take_over(resource, &manifest.object, take, onto).await?;
        self.patch(resource, manifest, &Onto { version: &version, ..*onto }).await
    }

    /// Server-side apply by force, on exactly this object at this version.
    async fn patch(&self, resource: &Resource, manifest: &Manifest, onto: &Onto<'_>) -> Result<LiveObject, Refusal> {
        let Onto { manager, uid, version, mode } = *onto;
        let mut body = (*manifest.body).clone();
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.insert("uid".to_owned(), uid.0.clone().into());
            metadata.insert("resourceVersion".to_owned(), version.0.clone().into());
        }
        let path = resource.object(&manifest.object.namespace, &manifest.object.name)?;
        let call = Call::new(Method::PATCH, path)
            .query("fieldManager", manager)
            .query("force", "true")
            .query("fieldValidation", "Strict")
            .body("application/apply-patch+yaml", body);
        self.live(resource, call, mode).await
    }

    /// Makes fields ours by apply where others, or our own creation, hold them; gives the version to go on from.
    async fn take_over(
        &self,
        resource: &Resource,
        object: &ObjectRef,
        take: Take,
        onto: &Onto<'_>,
    ) -> Result<ResourceVersion, Refusal> {
        let Onto { manager, uid, version, mode } = *onto;
        let conflict = |why: &str| Err(Refusal::Here(FailureKind::Conflict, why.to_owned()));
        let live = match self.get(resource, object).await? {
            Some(live) if &live.uid == uid && &live.version == version => live,
            Some(live) if &live.uid == uid => return conflict("it changed since it was read"),
            Some(_) => return conflict("another object of the same name stands there now"),
            None => return conflict("it is gone"),
        };
        let managed = live.body.pointer("/metadata/managedFields").and_then(Value::as_array);
        let managed = managed.map(Vec::as_slice).unwrap_or_default();
        let Some(rewritten) = taken_over(managed, take, manager, &resource.api_version) else {
            return Ok(live.version);
        };
        if mode == Mode::DryRun {
            return Ok(live.version);
        }
        let changes = json!([
            {"op": "test", "path": "/metadata/uid", "value": live.uid},
            {"op": "replace", "path": "/metadata/managedFields", "value": rewritten},
            // The server compares this one with what it holds: 409 when they differ.
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live.version},
        ]);
        let path = resource.object(&object.namespace, &object.name)?;
        let call =
            Call::new(Method::PATCH, path).query("fieldManager", manager).body("application/json-patch+json", changes);
        Ok(self.live(resource, call, mode).await?.version)
    }

    async fn get(&self, resource: &Resource, object: &ObjectRef) -> Result<Option<LiveObject>, Refusal> {
        match self.api.call(Call::get(resource.object(&object.namespace, &object.name)?).whole()).await {
            Ok(body) => LiveObject::of(body).map(Some).ok_or_else(unreadable),
            Err(refusal) if refusal.kind() == FailureKind::Gone => Ok(None),
            Err(refusal) => {
                self.forget_unserved(resource, &refusal);
                Err(refusal)
            }
        }
    }

    async fn live(&self, resource: &Resource, call: Call, mode: Mode) -> Result<LiveObject, Refusal> {
        if mode == Mode::Do {
            return LiveObject::of(self.effect(resource, call).await?).ok_or_else(unreadable);
        }
        let mut answer = self.api.call(call.query("dryRun", "All")).await?;
        // What would be made has no version yet.
        if let Some(metadata) = answer.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["uid", "resourceVersion"] {
                metadata.entry(field).or_insert_with(|| "".into());
            }
        }
        LiveObject::of(answer).ok_or_else(unreadable)
    }

    /// A request that changes something: the fence is asked when its turn has come.
    async fn effect(&self, resource: &Resource, call: Call) -> Result<Value, Refusal> {
        let answer = self.api.call_if(call, &|| self.fence.holds()).await;
        if let Err(refusal) = &answer {
            self.forget_unserved(resource, refusal);
        }
        answer
    }

    fn forget_unserved(&self, resource: &Resource, refusal: &Refusal) {
        if refusal.is_unserved() {
            self.kinds.forget(&resource.api_version);
        }
    }

    /// The kind of an object; what lives elsewhere is refused here too, whatever was decided before: only the server
    /// knows which kinds have namespaces.
    async fn resource(&self, object: &ObjectRef, api_version: Option<&str>) -> Result<Resource, Refusal> {
        let version = api_version.map(|text| text.split_once('/').map_or(text, |(_, version)| version));
        let resource = self.kinds.find(&object.group, version, &object.kind).await?;
        if resource.namespaced && object.namespace != self.namespace {
            let why = format!("it is not in the target's namespace `{}`", self.namespace);
            return Err(Refusal::Here(FailureKind::Gate, why));
        }
        if !resource.namespaced && !self.whole_cluster {
            let why = "its kind belongs to the whole cluster, not to a namespace".to_owned();
            return Err(Refusal::Here(FailureKind::Gate, why));
        }
        Ok(resource)
    }
}

/// Under which name an object is written: what moves an agent's traffic has one of its own.
fn manager_of(agent: &AgentName, object: &ObjectRef) -> &'static str {
    if *object == route_ref(agent, &object.namespace) { TRAFFIC_MANAGER } else { FIELD_MANAGER }
}

/// The body with the mark of the operation that makes it.
fn annotated(body: &Value, operation: &str) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(OPERATION_ANNOTATION.to_owned(), operation.into());
        }
    }
    body
}

fn unreadable() -> Refusal {
    Refusal::Unreachable("the answer has no name, UID or version".to_owned())
}
