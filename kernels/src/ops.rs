//! Operations: the arguments of each, its shape checks and its GPU dispatches. Computes nothing itself.
//!
//! A kernel is three files of one name, here, in `cpu/` and in `wgsl/`, and a line of the list: what goes through all operations is made of it.

use crate::plan::Plan;
use crate::recording::Row;
use crate::shapes::{ShapeError, Shapes};

pub mod activate;
pub mod add_rows;
pub mod attention;
pub mod conv_write;
pub mod embed_rows;
pub mod expert_matmul;
pub mod gate_up;
pub mod kv_write;
pub mod layer_norm;
pub mod matmul;
pub mod mix_rows;
pub mod pad_rows;
pub mod quantise_rows;
pub mod rms_norm;
pub mod rope;
pub mod rope_kv_write;
pub mod round_rows;
pub mod route;
pub mod scale_rows;
pub mod short_conv;

/// Gives the list of all operations, each `module: Type`, to a macro.
macro_rules! ops {
    ($then:ident) => {
        $then! {
            activate: Activate,
            add_rows: AddRows,
            attention: Attention,
            conv_write: ConvWrite,
            embed_rows: EmbedRows,
            expert_matmul: ExpertMatmul,
            gate_up: GateUp,
            kv_write: KvWrite,
            layer_norm: LayerNorm,
            matmul: Matmul,
            mix_rows: MixRows,
            rms_norm: RmsNorm,
            rope: Rope,
            rope_kv_write: RopeKvWrite,
            round_rows: RoundRows,
            route: Route,
            scale_rows: ScaleRows,
            short_conv: ShortConv,
        }
    };
}
pub(crate) use ops;

/// What every operation of a recording is asked before it runs.
pub(crate) trait Operation {
    /// Holds the arguments to what the engine has and to the token rows of the step.
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError>;

    /// Appends its dispatches; the check has passed.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError>;
}

macro_rules! types {
    ($($module:ident: $op:ident,)+) => {
        $(pub use $module::$op;)+
    };
}
ops!(types);

pub use activate::Activation;
pub use attention::PositionBias;
pub use rope::{RopeStyle, Turn};
pub use round_rows::ActivationRounding;
pub use route::SoftmaxOver;
