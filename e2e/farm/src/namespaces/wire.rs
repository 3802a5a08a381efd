//! Wires: what one direction of a link does to packets, as times. Pure: time and chance come in as arguments.

use std::time::{Duration, Instant};

use crate::Link;

/// A packet that would wait longer for its turn is dropped, as a full queue drops it: at 10 Mbit/s that is 125 kB.
pub(super) const LONGEST_QUEUE: Duration = Duration::from_millis(100);
/// What a frame takes on the air or the cable beside its bytes: preamble, check sum and gap of Ethernet.
const OVERHEAD_BYTES: usize = 24;

/// One direction of a link.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    link: Link,
    /// When the last packet has been sent in full.
    free_at: Instant,
    /// When the last packet arrives: packets do not overtake each other, whatever the jitter.
    last_arrival: Instant,
}

/// Chance by a seed: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

// === impl Wire ===

impl Wire {
    pub(super) fn new(link: Link, now: Instant) -> Self {
        Self { link, free_at: now, last_arrival: now }
    }

    /// Changes the link; packets under way keep the times that they were given.
    pub(super) fn relink(&mut self, link: Link) {
        self.link = link;
    }

    /// When a packet of `n_bytes` that is handed over at `now` arrives; none when it is lost.
    pub(super) fn carry(&mut self, now: Instant, n_bytes: usize, chance: &mut Chance) -> Option<Instant> {
        if self.link.is_cut || chance.share() < self.link.loss {
            return None;
        }
        let start = self.free_at.max(now);
        if start - now > LONGEST_QUEUE {
            return None;
        }
        let bits = (n_bytes + OVERHEAD_BYTES) as f64 * 8.0;
        let sending = self.link.bits_per_second.map_or(0.0, |rate| bits / rate.max(1) as f64);
        // Over a rate of one bit a second a packet takes hours, not for ever.
        self.free_at = start + Duration::from_secs_f64(sending);
        let wobble = self.link.jitter.mul_f64(2.0 * chance.share());
        let delayed = self.free_at + self.link.delay + wobble;
        // Earlier than it was sent no packet arrives, however the delay varies.
        let arrival = delayed.checked_sub(self.link.jitter).unwrap_or(self.free_at).max(self.free_at);
        self.last_arrival = self.last_arrival.max(arrival);
        Some(self.last_arrival)
    }
}

// === impl Chance ===

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to 1, without 1.
    pub(super) fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn wire(link: Link) -> (Wire, Instant, Chance) {
        let now = Instant::now();
        (Wire::new(link, now), now, Chance::new(1))
    }

    #[test]
    fn a_packet_arrives_after_its_sending_and_its_delay() {
        let (mut wire, now, mut chance) = wire(Link {
            // 1,000 bytes with those beside them take a millisecond.
            bits_per_second: Some(8 * 1024 * 1000),
            delay: 3 * MS,
            ..Link::default()
        });
        assert_eq!(wire.carry(now, 1000, &mut chance).unwrap() - now, 4 * MS);
        // The second waits for the first to be sent, not for it to arrive.
        assert_eq!(wire.carry(now, 1000, &mut chance).unwrap() - now, 5 * MS);
        assert_eq!(wire.carry(now + 10 * MS, 1000, &mut chance).unwrap() - now, 14 * MS);
    }

    #[test]
    fn a_full_queue_drops_what_comes_last() {
        let (mut wire, now, mut chance) = wire(Link { bits_per_second: Some(8 * 1024 * 1000), ..Link::default() });
        let carried = (0..1000).filter_map(|_| wire.carry(now, 1000, &mut chance)).count();
        assert_eq!(carried, 101, "one is sent, and those that wait at most 100 ms");
        assert!(wire.carry(now + 50 * MS, 1000, &mut chance).is_some(), "the queue has emptied by half");
    }

    #[test]
    fn jitter_moves_arrivals_within_its_bounds_and_never_overtakes() {
        let link = Link { delay: 10 * MS, jitter: 4 * MS, ..Link::default() };
        let (mut wire, now, mut chance) = wire(link);
        let (mut last, mut earliest, mut latest) = (now, Duration::MAX, Duration::ZERO);
        for idx in 0..1000 {
            let sent = now + 20 * MS * idx;
            let arrival = wire.carry(sent, 100, &mut chance).unwrap();
            assert!(arrival >= last);
            last = arrival;
            earliest = earliest.min(arrival - sent);
            latest = latest.max(arrival - sent);
        }
        assert!(earliest >= 6 * MS && earliest < 7 * MS, "{earliest:?}");
        assert!(latest <= 14 * MS && latest > 13 * MS, "{latest:?}");
        let link = Link { delay: MS, jitter: 4 * MS, ..Link::default() };
        wire.relink(link);
        let sent = now + Duration::from_secs(60);
        assert!((0..100).all(|_| wire.carry(sent, 100, &mut chance).unwrap() >= sent));
    }

    #[test]
    fn the_share_that_is_lost_is_the_links_and_a_cut_loses_all() {
        let (mut wire, now, mut chance) = wire(Link { loss: 0.2, ..Link::default() });
        let carried = (0..10_000).filter_map(|_| wire.carry(now, 100, &mut chance)).count();
        // Five standard deviations of 10,000 throws are 200; with this seed it is always the same count.
        assert!(carried.abs_diff(8000) < 200, "{carried}");
        wire.relink(Link { is_cut: true, ..Link::default() });
        assert_eq!(wire.carry(now, 100, &mut chance), None);
        wire.relink(Link::default());
        assert_eq!(wire.carry(now, 100, &mut chance), Some(now));
    }
}
