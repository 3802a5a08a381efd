//! Effort: how much of it one text may take, counted in steps and not in seconds, so that a text is refused always or never.
//!
//! Automata look at each byte once, but expressions are a stranger's: `a+b|a` looks through a row of `a` to its end at each of them. Known
//! ones look at a byte some four times.

/// Steps that are left to a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    left: usize,
}

/// A text takes more steps than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooDear;

/// Steps for each byte of a text; sixteen expressions, one after another, take a quarter of it.
pub(super) const STEPS_PER_BYTE: usize = 256;

// === impl Effort ===

impl Effort {
    /// What a text of so many bytes may take.
    pub(super) fn of(n_bytes: usize) -> Self {
        // The blank before a text is none of its own.
        Self { left: n_bytes.saturating_add(4).saturating_mul(STEPS_PER_BYTE) }
    }

    /// # Errors
    /// [`TooDear`] when fewer are left.
    pub(super) fn spend(&mut self, n_steps: usize) -> Result<(), TooDear> {
        self.left = self.left.checked_sub(n_steps).ok_or(TooDear)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_take_steps_by_its_length() {
        let mut effort = Effort::of(4);
        assert_eq!((effort.spend(2000), effort.spend(48), effort.spend(1)), (Ok(()), Ok(()), Err(TooDear)));
    }
}
