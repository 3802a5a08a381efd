//! Assignments: what this phone is to hold, against what it holds. Level-triggered; one task a segment.

mod residents;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_model::{Holds, LayerRange, Manifest, Room, STEP_ROWS};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{self, Assignment, EncoderStages};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::backend::Chosen;
use crate::board::{Board, Entry};
use crate::budget::Budget;
use crate::metrics::Metrics;
use crate::segment::{AnySegment, Capacity, SegmentError};
use crate::serve::compute::{Attachment, Compute, Skip, Thread};
use crate::serve::kv_transfer::Puller;
use crate::serve::links::Links;
use crate::serve::outlet::Outlet;
use crate::serve::ring::{Member, Members, keep_link};
use crate::serve::stage::{EncoderShape, StageShape};
use crate::weights::{Cache, CacheError, FetchError, Host};

use residents::{Kind, Resident};

pub use residents::Residents;

/// What every segment task needs.
pub struct Context {
    pub phone: String,
    pub memory: Budget,
    pub chosen: Chosen,
    pub cache: Cache,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub members: Members,
    /// Frames for the gateway, over the host link.
    pub to_host: mpsc::Sender<Frame>,
    pub step_deadline: Duration,
    pub idle_deadline: Duration,
    /// Held while a tensor is fetched, so that two segments never fetch the same one twice.
    pub fetching: tokio::sync::Mutex<()>,
    /// Where weights come from; known once the hub has said so.
    pub host: watch::Receiver<Option<Host>>,
    /// The loaded segments.
    pub residents: Residents,
}

/// The segments that this phone holds or is loading.
pub struct Assignments {
    context: Arc<Context>,
    running: HashMap<Key, Running>,
    /// Those that were taken away and have not let go of everything yet.
    ending: HashMap<Key, JoinHandle<()>>,
}

/// Namespace and name.
type Key = (String, String);

struct Running {
    assignment: watch::Sender<Assignment>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a segment is not in memory.
#[derive(Debug, thiserror::Error)]
enum LoadError {
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
}

// === impl Assignments ===

impl Assignments {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, running: HashMap::new(), ending: HashMap::new() }
    }

    /// Starts what is new, stops what is gone, and tells the rest where its neighbours are now.
    pub fn apply(&mut self, wanted: Vec<Assignment>) {
        let wanted: HashMap<_, _> =
            wanted.into_iter().map(|one| ((one.namespace.clone(), one.name.clone()), one)).collect();
        self.ending.retain(|_, task| !task.is_finished());
        let ends = |key: &Key, running: &mut Running| {
            !wanted.get(key).is_some_and(|one| is_same_segment(one, &running.assignment.borrow()))
        };
        for (key, running) in self.running.extract_if(ends) {
            running.cancel.cancel();
            self.ending.insert(key, running.task);
        }
        for (key, assignment) in wanted {
            if let Some(running) = self.running.get(&key) {
                running.assignment.send_if_modified(|current| {
                    let differs = *current != assignment;
                    *current = assignment;
                    differs
                });
                continue;
            }
            let cancel = CancellationToken::new();
            let (sender, receiver) = watch::channel(assignment);
            // One of the same name must not take away with it what this one puts in place.
            let before = self.ending.remove(&key);
            let running = run(self.context.clone(), receiver, cancel.clone());
            let task = tokio::spawn(async {
                if let Some(before) = before {
                    // It ends either way.
                    let _ = before.await;
                }
                running.await;
            });
            self.running.insert(key, Running { assignment: sender, cancel, task });
        }
    }
}

impl Drop for Assignments {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.cancel.cancel());
    }
}

/// Whether nothing differs but where others are, and what came before.
fn is_same_segment(a: &Assignment, b: &Assignment) -> bool {
    let alone = |one: &Assignment| Assignment { peers: Vec::new(), follows: None, ..one.clone() };
    alone(a) == alone(b) && a.peers.len() == b.peers.len()
}

/// One segment from its assignment to its end.
async fn run(context: Arc<Context>, assignment: watch::Receiver<Assignment>, cancel: CancellationToken) {
    let first = assignment.borrow().clone();
    let entry = context.board.add(&first.namespace, &first.name);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = serve(&context, &assignment, &entry, &cancel) => {}
    }
    context.members.remove(first.ring, first.generation);
    context.board.remove(&first.namespace, &first.name);
    tracing::info!(segment = %first.name, "segment released");
}

async fn serve(
    context: &Arc<Context>,
    assignment: &watch::Receiver<Assignment>,
    entry: &Arc<Entry>,
    cancel: &CancellationToken,
) {
    let first = assignment.borrow().clone();
    let mut pause = Duration::from_secs(1);
    let resident = loop {
        let hub::Holds { embedding, from, to, head } = first.holds;
        let span = tracing::info_span!("segment_load", segment = %first.name, embedding, from, to, head);
        match settle(context, &first, entry).instrument(span.clone()).await {
            Ok(resident) => break resident,
            Err(error) => {
                tracing::error!(parent: &span, %error, "segment not loaded");
                entry.set_failed(error.to_string());
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
        entry.set_loading();
    };
    let links = Links::of_assignment(&first);
    let new_outlet = || Outlet::new(context.metrics.traffic.clone());
    let outlet = new_outlet();
    let to_skip = |to: &u32| (*to, Skip { phone: phone_of(&first, Some(*to)), outlet: new_outlet() });
    let skips: BTreeMap<u32, Skip> = links.skips.iter().map(to_skip).collect();
    let mut ways: Vec<(u32, Outlet)> = links.next.map(|next| (next, outlet.clone())).into_iter().collect();
    ways.extend(skips.iter().map(|(to, skip)| (*to, skip.outlet.clone())));
    let attachment = Attachment {
        shape: shape_of(context, &first, &resident),
        holds: holds_of(&first),
        next: outlet,
        skips,
        entry: entry.clone(),
        puller: Puller {
            phone: context.phone.clone(),
            assignment: assignment.clone(),
            traffic: context.metrics.traffic.clone(),
        },
    };
    entry.set_room(first.holds.to.saturating_sub(first.holds.from) as usize, resident.capacity.n_slots);
    let compute = match resident.thread.attach(attachment).await {
        Ok(compute) => compute,
        Err(error) => return entry.set_failed(error.to_string()),
    };
    let _detached = DetachOnDrop(compute.clone());
    let member = Member {
        assignment: assignment.clone(),
        compute: compute.clone(),
        entry: entry.clone(),
        incoming: Arc::default(),
    };
    context.members.add(first.ring, first.generation, member);
    entry.set_loaded(links);
    let keep = |way| {
        let (phone, board) = (context.phone.clone(), context.board.clone());
        keep_link(phone, way, assignment.clone(), compute.clone(), entry.clone(), board, cancel.clone())
    };
    futures::future::join_all(ways.into_iter().map(keep)).await;
    cancel.cancelled().await;
}

/// The phone of a stage; empty where the plan names none.
fn phone_of(assignment: &Assignment, stage: Option<u32>) -> String {
    let peer = assignment.peers.iter().find(|peer| Some(peer.stage) == stage);
    peer.map(|peer| peer.phone.clone()).unwrap_or_default()
}

fn shape_of(context: &Context, assignment: &Assignment, resident: &Resident) -> StageShape {
    let encoder = assignment.encoder.zip(resident.start_token);
    StageShape {
        ring: assignment.ring,
        generation: assignment.generation,
        stage: assignment.stage,
        layers: holds_of(assignment).layers,
        phone: context.phone.clone(),
        next_phone: phone_of(assignment, Links::of_assignment(assignment).next),
        n_stages: assignment.peers.len(),
        session_groups: assignment.session_groups as usize,
        is_head: assignment.holds.embedding,
        is_tail: assignment.holds.head,
        encoder: encoder.map(|(stages, start_token)| EncoderShape { start_token, stages }),
        hidden_size: resident.hidden_size,
        activation_type: assignment.activation_type,
        capacity: resident.capacity,
        step_deadline: context.step_deadline,
        idle_deadline: context.idle_deadline,
    }
}

/// A resident that has all that the assignment names: one that is loaded already for this ring, or else one of its own.
async fn settle(
    context: &Arc<Context>,
    assignment: &Assignment,
    entry: &Arc<Entry>,
) -> Result<Arc<Resident>, LoadError> {
    check_numerics(context, assignment)?;
    if let Some(resident) = context.residents.find(assignment) {
        entry.set_progress(resident.weight_bytes, resident.weight_bytes);
        tracing::info!(loaded = %resident.holds, "segment found among the loaded ones");
        return Ok(resident);
    }
    let (segment, memory, (weight_bytes, start_token)) = load(context, assignment, entry).await?;
    let (holds, capacity, hidden_size) = (segment.holds(), segment.capacity(), segment.hidden_size());
    let thread = Thread::start(&assignment.name, (segment, memory), context.to_host.clone());
    let thread = thread.map_err(|error| LoadError::Thread(format!("no thread for the segment: {error}")))?;
    let resident =
        Resident { thread, holds, capacity, hidden_size, start_token, weight_bytes, kind: Kind::of(assignment) };
    Ok(context.residents.add(resident))
}

/// Ends the stage, also when its task is cancelled at an await.
struct DetachOnDrop(Compute);

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        self.0.detach();
    }
}

async fn load(
    context: &Arc<Context>,
    assignment: &Assignment,
    entry: &Arc<Entry>,
) -> Result<(AnySegment, OwnedSemaphorePermit, (u64, Option<u32>)), LoadError> {
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
    let loading = tokio::task::spawn_blocking(move || {
        let engine = context.chosen.open().map_err(SegmentError::from)?;
        let mut loaded = 0;
        AnySegment::load::<LoadError>(engine, &manifest, holds, capacity, activation_type, |tensor| {
            let bytes = context.cache.get(&tensor.sha256)?;
            loaded += tensor.n_bytes;
            entry.set_progress(loaded, total);
            bytes.ok_or_else(|| LoadError::Vanished { tensor: tensor.name.clone() })
        })
    });
    let segment = loading.await.map_err(|error| LoadError::Thread(error.to_string()))??;
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(seconds, weight_bytes = total, reserved_bytes = needed, "segment loaded");
    Ok((segment, memory, (total, start_token)))
}

fn check_numerics(context: &Context, assignment: &Assignment) -> Result<(), LoadError> {
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

/// What a stage of this assignment runs.
fn holds_of(assignment: &Assignment) -> Holds {
    let hub::Holds { embedding, from, to, head } = assignment.holds;
    Holds { embedding, layers: LayerRange { from, to }, head }
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
