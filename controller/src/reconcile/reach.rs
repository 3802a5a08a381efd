//! Reach: whether the API answers, for whoever asks over HTTP. It changes nothing: phones and gateway go on by what is known.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The API counts as out of reach when nothing but failures came for this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rounds that take longer than this hang.
const ROUND_DEADLINE: Duration = Duration::from_secs(120);

/// What is known of the way to the API.
pub struct Reach {
    state: Mutex<State>,
}

struct State {
    /// Since when nothing but failures came, and the last one's words.
    silent: Option<(Instant, String)>,
    last_round: Instant,
}

// === impl Reach ===

impl Reach {
    pub fn new(now: Instant) -> Self {
        Self { state: Mutex::new(State { silent: None, last_round: now }) }
    }

    /// The API answered something, if only no.
    pub fn note_answer(&self) {
        self.lock().silent = None;
    }

    /// A call, or a watch, got no answer.
    pub fn note_silence(&self, now: Instant, why: String) {
        let mut state = self.lock();
        let since = state.silent.as_ref().map_or(now, |(since, _)| *since);
        state.silent = Some((since, why));
    }

    /// A round came to its end.
    pub fn note_round(&self, now: Instant) {
        self.lock().last_round = now;
    }

    /// Why the API cannot be reached; `None` while it can.
    pub fn out_of_reach(&self, now: Instant) -> Option<String> {
        let state = self.lock();
        let (since, why) = state.silent.as_ref()?;
        let silent_for = now.saturating_duration_since(*since);
        (silent_for >= PATIENCE).then(|| {
            format!(
                "the API has not answered for {} s: {why}; what runs goes on, and nothing new is planned",
                silent_for.as_secs()
            )
        })
    }

    /// Why the reconcile loop counts as hanging; `None` while it does not.
    pub fn hangs(&self, now: Instant) -> Option<String> {
        let ago = now.saturating_duration_since(self.lock().last_round);
        (ago >= ROUND_DEADLINE).then(|| format!("no round of the reconcile loop has ended for {} s", ago.as_secs()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while he holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_that_stays_silent_is_out_of_reach_until_it_answers() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let reach = Reach::new(start);
        assert_eq!(reach.out_of_reach(after(100)), None);
        reach.note_silence(after(100), "no answer within 5 s".to_owned());
        assert_eq!(reach.out_of_reach(after(104)), None, "one call is not enough");
        reach.note_silence(after(106), "connection refused".to_owned());
        let why = reach.out_of_reach(after(107)).unwrap_or_default();
        assert!(why.contains("for 7 s") && why.contains("connection refused"), "{why}");
        reach.note_answer();
        assert_eq!(reach.out_of_reach(after(200)), None);
    }

    #[test]
    fn a_loop_that_ends_no_round_hangs() {
        let start = Instant::now();
        let reach = Reach::new(start);
        assert_eq!(reach.hangs(start + ROUND_DEADLINE / 2), None);
        assert!(reach.hangs(start + ROUND_DEADLINE).is_some());
        reach.note_round(start + ROUND_DEADLINE);
        assert_eq!(reach.hangs(start + ROUND_DEADLINE), None);
    }
}
