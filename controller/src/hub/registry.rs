//! The registry: which phones are linked, what they last said, and how long they have been silent.
//!
//! Kept in memory only: after a restart the phones say it all again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_gateway::{PhoneLinks, Unsent};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Heartbeat, Join, ToAgent};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Phones remembered, linked or not.
pub const MAX_PHONES: usize = 4096;
/// Frames that wait for one phone's link.
pub const QUEUE_FRAMES: usize = 1024;
/// Round trips that the 99th percentile is taken of.
const ROUND_TRIPS: usize = 64;
/// A link is suspected after this silence at least.
const MIN_SUSPICION: Duration = Duration::from_secs(1);

/// All phones that have joined in this process's life.
#[derive(Default)]
pub struct Registry {
    phones: Mutex<BTreeMap<String, Entry>>,
    /// Woken by whatever a reconcile round should look at.
    pub changed: Notify,
}

/// What is known of one phone.
#[derive(Clone, Debug, PartialEq)]
pub struct Linked {
    pub state: LinkState,
    /// What it said when it joined last.
    pub join: Join,
    /// What it said last on its present link; `None` before its first heartbeat.
    pub heartbeat: Option<Heartbeat>,
}

/// How a phone's link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// `silent_for` counts from the oldest ping that nothing has come after.
    Up { silent_for: Duration, suspected_after: Duration },
    /// The connection was reset or ended.
    Down,
    /// It was cut after a long silence.
    Silenced,
}

/// A link's place in the registry; the link ends when `cut` is cancelled.
pub struct Seat {
    pub id: u64,
    /// It took the place of an older link, which counts as ended.
    pub replaces: bool,
    pub cut: CancellationToken,
    pub queue: mpsc::Receiver<Frame>,
}

struct Entry {
    join: Join,
    heartbeat: Option<Heartbeat>,
    link: Option<Link>,
    /// Grows with each link of this phone, so that an old link's end does not end the new one.
    last_id: u64,
    is_silenced: bool,
}

struct Link {
    id: u64,
    queue: mpsc::Sender<Frame>,
    cut: CancellationToken,
    heard_at: Instant,
    unanswered_since: Option<Instant>,
    pings: VecDeque<(u64, Instant)>,
    next_nonce: u64,
    round_trips: VecDeque<Duration>,
    /// Who waits for its metrics, and by which number they were asked for.
    scraper: Option<(u64, oneshot::Sender<String>)>,
}

// === impl Registry ===

impl Registry {
    /// Gives `join.phone` a seat, in place of a link that it has.
    ///
    /// # Errors
    /// A sentence for the agent when the registry is full.
    pub fn seat(&self, join: Join, now: Instant) -> Result<Seat, String> {
        let mut phones = self.lock();
        if !phones.contains_key(&join.phone) && phones.len() >= MAX_PHONES {
            let unlinked = phones.iter().find(|(_, entry)| entry.link.is_none()).map(|(name, _)| name.clone());
            match unlinked {
                Some(name) => phones.remove(&name),
                None => {
                    return Err(format!(
                        "{MAX_PHONES} phones are linked, which is the limit: stop the agent of another one"
                    ));
                }
            };
        }
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let cut = CancellationToken::new();
        let name = join.phone.clone();
        let entry = phones.entry(name).or_insert_with(|| Entry {
            join: join.clone(),
            heartbeat: None,
            link: None,
            last_id: 0,
            is_silenced: false,
        });
        entry.last_id += 1;
        entry.join = join;
        entry.heartbeat = None;
        entry.is_silenced = false;
        let link = Link {
            id: entry.last_id,
            queue: sender,
            cut: cut.clone(),
            heard_at: now,
            unanswered_since: None,
            pings: VecDeque::new(),
            next_nonce: 1,
            round_trips: VecDeque::new(),
            scraper: None,
        };
        let old = entry.link.replace(link);
        let replaces = old.is_some();
        if let Some(old) = old {
            old.cut.cancel();
        }
        let id = entry.last_id;
        drop(phones);
        self.changed.notify_one();
        Ok(Seat { id, replaces, cut, queue })
    }

    /// The link `id` of `phone` ended. Says whether it was the present one.
    pub fn unseat(&self, phone: &str, id: u64) -> bool {
        let mut phones = self.lock();
        let Some(entry) = phones.get_mut(phone) else {
            return false;
        };
        if entry.link.as_ref().is_none_or(|link| link.id != id) {
            return false;
        }
        entry.link = None;
        entry.heartbeat = None;
        drop(phones);
        self.changed.notify_one();
        true
    }

    /// Something came over the link `id`.
    pub fn heard(&self, phone: &str, id: u64, now: Instant) {
        self.with_link(phone, id, |link| {
            link.heard_at = now;
            link.unanswered_since = None;
        });
    }

    /// A heartbeat came over the link `id`.
    pub fn heartbeat(&self, phone: &str, id: u64, heartbeat: Heartbeat) {
        let mut phones = self.lock();
        let Some(entry) = phones.get_mut(phone) else {
            return;
        };
        if entry.link.as_ref().is_some_and(|link| link.id == id) && entry.heartbeat.as_ref() != Some(&heartbeat) {
            entry.heartbeat = Some(heartbeat);
            drop(phones);
            self.changed.notify_one();
        }
    }

    /// The nonce of the ping that is now sent over the link `id`.
    pub fn ping(&self, phone: &str, id: u64, now: Instant) -> Option<u64> {
        self.with_link(phone, id, |link| link.ping(now))
    }

    /// The answer to a ping came.
    pub fn pong(&self, phone: &str, id: u64, nonce: u64, now: Instant) {
        self.with_link(phone, id, |link| {
            while let Some((sent, at)) = link.pings.pop_front() {
                if sent == nonce {
                    if link.round_trips.len() == ROUND_TRIPS {
                        link.round_trips.pop_front();
                    }
                    link.round_trips.push_back(now.saturating_duration_since(at));
                    break;
                }
            }
        });
    }

    /// Asks a phone for its metrics; none where it has no link that takes a question. Who asked before, and waits still, is let go.
    pub fn ask_metrics(&self, phone: &str) -> Option<oneshot::Receiver<String>> {
        let mut phones = self.lock();
        let link = phones.get_mut(phone)?.link.as_mut()?;
        let (sender, answer) = oneshot::channel();
        let id = link.next_nonce;
        link.next_nonce += 1;
        link.queue.try_send(Frame::ToAgent(ToAgent::TellMetrics { id })).ok()?;
        link.scraper = Some((id, sender));
        Some(answer)
    }

    /// A phone has told its metrics.
    pub fn told_metrics(&self, phone: &str, id: u64, asked: u64, text: String) {
        let scraper = self.with_link(phone, id, |link| link.scraper.take_if(|(number, _)| *number == asked));
        if let Some((_, sender)) = scraper.flatten() {
            // Whoever asked may have gone.
            let _ = sender.send(text);
        }
    }

    /// When something last came over the present link of `phone`; `None` when it has no link.
    pub fn last_heard(&self, phone: &str) -> Option<Instant> {
        self.lock().get(phone).and_then(|entry| entry.link.as_ref()).map(|link| link.heard_at)
    }

    /// Sends a ping over the present link of `phone`, out of turn.
    pub fn probe(&self, phone: &str, now: Instant) {
        if let Some(link) = self.lock().get_mut(phone).and_then(|entry| entry.link.as_mut()) {
            let nonce = link.ping(now);
            // A full queue is no answer either; the caller waits for one and draws its conclusion.
            let _ = link.queue.try_send(Frame::Ping { nonce });
        }
    }

    /// Ends the link of `phone`, if it has one, for its silence.
    pub fn cut(&self, phone: &str) {
        let mut phones = self.lock();
        if let Some(entry) = phones.get_mut(phone)
            && let Some(link) = &entry.link
        {
            link.cut.cancel();
            entry.is_silenced = true;
        }
    }

    /// All phones that have joined, by name.
    pub fn snapshot(&self, now: Instant) -> BTreeMap<String, Linked> {
        let seen = |entry: &Entry| Linked {
            state: match &entry.link {
                Some(link) => link.state(now),
                None if entry.is_silenced => LinkState::Silenced,
                None => LinkState::Down,
            },
            join: entry.join.clone(),
            heartbeat: entry.heartbeat.clone(),
        };
        self.lock().iter().map(|(name, entry)| (name.clone(), seen(entry))).collect()
    }

    /// Phones that were heard of within so long, as far as they were asked.
    pub fn answering(&self, now: Instant, within: Duration) -> BTreeSet<String> {
        let is_heard = |entry: &Entry| entry.link.as_ref().is_some_and(|link| link.silent_for(now) < within);
        self.lock().iter().filter(|(_, entry)| is_heard(entry)).map(|(name, _)| name.clone()).collect()
    }

    fn with_link<T>(&self, phone: &str, id: u64, work: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut phones = self.lock();
        let link = phones.get_mut(phone)?.link.as_mut()?;
        (link.id == id).then(|| work(link))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // No holder of the lock leaves an entry half-written, so a panic elsewhere does not spoil it.
        self.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhoneLinks for Registry {
    fn send(&self, phone: &str, frame: Frame) -> Result<(), Unsent> {
        let phones = self.lock();
        let Some(link) = phones.get(phone).and_then(|entry| entry.link.as_ref()) else {
            return Err(Unsent::Gone(phone.to_owned()));
        };
        link.queue.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unsent::Full(phone.to_owned()),
            mpsc::error::TrySendError::Closed(_) => Unsent::Gone(phone.to_owned()),
        })
    }
}

// === impl Link ===

impl Link {
    fn ping(&mut self, now: Instant) -> u64 {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.unanswered_since.get_or_insert(now);
        if self.pings.len() == ROUND_TRIPS {
            self.pings.pop_front();
        }
        self.pings.push_back((nonce, now));
        nonce
    }

    fn silent_for(&self, now: Instant) -> Duration {
        self.unanswered_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn state(&self, now: Instant) -> LinkState {
        let silent_for = self.silent_for(now);
        let mut sorted: Vec<_> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        let p99 =
            sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default();
        LinkState::Up { silent_for, suspected_after: MIN_SUSPICION.max(p99 * 4) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fixtures::join;
    use super::*;

    #[test]
    fn silence_counts_from_the_oldest_unanswered_ping() {
        let registry = Registry::default();
        let start = Instant::now();
        let seat = registry.seat(join("a"), start).unwrap();
        let after = |seconds| start + Duration::from_secs(seconds);
        let silent = |seconds| match registry.snapshot(after(seconds))["a"].state {
            LinkState::Up { silent_for, .. } => silent_for.as_secs(),
            LinkState::Down | LinkState::Silenced => 999,
        };
        assert_eq!(silent(9), 0, "nothing was asked, so nothing is missing");
        registry.ping("a", seat.id, after(10));
        registry.ping("a", seat.id, after(11));
        assert_eq!(silent(13), 3);
        registry.heard("a", seat.id, after(13));
        assert_eq!(silent(14), 0);
    }

    #[test]
    fn suspicion_waits_for_four_round_trips() {
        let registry = Registry::default();
        let start = Instant::now();
        let seat = registry.seat(join("a"), start).unwrap();
        let nonce = registry.ping("a", seat.id, start).unwrap();
        registry.pong("a", seat.id, nonce, start + Duration::from_millis(600));
        let state = registry.snapshot(start)["a"].state;
        assert_eq!(state, LinkState::Up { silent_for: Duration::ZERO, suspected_after: Duration::from_millis(2400) });
    }

    #[test]
    fn the_end_of_a_replaced_link_does_not_end_the_new_one() {
        let registry = Registry::default();
        let old = registry.seat(join("a"), Instant::now()).unwrap();
        let new = registry.seat(join("a"), Instant::now()).unwrap();
        assert!(old.cut.is_cancelled());
        assert!(!registry.unseat("a", old.id));
        assert!(registry.unseat("a", new.id));
        assert_eq!(registry.snapshot(Instant::now())["a"].state, LinkState::Down);
    }

    #[test]
    fn a_full_queue_is_said_and_not_waited_for() {
        let registry = Registry::default();
        let _seat = registry.seat(join("a"), Instant::now()).unwrap();
        for _ in 0..QUEUE_FRAMES {
            registry.send("a", Frame::Accepted).unwrap();
        }
        assert!(matches!(registry.send("a", Frame::Accepted), Err(Unsent::Full(_))));
        assert!(matches!(registry.send("b", Frame::Accepted), Err(Unsent::Gone(_))));
    }
}
