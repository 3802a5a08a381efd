//! The memory budget of a phone: what segments may take together. A segment gives its share back when it is freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Counted in KiB, rounded up.
const UNIT: u64 = 1024;

/// Memory that segments may take together. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    /// At most what there was in the beginning.
    limit_bytes: Arc<AtomicU64>,
    n_units: usize,
    units: Arc<Semaphore>,
}

// === impl Budget ===

impl Budget {
    pub fn new(limit_bytes: u64) -> Self {
        let n_units = usize::try_from(limit_bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let units = Arc::new(Semaphore::new(n_units));
        Self { limit_bytes: Arc::new(AtomicU64::new(limit_bytes)), n_units, units }
    }

    /// What may be taken now.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// So much may be taken from now on. What is taken already stays so.
    pub fn set_limit_bytes(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What is taken now, or set aside for one that waits; in whole KiB.
    pub fn reserved_bytes(&self) -> u64 {
        let total = self.n_units as u64;
        total.saturating_sub(self.units.available_permits() as u64) * UNIT
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
        assert_eq!((budget.reserved_bytes(), budget.clone().reserved_bytes()), (6 * UNIT, 6 * UNIT));
        let (told, waits) = tokio::sync::oneshot::channel();
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(5 * UNIT, || told.send(()).unwrap()).await.is_some() }
        });
        waits.await.unwrap();
        drop(first);
        assert!(second.await.unwrap());
        assert_eq!(budget.reserved_bytes(), 0);
    }
}
