//! Orders of sums: what the oracle of an arithmetic goes by to give the bits of an engine. Engines are held to it; none that serves runs it.

use crate::packing::GROUP;
use crate::wgsl::BLOCK;

/// Whose order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Sums of rows in sixteen lanes. Attention takes all scores before the first weight, and positions upward.
    Processor,
    /// Sums of norms in 64 lanes; products of matrices by groups of 32 columns, those of floats in four partial sums each, and by blocks of
    /// eight groups. Attention takes a dot product in four partial sums, and positions in blocks of 64, counted from position 0, each of which
    /// corrects what came before by its largest score; four of them are a part, which begins anew, and parts are added in the same way.
    Vulkan,
}

// === impl Order ===

impl Order {
    /// The sum of a row, as norms take it.
    pub(super) fn sum(self, n_values: usize, value: impl Fn(usize) -> f32) -> f32 {
        match self {
            Self::Processor => in_lanes::<16>(n_values, value),
            Self::Vulkan => in_lanes::<64>(n_values, value),
        }
    }

    /// The product of a row of floats with a row of activations; columns that a last group lacks count as 0.
    pub(super) fn product(self, weights: &[f32], x: &[f32]) -> f32 {
        if self == Self::Processor {
            return self.sum(weights.len(), |i| weights[i] * x[i]);
        }
        let mut sum = self.of_groups();
        for (weights, x) in weights.chunks(GROUP).zip(x.chunks(GROUP)) {
            let mut s = [0.0; 4];
            for (i, (weight, x)) in weights.iter().zip(x).enumerate() {
                s[i % 4] += weight * x;
            }
            sum.add((s[0] + s[1]) + (s[2] + s[3]));
        }
        sum.all()
    }

    /// The sum of the terms of groups of columns, none yet.
    pub(super) fn of_groups(self) -> GroupSum {
        GroupSum { order: self, n_groups: 0, of_blocks: 0.0, of_block: 0.0 }
    }
}

/// A sum that grows group after group.
pub(super) struct GroupSum {
    order: Order,
    n_groups: usize,
    of_blocks: f32,
    of_block: f32,
}

// === impl GroupSum ===

impl GroupSum {
    pub fn add(&mut self, term: f32) {
        if self.order == Order::Vulkan && self.n_groups.is_multiple_of(BLOCK) {
            self.of_blocks = self.all();
            self.of_block = 0.0;
        }
        self.of_block += term;
        self.n_groups += 1;
    }

    pub fn all(&self) -> f32 {
        match self.order {
            Order::Processor => self.of_block,
            Order::Vulkan => self.of_blocks + self.of_block,
        }
    }
}

/// Lane l adds the values l, l + N and so on; then the upper half of the lanes is added to the lower until one is left.
fn in_lanes<const N: usize>(n_values: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; N];
    for i in 0..n_values {
        sums[i % N] += value(i);
    }
    let mut half = N / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}
