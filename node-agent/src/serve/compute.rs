//! The compute thread of a resident segment: handles on it, and what it hears.
//!
//! One thread owns one loaded segment and every stage that runs a part of it: one, or two while sessions move from a
//! generation to the next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use polyphony_protocol::frame::KvRows;
use polyphony_protocol::{Frame, PlanGeneration, RouteKey};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::kv_transfer::Puller;
use super::outlet::{Outlet, ToHost};
use super::stage::StageShape;
use super::worker::Worker;
use crate::board::Entry;
use crate::segment::AnySegment;

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host link: the gateway.
    Host,
    /// The ring link of the stage before, in the order of layers.
    Previous,
    /// The ring link of the last stage, where decoding begins.
    Tail,
    /// The ring link of the stage with the encoder's last layer, where that is not the one before.
    Encoder,
}

/// What a stage hears.
#[derive(Debug)]
pub enum Event {
    Frame {
        frame: Frame,
        source: Source,
    },
    PeerLost {
        phone: String,
        why: String,
    },
    /// The link to the host has ended.
    HostLost,
    /// Another phone asks for a part of a session's KV cache.
    ReadKv {
        key: RouteKey,
        n_positions: u32,
        /// One layer, and the positions wanted of it; as many of them come as make a piece.
        layer: u32,
        positions: Range<u32>,
        answer: oneshot::Sender<Result<KvRows, String>>,
    },
    /// Rows that were pulled for a session that moves here.
    WriteKv {
        key: RouteKey,
        rows: KvRows,
        /// Their place among the pieces that may wait here.
        place: OwnedSemaphorePermit,
    },
    /// All of them have come, or why they cannot.
    Pulled {
        key: RouteKey,
        end: Result<(), String>,
    },
}

/// What the thread hears.
#[expect(clippy::large_enum_variant, reason = "nearly every call is an event: a box for each would save nothing")]
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
    pub holds: polyphony_model::Holds,
    pub next: Outlet,
    /// The ways to stages that are not the next one.
    pub skips: BTreeMap<u32, Skip>,
    pub entry: Arc<Entry>,
    pub puller: Puller,
}

/// The way to a stage that is not the next one.
pub struct Skip {
    /// Who has that stage, for messages.
    pub phone: String,
    pub outlet: Outlet,
}

/// A loaded segment with its share of the memory budget.
pub struct Owned {
    pub segment: AnySegment,
    /// Given back when the segment is freed: fields are dropped in this order.
    pub memory: OwnedSemaphorePermit,
}

/// How many calls wait at most; whoever sends more waits, and so does the ring behind it. What rows they may hold is bounded by the
/// sessions' windows.
const QUEUE_CALLS: usize = 1024;

/// The thread. It ends when this is dropped, and the segment is freed.
pub struct Thread {
    calls: std_mpsc::SyncSender<Call>,
    /// Why the segment no longer computes, when that is so; closed when the thread has ended.
    broken: watch::Receiver<Option<String>>,
    n_attached: AtomicU64,
}

/// A handle on one stage of a thread. Dropping it changes nothing; [`Compute::detach`] ends the stage.
#[derive(Clone, Debug)]
pub struct Compute {
    generation: PlanGeneration,
    id: AttachmentId,
    calls: std_mpsc::SyncSender<Call>,
}

/// Why a stage does not take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the segment no longer runs")]
    Ended,
    #[error("{QUEUE_CALLS} frames wait for the segment already")]
    Full,
}

// === impl Thread ===

impl Thread {
    /// Starts the thread that owns a segment with its share of the memory budget. Has to be called on a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str, owned: Owned, host: ToHost) -> std::io::Result<Self> {
        let (calls, inbox) = std_mpsc::sync_channel(QUEUE_CALLS);
        let (tell, broken) = watch::channel(None);
        let mut worker = Worker::new(owned, host, tokio::runtime::Handle::current(), calls.clone(), tell);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A fault of this program ends the thread; whoever waits for an answer is told before.
            if catch_unwind(AssertUnwindSafe(|| worker.run(&inbox))).is_err() {
                worker.abandon(&inbox);
            }
        })?;
        Ok(Self { calls, broken, n_attached: AtomicU64::new(0) })
    }

    /// Whether the segment has to be loaded anew before anybody can run on it.
    pub fn is_broken(&self) -> bool {
        self.broken.borrow().is_some() || self.broken.has_changed().is_err()
    }

    /// Waits until the segment no longer computes, and says why.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let why = broken.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        why.unwrap_or_else(|_| {
            "the segment's thread has ended, which is a fault of this program: see the agent's log".to_owned()
        })
    }

    /// Gives the segment a stage more; waits while the thread's queue is full.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn attach(&self, attachment: Attachment) -> Result<Compute, Unavailable> {
        let id = AttachmentId(self.n_attached.fetch_add(1, Ordering::Relaxed));
        let compute = Compute::new(attachment.shape.generation, id, self.calls.clone());
        compute.call(Call::Attach(id, Box::new(attachment))).await?;
        Ok(compute)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        send_at_last(self.calls.clone(), Call::Stop);
    }
}

// === impl Compute ===

impl Compute {
    pub(super) fn new(generation: PlanGeneration, id: AttachmentId, calls: std_mpsc::SyncSender<Call>) -> Self {
        Self { generation, id, calls }
    }

    /// Hands an event to the stage; never waits.
    ///
    /// # Errors
    /// When the thread has ended or its queue is full.
    pub fn try_send(&self, event: Event) -> Result<(), Unavailable> {
        // An end has to come: nobody says it twice.
        if let Event::Frame { frame: Frame::Close { .. }, .. } = event {
            send_at_last(self.calls.clone(), Call::Stage(self.generation, event));
            return Ok(());
        }
        self.calls.try_send(Call::Stage(self.generation, event)).map_err(|error| match error {
            std_mpsc::TrySendError::Full(_) => Unavailable::Full,
            std_mpsc::TrySendError::Disconnected(_) => Unavailable::Ended,
        })
    }

    /// Hands an event to the stage; waits on a blocking thread while the queue is full, so that the sender feels it.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn send(&self, event: Event) -> Result<(), Unavailable> {
        self.call(Call::Stage(self.generation, event)).await
    }

    /// Ends the stage; the gateway hears it of each of its sessions.
    pub fn detach(&self) {
        send_at_last(self.calls.clone(), Call::Detach(self.id));
    }

    async fn call(&self, call: Call) -> Result<(), Unavailable> {
        match self.calls.try_send(call) {
            Ok(()) => Ok(()),
            Err(std_mpsc::TrySendError::Disconnected(_)) => Err(Unavailable::Ended),
            Err(std_mpsc::TrySendError::Full(call)) => {
                let calls = self.calls.clone();
                let sent = tokio::task::spawn_blocking(move || calls.send(call).map_err(drop)).await;
                sent.map_err(|_| Unavailable::Ended)?.map_err(|_| Unavailable::Ended)
            }
        }
    }
}

/// Sends also from where nothing may wait: a full queue must not keep a thread or a stage alive.
fn send_at_last(calls: std_mpsc::SyncSender<Call>, call: Call) {
    if let Err(std_mpsc::TrySendError::Full(mut call)) = calls.try_send(call) {
        std::thread::spawn(move || {
            while let Err(std_mpsc::TrySendError::Full(unsent)) = calls.try_send(call) {
                call = unsent;
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
}
