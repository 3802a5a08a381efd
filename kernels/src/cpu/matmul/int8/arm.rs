//! What processors of this kind have: one strip at a time, in two registers of 128 bits.

mod instructions;
mod lanes;

use std::arch::is_aarch64_feature_detected;

use super::strips::strips_of;
use super::{Activations, Packed, Products};
use lanes::{DotProd, I8mm, Neon, Neons};

/// All ways, by name and the fastest first, where this processor has the features.
pub(super) fn every_products() -> [(&'static str, Option<Products>); 3] {
    let has_dotprod = is_aarch64_feature_detected!("dotprod");
    [
        ("i8mm", (has_dotprod && is_aarch64_feature_detected!("i8mm")).then_some(of_i8mm as Products)),
        ("dotprod", has_dotprod.then_some(of_dotprod as Products)),
        ("neon", Some(of_neon as Products)),
    ]
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn of_i8mm(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: the function is compiled for the features that these lanes need.
    unsafe { strips_of::<Neons<I8mm>>(matrix, strips, x, out) }
}

#[target_feature(enable = "neon,dotprod")]
fn of_dotprod(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Neons<DotProd>>(matrix, strips, x, out) }
}

#[target_feature(enable = "neon")]
fn of_neon(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Neons<Neon>>(matrix, strips, x, out) }
}
