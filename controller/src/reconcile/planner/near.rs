//! Near: what the answer to an older question says to a newer one, which is the same but for its figures. Pure.

use polyphony_placement::shift::reprice;
use polyphony_placement::{Infeasible, MAX_SECONDS, MIN_LAYER_SECONDS, PhoneCosts, Plan, Problem, check};

/// Whether both ask for the same: they differ in phones, and in what is known of these, alone.
pub(super) fn is_akin(one: &Problem, other: &Problem) -> bool {
    one.model == other.model && one.demand == other.demand && one.previous == other.previous
}

/// Whether both ask for it of the same phones.
pub(super) fn asks_the_same_phones(one: &Problem, other: &Problem) -> bool {
    one.phones.iter().map(|phone| &phone.name).eq(other.phones.iter().map(|phone| &phone.name))
}

/// The answer to `older` by the figures of `newer`, where it holds by these. Whether another is better by now it does not say.
pub(super) fn stand_in(
    older: &Problem,
    answer: &Result<Plan, Infeasible>,
    newer: &Problem,
) -> Option<Result<Plan, Infeasible>> {
    let holds = |plan: &Plan| reprice(newer, plan).filter(|plan| check(newer, plan).is_ok());
    match answer {
        Ok(plan) => holds(plan).or_else(|| holds(&without_standby(plan))).map(Ok),
        // A fault of the planner's, which it need not have again; and a floor that faster phones may keep.
        Err(Infeasible::Rejected { .. } | Infeasible::Floor { .. }) => None,
        Err(infeasible) => is_no_roomier(older, newer).then(|| Err(infeasible.clone())),
    }
}

/// What stands by is made to fit to the last byte, and can be done without.
fn without_standby(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for stage in &mut plan.stages {
        (stage.standby, stage.standby_bytes) = (None, 0);
    }
    plan
}

/// Whether no phone offers more in the newer one, and no way between two is new, so that what had no plan has none.
fn is_no_roomier(older: &Problem, newer: &Problem) -> bool {
    let is_usable = |phone: &PhoneCosts| (MIN_LAYER_SECONDS..=MAX_SECONDS).contains(&phone.seconds_per_layer);
    let is_no_better = |(then, now): (&PhoneCosts, &PhoneCosts)| {
        now.allocatable_bytes <= then.allocatable_bytes
            && (is_usable(then) || !is_usable(now))
            && (then.is_trusted || !now.is_trusted)
    };
    let is_way = |problem: &Problem, from: usize, to: usize| {
        let link = problem.links.between(from, to);
        link.latency_seconds <= MAX_SECONDS && link.bytes_per_second > 0.0
    };
    let n_phones = newer.phones.len();
    let mut ways =
        (0..n_phones).flat_map(|from| (0..n_phones).map(move |to| (from, to))).filter(|(from, to)| from != to);
    asks_the_same_phones(older, newer)
        && older.phones.iter().zip(&newer.phones).all(is_no_better)
        && ways.all(|(from, to)| is_way(older, from, to) || !is_way(newer, from, to))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_placement::Strategy::Optimal;
    use polyphony_placement::{Link, plan_by};

    use super::super::memory::tests::measured;
    use super::*;

    #[test]
    fn a_plan_stands_in_where_it_holds_by_the_newer_figures() {
        let older = measured(&[("a", 250, 0.001), ("b", 250, 0.001)]);
        let answer = plan_by(Optimal, &older);
        let says = |newer: &Problem| stand_in(&older, &answer, newer).and_then(Result::ok);
        let slower = measured(&[("a", 250, 0.003), ("b", 300, 0.001), ("c", 1000, 0.001)]);
        let plan = says(&slower).unwrap();
        assert!(plan.places_like(answer.as_ref().unwrap()));
        assert!((plan.predicted_inter_token_seconds - (2.0 * 0.003 + 2.0 * 0.001)).abs() < 1e-6, "{plan:?}");
        assert_eq!(plan.left_out.len(), 1);
        for (what, newer) in [
            ("a phone is gone", measured(&[("a", 400, 0.001), ("c", 400, 0.001)])),
            ("too little memory", measured(&[("a", 250, 0.001), ("b", 150, 0.001)])),
            ("nobody knows its speed", measured(&[("a", 250, f64::INFINITY), ("b", 250, 0.001)])),
        ] {
            assert_eq!(says(&newer), None, "{what}");
        }
        let mut apart = slower;
        apart.links = polyphony_placement::Links::uniform(Link::UNREACHABLE);
        assert_eq!(says(&apart), None);
    }

    #[test]
    fn what_stands_by_gives_way_to_what_a_phone_has_less() {
        let mut older = measured(&[("a", 300, 0.001), ("b", 300, 0.001)]);
        older.demand.overlap = true;
        let answer = plan_by(Optimal, &older);
        assert!(answer.as_ref().unwrap().stages.iter().any(|stage| stage.standby.is_some()), "{answer:?}");
        let mut newer = measured(&[("a", 299, 0.001), ("b", 299, 0.001)]);
        newer.demand.overlap = true;
        let plan = stand_in(&older, &answer, &newer).unwrap().unwrap();
        assert!(plan.stages.iter().all(|stage| stage.standby.is_none()));
    }

    #[test]
    fn what_had_no_plan_has_none_where_no_phone_offers_more() {
        let older = measured(&[("a", 150, 0.001), ("b", 150, 0.001)]);
        let answer = plan_by(Optimal, &older);
        assert!(answer.is_err());
        for (newer, expected) in [
            (measured(&[("a", 150, 0.002), ("b", 140, 0.001)]), true),
            (measured(&[("a", 151, 0.001), ("b", 150, 0.001)]), false),
            (measured(&[("a", 150, 0.001), ("c", 150, 0.001)]), false),
        ] {
            assert_eq!(stand_in(&older, &answer, &newer).is_some(), expected, "{newer:?}");
        }
        let mut cut = older.clone();
        cut.links = polyphony_placement::Links::uniform(Link::UNREACHABLE);
        assert!(stand_in(&older, &answer, &cut).is_some());
        assert!(stand_in(&cut, &answer, &older).is_none(), "they can reach each other by now");
        let rejected = Err(Infeasible::Rejected { violation: String::new() });
        assert_eq!(stand_in(&older, &rejected, &older), None);
    }
}
