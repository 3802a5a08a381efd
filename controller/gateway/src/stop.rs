//! Stop strings: ends an answer where one begins. Text that may be the start of one is held back, so that no part of
//! a stop string is ever seen. Pure.

/// Watches one answer's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the start of a stop string: shorter than the longest of them.
    held: String,
}

/// What a piece of text leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// What the client may see now.
    pub(crate) text: String,
    /// The stop string that ended the answer.
    pub(crate) stopped_by: Option<String>,
}

// === impl StopMatcher ===

impl StopMatcher {
    /// `stops` are not empty strings.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece of the answer. Where several stop strings are found, the one that begins first counts.
    pub(crate) fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|at| (at, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            let stopped_by = Some(stop.clone());
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Passed { text, stopped_by };
        }
        let begun = self.begun_at();
        let held = self.held.split_off(begun);
        Passed { text: std::mem::replace(&mut self.held, held), stopped_by: None }
    }

    /// What was held back when the answer ends otherwise.
    pub(crate) fn finish(self) -> String {
        self.held
    }

    /// Where the longest ending begins that is the start of a stop string; the length where there is none.
    fn begun_at(&self) -> usize {
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let mut starts = self.held.char_indices().map(|(at, _)| at);
        starts.find(begins).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stop strings, pieces of text, what is seen of them, and what stopped it.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<&'a str>);

    /// Everything that is seen of `pieces`, with a mark between pieces, and what stopped it.
    fn seen(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut texts = Vec::new();
        for piece in pieces {
            let passed = matcher.push(piece);
            texts.push(passed.text);
            if passed.stopped_by.is_some() {
                return (texts.join("|"), passed.stopped_by);
            }
        }
        texts.push(matcher.finish());
        (texts.join("|"), None)
    }

    #[test]
    fn a_stop_string_ends_the_text_and_no_part_of_it_is_seen() {
        let cases: [Case<'_>; 12] = [
            (&[], &["ab", "c"], "ab|c|", None),
            (&["b"], &["abc"], "a", Some("b")),
            (&["\n\n"], &["a\n", "\nb"], "a|", Some("\n\n")),
            (&["\n\n"], &["a\n", "b"], "a|\nb|", None),
            (&["END"], &["xE", "N", "D"], "x||", Some("END")),
            (&["END"], &["xE", "N", "E", "ND"], "x||EN|", Some("END")),
            (&["aab"], &["a", "a", "a", "b"], "||a|", Some("aab")),
            (&["abc", "bd"], &["ab", "d"], "|a", Some("bd")),
            (&["ab", "abc"], &["abc"], "", Some("ab")),
            (&["🦀é"], &["x🦀", "é"], "x|", Some("🦀é")),
            (&["🦀é"], &["x🦀", "e"], "x|🦀e|", None),
            (&["END"], &["x", "EN"], "x||EN", None),
        ];
        for (stops, pieces, text, stopped_by) in cases {
            let expected = (text.to_owned(), stopped_by.map(str::to_owned));
            assert_eq!(seen(stops, pieces), expected, "{stops:?} in {pieces:?}");
        }
    }

    #[test]
    fn however_text_is_cut_the_same_is_seen() {
        let text = "one two two three two three four";
        let stops = ["two three f", "four"];
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let (seen, stopped_by) = seen(&stops, &pieces);
                assert_eq!(seen.replace('|', ""), "one two two three ", "cut at {first} and {second}");
                assert_eq!(stopped_by.as_deref(), Some("two three f"));
            }
        }
    }
}
