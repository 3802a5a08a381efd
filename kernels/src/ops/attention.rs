//! Attention of the step's rows over their slots' caches (Vaswani et al. 2017; grouped heads: arXiv 2305.13245).

use std::ops::Range;

use crate::ops::Operation;
use crate::ops::kv_write::check_caches;
use crate::plan::{Binding, Plan, WINDOW_BYTES};
use crate::recording::{BufferId, KvLayout, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Heads, PART, Queries, Text, Variant};

/// The largest head size that the kernels hold in registers.
pub const MAX_HEAD_SIZE: usize = 256;

/// The parameters of `wgsl/attention.wgsl`, as they stand there.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n_heads: u32,
    heads_a_group: u32,
    head_size: u32,
    n_positions: u32,
    window: u32,
    scale: f32,
    cap: f32,
    tiles_at: u32,
    lengths_at: u32,
    bias_at: u32,
    n_before: u32,
    n_after: u32,
    sinks_at: u32,
    row_words: u32,
    /// Where the queries lie in their window; or where positions are split, the first part, and how many there are.
    place: [u32; 2],
}

/// Heads that a workgroup takes at most.
const MOST_HEADS: usize = 4;
/// Workgroups that keep a GPU busy: where there are fewer, positions are split; unless what comes of the parts takes more bytes than this.
const ENOUGH_WORKGROUPS: usize = 64;
const MOST_PARTS_BYTES: usize = 4 << 20;
/// In place of `n_before`: the bias is a slope.
const SLOPES: u32 = u32::MAX;

/// What is added to a scaled score, by head h, position seen p and the row's own position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PositionBias {
    /// slopes\[h\] · (p − position): ALiBi (Press et al. 2021, arXiv 2108.12409), a vector of `n_heads`.
    Slopes(VectorId),
    /// table\[h\]\[clamp(p − position, −`n_before`, `n_after`) + `n_before`\]: biases learned for distances (Raffel et al. 2019, arXiv
    /// 1910.10683, whose buckets have an end), a vector of `n_heads` × (`n_before` + 1 + `n_after`).
    Distances { table: VectorId, n_before: u32, n_after: u32 },
}

/// `out[r][h] = Σₚ softmaxₚ(scale · q[r][h] · k_cache[slot][p][g]) · v_cache[slot][p][g]`, where g = h ÷ (n_heads ÷ n_kv_heads)
/// and p runs over the positions 0 to the row's own, or the last `window` of them, or those that `lengths` says. With a `cap` c a score s is
/// c · tanh(s / c) instead; with a `bias` the score of each position is what it says higher. With `sinks` the softmax of head h has e^sinks\[h\]
/// in its denominator, too: a position that is seen and has no value. Keys and values are what the layout's type has kept of them.
///
/// `q` and `out` are `[rows][n_heads][head_size]`. Rows see what a `KvWrite` before it in the recording wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub q: BufferId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
    /// `kv_width` is `n_kv_heads` × `head_size`.
    pub layout: KvLayout,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// At most 256.
    pub head_size: usize,
    pub scale: f32,
    /// Above 0.
    pub cap: Option<f32>,
    /// Positions seen, the row's own included; `None`: all.
    pub window: Option<u32>,
    /// For every row how many positions it sees, from 0 on, whatever its own: for encoders and for attention to what they put out.
    pub lengths: Option<Vec<u32>>,
    pub bias: Option<PositionBias>,
    /// `[n_heads]`.
    pub sinks: Option<VectorId>,
    /// Not `q`.
    pub out: BufferId,
}

impl Attention {
    /// The positions that row number `index` of the step sees.
    pub(crate) fn seen(&self, index: usize, row: Row) -> Range<u32> {
        match &self.lengths {
            Some(lengths) => 0..lengths[index],
            None => {
                let end = row.position + 1;
                self.window.map_or(0, |window| end.saturating_sub(window))..end
            }
        }
    }
}

impl Operation for Attention {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        let Self { n_heads, n_kv_heads, head_size, .. } = *self;
        let held = (1..=MAX_HEAD_SIZE).contains(&head_size);
        require(held, "head_size", format_args!("1 to {MAX_HEAD_SIZE}"), head_size)?;
        require(n_kv_heads > 0, "n_kv_heads", "at least 1", n_kv_heads)?;
        require(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "n_heads",
            format_args!("a multiple of {n_kv_heads} key heads"),
            n_heads,
        )?;
        let kv_width = n_kv_heads.saturating_mul(head_size);
        require(self.layout.kv_width == kv_width, "layout.kv_width", kv_width, self.layout.kv_width)?;
        require(self.window != Some(0), "window", "at least 1", 0)?;
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        let cap = self.cap.unwrap_or(1.0);
        require(cap.is_finite() && cap > 0.0, "cap", "finite and over 0", cap)?;
        if let Some(sinks) = self.sinks {
            shapes.require_vector("sinks", sinks, n_heads)?;
        }
        match &self.lengths {
            // Only the slots count: a row's own position may be beyond what it sees.
            Some(lengths) => {
                require(self.window.is_none(), "window", "none beside lengths", "one")?;
                require(
                    lengths.len() == rows.len(),
                    "lengths",
                    format_args!("one of {} rows", rows.len()),
                    lengths.len(),
                )?;
                for &length in lengths {
                    let held = length > 0 && length as usize <= self.layout.n_positions;
                    require(held, "lengths", format_args!("1 to {}", self.layout.n_positions), length)?;
                }
                let firsts: Vec<Row> = rows.iter().map(|row| Row { slot: row.slot, position: 0 }).collect();
                check_caches(shapes, self.layout, &firsts, self.k_cache, self.v_cache)?;
            }
            None => check_caches(shapes, self.layout, rows, self.k_cache, self.v_cache)?,
        }
        match self.bias {
            None => {}
            Some(PositionBias::Slopes(slopes)) => shapes.require_vector("bias", slopes, n_heads)?,
            Some(PositionBias::Distances { table, n_before, n_after }) => {
                let n_distances = (n_before as usize).saturating_add(n_after as usize).saturating_add(1);
                shapes.require_vector("bias", table, n_heads.saturating_mul(n_distances))?;
            }
        }
        shapes.require_rows("q", self.q, rows.len(), n_heads.saturating_mul(head_size))?;
        shapes.require_rows("out", self.out, rows.len(), n_heads.saturating_mul(head_size))?;
        require_apart(self.out, &[self.q, self.k_cache, self.v_cache])
    }

    /// A workgroup some heads of a row, or of a few rows of a slot, and of these a part of the positions where workgroups would be few. Where
    /// queries are looked at by windows, as many rows a dispatch as fit.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let row_width = self.n_heads * self.head_size;
        let rows_a_window = (WINDOW_BYTES - plan.facts.uniform_alignment) as usize / (row_width * size_of::<f32>());
        let heads = match self.head_size.is_multiple_of(4) {
            false => Heads::Singles,
            true if plan.facts.is_software && rows_a_window > 0 => Heads::WindowedQuads,
            true => Heads::Quads,
        };
        let is_windowed = heads == Heads::WindowedQuads;
        let most_rows = if plan.facts.tuning.queries_together { Queries::rows_at_most(heads) } else { 1 };
        let rows_a_dispatch = if is_windowed { rows_a_window } else { plan.rows.len() };
        let (tiles, mut tiles_at) = plan.tiles(most_rows as usize, rows_a_dispatch);
        // Whoever has one row a slot takes one.
        let n_rows = if tiles.iter().any(|tile| tile.len() > 1) { most_rows } else { 1 };
        let heads_a_group = self.n_heads / self.n_kv_heads;
        let workgroups_a_group = heads_a_group.div_ceil(MOST_HEADS);
        let n_heads = heads_a_group.div_ceil(workgroups_a_group);
        let workgroups = self.n_kv_heads * workgroups_a_group;
        let seen = || plan.rows.iter().enumerate().map(|(index, row)| self.seen(index, *row));
        let first_part = seen().map(|seen| seen.start as usize / PART).min().unwrap_or(0);
        let n_parts = seen().map(|seen| (seen.end as usize).div_ceil(PART)).max().unwrap_or(1) - first_part;
        let (n_step_rows, head_quads) = (plan.rows.len(), self.head_size.div_ceil(4));
        // f32 values: fours of a head, and one four more.
        let parts_len = n_step_rows * self.n_heads * n_parts * (1 + head_quads) * 4;
        // A processor that plays the GPU has too few threads to gain by it.
        let may_split = !plan.facts.is_software && plan.facts.tuning.positions_split;
        let is_split = may_split
            && n_parts > 1
            && workgroups * tiles.len() < ENOUGH_WORKGROUPS
            && parts_len * size_of::<f32>() <= MOST_PARTS_BYTES;
        let kv_type = self.layout.kv_type;
        let variant = Variant::Attention(Queries { kv_type, n_heads: n_heads as u32, n_rows, heads, is_split });

        let lengths_at = self.lengths.as_ref().map_or(0, |lengths| plan.put(lengths.iter().copied()));
        let (bias_at, n_before, n_after) = match self.bias {
            None => (0, 0, 0),
            Some(PositionBias::Slopes(slopes)) => (plan.vector_data(slopes), SLOPES, 0),
            Some(PositionBias::Distances { table, n_before, n_after }) => (plan.vector_data(table), n_before, n_after),
        };
        let sinks_at = self.sinks.map_or(0, |sinks| plan.vector_data(sinks));
        let window = self.window.unwrap_or(0);
        for tiles in tiles.chunk_by(|one, next| one.start / rows_a_dispatch == next.start / rows_a_dispatch) {
            let first_row = tiles[0].start;
            let (queries, place) = if is_windowed {
                let (window, at) = plan.window(self.q, first_row * row_width);
                (window, [at.wrapping_sub((first_row * row_width / 4) as u32), 0])
            } else {
                (Binding::Read(self.q), [first_part as u32, n_parts as u32])
            };
            let params = Params {
                n_heads: self.n_heads as u32,
                heads_a_group: heads_a_group as u32,
                head_size: self.head_size as u32,
                n_positions: self.layout.n_positions as u32,
                window,
                scale: self.scale,
                cap: self.cap.unwrap_or(0.0),
                tiles_at,
                lengths_at,
                bias_at,
                n_before,
                n_after,
                sinks_at,
                row_words: self.layout.row_words() as u32,
                place,
            };
            plan.dispatch(
                variant,
                &bytemuck::cast::<Params, [u32; 16]>(params),
                &[
                    (1, Binding::Data),
                    (2, queries),
                    (3, Binding::Read(self.k_cache)),
                    (4, Binding::Read(self.v_cache)),
                    (5, if is_split { Binding::Scratch } else { Binding::Write(self.out) }),
                ],
                [(workgroups * if is_split { n_parts } else { 1 }) as u32, tiles.len() as u32],
            );
            tiles_at += 2 * tiles.len() as u32;
        }
        if is_split {
            plan.scratch_len = plan.scratch_len.max(parts_len);
            let [n_heads, head_size, first_part, n_parts] =
                [self.n_heads, self.head_size, first_part, n_parts].map(|n| n as u32);
            let params = [n_heads, head_size, window, lengths_at, sinks_at, first_part, n_parts];
            let bindings = [(1, Binding::Data), (2, Binding::Scratch), (3, Binding::Write(self.out))];
            let variant = Variant::Plain(Text::AttentionParts);
            plan.dispatch_lanes(variant, &params, &bindings, self.n_heads * head_quads, n_step_rows);
        }
        Ok(())
    }
}
