//! JSONPath in kubectl's dialect: `-o jsonpath=`, `--sort-by`, `wait --for=jsonpath=` and printer columns. Changes nothing.
//!
//! ```text
//! .spec.replicas                                   fields; a dot of the name itself is written \.
//! .list[0]  .list[-1]  .list[1:3]  .list[::2]      elements and slices
//! .list[*]  .spec.*  .list[0,2]  ['a','b']         all of them, and unions
//! ..name                                           at any depth
//! .list[?(@.type=="Ready")].status                 those for which it holds: == != < <= > >=, or that the path leads somewhere
//! {range .items[*]}{.metadata.name}{"\n"}{end}     templates
//! ```
//! Braces, `$` and the first dot may be left out of a path. Where kubectl ends with an error because something is not
//! there (an index past the end, a filter on what is no list, operands of two types), there is nothing here.

mod fault;
mod follow;
mod path;
mod reader;
mod template;

pub use fault::{Fault, JsonPathError};
pub use path::Path;
pub use template::{Template, text_of};

#[cfg(test)]
mod tests;
