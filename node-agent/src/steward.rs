//! The steward: looks at the phone's battery, heat and memory, withdraws it by its policy, and governs how much of its time it computes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::duty::{Duty, Governor};
use crate::policy::Policy;
use crate::sensors::Sensors;

/// What it looks at and what it moves.
pub struct Steward {
    pub sensors: Sensors,
    pub policy: Policy,
    pub governor: Governor,
    pub board: Arc<Board>,
    pub duty: Duty,
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

// === impl Steward ===

impl Steward {
    /// Looks each second, and whenever an app says something, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut told = self.sensors.told.clone();
        loop {
            self.look(Instant::now());
            let said = async {
                let is_there = match &mut told {
                    Some(told) => told.changed().await.is_ok(),
                    None => false,
                };
                // An app that is gone says nothing more.
                if !is_there {
                    std::future::pending().await
                }
            };
            let next = async {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = said => {}
                }
            };
            if shutdown.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let wishes = self.sensors.told().wishes();
        let reading = self.sensors.read();
        let withdrawal = self.policy.judge(wishes, &reading, now);
        let why = withdrawal.as_ref().map(|withdrawal| withdrawal.message.clone());
        if self.board.set_withdrawal(withdrawal) {
            match why {
                Some(why) => tracing::warn!(%why, "this phone takes no part until that is over"),
                None => tracing::info!("this phone takes part again"),
            }
        }
        self.duty.set(self.governor.judge(reading.temperature_celsius, now));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::hub::WithdrawalReason;

    use super::*;
    use crate::policy::Limits;

    #[test]
    fn a_phone_is_withdrawn_and_slowed_by_what_its_sensors_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sensors.json");
        let board = Arc::new(Board::default());
        let mut steward = Steward {
            sensors: Sensors { file: Some(file.clone()), told: None },
            policy: Policy::new(Limits { min_battery_percent: 10, max_temperature_celsius: 60.0 }),
            governor: Governor::new(43.0),
            board: board.clone(),
            duty: Duty::default(),
        };
        let begun = Instant::now();
        let mut look = |second, reading: &str| {
            std::fs::write(&file, reading).unwrap();
            steward.look(begun + Duration::from_secs(second));
            (board.withdrawal().map(|withdrawal| withdrawal.reason), steward.duty.now())
        };
        assert_eq!(look(0, r#"{ "batteryPercent": 9, "charging": false }"#), (Some(WithdrawalReason::BatteryLow), 1.0));
        assert_eq!(look(1, r#"{ "batteryPercent": 9, "charging": true }"#), (None, 1.0));
        let (warm, duties): (Vec<_>, Vec<f64>) =
            (2..60).map(|second| look(second, r#"{ "temperatureCelsius": 50 }"#)).unzip();
        assert!(warm.iter().all(Option::is_none) && duties[57] < 0.8 * duties[0], "{duties:?}");
        assert_eq!(look(60, r#"{ "temperatureCelsius": 61 }"#).0, Some(WithdrawalReason::TooHot));
    }
}
