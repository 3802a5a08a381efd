//! The hub: the one TCP port that phones dial. It lets each phone see and write only what is its own.
//!
//! It decides nothing about plans: it keeps what phones said ([`registry`]), hands out what [`assignments`] were derived,
//! passes frames on to the gateway, and serves tensors ([`weights`]).

pub mod assignments;
pub mod link;
pub mod neighbours;
pub mod registry;
pub mod strangers;
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
use registry::{MAX_PHONES, Registry};
use strangers::Strangers;

/// What the hub passes on to the gateway.
pub trait FrameSink: Send + Sync + 'static {
    /// A session frame came over the link of `phone`.
    fn deliver(&self, phone: &str, frame: Frame);
    /// The link of `phone` ended.
    fn phone_gone(&self, phone: &str);
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
        let strangers = Strangers::new(MAX_STRANGERS);
        let places = Arc::new(Semaphore::new(MAX_LINKS));
        let links = TaskTracker::new();
        let wire = Wire::new(link::BOUNDS, Arc::new(Uncounted));
        loop {
            let caller = tokio::select! {
                () = stop.cancelled() => break,
                caller = wire.accept(&listener) => caller,
            };
            let (hub, places, stop) = (self.clone(), places.clone(), stop.clone());
            links.spawn(link::serve(hub, caller, strangers.let_in(), places, stop));
        }
        links.close();
        links.wait().await;
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use bytes::BytesMut;
    use polyphony_protocol::encode;
    use polyphony_protocol::hub::{Heartbeat, ToAgent, ToHub};
    use polyphony_wire::Bounds;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::fixtures::join;
    use super::*;

    struct Nobody;

    impl FrameSink for Nobody {
        fn deliver(&self, _: &str, _: Frame) {}
        fn phone_gone(&self, _: &str) {}
    }

    /// A hub, and what it is told of by.
    fn hub() -> (Hub, impl Sized) {
        let (assign, assigned) = watch::channel(None);
        let (near, neighbourhood) = watch::channel(Arc::default());
        let hub = Hub {
            registry: Arc::new(Registry::default()),
            frames: Arc::new(Nobody),
            join_token: Secret::new("t"),
            weights_url: String::new(),
            assigned,
            neighbourhood,
        };
        (hub, (assign, near))
    }

    #[tokio::test]
    async fn connections_that_do_not_join_take_no_phones_place() {
        let (stop, deadline) = (CancellationToken::new(), Duration::from_secs(20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (hub, _tell) = hub();
        let registry = hub.registry.clone();
        let running = tokio::spawn(hub.run(listener, stop.clone()));
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted));
        let mut first = TcpStream::connect(&address).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_STRANGERS {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
        // The longest silent one is shown out to make room, well before its time is up; and a phone that joins is welcome.
        let mut byte = [0];
        assert_eq!(tokio::time::timeout(deadline, first.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
        let mut phone = wire.dial(&address, deadline).await.unwrap();
        phone.writer.write(&Frame::ToHub(ToHub::Join(join("a")))).await.unwrap();
        let answer = phone.reader.next_within(deadline).await.unwrap();
        assert!(matches!(answer, Frame::ToAgent(ToAgent::Welcome(_))), "{answer:?}");
        assert!(registry.last_heard("a").is_some());
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_phone_whose_frame_is_long_under_way_is_heard() {
        let (stop, deadline) = (CancellationToken::new(), Duration::from_secs(20));
        let (hub, _tell) = hub();
        let registry = hub.registry.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut phone = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let running = tokio::spawn(hub.run(listener, stop.clone()));
        let heard_after = async |before: Option<Instant>| {
            let heard = async {
                while registry.last_heard("a") == before {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(deadline, heard).await.unwrap();
            registry.last_heard("a")
        };
        let [joins, beats] = [ToHub::Join(join("a")), ToHub::Heartbeat(Heartbeat::default())].map(|said| {
            let mut bytes = BytesMut::new();
            encode(&Frame::ToHub(said), &mut bytes);
            bytes
        });
        phone.write_all(&joins).await.unwrap();
        let mut heard = heard_after(None).await;
        for byte in &beats[..2] {
            phone.write_all(&[*byte]).await.unwrap();
            heard = heard_after(heard).await;
        }
        stop.cancel();
        running.await.unwrap();
    }
}
