//! Lanes: what the products are made of, by width and by what a processor has. A lane is a row of the matrix; all is inlined into functions that are compiled for the
//! features.

use super::STRIP;

/// A register's worth of rows: those of one strip, or of two that follow each other.
///
/// # Safety
/// Of all functions: the processor has the features.
pub(super) trait Lanes {
    /// Strips side by side.
    const STRIPS: usize;
    /// What codes with a sign have over their integers once they are prepared.
    const OVER: i32;
    /// 32 bytes a strip.
    type Ints: Copy;
    type Floats: Copy;
    /// Codes as they are multiplied.
    type Codes: Copy;

    /// What lies in 32 bytes of each strip; the first's where there is one.
    unsafe fn load<T>(first: &T, second: &T) -> Self::Ints;
    unsafe fn floats(values: Self::Ints) -> Self::Floats;
    /// The lower or the upper f16 of each row's word.
    unsafe fn from_f16(words: Self::Ints, is_upper: bool) -> Self::Floats;
    /// A byte of each row's word as an integer.
    unsafe fn byte(words: Self::Ints, at: usize, is_signed: bool) -> Self::Ints;
    unsafe fn words(value: i32) -> Self::Ints;
    unsafe fn float(value: f32) -> Self::Floats;
    unsafe fn none() -> Self::Ints;
    unsafe fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// So many bits of each byte, from bit `FIRST` on.
    unsafe fn field<const FIRST: u32, const BITS: u32>(bytes: Self::Ints) -> Self::Ints;
    /// Bytes whose upper bits are 0, moved up by 2 or 4.
    unsafe fn left<const BITS: u32>(bytes: Self::Ints) -> Self::Ints;
    /// The entries of a table of 16 bytes.
    unsafe fn look_up(table: &[i8; 16], codes: Self::Ints) -> Self::Ints;
    unsafe fn prepared(codes: Self::Ints, is_signed: bool) -> Self::Codes;
    /// The products of either half of a group's codes with that of some activations, added to what each half begins with.
    unsafe fn dots(begin: [i32; 2], codes: &[Self::Codes; 8], x: &[i32; 8], is_signed: bool) -> [Self::Ints; 2];

    /// The same with two rows of activations.
    #[inline(always)]
    unsafe fn dots_of_two(
        begin: [[i32; 2]; 2],
        codes: &[Self::Codes; 8],
        x: [&[i32; 8]; 2],
        is_signed: bool,
    ) -> [[Self::Ints; 2]; 2] {
        // SAFETY: the caller's.
        unsafe { [Self::dots(begin[0], codes, x[0], is_signed), Self::dots(begin[1], codes, x[1], is_signed)] }
    }

    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn times(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn to_floats(a: Self::Ints) -> Self::Floats;
    unsafe fn plus(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn product(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The rows of the first strip, then those of the second, as far as there are any.
    unsafe fn store(values: Self::Floats, to: &mut [f32; 2 * STRIP]);
}
