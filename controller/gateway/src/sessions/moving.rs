//! Moving: a running session goes over to the next generation of its ring, step by step, while it is served.

use std::time::Duration;

use polyphony_protocol::RouteKey;
use tokio::time::Instant;

use super::lock;
use super::run::Runner;
use super::seat::Slot;
use crate::failure::Failure;
use crate::routes::{RingRoute, RouteTable};

/// A move under way.
pub(super) struct Move {
    began: Instant,
    /// When the session is replayed instead.
    deadline: Instant,
    /// Its place on the next ring, once that has been asked.
    to: Option<Slot>,
}

// === impl Runner ===

impl Runner {
    /// Asks the head to stop if the controller wants the ring's sessions on another generation; `patience` is what the ring
    /// may take for what it computes now.
    ///
    /// # Errors
    /// When the session has to be replayed: the head cannot be told, or the next generation computes other bits.
    pub(super) fn begin_move(&mut self, slot: &Slot, patience: Duration) -> Result<(), Failure> {
        let table = std::sync::Arc::clone(&self.sessions.routes.borrow());
        let Some(next) = self.next_ring(slot, &table).filter(|_| self.moving.is_none()) else { return Ok(()) };
        if next.numerics_class != slot.ring.numerics_class {
            let why = format!("generation {} computes in {}", next.generation, next.numerics_class);
            return Err(self.stranded(slot, why));
        }
        let Some(pause) = self.session.pause() else { return Ok(()) };
        let began = Instant::now();
        let deadline = began + patience + self.sessions.config.hand_over_deadline;
        self.moving = Some(Move { began, deadline, to: None });
        tracing::debug!(session = %self.id, ring = %slot.ring.ring, to = %next.generation, "session pauses to move");
        self.send(slot, pause)
    }

    /// When a move must be over.
    pub(super) fn move_deadline(&self) -> Option<Instant> {
        self.moving.as_ref().map(|moving| moving.deadline)
    }

    pub(super) fn move_is_late(&self, slot: &Slot) -> Failure {
        let waited = self.sessions.config.hand_over_deadline;
        let for_whom = match self.moving.as_ref().and_then(|moving| moving.to.as_ref()) {
            Some(to) => format!("{} did not have its KV cache", to.ring.phones.join(", ")),
            None => "its head did not stop".to_owned(),
        };
        self.stranded(slot, format!("{for_whom} within {} s", waited.as_secs_f32()))
    }

    pub(super) fn paused(&mut self, slot: &Slot, key: RouteKey, position: u32) -> Result<(), Failure> {
        self.session.paused(key, position).map_err(Failure::Disagreement)?;
        self.go_over(slot)
    }

    /// Asks the next ring to take the session over, when it has come to rest.
    pub(super) fn go_over(&mut self, slot: &Slot) -> Result<(), Failure> {
        if !self.session.is_at_rest() {
            return Ok(());
        }
        // The controller may have thought better of it since.
        let table = std::sync::Arc::clone(&self.sessions.routes.borrow());
        let next = self.next_ring(slot, &table).filter(|next| next.numerics_class == slot.ring.numerics_class);
        let Some(next) = next else {
            return Err(self.stranded(slot, "the generation that was to follow is gone".to_owned()));
        };
        let Some((key, position, resume)) = self.session.resume(next.ring, next.generation) else { return Ok(()) };
        let to = slot.on_next(next);
        lock(&self.sessions.registry).place_moving(key, to.ring.phones.clone(), position);
        let sent = self.send(&to, resume);
        if let Some(moving) = &mut self.moving {
            moving.deadline = Instant::now() + self.sessions.config.hand_over_deadline;
            moving.to = Some(to);
        }
        sent
    }

    /// The next ring has all that it needs: the session goes on there.
    pub(super) fn resumed(&mut self, slot: &mut Slot, key: RouteKey) -> Result<bool, Failure> {
        let Some((close, prompt)) = self.session.resumed(key) else { return Ok(false) };
        let Some(Move { began, to: Some(to), .. }) = self.moving.take() else { return Ok(false) };
        // A head that cannot be told has lost the session anyway.
        let _ = self.send(slot, close);
        let seconds = began.elapsed().as_secs_f64();
        let from = slot.ring.generation;
        slot.move_to(to);
        self.last_token_at = None;
        self.send(slot, prompt)?;
        self.metrics.hand_over_seconds.observe(seconds);
        tracing::info!(session = %self.id, ring = %key.ring, %from, to = %key.generation, position = self.session.position(), seconds, "session moved");
        Ok(true)
    }

    /// A move ends without having come to its end; the ring that it was to is told, and what follows tells the one that it was from.
    pub(super) fn break_off_move(&mut self, slot: &Slot) -> Option<Slot> {
        let moving = self.moving.take()?;
        if let Some(close) = self.session.leave_behind() {
            let _ = self.send(slot, close);
        }
        moving.to
    }

    fn stranded(&self, slot: &Slot, why: String) -> Failure {
        Failure::HandOver { from: slot.ring.generation, why }
    }

    /// The ring that the sessions of this one are to move to.
    fn next_ring(&self, slot: &Slot, table: &RouteTable) -> Option<RingRoute> {
        let route = table.deployments.get(&self.model)?;
        let follows = |ring: &&RingRoute| {
            ring.ring == slot.ring.ring
                && ring.moves_sessions
                && ring.follows == Some(slot.ring.generation)
                && !ring.phones.is_empty()
        };
        route.rings.iter().find(follows).cloned()
    }
}
