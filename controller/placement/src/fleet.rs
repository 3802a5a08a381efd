//! A fleet: many deployments over one set of phones, the important ones first.

use std::collections::{BTreeMap, BTreeSet};

use crate::infeasible::Infeasible;
use crate::ledger::{Claim, Ledger, Loaded, Taken};
use crate::optimal::plan;
use crate::plan::{Plan, Stage};
use crate::problem::{PhoneCosts, Problem};

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
            let problem = left_for(&ledger.all(), deployment, &own);
            let planned = plan(&problem);
            for (stage, of_stage) in planned.iter().flat_map(|plan| &plan.stages).enumerate() {
                own.insert(of_stage.phone.clone());
                ledger.add((at, replica, stage), claim(deployment, replica, of_stage));
            }
            plans.entry(at).or_default().push(FleetPlan { deployment: deployment.name.clone(), replica, planned });
        }
    }
    plans.into_values().flatten().collect()
}

fn claim(deployment: &FleetDeployment, replica: u32, stage: &Stage) -> Claim {
    let (layers_from, layers_to) = stage.standby.unwrap_or((stage.holds.layers_from, stage.holds.layers_to));
    Claim {
        phone: stage.phone.clone(),
        deployment: deployment.name.clone(),
        shares_phones: deployment.shares_phones,
        ring: u64::from(replica),
        generation: 1,
        bytes: stage.bytes.saturating_add(stage.standby_bytes),
        loaded: Loaded {
            kind: deployment.name.clone(),
            layers: layers_from..layers_to,
            embedding: stage.holds.embedding,
            head: stage.holds.head,
        },
    }
}

/// The deployment's problem over the phones that it may still use; `own` are those of its earlier replicas.
fn left_for<Id: Ord>(taken: &Taken<'_, Id>, deployment: &FleetDeployment, own: &BTreeSet<String>) -> Problem {
    let all = &deployment.problem;
    let may_use = |phone: &PhoneCosts| {
        !own.contains(&phone.name) && taken.admits(&phone.name, &deployment.name, deployment.shares_phones)
    };
    let kept: Vec<usize> = (0..all.phones.len()).filter(|&at| may_use(&all.phones[at])).collect();
    let left = |&at: &usize| {
        let phone = &all.phones[at];
        let allocatable_bytes = taken.bytes_left(&phone.name, phone.allocatable_bytes, &all.demand);
        let turns = taken.turns(&phone.name, &deployment.name);
        PhoneCosts { allocatable_bytes, ..phone.clone() }.in_turns(turns)
    };
    Problem {
        model: all.model.clone(),
        phones: kept.iter().map(left).collect(),
        links: all.links.over(&kept),
        demand: all.demand.clone(),
        previous: all.previous.clone(),
    }
}
