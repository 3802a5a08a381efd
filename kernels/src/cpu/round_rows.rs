//! Rounding of one row to the values that the wire can carry. The definition is at [`ActivationRounding`].

use half::f16;

use crate::cpu::lanes;
use crate::ops::ActivationRounding;

/// Rounds one row, word for word as the definition reads.
pub fn reference(row: &mut [f32], to: ActivationRounding) {
    let ActivationRounding::F16 = to;
    if row.iter().any(|x| !x.is_finite()) {
        return;
    }
    for x in row.iter_mut().filter(|x| x.is_subnormal()) {
        *x = 0f32.copysign(*x);
    }
    // 11 significant bits are what f16 has: scale to [1, 2), round, scale back.
    let rounded = row.iter().filter(|x| **x != 0.0).map(|x| {
        let exponent = f64::from(x.abs()).log2().floor() as i32;
        f16::from_f32((f64::from(x.abs()) * 2f64.powi(-exponent)) as f32).to_f64() * 2f64.powi(exponent)
    });
    let m = rounded.fold(0.0, f64::max);
    if m > f64::from(f32::MAX) {
        return;
    }
    let e = if m == 0.0 { 0 } else { m.log2().floor() as i32 - 14 };
    for x in row {
        // Exact as f32, or so small that f16 makes it 0.
        let scaled = (f64::from(*x) * 2f64.powi(-e)) as f32;
        *x = (f16::from_f32(scaled).to_f64() * 2f64.powi(e)) as f32;
    }
}

lanes::simd! {
    /// As [`reference()`], bit for bit, by integers alone: x is rounded to a multiple of 2^max(⌊log₂ |x|⌋ − 10, e − 24).
    pub fn fast(row: &mut [f32], to: ActivationRounding) {
        let ActivationRounding::F16 = to;
        let largest = row.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & MAGNITUDE));
        if largest >= INFINITY {
            return;
        }
        let m = round_bits(largest, 13);
        if m >= INFINITY {
            return;
        }
        // ⌊log₂ m⌋ + 127; all below are such biased exponents. A row of zeros and subnormals has 0 and becomes zeros.
        let m_exponent = m >> 23;
        for x in row {
            let bits = x.to_bits();
            let magnitude = bits & MAGNITUDE;
            // The spacing 2^(e − 24) is 2^(log₂ m − 38); a normal's last bit is 2^(log₂ |x| − 23): so many bits fall away.
            let dropped = m_exponent.saturating_sub(magnitude >> 23).saturating_sub(15).max(13);
            let rounded = if dropped < 23 {
                round_bits(magnitude, dropped)
            } else if dropped == 23 {
                // |x| is 1 to 2 spacings: from 1.5 on it becomes 2.
                ((magnitude + 0x40_0000) >> 23) << 23
            } else if dropped == 24 && magnitude & 0x7f_ffff != 0 {
                // |x| is over half a spacing.
                ((magnitude >> 23) + 1) << 23
            } else {
                0
            };
            let rounded = if magnitude >> 23 == 0 { 0 } else { rounded };
            *x = f32::from_bits(bits & !MAGNITUDE | rounded);
        }
    }
}

const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITY: u32 = 0x7f80_0000;

/// Rounds the last `dropped` bits away, to nearest, ties to even; a carry goes on into the exponent as it should.
#[inline(always)]
fn round_bits(magnitude: u32, dropped: u32) -> u32 {
    let last_kept = (magnitude >> dropped) & 1;
    ((magnitude + (1 << (dropped - 1)) - 1 + last_kept) >> dropped) << dropped
}
