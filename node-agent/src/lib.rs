//! The agent on a phone: fetches the segment that it was given, runs its layers and passes hidden states on.
//!
//! It dials the host once and its ring neighbours; it never sees a cluster, a prompt's text or another phone's assignments.

pub mod acquaintance;
pub mod agent;
pub mod app;
pub mod assignment;
pub mod at_work;
pub mod backend;
pub mod board;
pub mod budget;
pub mod class;
pub mod cpu_share;
pub mod data_dir;
pub mod discovery;
pub mod doctor;
pub mod duty;
pub mod energy;
pub mod enrolment;
pub mod flags;
pub mod gaps;
pub mod hub_address;
pub mod hub_link;
pub mod identity;
pub mod invocation;
pub mod join;
pub mod kv_cache;
pub mod last;
pub mod meter;
pub mod metrics;
pub mod neighbours;
pub mod offer;
pub mod pace;
pub mod platform;
pub mod policy;
pub mod reading;
pub mod relay;
pub mod sample;
pub mod segment;
pub mod sensors;
pub mod serve;
pub mod steps;
pub mod steward;
pub mod told;
pub mod trial;
pub mod weights;
