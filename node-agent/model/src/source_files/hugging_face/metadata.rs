//! Metadata of a configuration: its fields as the keys that GGUF has for them. A field that would change the arithmetic is never passed over.

use super::config::{Config, ConfigError};
use super::conversion::{Conversion, FIELDS, Fixed};
use super::rope::Rope;
use super::tensors::Shape;
use crate::gguf::{GgufTensor, Metadata, Value};
use crate::hyperparameters::MAX_HEAD_SIZE;

/// What a configuration says of a model.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) conversion: &'static Conversion,
    pub(super) metadata: Metadata,
    /// Those that follow from the configuration alone.
    pub(super) tensors: Vec<GgufTensor>,
    pub(super) shape: Shape,
    /// `tie_word_embeddings`, where it is there.
    pub(super) is_tied: Option<bool>,
}

/// Fields that no conversion takes, whatever they say.
const REFUSED: [(&str, &str); 2] = [
    ("quantization_config", "use the model as it was before it was quantised, or a GGUF file of it"),
    ("clip_qkv", "values of queries and keys that are cut off are not computed"),
];

/// # Errors
/// A field that is missing, of another type, or says what is not supported.
pub(super) fn describe(config: Config<'_>) -> Result<Described, ConfigError> {
    let model_type = config.required("model_type", config.text("model_type")?)?;
    let Some(conversion) = Conversion::of(model_type) else {
        let why = format!("supported are {}; use a GGUF file of the model", Conversion::supported());
        return Err(config.unsupported("model_type", why));
    };
    if let Some((field, why)) = REFUSED.iter().find(|(field, _)| config.get(field).is_some()) {
        return Err(config.unsupported(field, *why));
    }
    check_fixed(config, conversion)?;
    let n_heads = config.required("num_attention_heads", config.u32("num_attention_heads")?)?;
    let n_kv_heads = config.u32("num_key_value_heads")?.unwrap_or(n_heads);
    if n_heads == 0 {
        return Err(config.unsupported("num_attention_heads", "at least 1 is"));
    }
    if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
        return Err(config.unsupported("num_key_value_heads", format!("the {n_heads} heads cannot share it evenly")));
    }
    let hidden_size = config.required("hidden_size", config.u32("hidden_size")?)?;
    let head_size = match config.u32("head_dim")? {
        Some(head_size) => head_size,
        None => hidden_size / n_heads,
    };
    // Before anything is made of it: factors of positions are as many as it says.
    if head_size == 0 || head_size > MAX_HEAD_SIZE {
        let field = if config.get("head_dim").is_some() { "head_dim" } else { "hidden_size" };
        return Err(config.unsupported(field, format!("heads of {head_size} values are none of 1 to {MAX_HEAD_SIZE}")));
    }
    check_score_scale(config, conversion, head_size)?;
    check_windows(config, conversion)?;

    let mut metadata = Metadata::default();
    let mut set = |key: &str, value| metadata.set(format!("{}.{key}", conversion.architecture), value);
    for field in FIELDS.iter().chain(conversion.fields) {
        if field.is_fraction {
            config.positive(field.name)?.into_iter().for_each(|number| set(field.key, Value::F32(number)));
        } else {
            config.u32(field.name)?.into_iter().for_each(|number| set(field.key, Value::Unsigned(number.into())));
        }
    }
    let rope = Rope::read(config, head_size)?;
    rope.keys.into_iter().for_each(|(key, value)| set(key, value));
    metadata.set("general.architecture".to_owned(), Value::String(conversion.architecture.to_owned()));
    let is_tied = config.bool("tie_word_embeddings")?;
    let shape = Shape { n_heads, n_kv_heads, is_tied: is_tied.unwrap_or(false) };
    Ok(Described { conversion, metadata, tensors: rope.tensors, shape, is_tied })
}

fn check_fixed(config: Config<'_>, conversion: &Conversion) -> Result<(), ConfigError> {
    let activation = match config.text("hidden_activation")? {
        Some(found) => Some(("hidden_activation", found)),
        None => config.text("hidden_act")?.map(|found| ("hidden_act", found)),
    };
    if let Some((field, found)) = activation
        && found != conversion.activation
    {
        return Err(
            config.unsupported(field, format!("{} models have {}", conversion.architecture, conversion.activation))
        );
    }
    for (field, fixed) in conversion.fixed {
        let (is_alike, why) = match *fixed {
            Fixed::Bool(yes) => (config.bool(field)?.is_none_or(|found| found == yes), yes.to_string()),
            Fixed::Number(number) => (config.f64(field)?.is_none_or(|found| found == number), number.to_string()),
        };
        if !is_alike {
            return Err(config.unsupported(field, format!("in {} models only {why} is", conversion.architecture)));
        }
    }
    Ok(())
}

/// Scores are scaled by the width of a head, but for the one size of each family that llama.cpp knows.
fn check_score_scale(config: Config<'_>, conversion: &Conversion, head_size: u32) -> Result<(), ConfigError> {
    const FIELD: &str = "query_pre_attn_scalar";
    let Some(found) = config.f64(FIELD)? else { return Ok(()) };
    let n_layers = config.u32("num_hidden_layers")?;
    let by_hidden = matches!((conversion.architecture, n_layers), ("gemma2", Some(46)) | ("gemma3", Some(62)));
    let expected = match (by_hidden, config.u32("hidden_size")?, config.u32("num_attention_heads")?) {
        (true, Some(hidden), Some(heads)) if heads > 0 => hidden / heads,
        _ => head_size,
    };
    if found == f64::from(expected) {
        return Ok(());
    }
    Err(config.unsupported(FIELD, format!("in a model of this size only {expected} is")))
}

/// Which layers have a window goes by the family.
fn check_windows(config: Config<'_>, conversion: &Conversion) -> Result<(), ConfigError> {
    const FIELD: &str = "layer_types";
    let Some(found) = config.get(FIELD) else { return Ok(()) };
    let every = conversion.full_attention_every;
    let is_alike = |(layer, kind): (usize, &serde_json::Value)| {
        let expected = if (layer + 1) % every == 0 { "full_attention" } else { "sliding_attention" };
        kind.as_str() == Some(expected)
    };
    if found.as_array().is_some_and(|layers| layers.iter().enumerate().all(is_alike)) {
        return Ok(());
    }
    let why = match every {
        1 => format!("all layers of {} models have full attention", conversion.architecture),
        _ => format!(
            "every {every}th layer of {} models has full attention, the others a window",
            conversion.architecture
        ),
    };
    Err(config.unsupported(FIELD, why))
}
