//! The balancer: whether moving layers of a replica that serves is worth it now. Pure.
//!
//! A move has to promise more than the deployment's minimum gain, to do so for a while, to come some time after the last
//! plan, and to save more time soon than it takes. Layers that stand by move at once; a whole new plan has to promise
//! clearly more than that.

use polyphony_api::condition::{Statement, Truth};
use polyphony_api::inference_deployment::LoadBalancing;

/// A better plan has to be better for this long before layers move.
pub const LASTING_SECONDS: i64 = 2;
/// The cool-down doubles with each move in a row, at most this often.
const MOST_DOUBLINGS: u32 = 6;
/// A plan that has served so many cool-downs ends the row.
pub const QUIET_COOL_DOWNS: i64 = 4;
/// A move has to save the time that it takes within this.
const PAYBACK_SECONDS: f64 = 60.0;

/// What the balancer looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub rules: LoadBalancing,
    /// Since the serving plan was made.
    pub age_seconds: i64,
    /// Moves that led to it one soon after the other.
    pub moves: u32,
    /// Since a better plan has been known without a break.
    pub imbalanced_seconds: Option<i64>,
    /// The objective of the serving plan, by what is measured now: seconds, or joules.
    pub serving_objective: f64,
    /// Whether a session gets fewer tokens a second of it than are asked for: whatever else it takes, any plan that is fast enough is better.
    pub is_under_floor: bool,
    /// What less of it is called.
    pub promises: Promise,
    /// The best that layers which stand by can do.
    pub shift: Option<Offer>,
    /// The best of all plans.
    pub whole: Option<Offer>,
}

/// What a better plan has more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Tokens,
    /// Its objective has the reading of prompts in it, beside the tokens of answers.
    Answers,
    /// Its objective is joules.
    TokensOfAJoule,
}

/// A plan that could be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Its objective, by what is measured now.
    pub objective: f64,
    /// Whether the phones have room for it beside the serving plan.
    pub fits: bool,
    /// Until weights and KV cache are where it wants them.
    pub move_seconds: f64,
}

/// Which layers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Boundary layers that stand by.
    Shift,
    /// To a plan made anew.
    Whole,
}

/// What is to be done, and what is said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub statement: Statement,
    pub to_do: Option<Move>,
}

/// How long a plan stays that so many moves led to. What swings back and forth swings ever more slowly.
pub fn cool_down_seconds(rules: &LoadBalancing, moves: u32) -> i64 {
    i64::from(rules.cool_down_seconds) << moves.saturating_sub(1).min(MOST_DOUBLINGS)
}

/// Weighs what could be had against what is.
pub fn weigh(scene: &Scene) -> Judgement {
    let rest = |status, reason: &str, message: String| Judgement {
        statement: Statement { type_: "Balanced", status, reason: reason.to_owned(), message },
        to_do: None,
    };
    let least = f64::from(scene.rules.minimum_gain_percent) / 100.0;
    if !scene.rules.enabled {
        return rest(Truth::Unknown, "Disabled", "spec.loadBalancing.enabled is false".to_owned());
    }
    let serving = if scene.is_under_floor { f64::INFINITY } else { scene.serving_objective };
    let gain = |offer: &Offer| serving / offer.objective - 1.0;
    let is_worth = |offer: &&Offer| {
        let saved = PAYBACK_SECONDS * (1.0 - offer.objective / serving);
        gain(offer) >= least && offer.move_seconds <= saved
    };
    let shift = scene.shift.as_ref().filter(is_worth);
    let whole = scene.whole.as_ref().filter(is_worth);
    // What stands by is there at once, and so is the way back.
    let best = match (shift, whole) {
        (Some(shift), Some(whole)) if whole.fits && gain(whole) - gain(shift) >= least => Some((Move::Whole, whole)),
        (Some(shift), _) => Some((Move::Shift, shift)),
        (None, Some(whole)) => Some((Move::Whole, whole)),
        (None, None) => None,
    };
    let percent = scene.rules.minimum_gain_percent;
    let more = match scene.promises {
        Promise::Tokens => "more tokens/s",
        Promise::Answers => "faster answers, with their prompts,",
        Promise::TokensOfAJoule => "more tokens of a joule",
    };
    let Some((which, offer)) = best else {
        if scene.is_under_floor {
            let message = "a session gets fewer tokens/s by now than spec.minTokensPerSecond asks for, and no other plan that could be had is fast \
                           enough: more phones, or a lower floor, would do"
                .to_owned();
            return rest(Truth::False, "UnderFloor", message);
        }
        let message = format!("no other plan promises {percent} % {more} by what is measured now");
        return rest(Truth::True, "NoGain", message);
    };
    let promised = if scene.is_under_floor {
        "another plan gives as many tokens/s as spec.minTokensPerSecond asks for, which this one does not by now"
            .to_owned()
    } else {
        format!("another plan promises {:.0} % {more} by what is measured now", gain(offer) * 100.0)
    };
    if !offer.fits {
        let message =
            format!("{promised}, but the phones have no room for it beside the serving one: free some memory");
        return rest(Truth::False, "NoRoom", message);
    }
    let cool_down = cool_down_seconds(&scene.rules, scene.moves);
    if scene.age_seconds < cool_down {
        let message = format!("{promised}; the next move comes {cool_down} s after the last plan at the soonest");
        return rest(Truth::False, "CoolingDown", message);
    }
    if scene.imbalanced_seconds.is_none_or(|seconds| seconds < LASTING_SECONDS) {
        return rest(Truth::False, "Imbalanced", format!("{promised}; layers move when that lasts"));
    }
    let mut judgement = rest(Truth::False, "Rebalancing", format!("{promised}: layers move"));
    judgement.to_do = Some(which);
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(objective: f64) -> Option<Offer> {
        Some(Offer { objective, fits: true, move_seconds: 0.5 })
    }

    fn scene() -> Scene {
        Scene {
            rules: LoadBalancing::default(),
            age_seconds: 60,
            moves: 0,
            imbalanced_seconds: Some(5),
            serving_objective: 0.100,
            is_under_floor: false,
            promises: Promise::Tokens,
            shift: offer(0.070),
            whole: offer(0.068),
        }
    }

    #[test]
    fn a_move_is_made_when_it_pays_and_else_the_reason_is_said() {
        type Edit = fn(&mut Scene);
        let table: [(&str, Edit, Truth, &str, Option<Move>); 16] = [
            ("as it is", |_| (), Truth::False, "Rebalancing", Some(Move::Shift)),
            ("disabled", |s| s.rules.enabled = false, Truth::Unknown, "Disabled", None),
            ("young", |s| s.age_seconds = 29, Truth::False, "CoolingDown", None),
            ("after one move", |s| s.moves = 1, Truth::False, "Rebalancing", Some(Move::Shift)),
            ("after three in a row", |s| s.moves = 3, Truth::False, "CoolingDown", None),
            ("first seen", |s| s.imbalanced_seconds = None, Truth::False, "Imbalanced", None),
            ("seen shortly", |s| s.imbalanced_seconds = Some(1), Truth::False, "Imbalanced", None),
            ("small gain", |s| (s.shift, s.whole) = (offer(0.095), offer(0.092)), Truth::True, "NoGain", None),
            ("higher wish", |s| s.rules.minimum_gain_percent = 60, Truth::True, "NoGain", None),
            ("no shift", |s| s.shift = None, Truth::False, "Rebalancing", Some(Move::Whole)),
            ("a far better plan", |s| s.whole = offer(0.050), Truth::False, "Rebalancing", Some(Move::Whole)),
            (
                "a far better plan without room",
                |s| s.whole = offer(0.050).map(|o| Offer { fits: false, ..o }),
                Truth::False,
                "Rebalancing",
                Some(Move::Shift),
            ),
            (
                "no room at all",
                |s| (s.shift, s.whole) = (None, offer(0.050).map(|o| Offer { fits: false, ..o })),
                Truth::False,
                "NoRoom",
                None,
            ),
            (
                "slower than is asked for, whatever it saves",
                |s| (s.is_under_floor, s.shift, s.whole) = (true, None, offer(0.5)),
                Truth::False,
                "Rebalancing",
                Some(Move::Whole),
            ),
            (
                "slower than is asked for, with no other plan",
                |s| (s.is_under_floor, s.shift, s.whole) = (true, None, None),
                Truth::False,
                "UnderFloor",
                None,
            ),
            (
                "a move that does not pay",
                |s| (s.shift, s.whole) = (None, offer(0.050).map(|o| Offer { move_seconds: 31.0, ..o })),
                Truth::True,
                "NoGain",
                None,
            ),
        ];
        for (what, edit, status, reason, to_do) in table {
            let mut scene = scene();
            edit(&mut scene);
            let judgement = weigh(&scene);
            let found = (judgement.statement.status, judgement.statement.reason.as_str(), judgement.to_do);
            assert_eq!(found, (status, reason, to_do), "{what}");
        }
    }
}
