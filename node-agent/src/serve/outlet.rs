//! The ways out of a compute thread: bounded queues that never make it wait. One that is full breaks its link, and with it the sessions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use polyphony_protocol::Frame;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// The way to another stage, which exists while the ring link does. Shared by the compute thread, which sends, and the link task, which
/// connects and disconnects.
#[derive(Clone)]
pub struct Outlet {
    /// Frames that may wait for the socket.
    capacity: usize,
    queue: Arc<Mutex<Option<Queue>>>,
}

struct Queue {
    frames: mpsc::Sender<Frame>,
    overrun: CancellationToken,
}

/// A link's end of its outlet.
pub struct Connected {
    pub waiting: mpsc::Receiver<Frame>,
    /// For frames that the link sends of its own.
    pub frames: mpsc::Sender<Frame>,
    /// Cancelled when more frames were to wait than may.
    pub overrun: CancellationToken,
}

/// Why a frame does not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("the ring link is down")]
    NotConnected,
    #[error("{limit} frames wait for the ring link already, so it is given up")]
    Overrun { limit: usize },
}

// === impl Outlet ===

impl Outlet {
    /// Not connected yet, with room for `capacity` frames.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), queue: Arc::default() }
    }

    /// Puts a link's queue in place.
    pub fn connect(&self) -> Connected {
        let (frames, waiting) = mpsc::channel(self.capacity);
        let overrun = CancellationToken::new();
        *self.lock() = Some(Queue { frames: frames.clone(), overrun: overrun.clone() });
        Connected { waiting, frames, overrun }
    }

    /// The link is gone; says whether the sender did not know yet.
    pub fn disconnect(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Queues a frame; never waits.
    ///
    /// # Errors
    /// When there is no link, or its queue is full: then there is none any more.
    pub fn send(&self, frame: Frame) -> Result<(), NotSent> {
        let mut queue = self.lock();
        match queue.as_ref().ok_or(NotSent::NotConnected)?.frames.try_send(frame) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotSent::NotConnected),
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(full) = queue.take() {
                    full.overrun.cancel();
                }
                Err(NotSent::Overrun { limit: self.capacity })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Queue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the gateway, over the host link. Clones are the same way.
#[derive(Clone)]
pub struct ToHost {
    frames: mpsc::Sender<Frame>,
    overrun: Arc<Notify>,
}

/// The host link's end of it.
pub struct FromStages {
    pub frames: mpsc::Receiver<Frame>,
    overrun: Arc<Notify>,
}

/// A way to the host with room for `capacity` frames.
pub fn to_host(capacity: usize) -> (ToHost, FromStages) {
    let (frames, waiting) = mpsc::channel(capacity);
    let overrun = Arc::new(Notify::new());
    (ToHost { frames, overrun: overrun.clone() }, FromStages { frames: waiting, overrun })
}

// === impl ToHost ===

impl ToHost {
    /// Queues a frame; never waits. Where that many wait the host link is stuck: it ends, and its end frees every session on both sides.
    pub fn send(&self, frame: Frame) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.frames.try_send(frame) {
            self.overrun.notify_one();
        }
    }
}

// === impl FromStages ===

impl FromStages {
    /// Told when more frames were to wait than may: the link is to end then.
    pub fn overruns(&self) -> Arc<Notify> {
        self.overrun.clone()
    }

    /// Throws away what was for a gateway that is gone.
    pub fn clear(&mut self) {
        while self.frames.try_recv().is_ok() {}
        let _ = self.overrun.notified().now_or_never();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_full_outlet_breaks_its_link_and_never_waits() {
        let outlet = Outlet::new(2);
        assert_eq!(outlet.send(Frame::Accepted), Err(NotSent::NotConnected));
        let mut connected = outlet.connect();
        assert_eq!(
            [(); 3].map(|()| outlet.send(Frame::Accepted)),
            [Ok(()), Ok(()), Err(NotSent::Overrun { limit: 2 })]
        );
        connected.overrun.cancelled().await;
        assert_eq!(outlet.send(Frame::Accepted), Err(NotSent::NotConnected));
        assert!(!outlet.disconnect(), "the sender knows");
        assert!(connected.waiting.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_full_way_to_the_host_ends_the_host_link() {
        let (to_host, mut from_stages) = to_host(1);
        to_host.send(Frame::Accepted);
        to_host.send(Frame::Accepted);
        from_stages.overruns().notified().await;
        from_stages.clear();
        assert!(from_stages.frames.try_recv().is_err());
    }
}
