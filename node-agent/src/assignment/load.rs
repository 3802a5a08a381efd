//! Load: a segment from its manifest to memory, and all that can keep it from there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_kernels::{Backend, KvType, WeightType};
use polyphony_model::{EngineForm, Holds, LayerRange, Manifest, Room, STEP_ROWS, TensorEntry};
use polyphony_protocol::hub::{self, Assignment, EncoderStages};
use tokio_util::sync::CancellationToken;

use super::{Context, holds_of};
use crate::at_work::Activity;
use crate::board::Entry;
use crate::budget::Budget;
use crate::class::{self, Class, ClassError};
use crate::segment::{AnySegment, Capacity, Rounding, SegmentError};
use crate::serve::thread::Owned;
use crate::weights::{CacheError, FetchError, Hold, Host, Kept};

/// What lets go of its memory has done so by then.
const PARTING: Duration = Duration::from_secs(30);

/// Why a segment is not in memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(
        "the segment needs {needed} MiB, this phone may use {limit} MiB; raise its --memory or give the plan more phones"
    )]
    Memory { needed: u64, limit: u64 },
    #[error(
        "the segment needs {needed} MiB, and this phone, whose system was short of memory, offers {limit} MiB for now; close other programs on it, or give the plan more phones"
    )]
    Lowered { needed: u64, limit: u64 },
    #[error(
        "tensor {tensor} is damaged again as soon as it was fetched: the disk under --data-dir does not keep what is written to it; choose another --data-dir"
    )]
    Vanished { tensor: String },
    #[error(
        "the agent died while it loaded this segment ({n_deaths} times so far), most likely since this phone has no {needed} MiB to give; lower its --memory"
    )]
    Fatal { n_deaths: u32, needed: u64 },
    #[error("layers {from} to {to} are not in a model of {n_layers} layers")]
    Layers { from: u32, to: u32, n_layers: u32 },
    #[error("the layers on standby, {from} to {to}, do not hold those of the segment, {holds}")]
    Standby { from: u32, to: u32, holds: Holds },
    #[error(
        "this phone computes in {ours}, the plan wants {wanted}; it is planned anew when the agent reports its backend"
    )]
    Numerics { ours: String, wanted: String },
    #[error(
        "what the plan computes with is set aside on this phone: {reason}; plans take what else it has, until the agent is started anew"
    )]
    SetAside { reason: String },
    #[error(
        "the segment needs {needed} MiB, and a backend that was set aside may hold this phone's memory to the last: start its agent anew"
    )]
    Held { needed: u64 },
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error(
        "the plan puts the encoder's end and the decoder's begin at {planned:?}, and layers {from} to {to} of stage {stage} do not fit that; update the controller"
    )]
    Encoder { planned: Option<EncoderStages>, stage: u32, from: u32, to: u32 },
    #[error(
        "the layers of the plan do not join: stage {stage} begins at {from}, {expected} was expected; the controller plans anew when this placement is deleted"
    )]
    NotJoined { stage: u32, from: u32, expected: u32 },
    #[error("the plan gives this stage the layers {from} to {to} and tells its peers others; delete this placement")]
    NotOwn { from: u32, to: u32 },
    #[error("loading stopped: {0}")]
    Thread(String),
    #[error("loading stopped: the plan no longer wants the segment")]
    Unwanted,
}

// === impl LoadError ===

impl LoadError {
    /// How long to wait at least before the next try.
    pub(super) fn least_pause(&self) -> Duration {
        match self {
            // What kills an agent takes its other segments with it.
            Self::Fatal { n_deaths, .. } => Duration::from_secs(1 << (*n_deaths).min(6)),
            _ => Duration::ZERO,
        }
    }
}

/// What is in memory.
pub(super) struct Loaded {
    pub(super) owned: Owned,
    pub(super) weight_bytes: u64,
    pub(super) vocab_size: u32,
    /// What decoding starts from, where the model has an encoder.
    pub(super) start_token: Option<u32>,
}

/// Fetches what is missing and loads the segment, with `hold` on all of its files; ends early when `cancel` says that nobody wants it.
///
/// # Errors
/// [`LoadError`], with its remedy.
pub(super) async fn load(
    context: &Arc<Context>,
    assignment: &Assignment,
    entry: &Arc<Entry>,
    hold: &Hold,
    cancel: &CancellationToken,
) -> Result<Loaded, LoadError> {
    let began = Instant::now();
    let host = wait_for_host(context).await?;
    let manifest = {
        let _fetching = context.fetching.lock().await;
        host.manifest(&context.cache, hold, &assignment.manifest_digest).await?
    };
    let holds = checked_holds(assignment, &manifest)?;
    check_encoder(assignment, &manifest)?;
    let start_token = manifest.hyperparameters.encoder.map(|encoder| encoder.start_token);
    let vocab_size = manifest.hyperparameters.vocab_size;
    let capacity = Capacity {
        n_slots: assignment.max_sessions as usize,
        n_positions: assignment.context_length as usize,
        max_rows: STEP_ROWS as usize,
    };
    let total = manifest.bytes_of(&holds);
    let room = Room { n_sessions: assignment.max_sessions, context_length: assignment.context_length };
    let (backend, kv_type) = computing(context, assignment)?;
    let form = EngineForm::of(&assignment.numerics_class);
    let needed = manifest.footprint(&holds, room, form, class::counted(kv_type)).total();
    if needed > context.memory.limit_bytes() {
        return Err(too_much(&context.memory, needed));
    }
    if let Some(n_deaths) = context.ordeals.deaths(&assignment.manifest_digest, needed) {
        return Err(LoadError::Fatal { n_deaths, needed: needed.div_ceil(1 << 20) });
    }
    entry.set_progress(0, total);
    hold.keep(manifest.tensors_of(&holds).into_iter().map(|tensor| tensor.sha256.clone()));
    let at_work = context.board.at_work().clone();
    let (context, hold) = (context.clone(), hold.clone());
    let supply = Supply { context, host, manifest, digest: assignment.manifest_digest.clone(), holds, hold };
    let fetching = at_work.begin(Activity::Other, Instant::now());
    supply.bring_missing(entry).await?;
    drop(fetching);
    let memory = supply.context.memory.reserve(needed, || {
        let message = format!("waits for {} MiB that another segment of this phone still holds", needed >> 20);
        entry.set_waiting(message);
    });
    let memory = tokio::select! {
        memory = memory => memory.ok_or_else(|| too_much(&supply.context.memory, needed))?,
        () = held_for_ever(&supply.context) => return Err(LoadError::Held { needed: needed.div_ceil(1 << 20) }),
    };
    entry.set_loading();
    let (context, entry) = (supply.context.clone(), entry.clone());
    let rounding = Rounding { activation_type: assignment.activation_type, kv_type };
    let is_unwanted = cancel.clone();
    let weight_types = weight_types(&supply.manifest, &holds);
    // A load that nobody waits for any more ends at the next tensor, and has its memory until then.
    let runtime = tokio::runtime::Handle::current();
    let loading = tokio::task::spawn_blocking(move || {
        let _at_work = at_work.begin(Activity::Other, Instant::now());
        let _ordeal = context.ordeals.begin(&supply.digest, needed);
        let engine =
            context.chosen.open(backend, &weight_types, kv_type, context.step_deadline).map_err(SegmentError::from)?;
        let mut loaded = 0;
        let load = AnySegment::load::<LoadError, _>(engine, &supply.manifest, holds, capacity, rounding, |tensor| {
            if is_unwanted.is_cancelled() {
                return Err(LoadError::Unwanted);
            }
            let kept = match context.cache.open_kept(&tensor.sha256, tensor.n_bytes)? {
                Some(kept) => kept,
                None => runtime.block_on(async {
                    tokio::select! {
                        () = is_unwanted.cancelled() => Err(LoadError::Unwanted),
                        mended = supply.mend(tensor) => mended,
                    }
                })?,
            };
            loaded += tensor.n_bytes;
            entry.set_progress(loaded, total);
            Ok(kept)
        });
        load.map(|segment| Owned { segment, memory })
    });
    let owned = loading.await.map_err(|error| LoadError::Thread(error.to_string()))??;
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(seconds, weight_bytes = total, reserved_bytes = needed, "segment loaded");
    Ok(Loaded { owned, weight_bytes: total, vocab_size, start_token })
}

/// Why so much cannot be had of a budget.
fn too_much(memory: &Budget, needed_bytes: u64) -> LoadError {
    let (limit_bytes, needed) = (memory.limit_bytes(), needed_bytes.div_ceil(1 << 20));
    let limit = limit_bytes >> 20;
    if limit_bytes < memory.whole_bytes() {
        LoadError::Lowered { needed, limit }
    } else {
        LoadError::Memory { needed, limit }
    }
}

/// What the plan's class computes with, and keeps keys and values in; an error where this phone has no such thing.
pub(super) fn computing(context: &Context, assignment: &Assignment) -> Result<(Backend, KvType), LoadError> {
    let class = Class::parse(&assignment.numerics_class)?;
    match context.chosen.of(&class) {
        Some(candidate) => match context.chosen.aside().reason(&candidate.numerics) {
            Some(reason) => Err(LoadError::SetAside { reason }),
            None => Ok((candidate.backend, class.kv_type)),
        },
        None => Err(LoadError::Numerics { ours: context.chosen.names(), wanted: assignment.numerics_class.clone() }),
    }
}

/// Whether the layers of all stages join, from the first layer on, and those of this stage are the ones that the others know of.
pub(super) fn check_joined(assignment: &Assignment) -> Result<(), LoadError> {
    let hub::Holds { from, to, .. } = assignment.holds;
    let mut expected = 0;
    for peer in &assignment.peers {
        // A hub of before does not say.
        let Some(layers) = peer.layers else { return Ok(()) };
        if layers.from != expected || layers.to < layers.from {
            return Err(LoadError::NotJoined { stage: peer.stage, from: layers.from, expected });
        }
        if peer.stage == assignment.stage && (layers.from, layers.to) != (from, to) {
            return Err(LoadError::NotOwn { from, to });
        }
        expected = layers.to;
    }
    Ok(())
}

/// Waits until memory that is still held is most likely never given back: who hangs in a driver keeps what it has.
async fn held_for_ever(context: &Context) {
    if context.chosen.aside().list().is_empty() {
        return std::future::pending().await;
    }
    tokio::time::sleep(PARTING).await;
}

/// The types of a segment's matrices, each once.
fn weight_types(manifest: &Manifest, holds: &Holds) -> Vec<WeightType> {
    let matrices = manifest.tensors_of(holds).into_iter().filter(|tensor| tensor.shape.len() > 1);
    let names: BTreeSet<&str> = matrices.map(|tensor| tensor.tensor_type.name()).collect();
    names.into_iter().filter_map(WeightType::named).collect()
}

async fn wait_for_host(context: &Context) -> Result<Host, LoadError> {
    let mut host = context.host.clone();
    let known =
        host.wait_for(Option::is_some).await.map_err(|_| LoadError::Thread("the agent shuts down".to_owned()))?;
    known.clone().ok_or_else(|| LoadError::Thread("no host".to_owned()))
}

/// What is to be loaded: what the stage runs, and the layers on standby.
fn checked_holds(assignment: &Assignment, manifest: &Manifest) -> Result<Holds, LoadError> {
    let holds = holds_of(assignment);
    let n_layers = manifest.hyperparameters.n_layers;
    let LayerRange { from, to } = holds.layers;
    if from >= to || to > n_layers {
        return Err(LoadError::Layers { from, to, n_layers });
    }
    let Some(standby) = assignment.standby else { return Ok(holds) };
    let all = Holds { layers: LayerRange { from: standby.from, to: standby.to }, ..holds };
    if !holds.lies_within(&all) {
        return Err(LoadError::Standby { from: standby.from, to: standby.to, holds });
    }
    if standby.to > n_layers {
        return Err(LoadError::Layers { from: standby.from, to: standby.to, n_layers });
    }
    Ok(all)
}

/// Whether the plan and the model agree on which stages have layers of which half.
fn check_encoder(assignment: &Assignment, manifest: &Manifest) -> Result<(), LoadError> {
    let hub::Holds { from, to, .. } = assignment.holds;
    let (stage, planned) = (assignment.stage, assignment.encoder);
    let fits = match (planned, manifest.hyperparameters.encoder) {
        (None, None) => true,
        (Some(stages), Some(encoder)) => {
            let (encodes, decodes) = (from < encoder.n_layers, to > encoder.n_layers);
            encodes == (stage <= stages.last) && decodes == (stage >= stages.first_decoder)
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(LoadError::Encoder { planned, stage, from, to }) }
}

/// Where the tensors of one segment come from.
struct Supply {
    context: Arc<Context>,
    host: Host,
    manifest: Manifest,
    /// The manifest's.
    digest: String,
    holds: Holds,
    hold: Hold,
}

// === impl Supply ===

impl Supply {
    /// Fetches what the cache lacks of exactly this segment's tensors.
    async fn bring_missing(&self, entry: &Entry) -> Result<(), LoadError> {
        let total = self.manifest.bytes_of(&self.holds);
        let mut fetched = 0;
        for tensor in self.manifest.tensors_of(&self.holds) {
            let _fetching = self.context.fetching.lock().await;
            if !self.context.cache.has(&tensor.sha256, tensor.n_bytes) {
                let mut arrived = 0;
                self.fetch(tensor, |n_bytes| {
                    arrived += n_bytes;
                    entry.set_progress(fetched + arrived, total);
                })
                .await?;
            }
            fetched += tensor.n_bytes;
            entry.set_progress(fetched, total);
        }
        Ok(())
    }

    /// Fetches again a tensor that was damaged or removed in the cache.
    async fn mend(&self, tensor: &TensorEntry) -> Result<Kept, LoadError> {
        let _fetching = self.context.fetching.lock().await;
        self.fetch(tensor, |_| {}).await?;
        let (cache, sha256, n_bytes) = (self.context.cache.clone(), tensor.sha256.clone(), tensor.n_bytes);
        let opened = tokio::task::spawn_blocking(move || cache.open_kept(&sha256, n_bytes)).await;
        let kept = opened.map_err(|error| LoadError::Thread(error.to_string()))??;
        kept.ok_or_else(|| LoadError::Vanished { tensor: tensor.name.clone() })
    }

    async fn fetch(&self, tensor: &TensorEntry, mut progress: impl FnMut(u64) + Send) -> Result<(), LoadError> {
        let index = self.manifest.tensors.iter().position(|other| other.name == tensor.name);
        let index = index.expect("a tensor of the manifest is in the manifest");
        let mut progress = |n_bytes| {
            self.context.metrics.weights_fetched_bytes.inc_by(n_bytes);
            progress(n_bytes);
        };
        Ok(self.host.tensor(&self.context.cache, &self.digest, (index, tensor), &self.hold, &mut progress).await?)
    }
}

#[cfg(test)]
mod tests {
    use polyphony_protocol::hub::{LayerSpan, Peer};
    use polyphony_protocol::{ActivationType, PlanGeneration, RingId};

    use super::*;

    fn assignment(own: (u32, u32), spans: &[Option<(u32, u32)>]) -> Assignment {
        let peer = |(stage, span): (u32, &Option<(u32, u32)>)| Peer {
            stage,
            phone: format!("phone-{stage}"),
            ways: Vec::new(),
            key: String::new(),
            layers: span.map(|(from, to)| LayerSpan { from, to }),
        };
        Assignment {
            namespace: "default".into(),
            name: "a".into(),
            ring: RingId(1),
            generation: PlanGeneration(1),
            plan_digest: String::new(),
            stage: 1,
            holds: hub::Holds { embedding: false, from: own.0, to: own.1, head: true },
            peers: (0..).zip(spans).map(peer).collect(),
            manifest_digest: String::new(),
            context_length: 16,
            max_sessions: 1,
            session_groups: 0,
            activation_type: ActivationType::F16,
            numerics_class: String::new(),
            standby: None,
            follows: None,
            successors: Vec::new(),
            encoder: None,
        }
    }

    #[test]
    fn what_is_too_much_for_a_phone_names_what_makes_it_so() {
        let memory = Budget::new(1000 << 20);
        let said = |memory: &Budget| too_much(memory, 1001 << 20).to_string();
        assert!(said(&memory).contains("raise its --memory"), "{}", said(&memory));
        memory.set_limit_bytes(600 << 20);
        assert!(said(&memory).contains("offers 600 MiB for now; close other programs"), "{}", said(&memory));
    }

    #[test]
    fn a_ring_of_two_plans_is_not_loaded() {
        let joined = |own, spans: &[Option<(u32, u32)>]| check_joined(&assignment(own, spans));
        assert!(joined((3, 6), &[Some((0, 3)), Some((3, 6))]).is_ok());
        assert!(joined((3, 6), &[None, None]).is_ok(), "a hub of before");
        for (own, spans) in [
            ((4, 6), [Some((0, 3)), Some((4, 6))]),
            ((2, 6), [Some((0, 3)), Some((2, 6))]),
            ((3, 6), [Some((1, 3)), Some((3, 6))]),
        ] {
            assert!(matches!(joined(own, &spans), Err(LoadError::NotJoined { .. })), "{spans:?}");
        }
        assert!(matches!(joined((3, 5), &[Some((0, 3)), Some((3, 6))]), Err(LoadError::NotOwn { from: 3, to: 5 })));
    }
}
