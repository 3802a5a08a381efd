//! Aside: the backends that failed, by the first part of their class. All engines of the agent look here before each run, and heartbeats tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyphony_protocol::hub::BackendFault;
use tokio::sync::watch;

/// A handle on what is set aside, for as long as the agent lives: a new start asks again.
#[derive(Clone, Debug)]
pub struct Aside(Arc<watch::Sender<BTreeMap<String, BackendFault>>>);

// === impl Aside ===

impl Aside {
    /// Of one, the first reason stands.
    pub fn set(&self, fault: BackendFault) {
        self.0.send_if_modified(|all| {
            if all.contains_key(&fault.numerics) {
                return false;
            }
            let BackendFault { backend, numerics, reason, .. } = &fault;
            tracing::error!(backend, numerics, reason, "set aside until the agent is started anew");
            all.insert(fault.numerics.clone(), fault);
            true
        });
    }

    /// Why nothing is computed in this class, if that is so.
    pub fn reason(&self, numerics: &str) -> Option<String> {
        self.0.borrow().get(numerics).map(|fault| fault.reason.clone())
    }

    /// Waits until nothing is computed in this class any more; why.
    pub async fn until(&self, numerics: &str) -> String {
        let mut changes = self.0.subscribe();
        // The sender is in this.
        let _ = changes.wait_for(|all| all.contains_key(numerics)).await;
        self.reason(numerics).unwrap_or_default()
    }

    pub fn list(&self) -> Vec<BackendFault> {
        self.0.borrow().values().cloned().collect()
    }
}

impl Default for Aside {
    fn default() -> Self {
        Self(Arc::new(watch::channel(BTreeMap::new()).0))
    }
}
