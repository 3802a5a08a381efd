//! Serving: a loaded segment takes its place in a ring. Frames in, steps on the engine, frames out.
//!
//! [`stage`] decides (pure), [`thread`] owns a segment and its stages, [`compute`] is the handle on one of them, [`outlet`] the way
//! to the next stage; [`links`] says which there are, [`ring`] dials and accepts them, [`kv_transfer`] carries the KV caches of sessions that move.

pub mod batch;
mod calls;
pub mod compute;
pub mod event;
mod faults;
pub mod kv_transfer;
pub mod links;
pub mod members;
pub mod outlet;
pub mod ring;
pub mod stage;
pub mod thread;
mod worker;

pub use compute::Compute;
pub use event::{Event, Source};
pub use outlet::Outlet;
