//! What processors of this kind have: one strip at a time in 256 bits, or two in 512.

mod lanes;

use super::strips::strips_of;
use super::{Activations, Packed, Products, STRIP, n_rows};
use lanes::{Avx2, Avx512Vnni, AvxVnni, Narrow, Wide};

/// All ways, by name and the fastest first, where this processor has the features.
pub(super) fn every_products() -> [(&'static str, Option<Products>); 4] {
    let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
    let has_avx512 = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vnni");
    let has_bytes = std::arch::is_x86_feature_detected!("avx512bw");
    let has_vnni = std::arch::is_x86_feature_detected!("avxvnni");
    [
        ("avx512vnni", (has_avx2 && has_avx512 && has_bytes).then_some(of_avx512_vnni as Products)),
        ("avx512vnni of 256 bits", (has_avx2 && has_avx512).then_some(of_avx512_vnni_narrow as Products)),
        ("avxvnni", (has_avx2 && has_vnni).then_some(of_avx_vnni as Products)),
        ("avx2", has_avx2.then_some(of_avx2 as Products)),
    ]
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn of_avx512_vnni(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    let n_bytes = matrix.layout.row_bytes() * STRIP;
    let n_paired = strips.len() / (2 * n_bytes) * 2;
    let (pairs, last) = strips.split_at(n_paired * n_bytes);
    let (out_of_pairs, out_of_last) = out.split_at_mut(n_paired * STRIP * n_rows(x));
    // SAFETY: the function is compiled for the features that these lanes need.
    unsafe {
        strips_of::<Wide>(matrix, pairs, x, out_of_pairs);
        strips_of::<Narrow<Avx512Vnni>>(matrix, last, x, out_of_last);
    }
}

#[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
fn of_avx512_vnni_narrow(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Narrow<Avx512Vnni>>(matrix, strips, x, out) }
}

#[target_feature(enable = "avx2,avxvnni")]
fn of_avx_vnni(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Narrow<AvxVnni>>(matrix, strips, x, out) }
}

#[target_feature(enable = "avx2")]
fn of_avx2(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Narrow<Avx2>>(matrix, strips, x, out) }
}
