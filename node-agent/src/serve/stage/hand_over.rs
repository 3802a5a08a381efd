//! Hand-over: a session leaves a stage at a token boundary, and goes on on another with the KV cache that it had. Pure.

use std::time::Instant;

use polyphony_model::LayerRange;
use polyphony_protocol::frame::Resume;
use polyphony_protocol::{Frame, RouteKey};

use super::{Effect, Reason, Stage};

/// What another stage of the same segment has computed of a session that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where its KV cache lies.
    pub slot: u32,
    /// The layers that it ran.
    pub layers: LayerRange,
}

/// A part of a session's KV cache that is held elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The session here.
    pub key: RouteKey,
    /// The session where it was computed.
    pub from: RouteKey,
    pub layers: Vec<LayerRange>,
    /// All positions below this one.
    pub n_positions: u32,
}

// === impl Stage ===

impl Stage {
    /// Takes a session over. What the same segment `kept` of it stays where it is; the rest has to be pulled.
    pub fn resume(&mut self, resume: Resume, kept: Option<Kept>, now: Instant) -> Vec<Effect> {
        let Resume { key, position, from, from_epoch, .. } = resume;
        if let Err(reason) = self.admit(key, &resume.options) {
            return vec![Effect::Fail { key, reason }];
        }
        let end_position = resume.options.end_position;
        if position == 0 || position >= end_position || from == key.generation || from_epoch >= key.epoch {
            return vec![Effect::Fail { key, reason: Reason::Resume { position, end_position, from, from_epoch } }];
        }
        let slot = match kept {
            Some(kept) => {
                self.slots.share(kept.slot);
                Some(kept.slot)
            }
            None => self.slots.take(),
        };
        let Some(slot) = slot else {
            return vec![self.busy(key)];
        };
        let layers = without(self.shape.layers, kept.map(|kept| kept.layers).unwrap_or_default());
        self.insert(key, slot, &resume.options, position, now);
        let mut effects = self.pass_on(Frame::Resume(resume));
        if layers.is_empty() {
            effects.push(self.resumed(key, position));
        } else {
            if let Some(session) = self.sessions.get_mut(&key.session) {
                session.lacks_kv = true;
            }
            let from = RouteKey { generation: from, epoch: from_epoch, ..key };
            effects.push(Effect::Pull(Pull { key, from, layers, n_positions: position }));
        }
        effects
    }

    /// All that was to be pulled is in the cache.
    pub fn kv_arrived(&mut self, key: RouteKey, now: Instant) -> Vec<Effect> {
        let Ok(session) = self.current(key, now) else { return Vec::new() };
        session.lacks_kv = false;
        let position = session.next_position;
        vec![self.resumed(key, position)]
    }

    /// It could not be pulled: the session cannot go on here.
    pub fn kv_failed(&mut self, key: RouteKey, cause: &str) -> Vec<Effect> {
        self.drop_session(key, Reason::KvLost { cause: cause.to_owned() })
    }

    /// Where the KV cache of a session that still comes is to go; `None` when it is not awaited.
    pub fn slot_to_fill(&self, key: RouteKey) -> Option<u32> {
        self.sessions.get(&key.session).filter(|session| session.key == key && session.lacks_kv).map(|it| it.slot)
    }

    /// What this stage has of a session's positions below `n_positions`.
    pub fn kept(&self, key: RouteKey, n_positions: u32) -> Option<Kept> {
        let session = self.sessions.get(&key.session).filter(|session| session.key == key)?;
        let has_all = !session.lacks_kv && n_positions <= session.next_position;
        has_all.then_some(Kept { slot: session.slot, layers: self.shape.layers })
    }

    /// The session begins anew elsewhere: what is late of an older epoch must not be computed.
    pub fn forget_before(&mut self, key: RouteKey) {
        if self.sessions.get(&key.session).is_some_and(|session| session.key.epoch < key.epoch) {
            self.forget(key.session);
        }
    }

    pub(super) fn pause(&mut self, key: RouteKey, now: Instant) -> Vec<Effect> {
        if let Err(reason) = self.current(key, now) {
            return vec![Effect::Fail { key, reason }];
        }
        if let Some(head) = self.role.head() {
            head.pause(key.session);
        }
        self.tell_pause(key)
    }

    /// Tells the gateway when a session that is to stop has nothing more on its way.
    pub(super) fn tell_pause(&mut self, key: RouteKey) -> Vec<Effect> {
        let session = self.sessions.get(&key.session).filter(|session| session.key == key);
        let (Some(session), Some(head)) = (session, self.role.head()) else { return Vec::new() };
        if head.has_stopped(session) {
            vec![Effect::Host(Frame::Paused { key, position: session.next_position })]
        } else {
            Vec::new()
        }
    }

    fn resumed(&self, key: RouteKey, position: u32) -> Effect {
        Effect::Host(Frame::Resumed { key, stage: self.shape.stage, position })
    }
}

/// The layers of `all` that are not in `kept`.
fn without(all: LayerRange, kept: LayerRange) -> Vec<LayerRange> {
    let (from, to) = (kept.from.clamp(all.from, all.to), kept.to.clamp(all.from, all.to));
    if from >= to {
        return vec![all];
    }
    [all.from..from, to..all.to].into_iter().map(LayerRange::from).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_pulled() {
        type Span = (u32, u32);
        let table: [(Span, Span, &[Span]); 8] = [
            ((4, 8), (0, 0), &[(4, 8)]),
            ((4, 8), (4, 8), &[]),
            ((4, 8), (0, 9), &[]),
            ((4, 8), (0, 6), &[(6, 8)]),
            ((4, 8), (6, 9), &[(4, 6)]),
            ((4, 8), (5, 7), &[(4, 5), (7, 8)]),
            ((4, 8), (0, 4), &[(4, 8)]),
            ((4, 8), (8, 12), &[(4, 8)]),
        ];
        for (all, kept, expected) in table {
            let range = |(from, to)| LayerRange { from, to };
            let expected: Vec<_> = expected.iter().copied().map(range).collect();
            assert_eq!(without(range(all), range(kept)), expected, "{all:?} without {kept:?}");
        }
    }
}
