//! The thread of a resident segment: started, given stages, and ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::calls::{Calls, QUEUE_CALLS, calls};
use super::compute::{Attachment, AttachmentId, Call, Compute, Unavailable};
use super::outlet::ToHost;
use super::worker::Worker;

pub use super::worker::{Conduct, Owned};

/// The thread. It ends when this is dropped, and the segment is freed.
pub struct Thread {
    calls: Calls<Call>,
    /// Why the segment no longer computes, when that is so; closed when the thread has ended.
    broken: watch::Receiver<Option<String>>,
    n_attached: AtomicU64,
}

// === impl Thread ===

impl Thread {
    /// Starts the thread that owns a segment with its share of the memory budget, and works as `conduct` says. It hangs when it takes longer
    /// than `patience` for a step while others wait for it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        name: &str,
        owned: Owned,
        conduct: Conduct,
        host: ToHost,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let (calls, inbox) = calls(QUEUE_CALLS, patience);
        let (tell, broken) = watch::channel(None);
        let mut worker = Worker::new(owned, conduct, host, calls.clone(), tell);
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
        self.broken.borrow().is_some() || self.broken.has_changed().is_err() || self.calls.is_hung()
    }

    /// Waits until the segment no longer computes, and says why.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let told = tokio::select! {
            why = self.calls.hung() => return why.to_string(),
            told = broken.wait_for(Option::is_some) => told.map(|why| why.clone().unwrap_or_default()),
        };
        told.unwrap_or_else(|_| {
            "the segment's thread has ended, which is a fault of this program: see the agent's log".to_owned()
        })
    }

    /// Gives the segment a stage more; waits while the thread's queue is full.
    ///
    /// # Errors
    /// When the thread hangs or has ended.
    pub async fn attach(&self, attachment: Attachment) -> Result<Compute, Unavailable> {
        let id = AttachmentId(self.n_attached.fetch_add(1, Ordering::Relaxed));
        let compute = Compute::new(attachment.shape.generation, id, self.calls.clone());
        self.calls.send(Call::Attach(id, Box::new(attachment))).await?;
        Ok(compute)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.calls.send_at_last(Call::Stop);
    }
}
