//! Words: which ones a text begins with. A sorted table: as small as the words, and a look-up goes no further than the longest.

/// Words and their tokens.
#[derive(Debug)]
pub(super) struct Words {
    sorted: Vec<(Box<[u8]>, u32)>,
}

// === impl Words ===

impl Words {
    /// Of equal words the last counts.
    pub(super) fn new<'w>(words: impl Iterator<Item = (&'w str, u32)>) -> Self {
        let mut sorted: Vec<(Box<[u8]>, u32)> = words.map(|(text, token)| (text.as_bytes().into(), token)).collect();
        sorted.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        sorted.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { sorted }
    }

    /// Gives length and token of every word that `text` begins with, the shortest first; tells how many bytes were looked at.
    pub(super) fn each_prefix(&self, text: &[u8], mut take: impl FnMut(usize, u32)) -> usize {
        let mut words = self.sorted.as_slice();
        for (at, byte) in text.iter().enumerate() {
            // All of these begin with text[..at]; a word that ends there comes before all that go on.
            words = &words[words.partition_point(|word| word.0.get(at) < Some(byte))..];
            words = &words[..words.partition_point(|word| word.0.get(at) == Some(byte))];
            match words.first() {
                None => return at + 1,
                Some((word, token)) if word.len() == at + 1 => take(at + 1, *token),
                Some(_) => {}
            }
        }
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_that_a_text_begins_with_are_found() {
        let words = [("b", 1), ("a", 2), ("abc", 3), ("ab", 4), ("a", 5), ("abd", 6), ("aa", 7)];
        let words = Words::new(words.into_iter());
        let prefixes = |text: &str| {
            let mut found = Vec::new();
            let n_looked_at = words.each_prefix(text.as_bytes(), |length, token| found.push((length, token)));
            assert!(n_looked_at <= text.len());
            found
        };
        assert_eq!(prefixes("abcd"), [(1, 5), (2, 4), (3, 3)]);
        assert_eq!(prefixes("abe"), [(1, 5), (2, 4)]);
        assert_eq!(prefixes("b"), [(1, 1)]);
        assert_eq!((prefixes("c"), prefixes("")), (Vec::new(), Vec::new()));
    }
}
