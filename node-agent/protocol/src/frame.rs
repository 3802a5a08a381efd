//! Frames: what travels between two phones, and between a phone and the gateway, as types.

use bytes::Bytes;

use crate::activation::ActivationType;
use crate::hub::{LayerSpan, ToAgent, ToHub};
use crate::ids::{Epoch, PlanGeneration, RingId, RouteKey};
use crate::session::SessionOptions;
use crate::version::ProtocolVersion;

/// Bytes before a frame's body, its length field included.
pub const HEADER_BYTES: usize = 40;
/// The ring of a hello that only measures; no ring has it.
pub const NO_RING: RingId = RingId(0);
/// The default limit of a whole frame.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// One message on a wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// First on a ring link: the stage that dials says who it is.
    Hello(Hello),
    /// Answer to a hello: the link is good.
    Accepted,
    /// Answer to a hello: the link is closed, and why.
    Refused(String),
    /// A session begins; travels from the head through every stage to the tail.
    Open {
        key: RouteKey,
        options: SessionOptions,
    },
    /// Tokens for the head to embed; gateway → head, and in an encoder–decoder model on to the stage that decoding begins at.
    Prompt(Prompt),
    /// Hidden states; stage → next stage.
    Hidden(Hidden),
    /// A sampled token; tail → head (next step) and tail → gateway (stream).
    Token(Token),
    /// The tail has computed all positions below `position`: so many more chunks of the prompt may come; tail → where decoding begins.
    Ack {
        key: RouteKey,
        position: u32,
    },
    /// The head may run this many steps further; travels like `Prompt`.
    Credit {
        key: RouteKey,
        steps: u32,
    },
    /// The session is over or cancelled: its KV cache is freed; travels like `Open`.
    Close {
        key: RouteKey,
    },
    /// The head stops when the step in flight is done and its prompt computed; gateway → head.
    Pause {
        key: RouteKey,
    },
    /// The head has stopped: every stage has computed the positions below `position`, and none of them more; head → gateway.
    Paused {
        key: RouteKey,
        position: u32,
    },
    /// A session goes on that another generation computed until now; travels like `Open`.
    Resume(Resume),
    /// A stage has the KV cache of all positions below `position`, for each of its layers; each stage → gateway.
    Resumed {
        key: RouteKey,
        stage: u32,
        position: u32,
    },
    /// First on a connection of its own: asks a stage for a part of a session's KV cache.
    KvRequest(KvRequest),
    /// Answer to a KV request: one after the other, by layer and position, until all have come.
    KvRows(KvRows),
    /// A stage cannot go on with a session; stage → gateway.
    Failed(Failed),
    /// Are you there? Answered by a pong with the same nonce.
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    /// Bytes that mean nothing: they measure what a link carries.
    Filler(Bytes),
    /// On the host link only.
    ToHub(ToHub),
    /// On the host link only.
    ToAgent(ToAgent),
}

impl Frame {
    /// Its kind in words, for errors.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Hello(_) => "a hello",
            Self::Accepted => "an acceptance",
            Self::Refused(_) => "a refusal",
            Self::Open { .. } => "an opening",
            Self::Prompt(_) => "a prompt",
            Self::Hidden(_) => "a hidden state",
            Self::Token(_) => "a token",
            Self::Ack { .. } => "an acknowledgement",
            Self::Credit { .. } => "a credit",
            Self::Close { .. } => "a closing",
            Self::Pause { .. } => "a pause",
            Self::Paused { .. } => "an answer to a pause",
            Self::Resume(_) => "a resumption",
            Self::Resumed { .. } => "an answer to a resumption",
            Self::KvRequest(_) => "a request for a KV cache",
            Self::KvRows(_) => "rows of a KV cache",
            Self::Failed(_) => "a failure",
            Self::Ping { .. } => "a ping",
            Self::Pong { .. } => "a pong",
            Self::Filler(_) => "filler",
            Self::ToHub(_) => "a message to the hub",
            Self::ToAgent(_) => "a message to an agent",
        }
    }
}

/// Who dials a ring link, for which edge of which plan. One of [`NO_RING`] dials to measure the link, and no more.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    pub version: ProtocolVersion,
    pub ring: RingId,
    pub generation: PlanGeneration,
    /// The dialling phone's name.
    pub phone: String,
    pub from_stage: u32,
    pub to_stage: u32,
}

/// A session that moves here from another generation of its ring, at a token boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct Resume {
    pub key: RouteKey,
    /// The next position to compute: KV caches hold what is below.
    pub position: u32,
    pub options: SessionOptions,
    /// Where it was computed until now: the same session in this generation and epoch.
    pub from: PlanGeneration,
    pub from_epoch: Epoch,
}

/// Who asks for which part of a session's KV cache.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KvRequest {
    pub version: ProtocolVersion,
    /// The dialling phone's name.
    pub phone: String,
    /// The session where it was computed.
    pub key: RouteKey,
    pub layers: LayerSpan,
    /// All positions below this one.
    pub n_positions: u32,
}

/// Rows of a session's KV cache: of one layer, for consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvRows {
    /// The session where it was computed.
    pub key: RouteKey,
    pub layer: u32,
    /// The first position.
    pub position: u32,
    pub n_positions: u32,
    /// The keys of all positions, then their values, as they are stored: little-endian words of 4 bytes, so many a row as the type of the ring's
    /// numerics class takes. Both ends are of one class, or the session would be replayed.
    pub values: Bytes,
}

/// Tokens of a session for the head to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub key: RouteKey,
    /// Position of the first token in the session, counted from 0.
    pub position: u32,
    pub tokens: Vec<u32>,
    /// Tokens that the ring may sample before it waits for more credit.
    pub credit: u32,
}

/// The hidden states of consecutive tokens of one session.
///
/// `payload` holds `n_tokens` rows of `hidden_size` values in `dtype`, each f16 row after its exponent.
#[derive(Clone, Debug, PartialEq)]
pub struct Hidden {
    pub key: RouteKey,
    /// Position of the first token in the session, counted from 0.
    pub position: u32,
    pub n_tokens: u32,
    pub dtype: ActivationType,
    pub kind: HiddenKind,
    /// The tail samples the token that follows the last row.
    pub sample: bool,
    pub payload: Bytes,
}

/// What hidden states are of, and so where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HiddenKind {
    /// Of tokens that are decoded: to the next layers.
    #[default]
    Decoding,
    /// Of a prompt in the midst of an encoder: to its next layers. Positions are counted from the prompt's first token.
    Encoding,
    /// Of a prompt that an encoder is done with: straight to every stage with layers that attend to it.
    Encoded,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub key: RouteKey,
    /// The position that this token takes in the session.
    pub position: u32,
    pub token: u32,
    /// No further token follows: an end token, or the session's end position.
    pub finish: Option<Finish>,
    /// Natural logarithm of the token's probability before temperature and truncation.
    pub logprob: f32,
    /// The likeliest tokens with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// Why a ring stops on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end token was sampled.
    Stop,
    /// The session's end position was reached.
    Length,
}

/// Why a stage cannot go on with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub key: RouteKey,
    pub code: FailureCode,
    /// Cause, place and remedy, with the peer's name.
    pub message: String,
}

/// The kinds of failure that a gateway treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    /// The frame named a generation or an epoch that this phone does not hold (any more).
    StaleGeneration,
    /// The connection to a neighbour ended.
    PeerGone,
    /// A neighbour did not answer by the deadline.
    PeerSlow,
    /// Every session slot is taken, or a queue is full.
    Busy,
    /// The computation failed on this phone.
    Compute,
    /// The frame does not fit the session.
    BadFrame,
    /// The KV cache of a session that moves could not be had.
    HandOver,
    /// A step gave hidden states or logits that are no numbers: the model's weights, most likely. Every other phone would get the same.
    NonFinite,
}

impl FailureCode {
    /// Whether the session may be replayed, on this plan or the next.
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::BadFrame | Self::NonFinite)
    }
}
