//! Operations: the arguments of each, its shape checks and its GPU dispatches. Computes nothing itself.

pub mod activate;
pub mod add_rows;
pub mod attention;
pub mod conv_write;
pub mod embed_rows;
pub mod gate_up;
pub mod kv_write;
pub mod layer_norm;
pub mod matmul;
pub mod pad_rows;
pub mod quantise_rows;
pub mod rms_norm;
pub mod rope;
pub mod rope_kv_write;
pub mod round_rows;
pub mod scale_rows;
pub mod short_conv;

pub use activate::{Activate, Activation};
pub use add_rows::AddRows;
pub use attention::{Attention, PositionBias};
pub use conv_write::ConvWrite;
pub use embed_rows::EmbedRows;
pub use gate_up::GateUp;
pub use kv_write::KvWrite;
pub use layer_norm::LayerNorm;
pub use matmul::Matmul;
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopeStyle, Turn};
pub use rope_kv_write::RopeKvWrite;
pub use round_rows::{ActivationRounding, RoundRows};
pub use scale_rows::ScaleRows;
pub use short_conv::ShortConv;
