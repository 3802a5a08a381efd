//! Serving: a loaded segment takes its place in a ring. Frames in, steps on the engine, frames out.
//!
//! [`stage`] decides (pure), [`compute`] has the handles on the thread that owns a segment and its stages, [`outlet`] is the way
//! to the next stage, [`links`] says which there are, [`ring`] dials and accepts them, [`kv_transfer`] carries the KV caches of sessions that move.

pub mod batch;
pub mod compute;
mod faults;
pub mod kv_transfer;
pub mod links;
pub mod outlet;
pub mod ring;
pub mod stage;
mod worker;

pub use compute::{Compute, Event, Source};
pub use outlet::Outlet;
