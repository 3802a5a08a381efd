//! Assignments: what this phone is to hold, against what it holds. Level-triggered; one task a segment.

mod load;
mod ordeals;
mod residents;
mod withdrawal;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use polyphony_model::{Holds, LayerRange};
use polyphony_protocol::hub::{self, Assignment};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::acquaintance::Acquaintance;
use crate::backend::Chosen;
use crate::board::{Board, Entry};
use crate::budget::Budget;
use crate::class::Class;
use crate::metrics::Metrics;
use crate::serve::compute::{Attachment, Compute, Skip};
use crate::serve::kv_transfer::Puller;
use crate::serve::links::Links;
use crate::serve::members::{Member, Members};
use crate::serve::outlet::{Outlet, ToHost};
use crate::serve::ring::{OurEnd, Way, keep_link};
use crate::serve::stage::{EncoderShape, StageShape};
use crate::serve::thread::{Conduct, Thread};
use crate::weights::{Cache, Hold, Host};

use load::{LoadError, Loaded, check_joined, computing, load};
use residents::{Kind, Resident};

pub use ordeals::Ordeals;
pub use residents::Residents;
pub use withdrawal::{Grace, patience};

/// What every segment task needs.
pub struct Context {
    pub phone: String,
    pub memory: Budget,
    pub chosen: Chosen,
    pub cache: Cache,
    /// Loads that the agent did not live through.
    pub ordeals: Ordeals,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub members: Members,
    /// How ring links and transfers are dialled.
    pub acquaintance: Acquaintance,
    /// Frames for the gateway, over the host link.
    pub to_host: ToHost,
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

/// A rest of a phone is no longer than this part of a ring's step deadline.
const PARTS_OF_PATIENCE: u32 = 10;

/// Namespace and name.
type Key = (String, String);

struct Running {
    assignment: watch::Sender<Assignment>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
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
            let hold = self.context.cache.hold();
            hold.keep([assignment.manifest_digest.clone()]);
            let (sender, receiver) = watch::channel(assignment);
            // One of the same name must not take away with it what this one puts in place.
            let before = self.ending.remove(&key);
            let running = run(self.context.clone(), receiver, hold, cancel.clone());
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

/// Whether nothing differs but where others are, and what came before and comes after.
fn is_same_segment(a: &Assignment, b: &Assignment) -> bool {
    let alone =
        |one: &Assignment| Assignment { peers: Vec::new(), follows: None, successors: Vec::new(), ..one.clone() };
    alone(a) == alone(b) && a.peers.len() == b.peers.len()
}

/// One segment from its assignment to its end. What it needs of the cache it holds as long, whether it is loaded or not. While the phone takes no
/// part it is as if there were no assignment.
async fn run(context: Arc<Context>, assignment: watch::Receiver<Assignment>, hold: Hold, cancel: CancellationToken) {
    let first = assignment.borrow().clone();
    let mut withdrawals = context.board.withdrawals();
    while cancel.run_until_cancelled(withdrawal::over(&mut withdrawals)).await.is_some() {
        let entry = context.board.add(&first.namespace, &first.name);
        // What a load has begun on a thread of its own ends with this round of it, whichever way that ends.
        let round = cancel.child_token();
        let _ends_with_it = round.clone().drop_guard();
        let why = tokio::select! {
            () = cancel.cancelled() => "the plan no longer has a segment on this phone".to_owned(),
            () = serve(&context, &assignment, &entry, &hold, &round) => String::new(),
            why = withdrawal::in_force(&mut withdrawals) => format!("the phone takes no part: {why}"),
        };
        context.members.remove(first.ring, first.generation, &why);
        context.board.remove(&first.namespace, &first.name);
        tracing::info!(segment = %first.name, %why, "segment released");
    }
}

async fn serve(
    context: &Arc<Context>,
    assignment: &watch::Receiver<Assignment>,
    entry: &Arc<Entry>,
    hold: &Hold,
    cancel: &CancellationToken,
) {
    let first = assignment.borrow().clone();
    let mut pause = Duration::from_secs(1);
    loop {
        let hub::Holds { embedding, from, to, head } = first.holds;
        let span = tracing::info_span!("segment_load", segment = %first.name, embedding, from, to, head);
        let settled = async {
            tokio::select! {
                settled = settle(context, &first, entry, hold, cancel) => settled,
                // What a load waits for on a device that hangs may never come.
                reason = set_aside(context, &first) => Err(LoadError::SetAside { reason }),
            }
        };
        match settled.instrument(span.clone()).await {
            Ok(resident) => {
                let why = stay(context, assignment, entry, cancel, resident).await;
                tracing::error!(segment = %first.name, %why, "the segment no longer computes; it is loaded anew");
                context.members.remove(first.ring, first.generation, &why);
                entry.set_failed(why);
            }
            Err(error) => {
                tracing::error!(parent: &span, %error, "segment not loaded");
                entry.set_failed(error.to_string());
                pause = pause.max(error.least_pause());
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
        entry.set_loading();
    }
}

/// Serves on a loaded segment for as long as that computes; returns why it does not any more.
async fn stay(
    context: &Arc<Context>,
    assignment: &watch::Receiver<Assignment>,
    entry: &Arc<Entry>,
    cancel: &CancellationToken,
    resident: Arc<Resident>,
) -> String {
    let first = assignment.borrow().clone();
    let links = Links::of_assignment(&first);
    let shape = shape_of(context, &first, &resident);
    let new_outlet = || Outlet::new(shape.limits_out());
    let outlet = new_outlet();
    let to_skip = |to: &u32| (*to, Skip { phone: phone_of(&first, Some(*to)), outlet: new_outlet() });
    let skips: BTreeMap<u32, Skip> = links.skips.iter().map(to_skip).collect();
    let to_next = links.next.map(|to_stage| Way { to_stage, outlet: outlet.clone() });
    let to_skips = skips.iter().map(|(to, skip)| Way { to_stage: *to, outlet: skip.outlet.clone() });
    let ways: Vec<Way> = to_next.into_iter().chain(to_skips).collect();
    let puller = Puller::new(context.acquaintance.clone(), assignment.clone());
    let runtime = tokio::runtime::Handle::current();
    let attachment = Attachment {
        shape,
        holds: holds_of(&first),
        next: outlet,
        skips,
        entry: entry.clone(),
        pull: Box::new(move |pull, compute| drop(runtime.spawn(puller.clone().run(pull, compute)))),
    };
    entry.set_room(first.holds.to.saturating_sub(first.holds.from) as usize, resident.capacity.n_slots);
    let compute = match resident.thread.attach(attachment).await {
        Ok(compute) => compute,
        Err(error) => return error.to_string(),
    };
    let _detached = DetachOnDrop(compute.clone());
    let member = Member::new(assignment.clone(), compute.clone(), entry.clone());
    context.members.add(first.ring, first.generation, member);
    entry.set_loaded(links);
    let our_end = OurEnd { board: context.board.clone(), acquaintance: context.acquaintance.clone() };
    let keep =
        |way| keep_link(our_end.clone(), way, assignment.clone(), compute.clone(), entry.clone(), cancel.clone());
    let keep_all = async {
        futures::future::join_all(ways.into_iter().map(keep)).await;
        // Whoever cancels does not wait here.
        std::future::pending().await
    };
    tokio::select! {
        why = resident.thread.broken() => why,
        why = set_aside(context, &first) => why,
        () = keep_all => String::new(),
    }
}

/// Waits until the backend of this assignment is set aside, whoever found it out; why.
async fn set_aside(context: &Context, assignment: &Assignment) -> String {
    match Class::parse(&assignment.numerics_class) {
        Ok(class) => context.chosen.aside().until(class.numerics).await,
        Err(_) => std::future::pending().await,
    }
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
        encoder: encoder.map(|(stages, start_token)| EncoderShape { start_token, stages }),
        vocab_size: resident.vocab_size,
        hidden_size: resident.hidden_size,
        activation_type: assignment.activation_type,
        capacity: resident.capacity,
        step_deadline: context.step_deadline,
        idle_deadline: context.idle_deadline,
    }
}

/// What a stage of this assignment runs.
fn holds_of(assignment: &Assignment) -> Holds {
    let hub::Holds { embedding, from, to, head } = assignment.holds;
    Holds { embedding, layers: LayerRange { from, to }, head }
}

/// A resident that has all that the assignment names: one that is loaded already for this ring, or else one of its own.
async fn settle(
    context: &Arc<Context>,
    assignment: &Assignment,
    entry: &Arc<Entry>,
    hold: &Hold,
    cancel: &CancellationToken,
) -> Result<Arc<Resident>, LoadError> {
    computing(context, assignment)?;
    check_joined(assignment)?;
    let among_loaded = || {
        let resident = context.residents.find(assignment)?;
        entry.set_progress(resident.weight_bytes, resident.weight_bytes);
        tracing::info!(loaded = %resident.holds, "segment found among the loaded ones");
        Some(resident)
    };
    if let Some(resident) = among_loaded() {
        return Ok(resident);
    }
    let _turn = context.residents.turn(assignment.ring).await;
    if let Some(resident) = among_loaded() {
        return Ok(resident);
    }
    let Loaded { owned, weight_bytes, vocab_size, start_token } =
        load(context, assignment, entry, hold, cancel).await?;
    let (holds, capacity) = (owned.segment.holds(), owned.segment.capacity());
    let hidden_size = owned.segment.hidden_size();
    // A ring whose step takes longer has given its sessions back: its phones' rests are to be a small part of that.
    let patience = context.step_deadline;
    let conduct = Conduct {
        duty: context.chosen.duty().clone(),
        longest_rest: patience / PARTS_OF_PATIENCE,
        at_work: context.board.at_work().clone(),
    };
    let thread = Thread::start(&assignment.name, owned, conduct, context.to_host.clone(), patience);
    let thread = thread.map_err(|error| LoadError::Thread(format!("no thread for the segment: {error}")))?;
    let kind = Kind::of(assignment);
    Ok(context.residents.add(Resident {
        thread,
        holds,
        capacity,
        hidden_size,
        vocab_size,
        start_token,
        weight_bytes,
        kind,
        _hold: hold.clone(),
    }))
}

/// Ends the stage, also when its task is cancelled at an await.
struct DetachOnDrop(Compute);

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        self.0.detach();
    }
}
