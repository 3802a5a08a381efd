//! The agent on a phone: fetches the segment that it was given, runs its layers and passes hidden states on.
//!
//! It dials the host once and its ring neighbours; it never sees a cluster, a prompt's text or another phone's assignments.

pub mod flags;
pub mod agent;
pub mod hub_link;
pub mod frame_io;
pub mod board;
pub mod budget;
pub mod assignment;
pub mod weights;
pub mod segment;
pub mod kv_cache;
pub mod sample;
pub mod serve;
pub mod probe;
pub mod backend;
