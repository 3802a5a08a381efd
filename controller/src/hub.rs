//! The hub: the one TCP port that phones dial. It lets each phone see and write only what is its own.
//!
//! It decides nothing about plans: it keeps what phones said ([`registry`]), hands out what [`assignments`] were derived,
//! passes frames on to the gateway, and serves tensors ([`weights`]).

pub mod assignments;
pub mod link;
pub mod neighbours;
pub mod registry;
pub mod weights;

use std::sync::Arc;

use polyphony_protocol::Frame;
use polyphony_wire::{Uncounted, Wire};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::secret::Secret;
use assignments::Assigned;
use neighbours::Neighbourhood;
use registry::Registry;

/// What the hub passes on to the gateway.
pub trait FrameSink: Send + Sync + 'static {
    /// A session frame came over the link of `phone`.
    fn deliver(&self, phone: &str, frame: Frame);
    /// The link of `phone` ended.
    fn phone_gone(&self, phone: &str);
}

/// Connections at a time, those in their handshake included.
const MAX_CONNECTIONS: usize = 1024;

/// Everything a link needs.
#[derive(Clone)]
pub struct Hub {
    pub registry: Arc<Registry>,
    pub frames: Arc<dyn FrameSink>,
    pub join_token: Secret,
    pub weights_url: String,
    /// What every phone is to hold; `None` until the API has been read, so that no phone drops what it has.
    pub assigned: watch::Receiver<Option<Arc<Assigned>>>,
    /// Whose links phones measure.
    pub neighbourhood: watch::Receiver<Arc<Neighbourhood>>,
}

// === impl Hub ===

impl Hub {
    /// Accepts links until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let links = TaskTracker::new();
        let wire = Wire::new(link::BOUNDS, Arc::new(Uncounted));
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
            };
            let caller = tokio::select! {
                () = stop.cancelled() => break,
                caller = wire.accept(&listener) => caller,
            };
            let (hub, stop) = (self.clone(), stop.clone());
            links.spawn(async move {
                link::serve(hub, caller, stop).await;
                drop(place);
            });
        }
        links.close();
        links.wait().await;
    }
}
