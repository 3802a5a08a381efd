//! The types of a KV cache, by their names and the bytes that they take. What they keep of a value is a matter of kernels.

/// In what keys and values are kept; `kv-…` in the name of a numerics class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvType {
    F32,
    F16,
    /// 8 bits, with a scale of 2 bytes for each 32 values.
    Q8,
}

/// Values that share a scale.
const GROUP: u64 = 32;

// === impl KvType ===

impl KvType {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// As a numerics class names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// The type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv_type| kv_type.name() == name)
    }

    /// Bytes of a row of keys, or of values, of one position: whole words of 4.
    pub fn row_bytes(self, width: u64) -> u64 {
        4 * match self {
            Self::F32 => width,
            Self::F16 => width.div_ceil(2),
            Self::Q8 => width.div_ceil(4) + width.div_ceil(GROUP).div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KvType;

    #[test]
    fn rows_are_whole_words_with_their_scales() {
        let bytes = |width| KvType::ALL.map(|kv_type| kv_type.row_bytes(width));
        assert_eq!(bytes(192), [768, 384, 192 + 6 * 2]);
        assert_eq!(bytes(21), [84, 44, 24 + 4]);
        assert_eq!(KvType::ALL.map(|kv_type| KvType::named(kv_type.name())), KvType::ALL.map(Some));
    }
}
