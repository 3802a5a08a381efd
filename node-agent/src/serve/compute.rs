//! A handle on a stage of a compute thread, and what such a thread hears.
//!
//! One thread owns one loaded segment and every stage that runs a part of it: one, or two while sessions move from a
//! generation to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyphony_model::Holds;
use polyphony_protocol::{Frame, PlanGeneration};

use super::calls::{Calls, End, Waits};
use super::event::Event;
use super::outlet::Outlet;
use super::stage::{Pull, StageShape};
use crate::board::Entry;

pub use super::calls::Unavailable;

/// A handle on one stage of a thread. Dropping it changes nothing; [`Compute::detach`] ends the stage.
#[derive(Clone)]
pub struct Compute {
    generation: PlanGeneration,
    id: AttachmentId,
    calls: Calls<Call>,
}

/// What the thread hears.
pub(super) enum Call {
    Attach(AttachmentId, Box<Attachment>),
    Stage(PlanGeneration, Event),
    Detach(AttachmentId),
    Stop,
}

/// Which attachment to a thread: a stage may come again with the generation of one whose end is still on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttachmentId(pub(super) u64);

/// A stage that is to run a part of the segment.
pub struct Attachment {
    pub shape: StageShape,
    pub holds: Holds,
    pub next: Outlet,
    /// The ways to stages that are not the next one.
    pub skips: BTreeMap<u32, Skip>,
    pub entry: Arc<Entry>,
    /// Begins to fetch what a session lacks that moves here; never waits.
    pub pull: Box<dyn Fn(Pull, Compute) + Send>,
}

/// The way to a stage that is not the next one.
pub struct Skip {
    /// Who has that stage, for messages.
    pub phone: String,
    pub outlet: Outlet,
}

// === impl Compute ===

impl Compute {
    pub(super) fn new(generation: PlanGeneration, id: AttachmentId, calls: Calls<Call>) -> Self {
        Self { generation, id, calls }
    }

    /// Hands an event to the stage; never waits.
    ///
    /// # Errors
    /// When the thread hangs or has ended, or its queue is full; never for what ends sessions.
    pub fn try_send(&self, event: Event) -> Result<(), Unavailable> {
        let call = Call::Stage(self.generation, event);
        // An end has to come: nobody says it twice.
        if call.end().is_some() {
            self.calls.send_at_last(call);
            return Ok(());
        }
        self.calls.try_send(call)
    }

    /// Hands an event to the stage; waits while the queue is full, so that the sender feels it.
    ///
    /// # Errors
    /// When the thread hangs or has ended.
    pub async fn send(&self, event: Event) -> Result<(), Unavailable> {
        self.calls.send(Call::Stage(self.generation, event)).await
    }

    /// What comes of `wait`, which waits for the thread.
    ///
    /// # Errors
    /// When that hangs.
    pub async fn unless_hung<T>(&self, wait: impl Future<Output = T>) -> Result<T, Unavailable> {
        self.calls.unless_hung(wait).await
    }

    /// Ends the stage; the gateway hears it of each of its sessions.
    pub fn detach(&self) {
        self.calls.send_at_last(Call::Detach(self.id));
    }
}

// === impl Call ===

impl Waits for Call {
    fn end(&self) -> Option<End> {
        match self {
            Self::Stage(generation, Event::Frame { frame: Frame::Close { .. }, .. }) => Some(End::One(*generation)),
            Self::Stage(generation, Event::AllOver | Event::HostLost | Event::PeerLost { .. }) => {
                Some(End::All(*generation))
            }
            Self::Stage(_, Event::Pulled { .. }) => Some(End::Own),
            // There is one for each that was attached, and for the thread.
            Self::Stage(..) | Self::Attach(..) | Self::Detach(_) | Self::Stop => None,
        }
    }

    fn repeats(&self, earlier: &Self) -> bool {
        let (Self::Stage(generation, now), Self::Stage(of, before)) = (self, earlier) else { return false };
        let is_same = match (now, before) {
            (Event::HostLost, Event::HostLost) | (Event::AllOver, Event::AllOver) => true,
            (Event::PeerLost { phone, .. }, Event::PeerLost { phone: other, .. }) => phone == other,
            _ => false,
        };
        is_same && generation == of
    }

    fn all_over(generation: PlanGeneration) -> Self {
        Self::Stage(generation, Event::AllOver)
    }
}
