//! Compute kernels: one name in three rooms (`wgsl/`, `src/ops/`, `src/cpu/`). Knows no model, no file and no tensor's name.
//!
//! A step is recorded as plain data ([`Recording`]) and run by an [`Engine`]: the processor's or a GPU's, the same recording on either.
//!
//! Invariant: within one [`Engine::numerics`] the result of a token row does not depend on the other rows of the step, on chunking, threads
//! or SIMD width. The order of every reduction is fixed by the shape of the tensor and the row's position.

pub mod around;
mod blocks;
mod canonical;
mod chance;
pub mod cpu;
pub mod engine;
mod file_bytes;
pub mod known_answers;
pub mod kv_type;
pub mod mixed;
pub mod numerics;
pub mod ops;
pub mod packing;
mod plan;
pub mod recording;
pub mod shapes;
pub mod vulkan;
pub mod weight_type;
mod wgsl;

pub use around::Around;
pub use engine::{Arithmetic, Backend, Engine, EngineError, open};
pub use file_bytes::FileBytes;
pub use known_answers::KnownAnswers;
pub use kv_type::KvType;
pub use mixed::MixedEngine;
pub use numerics::Numerics;
pub use ops::{Activation, ActivationRounding, PositionBias, RopeStyle, SoftmaxOver, Turn};
pub use recording::{BufferId, KvLayout, MatrixId, Op, Readback, Recording, Row, Upload, VectorId};
pub use shapes::ShapeError;
pub use weight_type::WeightType;

macro_rules! types {
    ($($module:ident: $op:ident,)+) => {
        pub use ops::{$($op),+};
    };
}
ops::ops!(types);
