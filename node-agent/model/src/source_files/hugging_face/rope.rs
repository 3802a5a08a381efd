//! Rotary positions of a configuration: the keys that GGUF has for them, and the tensors of factors that are computed from fields.

use std::f32::consts::PI;

use super::config::{Config, ConfigError};
use crate::gguf::{GgufTensor, Value};
use crate::tensor_source::TensorSource;
use crate::tensor_type::TensorType;

/// What a configuration says of positions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rope {
    /// Keys without the architecture's name.
    pub(super) keys: Vec<(&'static str, Value)>,
    pub(super) tensors: Vec<GgufTensor>,
}

/// The base where no field says one.
const USUAL_BASE: f32 = 10_000.0;
/// The base of windowed layers, which is the only one that GGUF's families have.
const WINDOWED_BASE: f64 = 10_000.0;

// === impl Rope ===

impl Rope {
    /// # Errors
    /// A field of another type than it has to be, and a way of scaling that is not supported.
    pub(super) fn read(config: Config<'_>, head_size: u32) -> Result<Self, ConfigError> {
        let parameters = config.within("rope_parameters")?;
        // Families with windows have one object for each kind of layers.
        let by_layer = match &parameters {
            Some(parameters) => (parameters.within("full_attention")?, parameters.within("sliding_attention")?),
            None => (None, None),
        };
        if let Some(windowed) = by_layer.1
            && (windowed.f64("rope_theta")?.is_some_and(|base| base != WINDOWED_BASE) || kind(&windowed)? != "default")
        {
            return Err(windowed.unsupported("rope_theta", format!("windowed layers turn plainly by {WINDOWED_BASE}")));
        }
        let scaling = match by_layer.0 {
            Some(full) => Some(full),
            None => config.within("rope_scaling")?.or(parameters),
        };
        let base = match config.positive("rope_theta")? {
            Some(base) => Some(base),
            None => scaling.map(|scaling| scaling.positive("rope_theta")).transpose()?.flatten(),
        };
        let base = base.unwrap_or(USUAL_BASE);
        let mut rope = Self { keys: vec![("rope.freq_base", Value::F32(base))], ..Self::default() };
        let mut n_rotated = head_size;
        if let Some(share) = config.f64("partial_rotary_factor")? {
            if !(share > 0.0 && share <= 1.0) {
                return Err(config.unsupported("partial_rotary_factor", "a part of a head, over 0 and up to 1, is"));
            }
            n_rotated = (f64::from(head_size) * share) as u32;
            rope.keys.push(("rope.dimension_count", Value::Unsigned(n_rotated.into())));
        }
        let Some(scaling) = scaling else { return Ok(rope) };
        match kind(&scaling)? {
            "default" => {}
            kind @ ("linear" | "yarn") => {
                // GGUF takes 0 for no scaling, and a configuration does not.
                let factor = scaling.positive("factor")?;
                rope.keys.push(("rope.scaling.type", Value::String(kind.to_owned())));
                rope.keys.push(("rope.scaling.factor", Value::F32(scaling.required("factor", factor)?)));
                if kind == "yarn" {
                    rope.keys.extend(yarn(config, scaling)?);
                }
            }
            "llama3" => rope.tensors.push(llama3(scaling, base, n_rotated)?),
            "longrope" | "su" => long(config, scaling, n_rotated, &mut rope)?,
            _ => {
                let field = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
                return Err(scaling.unsupported(field, "supported are default, linear, yarn, llama3 and longrope"));
            }
        }
        Ok(rope)
    }
}

fn kind<'a>(scaling: &Config<'a>) -> Result<&'a str, ConfigError> {
    let kind = match scaling.text("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.text("type")?,
    };
    Ok(kind.unwrap_or("default"))
}

/// What GGUF has no key for has to be as usual.
fn yarn(config: Config<'_>, scaling: Config<'_>) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    for (field, usual) in [("beta_fast", 32.0), ("beta_slow", 1.0)] {
        if scaling.f64(field)?.is_some_and(|found| found != usual) {
            return Err(scaling.unsupported(field, format!("only {usual} is")));
        }
    }
    for field in ["attention_factor", "mscale", "mscale_all_dim"] {
        if scaling.get(field).is_some() {
            return Err(scaling.unsupported(field, "the magnitude that follows from the factor is"));
        }
    }
    let original = match scaling.u32("original_max_position_embeddings")? {
        Some(original) => Some(original),
        None => config.u32("max_position_embeddings")?,
    };
    let original = u64::from(config.required("max_position_embeddings", original)?);
    Ok(vec![("rope.scaling.original_context_length", Value::Unsigned(original))])
}

/// `rope_freqs.weight` of Llama 3.1: long waves are slowed down by the factor, short ones are not, and those between in part.
fn llama3(scaling: Config<'_>, base: f32, n_rotated: u32) -> Result<GgufTensor, ConfigError> {
    let number = |field: &str, usual: f32| Ok(scaling.positive(field)?.unwrap_or(usual));
    let factor = number("factor", 8.0)?;
    let (low, high) = (number("low_freq_factor", 1.0)?, number("high_freq_factor", 4.0)?);
    let original = number("original_max_position_embeddings", 8192.0)?;
    if low >= high {
        return Err(scaling.unsupported("low_freq_factor", format!("one below `high_freq_factor`, {high}, is")));
    }
    let factor_of = move |pair: u32| {
        let frequency = 1.0 / base.powf((2 * pair) as f32 / n_rotated as f32);
        let wave = 2.0 * PI / frequency;
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok(literal("rope_freqs.weight", (0..n_rotated / 2).map(factor_of)))
}

/// Two sets of factors, one for long contexts, and what cosines and sines are multiplied with (Phi-3, arXiv 2404.14219).
fn long(config: Config<'_>, scaling: Config<'_>, n_rotated: u32, rope: &mut Rope) -> Result<(), ConfigError> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    for (field, name) in [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")] {
        let factors = scaling.required(field, scaling.f64s(field)?)?;
        // As they are kept: a number may be 0 or infinite in 32 bits.
        let factors: Vec<f32> = factors.into_iter().map(|factor| factor as f32).collect();
        let are_sound = factors.iter().all(|factor| *factor > 0.0 && factor.is_finite());
        if factors.len() as u64 != u64::from(n_rotated / 2) || !are_sound {
            return Err(scaling.unsupported(field, format!("{} finite numbers above 0 are", n_rotated / 2)));
        }
        rope.tensors.push(literal(name, factors.into_iter()));
    }
    let original = match scaling.u32(ORIGINAL)? {
        Some(original) => Some(original),
        None => config.u32(ORIGINAL)?,
    };
    let original = f64::from(config.required(ORIGINAL, original)?);
    let longest = f64::from(config.required("max_position_embeddings", config.u32("max_position_embeddings")?)?);
    let scale = longest / original;
    let magnitude = if scale > 1.0 { (1.0 + scale.ln() / original.ln()).sqrt() } else { 1.0 };
    if !magnitude.is_finite() {
        return Err(config.unsupported(ORIGINAL, "more than 1 is"));
    }
    rope.keys.push(("rope.scaling.original_context_length", Value::Unsigned(original as u64)));
    rope.keys.push(("rope.scaling.attn_factor", Value::F32(magnitude as f32)));
    Ok(())
}

/// A tensor that no file has.
fn literal(name: &str, values: impl Iterator<Item = f32>) -> GgufTensor {
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    GgufTensor {
        name: name.to_owned(),
        shape: vec![bytes.len() as u64 / 4],
        tensor_type: TensorType::F32,
        n_bytes: bytes.len() as u64,
        source: TensorSource { literal: hex::encode(bytes), ..TensorSource::default() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::ConfigFile;
    use super::*;

    fn read(json: &str) -> Result<Rope, String> {
        Rope::read(ConfigFile::parse(json.as_bytes()).unwrap().fields(), 64).map_err(|error| error.to_string())
    }

    #[test]
    fn llama_3s_factors_are_those_of_the_converter() {
        let rope = read(
            r#"{"rope_theta": 500000.0, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#,
        )
        .unwrap();
        assert_eq!(rope.keys, [("rope.freq_base", Value::F32(500_000.0))]);
        let bytes = hex::decode(&rope.tensors[0].source.literal).unwrap();
        let factors: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        assert_eq!((factors.len(), factors[0], factors[14], factors[31]), (32, 1.0, 1.0, 32.0));
        // Those between, by the formula of `convert_hf_to_gguf.py` in numpy; f32 there rounds otherwise in the last bits.
        for (pair, expected) in [(15, 1.651_329), (16, 3.292_262), (17, 9.666_729)] {
            assert!((factors[pair] - expected).abs() < 1e-4 * expected, "{pair}: {}", factors[pair]);
        }
    }

    #[test]
    fn long_contexts_have_factors_of_their_own_and_a_magnitude() {
        let factors = |n: usize| vec!["1.5"; n].join(",");
        let json = |n: usize, original: u32| {
            format!(
                r#"{{"max_position_embeddings": 131072, "original_max_position_embeddings": {original},
                    "rope_scaling": {{"type": "longrope", "long_factor": [{}], "short_factor": [{}]}}}}"#,
                factors(n),
                factors(32)
            )
        };
        let rope = read(&json(32, 4096)).unwrap();
        // sqrt(1 + ln 32 / ln 4096)
        let ("rope.scaling.attn_factor", Value::F32(magnitude)) = rope.keys[2] else { panic!("{:?}", rope.keys) };
        assert!((magnitude - 1.190_238).abs() < 1e-6, "{magnitude}");
        let names: Vec<&str> = rope.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["rope_factors_long.weight", "rope_factors_short.weight"]);
        assert!(read(&json(31, 4096)).unwrap_err().contains("`rope_scaling.long_factor` is an array"));
        for original in [0, 1] {
            assert!(
                read(&json(32, original)).unwrap_err().contains("`original_max_position_embeddings`"),
                "{original}"
            );
        }
    }

    #[test]
    fn factors_that_are_zero_or_no_numbers_are_refused_by_their_field() {
        let scaled = |kind: &str, fields: &str| {
            format!(r#"{{"max_position_embeddings": 512, "rope_scaling": {{"rope_type": "{kind}", {fields}}}}}"#)
        };
        let long = |field: &str, spoilt: &str| {
            let factors = |name: &str| {
                let mut factors = vec!["1.5"; 32];
                factors[7] = if name == field { spoilt } else { "1" };
                format!(r#""{name}": [{}]"#, factors.join(","))
            };
            let original = r#""original_max_position_embeddings": 64"#.to_owned();
            scaled("longrope", &[factors("long_factor"), factors("short_factor"), original].join(","))
        };
        assert!(read(&long("", "")).is_ok());
        // JSON has no word for what is no number; what is infinite or 0 in 32 bits is as bad.
        for spoilt in ["0", "0.0", "-1", "1e-300", "1e300"] {
            for kind in ["linear", "yarn", "llama3"] {
                let error = read(&scaled(kind, &format!(r#""factor": {spoilt}"#))).unwrap_err();
                assert!(error.contains("`rope_scaling.factor` is "), "{kind} {spoilt}: {error}");
            }
            for field in ["long_factor", "short_factor"] {
                let error = read(&long(field, spoilt)).unwrap_err();
                assert!(error.contains(&format!("`rope_scaling.{field}` is an array")), "{spoilt}: {error}");
            }
            for field in ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"] {
                let error = read(&scaled("llama3", &format!(r#""{field}": {spoilt}"#))).unwrap_err();
                assert!(error.contains(&format!("`rope_scaling.{field}` is ")), "{spoilt}: {error}");
            }
            let error = read(&format!(r#"{{"rope_theta": {spoilt}}}"#)).unwrap_err();
            assert!(error.contains("`rope_theta` is "), "{spoilt}: {error}");
        }
        assert!(
            read(&long("long_factor", "NaN").replace("NaN", "null"))
                .unwrap_err()
                .contains("`rope_scaling.long_factor`")
        );
    }

    #[test]
    fn scaling_has_the_keys_of_gguf_or_is_refused_by_its_field() {
        let keys = |json: &str| read(json).unwrap().keys;
        let base = |base: f32| ("rope.freq_base", Value::F32(base));
        let kind = |kind: &str| ("rope.scaling.type", Value::String(kind.into()));
        assert_eq!(keys("{}"), [base(10_000.0)]);
        assert_eq!(keys(r#"{"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}"#), [base(7.0)]);
        let linear = r#"{"rope_scaling": {"type": "linear", "factor": 4}}"#;
        assert_eq!(keys(linear), [base(10_000.0), kind("linear"), ("rope.scaling.factor", Value::F32(4.0))]);
        let yarn = r#"{"max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#;
        let original = ("rope.scaling.original_context_length", Value::Unsigned(512));
        assert_eq!(keys(yarn), [base(10_000.0), kind("yarn"), ("rope.scaling.factor", Value::F32(4.0)), original]);
        assert_eq!(keys(r#"{"partial_rotary_factor": 0.5}"#)[1], ("rope.dimension_count", Value::Unsigned(32)));
        for (json, words) in [
            (r#"{"rope_scaling": {"type": "dynamic", "factor": 4}}"#, "`rope_scaling.type` is \"dynamic\""),
            (r#"{"rope_scaling": {"type": "linear"}}"#, "`rope_scaling.factor` is missing"),
            (r#"{"rope_scaling": {"type": "linear", "factor": "4"}}"#, "`rope_scaling.factor` is \"4\""),
            (r#"{"rope_scaling": 4}"#, "`rope_scaling` is 4"),
            (r#"{"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 16}}"#, "`rope_scaling.beta_fast` is 16"),
            (r#"{"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 1}}"#, "`rope_scaling.mscale` is 1"),
            (r#"{"rope_scaling": {"type": "llama3", "low_freq_factor": 4}}"#, "`rope_scaling.low_freq_factor` is 4"),
            (r#"{"rope_parameters": {"sliding_attention": {"rope_theta": 7}}}"#, "`sliding_attention.rope_theta` is 7"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }
}
