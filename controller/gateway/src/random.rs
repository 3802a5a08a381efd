//! Random: numbers that no client foresees.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// One, for a seed or an id.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
