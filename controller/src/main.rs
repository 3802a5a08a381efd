//! polyphony-controller.
fn main() {}
