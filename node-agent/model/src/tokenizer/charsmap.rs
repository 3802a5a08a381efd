//! Charsmap: sentencepiece's table of what characters are replaced by before text is cut (full width by plain, tabs by blanks).
//!
//! A `precompiled_charsmap`: the length of a double array in bytes (u32), the array, and replacements that end with a zero. The array is
//! a trie of darts-clone; every unit that can be reached is looked at before it is used, so that no look-up leaves array or replacements.

use std::collections::VecDeque;

/// Replacements by what they replace.
#[derive(Debug)]
pub(super) struct Charsmap {
    units: Vec<Unit>,
    replacements: String,
}

/// A place of the double array.
#[derive(Clone, Copy, Debug)]
struct Unit(u32);

/// Why bytes are no charsmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CharsmapError {
    #[error("it has {n_bytes} bytes, of which the array takes {array}: it is truncated or damaged")]
    Length { n_bytes: usize, array: u32 },
    #[error("its array has {found} bytes, over the limit of {MAX_ARRAY_BYTES}")]
    TooLarge { found: usize },
    #[error("unit {unit} of its array points out of it, at unit {to}")]
    OutOfArray { unit: usize, to: usize },
    #[error("unit {unit} of its array points to replacement {to}, where none begins")]
    Replacement { unit: usize, to: usize },
    #[error("unit {unit} of its array has a replacement of {found} bytes, over {MAX_GROWTH} times what it replaces")]
    Growth { unit: usize, found: usize },
    #[error("its replacements are no UTF-8 that ends with a zero")]
    NotUtf8,
}

/// That of NFKC has some 250,000.
const MAX_ARRAY_BYTES: usize = 4 << 20;
/// The most that one character is replaced by is 11 times as long: U+FDFA.
const MAX_GROWTH: usize = 12;
/// The longest text that is replaced at once, in bytes.
const MAX_KEY_BYTES: usize = 256;

// === impl Charsmap ===

impl Charsmap {
    /// # Errors
    /// [`CharsmapError`]: bytes that are no such table, or would replace text by far more.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, CharsmapError> {
        let (length, rest) = bytes.split_first_chunk().ok_or(CharsmapError::Length { n_bytes: bytes.len(), array: 0 })?;
        let array = u32::from_le_bytes(*length);
        let damaged = CharsmapError::Length { n_bytes: bytes.len(), array };
        let (units, replacements) = rest.split_at_checked(array as usize).ok_or(damaged)?;
        if units.len() > MAX_ARRAY_BYTES {
            return Err(CharsmapError::TooLarge { found: units.len() });
        }
        let (units, odd) = units.as_chunks();
        if units.is_empty() || !odd.is_empty() {
            return Err(damaged);
        }
        let replacements = std::str::from_utf8(replacements).ok().filter(|text| text.is_empty() || text.ends_with('\0'));
        let map = Self {
            units: units.iter().map(|unit| Unit(u32::from_le_bytes(*unit))).collect(),
            replacements: replacements.ok_or(CharsmapError::NotUtf8)?.to_owned(),
        };
        map.check()?;
        Ok(map)
    }

    /// What the longest replaced text at the start of `text` becomes, and its length in bytes.
    pub(super) fn replaced(&self, text: &str) -> Option<(&str, usize)> {
        let mut found = None;
        let mut node = self.units[0].offset();
        for (at, &byte) in text.as_bytes().iter().enumerate().take(MAX_KEY_BYTES) {
            let Some((_, unit)) = self.child(node, byte) else { break };
            node ^= usize::from(byte) ^ unit.offset();
            if unit.has_leaf() {
                found = self.units.get(node).map(|leaf| (leaf.value(), at + 1));
            }
        }
        // A text may be replaced by nothing, and a key may end within a character of a damaged table.
        let (value, n_bytes) = found.filter(|&(_, n_bytes)| text.is_char_boundary(n_bytes))?;
        Some((self.replacement(value)?, n_bytes))
    }

    /// The unit that `byte` leads to, and its place.
    fn child(&self, node: usize, byte: u8) -> Option<(usize, Unit)> {
        let at = node ^ usize::from(byte);
        let unit = *self.units.get(at)?;
        (byte != 0 && unit.label() == u32::from(byte)).then_some((at, unit))
    }

    fn replacement(&self, from: usize) -> Option<&str> {
        let rest = self.replacements.get(from..)?;
        rest.split_once('\0').map(|(replacement, _)| replacement)
    }

    /// Goes to every unit that a text can lead to, by the shortest such text.
    fn check(&self) -> Result<(), CharsmapError> {
        let mut is_known = vec![false; self.units.len()];
        let mut next = VecDeque::from([(0, self.units[0].offset(), 0)]);
        while let Some((unit, node, n_bytes)) = next.pop_front() {
            if node >= self.units.len() {
                return Err(CharsmapError::OutOfArray { unit, to: node });
            }
            for (at, child) in (1..=u8::MAX).filter_map(|byte| self.child(node, byte)) {
                if std::mem::replace(&mut is_known[at], true) {
                    continue;
                }
                let node = at ^ child.offset();
                if child.has_leaf() {
                    self.check_leaf(at, node, n_bytes + 1)?;
                }
                next.push_back((at, node, n_bytes + 1));
            }
        }
        Ok(())
    }

    fn check_leaf(&self, unit: usize, node: usize, n_bytes: usize) -> Result<(), CharsmapError> {
        let leaf = self.units.get(node).ok_or(CharsmapError::OutOfArray { unit, to: node })?;
        let to = leaf.value();
        let found = self.replacement(to).ok_or(CharsmapError::Replacement { unit, to })?.len();
        if found > MAX_GROWTH * n_bytes { Err(CharsmapError::Growth { unit, found }) } else { Ok(()) }
    }
}

// === impl Unit ===

/// As `DoubleArrayUnit` of darts-clone.
impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    /// The byte that leads here; a leaf has none.
    fn label(self) -> u32 {
        self.0 & 0x8000_00ff
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 1 << 9) >> 6)) as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `a` by `x`, `ab` by nothing, all in one block of 256 units.
    fn units() -> Vec<u32> {
        let mut units = vec![0; 256];
        let unit = |label: u8, has_leaf: bool, offset: u32| offset << 10 | u32::from(has_leaf) << 8 | u32::from(label);
        // Children of the root lie at their bytes; each place of a node is told by its offset.
        units[usize::from(b'a')] = unit(b'a', true, u32::from(b'a') ^ 0x10);
        units[0x10] = 1 << 31;
        units[0x10 ^ usize::from(b'b')] = unit(b'b', true, 0x10 ^ u32::from(b'b') ^ 0x20);
        units[0x20] = 1 << 31 | 2;
        units
    }

    fn bytes(units: &[u32], replacements: &[u8]) -> Vec<u8> {
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend_from_slice(replacements);
        bytes
    }

    #[test]
    fn the_longest_text_is_replaced() {
        let map = Charsmap::new(&bytes(&units(), b"x\0\0")).unwrap();
        assert_eq!(map.replaced("aab"), Some(("x", 1)));
        assert_eq!(map.replaced("abb"), Some(("", 2)));
        assert_eq!((map.replaced("ba"), map.replaced(""), map.replaced("\0a")), (None, None, None));
    }

    #[test]
    fn a_table_that_points_elsewhere_is_refused() {
        let refusal = |change: fn(&mut Vec<u32>), replacements: &[u8]| {
            let mut units = units();
            change(&mut units);
            Charsmap::new(&bytes(&units, replacements)).unwrap_err()
        };
        assert!(matches!(refusal(|units| units[0x10] |= 77, b"x\0\0"), CharsmapError::Replacement { to: 77, .. }));
        assert!(matches!(refusal(|units| units[0x61] |= 1 << 30, b"x\0\0"), CharsmapError::OutOfArray { unit: 0x61, .. }));
        assert!(matches!(refusal(|units| units[0] = u32::MAX >> 1, b"x\0\0"), CharsmapError::OutOfArray { unit: 0, .. }));
        assert!(matches!(refusal(|_| (), b"x\0x"), CharsmapError::NotUtf8));
        assert!(matches!(refusal(|_| (), b"x\xff\0\0"), CharsmapError::NotUtf8));
        assert!(matches!(refusal(|_| (), &[[b'x'; 40].as_slice(), b"\0\0"].concat()), CharsmapError::Growth { found: 40, .. }));
        assert!(matches!(refusal(|units| units.clear(), b"x\0\0"), CharsmapError::Length { .. }));
        let whole = bytes(&units(), b"x\0\0");
        for length in 0..whole.len() {
            assert!(Charsmap::new(&whole[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(Charsmap::new(&bytes(&[0; 1 << 20 | 1], b"")).unwrap_err(), CharsmapError::TooLarge { found: 4 << 20 | 4 });
    }

    #[test]
    fn a_table_that_leads_back_to_itself_ends_all_the_same() {
        let mut units = units();
        // From `a` to itself.
        units[usize::from(b'a')] = u32::from(b'a') << 10 | u32::from(b'a');
        let map = Charsmap::new(&bytes(&units, b"x\0\0")).unwrap();
        assert_eq!(map.replaced(&"a".repeat(1 << 20)), None);
    }
}
