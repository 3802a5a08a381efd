//! The custom resource definitions, as they are written into `manifests/crds/` and served by the embedded API.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{InferenceDeployment, Model, Phone, SegmentPlacement};

/// All definitions, by file name.
pub fn all() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("phones.yaml", Phone::crd()),
        ("models.yaml", Model::crd()),
        ("inferencedeployments.yaml", InferenceDeployment::crd()),
        ("segmentplacements.yaml", SegmentPlacement::crd()),
    ]
}

/// A definition as a file's text.
///
/// # Errors
/// When the definition cannot be written as YAML.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!("# Generated from controller/api by `make crds`; do not edit.\n{}", serde_yaml::to_string(definition)?))
}
