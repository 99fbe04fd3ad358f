//! The code of a Pod: the artifact that its annotation names.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::super::run::{Code, CodeError};
use super::{ArtifactSource, Artifacts};
use crate::model::Digest;
use crate::render::{ARTIFACT_ANNOTATION, ARTIFACT_SOURCE_ANNOTATION};

impl Artifacts {
    /// What gives a Pod its code: nothing where it names no artifact. Blocks as [`Artifacts::ensure`] does.
    pub fn code(self: Arc<Self>) -> Code {
        Arc::new(move |pod, deployment| self.of(pod, deployment))
    }

    fn of(&self, pod: &Pod, deployment: Option<&Deployment>) -> Result<Option<PathBuf>, CodeError> {
        let Some(named) = pod.annotations().get(ARTIFACT_ANNOTATION) else { return Ok(None) };
        let sha256 = named.strip_prefix("sha256:").unwrap_or(named).parse::<Digest>();
        let sha256 = sha256.map_err(|error| CodeError { is_wrong: true, why: error.to_string() })?;
        // A Deployment that is at another release by now knows the source of another artifact: its digest would tell.
        let template = deployment.and_then(|deployment| deployment.spec.template.metadata.as_ref());
        let asks = template.and_then(|template| template.annotations.as_ref()?.get(ARTIFACT_ANNOTATION));
        let source = deployment.filter(|_| asks == Some(named));
        let source = source.and_then(|deployment| deployment.annotations().get(ARTIFACT_SOURCE_ANNOTATION));
        let source = source.and_then(|text| serde_json::from_str::<ArtifactSource>(text).ok());
        self.ensure(&sha256, source.as_ref()).map(Some).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            CodeError { is_wrong: error.is_wrong(), why: format!("{error}{cause}{hint}") }
        })
    }
}
