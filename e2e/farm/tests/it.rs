//! What every farm promises, held by the process farm and the namespace farm.
#![allow(clippy::unwrap_used)]

#[path = "it/contract.rs"]
mod contract;
#[path = "it/namespaces.rs"]
mod namespaces;
#[path = "it/parts.rs"]
mod parts;
#[path = "it/process.rs"]
mod process;
