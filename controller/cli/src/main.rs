//! polyctl.
fn main() {}
