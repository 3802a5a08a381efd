//! The memory budget of a phone: what segments may take together. A segment gives its share back when it is freed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Counted in KiB, rounded up.
const UNIT: u64 = 1024;

/// Memory that segments may take together.
pub struct Budget {
    limit_bytes: u64,
    units: Arc<Semaphore>,
}

// === impl Budget ===

impl Budget {
    pub fn new(limit_bytes: u64) -> Self {
        let units = usize::try_from(limit_bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { limit_bytes, units: Arc::new(Semaphore::new(units)) }
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Takes a share, at most the limit; calls `waiting` once if others hold too much of it now. `None` when it can never be had.
    pub async fn reserve(&self, bytes: u64, waiting: impl FnOnce()) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        match self.units.clone().try_acquire_many_owned(units) {
            Ok(share) => Some(share),
            Err(TryAcquireError::Closed) => None,
            Err(TryAcquireError::NoPermits) => {
                waiting();
                self.units.clone().acquire_many_owned(units).await.ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_share_waits_until_another_is_given_back() {
        let budget = Arc::new(Budget::new(10 * UNIT));
        let first = budget.reserve(6 * UNIT, || panic!("there is room")).await.unwrap();
        let (told, waits) = tokio::sync::oneshot::channel();
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(5 * UNIT, || told.send(()).unwrap()).await.is_some() }
        });
        waits.await.unwrap();
        drop(first);
        assert!(second.await.unwrap());
    }
}
