//! Rows of a segment's caches, out of the engine and into it as they are: the bits stay the same.

use std::ops::Range;

use polyphony_kernels::{BufferId, KvLayout};

use super::convolution::Convolution;
use super::decoder::Mixer;
use super::{Segment, SegmentError};

// === impl Segment ===

impl Segment {
    /// Words of 4 bytes of one position of `layer`: a key row and a value row, or what a convolution goes over.
    ///
    /// # Errors
    /// When the layer is not loaded.
    pub fn kv_words_per_position(&self, layer: u32) -> Result<usize, SegmentError> {
        let (buffers, layout) = self.caches(layer)?;
        Ok(buffers.len() * layout.row_words())
    }

    /// What one layer has cached for these positions of a slot, in its type: the words of the keys of all, then those of the values of all. They
    /// are moved as f32 and mean nothing as such.
    ///
    /// # Errors
    /// When the layer is not loaded, the positions are not in the cache, or the device fails.
    pub fn read_kv(&mut self, layer: u32, slot: u32, positions: Range<u32>) -> Result<Vec<f32>, SegmentError> {
        let (buffers, range) = self.find_kv(layer, slot, &positions)?;
        let mut values = Vec::with_capacity(buffers.len() * range.len());
        for buffer in buffers {
            values.extend(self.engine.read(buffer, range.clone())?);
        }
        Ok(values)
    }

    /// Puts what [`Segment::read_kv`] gave elsewhere into these positions of this cache.
    ///
    /// # Errors
    /// As [`Segment::read_kv`], and when `values` are not theirs.
    pub fn write_kv(
        &mut self,
        layer: u32,
        slot: u32,
        positions: Range<u32>,
        values: &[f32],
    ) -> Result<(), SegmentError> {
        let (buffers, range) = self.find_kv(layer, slot, &positions)?;
        let (expected, n_positions) = (buffers.len() * range.len(), positions.end - positions.start);
        if values.len() != expected {
            return Err(SegmentError::KvSize { n_positions, actual: values.len(), expected });
        }
        for (buffer, values) in buffers.into_iter().zip(values.chunks_exact(range.len())) {
            self.engine.write(buffer, range.start, values)?;
        }
        Ok(())
    }

    /// The layer's buffers, and the values of the positions in each of them.
    fn find_kv(
        &self,
        layer: u32,
        slot: u32,
        positions: &Range<u32>,
    ) -> Result<(Vec<BufferId>, Range<usize>), SegmentError> {
        let (buffers, layout) = self.caches(layer)?;
        let (n_slots, n_positions) = (layout.n_slots, layout.n_positions);
        let is_there =
            (slot as usize) < n_slots && positions.start < positions.end && positions.end as usize <= n_positions;
        if !is_there {
            let (from, to) = (positions.start, positions.end);
            return Err(SegmentError::NotCached { slot, from, to, n_slots, n_positions });
        }
        Ok((buffers, layout.range(slot, positions.clone())))
    }

    /// The buffers that hold what a layer keeps of its sessions' past, all of one layout.
    fn caches(&self, layer: u32) -> Result<(Vec<BufferId>, KvLayout), SegmentError> {
        let held = self.holds.layers;
        if !held.contains(layer) {
            return Err(SegmentError::NotLoaded { from: layer, to: layer.saturating_add(1) });
        }
        let layout = self.decoder.stream.layout();
        Ok(match &self.decoder.layers[(layer - held.from) as usize].mixer {
            Mixer::Attention(_, cache) => (vec![cache.k, cache.v], layout),
            Mixer::Convolution(it) => (vec![it.cache], Convolution::layout(&self.hyperparameters, layout)),
        })
    }
}
