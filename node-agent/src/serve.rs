//! Serving: a loaded segment takes its place in a ring. Frames in, steps on the engine, frames out.
//!
//! [`stage`] decides (pure), [`compute`] is the thread that owns stage and segment, [`outlet`] is the way to the next stage,
//! [`ring`] dials and accepts the links.

pub mod batch;
pub mod compute;
pub mod outlet;
pub mod ring;
pub mod stage;

pub use compute::{Compute, Event, Source};
pub use outlet::Outlet;
