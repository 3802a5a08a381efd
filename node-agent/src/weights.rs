//! Weights: exactly the tensors that a segment needs, fetched from the host, checked by digest, kept on the phone's disk.

pub mod cache;
pub mod fetch;

pub use cache::{Cache, CacheError, Hold, Kept};
pub use fetch::{FetchError, Host};
