//! Standby: layers of its neighbours that a stage keeps in memory that the plan leaves free, so that a boundary can
//! move over them without moving weights.
//!
//! Each stage by itself: the pair (layers of the left neighbour, layers of the right one) of the highest worth that
//! fits its budget. The m-th layer at a boundary is worth s_giver ÷ (s_giver + s_taker) ÷ m, with s the seconds of a
//! layer: it is what a shift spares, the first layer more than the next, so that both sides grow alike unless one
//! neighbour is slow, or the phone itself is. As no stage's choice touches another's memory, and each tries every
//! pair, the sum over the ring is the greatest there is.
//!
//! A giver keeps a layer: a boundary never moves over a whole stage. Embedding and output matrix never stand by; so the first layer and
//! the last never do, and a phone that is not trusted with the ends is never asked to keep one.

use crate::costs::{Costs, Ring};
use crate::plan::Plan;
use crate::predict;

/// `plan` with what stands by, if the demand asks for that.
pub(crate) fn keep_ready(costs: &Costs<'_>, plan: Plan) -> Plan {
    let ring = predict::ring_of(costs, &plan).filter(|_| costs.problem.demand.overlap);
    match ring {
        Some(ring) => predict::with_standby(costs, plan, &spans(costs, &ring)),
        None => plan,
    }
}

/// What each stage keeps, its own layers included.
fn spans(costs: &Costs<'_>, ring: &Ring) -> Vec<(usize, usize)> {
    let stages: Vec<(usize, usize, usize)> = ring.stages().collect();
    let span = |at: usize| {
        let (phone, from, to) = stages[at];
        let left = at.checked_sub(1).map(|left| stages[left]);
        let right = stages.get(at + 1).copied();
        let spare = |stage: Option<(usize, usize, usize)>| stage.map_or(0, |(_, from, to)| to - from - 1);
        let (most_left, most_right) = (spare(left), spare(right));
        let worth = |giver: Option<(usize, usize, usize)>, n_layers: usize| {
            let seconds = |phone: usize| costs.problem.phones[phone].seconds_per_layer;
            let share = giver.map_or(0.0, |(giver, ..)| seconds(giver) / (seconds(giver) + seconds(phone)));
            share * (1..=n_layers).map(|m| 1.0 / m as f64).sum::<f64>()
        };
        let fits = |span: (usize, usize)| costs.span_fits(phone, (from, to), span);
        let mut best = (0.0, (from, to));
        for n_left in 0..=most_left {
            // The more on the right the better: the most that still fits beside what is on the left.
            let on_right = (0..=most_right).take_while(|n_right| fits((from - n_left, to + n_right))).last();
            let Some(n_right) = on_right else { break };
            let worth = worth(left, n_left) + worth(right, n_right);
            if worth > best.0 {
                best = (worth, (from - n_left, to + n_right));
            }
        }
        best.1
    };
    (0..stages.len()).map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::spans;
    use crate::costs::{Costs, Ring};
    use crate::problem::{Demand, Link, Links, ModelCosts, Objective, PhoneCosts, Problem, Speed};

    const MIB: u64 = 1 << 20;

    /// Twelve layers of 1 MiB on three phones, four on each; the middle one has room for four more.
    fn between_neighbours_of(seconds_per_layer: [f64; 3]) -> (usize, usize) {
        let model = ModelCosts { layer_bytes: vec![MIB; 12], layer_multiply_adds: 1, ..ModelCosts::default() };
        let speed = Speed {
            multiply_adds_per_second: 1e9,
            batch_multiply_adds_per_second: None,
            prefill_multiply_adds_per_second: None,
            memory_bytes_per_second: 1e9,
        };
        let phone = |seconds: f64| PhoneCosts {
            seconds_per_layer: seconds,
            ..PhoneCosts::from_speed(seconds.to_string(), 8 * MIB, &speed, &model)
        };
        let problem = Problem {
            phones: seconds_per_layer.map(phone).to_vec(),
            links: Links::uniform(Link { latency_seconds: 0.0, bytes_per_second: 1e9 }),
            demand: Demand {
                context_length: 1,
                max_sessions: 1,
                generations_in_memory: 1.0,
                objective: Objective::Latency,
                min_tokens_per_second: None,
                min_phones: 0,
                max_phones: 3,
                memory_fraction: 1.0,
                overlap: true,
                prompt: None,
            },
            previous: None,
            model: model.clone(),
        };
        let ring = Ring { phones: vec![0, 1, 2], ends: vec![4, 8, 12] };
        spans(&Costs::new(&problem), &ring)[1]
    }

    #[test]
    fn both_sides_grow_alike_unless_a_neighbour_is_slow() {
        assert_eq!(between_neighbours_of([1.0, 1.0, 1.0]), (2, 10));
        assert_eq!(between_neighbours_of([4.0, 1.0, 1.0]), (1, 9));
        assert_eq!(between_neighbours_of([1.0, 1.0, 4.0]), (3, 11));
    }
}
