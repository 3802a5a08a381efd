//! Ends: why and when sessions are over on a stage, and who is told. Pure.

use std::time::Instant;

use polyphony_protocol::{Frame, RouteKey, SessionId};

use super::role::{Alone, Role};
use super::{Effect, Reason, Session, Stage};

// === impl Stage ===

impl Stage {
    /// A step of these sessions failed on this phone: they cannot go on here.
    pub fn fail(&mut self, keys: &[RouteKey], error: &str) -> Vec<Effect> {
        let reason = Reason::Step { error: error.to_owned() };
        keys.iter().flat_map(|key| self.drop_session(*key, reason.clone())).collect()
    }

    /// A neighbour's link ended: no session can go on.
    pub fn peer_lost(&mut self, phone: &str, cause: &str) -> Vec<Effect> {
        self.drop_all(|_| Reason::PeerLost { phone: phone.to_owned(), cause: cause.to_owned() })
    }

    /// The link to the gateway ended, and with it every session: it replays them, or it is gone itself. What comes behind is told.
    pub fn host_lost(&mut self) -> Vec<Effect> {
        let keys = self.forget_all();
        keys.into_iter().flat_map(|key| self.pass_on(Frame::Close { key })).collect()
    }

    /// The stage ends: its slots are free for others, and the gateway hears it of each session.
    pub fn release(&mut self) -> Vec<Effect> {
        let generation = self.shape.generation;
        self.drop_all(|_| Reason::Released { generation })
    }

    /// When [`Stage::handle_timeout`] has something to do, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.values().map(|session| self.deadline_of(session)).min()
    }

    /// Drops the sessions whose deadline is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        let is_late = |session: &&Session| self.deadline_of(session) <= now;
        let late: Vec<_> = self.sessions.values().filter(is_late).map(|session| session.key).collect();
        late.into_iter().flat_map(|key| self.drop_late(key, now)).collect()
    }

    fn deadline_of(&self, session: &Session) -> Instant {
        let idle = session.last_seen + self.shape.idle_deadline;
        let answer = self.awaits_since(session).map(|since| since + self.shape.step_deadline);
        answer.map_or(idle, |answer| answer.min(idle))
    }

    fn awaits_since(&self, session: &Session) -> Option<Instant> {
        match &self.role {
            Role::Head(head) | Role::Alone(Alone { head, .. }) => head.awaits_since(session.key.session),
            Role::Relay | Role::Middle(_) | Role::Tail(_) => None,
        }
    }

    fn drop_late(&mut self, key: RouteKey, now: Instant) -> Vec<Effect> {
        let Some(session) = self.sessions.get(&key.session) else { return Vec::new() };
        let deadline = self.shape.step_deadline;
        let is_slow = self.awaits_since(session).is_some_and(|since| since + deadline <= now);
        let reason = match is_slow {
            true => Reason::SlowRing { next_phone: self.shape.next_phone.clone(), deadline },
            false => Reason::Idle { deadline: self.shape.idle_deadline },
        };
        self.drop_session(key, reason)
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.slots.give_back(session.slot);
            self.role.forget(session.key);
        }
    }

    fn forget_all(&mut self) -> Vec<RouteKey> {
        let keys: Vec<_> = self.sessions.values().map(|session| session.key).collect();
        keys.iter().for_each(|key| self.forget(key.session));
        keys
    }

    /// Ends a session here and behind this stage, and tells the gateway why.
    pub(super) fn drop_session(&mut self, key: RouteKey, reason: Reason) -> Vec<Effect> {
        if !self.is_current(key) {
            return Vec::new();
        }
        self.forget(key.session);
        let mut effects = vec![Effect::Fail { key, reason }];
        effects.extend(self.pass_on(Frame::Close { key }));
        effects
    }

    fn drop_all(&mut self, why: impl Fn(RouteKey) -> Reason) -> Vec<Effect> {
        let keys: Vec<_> = self.sessions.values().map(|session| session.key).collect();
        keys.into_iter().flat_map(|key| self.drop_session(key, why(key))).collect()
    }
}
