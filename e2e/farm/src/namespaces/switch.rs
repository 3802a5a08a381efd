//! The switch: one thread that takes frames from every namespace's interface and puts each, in its time, into another's.
//!
//! It sleeps until a frame comes or one is due, to the microsecond, and does nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::frame::{arp_answer, destination};
use super::wire::{Chance, Wire};
use crate::Link;

/// The largest frame of an interface with an MTU of 1500, with room to spare.
const FRAME_BYTES: usize = 2048;
/// Frames read from one interface before the others have their turn.
const TURN: usize = 64;
/// Frames under way together; those beyond are dropped. Of full size they are 24 MB.
const MOST_UNDER_WAY: usize = 16_384;
/// Sooner than others, since a link's delay is only as exact as the thread that keeps it.
const NICENESS: i32 = -15;

/// All that lies between ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wiring {
    /// By port: what it has with everybody. A port that is not here has an ideal link.
    pub(super) shared: BTreeMap<u8, Link>,
    /// By sender and receiver.
    pub(super) own: BTreeMap<(u8, u8), Link>,
}

/// A handle on the thread. Dropped, it ends.
pub(super) struct Switch {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told, and what it tells.
struct Orders {
    queue: Mutex<Vec<Order>>,
    /// Written to when there is something in the queue.
    bell: OwnedFd,
    carried: AtomicU64,
    lost: AtomicU64,
}

enum Order {
    Attach(u8, OwnedFd),
    Detach(u8),
    Rewire(Wiring),
    Stop,
}

/// Frames since the switch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub carried: u64,
    /// By loss, by a cut, or by a full queue.
    pub lost: u64,
}

/// A frame on its way; the earliest first, and of two with the same time the one that was sent first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    arrival: Instant,
    number: u64,
    to: u8,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leg {
    Out(u8),
    In(u8),
    Own(u8, u8),
}

/// The thread's own.
struct Works {
    orders: Arc<Orders>,
    taps: BTreeMap<u8, OwnedFd>,
    wiring: Wiring,
    wires: BTreeMap<Leg, Wire>,
    chance: Chance,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    n_taken: u64,
}

// === impl Switch ===

impl Switch {
    /// Starts the thread. `seed` decides what is lost and how delays vary.
    ///
    /// # Errors
    /// When no thread or descriptor can be had.
    pub(super) fn start(seed: u64) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (carried, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let orders = Arc::new(Orders { queue: Mutex::default(), bell, carried, lost });
        let works = Works {
            orders: Arc::clone(&orders),
            taps: BTreeMap::new(),
            wiring: Wiring::default(),
            wires: BTreeMap::new(),
            chance: Chance::new(seed),
            under_way: BinaryHeap::new(),
            n_taken: 0,
        };
        let thread = thread::Builder::new().name("lab-switch".to_owned()).spawn(move || works.run())?;
        Ok(Self { orders, thread: Some(thread) })
    }

    pub(super) fn attach(&self, port: u8, tap: OwnedFd) {
        self.orders.give(Order::Attach(port, tap));
    }

    pub(super) fn detach(&self, port: u8) {
        self.orders.give(Order::Detach(port));
    }

    pub(super) fn rewire(&self, wiring: Wiring) {
        self.orders.give(Order::Rewire(wiring));
    }

    pub(super) fn carried(&self) -> Carried {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried { carried: count(&self.orders.carried), lost: count(&self.orders.lost) }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.orders.give(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // It panics on nothing; if it did, its message is on the standard error already.
            let _ = thread.join();
        }
    }
}

// === impl Orders ===

impl Orders {
    fn give(&self, order: Order) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        // A bell that cannot ring because it has not been heard yet is as good.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Vec<Order> {
        let mut rung = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut rung);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Works ===

impl Works {
    fn run(mut self) {
        // Both are for the accuracy of delays alone: without the right to either, they are as good as the machine is.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut buffer = vec![0; FRAME_BYTES];
        loop {
            self.deliver(Instant::now());
            let ready = self.wait();
            if ready.first() == Some(&true) && !self.obey() {
                return;
            }
            let ports: Vec<u8> = self.taps.keys().copied().collect();
            for (port, is_ready) in ports.into_iter().zip(ready.into_iter().skip(1)) {
                if is_ready {
                    self.take(port, &mut buffer);
                }
            }
        }
    }

    /// Waits for a frame, an order, or the next arrival. Which of the bell and the interfaces, in order, are ready.
    fn wait(&self) -> Vec<bool> {
        let mut watched = vec![PollFd::from_borrowed_fd(self.orders.bell.as_fd(), PollFlags::IN)];
        watched.extend(self.taps.values().map(|tap| PollFd::new(tap, PollFlags::IN)));
        let next = self.under_way.peek().map(|Reverse(frame)| {
            let wait = frame.arrival.saturating_duration_since(Instant::now());
            Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
        });
        match poll(&mut watched, next.as_ref()) {
            Ok(_) => watched.iter().map(|one| one.revents().contains(PollFlags::IN)).collect(),
            // Interrupted: as if nothing had come.
            Err(_) => Vec::new(),
        }
    }

    /// Carries out what was ordered; whether to go on.
    fn obey(&mut self) -> bool {
        for order in self.orders.take() {
            match order {
                Order::Attach(port, tap) => drop(self.taps.insert(port, tap)),
                Order::Detach(port) => drop(self.taps.remove(&port)),
                Order::Rewire(wiring) => {
                    for (leg, wire) in &mut self.wires {
                        wire.relink(wiring.link(*leg));
                    }
                    self.wiring = wiring;
                }
                Order::Stop => return false,
            }
        }
        true
    }

    fn take(&mut self, from: u8, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Some(tap) = self.taps.get(&from) else { return };
            let Ok(n) = rustix::io::read(tap, &mut *buffer) else { return };
            let frame = &buffer[..n];
            if let Some(answer) = arp_answer(frame) {
                let _ = rustix::io::write(tap, &answer);
                continue;
            }
            let Some(to) = destination(frame).filter(|to| self.taps.contains_key(to)) else { continue };
            match self.arrival(from, to, n).filter(|_| self.under_way.len() < MOST_UNDER_WAY) {
                Some(arrival) => {
                    self.n_taken += 1;
                    let frame = UnderWay { arrival, number: self.n_taken, to, frame: frame.to_vec() };
                    self.under_way.push(Reverse(frame));
                }
                None => drop(self.orders.lost.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    fn arrival(&mut self, from: u8, to: u8, n_bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let legs = match self.wiring.own.contains_key(&(from, to)) {
            true => [Some(Leg::Own(from, to)), None],
            false => [Some(Leg::Out(from)), Some(Leg::In(to))],
        };
        let (wiring, chance) = (&self.wiring, &mut self.chance);
        legs.into_iter().flatten().try_fold(now, |at, leg| {
            self.wires.entry(leg).or_insert_with(|| Wire::new(wiring.link(leg), now)).carry(at, n_bytes, chance)
        })
    }

    fn deliver(&mut self, now: Instant) {
        while self.under_way.peek().is_some_and(|Reverse(frame)| frame.arrival <= now) {
            let Some(Reverse(frame)) = self.under_way.pop() else { return };
            // An interface that is gone or has no room loses what comes, as interfaces do.
            let written = self.taps.get(&frame.to).map(|tap| rustix::io::write(tap, &frame.frame));
            let counter = if matches!(written, Some(Ok(_))) { &self.orders.carried } else { &self.orders.lost };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Wiring ===

impl Wiring {
    fn link(&self, leg: Leg) -> Link {
        let link = match leg {
            Leg::Out(port) | Leg::In(port) => self.shared.get(&port),
            Leg::Own(from, to) => self.own.get(&(from, to)),
        };
        link.cloned().unwrap_or_default()
    }
}
