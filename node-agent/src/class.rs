//! Numerics classes by their names, such as `cpu-int8-r2/f16/kv-f16`: what computes, what travels, what is kept.

use polyphony_kernels::KvType;

/// What an assignment says that a segment computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class<'a> {
    /// Backend and arithmetic with its revision, and of a GPU its device and driver.
    pub numerics: &'a str,
    /// In what keys and values are kept.
    pub kv_type: KvType,
}

/// Why a name is none that this build knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    #[error(
        "the plan's class {class:?} keeps keys and values in {found}, and this agent knows f32, f16 and q8: update it"
    )]
    KvType { class: String, found: String },
    #[error("the plan's class {class:?} is no `arithmetic/hidden states/kv-type`: update the controller")]
    Form { class: String },
}

// === impl Class ===

impl<'a> Class<'a> {
    /// Takes a name apart. One that says nothing of KV caches means f32.
    ///
    /// # Errors
    /// When it names what this build does not know.
    pub fn parse(class: &'a str) -> Result<Self, ClassError> {
        let form = || ClassError::Form { class: class.to_owned() };
        let mut parts = class.split('/');
        let (Some(numerics), Some(_hidden)) = (parts.next(), parts.next()) else { return Err(form()) };
        let kv_type = match parts.next() {
            None => KvType::F32,
            Some(part) => {
                let name = part.strip_prefix("kv-").ok_or_else(form)?;
                let known = KvType::ALL.into_iter().find(|kv_type| kv_type.name() == name);
                known.ok_or_else(|| ClassError::KvType { class: class.to_owned(), found: name.to_owned() })?
            }
        };
        if numerics.is_empty() || parts.next().is_some() {
            return Err(form());
        }
        Ok(Self { numerics, kv_type })
    }
}

/// The same type, as footprints count it.
pub fn counted(kv_type: KvType) -> polyphony_model::KvType {
    match kv_type {
        KvType::F32 => polyphony_model::KvType::F32,
        KvType::F16 => polyphony_model::KvType::F16,
        KvType::Q8 => polyphony_model::KvType::Q8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_class_says_what_is_kept_and_what_is_unknown_is_named() {
        let kept = |class| Class::parse(class).map(|class| (class.numerics, class.kv_type));
        assert_eq!(kept("cpu-int8-r2/f16/kv-q8"), Ok(("cpu-int8-r2", KvType::Q8)));
        assert_eq!(kept("cpu-f32-r1/q8/kv-f16"), Ok(("cpu-f32-r1", KvType::F16)));
        assert_eq!(kept("cpu-f32-r1/f16"), Ok(("cpu-f32-r1", KvType::F32)), "of before");
        let unknown = kept("cpu-f32-r1/f16/kv-q4").unwrap_err().to_string();
        assert!(unknown.contains("in q4, and this agent knows f32, f16 and q8"), "{unknown}");
        for bad in ["", "cpu-f32-r1", "/f16/kv-f16", "cpu-f32-r1/f16/f16", "cpu-f32-r1/f16/kv-f16/x"] {
            assert!(matches!(kept(bad), Err(ClassError::Form { .. })), "{bad}");
        }
    }

    /// What engines take is what segments declare and plans count.
    #[test]
    fn rows_are_counted_as_they_are_kept() {
        for kv_type in KvType::ALL {
            assert_eq!(counted(kv_type).name(), kv_type.name());
            for width in 1..=300_u32 {
                let kept = kv_type.row_words(width as usize) as u64 * 4;
                assert_eq!(counted(kv_type).row_bytes(width.into()), kept, "{kv_type:?}, {width} values");
            }
        }
    }
}
