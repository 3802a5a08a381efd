//! Admission: who waits, who runs where, which rings are not to be trusted just now. Pure: the time comes in.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use polyphony_protocol::{PlanGeneration, RingId};

use crate::routes::{DeploymentRoute, RingRoute, RouteTable};

/// One plan of one ring.
pub(crate) type Place = (RingId, PlanGeneration);

/// The books of all deployments.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    queues: HashMap<String, Queue>,
    running: HashMap<Place, usize>,
    /// Rings that failed a session, and until when they are passed over.
    suspects: HashMap<Place, Instant>,
    next_ticket: u64,
}

/// Sessions of one deployment that wait for a place, first come, first served.
#[derive(Debug, Default)]
struct Queue {
    /// Interrupted sessions: they go before new ones, for their clients have seen a part of the answer.
    replays: VecDeque<Ticket>,
    new: VecDeque<Ticket>,
}

/// A place in the queue of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// Whether a session has been on a ring before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    New,
    Replay,
}

// === impl Admission ===

impl Admission {
    /// Queues up. The caller has to [`leave`](Self::leave), placed or not.
    pub(crate) fn enter(&mut self, deployment: &str, kind: Kind) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let queue = self.queues.entry(deployment.to_owned()).or_default();
        match kind {
            Kind::New => queue.new.push_back(ticket),
            Kind::Replay => queue.replays.push_back(ticket),
        }
        ticket
    }

    /// Gives up the place in the queue.
    pub(crate) fn leave(&mut self, deployment: &str, ticket: Ticket) {
        let Some(queue) = self.queues.get_mut(deployment) else {
            return;
        };
        queue.replays.retain(|waiting| *waiting != ticket);
        queue.new.retain(|waiting| *waiting != ticket);
        if queue.replays.is_empty() && queue.new.is_empty() {
            self.queues.remove(deployment);
        }
    }

    /// How many new sessions wait before this one.
    pub(crate) fn n_before(&self, deployment: &str, ticket: Ticket) -> usize {
        let new = self.queues.get(deployment).map(|queue| &queue.new);
        new.and_then(|new| new.iter().position(|waiting| *waiting == ticket)).unwrap_or(0)
    }

    /// How many sessions wait, new or interrupted.
    pub(crate) fn n_waiting(&self, deployment: &str) -> usize {
        self.queues.get(deployment).map_or(0, |queue| queue.replays.len() + queue.new.len())
    }

    /// The ring with the fewest sessions, if it is this ticket's turn and one has room. The session then counts as
    /// running there until [`release`](Self::release).
    pub(crate) fn try_place(
        &mut self,
        deployment: &str,
        ticket: Ticket,
        route: &DeploymentRoute,
        now: Instant,
    ) -> Option<RingRoute> {
        let queue = self.queues.get(deployment)?;
        if queue.replays.front().or(queue.new.front()) != Some(&ticket) {
            return None;
        }
        // Who is still in the generation before will move here, and finds room.
        let n_running = |ring: &RingRoute| {
            let n_to_come = ring.follows.map_or(0, |before| self.sessions_in((ring.ring, before)));
            self.sessions_in((ring.ring, ring.generation)) + n_to_come
        };
        let is_open = |ring: &&RingRoute| {
            let is_suspect = self.suspects.get(&(ring.ring, ring.generation)).is_some_and(|until| now < *until);
            !ring.phones.is_empty() && !is_suspect && n_running(ring) < route.max_sessions as usize
        };
        let ring = route.rings.iter().filter(is_open).min_by_key(|ring| n_running(ring))?.clone();
        self.claim((ring.ring, ring.generation));
        self.leave(deployment, ticket);
        Some(ring)
    }

    /// A session counts as running there until [`release`](Self::release).
    pub(crate) fn claim(&mut self, place: Place) {
        *self.running.entry(place).or_default() += 1;
    }

    /// A session has left a ring.
    pub(crate) fn release(&mut self, place: Place) {
        if let Some(n_running) = self.running.get_mut(&place) {
            *n_running = n_running.saturating_sub(1);
            if *n_running == 0 {
                self.running.remove(&place);
            }
        }
    }

    pub(crate) fn sessions_in(&self, place: Place) -> usize {
        self.running.get(&place).copied().unwrap_or(0)
    }

    /// Passes a ring over for a while.
    pub(crate) fn suspect(&mut self, place: Place, until: Instant) {
        self.suspects.insert(place, until);
    }

    /// Forgets suspicions that are over, and those against rings that the controller has taken off the table: when such
    /// a ring comes back it is ready anew.
    pub(crate) fn review(&mut self, table: &RouteTable, now: Instant) {
        let is_listed = |place: &Place| {
            let mut rings = table.deployments.values().flat_map(|route| &route.rings);
            rings.any(|ring| (ring.ring, ring.generation) == *place)
        };
        self.suspects.retain(|place, until| now < *until && is_listed(place));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ring(number: u64) -> RingRoute {
        RingRoute {
            ring: RingId(number),
            replica: 0,
            generation: PlanGeneration(1),
            phones: vec!["a".into()],
            numerics_class: String::new(),
            follows: None,
            moves_sessions: true,
        }
    }

    fn route(rings: &[u64], max_sessions: u32) -> DeploymentRoute {
        DeploymentRoute {
            max_sessions,
            rings: rings.iter().map(|&number| ring(number)).collect(),
            ..Default::default()
        }
    }

    fn place(number: u64) -> Place {
        (RingId(number), PlanGeneration(1))
    }

    #[test]
    fn sessions_spread_over_the_rings_until_all_are_full() {
        let (mut admission, route, now) = (Admission::default(), route(&[1, 2], 2), Instant::now());
        let mut place = || {
            let ticket = admission.enter("m", Kind::New);
            admission.try_place("m", ticket, &route, now).map(|ring| ring.ring.0)
        };
        let placed: Vec<_> = (0..5).map(|_| place()).collect();
        assert_eq!(placed, [Some(1), Some(2), Some(1), Some(2), None]);
    }

    #[test]
    fn sessions_that_will_move_to_a_ring_have_their_places_there() {
        let (mut admission, mut route, now) = (Admission::default(), route(&[1], 2), Instant::now());
        let before = (RingId(1), PlanGeneration(0));
        route.rings[0].follows = Some(before.1);
        admission.claim(before);
        let is_placed = |admission: &mut Admission| {
            let ticket = admission.enter("m", Kind::New);
            admission.try_place("m", ticket, &route, now).is_some()
        };
        assert_eq!([is_placed(&mut admission), is_placed(&mut admission)], [true, false]);
        admission.claim(place(1));
        admission.release(before);
        assert!(!is_placed(&mut admission), "it has moved");
    }

    #[test]
    fn the_first_in_the_queue_goes_first_and_replays_before_all() {
        let (mut admission, route, now) = (Admission::default(), route(&[1], 1), Instant::now());
        let [first, second] = [(); 2].map(|()| admission.enter("m", Kind::New));
        let replay = admission.enter("m", Kind::Replay);
        assert_eq!((admission.n_before("m", second), admission.n_waiting("m")), (1, 3));
        for (too_early, next) in [(first, replay), (second, first)] {
            assert_eq!(admission.try_place("m", too_early, &route, now), None);
            assert!(admission.try_place("m", next, &route, now).is_some());
            admission.release(place(1));
        }
        admission.leave("m", second);
        assert!(admission.queues.is_empty() && admission.running.is_empty());
    }

    #[test]
    fn a_suspect_ring_is_passed_over_until_time_or_the_controller_clears_it() {
        let (mut admission, route, now) = (Admission::default(), route(&[1], 9), Instant::now());
        let later = now + Duration::from_secs(1);
        let try_at = |admission: &mut Admission, now| {
            let ticket = admission.enter("m", Kind::New);
            let is_placed = admission.try_place("m", ticket, &route, now).is_some();
            admission.leave("m", ticket);
            is_placed
        };
        admission.suspect(place(1), later);
        assert!(!try_at(&mut admission, now));
        assert!(try_at(&mut admission, later));
        admission.review(&RouteTable::default(), now);
        assert!(try_at(&mut admission, now));
    }
}
