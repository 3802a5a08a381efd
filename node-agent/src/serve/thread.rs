//! The thread of a resident segment: started, given stages, and ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::calls::{Calls, QUEUE_CALLS, calls};
use super::compute::{Attachment, AttachmentId, Call, Compute, Unavailable};
use super::faults::Broken;
use super::outlet::ToHost;
use super::running::Running;
use super::worker::Worker;

pub use super::worker::Owned;

/// The thread. It ends when this is dropped, and the segment is freed.
pub struct Thread {
    calls: Calls<Call>,
    /// Why the segment no longer computes, when that is so; closed when the thread has ended.
    broken: watch::Receiver<Option<Broken>>,
    running: Arc<Running>,
    /// A step that runs for longer is the backend's fault. None of a processor's: it is slow, and no faulty one.
    longest_step: Option<Duration>,
    n_attached: AtomicU64,
}

// === impl Thread ===

impl Thread {
    /// Starts the thread that owns a segment with its share of the memory budget. It hangs when it takes longer than `patience` for a step
    /// while others wait for it, or than `longest_step`, where it has one.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        name: &str,
        owned: Owned,
        host: ToHost,
        patience: Duration,
        longest_step: Option<Duration>,
    ) -> std::io::Result<Self> {
        let (calls, inbox) = calls(QUEUE_CALLS, patience);
        let (tell, broken) = watch::channel(None);
        let running = Arc::new(Running::new());
        let mut worker = Worker::new(owned, host, calls.clone(), tell, running.clone());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A fault of this program ends the thread; whoever waits for an answer is told before.
            if catch_unwind(AssertUnwindSafe(|| worker.run(&inbox))).is_err() {
                worker.abandon(&inbox);
            }
        })?;
        Ok(Self { calls, broken, running, longest_step, n_attached: AtomicU64::new(0) })
    }

    /// Whether the segment has to be loaded anew before anybody can run on it.
    pub fn is_broken(&self) -> bool {
        let is_overdue = self.longest_step.is_some_and(|longest| self.running.elapsed() > longest);
        self.broken.borrow().is_some() || self.broken.has_changed().is_err() || self.calls.is_hung() || is_overdue
    }

    /// Waits until a step has run for longer than any may.
    async fn overdue(&self) -> Duration {
        let Some(longest) = self.longest_step else { return std::future::pending().await };
        loop {
            tokio::time::sleep(longest.saturating_sub(self.running.elapsed()).max(longest / 8)).await;
            if self.running.elapsed() > longest {
                return longest;
            }
        }
    }

    /// Waits until the segment no longer computes, and says why.
    pub async fn broken(&self) -> Broken {
        let mut broken = self.broken.clone();
        let told = tokio::select! {
            why = self.calls.hung() => return Broken { why: why.to_string(), is_of_backend: self.longest_step.is_some() },
            longest = self.overdue() => {
                let why = format!("it hangs: a step has not ended for {} s", longest.as_secs_f32());
                return Broken { why, is_of_backend: true };
            }
            told = broken.wait_for(Option::is_some) => told.map(|why| why.clone()),
        };
        told.ok().flatten().unwrap_or_else(|| Broken {
            why: "the segment's thread has ended, which is a fault of this program: see the agent's log".to_owned(),
            is_of_backend: false,
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
