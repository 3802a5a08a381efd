//! Quantised matrices times rows of f32.
//!
//! Of each group of 32 weights the integers are multiplied first: lane l of 16 takes t = q[l] · x[l] + q[l + 16] · x[l + 16], its
//! sum grows by d · t, and the group's minimum counts once, times the sum of its 32 activations. Where the halves of a group have a scale
//! each, the sum grows by d · q[l] · x[l] of the first, then of the last, and each has its minimum. Every processor does this in the
//! same order, so all give the same bits.

use super::row_scales::RowScales;
use super::{Add, spread};
use crate::canonical::CodePlanes;
use crate::cpu::Matrix;
use crate::cpu::crew::Crew;
use crate::cpu::lanes::{self, Lanes};
use crate::packing::{Codes, GROUP, Layout, Scales};

#[cfg(target_arch = "x86_64")]
mod avx2;

/// As [`fast`](super::fast()).
pub(super) fn multiply(
    weight: Matrix<'_>,
    packing: (Codes, Scales),
    x: &[f32],
    add: &Add<'_>,
    out: &mut [f32],
    crew: &Crew,
) {
    let (codes, scales) = packing;
    let rows: Vec<Activations<'_>> =
        x.chunks_exact(weight.shape.n_cols).map(|row| Activations::of(row, scales.has_halves())).collect();
    let matrix = Packed { codes, scales, layout: weight.layout };
    spread(weight, rows.len(), add, out, crew, |bytes, out| products(&matrix, bytes, &rows, out));
}

/// How the rows of a matrix are packed.
pub(super) struct Packed {
    codes: Codes,
    scales: Scales,
    layout: Layout,
}

/// A row of activations by groups, with the sums that minimums are multiplied with.
struct Activations<'a> {
    groups: &'a [[f32; GROUP]],
    /// Of each group, or of each half of one.
    sums: Vec<f32>,
}

impl<'a> Activations<'a> {
    fn of(row: &'a [f32], has_halves: bool) -> Self {
        let sums = row.chunks_exact(if has_halves { GROUP / 2 } else { GROUP }).map(lanes::sum).collect();
        Self { groups: row.as_chunks::<GROUP>().0, sums }
    }
}

// How codes are unpacked: those that most files are made of have ways of their own.
const NIBBLES: u8 = 4;
const BYTES: u8 = 8;
const ANY: u8 = 0;

/// Products of some of a matrix's rows, `[output][row]`.
fn products(matrix: &Packed, bytes: &[u8], x: &[Activations<'_>], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2, the feature the functions are compiled for.
        return unsafe {
            match matrix.ways() {
                (NIBBLES, ..) => avx2::products::<NIBBLES, false, true>(matrix, bytes, x, out),
                (BYTES, ..) => avx2::products::<BYTES, false, false>(matrix, bytes, x, out),
                (_, false, false) => avx2::products::<ANY, false, false>(matrix, bytes, x, out),
                (_, false, true) => avx2::products::<ANY, false, true>(matrix, bytes, x, out),
                (_, true, false) => avx2::products::<ANY, true, false>(matrix, bytes, x, out),
                (_, true, true) => avx2::products::<ANY, true, true>(matrix, bytes, x, out),
            }
        };
    }
    portable(matrix, bytes, x, out);
}

/// As [`products`], on any processor.
fn portable(matrix: &Packed, bytes: &[u8], x: &[Activations<'_>], out: &mut [f32]) {
    match matrix.ways() {
        (NIBBLES, ..) => portable_as::<NIBBLES, false, true>(matrix, bytes, x, out),
        (BYTES, ..) => portable_as::<BYTES, false, false>(matrix, bytes, x, out),
        (_, false, false) => portable_as::<ANY, false, false>(matrix, bytes, x, out),
        (_, false, true) => portable_as::<ANY, false, true>(matrix, bytes, x, out),
        (_, true, false) => portable_as::<ANY, true, false>(matrix, bytes, x, out),
        (_, true, true) => portable_as::<ANY, true, true>(matrix, bytes, x, out),
    }
}

fn portable_as<const CODES: u8, const HALVES: bool, const MINIMUM: bool>(
    matrix: &Packed,
    bytes: &[u8],
    x: &[Activations<'_>],
    out: &mut [f32],
) {
    let n_groups = matrix.layout.n_groups();
    let (mut scales, mut weights) = (RowScales::default(), vec![[[0.0; 16]; 2]; n_groups]);
    for (row, out) in bytes.chunks_exact(matrix.layout.row_bytes()).zip(out.chunks_exact_mut(x.len())) {
        scales.take(matrix.codes, matrix.scales, &matrix.layout, row);
        let planes = CodePlanes::of(matrix.codes, &matrix.layout, row);
        if let ([x], [out]) = (x, &mut *out) {
            *out = product::<HALVES, MINIMUM>(|group| integers::<CODES>(&planes, group), &scales, x);
            continue;
        }
        // Unpacked once for all rows of activations.
        weights.iter_mut().enumerate().for_each(|(group, weights)| *weights = integers::<CODES>(&planes, group));
        for (x, out) in x.iter().zip(out) {
            *out = product::<HALVES, MINIMUM>(|group| weights[group], &scales, x);
        }
    }
}

#[inline(always)]
fn product<const HALVES: bool, const MINIMUM: bool>(
    weights: impl Fn(usize) -> [Lanes; 2],
    scales: &RowScales,
    x: &Activations<'_>,
) -> f32 {
    let (mut sums, mut minimums): (Lanes, f32) = ([0.0; 16], 0.0);
    for (group, x_group) in x.groups.iter().enumerate() {
        let q = weights(group);
        if HALVES {
            let [first, last] = [2 * group, 2 * group + 1];
            add_halves(&mut sums, [scales.d[first], scales.d[last]], &q, x_group);
            if MINIMUM {
                minimums += scales.m[first] * x.sums[first];
                minimums += scales.m[last] * x.sums[last];
            }
        } else {
            add_group(&mut sums, scales.d[group], &q, x_group);
            if MINIMUM {
                minimums += scales.m[group] * x.sums[group];
            }
        }
    }
    lanes::tree(&sums) + minimums
}

/// `sums[l] += d · t[l]`, in loops of 16 that become SIMD on any processor.
#[inline(always)]
fn add_group(sums: &mut Lanes, d: f32, [q_first, q_last]: &[Lanes; 2], x: &[f32; GROUP]) {
    let [x_first, x_last] = x.as_chunks::<16>().0 else { unreachable!("32 are twice 16") };
    let mut t: Lanes = [0.0; 16];
    for lane in 0..16 {
        t[lane] = q_first[lane] * x_first[lane];
    }
    for lane in 0..16 {
        t[lane] += q_last[lane] * x_last[lane];
    }
    for lane in 0..16 {
        sums[lane] += d * t[lane];
    }
}

/// As [`add_group`] with a scale for each half.
#[inline(always)]
fn add_halves(sums: &mut Lanes, d: [f32; 2], q: &[Lanes; 2], x: &[f32; GROUP]) {
    for ((d, q), x) in d.into_iter().zip(q).zip(x.as_chunks::<16>().0) {
        for lane in 0..16 {
            sums[lane] += d * (q[lane] * x[lane]);
        }
    }
}

/// The integers of a group as f32: the first 16, then the last. Those of 4 bits are without their offset, which is a minimum.
#[inline(always)]
fn integers<const CODES: u8>(planes: &CodePlanes<'_>, group: usize) -> [Lanes; 2] {
    let (mut first, mut last): (Lanes, Lanes) = ([0.0; 16], [0.0; 16]);
    match CODES {
        NIBBLES => {
            let nibbles = &planes.nibbles[group];
            for lane in 0..16 {
                first[lane] = (i32::from(nibbles[lane]) & 15) as f32;
            }
            for lane in 0..16 {
                last[lane] = (i32::from(nibbles[lane]) >> 4) as f32;
            }
        }
        BYTES => {
            let [low, high] = planes.bytes[group].as_chunks::<16>().0 else { unreachable!("32 are twice 16") };
            for lane in 0..16 {
                first[lane] = f32::from(low[lane].cast_signed());
            }
            for lane in 0..16 {
                last[lane] = f32::from(high[lane].cast_signed());
            }
        }
        _ => {
            let codes = planes.group(group);
            for lane in 0..16 {
                first[lane] = f32::from(planes.codes.integer(codes[lane]));
                last[lane] = f32::from(planes.codes.integer(codes[16 + lane]));
            }
        }
    }
    [first, last]
}

// === impl Packed ===

impl Packed {
    /// How codes are unpacked, whether halves have scales of their own, and whether there is a minimum.
    fn ways(&self) -> (u8, bool, bool) {
        let (halves, minimum) = (self.scales.has_halves(), self.scales.has_minimum());
        match self.codes {
            Codes::Bits { bits: 4, offset } if !halves && (minimum || offset != 0) => (NIBBLES, false, true),
            Codes::Bytes if !halves && !minimum => (BYTES, false, false),
            _ => (ANY, halves, minimum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Plane;
    use crate::weight_type::WeightType;

    const N_GROUPS: usize = 40;
    const N_OUTPUTS: usize = 9;

    /// Six rows of activations, with groups that are large, small and nothing but zeros.
    fn rows_of_activations() -> Vec<Vec<f32>> {
        let value = |i: usize| ((i * 37 % 255) as f32 - 127.0) * [1.0, 3e-3, 0.0][i / 16 % 3];
        (1..=6).map(|step| (0..N_GROUPS * GROUP).map(|i| value(i * step)).collect()).collect()
    }

    /// Rows with every byte there is in every place, and scales that are finite.
    fn matrix(layout: &Layout, scales: Scales) -> Vec<u8> {
        let scales_at = layout.range(Plane::Scales);
        let byte = |i: usize| match i % layout.row_bytes() {
            at if scales_at.contains(&at) && scales == Scales::Exponent => 0x70 + (i % 16) as u8,
            at if scales_at.contains(&at) => [0x5a, 0x2c + (i % 5) as u8][at % 2],
            _ => (i * 97 + i / 7) as u8,
        };
        (0..layout.row_bytes() * N_OUTPUTS).map(byte).collect()
    }

    #[test]
    fn a_product_has_the_same_bits_on_any_processor_and_beside_any_rows() {
        let rows = rows_of_activations();
        for weight_type in WeightType::ALL {
            let Some((codes, scales)) = weight_type.packing().quantised() else { continue };
            let layout = Layout::new(weight_type.packing(), N_GROUPS * GROUP, 4);
            let (matrix, bytes) = (Packed { codes, scales, layout }, matrix(&layout, scales));
            let x: Vec<_> = rows.iter().map(|row| Activations::of(row, scales.has_halves())).collect();
            type Product = fn(&Packed, &[u8], &[Activations<'_>], &mut [f32]);
            let bits = |kernel: Product, x: &[Activations<'_>]| -> Vec<u32> {
                let mut out = vec![0.0f32; N_OUTPUTS * x.len()];
                kernel(&matrix, &bytes, x, &mut out);
                assert!(out.iter().all(|value| value.is_finite() && *value != 0.0), "{weight_type:?}");
                out.iter().map(|value| value.to_bits()).collect()
            };
            let all = bits(portable, &x);
            assert_eq!(bits(products, &x), all, "{weight_type:?}");
            for (r, one) in x.chunks(1).enumerate() {
                let alone: Vec<u32> = all.iter().skip(r).step_by(x.len()).copied().collect();
                assert_eq!(bits(products, one), alone, "{weight_type:?}, row {r} alone");
            }
        }
    }
}
