//! The planner: which phones hold which layers of a model, in what order. Numbers in, plan out: no network, no
//! clock, no randomness, so equal problems give equal plans.
//!
//! A plan is a ring of stages: contiguous layers, the embedding with the first, the output matrix with the
//! last. [`plan`] minimises the time of a token around the ring (Latency), between tokens of many sessions
//! (Throughput), or a token's joules above a floor of speed (Efficiency) within every phone's memory; phones that do not help are left out. A local search finds a good
//! ring; a bound over all phones, or an integer linear programme, proves that none is better. With more than ten
//! phones (forty where all links and layers are alike) the programme looks at the most promising ones only, and
//! what is not proven states its gap. [`check`] judges plans with code of its own, and no plan that it rejects is
//! ever returned.
//!
//! Beside it: [`plan_by`] places layers by the rules of others, to compare; [`plan_fleet`] plans many deployments;
//! [`shift`] is what the balancer can reach from a plan in force.

mod baselines;
mod bound;
mod caps;
mod check;
mod costs;
mod cuts;
mod diagnose;
mod exact;
mod fleet;
mod infeasible;
mod ledger;
mod limits;
mod optimal;
mod plan;
mod predict;
mod problem;
mod search;
pub mod shift;
mod standby;
mod tie;

pub use baselines::{Strategy, UnknownStrategy, plan_by, published_balancer_step, published_overlap};
pub use check::{Violation, check};
pub use fleet::{FleetDeployment, FleetPlan, plan_fleet};
pub use infeasible::Infeasible;
pub use ledger::{Claim, Ledger, Loaded, Taken};
pub use optimal::plan;
pub use plan::{Bound, Holds, LeftOut, Method, Plan, Stage, WhyLeftOut};
pub use predict::time_to_first_token_seconds;
pub use problem::{
    ASSUMED_WATTS, Access, BELIEVED_WATTS, Demand, Energy, ExpertCosts, Link, Links, MAX_SECONDS, MIN_LAYER_SECONDS,
    Measured, ModelCosts, Objective, PhoneCosts, Problem, Prompt, Speed,
};
