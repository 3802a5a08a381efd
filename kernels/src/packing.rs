//! Packings: the canonical form of a matrix's rows, the same in every engine. Says where the bits of a row lie; moves none.
//!
//! A row is groups of 32 columns, the last one filled up with zeros. Its bytes lie in planes one after another, each filled up to whole words:
//! values or codes, then what scales them. Engines lay the words of several rows side by side, so that one load fetches the same word of
//! each: 4 bytes of 8 rows on a processor, 16 bytes of a row a lane on a GPU.

use std::ops::Range;

/// Columns come in groups of this many, whatever the type: the unit of all kernels.
pub const GROUP: usize = 32;
/// Groups that share the upper scale where there are two of them: 256 columns.
pub const SUPER: usize = 8;

/// How the values of a row are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    F32,
    F16,
    Bf16,
    /// Each value a code, which stands for an integer, times a scale.
    Quantised(Codes, Scales),
}

/// What the codes of a group are, and the integers that they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codes {
    /// 2 to 6 bits without a sign, less the offset.
    Bits { bits: u8, offset: i8 },
    /// 8 bits with a sign.
    Bytes,
    /// 4 bits, by a table.
    Table(Table),
}

/// The integers of 16 codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `kvalues_iq4nl` of ggml.
    Iq4,
    /// FP4 E2M1, doubled (OCP Microscaling Formats 1.0).
    Mxfp4,
}

/// What the integers of a group are multiplied with, and what is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scales {
    /// f16 for 32 values.
    Half,
    /// f16 for 32 values, and an f16 that is added.
    HalfMinimum,
    /// 2 to the (e − 128) for 32 values, e being a byte.
    Exponent,
    /// f16 for 256 values times a signed byte for 16.
    Bytes16,
    /// f16 for 256 values times a signed byte for 32.
    Bytes32,
    /// f16 for 256 values times 6 bits less 32 for 16.
    Six16,
    /// f16 for 256 values times a byte for 32, less another f16 times another byte.
    BytesMinimum32,
    /// f16 for 256 values times 4 bits for 16, less another f16 times 4 other bits.
    NibblesMinimum16,
}

/// A part of a row's bytes. Bits of a code or factor of 3, 5 or 6 lie in two planes, the lower ones in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Floats, or codes of 8 bits, in order.
    Values,
    /// 16 bytes a group: byte j has 4 bits of value j, above them those of value 16 + j.
    Nibbles,
    /// 8 bytes a group, two words: word h, shifted right by 2 s, has in its four bytes 2 bits of the values 16 h + 4 s to 16 h + 4 s + 3.
    Pairs,
    /// 4 bytes a group, one word: shifted right by s it has in its four bytes a bit of the values 4 s to 4 s + 3.
    Ones,
    /// Factors of the scale, 16 or 8 for 256 values: bytes; or bytes, then those of the minimum; or 4 bits, above them 4 of the minimum's;
    /// or 4 bits of factor j, above them 4 of factor 8 + j.
    Factors,
    /// 2 bits more of each of 16 factors: a word, which shifted right by 2 s has in its four bytes those of the factors 4 s to 4 s + 3.
    HighFactors,
    /// The scales: f16 or exponents; or f16 of scale and minimum taking turns.
    Scales,
}

/// Where the planes of a row of so many groups lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    n_groups: usize,
    /// The first byte of each plane, and the end of all.
    starts: [usize; Plane::ALL.len() + 1],
}

// === impl Packing ===

impl Packing {
    /// Bytes of a plane for 256 values; 0 where there is no such plane.
    pub const fn plane_bytes(self, plane: Plane) -> usize {
        match self {
            Packing::F32 => matches!(plane, Plane::Values) as usize * 1024,
            Packing::F16 | Packing::Bf16 => matches!(plane, Plane::Values) as usize * 512,
            Packing::Quantised(codes, scales) => match plane {
                Plane::Values => matches!(codes, Codes::Bytes) as usize * 256,
                Plane::Nibbles => codes.has_nibbles() as usize * 128,
                Plane::Pairs => codes.has_pairs() as usize * 64,
                Plane::Ones => codes.has_ones() as usize * 32,
                Plane::Factors => match scales {
                    Scales::Bytes16 | Scales::BytesMinimum32 | Scales::NibblesMinimum16 => 16,
                    Scales::Bytes32 | Scales::Six16 => 8,
                    Scales::Half | Scales::HalfMinimum | Scales::Exponent => 0,
                },
                Plane::HighFactors => matches!(scales, Scales::Six16) as usize * 4,
                Plane::Scales => match scales {
                    Scales::HalfMinimum => 32,
                    Scales::Half => 16,
                    Scales::Exponent => 8,
                    Scales::BytesMinimum32 | Scales::NibblesMinimum16 => 4,
                    Scales::Bytes16 | Scales::Bytes32 | Scales::Six16 => 2,
                },
            },
        }
    }

    /// Codes and scales, where the values are no floats.
    pub const fn quantised(self) -> Option<(Codes, Scales)> {
        match self {
            Packing::Quantised(codes, scales) => Some((codes, scales)),
            _ => None,
        }
    }
}

// === impl Codes ===

impl Codes {
    pub const fn has_nibbles(self) -> bool {
        matches!(self, Codes::Bits { bits: 4..=6, .. } | Codes::Table(_))
    }

    pub const fn has_pairs(self) -> bool {
        matches!(self, Codes::Bits { bits: 2 | 3 | 6, .. })
    }

    pub const fn has_ones(self) -> bool {
        matches!(self, Codes::Bits { bits: 3 | 5, .. })
    }

    /// Bits of a code that lie in other planes than that of the ones.
    pub const fn lower_bits(self) -> u32 {
        if self.has_nibbles() { 4 } else { 2 }
    }

    /// What a code is more than its integer.
    pub const fn offset(self) -> i8 {
        match self {
            Codes::Bits { offset, .. } => offset,
            _ => 0,
        }
    }

    /// The integer that a code stands for.
    pub fn integer(self, code: u8) -> i8 {
        match self {
            Codes::Bits { offset, .. } => code.cast_signed() - offset,
            Codes::Bytes => code.cast_signed(),
            Codes::Table(table) => table.integers()[usize::from(code & 15)],
        }
    }
}

// === impl Table ===

impl Table {
    pub const fn integers(self) -> [i8; 16] {
        match self {
            Table::Iq4 => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
            Table::Mxfp4 => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12],
        }
    }
}

// === impl Scales ===

impl Scales {
    /// Whether the 16 first values of a group have another scale than the last.
    pub const fn has_halves(self) -> bool {
        matches!(self, Scales::Bytes16 | Scales::Six16 | Scales::NibblesMinimum16)
    }

    /// Whether the scale is one of 256 values, times an integer for fewer.
    pub const fn has_factors(self) -> bool {
        !matches!(self, Scales::Half | Scales::HalfMinimum | Scales::Exponent)
    }

    pub const fn has_minimum(self) -> bool {
        matches!(self, Scales::HalfMinimum | Scales::BytesMinimum32 | Scales::NibblesMinimum16)
    }
}

// === impl Plane ===

impl Plane {
    /// In the order of a row.
    pub const ALL: [Plane; 7] =
        [Plane::Values, Plane::Nibbles, Plane::Pairs, Plane::Ones, Plane::Factors, Plane::HighFactors, Plane::Scales];
}

// === impl Layout ===

impl Layout {
    /// Of rows of `n_cols`, each plane filled up to words of so many bytes.
    pub fn new(packing: Packing, n_cols: usize, word: usize) -> Self {
        let n_groups = n_cols.div_ceil(GROUP);
        let mut starts = [0; Plane::ALL.len() + 1];
        for (at, plane) in Plane::ALL.into_iter().enumerate() {
            let bytes = (packing.plane_bytes(plane) * n_groups).div_ceil(SUPER);
            starts[at + 1] = starts[at] + bytes.next_multiple_of(word);
        }
        Self { n_groups, starts }
    }

    pub fn n_groups(&self) -> usize {
        self.n_groups
    }

    pub fn row_bytes(&self) -> usize {
        self.starts[Plane::ALL.len()]
    }

    /// The bytes of a plane in a row.
    pub fn range(&self, plane: Plane) -> Range<usize> {
        self.starts[plane as usize]..self.starts[plane as usize + 1]
    }
}
