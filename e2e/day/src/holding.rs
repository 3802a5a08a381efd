//! Holding: the segments that a phone has or loads, and how long that takes. Simulated, and pure.
//!
//! What another segment of the phone has in memory is there at once, what it loaded before comes from its flash, and the rest over its network.

use std::collections::{BTreeMap, BTreeSet};

use polyphony_api::SegmentPlacement;
use polyphony_controller::reconcile::ledger::loaded;
use polyphony_controller::reconcile::observe::ObjectKey;
use polyphony_model::Manifest;

use crate::parameters::Network;

/// A piece of the model that is loaded as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Embedding,
    Layer(u32),
    Head,
}

#[derive(Clone, Debug, Default)]
pub struct Holding {
    segments: BTreeMap<ObjectKey, Segment>,
    /// On the flash.
    cached: BTreeSet<Piece>,
}

#[derive(Clone, Debug)]
pub struct Segment {
    pieces: BTreeSet<Piece>,
    /// Until it is in memory.
    seconds_left: f64,
    seconds_in_all: f64,
    /// Of a layer, by the last step that went through it, with rests.
    pub timed_seconds: Option<f64>,
}

/// Bytes of the pieces.
#[derive(Clone, Debug)]
pub struct Sizes {
    embedding: u64,
    head: u64,
    layers: Vec<u64>,
}

// === impl Sizes ===

impl Sizes {
    pub fn of(manifest: &Manifest) -> Self {
        let end = |embedding, head| {
            let layers = polyphony_model::LayerRange::default();
            manifest.bytes_of(&polyphony_model::Holds { embedding, layers, head })
        };
        let n_layers = manifest.hyperparameters.n_layers;
        let layers = (0..n_layers).map(|layer| manifest.layer_bytes(layer)).collect();
        Self { embedding: end(true, false), head: end(false, true), layers }
    }

    fn of_piece(&self, piece: Piece) -> u64 {
        match piece {
            Piece::Embedding => self.embedding,
            Piece::Layer(layer) => self.layers.get(layer as usize).copied().unwrap_or(0),
            Piece::Head => self.head,
        }
    }
}

// === impl Holding ===

impl Holding {
    /// Holds these and no others; what is new begins to load.
    pub fn keep(&mut self, assigned: &[(&ObjectKey, &SegmentPlacement)], sizes: &Sizes, network: &Network) {
        let mut kept = BTreeMap::new();
        for (key, placement) in assigned {
            let segment = match self.segments.get(*key) {
                Some(segment) => segment.clone(),
                None => self.begin(placement, sizes, network),
            };
            kept.insert((*key).clone(), segment);
        }
        self.segments = kept;
    }

    fn begin(&self, placement: &SegmentPlacement, sizes: &Sizes, network: &Network) -> Segment {
        let holds = &placement.spec.holds;
        let (from, to) = loaded(placement);
        let mut pieces: BTreeSet<Piece> = (from..to).map(Piece::Layer).collect();
        pieces.extend(holds.embedding.then_some(Piece::Embedding));
        pieces.extend(holds.head.then_some(Piece::Head));
        let in_memory: BTreeSet<Piece> =
            self.segments.values().filter(|one| one.is_loaded()).flat_map(|one| one.pieces.iter().copied()).collect();
        let seconds = |piece: &Piece| {
            let bytes_per_second = match self.cached.contains(piece) {
                true => network.flash_megabytes_per_second * 1e6,
                false => network.megabits_per_second * 1e6 / 8.0,
            };
            sizes.of_piece(*piece) as f64 / bytes_per_second
        };
        let seconds_in_all = pieces.difference(&in_memory).map(seconds).sum();
        Segment { pieces, seconds_left: seconds_in_all, seconds_in_all, timed_seconds: None }
    }

    /// Seconds of loading go by, one segment after the other.
    pub fn pass(&mut self, seconds: f64) {
        let mut left = seconds;
        for segment in self.segments.values_mut().filter(|segment| !segment.is_loaded()) {
            let taken = left.min(segment.seconds_left);
            segment.seconds_left -= taken;
            left -= taken;
        }
        let loaded = self.segments.values().filter(|segment| segment.is_loaded());
        self.cached.extend(loaded.flat_map(|segment| segment.pieces.iter().copied()));
    }

    /// Lets all go; what is on the flash stays there.
    pub fn let_go(&mut self) {
        self.segments.clear();
    }

    pub fn segment(&self, key: &ObjectKey) -> Option<&Segment> {
        self.segments.get(key)
    }

    /// A step went through a segment.
    pub fn time(&mut self, key: &ObjectKey, seconds_per_layer: f64) {
        let segment = self.segments.get_mut(key);
        segment.into_iter().for_each(|segment| segment.timed_seconds = Some(seconds_per_layer));
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

// === impl Segment ===

impl Segment {
    pub fn is_loaded(&self) -> bool {
        self.seconds_left <= 0.0
    }

    /// The part of it that is there.
    pub fn part(&self) -> f64 {
        if self.is_loaded() { 1.0 } else { 1.0 - self.seconds_left / self.seconds_in_all }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn placement(from: u32, to: u32) -> SegmentPlacement {
        let spec = serde_json::from_value(json!({
            "deployment": "d", "model": "m", "manifestDigest": "", "replica": 0, "planGeneration": 1, "planDigest": null,
            "stage": 0, "stages": 1, "phone": "a", "holds": { "embedding": false, "from": from, "to": to, "head": false, "summary": "" },
            "edges": [], "contextLength": 16, "maxSessions": 1, "activationType": "f16", "numericsClass": "", "plannedBytes": 0,
            "predictedStepMicroseconds": 0,
        }));
        SegmentPlacement::new("d-0-g1-0", spec.unwrap())
    }

    #[test]
    fn what_is_there_is_not_fetched_again() {
        let network = Network {
            megabits_per_second: 8.0,
            hop_seconds: 0.0,
            flash_megabytes_per_second: 10.0,
            suspected_after_seconds: 1.0,
        };
        let sizes = Sizes { embedding: 0, head: 0, layers: vec![1_000_000; 4] };
        let mut holding = Holding::default();
        let (one, two) = (ObjectKey::new("default", "one"), ObjectKey::new("default", "two"));
        let (first, wider) = (placement(0, 2), placement(0, 3));
        holding.keep(&[(&one, &first)], &sizes, &network);
        holding.pass(1.5);
        assert!(!holding.segment(&one).unwrap().is_loaded(), "two layers of a megabyte take two seconds");
        assert!((holding.segment(&one).unwrap().part() - 0.75).abs() < 1e-9);
        holding.pass(0.5);
        assert!(holding.segment(&one).unwrap().is_loaded());
        holding.keep(&[(&one, &first), (&two, &wider)], &sizes, &network);
        holding.pass(1.0);
        assert!(holding.segment(&two).unwrap().is_loaded(), "one more layer takes one second more");
        holding.let_go();
        assert!(holding.is_empty());
        holding.keep(&[(&two, &wider)], &sizes, &network);
        holding.pass(0.31);
        assert!(holding.segment(&two).unwrap().is_loaded(), "from the flash");
    }
}
