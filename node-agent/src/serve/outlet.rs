//! The way to the next stage: a bounded queue that exists while the ring link does.

use std::sync::{Arc, Mutex, PoisonError};

use polyphony_protocol::Frame;
use tokio::sync::mpsc;

/// Shared by the compute thread, which sends, and the link task, which connects and disconnects.
#[derive(Clone, Default)]
pub struct Outlet {
    queue: Arc<Mutex<Option<mpsc::Sender<Frame>>>>,
}

/// There is no link now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring link is down")]
pub struct NotConnected;

// === impl Outlet ===

impl Outlet {
    /// Puts a link's queue in place.
    pub fn connect(&self, queue: mpsc::Sender<Frame>) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
    }

    /// The link is gone.
    pub fn disconnect(&self) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn is_connected(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Queues a frame; waits while the queue is full, which ends when the link's write deadline does. Not for async code.
    ///
    /// # Errors
    /// When there is no link, or it ended while this waited.
    pub fn send(&self, frame: Frame) -> Result<(), NotConnected> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queue.ok_or(NotConnected)?.blocking_send(frame).map_err(|_| NotConnected)
    }
}
