//! The types of a KV cache: how a row of keys or of values lies in words of 4 bytes. Compiled into the build script, too; computes nothing.

/// In what keys and values are kept. A part of the numerics class, of which each makes another.
///
/// Each value is rounded once, when it is written, and read back as the f32 that it stands for, exactly: attention adds and multiplies in the order
/// of its arithmetic, whatever the type. `cpu/kv_row.rs` has a scalar reference of each; every engine gives its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// A word a value: as computed.
    F32,
    /// Two values a word, the first in its lower half: f16, to nearest, ties to even, subnormals (multiples of 2⁻²⁴) included. What is 65,520 or more becomes
    /// infinite, as IEEE 754 says; what is no number stays none.
    F16,
    /// Four values a word, the first in its lowest byte, and after those of the whole row a scale for each 32 of them, two a word; the last 32 may be
    /// fewer. 32 values stand together wherever heads begin: a row of a model's keys is one row of hidden states to `ActivationRounding::Q8`, whose
    /// definition this is. A scale is a bf16, a value scale × signed byte, which an f32 holds.
    Q8,
}

/// Values that share a scale.
pub const KV_GROUP: usize = 32;

// === impl KvType ===

impl KvType {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// Bytes of one value, its group's scale apart.
    pub const fn value_bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Q8 => 1,
        }
    }

    /// Words of 4 bytes that a row of `width` values takes.
    pub const fn row_words(self, width: usize) -> usize {
        match self {
            Self::F32 => width,
            Self::F16 => width.div_ceil(2),
            Self::Q8 => width.div_ceil(4) + width.div_ceil(KV_GROUP).div_ceil(2),
        }
    }

    /// Parts of a row that are written each by itself: whole words, with the scales of their values.
    pub const fn n_units(self, width: usize) -> usize {
        match self {
            Self::F32 => width,
            Self::F16 => width.div_ceil(2),
            Self::Q8 => width.div_ceil(2 * KV_GROUP),
        }
    }

    /// As a numerics class names it after `kv-`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }
}
