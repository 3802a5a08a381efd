//! Tensors of a folder as GGUF has them: their names, the order of their dimensions and rows, their types. Reads none of them.

use std::collections::BTreeMap;

use super::FolderError;
use super::conversion::{Conversion, Target};
use crate::gguf::GgufTensor;
use crate::source_files::safetensors::Listed;
use crate::source_files::tensor_source::{FileRange, Form, TensorSource};
use crate::tensor_type::TensorType;

/// A tensor of one of the folder's files, which are counted from 0.
pub(super) struct Placed {
    pub(super) file: u32,
    pub(super) listed: Listed,
}

/// What the conversion of tensors depends on besides the family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) n_heads: u32,
    pub(super) n_kv_heads: u32,
    /// The embedding is the output matrix, too, whatever else is there.
    pub(super) is_tied: bool,
}

/// The tensors by their names in GGUF.
///
/// # Errors
/// A tensor that the family does not have, that is of a type which no conversion takes, or that stands for the same as another.
pub(super) fn convert(
    placed: &BTreeMap<String, Placed>,
    conversion: &Conversion,
    shape: Shape,
) -> Result<Vec<GgufTensor>, FolderError> {
    let mut tensors: BTreeMap<String, GgufTensor> = BTreeMap::new();
    let mut experts: BTreeMap<String, BTreeMap<u32, GgufTensor>> = BTreeMap::new();
    for (from, of) in placed {
        let (name, expert) = match conversion.target(from) {
            Target::Tensor { name, .. } if shape.is_tied && name == "output.weight" => continue,
            Target::Tensor { name, expert } => (name, expert),
            Target::Dropped => continue,
            Target::Unknown => {
                return Err(FolderError::UnknownTensor { tensor: from.clone(), architecture: conversion.architecture });
            }
        };
        let tensor = converted(from, name, of, conversion, shape)?;
        let twice = match expert {
            Some(expert) => experts.entry(tensor.name.clone()).or_default().insert(expert, tensor).is_some(),
            None => tensors.insert(tensor.name.clone(), tensor).is_some(),
        };
        if twice {
            return Err(FolderError::Same { tensor: from.clone() });
        }
    }
    let together = experts.into_iter().map(|(name, parts)| of_experts(name, parts));
    tensors.into_values().map(Ok).chain(together).collect()
}

fn converted(
    from: &str,
    name: String,
    of: &Placed,
    conversion: &Conversion,
    heads: Shape,
) -> Result<GgufTensor, FolderError> {
    let Listed { dtype, ref shape, offset, n_bytes } = of.listed;
    let plain = [TensorType::F32, TensorType::F16, TensorType::Bf16];
    let Some(found) = dtype.tensor_type.filter(|found| plain.contains(found)) else {
        return Err(FolderError::TensorType { tensor: from.to_owned(), found: dtype.name });
    };
    let shape: Vec<u64> = shape.iter().rev().copied().collect();
    // As the converter, which keeps in F32 what is small and has to be exact.
    let is_single = shape.len() == 1 || name.ends_with("ffn_gate_inp.weight");
    let tensor_type = if is_single { TensorType::F32 } else { found };
    let n_heads = match name.rsplit('.').nth(1) {
        Some("attn_q") if conversion.heads_take_turns => Some(heads.n_heads),
        Some("attn_k") if conversion.heads_take_turns => Some(heads.n_kv_heads),
        _ => None,
    };
    let form = Form {
        heads_taking_turns: n_heads,
        widened_from: (tensor_type != found).then_some(found),
        plus_one: conversion.norms_plus_one && name.ends_with("norm.weight"),
    };
    let source = TensorSource { ranges: vec![FileRange { file: of.file, offset, n_bytes }], form, ..TensorSource::default() };
    let unfit = |why: String| FolderError::Unfit { tensor: from.to_owned(), why };
    let whole = tensor_type.bytes(&shape).ok_or_else(|| unfit(format!("no tensor has the shape {shape:?}")))?;
    source.check(tensor_type, &shape, whole).map_err(|misfit| unfit(misfit.to_string()))?;
    Ok(GgufTensor { name, shape, tensor_type, n_bytes: whole, source })
}

/// One tensor of those of all experts, the expert being the slowest dimension.
fn of_experts(name: String, parts: BTreeMap<u32, GgufTensor>) -> Result<GgufTensor, FolderError> {
    let unfit = |why: String| FolderError::Unfit { tensor: name.clone(), why };
    if let Some((missing, _)) = (0..).zip(parts.keys()).find(|(expected, found)| expected != *found) {
        return Err(unfit(format!("that of expert {missing} is missing; fetch the model again")));
    }
    let mut parts = parts.into_values();
    let mut whole = parts.next().ok_or_else(|| unfit("it has no expert".to_owned()))?;
    let n_experts = 1 + parts.len() as u64;
    for part in parts {
        if (&part.shape, part.tensor_type, part.source.form) != (&whole.shape, whole.tensor_type, whole.source.form) {
            return Err(unfit("its experts have several shapes or types".to_owned()));
        }
        whole.source.ranges.extend(part.source.ranges);
        whole.n_bytes = whole.n_bytes.checked_add(part.n_bytes).ok_or_else(|| unfit("it is too large".to_owned()))?;
    }
    whole.shape.push(n_experts);
    Ok(whole)
}
