//! Footprint: the memory that a segment takes besides its weights. One formula for the planner and for the phone.

use crate::holds::Holds;
use crate::hyperparameters::Hyperparameters;
use crate::kv_type::KvType;
use crate::role::Role;

/// Token rows of one step: the prefill chunk of every ring.
pub const STEP_ROWS: u32 = 32;
/// The most chunks of a session that may be on their way through a ring at a time.
pub const MAX_CHUNKS: u32 = 8;
/// Bytes of a piece of a KV cache on its way to another phone, and how many may wait at a segment each way.
pub const CACHE_PIECE_BYTES: u64 = 256 << 10;
pub const CACHE_PIECES: u32 = 2;
/// Bytes of a value of an activation: f32. On a wire they are no more.
pub const VALUE_BYTES: u32 = 4;

/// What a segment has to have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sessions held at a time.
    pub n_sessions: u32,
    /// Tokens of each.
    pub context_length: u32,
}

/// Rows of prompts, and of an encoder's output for them, that a stage of an encoder–decoder model may hold at a time. Its queues are bounded
/// by this, and it declares memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptRows {
    /// Of each session here: rows that come, or all of them while they wait for their step; and what comes out of the one that runs.
    pub held: u64,
    /// Rows that go out to other stages, or have come before their session: no stage has both.
    pub passing: u64,
}

// === impl Room ===

impl Room {
    /// What may be held of prompts where they are encoded.
    pub fn prompt_rows(self) -> PromptRows {
        let of_sessions = u64::from(self.n_sessions).saturating_mul(u64::from(self.context_length));
        PromptRows { held: of_sessions.saturating_add(u64::from(self.context_length)), passing: of_sessions }
    }

    /// Rows of [`MAX_CHUNKS`] chunks a session: what may wait at a stage, computed or not. A session has no more rows than positions.
    pub fn chunk_rows(self) -> u64 {
        u64::from(self.n_sessions).saturating_mul(u64::from((MAX_CHUNKS * STEP_ROWS).min(self.context_length)))
    }
}

impl PromptRows {
    /// Both kinds.
    pub fn all(self) -> u64 {
        self.held.saturating_add(self.passing)
    }
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Bytes of one layer's KV cache for all sessions; in an encoder–decoder model as much again for the encoder's output.
    pub fn kv_bytes_per_layer(&self, room: Room, kv_type: KvType) -> u64 {
        let n_caches = if self.encoder.is_some() { 2 } else { 1 };
        self.kv_bytes_per_token_per_layer(kv_type)
            .saturating_mul(n_caches)
            .saturating_mul(u64::from(room.n_sessions))
            .saturating_mul(u64::from(room.context_length))
    }

    /// Bytes of the activations of one step: hidden state, its norm, query and its result, key, value, gate, up and their
    /// product (of each expert that is chosen), and what the family has besides, for [`STEP_ROWS`] rows, where prompts are encoded for all rows of one; on the tail the
    /// logits of one row a session. In an encoder–decoder model [`Room::prompt_rows`] besides, and the keys and values of one prompt.
    /// Then what may wait here: hidden states of [`Room::chunk_rows`], and pieces of KV caches that move.
    pub fn activation_bytes(&self, is_tail: bool, room: Room) -> u64 {
        let row = 2 * u64::from(self.hidden_size)
            + 2 * u64::from(self.n_heads) * u64::from(self.head_size)
            + 2 * u64::from(self.n_kv_heads) * u64::from(self.head_size)
            + self.feed_forward_values()
            + self.family_values();
        let logits = if is_tail { u64::from(self.vocab_size) * u64::from(room.n_sessions.min(STEP_ROWS)) } else { 0 };
        let n_rows = if self.encoder.is_some() { STEP_ROWS.saturating_add(room.context_length) } else { STEP_ROWS };
        let rows = row.saturating_mul(u64::from(n_rows)).saturating_add(self.encoded_values(room));
        let waiting = u64::from(self.hidden_size).saturating_mul(room.chunk_rows());
        let values = rows.saturating_add(logits).saturating_add(waiting);
        values.saturating_mul(u64::from(VALUE_BYTES)).saturating_add(2 * u64::from(CACHE_PIECES) * CACHE_PIECE_BYTES)
    }

    /// Values of a row from gate and way up to what is added to the hidden state: of experts those of each that is chosen, of all their logits,
    /// and of the chosen their numbers and shares.
    fn feed_forward_values(&self) -> u64 {
        let ffn = 3 * u64::from(self.ffn_size);
        self.experts.map_or(ffn, |of| {
            u64::from(of.n_experts) + u64::from(of.n_chosen) * (ffn + u64::from(self.hidden_size) + 2)
        })
    }

    /// Values of a row that not every family has: queries and keys after their norms, what a sub-layer gives before it is added, and the norm
    /// that the feed-forward network takes beside attention's; what goes into a convolution, in three parts, and what comes of it.
    fn family_values(&self) -> u64 {
        let heads = u64::from(self.n_heads).saturating_add(u64::from(self.n_kv_heads)) * u64::from(self.head_size);
        let n_hidden = u64::from(self.adds_apart())
            + u64::from(Role::AttentionNorm2.is_in(self))
            + if self.convolutions.is_some() { 4 } else { 0 };
        let normed_heads = if Role::QueryNorm.is_in(self) { heads } else { 0 };
        n_hidden * u64::from(self.hidden_size) + normed_heads
    }

    fn encoded_values(&self, room: Room) -> u64 {
        if self.encoder.is_none() {
            return 0;
        }
        let hidden = u64::from(self.hidden_size).saturating_mul(room.prompt_rows().all());
        let key_and_value = 2 * u64::from(self.n_kv_heads) * u64::from(self.head_size);
        hidden.saturating_add(key_and_value.saturating_mul(u64::from(room.context_length)))
    }

    /// Bytes that a segment takes besides its weights.
    pub fn working_bytes(&self, holds: &Holds, room: Room, kv_type: KvType) -> u64 {
        let kv = self.kv_bytes_per_layer(room, kv_type).saturating_mul(u64::from(holds.layers.len()));
        kv.saturating_add(self.activation_bytes(holds.head, room))
    }
}
