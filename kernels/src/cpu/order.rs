//! Orders of sums: what the oracle of an arithmetic goes by to give the bits of an engine. Engines are held to it; none that serves runs it.

/// Whose order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Dot products, sums and squares of norms in sixteen partial sums, added as a tree. Attention takes all scores before the first weight, and
    /// positions upward.
    Processor,
    /// Norms in 64 lanes, whose upper half is added to the lower until one is left; products of matrices of floats by groups of 32 columns, each in four partial sums. Attention takes a dot product in
    /// four partial sums, and positions in blocks of 64, counted from position 0, each of which corrects what came before by its largest score.
    Vulkan,
}

/// Lanes of a workgroup.
const LANES: usize = 64;

/// The sum of a row as a workgroup makes it: lane l adds the values l, l + 64 and so on, then the upper half of the lanes is added to the lower
/// until one is left.
pub(super) fn in_lanes(n_values: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for i in 0..n_values {
        sums[i % LANES] += value(i);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}
