//! Rounding of one row to the values that the wire can carry. The definition is at [`ActivationRounding`].

use super::{CpuEngine, Run};
use crate::ops::{ActivationRounding, RoundRows};
use crate::recording::Row;
use crate::shapes::ShapeError;
use half::f16;

use crate::cpu::lanes;

/// Values that share a scale in 8 bits.
const GROUP: usize = 32;
/// The least scale in 8 bits but 0: 2^-125.
const LEAST_SCALE: f64 = f32::from_bits(2 << 23) as f64;

/// Rounds one row, word for word as the definition reads.
pub fn reference(row: &mut [f32], to: ActivationRounding) {
    match to {
        ActivationRounding::F16 => reference_f16(row),
        ActivationRounding::Q8 => row.chunks_mut(GROUP).for_each(reference_q8),
    }
}

/// As [`reference()`], bit for bit, by operations that become SIMD.
pub fn fast(row: &mut [f32], to: ActivationRounding) {
    match to {
        ActivationRounding::F16 => fast_f16(row),
        ActivationRounding::Q8 => fast_q8(row),
    }
}

fn reference_q8(group: &mut [f32]) {
    if group.iter().any(|x| !x.is_finite()) {
        group.fill(f32::NAN);
        return;
    }
    let m = group.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    // 8 significant bits: scale to [128, 256), round, scale back.
    let exponent = if m == 0.0 { 0 } else { (m / 127.0).log2().floor() as i32 - 7 };
    let d = (m / 127.0 * 2f64.powi(-exponent)).round_ties_even() * 2f64.powi(exponent);
    for x in group {
        let q = if d < LEAST_SCALE { 0.0 } else { (f64::from(*x) / d).round_ties_even() };
        // A zero is positive.
        *x = (d * q) as f32 + 0.0;
    }
}

lanes::simd! {
    /// In f64, whose quotients of f32 values are never so near to a tie that their own rounding matters.
    fn fast_q8(row: &mut [f32]) {
        // Adding this rounds to the nearest integer.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        for group in row.chunks_mut(GROUP) {
            let largest = group.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & MAGNITUDE));
            if largest >= INFINITY {
                group.fill(f32::NAN);
                continue;
            }
            let bits = (f64::from(f32::from_bits(largest)) / 127.0).to_bits();
            let d = f64::from_bits((bits + ((1 << 44) - 1) + ((bits >> 45) & 1)) >> 45 << 45);
            if d < LEAST_SCALE {
                group.fill(0.0);
                continue;
            }
            for x in group {
                // The sum of the rounding leaves no negative zero.
                let q = (f64::from(*x) / d + ROUND) - ROUND;
                *x = (d * q) as f32;
            }
        }
    }
}

fn reference_f16(row: &mut [f32]) {
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
    /// By integers alone: x is rounded to a multiple of 2^max(⌊log₂ |x|⌋ − 10, e − 24).
    fn fast_f16(row: &mut [f32]) {
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

// === impl Run ===

impl Run for RoundRows {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.x, |engine, x| {
            let kernel = if engine.is_reference() { reference } else { fast };
            for row in x.chunks_exact_mut(self.width).take(self.n_rows) {
                kernel(row, self.to);
            }
        });
        Ok(())
    }
}
