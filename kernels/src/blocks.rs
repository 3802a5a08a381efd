//! Blocks: how GGML files pack values, taken apart type by type (`block_*` of ggml). Multiplies nothing.

/// The values of the longest block.
pub const MAX_VALUES: usize = 256;

/// A block taken apart. Values of 256 have 16 factors, of each 16 values or, the first 8, of each 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// One a value, as the type's `Codes` say.
    pub codes: [u8; MAX_VALUES],
    /// What the scale is multiplied with, where the type has two of them.
    pub factors: [i8; 16],
    /// What the minimum is multiplied with.
    pub minimum_factors: [u8; 16],
    /// The bits of an f16, or an exponent.
    pub scale: u16,
    /// The bits of an f16.
    pub minimum: u16,
}

// === impl Block ===

impl Default for Block {
    fn default() -> Self {
        Self { codes: [0; MAX_VALUES], factors: [0; 16], minimum_factors: [0; 16], scale: 0, minimum: 0 }
    }
}

/// f16 d, 16 bytes of nibbles.
pub fn q4_0(bytes: &[u8], block: &mut Block) {
    block.scale = half(bytes, 0);
    nibbles(&bytes[2..18], &mut block.codes);
}

/// f16 d, f16 m, 16 bytes of nibbles.
pub fn q4_1(bytes: &[u8], block: &mut Block) {
    (block.scale, block.minimum) = (half(bytes, 0), half(bytes, 2));
    nibbles(&bytes[4..20], &mut block.codes);
}

/// f16 d, 32 fifth bits, 16 bytes of nibbles.
pub fn q5_0(bytes: &[u8], block: &mut Block) {
    block.scale = half(bytes, 0);
    nibbles(&bytes[6..22], &mut block.codes);
    fifth_bits(&bytes[2..6], &mut block.codes);
}

/// f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles.
pub fn q5_1(bytes: &[u8], block: &mut Block) {
    (block.scale, block.minimum) = (half(bytes, 0), half(bytes, 2));
    nibbles(&bytes[8..24], &mut block.codes);
    fifth_bits(&bytes[4..8], &mut block.codes);
}

/// f16 d, 32 signed bytes.
pub fn q8_0(bytes: &[u8], block: &mut Block) {
    block.scale = half(bytes, 0);
    block.codes[..32].copy_from_slice(&bytes[2..34]);
}

/// 16 bytes of factors and, above them, the minimum's, 64 bytes of 2 bits, f16 d, f16 m.
pub fn q2_k(bytes: &[u8], block: &mut Block) {
    for (j, byte) in bytes[..16].iter().enumerate() {
        block.factors[j] = (byte & 15).cast_signed();
        block.minimum_factors[j] = byte >> 4;
    }
    pairs(&bytes[16..80], &mut block.codes);
    (block.scale, block.minimum) = (half(bytes, 80), half(bytes, 82));
}

/// 256 third bits, 64 bytes of 2 bits, 16 factors of 6 bits, f16 d.
pub fn q3_k(bytes: &[u8], block: &mut Block) {
    pairs(&bytes[32..96], &mut block.codes);
    for (i, code) in block.codes.iter_mut().enumerate() {
        *code |= (bytes[i % 32] >> (i / 32) & 1) << 2;
    }
    let (low, high) = (&bytes[96..104], &bytes[104..108]);
    for (j, factor) in block.factors.iter_mut().enumerate() {
        let low = low[j % 8] >> (4 * (j / 8)) & 15;
        let high = high[j % 4] >> (2 * (j / 4)) & 3;
        *factor = (low | high << 4).cast_signed() - 32;
    }
    block.scale = half(bytes, 108);
}

/// f16 d, f16 m, 8 factors and minimums of 6 bits, 128 bytes of nibbles.
pub fn q4_k(bytes: &[u8], block: &mut Block) {
    (block.scale, block.minimum) = (half(bytes, 0), half(bytes, 2));
    six_bit_factors(&bytes[4..16], block);
    long_nibbles(&bytes[16..144], &mut block.codes);
}

/// f16 d, f16 m, 8 factors and minimums of 6 bits, 256 fifth bits, 128 bytes of nibbles.
pub fn q5_k(bytes: &[u8], block: &mut Block) {
    (block.scale, block.minimum) = (half(bytes, 0), half(bytes, 2));
    six_bit_factors(&bytes[4..16], block);
    long_nibbles(&bytes[48..176], &mut block.codes);
    for (i, code) in block.codes.iter_mut().enumerate() {
        *code |= (bytes[16 + i % 32] >> (i / 32) & 1) << 4;
    }
}

/// 128 bytes of lower nibbles, 64 bytes of upper 2 bits, 16 signed factors, f16 d.
pub fn q6_k(bytes: &[u8], block: &mut Block) {
    for (half, codes) in block.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (&bytes[64 * half..64 * half + 64], &bytes[128 + 32 * half..160 + 32 * half]);
        for (i, code) in codes.iter_mut().enumerate() {
            let low = low[i % 64] >> (4 * (i / 64)) & 15;
            let high = high[i % 32] >> (2 * (i / 32)) & 3;
            *code = low | high << 4;
        }
    }
    for (factor, byte) in block.factors.iter_mut().zip(&bytes[192..208]) {
        *factor = byte.cast_signed();
    }
    block.scale = half(bytes, 208);
}

/// f16 d, 2 upper bits of 8 factors, 4 lower bits of them, 8 times 16 bytes of nibbles.
pub fn iq4_xs(bytes: &[u8], block: &mut Block) {
    block.scale = half(bytes, 0);
    let high = half(bytes, 2);
    for (j, factor) in block.factors[..8].iter_mut().enumerate() {
        let low = bytes[4 + j / 2] >> (4 * (j % 2)) & 15;
        *factor = (low | ((high >> (2 * j) & 3) as u8) << 4).cast_signed() - 32;
    }
    let groups = bytes[8..136].as_chunks::<16>().0.iter().zip(block.codes.as_chunks_mut::<32>().0);
    groups.for_each(|(bytes, codes)| nibbles(bytes, codes));
}

/// Exponent, 16 bytes of nibbles.
pub fn mxfp4(bytes: &[u8], block: &mut Block) {
    block.scale = u16::from(bytes[0]);
    nibbles(&bytes[1..17], &mut block.codes);
}

/// 16 bytes: the lower halves are the first 16 values, the upper ones the last.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (first, last) = codes.split_at_mut(16);
    for ((byte, first), last) in bytes.iter().zip(first).zip(last) {
        (*first, *last) = (byte & 15, byte >> 4);
    }
}

/// 4 times 32 bytes: the lower halves are 32 values, the upper ones the next 32.
fn long_nibbles(bytes: &[u8], codes: &mut [u8; MAX_VALUES]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
        let (first, last) = codes.split_at_mut(32);
        for ((byte, first), last) in bytes.iter().zip(first).zip(last) {
            (*first, *last) = (byte & 15, byte >> 4);
        }
    }
}

/// Twice 32 bytes, whose bits 0 and 1, 2 and 3, … are 32 values each.
fn pairs(bytes: &[u8], codes: &mut [u8; MAX_VALUES]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = bytes[i % 32] >> (2 * (i / 32)) & 3;
        }
    }
}

/// Bit i of 4 bytes is that of value i.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// 12 bytes: 6 bits of the first four factors, then of their minimums, whose upper 2 bits are those of the last four; then these' lower 4
/// bits and, above them, those of their minimums.
fn six_bit_factors(bytes: &[u8], block: &mut Block) {
    for j in 0..4 {
        let (factor, minimum, rest) = (bytes[j], bytes[4 + j], bytes[8 + j]);
        block.factors[j] = (factor & 63).cast_signed();
        block.minimum_factors[j] = minimum & 63;
        block.factors[4 + j] = (rest & 15 | factor >> 6 << 4).cast_signed();
        block.minimum_factors[4 + j] = rest >> 4 | minimum >> 6 << 4;
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
