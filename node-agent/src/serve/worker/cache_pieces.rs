//! Pieces of KV caches, out of the segment for a phone that takes a session over, and into it for one that comes.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use polyphony_protocol::RouteKey;
use polyphony_protocol::frame::KvRows;

use super::Worker;
use crate::serve::kv_transfer::PIECE_BYTES;

// === impl Worker ===

impl Worker {
    /// As many of the positions as make a piece, if this stage has computed all that is asked for.
    pub(super) fn read_kv(
        &mut self,
        index: usize,
        key: RouteKey,
        n_positions: u32,
        layer: u32,
        positions: Range<u32>,
    ) -> Result<KvRows, String> {
        let segment = self.owned.segment.with_movable_cache().map_err(|error| error.to_string())?;
        let Some(kept) = self.stages[index].stage.kept(key, n_positions) else {
            return Err(format!("it has not computed {n_positions} positions of session {}", key.session));
        };
        if !kept.layers.contains(layer) || positions.end > n_positions {
            return Err(format!("layer {layer} up to position {} is not this stage's", positions.end));
        }
        let words_per_position = segment.kv_words_per_position(layer).map_err(|error| error.to_string())?;
        let bytes_per_position = words_per_position * 4;
        let per_piece = u32::try_from((PIECE_BYTES / bytes_per_position).max(1)).unwrap_or(u32::MAX);
        let position = positions.start;
        let end = positions.end.min(position.saturating_add(per_piece));
        let values = segment.read_kv(layer, kept.slot, position..end).map_err(|error| error.to_string())?;
        Ok(KvRows { key, layer, position, n_positions: end - position, values: bytes_of(&values) })
    }

    pub(super) fn write_kv(&mut self, index: usize, key: RouteKey, rows: &KvRows) -> Result<(), String> {
        // A session that ended meanwhile needs nothing.
        let Some(slot) = self.stages[index].stage.decoding().slot_to_fill(key) else { return Ok(()) };
        let values: Vec<f32> = rows.values.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let segment = self.owned.segment.with_movable_cache().map_err(|error| error.to_string())?;
        let positions = rows.position..rows.position.saturating_add(rows.n_positions);
        segment.write_kv(rows.layer, slot, positions, &values).map_err(|error| error.to_string())
    }
}

fn bytes_of(values: &[f32]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(values.len() * 4);
    values.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}
