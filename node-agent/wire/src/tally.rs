//! The tally: who counts the frames that go out.

use polyphony_protocol::Frame;

/// Counts what is sent. Called for each frame, so it should cost next to nothing.
pub trait Tally: Send + Sync + 'static {
    /// A frame of `n_bytes` goes out, its header included.
    fn sent(&self, frame: &Frame, n_bytes: usize);
}

/// Counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct Uncounted;

impl Tally for Uncounted {
    fn sent(&self, _frame: &Frame, _n_bytes: usize) {}
}
