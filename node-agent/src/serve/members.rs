//! The stages of this phone, for who comes in over a link: found by ring and generation.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_model::CACHE_PIECES;
use polyphony_protocol::hub::Assignment;
use polyphony_protocol::{PlanGeneration, RingId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, watch};

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
    incoming: Arc<Mutex<AllIncoming>>,
}

/// The connections that come in, by stage.
#[derive(Default)]
struct AllIncoming {
    by_stage: HashMap<u32, Incoming>,
    /// The stage was taken away: no more come.
    over: Option<End>,
}

/// The connection that now comes from a stage. The one before it ends, and of those that wait for its end only the last does: so there are
/// never more than a few of a stage.
struct Incoming {
    /// Ends it, and says why.
    end: watch::Sender<Option<End>>,
    /// Held until its end has been told: what the next one brings comes behind that.
    turn: Arc<AsyncMutex<()>>,
}

/// Why this phone ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Another one of the same stage has come.
    Replaced,
    /// The segment is gone.
    Removed { why: String },
}

/// What a connection has while it is that of its stage.
pub(super) struct Turn {
    end: watch::Receiver<Option<End>>,
    _turn: OwnedMutexGuard<()>,
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

    /// Takes a stage away and ends its connections, whose other ends are told `why`.
    pub fn remove(&self, ring: RingId, generation: PlanGeneration, why: &str) {
        if let Some(member) = self.lock().remove(&(ring, generation)) {
            let mut incoming = member.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            let over = Some(End::Removed { why: why.to_owned() });
            incoming.by_stage.values().for_each(|connection| drop(connection.end.send_replace(over.clone())));
            incoming.over = over;
        }
    }

    pub fn find(&self, ring: RingId, generation: PlanGeneration) -> Option<Member> {
        self.lock().get(&(ring, generation)).cloned()
    }

    /// The host link has ended: no gateway waits for any session of this phone any more. All stages will hear it before anything that comes
    /// later, and one that hangs keeps nobody waiting.
    pub fn host_lost(&self) {
        for member in self.lock().values() {
            // A stage that has ended has no sessions.
            let _ = member.compute.try_send(Event::HostLost);
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

    /// The turn of a new connection from a stage. The one before ends first, and its sessions with it.
    ///
    /// # Errors
    /// When it is to end before its turn comes.
    pub(super) async fn take_over(&self, from_stage: u32) -> Result<Turn, End> {
        let (end, mut ended) = watch::channel(None);
        let turn = {
            let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(over) = &incoming.over {
                return Err(over.clone());
            }
            let turn = incoming.by_stage.get(&from_stage).map(|before| {
                before.end.send_replace(Some(End::Replaced));
                before.turn.clone()
            });
            let turn = turn.unwrap_or_default();
            incoming.by_stage.insert(from_stage, Incoming { end, turn: turn.clone() });
            turn
        };
        tokio::select! {
            biased;
            why = until_ended(&mut ended) => Err(why),
            turn = turn.lock_owned() => Ok(Turn { end: ended, _turn: turn }),
        }
    }
}

// === impl Turn ===

impl Turn {
    /// Waits until this phone ends the connection.
    pub(super) async fn ended(&mut self) -> End {
        until_ended(&mut self.end).await
    }
}

async fn until_ended(end: &mut watch::Receiver<Option<End>>) -> End {
    let told = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
    // Nobody is left who could tell: the member is gone.
    told.unwrap_or_else(|| End::Removed { why: "the segment is gone".to_owned() })
}

// === impl End ===

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaced => write!(f, "another connection of the same stage took its place"),
            Self::Removed { why } => write!(f, "{why}"),
        }
    }
}
