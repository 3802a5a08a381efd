//! Last: what a sensor fails to tell for a moment is as it was. Pure: times come in as arguments.

use std::time::{Duration, Instant};

/// What has not come for longer is not known.
const BRIDGED: Duration = Duration::from_secs(10);

/// What one sensor told last, and when.
#[derive(Clone, Copy, Debug)]
pub struct Last<T>(Option<(T, Instant)>);

// === impl Last ===

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Last<T> {
    /// What is found now, or what was found last.
    pub fn or_last(&mut self, found: Option<T>, now: Instant) -> Option<T> {
        match found {
            Some(found) => self.0 = Some((found, now)),
            None => self.0 = self.0.filter(|(_, at)| now.saturating_duration_since(*at) < BRIDGED),
        }
        self.0.map(|(last, _)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_it_was_for_a_while_and_then_unknown() {
        let (mut last, begun) = (Last::default(), Instant::now());
        let mut at = |seconds, found| last.or_last(found, begun + Duration::from_secs(seconds));
        let found = [at(0, None), at(1, Some(5)), at(10, None), at(11, None), at(12, Some(6))];
        assert_eq!(found, [None, Some(5), Some(5), None, Some(6)]);
    }
}
