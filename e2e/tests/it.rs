//! End to end: a shelf of phones as a person has it, from manifest to answer.
#![allow(clippy::unwrap_used)]

#[path = "it/android.rs"]
mod android;
#[path = "it/answers.rs"]
mod answers;
#[path = "it/app.rs"]
mod app;
#[path = "it/backends.rs"]
mod backends;
#[path = "it/circles.rs"]
mod circles;
#[path = "it/clients.rs"]
mod clients;
#[path = "it/crowds.rs"]
mod crowds;
#[path = "it/dashboards.rs"]
mod dashboards;
#[path = "it/defaults.rs"]
mod defaults;
#[path = "it/door.rs"]
mod door;
#[path = "it/encoder_decoder.rs"]
mod encoder_decoder;
#[path = "it/errors.rs"]
mod errors;
#[path = "it/failures.rs"]
mod failures;
#[path = "it/guide.rs"]
mod guide;
#[path = "it/importing.rs"]
mod importing;
#[path = "it/joining.rs"]
mod joining;
#[path = "it/lab.rs"]
mod lab;
#[path = "it/losses.rs"]
mod losses;
#[path = "it/manifests.rs"]
mod manifests;
#[path = "../../controller/tests/it/model_hub.rs"]
mod model_hub;
#[path = "it/moves.rs"]
mod moves;
#[path = "it/relayed.rs"]
mod relayed;
#[path = "it/sessions.rs"]
mod sessions;
#[path = "it/surroundings.rs"]
mod surroundings;
#[path = "it/tidy.rs"]
mod tidy;
