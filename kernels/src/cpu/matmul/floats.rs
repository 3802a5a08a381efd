//! Matrices of f32, f16 and bf16 times rows.

use std::borrow::Cow;

use super::{Add, spread};
use crate::canonical::{brain_to_f32, half_to_f32};
use crate::cpu::crew::Crew;
use crate::cpu::lanes::{self, Lanes};
use crate::cpu::{Matrix, pad_rows};
use crate::packing::GROUP;

/// As [`fast`](super::fast()).
pub(super) fn multiply<W: Weights>(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], crew: &Crew) {
    let n_in = weight.shape.n_cols;
    let n_rows = x.len() / n_in;
    let x = if n_in.is_multiple_of(GROUP) { Cow::Borrowed(x) } else { Cow::Owned(pad_rows::reference(x, n_in)) };
    let padded = n_in.next_multiple_of(GROUP);
    spread(weight, n_rows, add, out, crew, |rows, out| products::<W>(rows, padded, &x, out));
}

lanes::simd! {
    /// Products of some of a matrix's rows, `[output][row]`.
    fn products<W: Weights>(rows: &[u8], n_in: usize, x: &[f32], out: &mut [f32]) {
        let n_rows = x.len() / n_in;
        let matrix_rows = rows.chunks_exact(n_in / GROUP * W::GROUP_BYTES);
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

/// A weight type, 32 values at a time: the first 16, then the last.
pub(super) trait Weights {
    const GROUP_BYTES: usize;
    fn dequantise(group: &[u8]) -> [Lanes; 2];
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

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

impl Weights for Bf16 {
    const GROUP_BYTES: usize = 64;
    #[inline(always)]
    fn dequantise(group: &[u8]) -> [Lanes; 2] {
        let mut values = [[0.0; 16]; 2];
        for (value, bytes) in values.as_flattened_mut().iter_mut().zip(group.as_chunks::<2>().0) {
            *value = brain_to_f32(*bytes);
        }
        values
    }
}
