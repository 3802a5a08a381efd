//! On a GPU: what a step makes the engine keep beside the buffers that it is asked for. As `kernels/src/plan` cuts a step, on a device that takes
//! textures of 8,192 rows and dispatches' parameters at every 64 bytes, as most do.

use super::engine_form::{EngineForm, GROUP, is_quantised};
use super::way::{Kind, Product, Way, Work};
use super::{DISTANCES, Room, STEP_ROWS};
use crate::family::{HeadNorms, NormKind, Positions};
use crate::holds::Holds;
use crate::manifest::Manifest;
use crate::role::Role;

/// Bytes of the buffers that grow with what a step needs, and are never given back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growing {
    params: u64,
    data: u64,
    scratch: u64,
    readback: u64,
}

/// Bytes of a buffer that grows, before it does.
const LEAST_GROWING: u64 = 64 << 10;
/// Bytes of what a dispatch is told.
const PARAM_BYTES: u64 = 64;
/// Rows of a matrix in one texture.
const PART_ROWS: u64 = 8192;
/// Rows of activations of one dispatch.
const PIECE_ROWS: u64 = 4;
/// Bytes of a window on activations, less those that its start may be off by.
const WINDOW_BYTES: u64 = (16 << 10) - 256;

/// Positions of attention whose shares are one sum, workgroups from which on none shares a row's positions with another, and bytes of what
/// comes of parts from which on none does either.
const PART: u64 = 256;
const ENOUGH_WORKGROUPS: u64 = 64;
const MOST_PARTS_BYTES: u64 = 4 << 20;
/// Heads of a row, and rows, that a workgroup takes at most where positions are shared.
const MOST_HEADS: u64 = 4;
const ROWS_TOGETHER: u64 = 2;

/// Groups of columns whose scales share a word, of the type that has the most of them.
const GROUPS_A_SCALE: u64 = 16;

/// What matrices read or norms put out, of one half.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Hidden,
    Normed,
    Beside,
    NormedQuery,
    NormedKey,
    Attended,
    Ffn,
    /// A row for each expert that one has chosen.
    Gated,
    Convolved,
    Encoded,
}

// === impl Growing ===

impl Growing {
    /// What is left after steps of either kind.
    pub fn most(self, other: Self) -> Self {
        Self {
            params: self.params.max(other.params),
            data: self.data.max(other.data),
            scratch: self.scratch.max(other.scratch),
            readback: self.readback.max(other.readback),
        }
    }

    pub fn bytes(self) -> u64 {
        let grown = |bytes: u64| bytes.max(LEAST_GROWING).checked_next_power_of_two().unwrap_or(u64::MAX);
        let all = [self.params, self.data, self.scratch, self.readback].map(grown);
        all.into_iter().fold(0, u64::saturating_add)
    }
}

// === impl Way ===

impl Way<'_> {
    pub(super) fn growing(&self, form: EngineForm) -> Growing {
        let (mut n_dispatches, mut scratch) =
            (self.n_other_ops().saturating_add(self.n_windows_of_queries()), self.parts_bytes());
        for product in self.products() {
            n_dispatches = product.n_dispatches(form).saturating_add(n_dispatches);
            scratch = product.scratch_bytes(form).max(scratch);
        }
        let of = self.of();
        let n_tokens = if self.takes_tokens { 2 * self.n_rows } else { 0 };
        let n_heads = u64::from(of.n_heads);
        let of_heads = match (self.work, of.architecture.family().positions) {
            (Work::Encode, Positions::Buckets) => n_heads * DISTANCES[0],
            (Work::Decode, Positions::Buckets) => n_heads * DISTANCES[1],
            (Work::Decode, Positions::Alibi) => n_heads,
            _ => 0,
        };
        let sinks = if Role::Sinks.is_in(of) { n_heads * u64::from(self.layers.len()) } else { 0 };
        // Slot and position of each; where attention takes several at once, the first and how many; what lengths say.
        let of_rows = self.n_lists_of_lengths().saturating_add(4).saturating_mul(self.n_rows);
        let data = of_rows.saturating_add(n_tokens).saturating_add(self.angles()).saturating_add(of_heads + sinks);
        Growing {
            params: n_dispatches.saturating_mul(PARAM_BYTES),
            data: data.saturating_mul(4),
            scratch,
            readback: self.values_in_and_out().1.saturating_mul(4),
        }
    }
}

impl Way<'_> {
    /// Where queries are looked at by windows: dispatches of attention, of which a layer that decodes has two where there is an encoder.
    fn n_windows_of_queries(&self) -> u64 {
        let row_bytes = 4 * u64::from(self.of().n_heads) * u64::from(self.of().head_size);
        let rows_a_window = WINDOW_BYTES.checked_div(row_bytes).unwrap_or_default();
        let n_windows = self.n_rows.checked_div(rows_a_window).unwrap_or_default().saturating_add(1);
        (2 * u64::from(self.layers.len())).saturating_mul(n_windows)
    }

    /// What comes of parts of the positions, where workgroups share those of a row: of few rows, and of a real GPU alone.
    fn parts_bytes(&self) -> u64 {
        let of = self.of();
        let [n_heads, n_kv_heads, head_size] = [of.n_heads, of.n_kv_heads, of.head_size].map(u64::from);
        let n_parts = self.n_positions.div_ceil(PART);
        let a_row = n_kv_heads * n_heads.checked_div(n_kv_heads).unwrap_or_default().div_ceil(MOST_HEADS);
        let n_rows = ROWS_TOGETHER * (ENOUGH_WORKGROUPS - 1).checked_div(a_row).unwrap_or_default();
        if n_parts < 2 {
            return 0;
        }
        let of_row = n_heads.saturating_mul(n_parts).saturating_mul(16 * (1 + head_size.div_ceil(4)));
        n_rows.min(self.n_rows).saturating_mul(of_row).min(MOST_PARTS_BYTES)
    }

    /// What norms put out in whole groups, and how wide its rows are. Those that take a mean off make nothing.
    fn normed(&self, holds: &Holds) -> impl Iterator<Item = (Place, u64)> {
        let of = self.of();
        let family = of.architecture.family();
        let [hidden, n_heads, n_kv_heads, head_size] =
            [of.hidden_size, of.n_heads, of.n_kv_heads, of.head_size].map(u64::from);
        let is_here = self.work != Work::TakeEncoded;
        let of_rows = is_here && family.norm == NormKind::Rms && hidden.is_multiple_of(GROUP);
        let has_heads = is_here && Role::QueryNorm.is_in(of) && self.joins.iter().any(|joins| joins.queries.is_some());
        let of_heads = |n: u64| {
            let width = if family.head_norms == HeadNorms::All { n * head_size } else { head_size };
            has_heads && width.is_multiple_of(GROUP)
        };
        let places = [
            (of_rows, Place::Normed, hidden),
            (of_rows && Role::AttentionNorm2.is_in(of), Place::Beside, hidden),
            (of_rows && holds.embedding && Role::TokenEmbeddingNorm.is_in(of), Place::Hidden, hidden),
            (of_heads(n_heads), Place::NormedQuery, n_heads * head_size),
            (of_heads(n_kv_heads), Place::NormedKey, n_kv_heads * head_size),
        ];
        places.into_iter().filter(|(is_made, ..)| *is_made).map(|(_, place, width)| (place, width))
    }
}

// === impl Product ===

impl Product {
    fn group_bytes(&self, form: EngineForm) -> u64 {
        form.group_bytes(self.is_quantised && form.is_int8())
    }

    /// Groups of columns that one dispatch multiplies: whole words of scales.
    fn dispatch_groups(&self, form: EngineForm) -> u64 {
        WINDOW_BYTES / self.group_bytes(form) / GROUPS_A_SCALE * GROUPS_A_SCALE
    }

    /// Those of the product, and one before it that makes what it reads.
    fn n_dispatches(&self, form: EngineForm) -> u64 {
        let n_groups = self.n_in.div_ceil(GROUP);
        let n_cuts = n_groups.div_ceil(self.dispatch_groups(form));
        let (n_pieces, n_matrix_rows) = match self.of {
            Kind::Plain | Kind::GateUp => (self.n_rows.div_ceil(PIECE_ROWS), self.n_out),
            Kind::OfExperts { n_experts, n_chosen, is_apart } => {
                let at_once = self.dispatch_groups(form) / n_groups.max(1);
                let at_once = if is_apart { at_once.clamp(1, n_chosen.max(1)) } else { n_chosen.max(1) };
                (self.n_rows.saturating_mul(n_chosen.div_ceil(at_once)), self.n_out.saturating_mul(n_experts))
            }
        };
        let n_parts = n_matrix_rows.div_ceil(PART_ROWS);
        n_pieces.saturating_mul(n_parts).saturating_mul(n_cuts).saturating_add(1)
    }

    /// Sums that wait for more columns.
    fn scratch_bytes(&self, form: EngineForm) -> u64 {
        if self.n_in.div_ceil(GROUP) <= self.dispatch_groups(form) {
            return 0;
        }
        4 * match self.of {
            Kind::Plain | Kind::GateUp => PIECE_ROWS * self.n_out.min(PART_ROWS),
            Kind::OfExperts { n_chosen, .. } => n_chosen.saturating_mul(self.n_out),
        }
    }
}

// === impl Manifest ===

impl Manifest {
    /// Bytes of what is made of activations before they are multiplied: of each buffer that matrices read, in each form that one asks for, and
    /// in 8 bits of each that a norm puts out, whoever reads it.
    pub(super) fn made_bytes(&self, ways: &[Way<'_>], holds: &Holds, room: Room, form: EngineForm) -> u64 {
        let of = &self.hyperparameters;
        let n_encoding = of.encoder.map_or(0, |encoder| encoder.n_layers);
        let mut made: Vec<(bool, Place, bool)> = Vec::new();
        let mut sum = 0_u64;
        let mut make = |encodes: bool, place: Place, of_bytes: bool, width: u64| {
            if made.contains(&(encodes, place, of_bytes)) {
                return;
            }
            made.push((encodes, place, of_bytes));
            let n_rows = if encodes || place == Place::Encoded { room.context_length } else { STEP_ROWS };
            let n_chosen = of.experts.filter(|_| place == Place::Gated).map_or(1, |experts| experts.n_chosen);
            let n_rows = u64::from(n_rows).saturating_mul(u64::from(n_chosen));
            sum = sum.saturating_add(form.made_bytes(n_rows, width, of_bytes));
        };
        for tensor in self.tensors_of(holds) {
            let (Some(place), Some(&width)) = (self.place(tensor.role, holds), tensor.shape.first()) else { continue };
            let of_bytes = form.is_int8() && is_quantised(tensor.tensor_type);
            if of_bytes || !width.is_multiple_of(GROUP) {
                let encodes = tensor.layer.is_some_and(|layer| layer < n_encoding);
                make(encodes, place, of_bytes, width);
            }
        }
        if form.is_int8() {
            for way in ways {
                way.normed(holds).for_each(|(place, width)| make(way.work == Work::Encode, place, true, width));
            }
        }
        sum
    }

    /// What a matrix of this role reads; `None` of what is no matrix, or only looked up.
    fn place(&self, role: Role, holds: &Holds) -> Option<Place> {
        use Role::*;
        let of = &self.hyperparameters;
        Some(match role {
            TokenEmbedding if !(holds.head && of.tied_embedding) => return None,
            Output | TokenEmbedding | CrossQuery => Place::Normed,
            FfnGate | FfnUp | Router | ExpertGate | ExpertUp if AttentionNorm2.is_in(of) => Place::Beside,
            Query | Key | Value | QueryKeyValue | FfnGate | FfnUp | Router | ExpertGate | ExpertUp | ConvInput => {
                if AttentionNorm.is_in(of) {
                    Place::Normed
                } else {
                    Place::Hidden
                }
            }
            AttentionOutput | CrossOutput => Place::Attended,
            FfnDown => Place::Ffn,
            ExpertDown => Place::Gated,
            ConvOutput => Place::Convolved,
            CrossKey | CrossValue => Place::Encoded,
            _ => return None,
        })
    }
}
