//! News: whether anything has happened that the controller's rounds are woken by. Simulated, and pure.
//!
//! The controller looks at least once a second. A day has 86,400 of these, in most of which nothing is said that was not said before; rounds
//! that come later than they could make the day no easier.

use polyphony_controller::reconcile::observe::{Observed, PhoneLink, PhoneSeen};
use polyphony_protocol::hub::{SegmentPhase, WithdrawalReason};

/// What has not changed by so much is no news.
const CELSIUS: f64 = 0.5;
const TIME: f64 = 1.1;
/// A round comes at least this often, for what time alone changes.
const EVERY_SECONDS: f64 = 30.0;

/// What was said at the last round.
#[derive(Default)]
pub struct News {
    said: Vec<Said>,
    at: f64,
}

#[derive(Debug, PartialEq)]
struct Said {
    is_linked: bool,
    percent: Option<u8>,
    is_charging: Option<bool>,
    celsius: Option<i64>,
    withdrawal: Option<WithdrawalReason>,
    segments: Vec<(String, SegmentPhase, Option<i64>)>,
}

// === impl News ===

impl News {
    /// Whether there are any at this second.
    pub fn are(&mut self, observed: &Observed, at: f64) -> bool {
        let said: Vec<Said> = observed.phones.values().map(Said::by).collect();
        let is_silent =
            |seen: &PhoneSeen| matches!(seen.link, PhoneLink::Up { silent_for, .. } if !silent_for.is_zero());
        let is_under_way = observed.phones.values().any(is_silent)
            || observed.placements.values().any(|one| one.metadata.deletion_timestamp.is_some());
        let are = is_under_way || said != self.said || at - self.at >= EVERY_SECONDS;
        if are {
            *self = Self { said, at };
        }
        are
    }
}

// === impl Said ===

impl Said {
    fn by(seen: &PhoneSeen) -> Self {
        let heartbeat = seen.heartbeat.as_ref();
        let segments = heartbeat.into_iter().flat_map(|heartbeat| &heartbeat.segments).map(|report| {
            let time = report.seconds_per_layer.map(|seconds| (seconds.ln() / TIME.ln()).round() as i64);
            (report.name.clone(), report.phase, time)
        });
        Self {
            is_linked: matches!(seen.link, PhoneLink::Up { .. }),
            percent: heartbeat.and_then(|heartbeat| heartbeat.battery_percent),
            is_charging: heartbeat.and_then(|heartbeat| heartbeat.charging),
            celsius: heartbeat
                .and_then(|heartbeat| heartbeat.temperature_celsius)
                .map(|celsius| (celsius / CELSIUS).floor() as i64),
            withdrawal: heartbeat.and_then(|heartbeat| heartbeat.withdrawal.as_ref()).map(|found| found.reason),
            segments: segments.collect(),
        }
    }
}
