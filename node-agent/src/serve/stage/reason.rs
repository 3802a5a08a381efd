//! Reasons: why a stage cannot go on with a session, as data. Told in words once, where a failure leaves the phone.

use std::fmt;
use std::time::Duration;

use polyphony_model::LayerRange;
use polyphony_protocol::activation::ActivationError;
use polyphony_protocol::frame::FailureCode;
use polyphony_protocol::session::OptionsError;
use polyphony_protocol::{ActivationType, Epoch, PlanGeneration, RingId};

/// Why a stage cannot go on with a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The frame is of another plan, or of a session or an epoch that is not here.
    Stale {
        ring: RingId,
        generation: PlanGeneration,
    },
    /// The plan that the stage was a part of is gone from this phone.
    Released {
        generation: PlanGeneration,
    },
    Options(OptionsError),
    /// The session would end beyond the room of a slot.
    EndPosition {
        end_position: u32,
        limit: usize,
    },
    /// Every slot is taken.
    Busy {
        n_slots: usize,
    },
    /// A prompt that does not go on where the session is, or leaves no room for an answer.
    Prompt {
        n_tokens: usize,
        position: u32,
        expected: usize,
        end_position: u32,
    },
    /// A token that the embedding has no row for.
    UnknownToken {
        token: u32,
        n_rows: u32,
    },
    /// A token from the tail that does not follow what was computed.
    TokenPosition {
        position: u32,
        expected: u32,
    },
    /// Hidden states that do not follow those before, or are too many.
    Rows {
        found: Rows,
        expected: ExpectedRows,
    },
    Payload(ActivationError),
    /// More rows than the window of a session lets out.
    Overrun {
        limit: usize,
    },
    /// The engine, or what it was given, failed a step.
    Step {
        error: String,
    },
    /// What a step gave are no numbers.
    NonFinite {
        layers: LayerRange,
        of: Numbers,
    },
    PeerLost {
        phone: String,
        cause: String,
    },
    /// The ring answers, but not in time.
    SlowRing {
        next_phone: String,
        deadline: Duration,
    },
    /// Nobody has said a word of the session for so long.
    Idle {
        deadline: Duration,
    },
    /// A hand-over to a place that cannot be.
    Resume {
        position: u32,
        end_position: u32,
        from: PlanGeneration,
        from_epoch: Epoch,
    },
    /// The KV cache of a session that moves here could not be had.
    KvLost {
        cause: String,
    },
    /// The gateway did not say how long the prompt is that an encoder is to read.
    UntoldPrompt {
        n_prompt: u32,
        end_position: u32,
    },
    /// A prompt that an encoder cannot read as a whole.
    PartOfPrompt {
        n_tokens: usize,
        position: u32,
        n_prompt: usize,
        end_position: u32,
    },
    /// Sessions of a model with an encoder do not move.
    Stays,
}

/// Rows that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub position: u32,
    pub n_rows: usize,
    pub dtype: ActivationType,
}

/// Rows that were to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedRows {
    pub position: u32,
    pub max_rows: usize,
    pub dtype: ActivationType,
}

/// What a step gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    HiddenStates,
    EncoderOutput,
    Logits,
}

// === impl Reason ===

impl Reason {
    /// What a gateway does about it.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Stale { .. } | Self::Released { .. } => FailureCode::StaleGeneration,
            Self::Options(_)
            | Self::EndPosition { .. }
            | Self::Prompt { .. }
            | Self::UnknownToken { .. }
            | Self::TokenPosition { .. }
            | Self::Rows { .. }
            | Self::Payload(_)
            | Self::Overrun { .. }
            | Self::Resume { .. }
            | Self::UntoldPrompt { .. }
            | Self::PartOfPrompt { .. } => FailureCode::BadFrame,
            Self::Busy { .. } => FailureCode::Busy,
            Self::Step { .. } => FailureCode::Compute,
            Self::NonFinite { .. } => FailureCode::NonFinite,
            Self::PeerLost { .. } => FailureCode::PeerGone,
            Self::SlowRing { .. } | Self::Idle { .. } => FailureCode::PeerSlow,
            Self::KvLost { .. } | Self::Stays => FailureCode::HandOver,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { ring, generation } => {
                write!(f, "it holds generation {generation} of ring {ring}, and not this session in this epoch of it")
            }
            Self::Released { generation } => write!(f, "generation {generation} was released"),
            Self::Options(error) => write!(f, "the session's options cannot be gone by: {error}"),
            Self::EndPosition { end_position, limit } => {
                write!(f, "the session ends at position {end_position}, there is room for {limit}")
            }
            Self::Busy { n_slots } => write!(f, "all {n_slots} session slots are taken; raise maxSessions or wait"),
            Self::Prompt { n_tokens, position, expected, end_position } => write!(
                f,
                "prompt of {n_tokens} tokens at position {position}; position {expected} expected, and less than {end_position} in all"
            ),
            Self::UnknownToken { token, n_rows } => write!(
                f,
                "token {token} is not in the model's embedding of {n_rows} rows; its tokenizer is not that of its weights, import it anew"
            ),
            Self::TokenPosition { position, expected } => {
                write!(f, "token at position {position}, {expected} expected")
            }
            Self::Rows { found, expected } => write!(
                f,
                "hidden states of {} tokens at position {} in {:?}; position {} in {:?} expected, {} at most",
                found.n_rows, found.position, found.dtype, expected.position, expected.dtype, expected.max_rows
            ),
            Self::Payload(error) => error.fmt(f),
            Self::Overrun { limit } => {
                write!(f, "more than {limit} chunks of the session wait here; the head has to await acknowledgements")
            }
            Self::Step { error } => write!(f, "a step could not be computed: {error}"),
            Self::NonFinite { layers, of } => {
                let of = match of {
                    Numbers::HiddenStates => "hidden states",
                    Numbers::EncoderOutput => "an encoder's output",
                    Numbers::Logits => "logits",
                };
                write!(
                    f,
                    "layers {} to {} gave {of} that are no finite numbers; the model's weights are broken, import it anew",
                    layers.from, layers.to
                )
            }
            Self::PeerLost { phone, cause } => write!(f, "it lost its ring link with {phone}: {cause}"),
            Self::SlowRing { next_phone, deadline } => {
                write!(f, "no answer from the ring for {deadline:?} after a step was handed to {next_phone}")
            }
            Self::Idle { deadline } => write!(f, "nothing was heard of the session for {deadline:?}"),
            Self::Resume { position, end_position, from, from_epoch } => write!(
                f,
                "the session cannot go on at position {position} of {end_position} from epoch {from_epoch} of generation {from}"
            ),
            Self::KvLost { cause } => write!(f, "the session could not be taken over: {cause}"),
            Self::UntoldPrompt { n_prompt, end_position } => write!(
                f,
                "the prompt has {n_prompt} tokens, at least one and less than the end position {end_position} expected; update the gateway"
            ),
            Self::PartOfPrompt { n_tokens, position, n_prompt, end_position } => write!(
                f,
                "prompt of {n_tokens} tokens at position {position}; a prompt is read once as a whole, {n_prompt} tokens at least and less than {end_position} expected"
            ),
            Self::Stays => {
                write!(f, "sessions of an encoder–decoder model are replayed instead of moved")
            }
        }
    }
}
