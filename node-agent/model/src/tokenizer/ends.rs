//! Ends: the tokens that stand before and after a text, and those that end an answer. Pure data.

use crate::gguf::{GgufError, Metadata};

use super::vocabulary::Kind;
use super::{TOKEN_TYPES, TOKENS};

/// What a model wants before and after a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// As the file names them.
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// What is put before and after a text, where anything is.
    pub(super) before: Option<u32>,
    pub(super) after: Option<u32>,
    /// Tokens that end an answer, ascending.
    pub(super) of_answers: Vec<u32>,
}

/// Control tokens that end an answer in some family, whatever the file names as its end token.
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot|>",
    "<end_of_turn>",
    "</s>",
];

/// Keys that name an end token.
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

// === impl Ends ===

impl Ends {
    /// `ids` with what stands before and after them, unless it is there already.
    pub(super) fn around(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(before) = self.before.filter(|before| ids.first() != Some(before)) {
            ids.insert(0, before);
        }
        ids.extend(self.after.filter(|after| ids.last() != Some(after)));
        ids
    }
}

/// Whether a control token of this name ends an answer.
pub(super) fn is_end_name(name: &str) -> bool {
    END_NAMES.contains(&name)
}

/// The tokens that end an answer: those that the file names, and control tokens known by name. Ascending.
pub(super) fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>, GgufError> {
    let mut ends = Vec::new();
    for key in END_KEYS {
        ends.extend(metadata.optional_u32(key)?);
    }
    if metadata.get(TOKENS).is_some() {
        let types = metadata.optional_integers(TOKEN_TYPES)?.unwrap_or_default();
        let named = metadata.strings(TOKENS)?.iter().zip(&types).enumerate().filter(|(_, (token, kind))| {
            Kind::from_number(**kind) == Some(Kind::Control) && is_end_name(token)
        });
        ends.extend(named.map(|(id, _)| id as u32));
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_text_is_put_there_once() {
        let ends = Ends { before: Some(1), after: Some(2), ..Ends::default() };
        assert_eq!(ends.around(vec![5]), [1, 5, 2]);
        assert_eq!(ends.around(vec![]), [1, 2]);
        assert_eq!(ends.around(vec![1, 5, 2]), [1, 5, 2]);
        assert_eq!(Ends::default().around(vec![5]), [5]);
    }
}
