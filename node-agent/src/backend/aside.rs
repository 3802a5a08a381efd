//! Aside: the backends that failed, by the first part of their class. All engines of the agent look here before each run, and heartbeats tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_protocol::hub::BackendFault;

/// A handle on what is set aside, for as long as the agent lives: a new start asks again.
#[derive(Clone, Debug, Default)]
pub struct Aside(Arc<Mutex<BTreeMap<String, BackendFault>>>);

// === impl Aside ===

impl Aside {
    /// Of one, the first reason stands.
    pub fn set(&self, fault: BackendFault) {
        let mut all = self.lock();
        if all.contains_key(&fault.numerics) {
            return;
        }
        let BackendFault { backend, numerics, reason, .. } = &fault;
        tracing::error!(backend, numerics, reason, "set aside until the agent is started anew");
        all.insert(fault.numerics.clone(), fault);
    }

    /// Why nothing is computed in this class, if that is so.
    pub fn reason(&self, numerics: &str) -> Option<String> {
        self.lock().get(numerics).map(|fault| fault.reason.clone())
    }

    pub fn list(&self) -> Vec<BackendFault> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BackendFault>> {
        // No code panics while it holds this half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
