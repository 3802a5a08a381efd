//! The relaxed ring: phones with a charge for their use and a price a layer, all layers to be taken once, one phone at
//! the head and one at the tail.

use super::ways::{Role, Ways};
use crate::caps::Caps;
use crate::costs::Costs;

/// Whether head and tail have been chosen, as bits.
const HEAD: usize = 1;
const TAIL: usize = 2;
const N_STATES: usize = 4;

pub(super) struct Knapsack<'a, 'b> {
    costs: &'a Costs<'b>,
    /// Of the usable phones, by position.
    caps: Vec<Caps>,
    /// For each phone, state and boundary: the role and the layers that led there.
    came: Vec<(Role, u16)>,
    /// The phone that is the whole ring in the last solution.
    whole: Option<usize>,
}

// === impl Knapsack ===

impl<'a, 'b> Knapsack<'a, 'b> {
    pub(super) fn new(costs: &'a Costs<'b>) -> Self {
        let caps = costs.usable.iter().map(|&phone| Caps::new(costs, phone)).collect();
        Self { costs, caps, came: Vec::new(), whole: None }
    }

    /// The least seconds of a relaxed ring with no stage over `limit` seconds, nor over `pace` for a whole chunk of a prompt; None when there is
    /// none.
    ///
    /// `best[state][layers]` over phones one after another; as time is linear in layers, the best count of a phone is
    /// a minimum over a sliding window, so a phone takes as many steps as there are layers.
    pub(super) fn solve(&mut self, ways: &Ways, limit: f64, pace: f64) -> Option<f64> {
        let n = self.costs.n_layers;
        let width = n + 1;
        let at_state = |state: usize, layers: usize| state * width + layers;
        let mut best = vec![f64::INFINITY; N_STATES * width];
        best[0] = 0.0;
        self.came.clear();
        self.came.resize(self.caps.len() * N_STATES * width, (Role::Unused, 0));
        let mut next = best.clone();
        let mut window = Window::default();
        let mut alone: Option<(f64, usize)> = None;
        for (at, &phone) in self.costs.usable.iter().enumerate() {
            let caps = self.caps[at].within(self.costs, phone, limit * (1.0 + 1e-9));
            let caps = caps.reading_within(self.costs, phone, pace * (1.0 + 1e-9));
            let (step, layer) = (self.costs.step_seconds(phone), self.costs.layer_seconds(phone));
            let (embedding, head) = (self.costs.embedding_seconds(phone), self.costs.head_seconds(phone));
            if caps.whole && self.costs.min_stages() <= 1 {
                let seconds = self.costs.stage_seconds(phone, 0, n);
                if alone.is_none_or(|(known, _)| seconds < known) {
                    alone = Some((seconds, at));
                }
            }
            let came = &mut self.came[at * N_STATES * width..(at + 1) * N_STATES * width];
            next.copy_from_slice(&best);
            let roles = [
                (Role::Inner, 0, caps.inner, step + ways.hop_in(at)),
                (Role::Head, HEAD, caps.head, step + embedding + ways.back_in(at)),
                (Role::Tail, TAIL, caps.tail, step + head + ways.hop_in(at)),
            ];
            for (role, bit, cap, charge) in roles {
                if cap == 0 || !charge.is_finite() {
                    continue;
                }
                for state in (0..N_STATES).filter(|state| state & bit == 0) {
                    let from = &best[at_state(state, 0)..at_state(state, 0) + width];
                    let to = at_state(state | bit, 0);
                    window.slide(from, cap, layer, |layers, count, seconds| {
                        if charge + seconds < next[to + layers] {
                            next[to + layers] = charge + seconds;
                            came[to + layers] = (role, count as u16);
                        }
                    });
                }
            }
            std::mem::swap(&mut best, &mut next);
        }
        let ring = best[at_state(HEAD | TAIL, n)];
        self.whole = alone.filter(|(seconds, _)| *seconds <= ring).map(|(_, at)| at);
        let least = alone.map_or(ring, |(seconds, _)| seconds.min(ring));
        least.is_finite().then_some(least)
    }

    /// What each phone does in the last solution.
    pub(super) fn roles(&self) -> Vec<Role> {
        self.parts().into_iter().map(|(role, _)| role).collect()
    }

    /// The longest time of a stage of the last solution for a whole chunk of a prompt.
    pub(super) fn pace(&self) -> f64 {
        let seconds = |(&phone, (role, count)): (&usize, (Role, usize))| match role {
            Role::Unused => 0.0,
            Role::Head | Role::Whole => self.costs.chunk_seconds(phone, 0, count),
            Role::Inner | Role::Tail => self.costs.chunk_seconds(phone, 1, 1 + count),
        };
        self.costs.usable.iter().zip(self.parts()).map(seconds).fold(0.0, f64::max)
    }

    /// What each phone does in the last solution, with how many layers.
    fn parts(&self) -> Vec<(Role, usize)> {
        let width = self.costs.n_layers + 1;
        let mut parts = vec![(Role::Unused, 0); self.caps.len()];
        if let Some(at) = self.whole {
            parts[at] = (Role::Whole, self.costs.n_layers);
            return parts;
        }
        let (mut state, mut layers) = (HEAD | TAIL, self.costs.n_layers);
        for at in (0..self.caps.len()).rev() {
            let (role, count) = self.came[(at * N_STATES + state) * width + layers];
            parts[at] = (role, usize::from(count));
            layers -= usize::from(count);
            state &= match role {
                Role::Head => !HEAD,
                Role::Tail => !TAIL,
                _ => !0,
            };
        }
        parts
    }
}

/// A sliding-window minimum.
#[derive(Default)]
struct Window {
    queue: std::collections::VecDeque<(usize, f64)>,
}

// === impl Window ===

impl Window {
    /// For each number of layers, tells the best count in 1..=`cap` to add to `from`, and the seconds of both.
    fn slide(&mut self, from: &[f64], cap: usize, seconds_a_layer: f64, mut tell: impl FnMut(usize, usize, f64)) {
        self.queue.clear();
        for layers in 1..from.len() {
            let entering = layers - 1;
            let value = from[entering] - entering as f64 * seconds_a_layer;
            if value.is_finite() {
                while self.queue.back().is_some_and(|&(_, known)| known > value) {
                    self.queue.pop_back();
                }
                self.queue.push_back((entering, value));
            }
            while self.queue.front().is_some_and(|&(at, _)| at + cap < layers) {
                self.queue.pop_front();
            }
            if let Some(&(at, _)) = self.queue.front() {
                tell(layers, layers - at, from[at] + (layers - at) as f64 * seconds_a_layer);
            }
        }
    }
}
