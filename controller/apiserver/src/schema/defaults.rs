//! Defaults: fills missing fields and drops nulls that the schema does not allow, as Kubernetes does before it validates.

use serde_json::Value;

use super::flag;

/// Fills what is missing in `value`, children of defaults included.
pub(super) fn apply(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                let unset_null = fields.get(name).is_some_and(Value::is_null) && !flag(property, "nullable");
                if unset_null {
                    fields.remove(name);
                }
                if let Some(default) = property.get("default")
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(child) = fields.get_mut(name) {
                    apply(child, property);
                }
            }
            let additional = schema.get("additionalProperties").filter(|additional| additional.is_object());
            if let Some(additional) = additional {
                let declared = |name: &str| properties.is_some_and(|properties| properties.contains_key(name));
                fields.retain(|name, child| declared(name) || !child.is_null() || flag(additional, "nullable"));
                for (_, child) in fields.iter_mut().filter(|(name, _)| !declared(name)) {
                    apply(child, additional);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    apply(item, schema);
                }
            }
        }
        _ => {}
    }
}
