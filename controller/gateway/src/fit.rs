//! Fit: whether a text can be a prompt at all, told by its length before it is tokenised. Pure.
//!
//! Byte-level tokens stand for all bytes of a text but those for which the vocabulary has no token, after the text was brought to Unicode
//! NFC, where a family does that. So a text has at least as many tokens as its bytes, by the longest token's, by what NFC can shrink.

use polyphony_model::Tokenizer;

use crate::errors::ApiError;

/// NFC makes of no text one of less than a quarter of its bytes: U+1FBE U+0308 U+0301 are seven bytes and become two, U+0390.
const NFC_SHRINKS_BY: usize = 4;

/// # Errors
/// 400 `context_length_exceeded` for a text, the field `param`, that has more tokens than fit, however they are counted.
pub(crate) fn check(param: &str, text: &str, tokenizer: &Tokenizer, context_length: u32) -> Result<(), ApiError> {
    // One byte is at most one token.
    if text.len() < context_length as usize {
        return Ok(());
    }
    let n_tokens = fewest_tokens(text, tokenizer);
    if n_tokens < context_length as usize {
        return Ok(());
    }
    Err(ApiError::text_too_long(param, text.len(), n_tokens, context_length))
}

/// No way of cutting `text` into tokens has fewer.
fn fewest_tokens(text: &str, tokenizer: &Tokenizer) -> usize {
    let mut is_known = [false; 256];
    let mut longest = 1;
    for token in 0..tokenizer.n_vocab() {
        let bytes = tokenizer.token_bytes(token);
        longest = longest.max(bytes.len());
        if let [byte] = bytes {
            is_known[usize::from(*byte)] = true;
        }
    }
    let n_known = match is_known.iter().all(|is_known| *is_known) {
        true => text.len(),
        // NFC may make unknown bytes of known ones: nothing is certain then but what it leaves alone.
        false => text.bytes().filter(|byte| byte.is_ascii() && is_known[usize::from(*byte)]).count(),
    };
    n_known / longest / NFC_SHRINKS_BY
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_text_is_refused_that_would_have_fitted() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/golden/tiny/llama_q8_0.gguf");
        let tokenizer = Tokenizer::open(std::path::Path::new(path)).unwrap();
        let texts =
            ["the ", " ", "\n", "aaaa", "é", "🦀", "\u{1fbe}\u{308}\u{301}", "\u{1}", "ᄒ\u{1161}\u{11ab}", "x1y2 "];
        for text in texts {
            let text = text.repeat(2000);
            let n_tokens = tokenizer.encode(&text, false).unwrap().len();
            let fewest = fewest_tokens(&text, &tokenizer);
            assert!(fewest <= n_tokens, "{:?}…: {fewest} of {n_tokens}", &text[..8]);
        }
        let long = "the quick brown fox ".repeat(200_000);
        let error = check("prompt", &long, &tokenizer, 512).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, Some("context_length_exceeded")));
    }
}
