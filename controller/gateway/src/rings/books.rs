//! Books: what the sessions of all rings share, such as who waits, who is heard and what is mistrusted. Runs no session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use polyphony_protocol::{PlanGeneration, RingId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::{Admission, Place};
use crate::config::GatewayConfig;
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::routes::{PhoneLinks, RouteTable};
use crate::speed::Speeds;

/// No two of its locks are ever held at once.
pub(super) struct Books {
    pub(super) config: Arc<GatewayConfig>,
    pub(super) links: Arc<dyn PhoneLinks>,
    pub(super) routes: watch::Receiver<Arc<RouteTable>>,
    pub(super) admission: Mutex<Admission>,
    pub(super) registry: Mutex<Registry>,
    pub(super) speeds: Mutex<Speeds>,
    /// Ticks when a place may have come free.
    pub(super) freed: watch::Sender<()>,
    is_closing: watch::Sender<bool>,
    /// By manifest digest, why the numbers of a model are none.
    unsound: watch::Sender<BTreeMap<String, String>>,
    pub(super) metrics: Arc<Metrics>,
}

// === impl Books ===

impl Books {
    pub(super) fn new(
        config: Arc<GatewayConfig>,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            config,
            links,
            routes,
            admission: Mutex::default(),
            registry: Mutex::default(),
            speeds: Mutex::default(),
            freed: watch::Sender::new(()),
            is_closing: watch::Sender::new(false),
            unsound: watch::Sender::default(),
            metrics,
        }
    }

    /// The rings that there are at this moment.
    pub(super) fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.routes.borrow())
    }

    pub(super) fn sessions_in(&self, ring: RingId, generation: PlanGeneration) -> usize {
        lock(&self.admission).sessions_in((ring, generation))
    }

    /// Passes a ring over for a while.
    pub(super) fn suspect(&self, place: Place) {
        let until = (Instant::now() + self.config.suspicion).into_std();
        lock(&self.admission).suspect(place, until);
    }

    pub(super) fn close(&self) {
        self.is_closing.send_replace(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Waits until the program ends.
    pub(super) async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_closing.subscribe().wait_for(|is_closing| *is_closing).await;
    }

    /// Remembers what a phone said of a model's numbers, as long as the model is on the table.
    pub(super) fn note_unsound(&self, manifest_digest: &str, why: String) {
        let table = self.table();
        self.unsound.send_modify(|unsound| {
            unsound.retain(|digest, _| table.deployments.values().any(|route| route.manifest_digest == *digest));
            unsound.insert(manifest_digest.to_owned(), why);
        });
    }

    pub(super) fn unsound_models(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.unsound.subscribe()
    }
}
