//! Relay: ways over the hub to phones that cannot be dialled, and from those that cannot dial this one.
//!
//! Each of the two dials the hub on a connection of its own, which the hub then passes on as it is. What they say to each other is under their
//! own seal, and begins as on a socket.

use std::sync::Arc;
use std::time::Duration;

use polyphony_identity::Whom;
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{ToAgent, ToHub};
use polyphony_wire::{Caller, LinkError, Relayed, Wire};
use tokio::sync::{Semaphore, mpsc};

/// The hub as one that leads to other phones.
#[derive(Clone)]
pub struct Relay {
    /// Where it is dialled.
    pub address: String,
    pub hub: Whom,
    pub wire: Wire,
}

/// Answers phones that call this one over the hub.
#[derive(Clone)]
pub struct Answering {
    relay: Relay,
    callers: mpsc::Sender<Caller>,
    places: Arc<Semaphore>,
}

/// The hub waits no longer for who is called.
const DEADLINE: Duration = Duration::from_secs(8);
/// Calls that are answered at a time.
const AT_ONCE: usize = 32;

// === impl Relay ===

impl Relay {
    /// A way to that phone.
    ///
    /// # Errors
    /// [`LinkError::NoWay`] where the hub leads to none, and what else a connection to it may end by.
    pub async fn call(&self, phone: &str, deadline: Duration) -> Result<Relayed, LinkError> {
        self.ask(ToHub::Call { phone: phone.to_owned() }, deadline).await
    }

    async fn ask(&self, first: ToHub, deadline: Duration) -> Result<Relayed, LinkError> {
        let asking = async {
            let mut link = self.wire.dial(&self.address, &self.hub, deadline).await?;
            link.writer.write(&Frame::ToHub(first)).await?;
            match link.reader.next().await? {
                Frame::Accepted => Ok(link.into_relayed()),
                Frame::ToAgent(ToAgent::Refused { reason, .. }) => Err(LinkError::NoWay(reason)),
                other => Err(LinkError::unexpected(&other, "an acceptance")),
            }
        };
        tokio::time::timeout(deadline, asking).await.map_err(|_| LinkError::Silent(deadline))?
    }
}

// === impl Answering ===

impl Answering {
    /// Whoever calls comes out of the other end, as one that has knocked at a socket.
    pub fn new(relay: Relay) -> (Self, mpsc::Receiver<Caller>) {
        let (callers, called) = mpsc::channel(AT_ONCE);
        (Self { relay, callers, places: Arc::new(Semaphore::new(AT_ONCE)) }, called)
    }

    /// Another phone calls. Who comes when too many do calls again.
    pub fn answer(&self, call: u64) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!("too many phones call over the host at once; one was not answered");
            return;
        };
        let Self { relay, callers, .. } = self.clone();
        tokio::spawn(async move {
            match relay.ask(ToHub::Answer { call }, DEADLINE).await {
                // Whoever listens has stopped only when the agent has.
                Ok(way) => drop(callers.send(relay.wire.caller_over(way)).await),
                Err(error) => tracing::info!(%error, "a call over the host came to nothing"),
            }
            drop(place);
        });
    }
}
