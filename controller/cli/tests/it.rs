//! polyctl as a person runs it: the binary, against an embedded API server and against processes of its own.
#![allow(clippy::unwrap_used)]

#[path = "it/cluster.rs"]
mod cluster;
#[path = "it/objects.rs"]
mod objects;
#[path = "it/polyctl.rs"]
mod polyctl;
#[path = "it/up_down.rs"]
mod up_down;
#[path = "it/waiting.rs"]
mod waiting;
