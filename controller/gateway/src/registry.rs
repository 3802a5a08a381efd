//! Registry: which session a frame from a phone belongs to. Lets through only what the present epoch may say.

use std::collections::HashMap;

use polyphony_protocol::frame::{Failed, Token};
use polyphony_protocol::{RouteKey, SessionId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::failure::Failure;

/// What reaches a session.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Token { token: Token, at: Instant },
    Failed { key: RouteKey, failure: Failure },
}

/// The sessions that run.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: HashMap<SessionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    events: mpsc::Sender<Event>,
    /// Where it runs; `None` between two placements, when nothing is heard.
    place: Option<Placement>,
}

#[derive(Debug)]
struct Placement {
    key: RouteKey,
    /// By stage.
    phones: Vec<String>,
    /// What is below has been heard already, and must not fill the queue.
    next_position: u32,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Yes,
    /// Of an unknown session, an older epoch, or a phone that has no say in it.
    No,
}

/// The last place in a session's queue is kept for a failure.
const RESERVED: usize = 1;

// === impl Registry ===

impl Registry {
    pub(crate) fn insert(&mut self, session: SessionId, events: mpsc::Sender<Event>) {
        self.entries.insert(session, Entry { events, place: None });
    }

    pub(crate) fn remove(&mut self, session: SessionId) {
        self.entries.remove(&session);
    }

    /// From now on frames with this key are heard; `phones` are by stage, the next token takes `next_position`.
    pub(crate) fn place(&mut self, key: RouteKey, phones: Vec<String>, next_position: u32) {
        if let Some(entry) = self.entries.get_mut(&key.session) {
            entry.place = Some(Placement { key, phones, next_position });
        }
    }

    /// From now on nothing is heard of the session.
    pub(crate) fn retire(&mut self, session: SessionId) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.place = None;
        }
    }

    /// A token from `phone`: only the tail may send one, and each once.
    pub(crate) fn token(&mut self, phone: &str, token: Token, at: Instant) -> Heard {
        let Some(entry) = self.entries.get_mut(&token.key.session) else {
            return Heard::No;
        };
        let Some(place) = entry.place.as_mut().filter(|place| place.key == token.key) else {
            return Heard::No;
        };
        if place.phones.last().is_none_or(|tail| tail != phone) || token.position < place.next_position {
            return Heard::No;
        }
        place.next_position = token.position.saturating_add(1);
        if entry.events.capacity() > RESERVED {
            return match entry.events.try_send(Event::Token { token, at }) {
                Ok(()) => Heard::Yes,
                Err(_) => Heard::No,
            };
        }
        // More tokens than the credit allows: the queue was made for that many.
        entry.fail(Failure::Disagreement(format!("{phone} ran past its credit")));
        Heard::No
    }

    /// A failure that a phone of the ring reports.
    pub(crate) fn failed(&mut self, phone: &str, failed: Failed) -> Heard {
        let Some(entry) = self.entries.get_mut(&failed.key.session) else {
            return Heard::No;
        };
        if entry.place.as_ref().is_none_or(|place| place.key != failed.key || !place.runs_over(phone)) {
            return Heard::No;
        }
        entry.fail(Failure::Stage { phone: phone.to_owned(), code: failed.code, message: failed.message });
        Heard::Yes
    }

    /// A phone's link ended: every session that runs over it has failed.
    pub(crate) fn phone_gone(&mut self, phone: &str) {
        for entry in self.entries.values_mut() {
            if entry.place.as_ref().is_some_and(|place| place.runs_over(phone)) {
                entry.fail(Failure::PhoneGone { phone: phone.to_owned() });
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Tells the session; what else comes from this placement is not heard, so one reserved place is enough.
    fn fail(&mut self, failure: Failure) {
        if let Some(Placement { key, .. }) = self.place.take() {
            // A closed queue means that the session is over.
            let _ = self.events.try_send(Event::Failed { key, failure });
        }
    }
}

// === impl Placement ===

impl Placement {
    fn runs_over(&self, phone: &str) -> bool {
        self.phones.iter().any(|stage| stage == phone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::frame::FailureCode;
    use polyphony_protocol::{Epoch, PlanGeneration, RingId};

    use super::*;

    fn key(epoch: u32) -> RouteKey {
        RouteKey { ring: RingId(1), generation: PlanGeneration(1), session: SessionId(5), epoch: Epoch(epoch) }
    }

    fn token(epoch: u32, position: u32) -> Token {
        Token { key: key(epoch), position, token: 0, finish: None, logprob: 0.0, top: vec![] }
    }

    fn placed(capacity: usize) -> (Registry, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let mut registry = Registry::default();
        registry.insert(SessionId(5), sender);
        registry.place(key(2), vec!["head".into(), "tail".into()], 3);
        (registry, receiver)
    }

    #[test]
    fn only_the_tail_is_heard_and_only_in_the_present_epoch_and_once() {
        let (mut registry, _events) = placed(9);
        let now = Instant::now();
        assert_eq!(registry.token("tail", token(2, 3), now), Heard::Yes);
        assert_eq!(registry.token("tail", token(2, 3), now), Heard::No);
        assert_eq!(registry.token("tail", token(1, 4), now), Heard::No);
        assert_eq!(registry.token("head", token(2, 4), now), Heard::No);
        registry.retire(SessionId(5));
        assert_eq!(registry.token("tail", token(2, 4), now), Heard::No);
        registry.remove(SessionId(5));
        assert_eq!(registry.token("tail", token(2, 4), now), Heard::No);
    }

    #[test]
    fn the_first_failure_of_a_placement_is_told_once_even_when_the_queue_is_full() {
        let (mut registry, mut events) = placed(2);
        let now = Instant::now();
        assert_eq!(registry.token("tail", token(2, 3), now), Heard::Yes);
        assert_eq!(registry.token("tail", token(2, 4), now), Heard::No, "past the credit");
        let failed = Failed { key: key(2), code: FailureCode::Compute, message: String::new() };
        assert_eq!(registry.failed("head", failed), Heard::No);
        registry.phone_gone("head");
        assert!(matches!(events.try_recv().unwrap(), Event::Token { .. }));
        assert!(matches!(events.try_recv().unwrap(), Event::Failed { failure: Failure::Disagreement(_), .. }));
        assert!(events.try_recv().is_err());
    }
}
