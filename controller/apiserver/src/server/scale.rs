//! The scale subresource: an autoscaling/v1 `Scale` over the fields that the definition names.

use serde_json::{Value, json};

use super::failure::Failure;
use super::path::{assign, lookup};
use crate::registry::{Kind, ScalePaths};
use crate::schema::FieldErrorKind;

/// The `Scale` of an object.
pub fn read(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut own = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            own[field] = value.clone();
        }
    }
    let count = |path: &str| lookup(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": own,
        "spec": {"replicas": count(&paths.spec_replicas)},
        "status": {"replicas": count(&paths.status_replicas)},
    });
    let selector = paths.label_selector.as_ref().and_then(|path| lookup(object, path)).and_then(Value::as_str);
    if let Some(selector) = selector {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// The object as `scale` wants it.
pub fn write(kind: &Kind, paths: &ScalePaths, object: &Value, scale: &Value) -> Result<Value, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if scale["kind"] != "Scale" || scale["apiVersion"] != "autoscaling/v1" {
        return Err(Failure::bad_request("the body must be a Scale of autoscaling/v1"));
    }
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().filter(|n| (0..=i64::from(i32::MAX)).contains(n)).ok_or_else(|| {
            let detail = format!("Invalid value: {value}: should be a non-negative integer");
            Failure::invalid_field(kind, name, "spec.replicas", FieldErrorKind::Invalid, detail)
        })?,
    };
    let mut object = object.clone();
    assign(&mut object, &paths.spec_replicas, json!(replicas));
    if let Some(version) = scale["metadata"].get("resourceVersion") {
        object["metadata"]["resourceVersion"] = version.clone();
    }
    Ok(object)
}
