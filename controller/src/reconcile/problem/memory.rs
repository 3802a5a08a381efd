//! Memory: what a model costs phones, part by part, as they themselves will count it. Pure.

use polyphony_model::{EngineForm, Holds, KvType, LayerRange, Manifest, Room};
use polyphony_placement::ModelCosts;

/// What a segment needs besides, whatever the model.
const SEGMENT_OVERHEAD_BYTES: u64 = 1 << 20;

/// The model's costs with its bytes as engines of this form keep them: of a decoder those of [`Manifest::footprint`]. A segment of an
/// encoder–decoder model takes no more than this says, which counts the buffers of both halves wherever one is.
pub(super) fn in_memory(
    weights: &ModelCosts,
    manifest: &Manifest,
    room: Room,
    form: EngineForm,
    kv_type: KvType,
) -> ModelCosts {
    let of = &manifest.hyperparameters;
    let ends = |embedding, head| {
        let holds = Holds { embedding, layers: LayerRange::default(), head };
        manifest.footprint(&holds, room, form, kv_type).weights
    };
    let (embedding, head) = (ends(true, false), ends(false, true));
    // Logits take memory as the output matrix does.
    let step = |head| {
        let holds = Holds { embedding: false, head, ..Holds::all(of.n_layers) };
        manifest.footprint(&holds, room, form, kv_type).step
    };
    let (step_inside, step_at_the_end) = (step(false), step(true));
    let n_tokens = u64::from(room.n_sessions).saturating_mul(u64::from(room.context_length));
    let kv_bytes = weights.kv_bytes_per_token_per_layer.saturating_mul(n_tokens);
    let mut layer_bytes = manifest.layer_footprints(room, form, kv_type);
    // A decoder after an encoder embeds its tokens itself, wherever its first layer is.
    if let Some(bytes) = of.encoder.and_then(|encoder| layer_bytes.get_mut(encoder.n_layers as usize)) {
        *bytes = bytes.saturating_add(embedding);
    }
    // The planner counts the largest cache of each layer; smaller ones give back what that is too much.
    layer_bytes.iter_mut().for_each(|bytes| *bytes = bytes.saturating_sub(kv_bytes));
    let encoder_cache = of.encoder_cache_bytes(Holds::all(of.n_layers).layers, room, form, kv_type);
    let once = [step_inside, of.waiting_bytes(room), encoder_cache];
    ModelCosts {
        layer_bytes,
        embedding_bytes: embedding,
        head_bytes: head.saturating_add(step_at_the_end.saturating_sub(step_inside)),
        shared_bytes: embedding.saturating_add(head).saturating_sub(ends(true, true)),
        activation_bytes: once.into_iter().fold(SEGMENT_OVERHEAD_BYTES, u64::saturating_add),
        ..weights.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ROOM: Room = Room { n_sessions: 2, context_length: 64 };

    fn manifest(name: &str) -> Manifest {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny");
        Manifest::build(&folder.join(name)).expect("a golden file")
    }

    /// Of a model's segment, as the planner adds up.
    fn planned(costs: &ModelCosts, manifest: &Manifest, holds: Holds) -> u64 {
        let n_tokens = u64::from(ROOM.n_sessions * ROOM.context_length);
        let layers = holds.layers.iter().map(|layer| costs.layer_bytes[layer as usize]);
        let mut bytes: u64 = layers.map(|bytes| bytes + costs.kv_bytes_per_token_per_layer * n_tokens).sum();
        bytes += if holds.embedding { costs.embedding_bytes } else { 0 };
        bytes += if holds.head { costs.head_bytes } else { 0 };
        bytes -= if holds.embedding && holds.head { costs.shared_bytes } else { 0 };
        assert_eq!(costs.layer_bytes.len(), manifest.hyperparameters.n_layers as usize);
        bytes + costs.activation_bytes - SEGMENT_OVERHEAD_BYTES
    }

    /// What a model's costs in memory are made of.
    fn weights(manifest: &Manifest, kv_type: KvType) -> ModelCosts {
        let one = Room { n_sessions: 1, context_length: 1 };
        let kv_bytes_per_token_per_layer = manifest.hyperparameters.kv_bytes_per_layer(one, kv_type);
        ModelCosts { kv_bytes_per_token_per_layer, ..ModelCosts::default() }
    }

    /// Either end of a model that is cut before the layer `cut`, where there is one.
    fn ends(n_layers: u32, cut: u32) -> impl Iterator<Item = Holds> {
        let head = Holds { embedding: true, layers: LayerRange { from: 0, to: cut }, head: cut == n_layers };
        let tail = Holds { embedding: false, layers: LayerRange { from: cut, to: n_layers }, head: true };
        [head, tail].into_iter().filter(|holds| !holds.layers.is_empty())
    }

    #[test]
    fn the_planner_predicts_what_a_phone_declares() {
        let models = ["llama", "llama256_q4_k_m", "gemma3", "lfm2", "bloom", "mixtral", "gptoss", "t5"];
        for name in models {
            let manifest = manifest(&format!("{name}.gguf"));
            let n_layers = manifest.hyperparameters.n_layers;
            // It may be more: buffers of a half that is elsewhere, or of what other layers cannot join.
            let varies = ["t5", "llama256_q4_k_m"].contains(&name);
            let classes = EngineForm::ALL.into_iter().flat_map(|form| KvType::ALL.map(|kv_type| (form, kv_type)));
            for (form, kv_type) in classes {
                let costs = in_memory(&weights(&manifest, kv_type), &manifest, ROOM, form, kv_type);
                for holds in (1..=n_layers).flat_map(|cut| ends(n_layers, cut)) {
                    let planned = planned(&costs, &manifest, holds);
                    let declared = manifest.footprint(&holds, ROOM, form, kv_type).total();
                    let most = if varies { u64::MAX } else { declared + declared / 33 };
                    assert!(
                        declared <= planned + planned / 33 && planned <= most,
                        "{name} {form:?} {kv_type:?} {holds}: {planned} planned, {declared} declared"
                    );
                }
            }
        }
    }
}
