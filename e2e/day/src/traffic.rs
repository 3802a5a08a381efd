//! Traffic: who asks, on which ring their answer goes on, and what that takes of each phone. Simulated, and pure.
//!
//! Sessions of a ring go around it one behind another: together they are as fast as its slowest stage, and none is faster than once around.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use polyphony_protocol::{PlanGeneration, RingId};

use crate::dice::Dice;
use crate::parameters::{Demand, Parameters};

/// A generation of a replica.
pub type RingKey = (RingId, PlanGeneration);

/// A ring that answers now.
#[derive(Clone, Debug)]
pub struct Ring {
    pub key: RingKey,
    pub stages: Vec<Stage>,
    pub max_sessions: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its place among all phones.
    pub phone: usize,
    /// Of a token, without rests and with them.
    pub work_seconds: f64,
    pub seconds: f64,
}

pub struct Traffic {
    demand: Demand,
    hop_seconds: f64,
    prefill_part: f64,
    /// To take a token's keys and values of all layers elsewhere.
    handover_seconds_per_token: f64,
    dice: Dice,
    waiting: VecDeque<Session>,
    running: Vec<(Place, Session)>,
    pub tally: Tally,
}

/// What came of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub asked: u64,
    pub answered: u64,
    /// Asked while no ring answered.
    pub asked_in_vain: u64,
    /// Whose ring broke, and who were read anew.
    pub replayed: u64,
    pub handed_over: u64,
    pub tokens: f64,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    prompt_left: f64,
    answer_left: f64,
    /// Prompt and answer that are read.
    read: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    On(RingKey),
    Moving { from: RingKey, to: RingKey, until: f64 },
}

// === impl Traffic ===

impl Traffic {
    pub fn new(of: &Parameters, kv_bytes_per_token: u64, seed: u64) -> Self {
        let bytes_per_second = of.network.megabits_per_second * 1e6 / 8.0;
        Self {
            demand: of.demand.clone(),
            hop_seconds: of.network.hop_seconds,
            prefill_part: of.computing.prefill_part,
            handover_seconds_per_token: kv_bytes_per_token as f64 / bytes_per_second,
            dice: Dice::of(seed, "requests"),
            waiting: VecDeque::new(),
            running: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Seconds go by. `rings` answer; those in `alive` do not any more or not yet, but have what they computed. Gives what each of so many phones
    /// computed, in seconds.
    pub fn pass(
        &mut self,
        at: f64,
        seconds: f64,
        rings: &[Ring],
        alive: &BTreeSet<RingKey>,
        n_phones: usize,
    ) -> Vec<f64> {
        self.ask(at, seconds, !rings.is_empty());
        self.follow(at, rings, alive);
        self.admit(rings);
        let mut computed = vec![0.0; n_phones];
        for ring in rings {
            let tokens = self.go_around(ring, seconds);
            for stage in &ring.stages {
                computed[stage.phone] += tokens * stage.work_seconds;
            }
        }
        computed
    }

    fn ask(&mut self, at: f64, seconds: f64, is_answered: bool) {
        let hour = at / 3600.0;
        let mean = self.demand.requests_an_hour[hour as usize % 24] / 3600.0 * seconds;
        let comes_now = |batch_hour: f64| (at..at + seconds).contains(&(batch_hour * 3600.0));
        let batches = self.demand.batches.iter().filter(|batch| comes_now(batch.hour));
        let of_batches: u32 = batches.map(|batch| batch.requests).sum();
        let n = of_batches + self.dice.poisson(mean);
        for _ in 0..n {
            let mut around = |mean: f64| (mean * self.dice.between(0.5, 1.5)).round();
            let (prompt_left, answer_left) = (around(self.demand.prompt_tokens), around(self.demand.answer_tokens));
            self.waiting.push_back(Session { prompt_left, answer_left, read: 0.0 });
        }
        self.tally.asked += u64::from(n);
        self.tally.asked_in_vain += if is_answered { 0 } else { u64::from(n) };
    }

    /// Sessions go where their replica does; whose ring is broken begins anew.
    fn follow(&mut self, at: f64, rings: &[Ring], alive: &BTreeSet<RingKey>) {
        let answers = |key: &RingKey| rings.iter().any(|ring| ring.key == *key);
        for (mut place, mut session) in std::mem::take(&mut self.running) {
            if let Place::Moving { from, to, until } = place {
                if at >= until {
                    place = Place::On(to);
                } else if !answers(&to) || !alive.contains(&from) {
                    place = Place::On(from);
                }
            }
            if let Place::On(key) = place
                && !answers(&key)
            {
                let successor = rings.iter().find(|ring| ring.key.0 == key.0);
                match successor.filter(|_| alive.contains(&key)) {
                    Some(ring) => {
                        let until = at + session.read * self.handover_seconds_per_token;
                        place = Place::Moving { from: key, to: ring.key, until };
                        self.tally.handed_over += 1;
                    }
                    None => {
                        self.tally.replayed += 1;
                        session.prompt_left += session.read;
                        session.read = 0.0;
                        self.waiting.push_front(session);
                        continue;
                    }
                }
            }
            self.running.push((place, session));
        }
    }

    fn admit(&mut self, rings: &[Ring]) {
        while !self.waiting.is_empty() {
            let n_sessions = |ring: &Ring| {
                let is_its = |(place, _): &&(Place, Session)| match place {
                    Place::On(key) | Place::Moving { to: key, .. } => *key == ring.key,
                };
                self.running.iter().filter(is_its).count()
            };
            let free = rings.iter().map(|ring| (n_sessions(ring), ring)).filter(|(n, ring)| *n < ring.max_sessions);
            let Some((_, ring)) = free.min_by_key(|(n, _)| *n) else { return };
            let place = Place::On(ring.key);
            self.running.extend(self.waiting.pop_front().map(|session| (place, session)));
        }
    }

    /// Gives the tokens that went around, each token of a prompt as the part of one that it costs.
    fn go_around(&mut self, ring: &Ring, seconds: f64) -> f64 {
        let own = |place: &Place| *place == Place::On(ring.key);
        let n = self.running.iter().filter(|(place, _)| own(place)).count();
        if n == 0 {
            return 0.0;
        }
        let around: f64 = ring.stages.iter().map(|stage| stage.seconds + self.hop_seconds).sum();
        let slowest = ring.stages.iter().map(|stage| stage.seconds).fold(0.0, f64::max);
        let each = seconds / around.max(slowest * n as f64);
        let mut gone = 0.0;
        for (_, session) in self.running.iter_mut().filter(|(place, _)| own(place)) {
            let of_prompt = (each / self.prefill_part).min(session.prompt_left);
            let left = each - of_prompt * self.prefill_part;
            let of_answer = left.min(session.answer_left);
            session.prompt_left -= of_prompt;
            session.answer_left -= of_answer;
            session.read += of_prompt + of_answer;
            self.tally.tokens += of_answer;
            gone += of_prompt * self.prefill_part + of_answer;
        }
        let before = self.running.len();
        self.running.retain(|(_, session)| session.answer_left > 0.0);
        self.tally.answered += (before - self.running.len()) as u64;
        gone
    }

    /// Sessions that are still to leave a generation.
    pub fn leaving(&self) -> BTreeMap<RingKey, usize> {
        let mut found = BTreeMap::new();
        for (place, _) in &self.running {
            let (Place::Moving { from: key, .. } | Place::On(key)) = place;
            *found.entry(*key).or_default() += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: RingKey = (RingId(1), PlanGeneration(1));
    const NEXT: RingKey = (RingId(1), PlanGeneration(2));

    fn traffic(requests: u32) -> Traffic {
        let mut of = Parameters::of_the_file().unwrap();
        of.demand.requests_an_hour = [0.0; 24];
        of.demand.batches.truncate(1);
        of.demand.batches[0].hour = 0.0;
        of.demand.batches[0].requests = requests;
        Traffic::new(&of, 131_072, 1)
    }

    fn ring(key: RingKey) -> Ring {
        let stage = |phone, seconds| Stage { phone, work_seconds: seconds / 2.0, seconds };
        Ring { key, stages: vec![stage(0, 0.05), stage(1, 0.1)], max_sessions: 4 }
    }

    #[test]
    fn a_ring_is_as_fast_as_its_slowest_stage_and_no_faster_than_once_around() {
        let speed = |n| {
            let mut traffic = traffic(n);
            let computed = traffic.pass(0.0, 5.0, &[ring(ONE)], &BTreeSet::new(), 3);
            // The phone of the slow stage works for half of the time that its stage takes.
            let units = computed[1] / 0.05;
            assert!((computed[0] - units * 0.025).abs() < 1e-9);
            (units / 5.0, computed[2])
        };
        let once_around = 1.0 / (0.05 + 0.1 + 2.0 * 0.006);
        assert!((speed(1).0 - once_around).abs() < 1e-9);
        assert!((speed(4).0 - 10.0).abs() < 1e-9, "the slowest stage is busy");
        assert!((speed(40).0 - 10.0).abs() < 1e-9, "more wait");
        assert_eq!(speed(4).1, 0.0);
    }

    #[test]
    fn sessions_follow_their_replica_and_begin_anew_where_nothing_is_left() {
        let old = BTreeSet::from([ONE]);
        let mut traffic = traffic(2);
        traffic.pass(0.0, 20.0, &[ring(ONE)], &BTreeSet::new(), 2);
        assert_eq!(traffic.leaving(), BTreeMap::from([(ONE, 2)]));
        traffic.pass(20.0, 1.0, &[ring(NEXT)], &old, 2);
        assert_eq!((traffic.tally.handed_over, traffic.tally.replayed), (2, 0));
        assert_eq!(traffic.leaving(), BTreeMap::from([(ONE, 2)]), "until their caches are over");
        for second in 21..900 {
            traffic.pass(f64::from(second), 1.0, &[ring(NEXT)], &old, 2);
        }
        assert_eq!((traffic.tally.answered, traffic.tally.replayed), (2, 0));
        let mut broken = self::traffic(2);
        broken.pass(0.0, 20.0, &[ring(ONE)], &BTreeSet::new(), 2);
        broken.pass(20.0, 5.0, &[], &BTreeSet::new(), 2);
        assert_eq!((broken.tally.replayed, broken.leaving().len()), (2, 0));
    }
}
