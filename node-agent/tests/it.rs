//! Integration tests of the agent: real models through segments, and real agents on loopback.
#![allow(clippy::unwrap_used)]

#[path = "it/golden.rs"]
mod golden;
