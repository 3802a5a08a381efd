//! The field reference of `docs/manifests.md`, written from the same definitions that the API serves.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// What the page says before the kinds. The examples below it are the files that people apply.
const INTRODUCTION: &str = "<!-- Generated from controller/api by `make docs-fields`; do not edit. -->
# Manifests, field by field

There are four kinds, all of `polyphony.dev/v1alpha1`. You write a **Model** and an **InferenceDeployment**; a **Phone** comes by
itself when its agent joins, and you may edit its `spec`; a **SegmentPlacement** is made by the controller and never edited.
What you write is `spec`; what is so is `status`. The same text comes from `polyctl explain inferencedeployment.spec`.

A field that is not known, or has a wrong type, is refused with its path and line, and nothing is changed. `[]` stands for each
entry of a list. A quantity is a number with `Ki`, `Mi`, `Gi`, `Ti` (powers of 1024) or `k`, `M`, `G`, `T` (powers of 1000).

The example that `make demo` applies, [manifests/smollm2.yaml](../manifests/smollm2.yaml):

```yaml
";

/// What a condition is made of, once for all kinds.
const CONDITIONS: &str = "## Conditions

Every kind has `status.conditions`, a list with one entry a type. Which types and reasons there are is told in
[reading-describe.md](reading-describe.md).

| Field | Type | Meaning |
|---|---|---|
| `type` | string | What the statement is about, such as `Ready`. |
| `status` | string | `True`, `False` or `Unknown`. |
| `reason` | string | One word, for programs. |
| `message` | string | For people: cause, place and remedy. |
| `lastTransitionTime` | string (date-time) | Since when `status` is what it is. |
| `observedGeneration` | integer | The `metadata.generation` that the statement is about. |
";

/// The whole page, with `example` as the manifest that it begins with.
///
/// # Errors
/// When a definition cannot be written as JSON.
pub fn page(example: &str) -> Result<String, serde_json::Error> {
    let mut page = format!("{INTRODUCTION}{}```\n", example.trim_start());
    for (_, definition) in crate::crds::all() {
        kind(&definition, &mut page)?;
    }
    page.push('\n');
    page.push_str(CONDITIONS);
    Ok(page)
}

fn kind(definition: &CustomResourceDefinition, page: &mut String) -> Result<(), serde_json::Error> {
    let definition = serde_json::to_value(definition)?;
    let names = &definition["spec"]["names"];
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let place = if definition["spec"]["scope"] == "Cluster" { "no namespace" } else { "a namespace" };
    page.push_str(&format!(
        "\n## {}\n\n{} Lives in {place}; `polyctl get {}`, for short `{}`.\n",
        text(&names["kind"]),
        text(&schema["description"]),
        text(&names["plural"]),
        text(&names["shortNames"][0]),
    ));
    for part in ["spec", "status"] {
        let part_schema = &schema["properties"][part];
        page.push_str(&format!(
            "\n### {}.{part}\n\n{}{}\n\n",
            text(&names["kind"]),
            text(&part_schema["description"]),
            rules(part_schema)
        ));
        page.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        rows(part_schema, "", part == "spec", page);
    }
    Ok(())
}

/// One row a field, and those of its own fields below it. What must be there matters only where people write.
fn rows(schema: &Value, prefix: &str, is_written: bool, page: &mut String) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        if name == "conditions" {
            page.push_str(&format!("| `{path}` | list | | See [conditions](#conditions). |\n"));
            continue;
        }
        let default = match &field["default"] {
            Value::Null if is_written && required.contains(&name.as_str().into()) => "required".to_owned(),
            // Its own fields say theirs.
            Value::Null | Value::Object(_) => String::new(),
            Value::String(value) => format!("`{value}`"),
            other => format!("`{other}`"),
        };
        let meaning = text(&field["description"]).replace('\n', " ");
        page.push_str(&format!("| `{path}` | {} | {default} | {meaning} |\n", type_of(field)));
        rows(field, &format!("{path}."), is_written, page);
        rows(&field["items"], &format!("{path}[]."), is_written, page);
    }
}

/// A type with its bounds, in words.
fn type_of(field: &Value) -> String {
    let bound = |name: &str| field[name].as_f64();
    let mut words = match text(&field["type"]) {
        "array" => format!("list of {}", type_of(&field["items"])),
        "object" if field["additionalProperties"].is_object() => "map of strings".to_owned(),
        other => other.to_owned(),
    };
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{}`", text(value))).collect();
        words = values.join(", ");
    }
    // That an integer of 32 bits has no more than those goes without saying.
    let most = bound("maximum").filter(|most| *most < f64::from(i32::MAX));
    match (bound("minimum"), most) {
        (Some(least), Some(most)) => words += &format!(", {least} to {most}"),
        // That a count is not negative goes without saying.
        (Some(least), None) if least > 0.0 => words += &format!(", at least {least}"),
        _ => {}
    }
    match field["pattern"].as_str() {
        Some(pattern) if pattern.contains("(Ki|") => words = "quantity".to_owned(),
        Some(pattern) => words += &format!(" like `{}`", pattern.replace('|', "\\|")),
        None => {}
    }
    words
}

/// What the whole object has to obey, as sentences.
fn rules(schema: &Value) -> String {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().map(|rule| format!(" Held to: {}.", text(&rule["message"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str) -> String {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
    }

    #[test]
    fn the_page_in_docs_is_current() {
        let page = page(&file("manifests/smollm2.yaml")).unwrap();
        assert!(file("docs/manifests.md") == page, "docs/manifests.md is not current: run `make docs-fields`");
    }

    #[test]
    fn every_field_is_explained() {
        let page = page("").unwrap();
        let silent: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
        assert!(silent.is_empty(), "these fields need a doc comment in controller/api: {silent:#?}");
    }
}
