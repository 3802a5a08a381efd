//! A fleet: many deployments over one set of phones, the important ones first.

use std::collections::{BTreeMap, BTreeSet};

use crate::infeasible::Infeasible;
use crate::optimal::plan;
use crate::plan::Plan;
use crate::problem::{Links, PhoneCosts, Problem};

/// One deployment of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetDeployment {
    pub name: String,
    /// Higher ones choose first; equal ones in the order given.
    pub priority: i32,
    pub replicas: u32,
    /// Whether its phones may serve other deployments that allow it too.
    pub shares_phones: bool,
    /// What one replica asks, over all phones that it may use. Phones of equal name are one phone, whatever each
    /// deployment knows of its speed.
    pub problem: Problem,
}

/// What one replica got.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    pub deployment: String,
    pub replica: u32,
    /// With the gap that is left, given what deployments before it and earlier replicas have taken.
    pub planned: Result<Plan, Infeasible>,
}

/// Plans every replica of every deployment; the answers are in the order of `deployments`, replica by replica.
///
/// A phone serves one replica; and another deployment besides only where all of them allow it. Of a shared phone
/// each takes what memory is left, and it counts as so many times slower as it has deployments. Deployments of higher
/// priority lose nothing to others: each plan is the best that its turn allows.
pub fn plan_fleet(deployments: &[FleetDeployment]) -> Vec<FleetPlan> {
    let mut turns: Vec<usize> = (0..deployments.len()).collect();
    turns.sort_by_key(|&at| std::cmp::Reverse(deployments[at].priority));
    let mut ledger = Ledger::default();
    let mut plans: BTreeMap<usize, Vec<FleetPlan>> = BTreeMap::new();
    for at in turns {
        let deployment = &deployments[at];
        let mut own = BTreeSet::new();
        for replica in 0..deployment.replicas {
            let problem = ledger.left_for(deployment, &own);
            let planned = plan(&problem);
            if let Ok(plan) = &planned {
                own.extend(plan.stages.iter().map(|stage| stage.phone.clone()));
                ledger.note(deployment, plan);
            }
            plans.entry(at).or_default().push(FleetPlan { deployment: deployment.name.clone(), replica, planned });
        }
    }
    plans.into_values().flatten().collect()
}

/// Who uses which phone so far.
#[derive(Default)]
struct Ledger {
    taken: BTreeMap<String, Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: u64,
    n_deployments: u32,
    is_shared: bool,
}

// === impl Ledger ===

impl Ledger {
    fn note(&mut self, deployment: &FleetDeployment, plan: &Plan) {
        for stage in &plan.stages {
            let taken = self.taken.entry(stage.phone.clone()).or_default();
            taken.bytes = taken.bytes.saturating_add(stage.bytes).saturating_add(stage.standby_bytes);
            taken.n_deployments += 1;
            taken.is_shared = deployment.shares_phones;
        }
    }

    /// The deployment's problem over the phones that it may still use; `own` are those of its earlier replicas.
    fn left_for(&self, deployment: &FleetDeployment, own: &BTreeSet<String>) -> Problem {
        let all = &deployment.problem;
        let mut phones = Vec::new();
        let mut places: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, phone) in all.phones.iter().enumerate().filter(|(_, phone)| !own.contains(&phone.name)) {
            let left = match self.taken.get(&phone.name) {
                None => phone.clone(),
                Some(taken) if taken.is_shared && deployment.shares_phones => shared(all, phone, taken),
                Some(_) => continue,
            };
            places.insert(at, phones.len());
            phones.push(left);
        }
        let place = |(&(from, to), &link)| Some(((*places.get(&from)?, *places.get(&to)?), link));
        let links =
            Links { default: all.links.default, measured: all.links.measured.iter().filter_map(place).collect() };
        Problem { model: all.model.clone(), phones, links, demand: all.demand.clone(), previous: all.previous.clone() }
    }
}

/// What a phone is to one more deployment.
fn shared(problem: &Problem, phone: &PhoneCosts, taken: &Taken) -> PhoneCosts {
    // Of the whole budget, so that the fraction is taken once.
    let used = taken.bytes as f64 * problem.demand.generations_in_memory / problem.demand.memory_fraction;
    let slower = f64::from(taken.n_deployments + 1);
    PhoneCosts {
        allocatable_bytes: (phone.allocatable_bytes as f64 - used.ceil()).max(0.0) as u64,
        seconds_per_layer: phone.seconds_per_layer * slower,
        seconds_per_layer_per_further_row: phone.seconds_per_layer_per_further_row.map(|seconds| seconds * slower),
        seconds_per_step: phone.seconds_per_step * slower,
        seconds_embedding: phone.seconds_embedding * slower,
        seconds_head: phone.seconds_head * slower,
        seconds_head_per_further_row: phone.seconds_head_per_further_row.map(|seconds| seconds * slower),
        prefill_seconds_per_layer_per_token: phone.prefill_seconds_per_layer_per_token * slower,
        ..phone.clone()
    }
}
