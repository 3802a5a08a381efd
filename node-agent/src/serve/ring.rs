//! Ring links: a stage dials those that it sends to and keeps the connections; frames flow one way, pongs the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_protocol::frame::{Hello, NO_RING};
use polyphony_protocol::hub::{Assignment, Neighbours};
use polyphony_protocol::{Frame, PlanGeneration, RingId, version};
use polyphony_wire::{Caller, Connection, FrameReader, LinkError, Wire};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::compute::{Compute, Event, Source};
use super::kv_transfer;
use super::links::Links;
use super::outlet::{Connected, Outlet};
use crate::board::{Board, Entry};
use crate::neighbours;

/// A hello and its answer must come within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How often a link is probed, and how long it may stay silent.
const PING_EVERY: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(6);
/// Connections that are let in at a time, before they have said who they are.
const MAX_CONNECTIONS: usize = 256;

/// The stages of this phone, by ring and generation: what the listener looks hellos up in.
#[derive(Clone, Default)]
pub struct Members {
    members: Arc<Mutex<HashMap<(RingId, PlanGeneration), Member>>>,
}

/// Our end of every link that this phone dials.
#[derive(Clone)]
pub struct OurEnd {
    /// This phone's name.
    pub phone: String,
    pub board: Arc<Board>,
    pub wire: Wire,
}

/// A stage of this phone.
#[derive(Clone)]
pub struct Member {
    pub assignment: watch::Receiver<Assignment>,
    pub compute: Compute,
    pub entry: Arc<Entry>,
    /// Pieces of KV caches that may be on their way out.
    pub pieces: Arc<Semaphore>,
    incoming: Arc<Mutex<HashMap<u32, Incoming>>>,
}

/// The connection that now comes from a stage.
struct Incoming {
    /// Ends it.
    cancel: CancellationToken,
    /// Held until its end has been told: what the next one brings comes behind that.
    turn: Arc<AsyncMutex<()>>,
}

/// What a connection was let in for.
struct Accepted {
    member: Member,
    source: Source,
}

/// Another stage, and the way to it.
pub struct Way {
    pub to_stage: u32,
    pub outlet: Outlet,
}

// === impl Members ===

impl Members {
    pub fn add(&self, ring: RingId, generation: PlanGeneration, member: Member) {
        self.lock().insert((ring, generation), member);
    }

    pub fn remove(&self, ring: RingId, generation: PlanGeneration) {
        if let Some(member) = self.lock().remove(&(ring, generation)) {
            let incoming = member.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            incoming.values().for_each(|connection| connection.cancel.cancel());
        }
    }

    pub fn find(&self, ring: RingId, generation: PlanGeneration) -> Option<Member> {
        self.lock().get(&(ring, generation)).cloned()
    }

    /// The host link has ended: no gateway waits for any session of this phone any more. Returns when all stages will hear it before
    /// anything that comes later.
    pub async fn host_lost(&self) {
        let members: Vec<_> = self.lock().values().cloned().collect();
        for member in members {
            // A stage that has ended has no sessions.
            let _ = member.compute.send(Event::HostLost).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RingId, PlanGeneration), Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Member ===

impl Member {
    pub fn new(assignment: watch::Receiver<Assignment>, compute: Compute, entry: Arc<Entry>) -> Self {
        Self { assignment, compute, entry, pieces: kv_transfer::piece_places(), incoming: Arc::default() }
    }

    /// The turn of a new connection from a stage, and what ends it. The one before ends first, and its sessions with it.
    async fn take_over(&self, from_stage: u32) -> (CancellationToken, OwnedMutexGuard<()>) {
        let cancel = CancellationToken::new();
        let turn = {
            let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = incoming.get(&from_stage).map(|before| {
                before.cancel.cancel();
                before.turn.clone()
            });
            let turn = turn.unwrap_or_default();
            incoming.insert(from_stage, Incoming { cancel: cancel.clone(), turn: turn.clone() });
            turn
        };
        (cancel, turn.lock_owned().await)
    }
}

/// Lets other stages in until `shutdown`.
pub async fn listen(
    listener: TcpListener,
    members: Members,
    neighbours: watch::Receiver<Neighbours>,
    wire: Wire,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let caller = tokio::select! {
            () = shutdown.cancelled() => return,
            caller = wire.accept(&listener) => caller,
        };
        let address = caller.from;
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many ring connections; one was turned away");
            continue;
        };
        let (members, neighbours) = (members.clone(), neighbours.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = shutdown.cancelled() => {}
                end = receive(caller, members, &neighbours) => {
                    match end {
                        Ok(()) => {}
                        // The other end dials again; while this one still loads, that is how it goes.
                        Err(error @ LinkError::Refused(_)) => tracing::debug!(%address, %error, "ring connection not taken"),
                        Err(error) => tracing::info!(%address, %error, "ring connection ended"),
                    }
                }
            }
        });
    }
}

async fn receive(caller: Caller, members: Members, neighbours: &watch::Receiver<Neighbours>) -> Result<(), LinkError> {
    let mut link = caller.meet().await?;
    let hello = match link.reader.next_within(HANDSHAKE).await? {
        Frame::Hello(hello) => hello,
        Frame::KvRequest(request) => {
            return kv_transfer::answer(request, &members, &mut link).await;
        }
        other => return Err(LinkError::unexpected(&other, "a hello")),
    };
    if hello.ring == NO_RING {
        return neighbours::answer(&hello, neighbours, &mut link).await;
    }
    let member = members.find(hello.ring, hello.generation);
    let checked = match &member {
        None => Err(format!("this phone holds no segment of ring {} generation {}", hello.ring, hello.generation)),
        Some(member) => check_hello(&hello, &member.assignment.borrow()),
    };
    let accepted = match (member, checked) {
        (Some(member), Ok(source)) => Accepted { member, source },
        (_, checked) => {
            let why = checked.err().unwrap_or_default();
            link.writer.write(&Frame::Refused(why.clone())).await?;
            return Err(LinkError::Refused(why));
        }
    };
    link.reader.trust();
    let member = &accepted.member;
    let (replaced, _turn) = member.take_over(hello.from_stage).await;
    link.writer.write(&Frame::Accepted).await?;
    member.entry.set_incoming(hello.from_stage, true);
    let end = tokio::select! {
        biased;
        () = replaced.cancelled() => Err(LinkError::Refused("another connection took its place".to_owned())),
        end = pump_in(&mut link, &accepted) => end,
    };
    member.entry.set_incoming(hello.from_stage, false);
    let why = end.as_ref().err().map_or_else(|| "closed".to_owned(), ToString::to_string);
    // A stage that has ended has told of its sessions.
    let _ = member.compute.send(Event::PeerLost { phone: hello.phone, why }).await;
    end
}

/// Whether a hello is of a stage that dials this one in this very plan, and what its frames are taken for.
fn check_hello(hello: &Hello, assignment: &Assignment) -> Result<Source, String> {
    if !version::CURRENT.speaks_with(hello.version) {
        return Err(version::refusal(&hello.phone, hello.version, "this phone"));
    }
    let (links, from) = (Links::of_assignment(assignment), hello.from_stage);
    let expected = assignment.peers.iter().find(|peer| peer.stage == from);
    if hello.to_stage != assignment.stage || !links.incoming.contains(&from) {
        return Err(format!("stage {from} sends nothing to stage {}", assignment.stage));
    }
    if expected.is_none_or(|peer| peer.phone != hello.phone) || !equal(&hello.ring_secret, &assignment.ring_secret) {
        return Err(format!("{} is not the phone of stage {from} in this plan", hello.phone));
    }
    Ok(links.source(from))
}

/// Equality in a time that tells nothing of where the two differ.
pub(crate) fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

async fn pump_in(link: &mut Connection, accepted: &Accepted) -> Result<(), LinkError> {
    loop {
        match link.reader.next_within(SILENCE).await? {
            Frame::Ping { nonce } => link.writer.write(&Frame::Pong { nonce }).await?,
            frame => {
                let event = Event::Frame { frame, source: accepted.source };
                if accepted.member.compute.send(event).await.is_err() {
                    return Err(LinkError::Closed);
                }
            }
        }
    }
}

/// Keeps a link to another stage until `cancel`: dials, greets, pumps, and dials again.
pub async fn keep_link(
    our_end: OurEnd,
    way: Way,
    mut assignment: watch::Receiver<Assignment>,
    compute: Compute,
    entry: Arc<Entry>,
    cancel: CancellationToken,
) {
    let Way { to_stage, outlet } = way;
    let mut pause = Duration::from_millis(50);
    loop {
        let now = assignment.borrow_and_update().clone();
        let began = Instant::now();
        let (next_phone, end) = tokio::select! {
            () = cancel.cancelled() => break,
            end = link_once(&our_end, to_stage, &now, &outlet, &entry) => end,
        };
        let was_up = outlet.disconnect();
        if let Err(error) = &end {
            our_end.board.note_end(&next_phone, error);
        }
        let why = end.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
        entry.set_outgoing(to_stage, Err(format!("no ring link to {next_phone}: {why}")));
        if was_up {
            tracing::warn!(peer = %next_phone, %why, "ring link lost");
            let _ = compute.send(Event::PeerLost { phone: next_phone, why }).await;
            pause = Duration::from_millis(50);
        }
        if began.elapsed() > Duration::from_secs(5) {
            pause = Duration::from_millis(50);
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            // A new address is worth a try at once.
            _ = assignment.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    outlet.disconnect();
}

async fn link_once(
    our_end: &OurEnd,
    to_stage: u32,
    assignment: &Assignment,
    outlet: &Outlet,
    entry: &Entry,
) -> (String, Result<(), LinkError>) {
    let Some(peer) = assignment.peers.iter().find(|peer| peer.stage == to_stage) else {
        return (format!("stage {to_stage}"), Err(LinkError::Refused("the plan names no such stage".to_owned())));
    };
    if peer.ring_address.is_empty() {
        return (peer.phone.clone(), Err(LinkError::Refused("it has not joined the host yet".to_owned())));
    }
    let hello = Hello {
        version: version::CURRENT,
        ring: assignment.ring,
        generation: assignment.generation,
        phone: our_end.phone.clone(),
        from_stage: assignment.stage,
        to_stage,
        ring_secret: assignment.ring_secret.clone(),
    };
    let end = dial(our_end, &peer.ring_address, hello, &peer.phone, outlet, entry).await;
    (peer.phone.clone(), end)
}

async fn dial(
    our_end: &OurEnd,
    address: &str,
    hello: Hello,
    peer: &str,
    outlet: &Outlet,
    entry: &Entry,
) -> Result<(), LinkError> {
    let Connection { mut reader, mut writer, .. } = our_end.wire.dial(address, HANDSHAKE).await?;
    let to_stage = hello.to_stage;
    writer.write(&Frame::Hello(hello)).await?;
    let answer = reader.next_within(HANDSHAKE).await?;
    our_end.board.note_reachable(peer);
    match answer {
        Frame::Accepted => {}
        Frame::Refused(why) => return Err(LinkError::Refused(why)),
        other => return Err(LinkError::unexpected(&other, "an acceptance")),
    }
    let Connected { mut waiting, frames, overrun } = outlet.connect();
    entry.set_outgoing(to_stage, Ok(()));
    tracing::info!(%peer, %address, "ring link up");
    tokio::select! {
        () = overrun.cancelled() => Err(LinkError::Overrun),
        end = writer.write_queue(&mut waiting) => end,
        end = probe(&mut reader, frames, peer, &our_end.board) => end,
    }
}

/// Pings, and measures the pongs' round trips.
async fn probe(
    reader: &mut FrameReader,
    queue: mpsc::Sender<Frame>,
    peer: &str,
    board: &Board,
) -> Result<(), LinkError> {
    let mut ticks = tokio::time::interval(PING_EVERY);
    let mut nonce = 0;
    let mut sent_at = Instant::now();
    let mut heard_at = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if heard_at.elapsed() > SILENCE {
                    return Err(LinkError::Silent(SILENCE));
                }
                nonce += 1;
                sent_at = Instant::now();
                // A full queue is traffic enough: the next tick probes again.
                let _ = queue.try_send(Frame::Ping { nonce });
            }
            frame = reader.next() => match frame? {
                Frame::Pong { nonce: answered } => {
                    heard_at = Instant::now();
                    if answered == nonce {
                        board.note_link(peer, sent_at.elapsed().as_secs_f64());
                    }
                }
                other => return Err(LinkError::unexpected(&other, "a pong")),
            },
        }
    }
}
