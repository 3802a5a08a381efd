//! Budget: bytes that may be in use at once. Who finds no room waits for a while, in turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::GatewayConfig;
use crate::errors::ApiError;

/// However little is asked for, it counts for this much.
const SMALLEST_BYTES: usize = 4 << 10;

pub(super) struct Budget {
    places: Arc<Semaphore>,
    bytes: usize,
    n_waiting: watch::Sender<usize>,
    patience: Duration,
    retry_after: Duration,
}

/// What is taken of a budget; given back when dropped.
pub(super) struct Share(OwnedSemaphorePermit);

/// One that waits, until it is dropped.
struct Waits<'a>(&'a watch::Sender<usize>);

// === impl Budget ===

impl Budget {
    pub(super) fn new(bytes: usize, config: &GatewayConfig) -> Self {
        let bytes = bytes.max(SMALLEST_BYTES);
        Self {
            places: Arc::new(Semaphore::new(bytes)),
            bytes,
            n_waiting: watch::Sender::new(0),
            patience: config.queue_deadline,
            retry_after: config.retry_after,
        }
    }

    /// # Errors
    /// 503 where there is no room in time.
    pub(super) async fn share(&self, n_bytes: usize) -> Result<Share, ApiError> {
        // What is larger than all that there is takes all.
        let n_bytes = u32::try_from(n_bytes.clamp(SMALLEST_BYTES, self.bytes)).unwrap_or(u32::MAX);
        // It is given in turn: there is nothing at once where anybody waits.
        if let Ok(permit) = self.places.clone().try_acquire_many_owned(n_bytes) {
            return Ok(Share(permit));
        }
        let _waits = Waits::new(&self.n_waiting);
        match timeout(self.patience, self.places.clone().acquire_many_owned(n_bytes)).await {
            Ok(Ok(permit)) => Ok(Share(permit)),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(ApiError::too_busy(self.patience, self.retry_after)),
        }
    }

    /// Ends when somebody waits at `moment`, or after it.
    pub(super) async fn is_wanted_from(&self, moment: Instant) {
        sleep_until(moment).await;
        // The sender lives as long as `self`.
        let _ = self.n_waiting.subscribe().wait_for(|n_waiting| *n_waiting > 0).await;
    }
}

// === impl Share ===

impl Share {
    /// Gives back what is not needed after all.
    pub(super) fn shrink_to(&mut self, n_bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(n_bytes.max(SMALLEST_BYTES));
        drop(self.0.split(surplus));
    }
}

// === impl Waits ===

impl<'a> Waits<'a> {
    fn new(n_waiting: &'a watch::Sender<usize>) -> Self {
        n_waiting.send_modify(|n_waiting| *n_waiting += 1);
        Self(n_waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n_waiting| *n_waiting -= 1);
    }
}
