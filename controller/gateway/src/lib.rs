//! The OpenAI-compatible door. Owns the sessions: the only authoritative copy of prompt, tokens and sampling state.
//!
//! A phone may die at any moment; its sessions are replayed on another ring, and a token that a client has seen is
//! never lost, repeated or changed. Opens no socket: the controller serves [`Gateway::router`] and carries the frames.

// The way of a request.
mod callers;
mod chat;
mod completions;
mod desk;
mod door;
mod errors;
mod fields;
mod fit;
mod generation;
mod guard;
mod http;
mod keys;
mod models;
mod openai;
mod quota;
mod tokenize;
// Between an API and what answers.
mod sessions;
// The way of a session.
mod admission;
mod failure;
mod registry;
mod rings;
mod run;
mod session;
mod speed;
// The way of an answer.
mod answer;
mod form;
mod model_text;
mod sse;
mod stop;
// What is seen of all.
mod metrics;
mod tally;
// What many of these need.
mod lock;
mod random;
// What the controller sees.
mod config;
mod gateway;
mod routes;

pub use config::GatewayConfig;
pub use gateway::Gateway;
pub use keys::{ClientKey, KeyBook};
pub use metrics::Metrics;
pub use routes::{DeploymentRoute, PhoneLinks, RingRoute, RouteTable, Unsent};
