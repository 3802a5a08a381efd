//! Load: a segment from its manifest to memory, and all that can keep it from there.

use std::sync::Arc;
use std::time::Instant;

use polyphony_model::{Holds, LayerRange, Manifest, Room, STEP_ROWS};
use polyphony_protocol::hub::{self, Assignment, EncoderStages};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{Context, holds_of};
use crate::board::Entry;
use crate::segment::{AnySegment, Capacity, SegmentError};
use crate::weights::{CacheError, FetchError, Host};

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
    #[error("the cache of {limit} MiB has no room for tensor {tensor}; raise --cache-size")]
    CacheFull { tensor: String, limit: u64 },
    #[error("tensor {tensor} was damaged or removed in the cache; it is fetched again")]
    Vanished { tensor: String },
    #[error("layers {from} to {to} are not in a model of {n_layers} layers")]
    Layers { from: u32, to: u32, n_layers: u32 },
    #[error("the layers on standby, {from} to {to}, do not hold those of the segment, {holds}")]
    Standby { from: u32, to: u32, holds: Holds },
    #[error(
        "this phone computes in {ours}, the plan wants {wanted}; it is planned anew when the agent reports its backend"
    )]
    Numerics { ours: String, wanted: String },
    #[error(
        "the plan puts the encoder's end and the decoder's begin at {planned:?}, and layers {from} to {to} of stage {stage} do not fit that; update the controller"
    )]
    Encoder { planned: Option<EncoderStages>, stage: u32, from: u32, to: u32 },
    #[error("loading stopped: {0}")]
    Thread(String),
    #[error("loading stopped: the plan no longer wants the segment")]
    Unwanted,
}

/// What is in memory: the segment with its share of the budget, the bytes of its weights, and what decoding starts from where the
/// model has an encoder.
pub(super) type Loaded = (AnySegment, OwnedSemaphorePermit, (u64, Option<u32>));

/// Fetches what is missing and loads the segment; ends early when `cancel` says that nobody wants it.
///
/// # Errors
/// [`LoadError`], with its remedy.
pub(super) async fn load(
    context: &Arc<Context>,
    assignment: &Assignment,
    entry: &Arc<Entry>,
    cancel: &CancellationToken,
) -> Result<Loaded, LoadError> {
    let began = Instant::now();
    let host = wait_for_host(context).await?;
    let manifest = {
        let _fetching = context.fetching.lock().await;
        host.manifest(&context.cache, &assignment.manifest_digest).await?
    };
    let holds = checked_holds(assignment, &manifest)?;
    check_encoder(assignment, &manifest)?;
    let start_token = manifest.hyperparameters.encoder.map(|encoder| encoder.start_token);
    let capacity = Capacity {
        n_slots: assignment.max_sessions as usize,
        n_positions: assignment.context_length as usize,
        max_rows: STEP_ROWS as usize,
    };
    let total = manifest.bytes_of(&holds);
    let room = Room { n_sessions: assignment.max_sessions, context_length: assignment.context_length };
    let needed = total.saturating_add(manifest.hyperparameters.working_bytes(&holds, room));
    let limit = context.memory.limit_bytes();
    if needed > limit {
        return Err(LoadError::Memory { needed: needed.div_ceil(1 << 20), limit: limit >> 20 });
    }
    entry.set_progress(0, total);
    fetch_missing(context, &host, assignment, &manifest, &holds, entry).await?;
    let memory = context.memory.reserve(needed, || {
        let message = format!("waits for {} MiB that another segment of this phone still holds", needed >> 20);
        entry.set_waiting(message);
    });
    let memory = memory.await.ok_or_else(|| LoadError::Thread("the agent shuts down".to_owned()))?;
    entry.set_loading();
    let (context, entry) = (context.clone(), entry.clone());
    let activation_type = assignment.activation_type;
    let is_unwanted = cancel.clone();
    // A load that nobody waits for any more ends at the next tensor, and has its memory until then.
    let loading = tokio::task::spawn_blocking(move || {
        let engine = context.chosen.open().map_err(SegmentError::from)?;
        let mut loaded = 0;
        let load = AnySegment::load::<LoadError>(engine, &manifest, holds, capacity, activation_type, |tensor| {
            if is_unwanted.is_cancelled() {
                return Err(LoadError::Unwanted);
            }
            let bytes = context.cache.get(&tensor.sha256)?;
            loaded += tensor.n_bytes;
            entry.set_progress(loaded, total);
            bytes.ok_or_else(|| LoadError::Vanished { tensor: tensor.name.clone() })
        });
        load.map(|segment| (segment, memory))
    });
    let (segment, memory) = loading.await.map_err(|error| LoadError::Thread(error.to_string()))??;
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(seconds, weight_bytes = total, reserved_bytes = needed, "segment loaded");
    Ok((segment, memory, (total, start_token)))
}

/// Whether the plan was made for what this phone computes in.
pub(super) fn check_numerics(context: &Context, assignment: &Assignment) -> Result<(), LoadError> {
    let ours = &context.chosen.numerics;
    if assignment.numerics_class.starts_with(&format!("{ours}/")) {
        return Ok(());
    }
    Err(LoadError::Numerics { ours: ours.clone(), wanted: assignment.numerics_class.clone() })
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

/// Fetches what the cache lacks of exactly this segment's tensors.
async fn fetch_missing(
    context: &Context,
    host: &Host,
    assignment: &Assignment,
    manifest: &Manifest,
    holds: &Holds,
    entry: &Entry,
) -> Result<(), LoadError> {
    let needed = manifest.tensors_of(holds);
    let is_needed = |digest: &str| digest == assignment.manifest_digest || needed.iter().any(|t| t.sha256 == digest);
    let total = manifest.bytes_of(holds);
    let mut fetched = 0;
    for tensor in &needed {
        let _fetching = context.fetching.lock().await;
        if !context.cache.has(&tensor.sha256, tensor.n_bytes) {
            let index = manifest.tensors.iter().position(|other| other.name == tensor.name);
            let index = index.expect("a tensor of the manifest is in the manifest");
            let mut arrived = 0;
            let mut progress = |n_bytes| {
                arrived += n_bytes;
                context.metrics.weights_fetched_bytes.inc_by(n_bytes);
                entry.set_progress(fetched + arrived, total);
            };
            let bytes = host.tensor(&assignment.manifest_digest, index, tensor, &mut progress).await?;
            if !context.cache.put(&tensor.sha256, &bytes, &is_needed)? {
                let limit = context.cache.limit_bytes() >> 20;
                return Err(LoadError::CacheFull { tensor: tensor.name.clone(), limit });
            }
        }
        fetched += tensor.n_bytes;
        entry.set_progress(fetched, total);
    }
    Ok(())
}
