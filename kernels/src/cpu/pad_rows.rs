//! Rows filled up with zeros to whole groups.

use crate::packing::GROUP;

/// `x` is `[rows][width]`; gives `[rows][width, filled up to a multiple of 32]`.
pub fn reference(x: &[f32], width: usize) -> Vec<f32> {
    let padded = width.next_multiple_of(GROUP);
    let mut out = vec![0.0; x.len() / width * padded];
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(padded)) {
        out[..width].copy_from_slice(x);
    }
    out
}
