//! Products of strips in lanes of a processor: as many strips at a time as there are lanes for.

#![allow(clippy::needless_range_loop, reason = "an iterator hands lanes on by memory")]

use super::lanes::Lanes;
use super::{Activations, Packed, STRIP, StripScales, Word, n_rows};
use crate::cpu::lanes;
use crate::packing::{Codes, Plane, SUPER, Scales};

/// Bytes that come from memory at once.
const LINE: usize = 64;

// What the codes are made of, so that each loop knows: those of the types that most files have.
const NIBBLES: u8 = 4;
const FIVE_BITS: u8 = 5;
const SIX_BITS: u8 = 6;
const BYTES: u8 = 8;
const ANY: u8 = 0;

// What the scales are: an f16; two, of which one is a minimum; both times bytes; one times signed bytes, one a half; one of any other kind, and any with factors. The last two
// are unpacked before, all others are read where they lie.
const F16: u8 = 0;
const F16_MINIMUM: u8 = 1;
const BYTE_MINIMUM: u8 = 2;
const SIGNED_BYTES: u8 = 3;
const SCALE: u8 = 4;
const FACTORS: u8 = 5;

/// Strips, as many at a time as there are lanes for.
#[inline(always)]
pub(super) unsafe fn strips_of<L: Lanes>(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    let codes = match matrix.codes {
        Codes::Bits { bits: 4, .. } => NIBBLES,
        Codes::Bits { bits: 5, .. } => FIVE_BITS,
        Codes::Bits { bits: 6, .. } => SIX_BITS,
        Codes::Bytes => BYTES,
        _ => ANY,
    };
    let scales = match matrix.scales {
        Scales::Half => F16,
        Scales::HalfMinimum => F16_MINIMUM,
        Scales::BytesMinimum32 => BYTE_MINIMUM,
        Scales::Bytes16 => SIGNED_BYTES,
        Scales::Exponent => SCALE,
        _ => FACTORS,
    };
    // SAFETY: the caller's.
    unsafe {
        match (codes, scales) {
            (NIBBLES, F16) => all::<L, NIBBLES, F16>(matrix, strips, x, out),
            (NIBBLES, F16_MINIMUM) => all::<L, NIBBLES, F16_MINIMUM>(matrix, strips, x, out),
            (NIBBLES, BYTE_MINIMUM) => all::<L, NIBBLES, BYTE_MINIMUM>(matrix, strips, x, out),
            (NIBBLES, FACTORS) => all::<L, NIBBLES, FACTORS>(matrix, strips, x, out),
            (BYTES, F16) => all::<L, BYTES, F16>(matrix, strips, x, out),
            (FIVE_BITS, F16) => all::<L, FIVE_BITS, F16>(matrix, strips, x, out),
            (FIVE_BITS, BYTE_MINIMUM) => all::<L, FIVE_BITS, BYTE_MINIMUM>(matrix, strips, x, out),
            (SIX_BITS, SIGNED_BYTES) => all::<L, SIX_BITS, SIGNED_BYTES>(matrix, strips, x, out),
            (_, F16) => all::<L, ANY, F16>(matrix, strips, x, out),
            (_, F16_MINIMUM) => all::<L, ANY, F16_MINIMUM>(matrix, strips, x, out),
            (_, BYTE_MINIMUM) => all::<L, ANY, BYTE_MINIMUM>(matrix, strips, x, out),
            (_, SIGNED_BYTES) => all::<L, ANY, SIGNED_BYTES>(matrix, strips, x, out),
            (_, SCALE) => all::<L, ANY, SCALE>(matrix, strips, x, out),
            (_, _) => all::<L, ANY, FACTORS>(matrix, strips, x, out),
        }
    }
}

#[inline(always)]
unsafe fn all<L: Lanes, const CODES: u8, const SCALES: u8>(
    matrix: &Packed,
    strips: &[u8],
    x: &[Activations],
    out: &mut [f32],
) {
    let (n_bytes, n_rows) = (matrix.layout.row_bytes() * STRIP, n_rows(x));
    let mut scales: [StripScales; 2] = Default::default();
    let out = out.as_chunks_mut::<STRIP>().0.chunks_exact_mut(L::STRIPS * n_rows);
    for (part, out) in strips.chunks_exact(n_bytes * L::STRIPS).zip(out) {
        let words: [&[Word]; 2] = std::array::from_fn(|at| {
            let strip = at.min(L::STRIPS - 1);
            part[strip * n_bytes..(strip + 1) * n_bytes].as_chunks().0
        });
        if SCALES == SCALE || SCALES == FACTORS {
            for (scales, words) in scales.iter_mut().zip(words).take(L::STRIPS) {
                unpack(scales, matrix, words);
            }
        }
        let mut first = 0;
        for x in x {
            // SAFETY: the caller's.
            unsafe {
                match x.n_rows {
                    8 => put::<L, 8>(part_of::<L, 8, CODES, SCALES>(matrix, words, &scales, x), (first, n_rows), out),
                    4 => put::<L, 4>(part_of::<L, 4, CODES, SCALES>(matrix, words, &scales, x), (first, n_rows), out),
                    _ => put::<L, 1>(part_of::<L, 1, CODES, SCALES>(matrix, words, &scales, x), (first, n_rows), out),
                }
            }
            first += x.n_rows;
        }
    }
}

/// Some rows' sums, from row `first` of `n_rows` on, to where their strips have them.
#[inline(always)]
fn put<L: Lanes, const N: usize>(
    sums: [[f32; 2 * STRIP]; N],
    (first, n_rows): (usize, usize),
    out: &mut [[f32; STRIP]],
) {
    for (row, sums) in sums.iter().enumerate() {
        for (strip, sums) in sums.as_chunks::<STRIP>().0.iter().enumerate().take(L::STRIPS) {
            out[strip * n_rows + first + row] = *sums;
        }
    }
}

lanes::simd! {
    /// As [`StripScales::take`]. In the widest registers its loops become slower.
    fn unpack(scales: &mut StripScales, matrix: &Packed, words: &[Word]) {
        scales.take(matrix.scales, &matrix.layout, words);
    }
}

/// A part's rows with a block of activations: a lane an output.
#[inline(always)]
unsafe fn part_of<L: Lanes, const N: usize, const CODES: u8, const SCALES: u8>(
    matrix: &Packed,
    words: [&[Word]; 2],
    scales: &[StripScales; 2],
    x: &Activations,
) -> [[f32; 2 * STRIP]; N] {
    let n = matrix.layout.n_groups();
    let (x, x_d, x_sums) = (x.words.as_chunks::<N>().0, x.d.as_chunks::<N>().0, x.sums.as_chunks::<N>().0);
    let (x, x_d, x_sums) = (&x[..n], &x_d[..n], &x_sums[..n]);
    let is_signed = CODES == BYTES || (CODES == ANY && matches!(matrix.codes, Codes::Bytes | Codes::Table(_)));
    let [scales_at, factors_at] = [Plane::Scales, Plane::Factors].map(|plane| matrix.layout.range(plane).start / 4);
    let planes = Planes::of::<CODES>(matrix, words);
    let offset = if is_signed { L::OVER } else { i32::from(matrix.codes.offset()) };
    // What follows is fetched while this is computed: a strip's planes are read side by side, which no processor foresees.
    let last = words[L::STRIPS - 1];
    let next = last.as_ptr_range().end.cast::<u8>();
    let lines = (L::STRIPS * size_of_val(last)).div_ceil(LINE * n.max(1));
    // SAFETY: the caller's; what is fetched ahead may be no memory at all.
    unsafe {
        let mut sums = [L::float(0.0); N];
        for group in 0..n {
            for line in group * lines..(group + 1) * lines {
                lanes::fetch(next.wrapping_add(line * LINE));
            }
            let codes = prepared::<L>(codes::<L, CODES>(matrix.codes, &planes, group), is_signed);
            // As `StripScales` has them.
            let (block, place) = (group / SUPER, group % SUPER);
            let factors = |at: usize| factors_at + 4 * block + at;
            let d = match SCALES {
                F16 => L::from_f16(word::<L>(words, scales_at + group / 2), group % 2 == 1),
                F16_MINIMUM => L::from_f16(word::<L>(words, scales_at + group), false),
                BYTE_MINIMUM => L::from_f16(word::<L>(words, scales_at + block), false),
                SIGNED_BYTES => L::from_f16(word::<L>(words, scales_at + block / 2), block % 2 == 1),
                _ => L::floats(L::load(&scales[0].d[group], &scales[L::STRIPS - 1].d[group])),
            };
            let m = match SCALES {
                F16_MINIMUM => L::from_f16(word::<L>(words, scales_at + group), true),
                BYTE_MINIMUM => L::product(L::from_f16(word::<L>(words, scales_at + block), true), L::float(-1.0)),
                _ => L::float(0.0),
            };
            // Of the scale and of the minimum, or of either half.
            let by = match SCALES {
                BYTE_MINIMUM => [
                    L::byte(word::<L>(words, factors(place / 4)), place % 4, false),
                    L::byte(word::<L>(words, factors(2 + place / 4)), place % 4, false),
                ],
                SIGNED_BYTES => {
                    let both = word::<L>(words, factors(place / 2));
                    [L::byte(both, place % 2 * 2, true), L::byte(both, place % 2 * 2 + 1, true)]
                }
                _ => [L::none(); 2],
            };
            let (x, x_sums) = (&x[group], &x_sums[group]);
            for first in (0..N).step_by(2) {
                let two = if N == 1 {
                    [L::dots(begin::<SCALES>(offset, x_sums[first]), &codes, &x[first], is_signed), [L::none(); 2]]
                } else {
                    let begin = [begin::<SCALES>(offset, x_sums[first]), begin::<SCALES>(offset, x_sums[first + 1])];
                    L::dots_of_two(begin, &codes, [&x[first], &x[first + 1]], is_signed)
                };
                for at in 0..N.min(2) {
                    let (row, [first, last]) = (first + at, two[at]);
                    let (x_d, x_sums) = (x_d[group][row], x_sums[row]);
                    let x_sum = x_sums[0] + x_sums[1];
                    let term = match SCALES {
                        FACTORS => {
                            let [one, other] = [&scales[0], &scales[L::STRIPS - 1]];
                            let kind = matrix.scales;
                            let of_first = L::load(one.factors(kind, group, 0), other.factors(kind, group, 0));
                            let of_last = L::load(one.factors(kind, group, 1), other.factors(kind, group, 1));
                            let total = L::add(L::times(first, of_first), L::times(last, of_last));
                            let mut term = L::product(d, L::to_floats(total));
                            if kind.has_minimum() {
                                let of_first = L::load(one.minimums(kind, group, 0), other.minimums(kind, group, 0));
                                let of_last = L::load(one.minimums(kind, group, 1), other.minimums(kind, group, 1));
                                let first = L::times(of_first, L::words(x_sums[0]));
                                let last = L::times(of_last, L::words(x_sums[1]));
                                let m = L::floats(L::load(&one.m[group], &other.m[group]));
                                term = L::plus(term, L::product(m, L::to_floats(L::add(first, last))));
                            }
                            term
                        }
                        SIGNED_BYTES => {
                            L::product(d, L::to_floats(L::add(L::times(first, by[0]), L::times(last, by[1]))))
                        }
                        BYTE_MINIMUM => {
                            let term = L::product(d, L::to_floats(L::times(L::add(first, last), by[0])));
                            L::plus(term, L::product(m, L::to_floats(L::times(by[1], L::words(x_sum)))))
                        }
                        F16_MINIMUM => {
                            let term = L::product(d, L::to_floats(L::add(first, last)));
                            L::plus(term, L::product(m, L::float(x_sum as f32)))
                        }
                        _ => L::product(d, L::to_floats(L::add(first, last))),
                    };
                    sums[row] = L::plus(sums[row], L::product(L::float(x_d), term));
                }
            }
        }
        let mut stored = [[0.0; 2 * STRIP]; N];
        for (sums, stored) in sums.iter().zip(&mut stored) {
            L::store(*sums, stored);
        }
        stored
    }
}

// What follows is called where a closure would do: lanes would go in and out of one by memory, since it is not compiled for their features.

/// What sums over the halves of a group begin with, of an offset that all codes have; where the halves have one factor, all of it is in the first, and their parts
/// wait for nobody.
#[inline(always)]
fn begin<const SCALES: u8>(offset: i32, [first, last]: [i32; 2]) -> [i32; 2] {
    match SCALES {
        SIGNED_BYTES | FACTORS => [-offset * first, -offset * last],
        _ => [-offset * (first + last), 0],
    }
}

#[inline(always)]
unsafe fn prepared<L: Lanes>(codes: [L::Ints; 8], is_signed: bool) -> [L::Codes; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut prepared = [L::prepared(codes[0], is_signed); 8];
        for at in 1..8 {
            prepared[at] = L::prepared(codes[at], is_signed);
        }
        prepared
    }
}

/// The same word of each row.
#[inline(always)]
unsafe fn word<L: Lanes>(words: [&[Word]; 2], at: usize) -> L::Ints {
    // SAFETY: the caller's.
    unsafe { L::load(&words[0][at], &words[L::STRIPS - 1][at]) }
}

/// The planes of the codes of a part's strips, by groups; those that a packing lacks are empty.
struct Planes<'a> {
    values: [&'a [[Word; 8]]; 2],
    nibbles: [&'a [[Word; 4]]; 2],
    pairs: [&'a [[Word; 2]]; 2],
    ones: [&'a [[Word; 1]]; 2],
}

impl<'a> Planes<'a> {
    #[inline(always)]
    fn of<const CODES: u8>(matrix: &Packed, words: [&'a [Word]; 2]) -> Self {
        Self {
            values: groups(matrix, words, Plane::Values, CODES == BYTES),
            nibbles: groups(matrix, words, Plane::Nibbles, matches!(CODES, NIBBLES | FIVE_BITS | SIX_BITS)),
            pairs: groups(matrix, words, Plane::Pairs, CODES == SIX_BITS),
            ones: groups(matrix, words, Plane::Ones, CODES == FIVE_BITS),
        }
    }
}

/// A plane by groups, of which there are all where it is known to be there: no place in it is looked up with a check then.
#[inline(always)]
fn groups<'a, const N: usize>(
    matrix: &Packed,
    words: [&'a [Word]; 2],
    plane: Plane,
    is_there: bool,
) -> [&'a [[Word; N]]; 2] {
    let range = matrix.layout.range(plane);
    let of_strip = |words: &'a [Word]| {
        let groups = words[range.start / 4..range.end / 4].as_chunks::<N>().0;
        if is_there { &groups[..matrix.layout.n_groups()] } else { groups }
    };
    [of_strip(words[0]), of_strip(words[1])]
}

/// As [`super::codes`].
#[inline(always)]
unsafe fn codes<L: Lanes, const CODES: u8>(kind: Codes, planes: &Planes<'_>, group: usize) -> [L::Ints; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut codes = [L::none(); 8];
        if CODES == BYTES || (CODES == ANY && kind == Codes::Bytes) {
            let strips = [&planes.values[0][group], &planes.values[L::STRIPS - 1][group]];
            for (c, code) in codes.iter_mut().enumerate() {
                *code = L::load(&strips[0][c], &strips[1][c]);
            }
            return codes;
        }
        let has_nibbles = CODES != ANY || kind.has_nibbles();
        if has_nibbles {
            let strips = [&planes.nibbles[0][group], &planes.nibbles[L::STRIPS - 1][group]];
            for c in 0..4 {
                let word = L::load(&strips[0][c], &strips[1][c]);
                codes[c] = L::field::<0, 4>(word);
                codes[4 + c] = L::field::<4, 4>(word);
            }
        }
        if CODES == NIBBLES {
            return codes;
        }
        if CODES == SIX_BITS || (CODES == ANY && kind.has_pairs()) {
            let strips = [&planes.pairs[0][group], &planes.pairs[L::STRIPS - 1][group]];
            for h in 0..2 {
                let word = L::load(&strips[0][h], &strips[1][h]);
                let pairs =
                    [L::field::<0, 2>(word), L::field::<2, 2>(word), L::field::<4, 2>(word), L::field::<6, 2>(word)];
                for (s, pairs) in pairs.into_iter().enumerate() {
                    let pairs = if has_nibbles { L::left::<4>(pairs) } else { pairs };
                    codes[4 * h + s] = L::or(codes[4 * h + s], pairs);
                }
            }
        }
        if CODES == FIVE_BITS || (CODES == ANY && kind.has_ones()) {
            let word = L::load(&planes.ones[0][group][0], &planes.ones[L::STRIPS - 1][group][0]);
            let ones = [
                L::field::<0, 1>(word),
                L::field::<1, 1>(word),
                L::field::<2, 1>(word),
                L::field::<3, 1>(word),
                L::field::<4, 1>(word),
                L::field::<5, 1>(word),
                L::field::<6, 1>(word),
                L::field::<7, 1>(word),
            ];
            for (code, ones) in codes.iter_mut().zip(ones) {
                let ones = if has_nibbles { L::left::<4>(ones) } else { L::left::<2>(ones) };
                *code = L::or(*code, ones);
            }
        }
        if CODES == ANY
            && let Codes::Table(table) = kind
        {
            for code in &mut codes {
                *code = L::look_up(&table.integers(), *code);
            }
        }
        codes
    }
}
