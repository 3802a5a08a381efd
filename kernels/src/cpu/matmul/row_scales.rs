//! The scales of a row, unpacked before its integers are: of 8 groups or more at a time, where the packing lets SIMD do so.

use crate::canonical::{ScalePlanes, half_to_f32};
use crate::cpu::lanes;
use crate::packing::{Codes, Layout, Plane, SUPER, Scales};

/// What the integers of each group, or of each half of one, are multiplied with, and what is added.
#[derive(Default)]
pub(super) struct RowScales {
    pub d: Vec<f32>,
    /// Zeros where the packing has no minimum.
    pub m: Vec<f32>,
}

impl RowScales {
    /// Those of a row, in place of another row's. Codes of 4 bits with an offset have it as a minimum.
    pub fn take(&mut self, codes: Codes, scales: Scales, layout: &Layout, row: &[u8]) {
        let n = layout.n_groups() * if scales.has_halves() { 2 } else { 1 };
        self.d.resize(n, 0.0);
        self.m.resize(n, 0.0);
        let upper = &row[layout.range(Plane::Scales)];
        match scales {
            Scales::Half => {
                let offset = if matches!(codes, Codes::Bits { bits: 4, .. }) { f32::from(codes.offset()) } else { 0.0 };
                halves(upper, offset, &mut self.d, &mut self.m);
            }
            Scales::HalfMinimum => pairs_of_halves(upper, &mut self.d, &mut self.m),
            Scales::BytesMinimum32 => {
                bytes_with_minimum(upper, &row[layout.range(Plane::Factors)], &mut self.d, &mut self.m);
            }
            _ => {
                let planes = ScalePlanes::of(scales, layout, row);
                let per_group = n / layout.n_groups();
                let groups = self.d.chunks_exact_mut(per_group).zip(self.m.chunks_exact_mut(per_group));
                for (group, (d, m)) in groups.enumerate() {
                    let scale = planes.group(group);
                    d.copy_from_slice(&scale.d[..per_group]);
                    m.copy_from_slice(&scale.m[..per_group]);
                }
            }
        }
    }
}

lanes::simd! {
    fn halves(plane: &[u8], offset: f32, d: &mut [f32], m: &mut [f32]) {
        for ((half, d), m) in plane.as_chunks::<2>().0.iter().zip(d).zip(m) {
            *d = half_to_f32(half);
            *m = -offset * *d;
        }
    }
}

lanes::simd! {
    fn pairs_of_halves(plane: &[u8], d: &mut [f32], m: &mut [f32]) {
        for ((pair, d), m) in plane.as_chunks::<4>().0.iter().zip(d).zip(m) {
            *d = half_to_f32(&pair[..2]);
            *m = half_to_f32(&pair[2..]);
        }
    }
}

lanes::simd! {
    fn bytes_with_minimum(plane: &[u8], factors: &[u8], d: &mut [f32], m: &mut [f32]) {
        let outs = d.as_chunks_mut::<SUPER>().0.iter_mut().zip(m.as_chunks_mut::<SUPER>().0);
        for ((pair, factors), (d, m)) in plane.as_chunks::<4>().0.iter().zip(factors.as_chunks::<16>().0).zip(outs) {
            let (scale, minimum) = (half_to_f32(&pair[..2]), half_to_f32(&pair[2..]));
            for j in 0..SUPER {
                d[j] = scale * f32::from(factors[j]);
            }
            for j in 0..SUPER {
                m[j] = -(minimum * f32::from(factors[SUPER + j]));
            }
        }
    }
}
