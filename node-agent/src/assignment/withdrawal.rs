//! A withdrawal as its segments see it: the host hears of it first, and has some time to move them away.

use std::time::{Duration, Instant};

use polyphony_protocol::hub::{Withdrawal, WithdrawalReason};
use tokio::sync::watch;

/// After this a segment ends, whether its host has moved it or not: who is away, or finds no other place, has had its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where the system is about to end this program.
const LITTLE_PATIENCE: Duration = Duration::from_secs(3);

/// Waits until the phone takes part.
pub(super) async fn over(withdrawals: &mut watch::Receiver<Option<Withdrawal>>) {
    // Of a board that is gone nobody withdraws.
    let _ = withdrawals.wait_for(Option::is_none).await;
}

/// Waits until the phone has taken no part for so long that its segments end; says why.
pub(super) async fn in_force(withdrawals: &mut watch::Receiver<Option<Withdrawal>>) -> String {
    in_force_after(withdrawals, patience).await
}

/// How long a host has, from when a phone withdraws for a reason, to move away what that holds.
pub fn patience(reason: WithdrawalReason) -> Duration {
    if reason == WithdrawalReason::MemoryLow { LITTLE_PATIENCE } else { PATIENCE }
}

/// When the segments of a phone that takes no part end. Its reason may become another one meanwhile: of all ends the first counts.
#[derive(Debug, Default)]
pub struct Grace(Option<Instant>);

// === impl Grace ===

impl Grace {
    /// Hears with how much patience the phone is away by now; with none it is back. Says when its segments end.
    pub fn hear(&mut self, patience: Option<Duration>, now: Instant) -> Option<Instant> {
        self.0 = patience.map(|patience| self.0.map_or(now + patience, |end| end.min(now + patience)));
        self.0
    }
}

async fn in_force_after(
    withdrawals: &mut watch::Receiver<Option<Withdrawal>>,
    patience: impl Fn(WithdrawalReason) -> Duration,
) -> String {
    let mut grace = Grace::default();
    loop {
        let withdrawn = withdrawals.borrow_and_update().clone();
        let end = grace.hear(withdrawn.as_ref().map(|withdrawn| patience(withdrawn.reason)), Instant::now());
        let over = async {
            match end.zip(withdrawn) {
                Some((end, Withdrawal { message, .. })) => {
                    tokio::time::sleep_until(end.into()).await;
                    message
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = over => return message,
            changed = withdrawals.changed() => {
                // Of a board that is gone nobody withdraws.
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn withdrawal(reason: WithdrawalReason) -> Option<Withdrawal> {
        Some(Withdrawal { reason, message: format!("{reason:?}") })
    }

    #[tokio::test]
    async fn a_phone_that_is_back_in_time_keeps_its_segments() {
        let (phone, mut seen) = watch::channel(None);
        // Memory is let go at once, and all else at the end of the world.
        let patience =
            |reason| if reason == WithdrawalReason::MemoryLow { Duration::ZERO } else { Duration::from_secs(1 << 20) };
        let mut ended = Box::pin(in_force_after(&mut seen, patience));
        for now in [None, withdrawal(WithdrawalReason::TooHot), None, withdrawal(WithdrawalReason::Paused), None] {
            phone.send_replace(now);
            assert_eq!(ended.as_mut().now_or_never(), None);
        }
        phone.send_replace(withdrawal(WithdrawalReason::MemoryLow));
        assert_eq!(ended.await, "MemoryLow");
        assert_eq!(over(&mut seen).now_or_never(), None, "it is as before");
    }

    #[test]
    fn of_several_reasons_without_a_break_the_first_end_counts() {
        use WithdrawalReason::{MemoryLow, TooHot};
        let begun = Instant::now();
        for (reasons, expected) in [
            (&[(0, Some(TooHot))][..], Some(30)),
            (&[(0, Some(TooHot)), (10, Some(MemoryLow))], Some(13)),
            (&[(0, Some(MemoryLow)), (1, Some(TooHot))], Some(3)),
            (&[(0, Some(TooHot)), (29, Some(MemoryLow))], Some(30)),
            (&[(0, Some(MemoryLow)), (1, None)], None),
            (&[(0, Some(MemoryLow)), (1, None), (2, Some(TooHot))], Some(32)),
        ] {
            let mut grace = Grace::default();
            let hear = |(second, reason): &(u64, Option<WithdrawalReason>)| {
                grace.hear(reason.map(patience), begun + Duration::from_secs(*second))
            };
            let end = reasons.iter().map(hear).last().flatten();
            assert_eq!(end.map(|end| (end - begun).as_secs()), expected, "{reasons:?}");
        }
    }

    #[tokio::test]
    async fn who_is_away_for_one_reason_hears_of_another() {
        let (phone, mut seen) = watch::channel(withdrawal(WithdrawalReason::TooHot));
        let patience =
            |reason| if reason == WithdrawalReason::MemoryLow { Duration::ZERO } else { Duration::from_secs(1 << 20) };
        let mut ended = Box::pin(in_force_after(&mut seen, patience));
        assert_eq!(ended.as_mut().now_or_never(), None);
        phone.send_replace(withdrawal(WithdrawalReason::MemoryLow));
        assert_eq!(ended.await, "MemoryLow");
    }

    #[test]
    fn memory_is_let_go_soon() {
        assert!(super::patience(WithdrawalReason::MemoryLow) < super::patience(WithdrawalReason::TooHot));
    }
}
