//! Integration tests of the agent: real models through segments, and real agents on loopback.
#![allow(clippy::unwrap_used)]

#[path = "it/counting.rs"]
mod counting;
#[path = "it/encoder_decoder.rs"]
mod encoder_decoder;
#[path = "it/ends.rs"]
mod ends;
#[path = "it/engines.rs"]
mod engines;
#[path = "it/exposition.rs"]
mod exposition;
#[path = "it/families.rs"]
mod families;
#[path = "it/faulty.rs"]
mod faulty;
#[path = "it/floor.rs"]
mod floor;
#[path = "it/footprint.rs"]
mod footprint;
#[path = "it/golden.rs"]
mod golden;
#[path = "it/hub.rs"]
mod hub;
#[path = "it/int8.rs"]
mod int8;
#[path = "it/joining.rs"]
mod joining;
#[path = "it/kv_rows.rs"]
mod kv_rows;
#[path = "it/kv_types.rs"]
mod kv_types;
#[path = "../../kernels/tests/it/lending.rs"]
mod lending;
#[path = "it/measuring.rs"]
mod measuring;
#[path = "it/memory_limit.rs"]
mod memory_limit;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/moves.rs"]
mod moves;
#[path = "it/numerics.rs"]
mod numerics;
#[path = "it/oracle.rs"]
mod oracle;
#[path = "it/real_models.rs"]
mod real_models;
#[path = "it/splits.rs"]
mod splits;
#[path = "it/trouble.rs"]
mod trouble;
