//! Which KV slot belongs to which session. The cache's values lie in the engine's buffers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hands out slots 0..n, lowest first. The stages of one segment share them: a session that moves from one to the next keeps its slot.
///
/// Clones are the same slots. One thread owns all stages of a segment, so the lock is never waited for.
#[derive(Clone, Debug)]
pub struct Slots {
    /// By slot: how many stages hold it.
    holders: Arc<Mutex<Vec<u32>>>,
}

// === impl Slots ===

impl Slots {
    pub fn new(n_slots: usize) -> Self {
        Self { holders: Arc::new(Mutex::new(vec![0; n_slots])) }
    }

    /// A free slot, now held; `None` when every one is.
    pub fn take(&self) -> Option<u32> {
        let mut holders = self.lock();
        let slot = holders.iter().position(|n_holders| *n_holders == 0)?;
        holders[slot] = 1;
        Some(slot as u32)
    }

    /// One stage more holds a slot that is held.
    pub fn share(&self, slot: u32) {
        if let Some(n_holders) = self.lock().get_mut(slot as usize) {
            *n_holders += 1;
        }
    }

    /// One stage less holds a slot; when none does, its values are overwritten by the next session before they are read.
    pub fn give_back(&self, slot: u32) {
        if let Some(n_holders) = self.lock().get_mut(slot as usize) {
            *n_holders = n_holders.saturating_sub(1);
        }
    }

    /// All of them, held or free.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// How many are held.
    pub fn n_held(&self) -> usize {
        self.lock().iter().filter(|n_holders| **n_holders > 0).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_to_one_session_at_a_time() {
        let slots = Slots::new(2);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(0), Some(1), None));
        slots.give_back(0);
        slots.give_back(7);
        assert_eq!(slots.take(), Some(0));
    }

    #[test]
    fn a_slot_that_two_stages_hold_is_free_when_both_have_given_it_back() {
        let slots = Slots::new(1);
        assert_eq!(slots.take(), Some(0));
        slots.clone().share(0);
        slots.give_back(0);
        assert_eq!((slots.take(), slots.n_held()), (None, 1));
        slots.give_back(0);
        assert_eq!((slots.n_held(), slots.take()), (0, Some(0)));
    }
}
