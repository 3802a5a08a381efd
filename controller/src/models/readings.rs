//! Readings: files that are read, or fetched, side by side, each on a thread of its own. Knows nothing of what is read.
//!
//! Few are read at a time, since they share a disk. One that does not get on gives its place to another and is left to itself: a read
//! from a mount that hangs can be neither ended nor waited for. So no runtime owns these threads, and no shutdown waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Files that are read at a time, of those that get on: they share a disk.
pub(super) const SIDE_BY_SIDE: usize = 4;
/// Threads in all; when so many hang, others wait.
const MAX_THREADS: usize = 64;
/// Without a byte for so long, a reading gives up its place.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// A reading's number, never used twice.
pub(super) type ReadingId = u64;

/// What runs on the thread.
pub(super) type Job = Box<dyn FnOnce(Pace) + Send>;

/// How a reading tells that it gets on, and hears that it need not.
#[derive(Clone)]
pub(super) struct Pace {
    id: ReadingId,
    n_bytes: Arc<AtomicU64>,
    called_off: CancellationToken,
}

/// All readings, waiting and under way.
pub(super) struct Readings {
    side_by_side: usize,
    last: ReadingId,
    waiting: VecDeque<(ReadingId, Job)>,
    under_way: BTreeMap<ReadingId, UnderWay>,
}

struct UnderWay {
    pace: Pace,
    n_bytes: u64,
    moved_at: Instant,
    is_stalled: bool,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(id: ReadingId) -> Self {
        Self { id, n_bytes: Arc::default(), called_off: CancellationToken::new() }
    }

    /// The number of the reading.
    pub(super) fn id(&self) -> ReadingId {
        self.id
    }

    /// Notes the bytes read so far; says whether to go on.
    pub(super) fn note(&self, n_bytes: u64) -> bool {
        self.n_bytes.store(n_bytes, Ordering::Relaxed);
        !self.called_off.is_cancelled()
    }

    /// Waits until it is called off.
    pub(super) async fn called_off(&self) {
        self.called_off.cancelled().await;
    }
}

// === impl Readings ===

impl Readings {
    /// So many are under way at a time, of those that get on.
    pub(super) fn new(side_by_side: usize) -> Self {
        Self { side_by_side, last: 0, waiting: VecDeque::new(), under_way: BTreeMap::new() }
    }

    /// Puts a reading at the end of those that wait; [`Readings::start_next`] starts it.
    pub(super) fn add(&mut self, job: Job) -> ReadingId {
        self.last += 1;
        self.waiting.push_back((self.last, job));
        self.last
    }

    /// Calls a reading off: it is not begun, or ends when it next gets on.
    pub(super) fn call_off(&mut self, id: ReadingId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        if let Some(under_way) = self.under_way.get(&id) {
            under_way.pace.called_off.cancel();
        }
    }

    /// A reading is over.
    pub(super) fn end(&mut self, id: ReadingId) {
        self.under_way.remove(&id);
    }

    /// Takes the places of those that do not get on.
    pub(super) fn look(&mut self, now: Instant) {
        for reading in self.under_way.values_mut() {
            let n_bytes = reading.pace.n_bytes.load(Ordering::Relaxed);
            if n_bytes != reading.n_bytes {
                (reading.n_bytes, reading.moved_at, reading.is_stalled) = (n_bytes, now, false);
            } else if now.saturating_duration_since(reading.moved_at) >= STALLED_AFTER {
                reading.is_stalled = true;
            }
        }
    }

    pub(super) fn is_stalled(&self, id: ReadingId) -> bool {
        self.under_way.get(&id).is_some_and(|reading| reading.is_stalled)
    }

    /// Starts as many as there are places for.
    ///
    /// # Errors
    /// The reading for which no thread could be had, and why.
    pub(super) fn start_next(&mut self, now: Instant) -> Result<(), (ReadingId, std::io::Error)> {
        loop {
            let n_moving = self.under_way.values().filter(|reading| !reading.is_stalled).count();
            if n_moving >= self.side_by_side || self.under_way.len() >= MAX_THREADS {
                return Ok(());
            }
            let Some((id, job)) = self.waiting.pop_front() else { return Ok(()) };
            let pace = Pace::new(id);
            let own = pace.clone();
            let thread = std::thread::Builder::new().name("model-file".to_owned());
            thread.spawn(move || job(own)).map_err(|error| (id, error))?;
            self.under_way.insert(id, UnderWay { pace, n_bytes: 0, moved_at: now, is_stalled: false });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_hangs_gives_its_place_to_what_waits() {
        let mut readings = Readings::new(SIDE_BY_SIDE);
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(std::sync::Mutex::new(hang));
        for _ in 0..SIDE_BY_SIDE {
            let hang = hang.clone();
            readings.add(Box::new(move |_| {
                let _ = hang.lock().unwrap().recv();
            }));
        }
        let (tell, told) = mpsc::channel();
        let other = readings.add(Box::new(move |_| tell.send(()).unwrap()));
        let now = Instant::now();
        readings.start_next(now).unwrap();
        assert_eq!(readings.under_way.len(), SIDE_BY_SIDE);
        readings.look(now + STALLED_AFTER);
        assert!(readings.is_stalled(1) && !readings.is_stalled(other));
        readings.start_next(now + STALLED_AFTER).unwrap();
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(release);
    }

    #[test]
    fn what_gets_on_keeps_its_place_and_what_is_called_off_hears_of_it() {
        let mut readings = Readings::new(SIDE_BY_SIDE);
        let (tell, told) = mpsc::channel();
        let id = readings.add(Box::new(move |pace| tell.send(pace).unwrap()));
        let waiting = readings.add(Box::new(|_| panic!("called off before it began")));
        readings.call_off(waiting);
        let now = Instant::now();
        readings.start_next(now).unwrap();
        let pace = told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(pace.note(1));
        readings.look(now + STALLED_AFTER);
        assert!(!readings.is_stalled(id));
        readings.call_off(id);
        assert!(!pace.note(2));
        readings.end(id);
        assert!(readings.under_way.is_empty() && readings.waiting.is_empty());
    }
}
