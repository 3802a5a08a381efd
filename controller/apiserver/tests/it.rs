//! The server over HTTP, as a client sees it, with a kind that exists nowhere else.
#![allow(clippy::unwrap_used)]

#[path = "it/harness.rs"]
mod harness;

#[path = "it/access.rs"]
mod access;
#[path = "it/apply.rs"]
mod apply;
#[path = "it/crud.rs"]
mod crud;
#[path = "it/delete.rs"]
mod delete;
#[path = "it/discovery.rs"]
mod discovery;
#[path = "it/full_disk.rs"]
mod full_disk;
#[path = "it/kube.rs"]
mod kube;
#[path = "it/list.rs"]
mod list;
#[path = "it/patch.rs"]
mod patch;
#[path = "it/restart.rs"]
mod restart;
#[path = "it/watch.rs"]
mod watch;
