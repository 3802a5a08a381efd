//! Residents: the segments that are loaded, for as long as a stage runs a part of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use polyphony_model::Holds;
use polyphony_protocol::hub::Assignment;
use polyphony_protocol::{ActivationType, RingId};
use tokio::sync::OwnedMutexGuard;

use crate::segment::Capacity;
use crate::serve::compute::Thread;

/// A loaded segment and its thread. Freed when the last stage lets go of it.
pub(super) struct Resident {
    pub(super) thread: Thread,
    /// All that is loaded: what its first stage runs, and what stands by.
    pub(super) holds: Holds,
    pub(super) capacity: Capacity,
    pub(super) hidden_size: usize,
    pub(super) vocab_size: u32,
    /// What decoding starts from, where the model has an encoder.
    pub(super) start_token: Option<u32>,
    pub(super) weight_bytes: u64,
    pub(super) kind: Kind,
}

/// What two assignments must have in common to run on one resident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    ring: RingId,
    manifest_digest: String,
    context_length: u32,
    max_sessions: u32,
    activation_type: ActivationType,
    numerics_class: String,
}

/// All residents of this phone.
#[derive(Default)]
pub struct Residents {
    residents: Mutex<Vec<Weak<Resident>>>,
    /// Held while a segment of that ring is loaded.
    loading: Mutex<BTreeMap<RingId, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl Residents ===

impl Residents {
    /// One on which the assignment's stage can run.
    pub(super) fn find(&self, assignment: &Assignment) -> Option<Arc<Resident>> {
        let (kind, holds) = (Kind::of(assignment), super::holds_of(assignment));
        let residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = residents.iter().filter_map(Weak::upgrade);
        present.find(|resident| {
            resident.kind == kind && holds.lies_within(&resident.holds) && !resident.thread.is_broken()
        })
    }

    /// The turn to load a segment of a ring. Who has waited for it looks once more: what one generation has just loaded may do for
    /// the other, and there may be no room for both.
    pub(super) async fn turn(&self, ring: RingId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            loading.retain(|_, turn| Arc::strong_count(turn) > 1);
            loading.entry(ring).or_default().clone()
        };
        turn.lock_owned().await
    }

    pub(super) fn add(&self, resident: Resident) -> Arc<Resident> {
        let resident = Arc::new(resident);
        let mut residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        residents.retain(|known| known.strong_count() > 0);
        residents.push(Arc::downgrade(&resident));
        resident
    }
}

// === impl Kind ===

impl Kind {
    pub(super) fn of(assignment: &Assignment) -> Self {
        Self {
            ring: assignment.ring,
            manifest_digest: assignment.manifest_digest.clone(),
            context_length: assignment.context_length,
            max_sessions: assignment.max_sessions,
            activation_type: assignment.activation_type,
            numerics_class: assignment.numerics_class.clone(),
        }
    }
}
