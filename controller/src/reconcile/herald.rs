//! The herald: tells phones what they are to hold, and the gateway where sessions can go, as soon as it is observed.
//!
//! It writes nothing and waits for no API: while that is silent, sessions still leave phones that are gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_gateway::RouteTable;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::commitment::is_committed;
use super::observe::{Observed, Settings, Sources};
use crate::hub::assignments::{self, Assigned};
use crate::hub::keys::Keys;
use crate::hub::neighbours::Neighbourhood;
use crate::routes;

/// It looks at least this often, for what time alone changes; and never sooner after the last look than the second.
const TICK: Duration = Duration::from_secs(1);
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Whom it tells.
pub struct Herald {
    pub sources: Arc<Sources>,
    pub settings: Settings,
    pub keys: watch::Sender<Option<Keys>>,
    pub assigned: watch::Sender<Option<Arc<Assigned>>>,
    pub neighbourhood: watch::Sender<Arc<Neighbourhood>>,
    pub routes: watch::Sender<Arc<RouteTable>>,
}

// === impl Herald ===

impl Herald {
    /// Runs until `stop`; wakes `looked` after each look that something called for.
    pub async fn run(self, started: Instant, looked: Arc<Notify>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_news = tokio::select! {
                () = stop.cancelled() => return,
                () = self.sources.stores.changed.notified() => true,
                () = self.sources.registry.changed.notified() => true,
                () = self.sources.models.changed.notified() => true,
                _ = tick.tick() => false,
            };
            let observed = self.sources.observe(self.settings.clone(), started.elapsed(), Instant::now());
            // What cannot be derived now is told as it was.
            if catch_unwind(AssertUnwindSafe(|| self.publish(&observed))).is_err() {
                tracing::error!(
                    "what phones and gateway are told could not be derived; it stays as it was: report this as a bug"
                );
            }
            if is_news {
                looked.notify_one();
            }
            tokio::time::sleep(MIN_PAUSE).await;
        }
    }

    fn publish(&self, observed: &Observed) {
        let written = observed.placements.values().filter(|placement| is_committed(observed, placement));
        let keys = observed.keys();
        let assigned = assignments::derive(written.map(AsRef::as_ref), &observed.ring_addresses(), &keys);
        self.assigned.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&assigned);
            if differs {
                *current = Some(Arc::new(assigned));
            }
            differs
        });
        tell(&self.neighbourhood, Neighbourhood::new(observed.linked_addresses(), &keys, observed.now.as_second()));
        self.keys.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&keys);
            if differs {
                *current = Some(Arc::new(keys));
            }
            differs
        });
        tell(&self.routes, routes::table(observed));
    }
}

fn tell<T: PartialEq>(whom: &watch::Sender<Arc<T>>, what: T) {
    whom.send_if_modified(|current| {
        let differs = **current != what;
        if differs {
            *current = Arc::new(what);
        }
        differs
    });
}
