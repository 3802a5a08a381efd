//! Quantised matrices times activations of 8 bits.
//!
//! The definition, which every path keeps to the bit: of each block of 32 columns, whose activations are d · q (`ops/quantise_rows.rs`),
//! S = Σ f Σ c q and M = Σ g Σ q are exact integers; c is the integer of a code, the inner sums are over the columns that share a factor
//! f of the scale (and g of the minimum), and without factors both are 1. An output is one f32 that begins as 0 and grows, block after block, by
//! d · (w S + v M), w and v being the scale and what it adds; each of the products and sums is rounded, none is fused. Without a minimum
//! it grows by d · (w S). |S| is under 2²⁴, so that it is an f32, too. Bias and residual follow as in f32.

use std::sync::LazyLock;

use super::{Add, spread};
use crate::cpu::Matrix;
use crate::cpu::crew::Crew;
use crate::cpu::matrix::STRIP;
use crate::cpu::quantise_rows;
use crate::packing::{Codes, GROUP, Layout, Plane, Scales};

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod lanes;
mod reference;
mod strip_scales;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod strips;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use arm as processor;
#[cfg(target_arch = "x86_64")]
use x86 as processor;

pub use reference::reference;
use strip_scales::StripScales;

/// As [`reference()`]. The matrix lies in strips.
pub(in crate::cpu) fn fast(
    weight: Matrix<'_>,
    packing: (Codes, Scales),
    x: &[f32],
    add: &Add<'_>,
    out: &mut [f32],
    crew: &Crew,
) {
    let blocks = Activations::blocks(x, weight.shape.n_cols, crew);
    let matrix = Packed { codes: packing.0, scales: packing.1, layout: weight.layout };
    spread(weight, n_rows(&blocks), add, out, crew, |strips, out| products(&matrix, strips, &blocks, out));
}

/// How the strips of a matrix are packed.
struct Packed {
    codes: Codes,
    scales: Scales,
    layout: Layout,
}

/// Some rows of activations by groups of 32: `[group][row]`, so that what meets a group's codes lies together.
#[derive(Default)]
struct Activations {
    /// One of [`TOGETHER`].
    n_rows: usize,
    /// Words of four values each, as they lie in memory.
    words: Vec<[i32; 8]>,
    d: Vec<f32>,
    /// Of either half of a group.
    sums: Vec<[i32; 2]>,
}

/// How many rows may be in a block: the most that a processor keeps the sums of, and what is left over.
const TOGETHER: [usize; 3] = [8, 4, 1];

impl Activations {
    /// All rows of some values, in blocks that are as large as may be.
    fn blocks(x: &[f32], n_cols: usize, crew: &Crew) -> Vec<Self> {
        let (mut parts, mut rest) = (Vec::new(), x);
        for n_rows in TOGETHER {
            let (whole, others) = rest.split_at(rest.len() / (n_cols * n_rows) * n_cols * n_rows);
            parts.extend(whole.chunks(n_cols * n_rows));
            rest = others;
        }
        let mut blocks: Vec<Self> = parts.iter().map(|_| Self::default()).collect();
        let items = blocks.iter_mut().zip(parts);
        crew.each(x.len(), items, || (), |(), (block, rows)| *block = Self::of(rows, n_cols));
        blocks
    }

    fn of(rows: &[f32], n_cols: usize) -> Self {
        let (n_rows, n_groups) = (rows.len() / n_cols, n_cols / GROUP);
        let mut block = Self {
            n_rows,
            words: vec![[0; 8]; n_groups * n_rows],
            d: vec![0.0; n_groups * n_rows],
            sums: vec![[0; 2]; n_groups * n_rows],
        };
        for (row, values) in rows.chunks_exact(n_cols).enumerate() {
            for (group, quantised) in quantise_rows::fast(values).iter().enumerate() {
                let at = group * n_rows + row;
                let word = |q: &[i8; 4]| i32::from_le_bytes(q.map(i8::cast_unsigned));
                let sum = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum::<i32>();
                block.words[at] = std::array::from_fn(|c| word(&quantised.q.as_chunks().0[c]));
                block.d[at] = quantised.d;
                block.sums[at] = [sum(&quantised.q[..16]), sum(&quantised.q[16..])];
            }
        }
        block
    }
}

/// Rows in some blocks.
fn n_rows(blocks: &[Activations]) -> usize {
    blocks.iter().map(|block| block.n_rows).sum()
}

/// The same word of each row of a strip.
type Word = [u8; 4 * STRIP];

/// Products of some strips of a matrix, `[strip][row][output]`; the last strip may have fewer outputs than it has room for.
///
/// # Safety
/// The processor has the features that it is compiled for.
type Products = unsafe fn(&Packed, &[u8], &[Activations], &mut [f32]);

/// All ways of this processor, by name and the fastest first.
fn every_products() -> impl Iterator<Item = (&'static str, Products)> {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    let ways = processor::every_products();
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    let ways: [(&'static str, Option<Products>); 0] = [];
    ways.into_iter().filter_map(|(name, products)| Some((name, products?))).chain([("portable", portable as Products)])
}

/// The way that is taken: the fastest, or that of the name in this variable, as on a processor that has nothing faster. For benches; all give the
/// same bits.
static TAKEN: LazyLock<(&'static str, Products)> = LazyLock::new(|| {
    let asked = std::env::var("POLYPHONY_LANES").ok();
    let named = every_products().find(|(name, _)| asked.as_deref() == Some(*name));
    named.or_else(|| every_products().next()).expect("the portable way at least")
});

/// The name of what is taken on this processor.
pub(in crate::cpu) fn way() -> &'static str {
    TAKEN.0
}

/// See [`Products`].
fn products(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: it has been found to be for this processor.
    unsafe { (TAKEN.1)(matrix, strips, x, out) };
}

/// As [`products`], on any processor: the rows of a strip side by side, in loops that become SIMD.
fn portable(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    let n_rows = n_rows(x);
    let mut scales = StripScales::default();
    let out = out.as_chunks_mut::<STRIP>().0.chunks_exact_mut(n_rows);
    for (strip, sums) in strips.chunks_exact(matrix.layout.row_bytes() * STRIP).zip(out) {
        let words = strip.as_chunks().0;
        scales.take(matrix.scales, &matrix.layout, words);
        sums.fill([0.0; STRIP]);
        for group in 0..matrix.layout.n_groups() {
            let codes = codes(matrix, words, group);
            let places = x.iter().flat_map(|x| (0..x.n_rows).map(move |row| (x, group * x.n_rows + row)));
            for ((x, at), sums) in places.zip(&mut *sums) {
                add_group(matrix, &codes, &scales, (x, at), group, sums);
            }
        }
    }
}

/// A group's term of one row of activations, which lies at a place of its block.
#[inline(always)]
fn add_group(
    matrix: &Packed,
    codes: &[[i8; 4 * STRIP]; 8],
    scales: &StripScales,
    (x, at): (&Activations, usize),
    group: usize,
    sums: &mut [f32; STRIP],
) {
    let offset = i32::from(matrix.codes.offset());
    let (mut total, mut minimum) = ([0i32; STRIP], [0i32; STRIP]);
    for half in 0..2 {
        let x_sum = x.sums[at][half];
        let mut dots = [-offset * x_sum; STRIP];
        let words = 4 * half..4 * half + 4;
        for (codes, x) in codes[words.clone()].iter().zip(&x.words[at][words]) {
            let x = [x.to_le_bytes().map(u8::cast_signed); STRIP];
            let mut products = [0i16; 4 * STRIP];
            for (product, (code, x)) in products.iter_mut().zip(codes.iter().zip(x.as_flattened())) {
                *product = i16::from(*code) * i16::from(*x);
            }
            for (dot, fours) in dots.iter_mut().zip(products.as_chunks::<4>().0) {
                let [a, b, c, d] = fours.map(i32::from);
                *dot += (a + b) + (c + d);
            }
        }
        let factors = scales.factors(matrix.scales, group, half);
        let minimums = scales.minimums(matrix.scales, group, half);
        for row in 0..STRIP {
            total[row] += factors[row] * dots[row];
            minimum[row] += minimums[row] * x_sum;
        }
    }
    let (d, m) = (&scales.d[group], &scales.m[group]);
    for row in 0..STRIP {
        let mut term = d[row] * total[row] as f32;
        if matrix.scales.has_minimum() {
            term += m[row] * minimum[row] as f32;
        }
        sums[row] += x.d[at] * term;
    }
}

/// The codes of a group, word by word, or by a table their integers.
#[inline(always)]
fn codes(matrix: &Packed, words: &[Word], group: usize) -> [[i8; 4 * STRIP]; 8] {
    let plane =
        |plane: Plane, n_words: usize| &words[matrix.layout.range(plane).start / 4 + group * n_words..][..n_words];
    let mut codes = [[0u8; 4 * STRIP]; 8];
    if matrix.codes == Codes::Bytes {
        codes.copy_from_slice(plane(Plane::Values, 8));
    }
    if matrix.codes.has_nibbles() {
        for (c, word) in plane(Plane::Nibbles, 4).iter().enumerate() {
            codes[c] = word.map(|byte| byte & 15);
            codes[4 + c] = word.map(|byte| byte >> 4);
        }
    }
    if matrix.codes.has_pairs() {
        let lower = if matrix.codes.has_nibbles() { 4 } else { 0 };
        for (h, word) in plane(Plane::Pairs, 2).iter().enumerate() {
            for s in 0..4 {
                for (code, byte) in codes[4 * h + s].iter_mut().zip(word) {
                    *code |= (byte >> (2 * s) & 3) << lower;
                }
            }
        }
    }
    if matrix.codes.has_ones() {
        let (word, lower) = (&plane(Plane::Ones, 1)[0], matrix.codes.lower_bits());
        for (s, codes) in codes.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(word) {
                *code |= (byte >> s & 1) << lower;
            }
        }
    }
    match matrix.codes {
        Codes::Table(table) => {
            let integers = table.integers();
            codes.map(|word| word.map(|code| integers[usize::from(code & 15)]))
        }
        _ => codes.map(|word| word.map(u8::cast_signed)),
    }
}

#[cfg(test)]
mod tests;
