//! Matrix times rows, dequantised on the fly.

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::cpu::Matrix;
use crate::cpu::lanes::{self, Lanes};
use crate::weight_type::{GROUP, WeightType};

/// What is added to the product.
pub struct Add<'a> {
    /// `[n_out]`.
    pub bias: Option<&'a [f32]>,
    pub residual: Residual<'a>,
}

/// Rows added last.
pub enum Residual<'a> {
    None,
    /// What `out` held before.
    Out,
    /// `[rows][n_out]` and maybe more.
    Rows(&'a [f32]),
}

impl Add<'_> {
    /// Bias and residual of place `index` of `out`, whose value before was `before`.
    #[inline(always)]
    fn terms(&self, index: usize, n_out: usize, before: f32) -> (f32, f32) {
        let bias = self.bias.map_or(0.0, |bias| bias[index % n_out]);
        let residual = match self.residual {
            Residual::None => 0.0,
            Residual::Out => before,
            Residual::Rows(rows) => rows[index],
        };
        (bias, residual)
    }

    /// Adds to products that lie as `[row][output]`.
    fn apply(&self, n_out: usize, products: impl Iterator<Item = f32>, out: &mut [f32]) {
        for (index, (out, product)) in out.iter_mut().zip(products).enumerate() {
            let (bias, residual) = self.terms(index, n_out, *out);
            *out = product + bias + residual;
        }
    }
}

/// `out[r][o] = Σᵢ weight[o][i] · x[r][i] + bias[o] + residual[r][o]`; `x` is `[rows][n_in]`, `out` `[rows][n_out]`.
pub fn reference(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32]) {
    let (n_out, n_in) = (weight.shape.n_rows, weight.shape.n_cols);
    let mut values = vec![0.0; n_in];
    for o in 0..n_out {
        weight.shape.weight_type.dequantise(weight.row(o), &mut values);
        for (r, x) in x.chunks_exact(n_in).enumerate() {
            let product: f64 = values.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let index = r * n_out + o;
            let (bias, residual) = add.terms(index, n_out, out[index]);
            out[index] = (product + f64::from(bias) + f64::from(residual)) as f32;
        }
    }
}

/// As [`reference()`], in f32. Every output is one sum of 16 lanes over the columns, however many rows and threads there are.
pub fn fast(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], pool: &ThreadPool) {
    let kernel = match weight.shape.weight_type {
        WeightType::F32 => products::<F32>,
        WeightType::F16 => products::<F16>,
        WeightType::Q4_0 => products::<Q4_0>,
        WeightType::Q4_1 => products::<Q4_1>,
        WeightType::Q8_0 => products::<Q8_0>,
    };
    let n_in = weight.shape.n_cols;
    spread(weight, x.len() / n_in, add, out, pool, |ggml, out| kernel(ggml, n_in, x, out));
}

/// Products of all of a matrix's rows with `n_rows` rows of activations, cut into pieces for the pool's threads; `products` makes
/// those of some of the matrix's rows as `[output][row]`.
pub(super) fn spread(
    weight: Matrix<'_>,
    n_rows: usize,
    add: &Add<'_>,
    out: &mut [f32],
    pool: &ThreadPool,
    products: impl Fn(&[u8], &mut [f32]) + Sync + Send,
) {
    let (n_out, n_in) = (weight.shape.n_rows, weight.shape.n_cols);
    let row_bytes = weight.ggml.len() / n_out;
    // Outputs of a piece of work: enough that a hand-over to another thread (some µs) does not show.
    let piece = (1usize << 16).div_ceil(n_in * n_rows).clamp(8, n_out.max(8));
    // [output][row]: what one thread writes lies together.
    let mut transposed = vec![0.0; n_out * n_rows];
    let pieces = |(ggml, out): (&[u8], &mut [f32])| products(ggml, out);
    if pool.current_num_threads() == 1 || n_out <= piece {
        products(weight.ggml, &mut transposed);
    } else {
        pool.install(|| {
            let ggml = weight.ggml.par_chunks(piece * row_bytes);
            ggml.zip(transposed.par_chunks_mut(piece * n_rows)).for_each(pieces);
        });
    }
    if n_rows == 1 {
        add.apply(n_out, transposed.into_iter(), out);
    } else {
        let products = (0..n_out * n_rows).map(|index| transposed[index % n_out * n_rows + index / n_out]);
        add.apply(n_out, products, out);
    }
}

lanes::simd! {
    /// Products of some of a matrix's rows, `[output][row]`.
    fn products<W: Weights>(ggml: &[u8], n_in: usize, x: &[f32], out: &mut [f32]) {
        let n_rows = x.len() / n_in;
        let matrix_rows = ggml.chunks_exact(n_in / GROUP * W::GROUP_BYTES);
        if n_rows == 1 {
            let (x, _) = x.as_chunks::<GROUP>();
            for (row, out) in matrix_rows.zip(out) {
                let mut sums: Lanes = [0.0; 16];
                for (group, x) in row.chunks_exact(W::GROUP_BYTES).zip(x) {
                    let (x_low, x_high) = halves(x);
                    let [low, high] = W::dequantise(group);
                    add_product(&mut sums, &low, x_low);
                    add_product(&mut sums, &high, x_high);
                }
                *out = lanes::tree(&sums);
            }
            return;
        }
        let mut values = vec![[0.0; 16]; n_in / 16];
        for (row, out) in matrix_rows.zip(out.chunks_exact_mut(n_rows)) {
            for (group, values) in row.chunks_exact(W::GROUP_BYTES).zip(values.as_chunks_mut::<2>().0) {
                *values = W::dequantise(group);
            }
            let (fours, ones) = out.as_chunks_mut::<4>();
            let (x_fours, x_ones) = x.split_at(fours.len() * 4 * n_in);
            for (out, x) in fours.iter_mut().zip(x_fours.chunks_exact(4 * n_in)) {
                *out = dot_4(&values, x);
            }
            for (out, x) in ones.iter_mut().zip(x_ones.chunks_exact(n_in)) {
                let mut sums: Lanes = [0.0; 16];
                for (values, x) in values.iter().zip(x.as_chunks::<16>().0) {
                    add_product(&mut sums, values, x);
                }
                *out = lanes::tree(&sums);
            }
        }
    }
}

/// `sums[l] += a[l] · b[l]`.
#[inline(always)]
fn add_product(sums: &mut Lanes, a: &Lanes, b: &Lanes) {
    for lane in 0..16 {
        sums[lane] += a[lane] * b[lane];
    }
}

/// Four dot products at once, each in the order of one alone; `x` is `[4][values]`.
#[inline(always)]
fn dot_4(values: &[Lanes], x: &[f32]) -> [f32; 4] {
    let (x, _) = x.as_chunks::<16>();
    let (x01, x23) = x.split_at(values.len() * 2);
    let (x0, x1) = x01.split_at(values.len());
    let (x2, x3) = x23.split_at(values.len());
    let (mut sums0, mut sums1, mut sums2, mut sums3) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
    for ((((values, x0), x1), x2), x3) in values.iter().zip(x0).zip(x1).zip(x2).zip(x3) {
        add_product(&mut sums0, values, x0);
        add_product(&mut sums1, values, x1);
        add_product(&mut sums2, values, x2);
        add_product(&mut sums3, values, x3);
    }
    [lanes::tree(&sums0), lanes::tree(&sums1), lanes::tree(&sums2), lanes::tree(&sums3)]
}

#[inline(always)]
fn halves(x: &[f32; GROUP]) -> (&Lanes, &Lanes) {
    let (low, high) = x.split_at(16);
    (low.try_into().expect("16 of 32"), high.try_into().expect("the other 16"))
}

/// A weight type, unpacked 32 values at a time: the first 16, then the last.
trait Weights {
    const GROUP_BYTES: usize;
    fn dequantise(group: &[u8]) -> [Lanes; 2];
}

struct F32;
struct F16;
struct Q4_0;
struct Q4_1;
struct Q8_0;

impl Weights for F32 {
    const GROUP_BYTES: usize = 128;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let mut values = [[0.0; 16]; 2];
        for (value, bytes) in values.as_flattened_mut().iter_mut().zip(group.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        values
    }
}

impl Weights for F16 {
    const GROUP_BYTES: usize = 64;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let mut values = [[0.0; 16]; 2];
        for (value, bytes) in values.as_flattened_mut().iter_mut().zip(group.as_chunks::<2>().0) {
            *value = half_to_f32(bytes);
        }
        values
    }
}

impl Weights for Q4_0 {
    const GROUP_BYTES: usize = 18;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let d = half_to_f32(&group[..2]);
        let [mut low, mut high] = nibbles(&group[2..18]);
        for lane in 0..16 {
            low[lane] = d * (low[lane] - 8.0);
            high[lane] = d * (high[lane] - 8.0);
        }
        [low, high]
    }
}

impl Weights for Q4_1 {
    const GROUP_BYTES: usize = 20;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let (d, m) = (half_to_f32(&group[..2]), half_to_f32(&group[2..4]));
        let [mut low, mut high] = nibbles(&group[4..20]);
        for lane in 0..16 {
            low[lane] = d * low[lane] + m;
            high[lane] = d * high[lane] + m;
        }
        [low, high]
    }
}

impl Weights for Q8_0 {
    const GROUP_BYTES: usize = 34;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let d = half_to_f32(&group[..2]);
        let mut values = [[0.0; 16]; 2];
        for (values, q) in values.iter_mut().zip(group[2..34].as_chunks::<16>().0) {
            for (value, q) in values.iter_mut().zip(q) {
                *value = d * f32::from(q.cast_signed());
            }
        }
        values
    }
}

/// The low, then the high four bits of 16 bytes.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [Lanes; 2] {
    let bytes: &[u8; 16] = bytes.try_into().expect("16 bytes hold 32 nibbles");
    let (mut low, mut high) = ([0.0; 16], [0.0; 16]);
    for lane in 0..16 {
        low[lane] = (i32::from(bytes[lane]) & 15) as f32;
    }
    for lane in 0..16 {
        high[lane] = (i32::from(bytes[lane]) >> 4) as f32;
    }
    [low, high]
}

/// Two bytes of f16 to f32 without a branch or a call, so that loops over it become SIMD. Exact, NaN and infinities included.
#[inline(always)]
pub(super) fn half_to_f32(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias goes from 15 to 127 by a multiplication, which sets subnormals right as well.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::half_to_f32;

    #[test]
    fn every_half_becomes_the_f32_of_its_value() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = half_to_f32(&bits.to_le_bytes());
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#06x}: {found} instead of {expected}"
            );
        }
    }
}
