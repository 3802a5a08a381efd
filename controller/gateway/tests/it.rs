//! The gateway from its HTTP side, over rings of phones that are doubles with scripted tokens.

#![allow(clippy::unwrap_used)]

#[path = "it/answers.rs"]
mod answers;
#[path = "it/door.rs"]
mod door;
#[path = "it/errors.rs"]
mod errors;
#[path = "../../../node-agent/tests/it/exposition.rs"]
mod exposition;
#[path = "it/flow.rs"]
mod flow;
#[path = "it/house.rs"]
mod house;
#[path = "it/keys.rs"]
mod keys;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/models.rs"]
mod models;
#[path = "it/moves.rs"]
mod moves;
#[path = "it/phones.rs"]
mod phones;
#[path = "it/replays.rs"]
mod replays;
