//! Hand-over: how a session moves to the next generation of its ring at a token boundary, and takes its KV cache along. Pure.
//!
//! Pause; when the head has stopped, resume on the next ring; when each of its stages has the KV cache, go on there and leave the
//! old ring. Until then the old one keeps everything, and at each step the session can be placed anew instead.

use polyphony_protocol::frame::Resume;
use polyphony_protocol::{Frame, PlanGeneration, RingId, RouteKey};

use super::Session;

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    No,
    /// The head has been asked to stop.
    Pausing,
    /// It has: positions below are computed.
    Paused {
        position: u32,
    },
    /// The next ring has been asked to take over what the old one has.
    Resuming {
        old: RouteKey,
        position: u32,
    },
}

// === impl Session ===

impl Session {
    /// Asks the head to stop; `None` where there is nothing to move.
    pub(crate) fn pause(&mut self) -> Option<Frame> {
        let key = self.key.filter(|_| self.finish.is_none() && self.moving == Moving::No)?;
        self.moving = Moving::Pausing;
        Some(Frame::Pause { key })
    }

    /// The head has stopped.
    ///
    /// # Errors
    /// When what it says cannot be; the session has to be replayed.
    pub(crate) fn paused(&mut self, key: RouteKey, position: u32) -> Result<(), String> {
        if self.key != Some(key) || self.moving != Moving::Pausing {
            return Ok(());
        }
        if position == 0 || position >= self.granted_until {
            return Err(format!(
                "the head stopped at position {position}, and had credit up to {}",
                self.granted_until
            ));
        }
        self.moving = Moving::Paused { position };
        Ok(())
    }

    /// Whether it has stopped, and every token that the ring sampled is here.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.moving, Moving::Paused { position } if position < self.position()) && self.finish.is_none()
    }

    /// Asks the next ring to take over; `None` unless the session is at rest.
    pub(crate) fn resume(&mut self, ring: RingId, generation: PlanGeneration) -> Option<(RouteKey, u32, Frame)> {
        let (Moving::Paused { position }, Some(old), true) = (self.moving, self.key, self.is_at_rest()) else {
            return None;
        };
        let key = self.next_key(ring, generation);
        self.moving = Moving::Resuming { old, position };
        let (from, from_epoch) = (old.generation, old.epoch);
        let resume = Resume { key, position, options: self.options_so_far(), from, from_epoch };
        Some((key, position, Frame::Resume(resume)))
    }

    /// The next ring has all: what the old head is told, and then the new one.
    pub(crate) fn resumed(&mut self, key: RouteKey) -> Option<(Frame, Frame)> {
        let Moving::Resuming { old, position } = self.moving else { return None };
        if self.key != Some(key) {
            return None;
        }
        self.moving = Moving::No;
        Some((Frame::Close { key: old }, Frame::Prompt(self.prompt(key, position))))
    }

    /// What the head is told of the ring that a move would have left.
    pub(crate) fn leave_behind(&self) -> Option<Frame> {
        match self.moving {
            Moving::Resuming { old, .. } => Some(Frame::Close { key: old }),
            _ => None,
        }
    }
}
