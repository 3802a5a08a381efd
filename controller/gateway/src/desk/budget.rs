//! Budget: bytes that may be in use at once, given out fairly by size. Who finds no room waits for a while.
//!
//! What is short has a part of its own, so that it never waits for what is long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::GatewayConfig;
use crate::errors::ApiError;

use super::lane::{Lane, Taken};

/// However little is asked for, it counts for this much.
const SMALLEST_BYTES: usize = 4 << 10;
/// What is not longer is short.
pub(super) const SHORT_BYTES: usize = 64 << 10;
/// The part of a budget that is for what is short: one in so many.
const SHORT_PART: usize = 8;

pub(super) struct Budget {
    short: Arc<Lane>,
    long: Arc<Lane>,
    patience: Duration,
    retry_after: Duration,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(bytes: usize, config: &GatewayConfig) -> Self {
        let short = (bytes / SHORT_PART).max(SMALLEST_BYTES);
        let long = bytes.saturating_sub(short).max(SMALLEST_BYTES);
        Self {
            short: Lane::new(short),
            long: Lane::new(long),
            patience: config.queue_deadline,
            retry_after: config.retry_after,
        }
    }

    /// # Errors
    /// 503 where there is no room in time.
    pub(super) async fn share(&self, n_bytes: usize) -> Result<Taken, ApiError> {
        let n_bytes = n_bytes.max(SMALLEST_BYTES);
        let is_short = n_bytes <= SHORT_BYTES.min(self.short.n_bytes());
        let lane = if is_short { &self.short } else { &self.long };
        let late = |_| ApiError::too_busy(self.patience, self.retry_after);
        timeout(self.patience, lane.take(n_bytes)).await.map_err(late)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_short_waits_for_nothing_that_is_long_nor_the_other_way_round() {
        let budget = Budget::new(1 << 20, &GatewayConfig::default());
        let now = |n_bytes| budget.share(n_bytes).now_or_never();
        let long = now(4 << 20).unwrap().unwrap();
        assert!(now(SHORT_BYTES + 1).is_none(), "what is longer than all that there is takes all");
        let short = [now(SHORT_BYTES).unwrap().unwrap(), now(1).unwrap().unwrap()];
        assert!(now(SHORT_BYTES).is_none(), "an eighth is for what is short");
        drop(long);
        assert!(now(SHORT_BYTES).is_none() && now(SHORT_BYTES + 1).is_some());
        drop(short);
        assert!(now(SHORT_BYTES).is_some());
    }
}
