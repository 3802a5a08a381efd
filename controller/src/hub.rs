//! The hub: the one TCP port that phones dial. It lets each phone see and write only what is its own.
//!
//! It decides nothing about plans: it keeps what phones said ([`registry`]), hands out what [`assignments`] were derived,
//! passes frames on to the gateway, leads phones to each other that cannot dial ([`relay`]), and serves tensors ([`weights`]).

pub mod assignments;
pub mod keys;
pub mod link;
pub mod neighbours;
pub mod registry;
pub mod relay;
pub mod weights;

use std::sync::Arc;

use futures::future::BoxFuture;
use polyphony_identity::Digest;
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Enrol, Enrolled};
use polyphony_wire::{Security, Strangers, Uncounted, Wire};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use assignments::Assigned;
use keys::Keys;
use neighbours::Neighbourhood;
use registry::{MAX_PHONES, Registry};
use relay::Relay;

/// What the hub passes on to the gateway.
pub trait FrameSink: Send + Sync + 'static {
    /// A session frame came over the link of `phone`.
    fn deliver(&self, phone: &str, frame: Frame);
    /// The link of `phone` ended.
    fn phone_gone(&self, phone: &str);
}

/// Who takes devices in.
pub trait Registrar: Send + Sync + 'static {
    /// Papers for a device that shows a token; or why it gets none, in words for it.
    fn enrol<'a>(&'a self, enrol: &'a Enrol) -> BoxFuture<'a, Result<Enrolled, String>>;
    /// New papers for the phone of that name and key, which has shown both; or why it gets none.
    ///
    /// # Errors
    /// In words for the phone.
    fn renew(&self, phone: &str, key: &Digest, request: &str) -> Result<Enrolled, String>;
}

/// Connections that have not joined yet.
const MAX_STRANGERS: usize = 256;
/// Links at a time: one for each phone that the registry takes, and some for phones that take the place of a link of their own.
const MAX_LINKS: usize = MAX_PHONES + 64;

/// Everything a link needs.
#[derive(Clone)]
pub struct Hub {
    pub registry: Arc<Registry>,
    pub frames: Arc<dyn FrameSink>,
    pub registrar: Arc<dyn Registrar>,
    /// How connections are secured.
    pub security: Security,
    /// Which device each name belongs to; `None` until the API has been read, and nobody is let in or shown out by that.
    pub keys: watch::Receiver<Option<Keys>>,
    pub weights_url: String,
    /// What every phone is to hold; `None` until the API has been read, so that no phone drops what it has.
    pub assigned: watch::Receiver<Option<Arc<Assigned>>>,
    /// Ways between phones.
    pub relay: Arc<Relay>,
    /// Whose links phones measure.
    pub neighbourhood: watch::Receiver<Arc<Neighbourhood>>,
}

// === impl Hub ===

impl Hub {
    /// Accepts links until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let strangers = Strangers::new(MAX_STRANGERS);
        let places = Arc::new(Semaphore::new(MAX_LINKS));
        let links = TaskTracker::new();
        let wire = Wire::new(link::BOUNDS, Arc::new(Uncounted), self.security.clone());
        loop {
            let caller = tokio::select! {
                () = stop.cancelled() => break,
                caller = wire.accept(&listener) => caller,
            };
            let (hub, places, stop) = (self.clone(), places.clone(), stop.clone());
            let stranger = strangers.let_in(caller.from.ip());
            links.spawn(link::serve(hub, caller, stranger, places, stop));
        }
        links.close();
        links.wait().await;
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
