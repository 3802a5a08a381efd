//! A withdrawal as its segments see it: the host hears of it first, and has some time to move them away.

use std::time::Duration;

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

/// How long a host has, from when a phone withdraws, to move away what that holds.
pub fn patience(reason: WithdrawalReason) -> Duration {
    if reason == WithdrawalReason::MemoryLow { LITTLE_PATIENCE } else { PATIENCE }
}

async fn in_force_after(
    withdrawals: &mut watch::Receiver<Option<Withdrawal>>,
    patience: impl Fn(WithdrawalReason) -> Duration,
) -> String {
    loop {
        let found = withdrawals.wait_for(Option::is_some).await.map(|found| found.clone());
        let Ok(Some(Withdrawal { reason, message })) = found else { return std::future::pending().await };
        if tokio::time::timeout(patience(reason), over(withdrawals)).await.is_err() {
            return message;
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
    fn memory_is_let_go_soon() {
        assert!(super::patience(WithdrawalReason::MemoryLow) < super::patience(WithdrawalReason::TooHot));
    }
}
