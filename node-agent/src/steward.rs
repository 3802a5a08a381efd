//! The steward: withdraws the phone by its policy, and governs how much of its time it computes, at each reading of its sensors.

use std::sync::Arc;
use std::time::Instant;

use polyphony_protocol::hub::WithdrawalReason;
use tokio::sync::watch;

use crate::board::Board;
use crate::budget::Budget;
use crate::duty::{Duty, Governor};
use crate::offer::Offer;
use crate::policy::Policy;
use crate::reading::Reading;

/// What it looks at and what it moves.
pub struct Steward {
    pub readings: watch::Receiver<Reading>,
    pub policy: Policy,
    pub governor: Governor,
    pub board: Arc<Board>,
    pub duty: Duty,
    pub offer: Offer,
    pub memory: Budget,
}

// === impl Steward ===

impl Steward {
    /// Until nobody reads the sensors any more.
    pub async fn run(mut self) {
        loop {
            let reading = *self.readings.borrow_and_update();
            self.look(&reading, Instant::now());
            if self.readings.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(&mut self, reading: &Reading, now: Instant) {
        let withdrawal = self.policy.judge(reading, now);
        let is_short = withdrawal.as_ref().is_some_and(|found| found.reason == WithdrawalReason::MemoryLow);
        let why = withdrawal.as_ref().map(|withdrawal| withdrawal.message.clone());
        if self.board.set_withdrawal(withdrawal) {
            match why {
                Some(why) => tracing::warn!(%why, "this phone takes no part until that is over"),
                None => tracing::info!("this phone takes part again"),
            }
            if is_short {
                self.offer.cut(self.memory.reserved_bytes(), now);
            }
        }
        self.memory.set_limit_bytes(self.offer.bytes(now));
        self.duty.set(self.governor.judge(reading.warmth(), now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform::Battery;
    use crate::policy::Limits;

    fn steward(memory: Budget) -> Steward {
        Steward {
            readings: watch::channel(Reading::default()).1,
            policy: Policy::new(Limits { min_battery_percent: 10, max_temperature_celsius: 60.0 }),
            governor: Governor::new(43.0),
            board: Arc::new(Board::default()),
            duty: Duty::default(),
            offer: Offer::new(memory.limit_bytes()),
            memory,
        }
    }

    #[test]
    fn a_phone_is_withdrawn_and_slowed_by_what_its_sensors_say() {
        let mut steward = steward(Budget::new(1 << 20));
        let board = steward.board.clone();
        let begun = Instant::now();
        let mut look = |second, reading: Reading| {
            steward.look(&reading, begun + Duration::from_secs(second));
            (board.withdrawal().map(|withdrawal| withdrawal.reason), steward.duty.now())
        };
        let battery = |percent| Reading {
            battery: Battery { percent: Some(percent), is_charging: Some(false), ..Battery::default() },
            ..Reading::default()
        };
        let shell = |celsius| Reading { shell_celsius: Some(celsius), ..Reading::default() };
        assert_eq!(look(0, battery(9)), (Some(WithdrawalReason::BatteryLow), 1.0));
        assert_eq!(look(1, battery(15)), (None, 1.0));
        let (warm, duties): (Vec<_>, Vec<f64>) = (2..60).map(|second| look(second, shell(50.0))).unzip();
        assert!(warm.iter().all(Option::is_none) && duties[57] < 0.8 * duties[0], "{duties:?}");
        assert_eq!(look(60, shell(61.0)).0, Some(WithdrawalReason::TooHot));
    }

    #[tokio::test]
    async fn a_phone_that_was_short_of_memory_offers_less() {
        let memory = Budget::new(1 << 20);
        let _held = memory.reserve(800 << 10, || ()).await;
        let mut steward = steward(memory.clone());
        let now = Instant::now();
        let free =
            |available| Reading { available_bytes: Some(available), low_memory_bytes: Some(100), ..Reading::default() };
        steward.look(&free(1000), now);
        assert_eq!(memory.limit_bytes(), 1 << 20);
        // Twice: it is cut once each time that it is short, not at each look.
        steward.look(&free(1), now);
        steward.look(&free(1), now);
        assert_eq!(memory.limit_bytes(), 600 << 10);
    }
}
