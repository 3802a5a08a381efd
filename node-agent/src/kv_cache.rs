//! Which KV slot belongs to which session. The cache's values lie in the engine's buffers.

/// Hands out slots 0..n, lowest first.
#[derive(Debug)]
pub struct Slots {
    taken: Vec<bool>,
}

// === impl Slots ===

impl Slots {
    pub fn new(n_slots: usize) -> Self {
        Self { taken: vec![false; n_slots] }
    }

    /// A free slot, now taken; `None` when every one is.
    pub fn take(&mut self) -> Option<u32> {
        let slot = self.taken.iter().position(|taken| !taken)?;
        self.taken[slot] = true;
        Some(slot as u32)
    }

    /// Gives a slot back; its values are overwritten by the next session before they are read.
    pub fn give_back(&mut self, slot: u32) {
        if let Some(taken) = self.taken.get_mut(slot as usize) {
            *taken = false;
        }
    }

    pub fn len(&self) -> usize {
        self.taken.len()
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_to_one_session_at_a_time() {
        let mut slots = Slots::new(2);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(0), Some(1), None));
        slots.give_back(0);
        slots.give_back(7);
        assert_eq!(slots.take(), Some(0));
    }
}
