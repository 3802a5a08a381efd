//! Rows of a segment's KV caches, out of the engine and into it as they are: the bits stay the same.

use std::ops::Range;

use super::{Segment, SegmentError};

// === impl Segment ===

impl Segment {
    /// Values of one position of one layer: a key row and a value row.
    pub fn kv_values_per_position(&self) -> usize {
        2 * self.decoder.layout().kv_width
    }

    /// What one layer has cached for these positions of a slot: the keys of all, then the values of all.
    ///
    /// # Errors
    /// When the layer is not loaded, the positions are not in the cache, or the device fails.
    pub fn read_kv(&mut self, layer: u32, slot: u32, positions: Range<u32>) -> Result<Vec<f32>, SegmentError> {
        let (index, range) = self.find_kv(layer, slot, &positions)?;
        let (k_cache, v_cache) = (self.layers[index].k_cache, self.layers[index].v_cache);
        let mut values = self.engine.read(k_cache, range.clone())?;
        values.extend(self.engine.read(v_cache, range)?);
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
        let (index, range) = self.find_kv(layer, slot, &positions)?;
        let (expected, n_positions) = (2 * range.len(), positions.end - positions.start);
        if values.len() != expected {
            return Err(SegmentError::KvSize { n_positions, actual: values.len(), expected });
        }
        let (keys, values) = values.split_at(range.len());
        self.engine.write(self.layers[index].k_cache, range.start, keys)?;
        self.engine.write(self.layers[index].v_cache, range.start, values)?;
        Ok(())
    }

    /// The layer's place among those loaded, and the values of the positions in each of its two buffers.
    fn find_kv(&self, layer: u32, slot: u32, positions: &Range<u32>) -> Result<(usize, Range<usize>), SegmentError> {
        let held = self.holds.layers;
        if !(held.from..held.to).contains(&layer) {
            return Err(SegmentError::NotLoaded { from: layer, to: layer.saturating_add(1) });
        }
        let (n_slots, n_positions) = (self.decoder.layout().n_slots, self.decoder.layout().n_positions);
        let is_there =
            (slot as usize) < n_slots && positions.start < positions.end && positions.end as usize <= n_positions;
        if !is_there {
            let (from, to) = (positions.start, positions.end);
            return Err(SegmentError::NotCached { slot, from, to, n_slots, n_positions });
        }
        Ok(((layer - held.from) as usize, self.decoder.layout().range(slot, positions.clone())))
    }
}
