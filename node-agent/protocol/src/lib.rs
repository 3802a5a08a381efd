//! What crosses a wire between our programs: frames and hub messages. Pure bytes ↔ types; opens no socket, has no clock.
//!
//! A frame has a fixed header of [`frame::HEADER_BYTES`] bytes (little-endian) and a body. Frames travel on ring links (phone
//! to phone) and on the one link that an agent dials to the host; there they share the stream with [`hub`] messages.

pub mod activation;
pub mod codec;
pub mod discovery;
pub mod frame;
pub mod hub;
pub mod ids;
pub mod links;
pub mod session;
pub mod version;

pub use activation::ActivationType;
pub use codec::{FrameError, decode, encode};
pub use frame::Frame;
pub use ids::{Epoch, PlanGeneration, RingId, RouteKey, SessionId};
