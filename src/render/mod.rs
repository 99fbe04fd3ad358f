//! A release becomes Kubernetes objects: pure, versioned, and only with fields that are ours.
//!
//! What is rendered is what Backstay owns: a field that is not here is left to the server, to other controllers and to
//! people. The pod template changes exactly when the release changes, never by settings, so that settings restart no pod.
//!
//! Rendering is versioned ([`RendererVersion`]): the version is kept with a release when it is first rendered, and
//! renders its pod template ever after. Whatever changes a pod template needs a new version.

mod extra;
mod merge;
mod names;
mod object;
mod pod;
mod release;
mod route;
mod schema;

pub use merge::{InvalidPatch, strategic_merge};
pub use names::{
    AGENT_DIR, AGENT_LABEL, ARTIFACT_ANNOTATION, ARTIFACT_SOURCE_ANNOTATION, DRAIN_ANNOTATION, FIELD_MANAGER,
    HOST_CONTROLLER, HOST_PARENT, IGNORE_ANNOTATION, INSTALLATION_ANNOTATION, JOB_ANNOTATION, MANAGED_BY,
    MANAGED_BY_LABEL, NAME_LABEL, OPERATION_ANNOTATION, PART_OF_LABEL, PROCESS_LABEL, RELEASE_ID_ANNOTATION,
    RELEASE_LABEL, RENDERER_ANNOTATION, RESERVED_PREFIX, ROLLING_SET, ROUTE_ANNOTATION, SET_LABEL, SPLIT_ANNOTATION,
    TRAFFIC_MANAGER, applyset_id, base64, config_map_name, deployment_name, from_base64, service_name,
};
pub use release::{Identity, RenderError, RenderOptions, Rendered, RendererVersion, Role, Set, render};
pub use route::{Backend, HostSplit, ROUTE_GROUP, ROUTE_KIND, Routing, route, route_ref};
pub use schema::{ListKind, MapKind, key_default, list_kind, map_kind, pod_spec_path};
