//! Selectors: which objects a list, a watch or a deletion is about, in Kubernetes' grammar and words. Asks no server.
//!
//! The API server and `polyctl` read the same text here, so that what one refuses the other does too.

mod field;
mod label;
pub mod name;
mod token;

pub use field::{FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError};
