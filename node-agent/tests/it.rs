//! Integration tests of the agent: real models through segments, and real agents on loopback.
#![allow(clippy::unwrap_used)]

#[path = "it/encoder_decoder.rs"]
mod encoder_decoder;
#[path = "it/exposition.rs"]
mod exposition;
#[path = "it/golden.rs"]
mod golden;
#[path = "it/hub.rs"]
mod hub;
#[path = "it/metrics.rs"]
mod metrics;
