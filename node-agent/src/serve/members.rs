//! The stages of this phone, for who comes in over a link: found by ring and generation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_model::CACHE_PIECES;
use polyphony_protocol::hub::Assignment;
use polyphony_protocol::{PlanGeneration, RingId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::compute::Compute;
use super::event::Event;
use crate::board::Entry;

/// The stages of this phone, by ring and generation: what the listener looks hellos up in.
#[derive(Clone, Default)]
pub struct Members {
    members: Arc<Mutex<HashMap<(RingId, PlanGeneration), Member>>>,
}

/// A stage of this phone.
#[derive(Clone)]
pub struct Member {
    pub assignment: watch::Receiver<Assignment>,
    pub compute: Compute,
    pub entry: Arc<Entry>,
    /// Pieces of KV caches that may be on their way out.
    pub pieces: Arc<Semaphore>,
    incoming: Arc<Mutex<HashMap<u32, Incoming>>>,
}

/// The connection that now comes from a stage.
struct Incoming {
    /// Ends it.
    cancel: CancellationToken,
    /// Held until its end has been told: what the next one brings comes behind that.
    turn: Arc<AsyncMutex<()>>,
}

/// Room for as many pieces of KV caches, each way, as a segment declares memory for.
pub(super) fn piece_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CACHE_PIECES as usize))
}

// === impl Members ===

impl Members {
    pub fn add(&self, ring: RingId, generation: PlanGeneration, member: Member) {
        self.lock().insert((ring, generation), member);
    }

    pub fn remove(&self, ring: RingId, generation: PlanGeneration) {
        if let Some(member) = self.lock().remove(&(ring, generation)) {
            let incoming = member.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            incoming.values().for_each(|connection| connection.cancel.cancel());
        }
    }

    pub fn find(&self, ring: RingId, generation: PlanGeneration) -> Option<Member> {
        self.lock().get(&(ring, generation)).cloned()
    }

    /// The host link has ended: no gateway waits for any session of this phone any more. Returns when all stages will hear it before
    /// anything that comes later.
    pub async fn host_lost(&self) {
        let members: Vec<_> = self.lock().values().cloned().collect();
        for member in members {
            // A stage that has ended has no sessions.
            let _ = member.compute.send(Event::HostLost).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RingId, PlanGeneration), Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Member ===

impl Member {
    pub fn new(assignment: watch::Receiver<Assignment>, compute: Compute, entry: Arc<Entry>) -> Self {
        Self { assignment, compute, entry, pieces: piece_places(), incoming: Arc::default() }
    }

    /// The turn of a new connection from a stage, and what ends it. The one before ends first, and its sessions with it.
    pub(super) async fn take_over(&self, from_stage: u32) -> (CancellationToken, OwnedMutexGuard<()>) {
        let cancel = CancellationToken::new();
        let turn = {
            let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = incoming.get(&from_stage).map(|before| {
                before.cancel.cancel();
                before.turn.clone()
            });
            let turn = turn.unwrap_or_default();
            incoming.insert(from_stage, Incoming { cancel: cancel.clone(), turn: turn.clone() });
            turn
        };
        (cancel, turn.lock_owned().await)
    }
}
