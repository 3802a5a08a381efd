//! Tests of the planner from outside: tables of decisions, and exactness against brute force.

#![allow(clippy::unwrap_used)]

#[path = "it/baselines.rs"]
mod baselines;
#[path = "it/decisions.rs"]
mod decisions;
#[path = "it/efficiency.rs"]
mod efficiency;
#[path = "it/exactness.rs"]
mod exactness;
#[path = "it/fleet.rs"]
mod fleet;
#[path = "it/judging.rs"]
mod judging;
#[path = "it/lingua_linked.rs"]
mod lingua_linked;
#[path = "it/oracle.rs"]
mod oracle;
#[path = "it/problems.rs"]
mod problems;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/scale.rs"]
mod scale;
#[path = "it/shifting.rs"]
mod shifting;
