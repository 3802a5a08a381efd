//! Text stream: tokens to text as they come, never splitting a character.

use std::sync::Arc;

use super::Tokenizer;

/// An incremental detokeniser of one answer.
///
/// What [`push`](Self::push) and [`finish`](Self::finish) give, put together, is what [`Tokenizer::decode`] gives for
/// the same tokens; but without the first blank where answers go on from no text.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// Whether a blank that comes now is one that the model puts before every text.
    drops_blank: bool,
    /// The begun character: at most 3 bytes.
    pending: Vec<u8>,
}

// === impl TextStream ===

impl TextStream {
    /// As [`Tokenizer::stream`].
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let drops_blank = tokenizer.model.answers_stand_alone();
        Self { tokenizer, skip_special, drops_blank, pending: Vec::new() }
    }

    /// The characters that `token` completes; may be empty. Bytes that can become no character give U+FFFD.
    pub fn push(&mut self, token: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(token) {
            return String::new();
        }
        let bytes = self.tokenizer.token_bytes(token);
        let is_dropped = std::mem::take(&mut self.drops_blank) && bytes.starts_with(b" ");
        self.pending.extend_from_slice(&bytes[usize::from(is_dropped)..]);
        take_complete(&mut self.pending)
    }

    /// What is left when no token follows: U+FFFD for a character that was never completed, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Takes everything but the start of a character whose other bytes may still come.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let is_begun = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        let is_last = taken + chunk.invalid().len() == pending.len();
        if chunk.invalid().is_empty() || (is_begun && is_last) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += chunk.invalid().len();
    }
    pending.drain(..taken);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_bytes_are_cut_the_text_is_the_same() {
        let samples: [&[u8]; 5] =
            ["é日🦀e\u{301}".as_bytes(), b"\xf0\x9f\xa6 \xf0\x9f", b"\x80\x80a\xff\xc3", b"\xed\xa0\x80\xe2\x82", b""];
        for bytes in samples {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut pending = Vec::new();
                    let mut text = String::new();
                    for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        pending.extend_from_slice(part);
                        text.push_str(&take_complete(&mut pending));
                        assert!(pending.len() <= 3, "{pending:?} waits for more than a character");
                    }
                    text.push_str(&String::from_utf8_lossy(&pending));
                    assert_eq!(text, String::from_utf8_lossy(bytes), "{bytes:?} cut at {first} and {second}");
                }
            }
        }
    }
}
