//! Ring links: a stage dials those that it sends to and keeps the connections; frames flow one way, pongs the other.

mod pulse;

use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_protocol::frame::{Hello, NO_RING};
use polyphony_protocol::hub::{self, Assignment, Neighbours, Peer};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Caller, Connection, LinkError, Proof, Stranger, Strangers, Wire};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::compute::Compute;
use super::event::{Event, Source};
use super::kv_transfer;
use super::links::Links;
use super::members::{Member, Members};
use super::outlet::{Connected, Outlet};
use crate::acquaintance::{self, Acquaintance};
use crate::board::{Board, Entry};
use crate::neighbours;

use pulse::{Listener, RHYTHM};

/// A hello and its answer must come within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections at a time that have not said yet who they are, of which one makes room for the next.
const MAX_STRANGERS: usize = 256;
/// Connections at a time of phones that measure or fetch caches. Of ring links there are no more than [`Member::take_over`] lets be.
const MAX_VISITS: usize = 256;
/// The other end is told why the link ends, if it takes that within this.
const FAREWELL: Duration = Duration::from_secs(1);

/// Our end of every link that this phone dials.
#[derive(Clone)]
pub struct OurEnd {
    pub board: Arc<Board>,
    pub acquaintance: Acquaintance,
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

/// Lets other stages in until `shutdown`: those that dial, and those that call over the hub.
pub async fn listen(
    listener: TcpListener,
    mut called: mpsc::Receiver<Caller>,
    members: Members,
    neighbours: watch::Receiver<Neighbours>,
    wire: Wire,
    shutdown: CancellationToken,
) {
    let (strangers, visits) = (Strangers::new(MAX_STRANGERS), Arc::new(Semaphore::new(MAX_VISITS)));
    loop {
        let caller = tokio::select! {
            () = shutdown.cancelled() => return,
            caller = wire.accept(&listener) => caller,
            Some(caller) = called.recv() => caller,
        };
        let address = caller.from;
        let stranger = strangers.let_in(address.ip());
        let (members, neighbours, visits) = (members.clone(), neighbours.clone(), visits.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                end = receive(caller, stranger, visits, members, &neighbours) => {
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

async fn receive(
    caller: Caller,
    stranger: Stranger,
    visits: Arc<Semaphore>,
    members: Members,
    neighbours: &watch::Receiver<Neighbours>,
) -> Result<(), LinkError> {
    let meeting = async {
        let mut link = caller.meet(HANDSHAKE).await?;
        let first = link.reader.next_within(HANDSHAKE).await?;
        Ok::<_, LinkError>((link, first))
    };
    let (mut link, first) = tokio::select! {
        () = stranger.displaced() => return Err(LinkError::GivenUp("another one knocked, and it had not said who it is".to_owned())),
        met = meeting => met?,
    };
    // It has a certificate of this installation: whoever knocks next is no matter to it.
    drop(stranger);
    let visit = || {
        visits
            .clone()
            .try_acquire_owned()
            .map_err(|_| LinkError::GivenUp(format!("{MAX_VISITS} phones measure links or fetch caches here already")))
    };
    let hello = match first {
        Frame::Hello(hello) => hello,
        Frame::KvRequest(request) => {
            let _place = visit()?;
            return kv_transfer::answer(request, &members, &mut link).await;
        }
        other => return Err(LinkError::unexpected(&other, "a hello")),
    };
    if hello.ring == NO_RING {
        let _place = visit()?;
        return neighbours::answer(&hello, neighbours, &mut link).await;
    }
    let member = members.find(hello.ring, hello.generation);
    let checked = match &member {
        None => Err(format!("this phone holds no segment of ring {} generation {}", hello.ring, hello.generation)),
        Some(member) => check_hello(&hello, &link.peer.proof, &member.assignment.borrow()),
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
    let mut turn = match member.take_over(hello.from_stage).await {
        Ok(turn) => turn,
        Err(end) => return give_up(&mut link, end.to_string()).await,
    };
    link.writer.write(&Frame::Accepted).await?;
    member.entry.set_incoming(hello.from_stage, true);
    let proof = link.peer.proof.clone();
    let end = tokio::select! {
        biased;
        end = turn.ended() => Err(LinkError::GivenUp(end.to_string())),
        why = until(member.assignment.clone(), |now| check_hello(&hello, &proof, now).err()) => Err(LinkError::GivenUp(why)),
        end = pump_in(&mut link, &accepted) => end,
    };
    member.entry.set_incoming(hello.from_stage, false);
    let why = end.as_ref().err().map_or_else(|| "closed".to_owned(), ToString::to_string);
    // A stage that has ended has told of its sessions.
    let _ = member.compute.try_send(Event::PeerLost { phone: hello.phone, why });
    drop(turn);
    match end {
        Err(LinkError::GivenUp(why)) => give_up(&mut link, why).await,
        end => end,
    }
}

/// Tells the other end why its link ends here.
async fn give_up(link: &mut Connection, why: String) -> Result<(), LinkError> {
    // It may be stuck, or gone.
    let _ = tokio::time::timeout(FAREWELL, link.writer.write(&Frame::Refused(why.clone()))).await;
    Err(LinkError::GivenUp(why))
}

/// Waits until an assignment gives `pick` something; for ever, where it goes before.
async fn until<T>(mut assignment: watch::Receiver<Assignment>, pick: impl Fn(&Assignment) -> Option<T>) -> T {
    loop {
        if let Some(found) = pick(&assignment.borrow_and_update()) {
            return found;
        }
        if assignment.changed().await.is_err() {
            // Whoever took it away ends all links of it.
            return std::future::pending().await;
        }
    }
}

/// Whether a hello is of a stage that dials this one in this very plan, and what its frames are taken for.
fn check_hello(hello: &Hello, proof: &Proof, assignment: &Assignment) -> Result<Source, String> {
    if !version::CURRENT.speaks_with(hello.version) {
        return Err(version::refusal(&hello.phone, hello.version, "this phone"));
    }
    let (links, from) = (Links::of_assignment(assignment), hello.from_stage);
    let expected = assignment.peers.iter().find(|peer| peer.stage == from);
    if hello.to_stage != assignment.stage || !links.incoming.contains(&from) {
        return Err(format!("stage {from} sends nothing to stage {}", assignment.stage));
    }
    if expected.is_none_or(|peer| peer.phone != hello.phone || !acquaintance::is(proof, &peer.phone, &peer.key)) {
        return Err(format!("{} is not the phone of stage {from} in this plan", hello.phone));
    }
    Ok(links.source(from))
}

async fn pump_in(link: &mut Connection, accepted: &Accepted) -> Result<(), LinkError> {
    let mut listener = Listener::new(&mut link.reader, &mut link.writer, RHYTHM);
    loop {
        let event = Event::Frame { frame: listener.next().await?, source: accepted.source };
        let taken = listener.meanwhile(accepted.member.compute.send(event)).await?;
        taken.map_err(|why| LinkError::GivenUp(why.to_string()))?;
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
            end = link_once(&our_end, to_stage, &now, &assignment, &outlet, &entry) => end,
        };
        let was_up = outlet.disconnect();
        let way = now.peers.iter().find(|peer| peer.stage == to_stage).and_then(|peer| peer.ways.first());
        if let (Err(error), Some(way)) = (&end, way) {
            our_end.board.note_end(&next_phone, way, error);
        }
        let why = end.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
        entry.set_outgoing(to_stage, Err(format!("no ring link to {next_phone}: {why}")));
        if was_up {
            tracing::warn!(peer = %next_phone, %why, "ring link lost");
            let _ = compute.try_send(Event::PeerLost { phone: next_phone, why });
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
    now: &Assignment,
    assignment: &watch::Receiver<Assignment>,
    outlet: &Outlet,
    entry: &Entry,
) -> (String, Result<(), LinkError>) {
    let Some(peer) = now.peers.iter().find(|peer| peer.stage == to_stage) else {
        return (format!("stage {to_stage}"), Err(LinkError::Refused("the plan names no such stage".to_owned())));
    };
    let Some(way) = peer.ways.first() else {
        return (peer.phone.clone(), Err(LinkError::Refused("it has not joined the host yet".to_owned())));
    };
    let hello = Hello {
        version: version::CURRENT,
        ring: now.ring,
        generation: now.generation,
        phone: our_end.acquaintance.phone.clone(),
        from_stage: now.stage,
        to_stage,
    };
    let is_other = |now: &Assignment| {
        let known = now.peers.iter().find(|one| one.stage == to_stage);
        known.is_none_or(|known| (&known.phone, &known.key) != (&peer.phone, &peer.key)).then_some(())
    };
    let end = tokio::select! {
        end = dial(our_end, peer, way, hello, outlet, entry) => end,
        () = until(assignment.clone(), is_other) => {
            Err(LinkError::GivenUp(format!("the host no longer knows {} by the key that it has", peer.phone)))
        }
    };
    (peer.phone.clone(), end)
}

async fn dial(
    our_end: &OurEnd,
    peer: &Peer,
    way: &hub::Way,
    hello: Hello,
    outlet: &Outlet,
    entry: &Entry,
) -> Result<(), LinkError> {
    let Peer { phone: peer, key, .. } = peer;
    let link = our_end.acquaintance.dial(peer, key, way, HANDSHAKE).await?;
    let Connection { mut reader, mut writer, .. } = link;
    let to_stage = hello.to_stage;
    writer.write(&Frame::Hello(hello)).await?;
    let answer = reader.next_within(HANDSHAKE).await?;
    our_end.board.note_reachable(peer, way);
    match answer {
        Frame::Accepted => {}
        Frame::Refused(why) => return Err(LinkError::Refused(why)),
        other => return Err(LinkError::unexpected(&other, "an acceptance")),
    }
    let Connected { mut waiting, entrance, overrun } = outlet.connect();
    entry.set_outgoing(to_stage, Ok(()));
    tracing::info!(%peer, %way, "ring link up");
    let measured = |round_trip: Duration| our_end.board.note_link(peer, way, round_trip.as_secs_f64());
    tokio::select! {
        () = overrun.cancelled() => Err(LinkError::Overrun),
        end = writer.write_lanes(&mut waiting) => end,
        end = pulse::probe(&mut reader, &entrance, RHYTHM, measured) => end,
    }
}

#[cfg(test)]
mod tests;
