//! Definitions: a `CustomResourceDefinition` as JSON becomes the kinds that it serves.

use serde_json::Value;

use super::{Column, Kind, RegistryError, ScalePaths, Schema};

/// The storage version, and every served version, of a definition.
pub(super) fn parse(crd: &Value) -> Result<(Kind, Vec<Kind>), RegistryError> {
    let name = crd["metadata"]["name"].as_str().unwrap_or_default();
    let reader = Reader { name };
    let spec = &crd["spec"];
    let names = &spec["names"];
    let group = reader.text(spec, "spec", "group")?;
    let plural = reader.text(names, "spec.names", "plural")?;
    let kind = reader.text(names, "spec.names", "kind")?;
    if name != format!("{plural}.{group}") {
        let detail = format!("must be \"{plural}.{group}\", the plural name and the group");
        return Err(reader.error("metadata.name", detail));
    }
    let namespaced = match spec["scope"].as_str() {
        Some("Namespaced") => true,
        Some("Cluster") => false,
        _ => return Err(reader.error("spec.scope", "must be Namespaced or Cluster")),
    };
    let base = Kind {
        list_kind: optional(names, "listKind").unwrap_or_else(|| format!("{kind}List")),
        singular: optional(names, "singular").unwrap_or_else(|| kind.to_lowercase()),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        group,
        kind,
        plural,
        namespaced,
        ..Kind::default()
    };
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut storage = None;
    let mut served = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let kind = read_version(&reader, &base, version, &format!("spec.versions[{i}]"))?;
        if version["storage"] == true && storage.replace(kind.clone()).is_some() {
            return Err(reader.error("spec.versions", "must have one storage version, has several"));
        }
        if version["served"] == true {
            served.push(kind);
        }
    }
    match storage {
        Some(storage) => Ok((storage, served)),
        None => Err(reader.error("spec.versions", "must have one storage version, has none")),
    }
}

struct Reader<'a> {
    name: &'a str,
}

fn read_version(reader: &Reader, base: &Kind, version: &Value, path: &str) -> Result<Kind, RegistryError> {
    let schema = &version["schema"]["openAPIV3Schema"];
    if !schema.is_object() {
        return Err(reader.error(&format!("{path}.schema.openAPIV3Schema"), "is required"));
    }
    let subresources = &version["subresources"];
    let scale = match &subresources["scale"] {
        Value::Object(_) => {
            let path = format!("{path}.subresources.scale");
            let scale = &subresources["scale"];
            Some(ScalePaths {
                spec_replicas: reader.text(scale, &path, "specReplicasPath")?,
                status_replicas: reader.text(scale, &path, "statusReplicasPath")?,
                label_selector: optional(scale, "labelSelectorPath"),
            })
        }
        _ => None,
    };
    let mut columns = Vec::new();
    for (i, column) in items(&version["additionalPrinterColumns"]).enumerate() {
        let path = format!("{path}.additionalPrinterColumns[{i}]");
        let json_path = reader.text(column, &path, "jsonPath")?;
        columns.push(Column {
            path: json_path.parse().ok(),
            name: reader.text(column, &path, "name")?,
            r#type: reader.text(column, &path, "type")?,
            format: optional(column, "format"),
            description: optional(column, "description"),
            priority: column["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            json_path,
        });
    }
    let mut selectable_fields = Vec::new();
    for (i, field) in items(&version["selectableFields"]).enumerate() {
        selectable_fields.push(reader.text(field, &format!("{path}.selectableFields[{i}]"), "jsonPath")?);
    }
    Ok(Kind {
        version: reader.text(version, path, "name")?,
        schema: Some(Schema::new(schema.clone())),
        status: subresources["status"].is_object(),
        scale,
        columns,
        selectable_fields,
        ..base.clone()
    })
}

fn optional(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

// === impl Reader ===

impl Reader<'_> {
    fn text(&self, value: &Value, path: &str, field: &str) -> Result<String, RegistryError> {
        optional(value, field).ok_or_else(|| self.error(&format!("{path}.{field}"), "must be a text that is not empty"))
    }

    fn error(&self, path: &str, detail: impl Into<String>) -> RegistryError {
        RegistryError { name: self.name.to_owned(), path: path.to_owned(), detail: detail.into() }
    }
}
