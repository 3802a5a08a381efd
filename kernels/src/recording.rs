//! Recordings: the work of one step as plain data. Runs nothing; the same recording runs on any engine.

use std::ops::Range;

use crate::kv_type::KvType;
use crate::ops::{self, Operation};

/// A matrix that an engine holds. Valid only in the engine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixId(pub(crate) u32);

/// A vector that an engine holds (norm weights, a bias, rope factors). Valid only in the engine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VectorId(pub(crate) u32);

/// A buffer that an engine holds: activations of f32, or the words of a KV cache, which are moved as f32 and never looked at as such. Valid only in the engine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub(crate) u32);

/// One token row of the step: the KV slot of its session and its position in it, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub slot: u32,
    pub position: u32,
}

/// The shape of the K or the V buffer of one layer: `[slot][position][row_words]` words of 4 bytes, rows contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    pub n_slots: usize,
    pub n_positions: usize,
    /// Key heads × head size.
    pub kv_width: usize,
    /// In what a row's values are kept.
    pub kv_type: KvType,
}

impl KvLayout {
    /// Words that a row takes.
    pub fn row_words(&self) -> usize {
        self.kv_type.row_words(self.kv_width)
    }

    /// Words in one buffer of this shape: what to ask of `Engine::alloc`.
    pub fn len(&self) -> usize {
        self.n_slots.saturating_mul(self.n_positions).saturating_mul(self.row_words())
    }

    /// Whether a buffer of this shape holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the words of these positions of one slot lie, for moving a KV cache. The caller keeps slot and positions within the layout.
    pub fn range(&self, slot: u32, positions: Range<u32>) -> Range<usize> {
        let (first, row_words) = (slot as usize * self.n_positions, self.row_words());
        (first + positions.start as usize) * row_words..(first + positions.end as usize) * row_words
    }
}

/// Values that go into a buffer before the first op.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    pub buffer: BufferId,
    /// First value written, counted in f32.
    pub offset: usize,
    pub values: Vec<f32>,
}

/// Values that come back after the last op.
#[derive(Clone, Debug, PartialEq)]
pub struct Readback {
    pub buffer: BufferId,
    /// Values read, counted in f32.
    pub range: Range<usize>,
}

/// One step: uploads, then the ops in order, then the readbacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// The token rows of the step: what `Rope`, `RopeKvWrite`, `KvWrite`, `Attention` and the convolution's ops work on. No two may share slot and position.
    pub rows: Vec<Row>,
    pub uploads: Vec<Upload>,
    pub ops: Vec<Op>,
    pub readbacks: Vec<Readback>,
}

impl Recording {
    /// An empty step over these token rows.
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Writes values into a buffer before the first op.
    pub fn upload(&mut self, buffer: BufferId, offset: usize, values: Vec<f32>) {
        self.uploads.push(Upload { buffer, offset, values });
    }

    /// Appends an op.
    pub fn push(&mut self, op: impl Into<Op>) {
        self.ops.push(op.into());
    }

    /// Reads values back after the last op; `Engine::run` returns all readbacks one after the other.
    pub fn readback(&mut self, buffer: BufferId, range: Range<usize>) {
        self.readbacks.push(Readback { buffer, range });
    }
}

macro_rules! op {
    ($($module:ident: $op:ident,)+) => {
        /// One operation. The struct of each, with its shapes and formula, is in `ops/`.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($op(ops::$op),)+
        }

        impl Op {
            /// The name of the operation, as in errors and metrics.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$op(_) => stringify!($op),)+
                }
            }

            /// What is in it.
            pub(crate) fn operation(&self) -> &dyn Operation {
                match self {
                    $(Self::$op(op) => op,)+
                }
            }
        }

        $(impl From<ops::$op> for Op {
            fn from(op: ops::$op) -> Self {
                Self::$op(op)
            }
        })+
    };
}
ops::ops!(op);
