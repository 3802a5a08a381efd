//! polyphony-agent.
fn main() {}
