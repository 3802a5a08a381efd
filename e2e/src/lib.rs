//! What end-to-end tests share: a shelf of phones from a farm, and questions to it over HTTP.
//!
//! Nothing here looks inside a program: everything goes through `polyctl`, the Kubernetes API and the OpenAI endpoint.

pub mod bench;
pub mod golden;
pub mod shelf;
pub mod stream;
