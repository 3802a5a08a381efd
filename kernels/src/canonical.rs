//! The canonical form of a matrix: file bytes into the planes of its packing, and planes back into values. Exact both ways.

use std::io;

use half::{bf16, f16};

use crate::blocks::Block;
use crate::file_bytes::{FileBytes, Rows};
use crate::packing::{Codes, GROUP, Layout, Packing, Plane, SUPER, Scales};
use crate::shapes::MatrixShape;
use crate::weight_type::WeightType;

/// All rows of a matrix in file bytes.
pub(crate) fn all(shape: MatrixShape, ggml: &dyn FileBytes) -> Rows {
    Rows { first: 0, n: shape.n_rows, n_bytes: ggml.n_bytes() / shape.n_rows.max(1) }
}

/// Rows of a matrix in file bytes as canonical rows one after another, each plane filled up to words of so many bytes.
///
/// # Errors
/// What keeps the bytes from being read.
pub(crate) fn rows(shape: MatrixShape, ggml: &dyn FileBytes, word: usize) -> io::Result<Vec<u8>> {
    let layout = shape.layout(word);
    let mut canonical = vec![0; layout.row_bytes() * shape.n_rows];
    all(shape, ggml).each(ggml, |row, bytes| {
        let out = &mut canonical[row * layout.row_bytes()..(row + 1) * layout.row_bytes()];
        pack_row(shape.weight_type, &layout, bytes, out);
    })?;
    Ok(canonical)
}

/// As [`rows`], of a part of a matrix, with the words of `n` rows taking turns, and rows of zeros to fill up the last strip:
/// `[strip][word][row]`.
///
/// # Errors
/// As [`rows`].
pub(crate) fn strips(
    shape: MatrixShape,
    rows: Rows,
    ggml: &dyn FileBytes,
    word: usize,
    n: usize,
) -> io::Result<Vec<u8>> {
    let layout = shape.layout(word);
    let mut canonical = vec![0; layout.row_bytes()];
    let mut strips = vec![0; layout.row_bytes() * rows.n.next_multiple_of(n)];
    rows.each(ggml, |row, bytes| {
        pack_row(shape.weight_type, &layout, bytes, &mut canonical);
        let (strip, r) = (&mut strips[row / n * n * layout.row_bytes()..], row % n);
        for (from, to) in canonical.chunks_exact(word).zip(strip.chunks_exact_mut(word * n)) {
            to[r * word..(r + 1) * word].copy_from_slice(from);
        }
    })?;
    Ok(strips)
}

/// A row out of [`strips`].
pub(crate) fn row_of_strips(layout: &Layout, strips: &[u8], word: usize, n: usize, row: usize) -> Vec<u8> {
    let strip_bytes = layout.row_bytes() * n;
    let strip = &strips[row / n * strip_bytes..][..strip_bytes];
    strip.chunks_exact(word).skip(row % n).step_by(n).flatten().copied().collect()
}

/// One row; every byte of `out` that holds something is written.
fn pack_row(weight_type: WeightType, layout: &Layout, ggml: &[u8], out: &mut [u8]) {
    let Some((codes, scales)) = weight_type.packing().quantised() else {
        out[..ggml.len()].copy_from_slice(ggml);
        return;
    };
    let (values, bytes) = weight_type.block();
    let mut block = Block::default();
    for (index, bytes) in ggml.chunks_exact(bytes).enumerate() {
        weight_type.take_apart(bytes, &mut block);
        let first = index * values / GROUP;
        for (group, group_codes) in (first..).zip(block.codes[..values].as_chunks::<GROUP>().0) {
            pack_codes(codes, layout, group, group_codes, out);
        }
        let mut put = |plane: Plane, size: usize, place: usize, bytes: &[u8]| {
            let at = layout.range(plane).start + place * size;
            out[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let (scale, minimum) = (block.scale.to_le_bytes(), block.minimum.to_le_bytes());
        match scales {
            Scales::Exponent => put(Plane::Scales, 1, first, &scale[..1]),
            _ if scales.has_minimum() => put(Plane::Scales, 4, index, &[scale[0], scale[1], minimum[0], minimum[1]]),
            _ => put(Plane::Scales, 2, index, &scale),
        }
        let factors = block.factors.map(i8::cast_unsigned);
        match scales {
            Scales::Half | Scales::HalfMinimum | Scales::Exponent => {}
            Scales::Bytes16 => put(Plane::Factors, 16, index, &factors),
            Scales::Bytes32 => put(Plane::Factors, 8, index, &factors[..8]),
            Scales::BytesMinimum32 => {
                put(Plane::Factors, 16, index, &factors[..8]);
                put(Plane::Factors, 8, 2 * index + 1, &block.minimum_factors[..8]);
            }
            Scales::NibblesMinimum16 => {
                let both: [u8; 16] = std::array::from_fn(|j| factors[j] | block.minimum_factors[j] << 4);
                put(Plane::Factors, 16, index, &both);
            }
            Scales::Six16 => {
                let raw = block.factors.map(|factor| (factor + 32).cast_unsigned());
                let low: [u8; 8] = std::array::from_fn(|j| raw[j] & 15 | raw[8 + j] << 4);
                let high: [u8; 4] =
                    std::array::from_fn(|j| (0..4).fold(0, |bits, s| bits | raw[4 * s + j] >> 4 << (2 * s)));
                put(Plane::Factors, 8, index, &low);
                put(Plane::HighFactors, 4, index, &high);
            }
        }
    }
}

/// The codes of a group into their planes.
fn pack_codes(codes: Codes, layout: &Layout, group: usize, group_codes: &[u8; GROUP], out: &mut [u8]) {
    let place = |plane: Plane, size: usize| {
        let at = layout.range(plane).start + group * size;
        at..at + size
    };
    if codes == Codes::Bytes {
        out[place(Plane::Values, GROUP)].copy_from_slice(group_codes);
        return;
    }
    if codes.has_nibbles() {
        for (j, byte) in out[place(Plane::Nibbles, 16)].iter_mut().enumerate() {
            *byte = group_codes[j] & 15 | group_codes[16 + j] << 4;
        }
    }
    if codes.has_pairs() {
        let lower = if codes.has_nibbles() { 4 } else { 0 };
        for (j, byte) in out[place(Plane::Pairs, 8)].iter_mut().enumerate() {
            let first = 16 * (j / 4) + j % 4;
            *byte = (0..4).fold(0, |bits, s| bits | (group_codes[first + 4 * s] >> lower & 3) << (2 * s));
        }
    }
    if codes.has_ones() {
        let lower = codes.lower_bits();
        for (j, byte) in out[place(Plane::Ones, 4)].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |bits, s| bits | (group_codes[j + 4 * s] >> lower & 1) << s);
        }
    }
}

/// The planes of one row that codes lie in, by groups; those that the packing lacks are empty.
#[derive(Clone, Copy)]
pub(crate) struct CodePlanes<'a> {
    pub codes: Codes,
    pub bytes: &'a [[u8; GROUP]],
    pub nibbles: &'a [[u8; 16]],
    pub pairs: &'a [[u8; 8]],
    pub ones: &'a [[u8; 4]],
}

impl<'a> CodePlanes<'a> {
    pub fn of(codes: Codes, layout: &Layout, row: &'a [u8]) -> Self {
        let n = layout.n_groups();
        // Words that are filled up may hold more groups than there are.
        fn first<const N: usize>(plane: &[u8], n: usize) -> &[[u8; N]] {
            let groups = plane.as_chunks::<N>().0;
            &groups[..n.min(groups.len())]
        }
        Self {
            codes,
            bytes: first(&row[layout.range(Plane::Values)], n),
            nibbles: first(&row[layout.range(Plane::Nibbles)], n),
            pairs: first(&row[layout.range(Plane::Pairs)], n),
            ones: first(&row[layout.range(Plane::Ones)], n),
        }
    }

    /// The codes of a group, in the order of its values.
    #[inline(always)]
    pub fn group(&self, group: usize) -> [u8; GROUP] {
        let codes = self.codes;
        if codes == Codes::Bytes {
            return self.bytes[group];
        }
        let mut values = [0; GROUP];
        if codes.has_nibbles() {
            let nibbles = &self.nibbles[group];
            for j in 0..16 {
                values[j] = nibbles[j] & 15;
            }
            for j in 0..16 {
                values[16 + j] = nibbles[j] >> 4;
            }
        }
        if codes.has_pairs() {
            let pairs = &self.pairs[group];
            let lower = if codes.has_nibbles() { 4 } else { 0 };
            for (i, value) in values.iter_mut().enumerate() {
                *value |= (pairs[4 * (i / 16) + i % 4] >> (2 * (i / 4 % 4)) & 3) << lower;
            }
        }
        if codes.has_ones() {
            let (ones, lower) = (&self.ones[group], codes.lower_bits());
            for (i, value) in values.iter_mut().enumerate() {
                *value |= (ones[i % 4] >> (i / 4) & 1) << lower;
            }
        }
        values
    }
}

/// What the 16 first and the 16 last integers of a group are multiplied with, and what is added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scale {
    pub d: [f32; 2],
    pub m: [f32; 2],
}

/// The scales of a row, by groups. Products of a scale with a factor are exact: 11 bits times 8.
pub(crate) struct ScalePlanes<'a> {
    scales: Scales,
    upper: &'a [u8],
    factors: &'a [u8],
    high_factors: &'a [u8],
}

impl<'a> ScalePlanes<'a> {
    pub fn of(scales: Scales, layout: &Layout, row: &'a [u8]) -> Self {
        let plane = |plane| &row[layout.range(plane)];
        let (upper, factors) = (plane(Plane::Scales), plane(Plane::Factors));
        Self { scales, upper, factors, high_factors: plane(Plane::HighFactors) }
    }

    pub fn group(&self, group: usize) -> Scale {
        let half = |place: usize| half_to_f32(&self.upper[2 * place..2 * place + 2]);
        let (block, at) = (group / SUPER, group % SUPER);
        match self.scales {
            Scales::Half => Scale { d: [half(group); 2], m: [0.0; 2] },
            Scales::HalfMinimum => Scale { d: [half(2 * group); 2], m: [half(2 * group + 1); 2] },
            Scales::Exponent => Scale { d: [exponent(self.upper[group]); 2], m: [0.0; 2] },
            Scales::Bytes16 => {
                let factor = |j: usize| f32::from(self.factors[16 * block + 2 * at + j].cast_signed());
                Scale { d: [0, 1].map(|j| half(block) * factor(j)), m: [0.0; 2] }
            }
            Scales::Bytes32 => {
                let factor = f32::from(self.factors[8 * block + at].cast_signed());
                Scale { d: [half(block) * factor; 2], m: [0.0; 2] }
            }
            Scales::Six16 => {
                let factor = |j: usize| {
                    let low = self.factors[8 * block + j % 8] >> (4 * (j / 8)) & 15;
                    let high = self.high_factors[4 * block + j % 4] >> (2 * (j / 4)) & 3;
                    f32::from(low | high << 4) - 32.0
                };
                Scale { d: [0, 1].map(|j| half(block) * factor(2 * at + j)), m: [0.0; 2] }
            }
            Scales::BytesMinimum32 => {
                let factor = |j: usize| f32::from(self.factors[16 * block + 8 * j + at]);
                Scale { d: [half(2 * block) * factor(0); 2], m: [-(half(2 * block + 1) * factor(1)); 2] }
            }
            Scales::NibblesMinimum16 => {
                let factors = [0, 1].map(|j| self.factors[16 * block + 2 * at + j]);
                let d = factors.map(|factor| half(2 * block) * f32::from(factor & 15));
                Scale { d, m: factors.map(|factor| -(half(2 * block + 1) * f32::from(factor >> 4))) }
            }
        }
    }
}

/// A canonical row to its values. `out` is as long as the row has columns.
pub(crate) fn values(packing: Packing, layout: &Layout, row: &[u8], out: &mut [f32]) {
    let plane = &row[layout.range(Plane::Values)];
    match packing {
        Packing::F32 => {
            out.iter_mut().zip(plane.as_chunks::<4>().0).for_each(|(out, bytes)| *out = f32::from_le_bytes(*bytes));
        }
        Packing::F16 => {
            out.iter_mut().zip(plane.as_chunks::<2>().0).for_each(|(out, bytes)| *out = half_to_f32(bytes));
        }
        Packing::Bf16 => {
            out.iter_mut().zip(plane.as_chunks::<2>().0).for_each(|(out, bytes)| *out = brain_to_f32(*bytes));
        }
        Packing::Quantised(codes, scales) => {
            let (planes, scales) = (CodePlanes::of(codes, layout, row), ScalePlanes::of(scales, layout, row));
            for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
                let (values, scale) = (planes.group(group), scales.group(group));
                for (i, (out, code)) in out.iter_mut().zip(values).enumerate() {
                    *out = scale.d[i / 16] * f32::from(codes.integer(code)) + scale.m[i / 16];
                }
            }
        }
    }
}

// === impl WeightType ===

impl WeightType {
    /// Whole blocks of file bytes to f32 values: the definition that every kernel is held to, and no part of any. Scale times factor times
    /// integer is exact, so each value is rounded once, where a minimum is added, and not at all where there is none.
    ///
    /// `out` holds as many values as `ggml` packs; what is over on either side is left alone.
    pub fn dequantise(self, ggml: &[u8], out: &mut [f32]) {
        let (n_values, n_bytes) = self.block();
        let blocks = ggml.chunks_exact(n_bytes).zip(out.chunks_exact_mut(n_values));
        let Packing::Quantised(codes, scales) = self.packing() else {
            let value: fn(&[u8]) -> f32 = match self.packing() {
                Packing::F16 => |bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                Packing::Bf16 => |bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                _ => |bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            };
            return blocks.for_each(|(bytes, out)| out[0] = value(bytes));
        };
        let mut block = Block::default();
        for (bytes, out) in blocks {
            self.take_apart(bytes, &mut block);
            let scale = match scales {
                Scales::Exponent => exponent(block.scale as u8),
                _ => f16::from_bits(block.scale).to_f32(),
            };
            let minimum = f16::from_bits(block.minimum).to_f32();
            for (i, (out, code)) in out.iter_mut().zip(block.codes).enumerate() {
                let at = if scales.has_halves() { i / 16 } else { i / 32 };
                let factor = |factor: f32| if n_values == GROUP { 1.0 } else { factor };
                let product = scale * factor(f32::from(block.factors[at])) * f32::from(codes.integer(code));
                *out = match scales {
                    Scales::HalfMinimum => product + minimum,
                    _ if scales.has_minimum() => product - minimum * f32::from(block.minimum_factors[at]),
                    _ => product,
                };
            }
        }
    }
}

/// 2 to the (e − 128), as far down as f32 goes.
pub(crate) fn exponent(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Two bytes of bf16 to f32.
#[inline(always)]
pub(crate) fn brain_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Two bytes of f16 to f32 without a branch or a call, so that loops over it become SIMD. Exact, NaN and infinities included.
#[inline(always)]
pub(crate) fn half_to_f32(bytes: &[u8]) -> f32 {
    half_bits_to_f32(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

/// As [`half_to_f32`], of 16 bits.
#[inline(always)]
pub(crate) fn half_bits_to_f32(bits: u32) -> f32 {
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias goes from 15 to 127 by a multiplication, which sets subnormals right as well.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (bits & 0x8000) << 16)
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
