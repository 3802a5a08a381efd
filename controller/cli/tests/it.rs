//! polyctl as a person runs it: the binary, against an embedded API server and against processes of its own.
#![allow(clippy::unwrap_used)]

#[path = "it/cluster.rs"]
mod cluster;
#[path = "it/conversing.rs"]
mod conversing;
#[path = "it/editing.rs"]
mod editing;
#[path = "it/farm.rs"]
mod farm;
#[path = "it/kinds.rs"]
mod kinds;
#[path = "../../tests/it/model_file.rs"]
mod model_file;
#[path = "it/models.rs"]
mod models;
#[path = "it/objects.rs"]
mod objects;
#[path = "it/phones.rs"]
mod phones;
#[path = "it/polyctl.rs"]
mod polyctl;
#[path = "it/shells.rs"]
mod shells;
#[path = "it/up_down.rs"]
mod up_down;
#[path = "it/waiting.rs"]
mod waiting;
