//! Running: whether a device is at something, and for how long, for who watches it from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts up as something begins and as it ends: odd while it lasts.
#[derive(Default)]
pub(super) struct Running(AtomicU64);

/// Something lasts as long as this lives.
pub(super) struct Run(Arc<Running>);

/// Looks within the longest time that anything may take. They are counted rather than a clock read: whoever is stopped and goes on, as in the background
/// of a phone, finds that time has passed in which nothing could end.
const LOOKS: u32 = 8;

// === impl Running ===

impl Running {
    pub fn begin(self: &Arc<Self>) -> Run {
        self.0.fetch_add(1, Ordering::Relaxed);
        Run(self.clone())
    }

    /// Calls `hangs` once if something lasts for longer than that. Ends with the last handle on this.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(self: &Arc<Self>, longest: Duration, hangs: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let watched = Arc::downgrade(self);
        let watch = move || {
            let (mut last, mut n_looks) = (0, 0);
            loop {
                std::thread::sleep(longest / LOOKS);
                let Some(running) = watched.upgrade() else { return };
                let now = running.0.load(Ordering::Relaxed);
                n_looks = if now % 2 == 1 && now == last { n_looks + 1 } else { 0 };
                last = now;
                if n_looks > LOOKS {
                    return hangs();
                }
            }
        };
        std::thread::Builder::new().name("device-watch".to_owned()).spawn(watch).map(drop)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_does_not_end_is_told_once_and_what_ends_again_and_again_is_not() {
        let running = Arc::new(Running::default());
        let (hangs, told) = channel();
        running.watch(Duration::from_millis(80), move || hangs.send(()).unwrap()).unwrap();
        for _ in 0..40 {
            let _run = running.begin();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(told.try_recv().is_err());
        let _run = running.begin();
        told.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn nobody_watches_what_is_gone() {
        let running = Arc::new(Running::default());
        let (hangs, told) = channel::<()>();
        running.watch(Duration::from_millis(8), move || hangs.send(()).unwrap()).unwrap();
        drop(running);
        // The watcher's end goes with it.
        assert!(told.recv_timeout(Duration::from_secs(60)).is_err());
    }
}
