//! The controller: observes phones, models and deployments, decides which phone holds which layers, and acts on it.
//!
//! [`Process`] wires the embedded API, the reconcile loop, the hub that phones dial, and the gateway. What it knows is in
//! the API: killing it at any instant loses nothing.

pub mod backup;
pub mod discovery;
pub mod door;
pub mod flags;
pub mod hub;
pub mod kubeconfig;
pub mod leases;
pub mod metrics;
pub mod models;
pub mod process;
pub mod proxy;
pub mod reconcile;
pub mod routes;
pub mod secret;

pub use flags::{Advertise, Flags};
pub use process::{Endpoints, Process};
