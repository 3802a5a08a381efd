//! Names: which of many names stand in a text, in one pass over it however many and long they are. Knows no token.
//!
//! An automaton of Aho and Corasick over the names read backwards. Run over a text from its end, it has at each place the longest name that
//! begins there, so that the leftmost and then the longest ones are picked without trying again. The library's own automata try again from
//! each match, and list for each state every name that ends there: both grow with the square of what a file may name.

use std::collections::HashMap;

/// The longest name; known ones have some hundred bytes.
pub(crate) const MAX_NAME_BYTES: usize = 1024;
/// All names together: fifty thousand of usual length are a quarter of it. Each byte takes some 50 of memory.
pub(crate) const MAX_NAMES_BYTES: usize = 4 << 20;

/// Names to find.
#[derive(Debug)]
pub(crate) struct Names {
    /// Where a byte leads from a state, from the first to all that have it.
    edges: HashMap<(u32, u8), u32>,
    /// The same of the first state, where most of a text is.
    first: Box<[u32; 256]>,
    states: Vec<State>,
    /// Bytes of each name.
    lengths: Vec<u32>,
}

/// What a name is found among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    All,
    /// Those that are plain alone.
    Plain,
}

/// A name in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Its place among the names.
    pub(crate) idx: usize,
}

/// Why names cannot be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NamesError {
    #[error("name {idx} has {found} bytes, over the limit of {MAX_NAME_BYTES}")]
    Long { idx: usize, found: usize },
    #[error("they have {found} bytes together, over the limit of {MAX_NAMES_BYTES}")]
    TooMany { found: usize },
}

/// The end of a name, backwards.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The state of the longest text that ends this one and begins some name, too.
    fallback: u32,
    /// The longest name that is whole here: of all, and of the plain ones.
    longest: [u32; 2],
}

/// How a state is reached: from which one, by which byte, and over how many.
#[derive(Clone, Copy, Debug)]
struct Origin {
    before: u32,
    byte: u8,
    depth: u32,
}

const FIRST: u32 = 0;
const NONE: u32 = u32::MAX;

// === impl Names ===

impl Names {
    /// From each name, and whether it is plain. Empty ones are never found; of equal ones the first counts.
    ///
    /// # Errors
    /// [`NamesError`] for more than any vocabulary has.
    pub(crate) fn new<'n>(names: impl Iterator<Item = (&'n str, bool)>) -> Result<Self, NamesError> {
        let mut this = Self {
            edges: HashMap::new(),
            first: Box::new([FIRST; 256]),
            states: vec![State { fallback: FIRST, longest: [NONE; 2] }],
            lengths: Vec::new(),
        };
        let mut origins = vec![Origin { before: FIRST, byte: 0, depth: 0 }];
        let mut n_bytes = 0;
        for (idx, (name, is_plain)) in names.enumerate() {
            n_bytes += name.len();
            if name.len() > MAX_NAME_BYTES {
                return Err(NamesError::Long { idx, found: name.len() });
            }
            if n_bytes > MAX_NAMES_BYTES {
                return Err(NamesError::TooMany { found: n_bytes });
            }
            this.lengths.push(name.len() as u32);
            let mut at = FIRST;
            for (depth, byte) in name.bytes().rev().enumerate() {
                let next = this.states.len() as u32;
                at = *this.edges.entry((at, byte)).or_insert_with(|| {
                    this.states.push(State { fallback: FIRST, longest: [NONE; 2] });
                    origins.push(Origin { before: at, byte, depth: depth as u32 + 1 });
                    next
                });
            }
            if at != FIRST {
                let [all, plain] = &mut this.states[at as usize].longest;
                *all = (*all).min(idx as u32);
                *plain = if is_plain { (*plain).min(idx as u32) } else { *plain };
            }
        }
        for byte in 0..=u8::MAX {
            this.first[usize::from(byte)] = this.edges.get(&(FIRST, byte)).copied().unwrap_or(FIRST);
        }
        this.link(&origins);
        Ok(this)
    }

    /// Gives every state its fallback, whose names are whole in it, too.
    fn link(&mut self, origins: &[Origin]) {
        let mut by_depth: Vec<u32> = (1..origins.len() as u32).collect();
        by_depth.sort_by_key(|&state| origins[state as usize].depth);
        for state in by_depth {
            let Origin { before, byte, .. } = origins[state as usize];
            let fallback = if before == FIRST { FIRST } else { self.next(self.states[before as usize].fallback, byte) };
            let inherited = self.states[fallback as usize].longest;
            let own = &mut self.states[state as usize];
            own.fallback = fallback;
            for (name, inherited) in own.longest.iter_mut().zip(inherited) {
                *name = if *name == NONE { inherited } else { *name };
            }
        }
    }

    fn next(&self, mut state: u32, byte: u8) -> u32 {
        while state != FIRST {
            if let Some(next) = self.edges.get(&(state, byte)) {
                return *next;
            }
            state = self.states[state as usize].fallback;
        }
        self.first[usize::from(byte)]
    }

    /// The names in `text` from its start: the leftmost first, of those the longest, none over another.
    pub(crate) fn find(&self, text: &str, among: Among) -> Vec<Found> {
        let among = usize::from(among == Among::Plain);
        let mut begun = Vec::new();
        let mut state = FIRST;
        for (at, byte) in text.bytes().enumerate().rev() {
            state = self.next(state, byte);
            let name = self.states[state as usize].longest[among];
            if name != NONE {
                begun.push((at, name));
            }
        }
        let mut found: Vec<Found> = Vec::new();
        for (from, name) in begun.into_iter().rev() {
            if found.last().is_none_or(|last| last.to <= from) {
                let idx = name as usize;
                found.push(Found { from, to: from + self.lengths[idx] as usize, idx });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn find(names: &[&str], text: &str) -> Vec<(usize, usize)> {
        let names = Names::new(names.iter().map(|name| (*name, true))).unwrap();
        names.find(text, Among::Plain).into_iter().map(|found| (found.from, found.idx)).collect()
    }

    #[test]
    fn the_leftmost_and_then_the_longest_name_is_found() {
        assert_eq!(find(&["ab", "abc", "bcd", "", "ab"], "xabcdab"), [(1, 1), (5, 0)]);
        assert_eq!(find(&["é", "aé"], "éaéa"), [(0, 0), (2, 1)]);
        assert_eq!(find(&[], "a"), []);
    }

    #[test]
    fn names_that_are_not_plain_hide_none_that_are() {
        let names = Names::new([("<a>", false), ("<a", true), ("<a>", true), ("a", false)].into_iter()).unwrap();
        let idx = |among| names.find("<a><a", among).iter().map(|found| found.idx).collect::<Vec<_>>();
        assert_eq!((idx(Among::All), idx(Among::Plain)), (vec![0, 1], vec![2, 1]));
    }

    #[test]
    fn names_within_names_take_memory_and_time_by_their_bytes() {
        // Each ends in all shorter ones, and a text of them begins all of them everywhere.
        let runs = (1..=1000).map(|length| "a".repeat(length));
        let ended = (0..1000).map(|idx| format!("{idx}{}", "a".repeat(1000)));
        let names: Vec<String> = runs.chain(ended).collect();
        let names = Names::new(names.iter().map(|name| (name.as_str(), true))).unwrap();
        let text = "a".repeat(1 << 20);
        assert_eq!(names.find(&text, Among::All).len(), (1 << 20) / 1000 + 1);
    }

    #[test]
    fn names_longer_or_more_than_any_vocabulary_has_are_refused() {
        let long = "a".repeat(1025);
        assert_eq!(
            Names::new([("", true), (&long, true)].into_iter()).unwrap_err(),
            NamesError::Long { idx: 1, found: 1025 }
        );
        let many = std::iter::repeat_n((&long[..1024], true), 4097);
        assert_eq!(Names::new(many).unwrap_err(), NamesError::TooMany { found: 4097 << 10 });
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_trying_each_place_finds(
            names in prop::collection::vec("[ab]{0,4}|[abé]{1,3}", 0..12),
            text in "[abé]{0,40}",
        ) {
            let mut expected = Vec::new();
            let mut from = 0;
            while from < text.len() {
                let begun = names.iter().enumerate().filter(|(_, name)| !name.is_empty());
                let begun = begun.filter(|(_, name)| text.as_bytes()[from..].starts_with(name.as_bytes()));
                match begun.max_by_key(|(idx, name)| (name.len(), std::cmp::Reverse(*idx))) {
                    Some((idx, name)) => {
                        expected.push((from, idx));
                        from += name.len();
                    }
                    None => from += 1,
                }
            }
            prop_assert_eq!(find(&names.iter().map(String::as_str).collect::<Vec<_>>(), &text), expected);
        }
    }
}
