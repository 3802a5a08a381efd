//! Fit: whether a text can be a prompt at all, told by its length before it is tokenised. Pure.

use polyphony_model::Tokenizer;

use crate::errors::ApiError;

/// # Errors
/// 400 `context_length_exceeded` for a text, the field `param`, that has more tokens than fit, however they are counted.
pub(crate) fn check(param: &str, text: &str, tokenizer: &Tokenizer, context_length: u32) -> Result<(), ApiError> {
    // One byte is at most one token.
    if text.len() < context_length as usize {
        return Ok(());
    }
    let n_tokens = tokenizer.fewest_tokens(text);
    if n_tokens < context_length as usize {
        return Ok(());
    }
    Err(ApiError::text_too_long(param, text.len(), n_tokens, context_length))
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
            let fewest = tokenizer.fewest_tokens(&text);
            assert!(fewest <= n_tokens, "{:?}…: {fewest} of {n_tokens}", &text[..8]);
        }
        let long = "the quick brown fox ".repeat(200_000);
        let error = check("prompt", &long, &tokenizer, 512).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, Some("context_length_exceeded")));
    }
}
