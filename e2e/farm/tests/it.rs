//! What every farm promises, held by the process farm, the namespace farm and the adb farm.
#![allow(clippy::unwrap_used)]

#[path = "it/adb.rs"]
mod adb;
#[path = "it/contract.rs"]
mod contract;
#[path = "it/namespaces.rs"]
mod namespaces;
#[path = "it/parts.rs"]
mod parts;
#[path = "it/process.rs"]
mod process;
#[path = "it/scripts.rs"]
mod scripts;
