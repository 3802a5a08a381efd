//! The relay: passes on what two phones say to each other that cannot dial one another. It reads nothing of it: inside is their own TLS.
//!
//! Each of the two comes on a connection of its own, so that bulk never stands before heartbeats. It leads only where the plans of now, or
//! what phones are to measure, say that the one dials the other, and no longer than that.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polyphony_gateway::PhoneLinks;
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Assignment, Neighbours, ToAgent, Way};
use polyphony_protocol::links::dialled;
use polyphony_wire::{Connection, Relayed};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Hub;

/// Ways at a time, in all and of one phone.
const MAX_WAYS: usize = 1024;
const MAX_WAYS_OF_PHONE: usize = 32;
/// Who is called answers within this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A way on which nothing goes for so long is given up; phones say something each second.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of one direction that are here at a time, and how long they wait to be taken.
const BUFFER_BYTES: usize = 64 << 10;
/// And how many are handed on at a time: a record of TLS.
const PIECE_BYTES: usize = 16 << 10;
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// A debt of time below this is not slept for.
const LEAST_SLEEP: Duration = Duration::from_millis(2);

const VALID: &str = "names are constants and valid";

/// All ways over this hub.
pub struct Relay {
    /// What one direction of a way carries.
    bytes_per_second: u64,
    calls: Mutex<Calls>,
    ways: IntGauge,
    passed_on: IntCounter,
}

#[derive(Default)]
struct Calls {
    next: u64,
    /// Those that wait for an answer, and of whom.
    waiting: HashMap<u64, (String, oneshot::Sender<Connection>)>,
    /// Ways by phone, those that are only called for included.
    of_phone: BTreeMap<String, usize>,
}

/// A way that is called for, or there; until it is dropped.
pub struct OpenWay {
    relay: Arc<Relay>,
    call: u64,
    ends: [String; 2],
}

// === impl Relay ===

impl Relay {
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        let ways = IntGauge::new(
            "polyphony_relay_ways",
            "Ways over this hub between phones that cannot dial each other, those that are only called for included.",
        );
        let passed_on = IntCounter::new(
            "polyphony_relay_bytes_total",
            "Bytes that the hub passed on between phones, of both ways.",
        );
        Arc::new(Self {
            bytes_per_second,
            calls: Mutex::default(),
            ways: ways.expect(VALID),
            passed_on: passed_on.expect(VALID),
        })
    }

    /// What it counts.
    pub fn counts(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.ways.clone()), Box::new(self.passed_on.clone())]
    }

    /// Somebody answers a call. Gives the connection back where nobody waits for that phone's answer.
    pub fn answer(&self, phone: &str, call: u64, connection: Connection) -> Option<Connection> {
        let mut calls = self.lock();
        if calls.waiting.get(&call).is_none_or(|(called, _)| called != phone) {
            return Some(connection);
        }
        let (_, waiting) = calls.waiting.remove(&call)?;
        waiting.send(connection).err()
    }

    pub(super) fn open(
        self: &Arc<Self>,
        from: &str,
        to: &str,
    ) -> Result<(OpenWay, oneshot::Receiver<Connection>), String> {
        let mut calls = self.lock();
        if self.bytes_per_second == 0 {
            return Err("this host passes nothing on: its --relay-bytes-per-second is 0".to_owned());
        }
        if calls.of_phone.values().sum::<usize>() / 2 >= MAX_WAYS {
            return Err(format!("{MAX_WAYS} ways lead over this host, which is the limit"));
        }
        for phone in [from, to] {
            if calls.of_phone.get(phone).is_some_and(|ways| *ways >= MAX_WAYS_OF_PHONE) {
                return Err(format!("{MAX_WAYS_OF_PHONE} ways of {phone} lead over this host, which is the limit"));
            }
        }
        let ends = [from.to_owned(), to.to_owned()];
        ends.iter().for_each(|phone| *calls.of_phone.entry(phone.clone()).or_default() += 1);
        self.ways.inc();
        calls.next += 1;
        let (call, (answer, answered)) = (calls.next, oneshot::channel());
        calls.waiting.insert(call, (to.to_owned(), answer));
        drop(calls);
        Ok((OpenWay { relay: self.clone(), call, ends }, answered))
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        // No holder of the lock leaves it half-written.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenWay {
    fn drop(&mut self) {
        let mut calls = self.relay.lock();
        calls.waiting.remove(&self.call);
        self.relay.ways.dec();
        for phone in &self.ends {
            let ways = calls.of_phone.entry(phone.clone()).or_default();
            *ways = ways.saturating_sub(1);
            if *ways == 0 {
                calls.of_phone.remove(phone);
            }
        }
    }
}

/// Finds the phone that `from` calls, which comes on a connection of its own.
///
/// # Errors
/// A sentence for who calls.
pub async fn reach(hub: &Hub, from: &str, to: &str) -> Result<(OpenWay, Connection), String> {
    if !leads(hub, from, to) {
        return Err(format!("no plan has {from} dial {to}"));
    }
    let (way, answered) = hub.relay.open(from, to)?;
    let called = Frame::ToAgent(ToAgent::Called { call: way.call });
    hub.registry.send(to, called).map_err(|error| format!("{to} is not called: {error}"))?;
    match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
        Ok(Ok(connection)) => Ok((way, connection)),
        Ok(Err(_)) | Err(_) => Err(format!("{to} was called, and came not within {} s", ANSWER_DEADLINE.as_secs())),
    }
}

/// Ends when it may lead from the one to the other no more.
pub async fn until_closed(hub: &Hub, from: &str, to: &str) {
    let (mut assigned, mut neighbourhood) = (hub.assigned.clone(), hub.neighbourhood.clone());
    while leads(hub, from, to) {
        let changed = tokio::select! {
            changed = assigned.changed() => changed,
            changed = neighbourhood.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whether plans or measurements of now have the one dial the other over the hub.
fn leads(hub: &Hub, from: &str, to: &str) -> bool {
    let of_plans = hub.assigned.borrow().as_ref().is_some_and(|assigned| {
        assigned.get(from).is_some_and(|stages| stages.iter().any(|stage| has_edge(stage, to)))
    });
    of_plans || is_neighbour(&hub.neighbourhood.borrow().of(from), to)
}

/// Whether a stage dials that phone over the hub: its hidden states, tokens or the encoder's output go there, or it fetches caches from it.
fn has_edge(stage: &Assignment, to: &str) -> bool {
    let mut peers = dialled(stage).filter_map(|number| stage.peers.iter().find(|peer| peer.stage == number));
    let mut owners = stage.follows.iter().flat_map(|followed| &followed.owners);
    peers.any(|peer| peer.phone == to && peer.ways.contains(&Way::Relayed))
        || owners.any(|owner| owner.phone == to && owner.ways.contains(&Way::Relayed))
}

fn is_neighbour(neighbours: &Neighbours, to: &str) -> bool {
    neighbours.phones.iter().any(|neighbour| neighbour.phone == to && neighbour.ways.contains(&Way::Relayed))
}

/// Passes on what comes, until one end closes or breaks, or nothing comes for long. Both ends are closed then.
///
/// # Errors
/// What broke.
pub async fn splice(way: &OpenWay, one: Relayed, other: Relayed) -> io::Result<()> {
    let ((from_one, mut to_one), (from_other, mut to_other)) = (tokio::io::split(one), tokio::io::split(other));
    let heard = AtomicU64::new(0);
    let end = tokio::select! {
        end = carry(&way.relay, from_one, &mut to_other, &heard, WRITE_DEADLINE) => end,
        end = carry(&way.relay, from_other, &mut to_one, &heard, WRITE_DEADLINE) => end,
        () = silence(&heard, IDLE) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {IDLE:?}"))),
    };
    // An end that takes no farewell is closed all the same, when it is dropped.
    let closing = async { tokio::join!(to_one.shutdown(), to_other.shutdown()) };
    let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
    end
}

pub(super) async fn carry(
    relay: &Relay,
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    heard: &AtomicU64,
    patience: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut pace = Instant::now();
    loop {
        let n_bytes = from.read(&mut buffer).await?;
        if n_bytes == 0 {
            return Ok(());
        }
        heard.fetch_add(n_bytes as u64, Ordering::Relaxed);
        relay.passed_on.inc_by(n_bytes as u64);
        for piece in buffer[..n_bytes].chunks(PIECE_BYTES) {
            pass_on(piece, to, heard, patience).await?;
        }
        let now = Instant::now();
        pace = pace.max(now) + Duration::from_secs_f64(n_bytes as f64 / relay.bytes_per_second as f64);
        if pace > now + LEAST_SLEEP {
            tokio::time::sleep_until(pace).await;
        }
    }
}

/// Ends when all is written and no TLS holds it back. Whatever is taken counts, and under TLS a record: a slow way is no dead one.
async fn pass_on(
    mut piece: &[u8],
    to: &mut (impl AsyncWrite + Unpin),
    heard: &AtomicU64,
    patience: Duration,
) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing was taken for {patience:?}"));
    while !piece.is_empty() {
        let taken = tokio::time::timeout(patience, to.write(piece)).await.map_err(late)??;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        heard.fetch_add(taken as u64, Ordering::Relaxed);
        piece = &piece[taken..];
    }
    tokio::time::timeout(patience, to.flush()).await.map_err(late)?
}

/// Ends when nothing was heard or taken for `idle`.
pub(super) async fn silence(heard: &AtomicU64, idle: Duration) {
    let mut before = None;
    loop {
        let now = heard.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(idle).await;
    }
}
