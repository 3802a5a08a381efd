//! The custom resource definitions, as they are written into `manifests/crds/` and served by the embedded API.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{InferenceDeployment, Model, Phone, SegmentPlacement};

/// All definitions, by file name.
pub fn all() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("phones.yaml", with_known_formats(Phone::crd())),
        ("models.yaml", with_known_formats(Model::crd())),
        ("inferencedeployments.yaml", with_known_formats(InferenceDeployment::crd())),
        ("segmentplacements.yaml", with_known_formats(SegmentPlacement::crd())),
    ]
}

/// With the formats that Kubernetes knows: API servers warn of Rust's unsigned ones. Their bounds stay, or are made.
fn with_known_formats(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let versions = definition.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()).for_each(know_formats);
    definition
}

fn know_formats(schema: &mut JSONSchemaProps) {
    if let Some(unsigned) = schema.format.as_deref().and_then(|format| format.strip_prefix("uint")) {
        let is_long = unsigned == "64" || unsigned.is_empty();
        schema.minimum.get_or_insert(0.0);
        if !is_long {
            let most = f64::from(i32::MAX);
            schema.maximum = Some(schema.maximum.map_or(most, |maximum| maximum.min(most)));
        }
        schema.format = Some(if is_long { "int64" } else { "int32" }.to_owned());
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(know_formats);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => know_formats(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(know_formats),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        know_formats(value);
    }
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
    fn every_format_is_one_that_api_servers_know() {
        // Those of these kinds; `supportedVersions` of apiextensions-apiserver has more.
        const KNOWN: [&str; 5] = ["int32", "int64", "double", "float", "date-time"];
        for (file, definition) in all() {
            let text = to_yaml(&definition).unwrap();
            let formats = text.lines().filter_map(|line| line.trim().strip_prefix("format: "));
            let unknown: Vec<&str> = formats.filter(|format| !KNOWN.contains(format)).collect();
            assert!(unknown.is_empty(), "{file}: an API server warns of {unknown:?}");
        }
    }

    #[test]
    fn all_is_what_runs_and_no_device_is_in_it() {
        let is_in_all = |(file, definition): (&'static str, CustomResourceDefinition)| {
            definition.spec.names.categories.unwrap_or_default().contains(&"all".to_owned()).then_some(file)
        };
        let files: Vec<_> = all().into_iter().filter_map(is_in_all).collect();
        assert_eq!(files, ["models.yaml", "inferencedeployments.yaml", "segmentplacements.yaml"]);
    }

    #[test]
    fn conditions_are_a_map_by_type_so_that_two_writers_can_share_them() {
        for (file, definition) in all() {
            let text = to_yaml(&definition).unwrap();
            assert!(text.contains("x-kubernetes-list-map-keys"), "{file}");
        }
    }
}
