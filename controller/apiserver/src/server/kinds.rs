//! The kinds that are served now: the built-in ones and those of every stored definition.

use std::sync::{Arc, PoisonError, RwLock};

use super::special::DEFINITIONS;
use crate::registry::{Kind, Registry};
use crate::store::Reader;

/// The registry of the moment, shared; readers keep the one they began with.
#[derive(Clone, Default)]
pub struct Kinds {
    registry: Arc<RwLock<Arc<Registry>>>,
}

// === impl Kinds ===

impl Kinds {
    pub fn current(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the stored definitions again.
    pub fn reload(&self, reader: &Reader) {
        // Locked while reading, so that the older of two readings never stays.
        let mut current = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let mut registry = Registry::builtin();
        for (key, definition) in reader.list(DEFINITIONS, None).objects {
            match Kind::served_by_crd(&definition) {
                Ok(kinds) => kinds.into_iter().for_each(|kind| registry.insert(kind)),
                // It was judged before it was stored, by an older program perhaps.
                Err(error) => {
                    tracing::error!(definition = key.name, %error, "a stored definition is not served")
                }
            }
        }
        *current = Arc::new(registry);
    }
}
