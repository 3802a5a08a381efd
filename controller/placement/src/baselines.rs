//! Baselines: how others place layers, as planners of the same problem, so that their plans can be checked,
//! predicted, carried out and beaten on the same figures. None of them is used unless it is asked for by name.

mod balancer;
mod equal_split;
mod lingua_linked;
mod memory_proportional;
mod min_max;
mod nearest;
mod overlap;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::costs::{Costs, Ring};
use crate::infeasible::Infeasible;
use crate::optimal::gap_of;
use crate::plan::{Method, Plan};
use crate::problem::Problem;
use crate::{Violation, check, diagnose, plan, predict};
pub use balancer::published_balancer_step;
pub use overlap::published_overlap;

/// A way to place layers on phones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr,
)]
pub enum Strategy {
    /// Ours: [`crate::plan`].
    #[default]
    Optimal,
    /// As many layers on each phone, in the problem's order: ⌈layers ÷ phones⌉. What LinguaLinked compares itself to.
    EqualSplit,
    /// Layers in proportion to free memory, in the problem's order: llama.cpp, exo, LocalAI.
    MemoryProportional,
    /// The least longest time that a phone reads its layers' bytes in; the links are not in it: mesh-llm.
    MinMax,
    /// The binary quadratic programme of LinguaLinked (ACL 2024, arXiv 2312.00388).
    LinguaLinked,
    /// The same, begun on whichever phone makes it best; published is that the first one is given.
    LinguaLinkedBestFirst,
}

/// Plans as `strategy` does, for the same phones, links and memory.
///
/// A baseline's plan is predicted with our cost model and says in `gap` how far its objective is from a bound that
/// no plan beats. Baselines look at the problem's phones in their order, the first `max_phones` of them.
///
/// # Errors
/// As [`crate::plan`]; and [`Infeasible::Rule`] where the rule's own answer does not run: over a phone's memory,
/// across a link that does not work, or on fewer phones than are asked for.
pub fn plan_by(strategy: Strategy, problem: &Problem) -> Result<Plan, Infeasible> {
    let rule: fn(&Costs<'_>, &[usize]) -> Result<Ring, String> = match strategy {
        Strategy::Optimal => return plan(problem),
        Strategy::EqualSplit => equal_split::ring,
        Strategy::MemoryProportional => memory_proportional::ring,
        Strategy::MinMax => min_max::ring,
        Strategy::LinguaLinked => lingua_linked::ring,
        Strategy::LinguaLinkedBestFirst => lingua_linked::ring_from_best_first,
    };
    if let Some(reason) = diagnose::refuse(problem) {
        return Err(reason);
    }
    let costs = Costs::new(problem);
    let n_phones = costs.usable.len().min(problem.demand.max_phones as usize);
    if n_phones == 0 {
        return Err(diagnose::explain(&costs));
    }
    let has_none = |why: String| Infeasible::Rule { rule: strategy.to_string(), why };
    // None of them knows of joules.
    let ring = rule(costs.in_seconds(), &costs.usable[..n_phones]).map_err(has_none)?;
    let (at, score) = costs.judge(&ring);
    let gap = gap_of(&costs, score.objective / at.rows);
    let plan = predict::plan_of(&costs, &ring, Method::Rule, gap);
    match check(problem, &plan) {
        Ok(()) => Ok(plan),
        // A rule that does not look at a limit may break it; whatever else is wrong is ours.
        Err(
            violation @ (Violation::OverBudget { .. }
            | Violation::NotTrusted { .. }
            | Violation::Unreachable { .. }
            | Violation::UnderFloor { .. }
            | Violation::StageCount { .. }),
        ) => Err(has_none(violation.to_string())),
        Err(violation) => Err(Infeasible::Rejected { violation: violation.to_string() }),
    }
}

// === impl Strategy ===

impl Strategy {
    /// Ours first.
    pub const ALL: [Strategy; 6] = [
        Strategy::Optimal,
        Strategy::EqualSplit,
        Strategy::MemoryProportional,
        Strategy::MinMax,
        Strategy::LinguaLinked,
        Strategy::LinguaLinkedBestFirst,
    ];

    /// As manifests write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no strategy's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no strategy is called {found}: expected one of Optimal, EqualSplit, MemoryProportional, MinMax, LinguaLinked, LinguaLinkedBestFirst"
)]
pub struct UnknownStrategy {
    pub found: String,
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        let known = Strategy::ALL.into_iter().find(|strategy| strategy.name() == name);
        known.ok_or_else(|| UnknownStrategy { found: name.to_owned() })
    }
}

/// The ring of these counts of layers; phones that got none are not in it.
fn ring_of_counts(phones: &[usize], counts: &[usize]) -> Ring {
    let mut ring = Ring { phones: Vec::new(), ends: Vec::new() };
    let mut end = 0;
    for (&phone, &count) in phones.iter().zip(counts).filter(|(_, count)| **count > 0) {
        end += count;
        ring.phones.push(phone);
        ring.ends.push(end);
    }
    ring
}
