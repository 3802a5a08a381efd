//! Registry: which session a frame from a phone belongs to. Lets through only what the present epoch may say.

use std::collections::{BTreeSet, HashMap};

use polyphony_protocol::frame::{Failed, Token};
use polyphony_protocol::{RouteKey, SessionId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::run::Event;

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
    is_paused: bool,
    resuming: Option<Resuming>,
}

/// A session that goes on on this placement once all stages say so.
#[derive(Debug)]
struct Resuming {
    position: u32,
    /// Stages that have not said so yet.
    awaited: BTreeSet<usize>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Yes,
    /// Of an unknown session, an older epoch, or a phone that has no say in it.
    No,
}

/// The last places in a session's queue are kept for what comes once a placement: a failure, and a step of a move.
pub(crate) const RESERVED: usize = 2;

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
            entry.place = Some(Placement { key, phones, next_position, is_paused: false, resuming: None });
        }
    }

    /// The same for a session that moves: the next token takes `position + 1`, and each of `phones` has to say first that it
    /// has the KV cache below `position`.
    pub(crate) fn place_moving(&mut self, key: RouteKey, phones: Vec<String>, position: u32) {
        if let Some(entry) = self.entries.get_mut(&key.session) {
            let resuming = Some(Resuming { position, awaited: (0..phones.len()).collect() });
            let next_position = position.saturating_add(1);
            entry.place = Some(Placement { key, phones, next_position, is_paused: false, resuming });
        }
    }

    /// The head says that it has stopped.
    pub(crate) fn paused(&mut self, phone: &str, key: RouteKey, position: u32) -> Heard {
        let Some((entry, place)) = self.find(key) else {
            return Heard::No;
        };
        if place.is_paused || place.phones.first().is_none_or(|head| head != phone) {
            return Heard::No;
        }
        place.is_paused = true;
        tell(entry, Event::Paused { key, position })
    }

    /// A stage says that it can go on.
    pub(crate) fn resumed(&mut self, phone: &str, key: RouteKey, stage: u32, position: u32) -> Heard {
        let Some((entry, place)) = self.find(key) else {
            return Heard::No;
        };
        let stage = stage as usize;
        let Some(resuming) = place.resuming.as_mut().filter(|resuming| resuming.position == position) else {
            return Heard::No;
        };
        if place.phones.get(stage).is_none_or(|known| known != phone) || !resuming.awaited.remove(&stage) {
            return Heard::No;
        }
        match resuming.awaited.is_empty() {
            true => tell(entry, Event::Resumed { key }),
            false => Heard::Yes,
        }
    }

    /// The queue of a session and its placement, if that is the present one.
    fn find(&mut self, key: RouteKey) -> Option<(&mpsc::Sender<Event>, &mut Placement)> {
        let Entry { events, place } = self.entries.get_mut(&key.session)?;
        Some((events, place.as_mut().filter(|place| place.key == key)?))
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

/// Puts an event into a place that is kept for it.
fn tell(events: &mpsc::Sender<Event>, event: Event) -> Heard {
    match events.try_send(event) {
        Ok(()) => Heard::Yes,
        Err(_) => Heard::No,
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
        let (mut registry, mut events) = placed(1 + RESERVED);
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

    #[test]
    fn a_pause_is_heard_of_the_head_and_once() {
        let (mut registry, mut events) = placed(9);
        assert_eq!(registry.paused("tail", key(2), 2), Heard::No);
        assert_eq!(registry.paused("head", key(1), 2), Heard::No, "of an older epoch");
        assert_eq!(registry.paused("head", key(2), 2), Heard::Yes);
        assert_eq!(registry.paused("head", key(2), 2), Heard::No);
        assert!(matches!(events.try_recv().unwrap(), Event::Paused { position: 2, .. }));
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn a_session_goes_on_when_every_stage_has_said_for_itself_that_it_can() {
        let (mut registry, mut events) = placed(9);
        assert_eq!(registry.resumed("head", key(2), 0, 7), Heard::No, "it does not move");
        registry.place_moving(key(3), vec!["a".into(), "b".into()], 7);
        let table = [
            ("a", 2, 0, 7, Heard::No),
            ("a", 3, 1, 7, Heard::No),
            ("a", 3, 0, 6, Heard::No),
            ("a", 3, 2, 7, Heard::No),
            ("a", 3, 0, 7, Heard::Yes),
            ("a", 3, 0, 7, Heard::No),
            ("b", 3, 1, 7, Heard::Yes),
        ];
        for (phone, epoch, stage, position, expected) in table {
            assert!(events.try_recv().is_err());
            assert_eq!(registry.resumed(phone, key(epoch), stage, position), expected, "{phone} {epoch} {stage}");
        }
        assert!(matches!(events.try_recv().unwrap(), Event::Resumed { .. }));
    }
}
