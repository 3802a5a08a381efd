//! Numerics classes by their names, such as `cpu-int8-r2/f16/kv-f16`: of what a phone computes in and a deployment asks for. Pure.
//!
//! The first part is the phone's own word, which this only asks for its arithmetic; phones of two classes make no ring.

use polyphony_api::inference_deployment::{ActivationType, InferenceDeploymentSpec};
use polyphony_api::numerics::{Arithmetic, KvCache, Prefill};
use polyphony_model::KvType;

/// The class of a ring of phones that compute in `numerics`, for a deployment.
pub fn of(numerics: &str, spec: &InferenceDeploymentSpec) -> String {
    format!("{numerics}/{}/kv-{}", type_name(spec.activation_type()), kv_type(spec.numerics.kv_cache).name())
}

/// The first part of a class.
pub fn numerics(class: &str) -> &str {
    class.split('/').next().unwrap_or_default()
}

/// The arithmetic of a first part: its second word. `None` of one that this controller does not know.
pub fn arithmetic(numerics: &str) -> Option<Arithmetic> {
    match numerics.split('-').nth(1)? {
        "f32" => Some(Arithmetic::F32),
        "int8" => Some(Arithmetic::Int8),
        _ => None,
    }
}

/// Where the phones of a first part read prompts, if not where they decode.
pub fn prefill(numerics: &str) -> Option<Prefill> {
    numerics.starts_with("mixed-").then_some(Prefill::Gpu)
}

/// Whether a deployment asks for such a first part: for its arithmetic, and for where prompts are read.
pub fn is_asked_for(numerics: &str, spec: &InferenceDeploymentSpec) -> bool {
    arithmetic(numerics) == Some(spec.numerics.arithmetic) && prefill(numerics) == spec.numerics.prefill
}

/// In what a class keeps keys and values; `None` where it does not say, or says what this controller does not know.
pub fn kept(class: &str) -> Option<KvCache> {
    kv_cache(class.rsplit_once("/kv-")?.1)
}

/// In what of a class a deployment asks for another one now: the field.
pub fn change(class: &str, spec: &InferenceDeploymentSpec) -> Option<&'static str> {
    let planned = numerics(class);
    if arithmetic(planned) != Some(spec.numerics.arithmetic) {
        return Some("spec.numerics.arithmetic");
    }
    if prefill(planned) != spec.numerics.prefill {
        return Some("spec.numerics.prefill");
    }
    if kept(class) != Some(spec.numerics.kv_cache) {
        return Some("spec.numerics.kvCache");
    }
    (class != of(planned, spec)).then_some("spec.numerics.activationType")
}

/// The type, as footprints count it.
pub fn kv_type(kv_cache: KvCache) -> KvType {
    match kv_cache {
        KvCache::F32 => KvType::F32,
        KvCache::F16 => KvType::F16,
        KvCache::Q8 => KvType::Q8,
    }
}

/// The type that an agent calls by this name.
pub fn kv_cache(name: &str) -> Option<KvCache> {
    [KvCache::F32, KvCache::F16, KvCache::Q8].into_iter().find(|kv_cache| kv_type(*kv_cache).name() == name)
}

fn type_name(activation: ActivationType) -> &'static str {
    match activation {
        ActivationType::F32 => "f32",
        ActivationType::F16 => "f16",
        ActivationType::Q8 => "q8",
    }
}

#[cfg(test)]
mod tests {
    use polyphony_api::numerics::Numerics;
    use serde_json::json;

    use super::*;

    fn spec(numerics: &serde_json::Value) -> InferenceDeploymentSpec {
        serde_json::from_value(json!({"model": "m", "numerics": numerics})).expect("a deployment")
    }

    #[test]
    fn a_class_names_what_the_deployment_asks_for_and_what_it_leaves_out_is_the_default() {
        let table = [
            (json!({}), "cpu-int8-r2/f16/kv-f16"),
            (json!({"arithmetic": "F32", "activationType": "f32", "kvCache": "F32"}), "cpu-int8-r2/f32/kv-f32"),
            (json!({"activationType": "q8", "kvCache": "Q8"}), "cpu-int8-r2/q8/kv-q8"),
        ];
        for (numerics, class) in table {
            assert_eq!(of("cpu-int8-r2", &spec(&numerics)), class);
        }
        assert_eq!(spec(&json!({})).numerics, Numerics::default());
    }

    #[test]
    fn what_has_changed_is_told_by_its_field() {
        let change = |class: &str, numerics| change(class, &spec(&numerics));
        assert_eq!(change("cpu-int8-r2/f16/kv-f16", json!({})), None);
        assert_eq!(change("vulkan-int8-r2-a-b/f16/kv-f16", json!({})), None, "another device is no other wish");
        assert_eq!(change("cpu-f32-r1/f16/kv-f32", json!({})), Some("spec.numerics.arithmetic"));
        assert_eq!(change("cpu-int8-r2/f16/kv-f32", json!({})), Some("spec.numerics.kvCache"));
        assert_eq!(change("cpu-int8-r2/f16", json!({"kvCache": "F32"})), Some("spec.numerics.kvCache"));
        assert_eq!(change("cpu-int8-r2/q8/kv-f16", json!({})), Some("spec.numerics.activationType"));
        assert_eq!(change("cpu-int8-r2/f16/kv-f16", json!({"prefill": "Gpu"})), Some("spec.numerics.prefill"));
        assert_eq!(change("mixed-int8-r2/f16/kv-f16", json!({})), Some("spec.numerics.prefill"));
        assert_eq!(change("mixed-int8-r2/f16/kv-f16", json!({"prefill": "Gpu"})), None);
    }

    #[test]
    fn the_field_of_before_is_still_read() {
        let spec: InferenceDeploymentSpec =
            serde_json::from_value(json!({"model": "m", "transport": {"activationType": "q8"}})).expect("a deployment");
        assert_eq!(of("cpu-int8-r2", &spec), "cpu-int8-r2/q8/kv-f16");
    }
}
