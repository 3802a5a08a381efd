//! Flaws: what can be wrong with a part of a tokenizer's file. Which field it was is told by who read the field.

use super::charsmap::CharsmapError;

/// The largest known vocabularies have 260,000 tokens, and some 600,000 merges. Each takes some hundred bytes of memory.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// Why a field of a tokenizer cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Flaw {
    #[error("it has {found} entries, but the vocabulary has {expected}")]
    Length { found: usize, expected: usize },
    #[error("it has {found} entries, over the limit of {MAX_ENTRIES}")]
    TooMany { found: usize },
    #[error("it is {id}, outside of the vocabulary of {n_vocab}")]
    TokenId { id: u64, n_vocab: usize },
    #[error("token {id} has the type {found}, which is none from 1 to 6")]
    Kind { id: usize, found: i64 },
    #[error(
        "token {id} has {found} bytes, over the limit of {limit} for a word that is searched at each place of a text"
    )]
    LongWord { id: u32, found: usize, limit: usize },
    #[error("token {id} has the score {found}, which is no finite number")]
    Score { id: usize, found: f64 },
    #[error("merge {idx}, {merge:?}, is not two tokens with a space between")]
    Merge { idx: usize, merge: String },
    #[error("merge {idx} is of {token:?}, which is no token: vocabulary and merges do not fit together")]
    MergeOfNoToken { idx: usize, token: String },
    #[error("{name:?} is no token of the vocabulary")]
    NoToken { name: String },
    #[error("token {id} stands there twice, with two texts")]
    Twice { id: u32 },
    #[error("it has tokens by name that cannot be looked for at once: {0}")]
    Names(String),
    #[error(transparent)]
    Charsmap(#[from] CharsmapError),
    #[error("it is more than this library takes: {0}")]
    Library(String),
}

/// # Errors
/// [`Flaw::TooMany`] for more tokens or merges than any tokenizer has.
pub(super) fn check_entries(found: usize) -> Result<(), Flaw> {
    if found > MAX_ENTRIES { Err(Flaw::TooMany { found }) } else { Ok(()) }
}
