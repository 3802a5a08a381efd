//! Decode speed: the median time between two tokens of recent sessions. Has no clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Times between tokens that are kept of each deployment.
const KEPT: usize = 256;
/// Fewer say nothing.
const NEEDED: usize = 8;

/// The last times between tokens, by deployment.
#[derive(Debug, Default)]
pub(crate) struct Speeds {
    recent: HashMap<String, VecDeque<Duration>>,
}

// === impl Speeds ===

impl Speeds {
    pub(crate) fn record(&mut self, deployment: &str, between: Duration) {
        // A lookup first: the name is copied once in a deployment's life, not once a token.
        let recent = match self.recent.get_mut(deployment) {
            Some(recent) => recent,
            None => self.recent.entry(deployment.to_owned()).or_default(),
        };
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(between);
    }

    /// Forgets deployments that are no more.
    pub(crate) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.recent.retain(|deployment, _| exists(deployment));
    }

    pub(crate) fn tokens_per_second(&self, deployment: &str) -> Option<f64> {
        let mut recent: Vec<Duration> = self.recent.get(deployment)?.iter().copied().collect();
        if recent.len() < NEEDED {
            return None;
        }
        let middle = recent.len() / 2;
        let (_, median, _) = recent.select_nth_unstable(middle);
        (!median.is_zero()).then(|| 1.0 / median.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_not_moved_by_one_long_pause() {
        let mut speeds = Speeds::default();
        (0..8).for_each(|_| speeds.record("a", Duration::from_millis(50)));
        speeds.record("a", Duration::from_secs(20));
        assert_eq!(speeds.tokens_per_second("a"), Some(20.0));
    }

    #[test]
    fn a_few_tokens_say_nothing_and_old_ones_are_forgotten() {
        let mut speeds = Speeds::default();
        speeds.record("a", Duration::from_millis(50));
        assert_eq!((speeds.tokens_per_second("a"), speeds.tokens_per_second("b")), (None, None));
        (0..KEPT).for_each(|_| speeds.record("a", Duration::from_millis(100)));
        assert_eq!((speeds.tokens_per_second("a"), speeds.recent["a"].len()), (Some(10.0), KEPT));
        speeds.retain(|name| name != "a");
        assert_eq!(speeds.tokens_per_second("a"), None);
    }
}
