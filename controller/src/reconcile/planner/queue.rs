//! The queue for the planner's threads: deployments get them in the order in which they began to wait. Pure.
//!
//! Who matters more asks first in every round, and would else have each thread that comes free.

use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Queue {
    round: u64,
    /// Deployments, and the round in which each asked last.
    waiting: VecDeque<(String, u64)>,
}

// === impl Queue ===

impl Queue {
    /// Who did not ask in the round that is over waits no more.
    pub(super) fn begin_round(&mut self) {
        let last = self.round;
        self.waiting.retain(|(_, asked_in)| *asked_in == last);
        self.round += 1;
    }

    /// Whether one of `n_free` threads is this deployment's; else it waits.
    pub(super) fn admits(&mut self, deployment: &str, n_free: usize) -> bool {
        let place = self.waiting.iter().position(|(other, _)| other == deployment);
        if place.unwrap_or(self.waiting.len()) < n_free {
            if let Some(place) = place {
                self.waiting.remove(place);
            }
            return true;
        }
        match place {
            Some(place) => self.waiting[place].1 = self.round,
            None => self.waiting.push_back((deployment.to_owned(), self.round)),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_round_however_often_the_first_ones_ask() {
        let mut queue = Queue::default();
        let mut n_turns = [0; 4];
        for _ in 0..12 {
            queue.begin_round();
            let mut n_free = 1;
            for (deployment, turns) in ["a", "b", "c", "d"].into_iter().zip(&mut n_turns) {
                if queue.admits(deployment, n_free) {
                    n_free -= 1;
                    *turns += 1;
                }
            }
        }
        assert_eq!(n_turns, [3; 4]);
    }

    #[test]
    fn nothing_is_kept_for_who_asks_no_more() {
        let mut queue = Queue::default();
        queue.begin_round();
        assert!(!queue.admits("a", 0));
        queue.begin_round();
        assert!(!queue.admits("b", 1), "it is the other one's turn");
        queue.begin_round();
        assert!(queue.admits("b", 1));
    }
}
