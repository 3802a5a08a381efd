//! Any object, field by field, as kubectl describes kinds that it does not know.

use serde_json::Value;

use super::layout::Layout;
use super::{Story, events};

pub(super) fn write(layout: &mut Layout, story: &Story) {
    let object = story.object;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    layout.field("Name", text(&metadata["name"]));
    layout.field_if("Namespace", metadata["namespace"].as_str());
    for (title, pairs, between) in
        [("Labels", &metadata["labels"], "="), ("Annotations", &metadata["annotations"], ": ")]
    {
        let pairs: Vec<(String, String)> =
            pairs.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect();
        layout.map(title, pairs.iter().map(|(key, value)| (key, value)), between);
    }
    layout.field("API Version", text(&object["apiVersion"]));
    layout.field("Kind", text(&object["kind"]));
    let hidden = ["managedFields", "name", "namespace", "labels", "annotations"];
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|field, _| !matches!(field.as_str(), "apiVersion" | "kind"));
    }
    if let Some(fields) = rest["metadata"].as_object_mut() {
        fields.retain(|field, _| !hidden.contains(&field.as_str()));
    }
    write_fields(layout, 0, &rest);
    events::write(layout, story.events, metadata["name"].as_str().unwrap_or_default(), story.now);
}

fn write_fields(layout: &mut Layout, level: usize, object: &Value) {
    for (field, value) in object.as_object().into_iter().flatten() {
        let title = title_of(field);
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                layout.line(level, &format!("{title}:"));
                write_fields(layout, level + 1, value);
            }
            Value::Array(elements) if !elements.is_empty() => {
                layout.line(level, &format!("{title}:"));
                for element in elements {
                    match element {
                        Value::Object(_) => write_fields(layout, level + 1, element),
                        element => layout.line(level + 1, &polyphony_jsonpath::text_of(element)),
                    }
                }
            }
            Value::Object(_) | Value::Array(_) | Value::Null => layout.field_at(level, &title, ""),
            value => layout.field_at(level, &title, polyphony_jsonpath::text_of(value)),
        }
    }
}

/// `creationTimestamp` as `Creation Timestamp`; names that are no words are left as they are.
fn title_of(field: &str) -> String {
    if !field.chars().all(char::is_alphanumeric) {
        return field.to_owned();
    }
    let mut title = String::new();
    for (idx, character) in field.chars().enumerate() {
        if idx == 0 {
            title.extend(character.to_uppercase());
        } else {
            if character.is_uppercase() {
                title.push(' ');
            }
            title.push(character);
        }
    }
    title
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_kind_is_told_field_by_field() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "lab", "uid": "u", "managedFields": []},
            "data": {"key.txt": "v"}, "list": [1, {"aB": true}]});
        let story = Story { object: &object, placements: &[], events: &[], now: jiff::Timestamp::UNIX_EPOCH };
        assert_eq!(
            super::super::describe(&story),
            "Name:         c\n\
             Namespace:    lab\n\
             Labels:       <none>\n\
             Annotations:  <none>\n\
             API Version:  v1\n\
             Kind:         ConfigMap\n\
             Data:\n\
             \x20 key.txt:  v\n\
             List:\n\
             \x20 1\n\
             \x20 A B:  true\n\
             Metadata:\n\
             \x20 Uid:   u\n\
             Events:  <none>\n"
        );
    }
}
