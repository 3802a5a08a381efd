//! Plans: a recording as GPU dispatches, still plain data. Touches no device.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

pub(crate) mod products;

use crate::engine::Arithmetic;
use crate::ops::pad_rows::PadRows;
use crate::ops::quantise_rows::{QUANTISED_GROUP_BYTES, QuantiseRows};
use crate::ops::rope::Turn;
use crate::packing::GROUP;
use crate::recording::{BufferId, MatrixId, Recording, Row, VectorId};
use crate::shapes::{MatrixShape, ShapeError, Shapes};
use crate::vulkan::tuning::Tuning;
use crate::wgsl::{Lanes, Variant, WeightSource, Weights};

/// Bytes of a word of weights: a texel.
pub(crate) const WORD: usize = 16;

/// What of the device decides how work is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub tuning: Tuning,
    pub arithmetic: Arithmetic,
    pub source: WeightSource,
    /// Whether the processor plays the GPU: storage buffers are slow to read, and nothing multiplies four bytes at once, so that two rows of
    /// 4 bits share a multiplication.
    pub is_software: bool,
    /// Lanes of a workgroup that shares nothing.
    pub workgroup: u32,
    /// Bytes: where a window of a uniform buffer may start.
    pub uniform_alignment: u32,
    /// Bytes of one storage binding.
    pub max_storage: u64,
    /// Texels of an image's side.
    pub max_texture: u32,
}

impl Facts {
    /// Rows of a matrix that one image or binding holds; 0 when not even one fits.
    pub fn part_rows(&self, shape: MatrixShape) -> usize {
        let words = shape.layout(WORD).row_bytes() / WORD;
        match self.source {
            WeightSource::Image if words > self.max_texture as usize => 0,
            WeightSource::Image => shape.n_rows.min(self.max_texture as usize),
            // A grid has at most 65,535 workgroups, and one takes eight rows at least.
            // Whole fours, so that no lane's rows lie in two parts.
            WeightSource::Storage => shape.n_rows.min(self.max_storage as usize / (words * WORD) / 4 * 4).min(1 << 18),
        }
    }

    /// How the rows of a matrix are dealt out by one of its kernels.
    pub fn lanes(&self, kernel: impl Fn(Lanes) -> Variant, n_tokens: u32, n_rows: usize) -> Lanes {
        let lanes = self.tuning.lanes(n_tokens, n_rows);
        match kernel(lanes) {
            // A gate and its up are of one lane.
            Variant::GateUp(_) => Lanes { n_rows: lanes.n_rows.max(2), ..lanes },
            _ => lanes,
        }
    }
}

/// The parameters of one dispatch: what a kernel's `Params` holds, 4 bytes each.
pub(crate) type Params = [u32; 16];

/// One dispatch of one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub variant: Variant,
    pub params: Params,
    /// Binding number and what is bound; number 0 is the parameters.
    pub bindings: Vec<(u32, Binding)>,
    /// Workgroups in x and y.
    pub workgroups: [u32; 2],
}

/// What a kernel's binding is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Binding {
    /// The plan's own data: token rows, tokens, angles.
    Data,
    Read(BufferId),
    Write(BufferId),
    Vector(VectorId),
    /// A part of a matrix, counted from 0.
    Weights(MatrixId, u32),
    /// A uniform window of [`WINDOW_BYTES`] from this byte on, which is aligned.
    Window(BufferId, u32),
    /// What is made of a buffer's rows, to write.
    Made(BufferId, Form),
    /// A uniform window on it, as `Window`.
    MadeWindow(BufferId, Form, u32),
    /// Sums that wait for more columns.
    Scratch,
    /// A read binding that this dispatch does not look at.
    Unread,
}

/// What is made of rows before they are multiplied, each in a buffer beside that of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Activations of 8 bits, as `ops/quantise_rows.rs` says.
    Bytes,
    /// f32 in whole groups, as `ops/pad_rows.rs` says.
    Padded,
}

/// Rows of a step that are computed together.
pub(crate) type Tiles = Rc<[Range<usize>]>;

/// Rows of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub first: usize,
    pub n: usize,
    pub width: usize,
}

/// Bytes of a uniform window: what every Vulkan device allows.
pub(crate) const WINDOW_BYTES: u32 = 16 << 10;

/// The dispatches of a recording, in order, and the data they read.
pub(crate) struct Plan<'a> {
    pub facts: Facts,
    pub shapes: &'a Shapes,
    pub vectors: &'a [Box<[f32]>],
    pub rows: &'a [Row],
    pub data: Vec<u32>,
    pub dispatches: Vec<Dispatch>,
    /// f32 values of scratch that some dispatch needs.
    pub scratch_len: usize,
    /// Bytes of what is made of buffers.
    pub room: HashMap<(BufferId, Form), u64>,
    /// Where the tiles of rows lie, by how they are cut: layers that cut alike share theirs.
    tiles: Vec<([usize; 2], Tiles, u32)>,
    /// Where the angles of turns lie: layers that turn alike share theirs.
    angles: Vec<(Turn, u32)>,
    /// Where vectors lie in the data that kernels with no binding to spare read there.
    vector_data: HashMap<VectorId, u32>,
    /// The rows of buffers of which something is made that is still true.
    made: HashMap<(BufferId, Form), Rows>,
}

impl<'a> Plan<'a> {
    /// Plans a recording that has passed its check.
    pub fn new(
        facts: Facts,
        shapes: &'a Shapes,
        vectors: &'a [Box<[f32]>],
        recording: &'a Recording,
    ) -> Result<Self, (usize, ShapeError)> {
        let mut plan = Plan {
            facts,
            shapes,
            vectors,
            rows: &recording.rows,
            // The token rows come first, at 0.
            data: recording.rows.iter().flat_map(|row| [row.slot, row.position]).collect(),
            dispatches: Vec::new(),
            scratch_len: 0,
            room: HashMap::new(),
            tiles: Vec::new(),
            angles: Vec::new(),
            vector_data: HashMap::new(),
            made: HashMap::new(),
        };
        for (index, op) in recording.ops.iter().enumerate() {
            op.operation().plan(&mut plan).map_err(|error| (index, error))?;
        }
        Ok(plan)
    }

    /// Appends data and says where it lies.
    pub fn put(&mut self, data: impl IntoIterator<Item = u32>) -> u32 {
        let at = self.data.len() as u32;
        self.data.extend(data);
        at
    }

    /// Where the values of a vector lie in the data, put there once for all layers alike.
    pub fn vector_data(&mut self, vector: VectorId) -> u32 {
        if let Some(at) = self.vector_data.get(&vector) {
            return *at;
        }
        let values = self.vectors[vector.0 as usize].iter();
        let at = self.put(values.map(|value| value.to_bits()));
        self.vector_data.insert(vector, at);
        at
    }

    /// The rows of the step in tiles of at most `most`, each of one slot and of one dispatch, and where they lie: of each the first row, and how many.
    pub fn tiles(&mut self, most: usize, rows_a_dispatch: usize) -> (Tiles, u32) {
        let cut = [most, rows_a_dispatch];
        if let Some((_, tiles, at)) = self.tiles.iter().find(|(known, ..)| *known == cut) {
            return (tiles.clone(), *at);
        }
        let mut tiles: Vec<Range<usize>> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            match tiles.last_mut() {
                Some(tile)
                    if tile.len() < most
                        && !at.is_multiple_of(rows_a_dispatch)
                        && self.rows[tile.start].slot == row.slot =>
                {
                    tile.end += 1;
                }
                _ => tiles.push(at..at + 1),
            }
        }
        let at = self.put(tiles.iter().flat_map(|tile| [tile.start as u32, tile.len() as u32]).collect::<Vec<_>>());
        let tiles: Tiles = tiles.into();
        self.tiles.push((cut, tiles.clone(), at));
        (tiles, at)
    }

    /// Where the angles of a turn lie, computed once for all layers alike.
    pub fn angles(&mut self, turn: &Turn) -> u32 {
        if let Some((_, at)) = self.angles.iter().find(|(known, _)| known == turn) {
            return *at;
        }
        let at = self.put(turn.angles(self.rows).into_iter().map(f32::to_bits));
        self.angles.push((turn.clone(), at));
        at
    }

    /// Appends a dispatch of `lanes` lanes for each of `n_rows` rows. Workgroups are one-dimensional, the grid has a row a row.
    pub fn dispatch_lanes(
        &mut self,
        variant: Variant,
        params: &[u32],
        bindings: &[(u32, Binding)],
        lanes: usize,
        n_rows: usize,
    ) {
        let workgroups = [(lanes as u32).div_ceil(self.facts.workgroup), n_rows as u32];
        self.dispatch(variant, params, bindings, workgroups);
    }

    /// Appends a dispatch.
    pub fn dispatch(&mut self, variant: Variant, params: &[u32], bindings: &[(u32, Binding)], workgroups: [u32; 2]) {
        for (_, binding) in bindings {
            if let Binding::Write(buffer) = binding {
                self.made.remove(&(*buffer, Form::Bytes));
                self.made.remove(&(*buffer, Form::Padded));
            }
        }
        let mut padded = Params::default();
        padded[..params.len()].copy_from_slice(params);
        self.dispatches.push(Dispatch { variant, params: padded, bindings: bindings.to_vec(), workgroups });
    }

    /// The variant's weights for a matrix.
    pub fn weights(&self, shape: MatrixShape) -> Weights {
        Weights { packing: shape.weight_type.packing(), source: self.facts.source }
    }

    /// Makes this of these rows unless it is made already.
    pub fn make(&mut self, form: Form, x: BufferId, rows: Rows) {
        let held = self.made.get(&(x, form)).is_some_and(|held| {
            held.width == rows.width && held.first <= rows.first && rows.first + rows.n <= held.first + held.n
        });
        if held {
            return;
        }
        let Rows { first: first_row, n: n_rows, width } = rows;
        match form {
            Form::Bytes => QuantiseRows { x, first_row, n_rows, width }.plan(self),
            Form::Padded => PadRows { x, first_row, n_rows, width }.plan(self),
        }
        self.is_made(form, x, rows);
    }

    /// Takes note that the last dispatch made this of these rows.
    pub fn is_made(&mut self, form: Form, x: BufferId, rows: Rows) {
        self.made.insert((x, form), rows);
        // For as many rows as the buffer may hold: a later step may have more than this one.
        let n_rows = self.shapes.buffer("x", x).map_or(0, |len| len / rows.width);
        let n_bytes = (n_rows * rows.width.div_ceil(GROUP) * form.group_bytes()) as u64;
        let room = self.room.entry((x, form)).or_default();
        *room = n_bytes.max(*room);
    }

    /// As [`Self::window`], on what is made of the buffer; `at` is a multiple of 32.
    pub fn made_window(&self, form: Form, buffer: BufferId, at: usize) -> (Binding, u32) {
        let byte = (at / GROUP * form.group_bytes()) as u32;
        let start = byte / self.facts.uniform_alignment * self.facts.uniform_alignment;
        (Binding::MadeWindow(buffer, form, start), (byte - start) / 16)
    }

    /// A window on what a product takes of a buffer: the rows themselves, or what is made of them.
    pub fn row_window(&self, form: Option<Form>, buffer: BufferId, at: usize) -> (Binding, u32) {
        match form {
            Some(form) => self.made_window(form, buffer, at),
            None => self.window(buffer, at),
        }
    }

    /// A window on a buffer from value `at` on, and where in the window that value lies, in vec4. `at` is a multiple of 4.
    pub fn window(&self, buffer: BufferId, at: usize) -> (Binding, u32) {
        let byte = at as u32 * 4;
        let start = byte / self.facts.uniform_alignment * self.facts.uniform_alignment;
        (Binding::Window(buffer, start), (byte - start) / 16)
    }
}

// === impl Form ===

impl Form {
    /// Bytes that 32 values take.
    pub fn group_bytes(self) -> usize {
        match self {
            Form::Bytes => QUANTISED_GROUP_BYTES,
            Form::Padded => GROUP * 4,
        }
    }

    /// The same, of rows of which nothing may have to be made.
    pub fn group_bytes_of(form: Option<Form>) -> usize {
        form.map_or(GROUP * 4, Form::group_bytes)
    }
}

#[cfg(test)]
mod tests;
