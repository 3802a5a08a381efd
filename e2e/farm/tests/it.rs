//! What every farm promises, held by the process farm.
#![allow(clippy::unwrap_used)]

#[path = "it/contract.rs"]
mod contract;
#[path = "it/process.rs"]
mod process;
