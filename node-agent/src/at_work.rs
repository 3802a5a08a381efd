//! At work: for how long the agent has computed and been busy otherwise, and how many tokens it has decoded, whichever segment's. One for all of
//! its segments.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Told by whoever works.
#[derive(Clone, Debug, Default)]
pub struct AtWork {
    state: Arc<Mutex<State>>,
}

/// What an agent does with the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Steps of sessions.
    Step,
    /// Fetching and loading weights, timing them, copying KV caches.
    Other,
}

/// All that was done until a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Time in which at least one step was computed.
    pub computed: Duration,
    /// Time in which at least one of the other things was done.
    pub busy_otherwise: Duration,
    /// Tokens that were decoded.
    pub tokens: u64,
}

#[derive(Debug, Default)]
struct State {
    steps: Spell,
    others: Spell,
    tokens: u64,
}

/// Time in which something was under way.
#[derive(Debug, Default)]
struct Spell {
    /// Segments may have theirs at the same time.
    n_running: u32,
    since: Option<Instant>,
    /// Before that.
    whole: Duration,
}

/// Work under way; over when it is dropped.
pub struct Running {
    at_work: AtWork,
    activity: Activity,
}

// === impl AtWork ===

impl AtWork {
    /// Work begins.
    pub fn begin(&self, activity: Activity, now: Instant) -> Running {
        let mut state = self.lock();
        let spell = state.spell(activity);
        spell.n_running += 1;
        spell.since.get_or_insert(now);
        Running { at_work: self.clone(), activity }
    }

    pub fn decoded(&self, n_tokens: usize) {
        self.lock().tokens += n_tokens as u64;
    }

    /// All that was done until now.
    pub fn until(&self, now: Instant) -> Done {
        let state = self.lock();
        Done { computed: state.steps.until(now), busy_otherwise: state.others.until(now), tokens: state.tokens }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Done ===

impl Done {
    /// What was done after `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            computed: self.computed.saturating_sub(before.computed),
            busy_otherwise: self.busy_otherwise.saturating_sub(before.busy_otherwise),
            tokens: self.tokens.saturating_sub(before.tokens),
        }
    }
}

// === impl State ===

impl State {
    fn spell(&mut self, activity: Activity) -> &mut Spell {
        match activity {
            Activity::Step => &mut self.steps,
            Activity::Other => &mut self.others,
        }
    }
}

// === impl Spell ===

impl Spell {
    fn until(&self, now: Instant) -> Duration {
        self.whole + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn end(&mut self, now: Instant) {
        self.n_running = self.n_running.saturating_sub(1);
        if self.n_running == 0 {
            self.whole = self.until(now);
            self.since = None;
        }
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.at_work.lock().spell(self.activity).end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_at_the_same_time_count_once_and_one_that_runs_counts_as_far_as_it_is() {
        let at_work = AtWork::default();
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let (one, other) = (at_work.begin(Activity::Step, began), at_work.begin(Activity::Step, began + second));
        assert_eq!(at_work.until(began + 3 * second).computed, 3 * second);
        // What ends, ends now: less than a second after it began.
        drop(one);
        assert_eq!(at_work.until(began + 5 * second).computed, 5 * second, "the other runs on");
        drop(other);
        let done = at_work.until(began + 50 * second);
        assert!(done.computed < second, "{done:?}");
        assert_eq!(done.tokens, 0);
        at_work.decoded(3);
        assert_eq!(at_work.until(began), Done { tokens: 3, ..done });
    }

    #[test]
    fn what_is_no_step_counts_apart() {
        let at_work = AtWork::default();
        let began = Instant::now();
        let (load, later) = (at_work.begin(Activity::Other, began), began + Duration::from_secs(2));
        let before = at_work.until(began + Duration::from_secs(1));
        let meanwhile = at_work.until(later).since(&before);
        assert_eq!((meanwhile.computed, meanwhile.busy_otherwise), (Duration::ZERO, Duration::from_secs(1)));
        drop(load);
    }
}
