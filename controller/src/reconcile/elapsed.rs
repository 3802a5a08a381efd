//! Elapsed: how long ago something was, by wall clocks that may have been set back in between. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The time of conditions: whole seconds, as Kubernetes writes them.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).expect("the whole seconds of a timestamp are one"))
}

/// Whole seconds from `then` to `now`; `None` where `then` lies ahead of `now`: a clock was set, and nobody can say.
pub fn seconds_since(then: Timestamp, now: Timestamp) -> Option<i64> {
    let seconds = now.duration_since(then).as_secs();
    // Conditions are dated in whole seconds, so a second ahead is now.
    if now < then { (seconds >= -1).then_some(0) } else { Some(seconds) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_lies_ahead_is_not_believed() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let table = [(10, 40, Some(30)), (10, 10, Some(0)), (11, 10, Some(0)), (3600, 10, None)];
        for (then, now, expected) in table {
            assert_eq!(seconds_since(at(then), at(now)), expected, "{then} {now}");
        }
    }
}
