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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_files_in_manifests_are_current() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
        for (file, definition) in all() {
            let written = std::fs::read_to_string(folder.join(file)).unwrap();
            assert!(written == to_yaml(&definition).unwrap(), "manifests/crds/{file} is not current: run `make crds`");
        }
    }

    #[test]
    fn conditions_are_a_map_by_type_so_that_two_writers_can_share_them() {
        for (file, definition) in all() {
            let text = to_yaml(&definition).unwrap();
            assert!(text.contains("x-kubernetes-list-map-keys"), "{file}");
        }
    }
}
