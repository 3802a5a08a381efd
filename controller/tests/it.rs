//! The controller as a whole: embedded API, reconcile loop and hub, with scripted agents on loopback.

#[path = "it/agent.rs"]
mod agent;
#[path = "../../node-agent/tests/it/exposition.rs"]
mod exposition;
#[path = "it/farm.rs"]
mod farm;
#[path = "it/model_file.rs"]
mod model_file;

#[path = "it/authority.rs"]
mod authority;
#[path = "it/hub.rs"]
mod hub;
#[path = "it/lifecycle.rs"]
mod lifecycle;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/process.rs"]
mod process;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/startup.rs"]
mod startup;
#[path = "it/users.rs"]
mod users;
