//! Offer: how much memory segments may take, less for a while after the system was short of memory while they held some. Pure: times come in as
//! arguments.
//!
//! Without that a plan would put the same layers on the same phone as soon as it is back, and drive it out again.

use std::time::{Duration, Instant};

/// What may be taken.
#[derive(Debug)]
pub struct Offer {
    whole_bytes: u64,
    /// What may be taken instead, and since when.
    lowered: Option<(u64, Instant)>,
}

/// Of what was held when the system was short.
const KEPT: f64 = 0.75;
/// How long a phone remembers: its person closes what took the memory, and it is as it was.
const REMEMBERED: Duration = Duration::from_secs(3600);

// === impl Offer ===

impl Offer {
    pub fn new(whole_bytes: u64) -> Self {
        Self { whole_bytes, lowered: None }
    }

    pub fn bytes(&mut self, now: Instant) -> u64 {
        self.lowered = self.lowered.filter(|(_, since)| now.saturating_duration_since(*since) < REMEMBERED);
        self.lowered.map_or(self.whole_bytes, |(bytes, _)| bytes)
    }

    /// The system is short while segments hold so much. Where they hold nothing, it is not for them.
    pub fn cut(&mut self, held_bytes: u64, now: Instant) {
        if held_bytes > 0 {
            let least = self.bytes(now);
            self.lowered = Some((least.min((held_bytes as f64 * KEPT) as u64), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_is_not_offered_again_for_a_while() {
        let (mut offer, begun) = (Offer::new(1000), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        offer.cut(0, at(0));
        assert_eq!(offer.bytes(at(0)), 1000, "others took the memory");
        offer.cut(800, at(1));
        assert_eq!(offer.bytes(at(1)), 600);
        offer.cut(400, at(600));
        assert_eq!(
            (offer.bytes(at(3602)), offer.bytes(at(4199))),
            (300, 300),
            "it is remembered from the last time on"
        );
        assert_eq!(offer.bytes(at(4200)), 1000);
    }
}
