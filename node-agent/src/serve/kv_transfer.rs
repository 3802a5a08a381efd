//! A session's KV cache on its way from the phones that computed it to the one that goes on with it, over connections of their own.
//!
//! Who asks is a phone of a generation that follows the one that computed it; who is asked gives only what it holds of that generation.

use std::sync::Arc;
use std::time::Duration;

use polyphony_model::{CACHE_PIECE_BYTES, LayerRange};
use polyphony_protocol::frame::{KvRequest, KvRows};
use polyphony_protocol::hub::{Assignment, Followed, LayerSpan, Owner, Successor};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Connection, FrameWriter, LinkError, Proof};
use tokio::sync::{Semaphore, oneshot, watch};

use super::compute::{Compute, Unavailable};
use super::event::Event;
use super::members::{Member, Members, piece_places};
use super::stage::Pull;
use crate::acquaintance::{self, Acquaintance};

/// Bytes of the values in one frame of rows: a step of others waits for no more than copying one of them.
pub const PIECE_BYTES: usize = CACHE_PIECE_BYTES as usize;
/// A connection, and some bytes of what is due, must come within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// The host has told both ends of a plan within this.
const TOLD_BY: Duration = Duration::from_secs(2);

/// Fetches what a session lacks that moves to this phone.
#[derive(Clone)]
pub struct Puller {
    pub acquaintance: Acquaintance,
    pub assignment: watch::Receiver<Assignment>,
    /// Pieces that may wait for the segment, whoever sent them.
    places: Arc<Semaphore>,
}

/// Why a part of a KV cache did not come.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the plan does not say who held the KV cache of layers {from} to {to} in generation {generation}")]
    Unknown { from: u32, to: u32, generation: polyphony_protocol::PlanGeneration },
    #[error("{phone}: {source}")]
    Owner { phone: String, source: LinkError },
    #[error("{phone} sent layer {layer} from position {position}, layer {expected_layer} from {expected} was due")]
    Order { phone: String, layer: u32, position: u32, expected_layer: u32, expected: u32 },
    #[error("the segment takes no more: {0}")]
    Segment(#[from] Unavailable),
}

// === impl Puller ===

impl Puller {
    pub fn new(acquaintance: Acquaintance, assignment: watch::Receiver<Assignment>) -> Self {
        Self { acquaintance, assignment, places: piece_places() }
    }

    /// Fetches all of it into the cache, and tells the stage how it went.
    pub async fn run(self, pull: Pull, compute: Compute) {
        let end = self.fetch(&pull, &compute).await.map_err(|error| error.to_string());
        if let Err(why) = &end {
            tracing::warn!(session = %pull.key.session, %why, "a session's KV cache could not be fetched");
        }
        // A thread that has ended has nobody left to tell.
        let _ = compute.try_send(Event::Pulled { key: pull.key, end });
    }

    async fn fetch(&self, pull: &Pull, compute: &Compute) -> Result<(), PullError> {
        // The addresses as they are now.
        let followed = self.assignment.borrow().follows.clone();
        let parts = sources(pull, followed.as_ref())?;
        // Owners are different phones mostly: each sends as fast as it can.
        let fetching = parts.into_iter().map(|(owner, layers)| self.fetch_from(owner, layers, pull, compute));
        futures::future::try_join_all(fetching).await.map(drop)
    }

    async fn fetch_from(
        &self,
        owner: Owner,
        layers: LayerSpan,
        pull: &Pull,
        compute: &Compute,
    ) -> Result<(), PullError> {
        let failed = |source| PullError::Owner { phone: owner.phone.clone(), source };
        let request = KvRequest {
            version: version::CURRENT,
            phone: self.acquaintance.phone.clone(),
            key: pull.from,
            layers,
            n_positions: pull.n_positions,
        };
        let reached = self.acquaintance.reach(&owner.phone, &owner.key, &owner.ways, PATIENCE).await;
        let mut link = reached.map_err(failed)?;
        link.writer.write(&Frame::KvRequest(request)).await.map_err(failed)?;
        let mut due = (layers.from, 0);
        while due.0 < layers.to {
            let rows = match link.reader.next_unless_silent(PATIENCE).await.map_err(failed)? {
                Frame::KvRows(rows) => rows,
                Frame::Refused(why) => return Err(failed(LinkError::Refused(why))),
                other => {
                    let expected = "rows of a KV cache";
                    return Err(failed(LinkError::unexpected(&other, expected)));
                }
            };
            due = after(due, &rows, pull.n_positions).ok_or_else(|| PullError::Order {
                phone: owner.phone.clone(),
                layer: rows.layer,
                position: rows.position,
                expected_layer: due.0,
                expected: due.1,
            })?;
            let place = compute.unless_hung(self.places.clone().acquire_owned()).await?;
            let place = place.map_err(|_| Unavailable::Ended)?;
            compute.send(Event::WriteKv { key: pull.key, rows, place }).await?;
        }
        Ok(())
    }
}

/// Which layer and position are due after `rows`; `None` if these were not due.
fn after(due: (u32, u32), rows: &KvRows, n_positions: u32) -> Option<(u32, u32)> {
    let end = rows.position.checked_add(rows.n_positions).filter(|end| *end <= n_positions)?;
    if (rows.layer, rows.position) != due || rows.n_positions == 0 {
        return None;
    }
    Some(if end == n_positions { (rows.layer + 1, 0) } else { (rows.layer, end) })
}

/// Who has which of the layers to pull.
fn sources(pull: &Pull, followed: Option<&Followed>) -> Result<Vec<(Owner, LayerSpan)>, PullError> {
    let followed = followed.filter(|followed| followed.generation == pull.from.generation);
    let owners = followed.map(|followed| followed.owners.as_slice()).unwrap_or_default();
    let mut parts = Vec::new();
    for &LayerRange { mut from, to } in &pull.layers {
        while from < to {
            let owner = owners.iter().find(|owner| (owner.layers.from..owner.layers.to).contains(&from));
            let generation = pull.from.generation;
            let owner = owner.ok_or(PullError::Unknown { from, to, generation })?;
            let end = owner.layers.to.min(to);
            parts.push((owner.clone(), LayerSpan { from, to: end }));
            from = end;
        }
    }
    Ok(parts)
}

/// Answers who asks for a part of a KV cache: all of it, or why not.
///
/// # Errors
/// When the connection breaks, or the request was refused.
pub async fn answer(request: KvRequest, members: &Members, link: &mut Connection) -> Result<(), LinkError> {
    let member = members.find(request.key.ring, request.key.generation);
    let checked = match &member {
        None => Err(format!("no generation {} of ring {} is here", request.key.generation, request.key.ring)),
        Some(member) => until_checked(&request, &link.peer.proof, &member.assignment).await,
    };
    let end = match (member, checked) {
        (Some(member), Ok(())) => tokio::select! {
            biased;
            () = until_parted(&request, &link.peer.proof, &member.assignment) => {
                return Err(LinkError::GivenUp(format!("{} has no part any more in what follows this generation", request.phone)));
            }
            end = send_all(&request, &member, &mut link.writer) => end?,
            // Nothing more is to come: an end, most likely.
            _ = link.reader.next() => return Err(LinkError::Closed),
        },
        (_, checked) => checked,
    };
    if let Err(why) = end {
        link.writer.write(&Frame::Refused(why.clone())).await?;
        return Err(LinkError::Refused(why));
    }
    // The other end closes when it has all: to close first could cut off what it has not read.
    let _ = link.reader.next_within(PATIENCE).await;
    Ok(())
}

/// Piece by piece, and each is asked for when the one before is out, so that steps of others come between.
async fn send_all(
    request: &KvRequest,
    member: &Member,
    writer: &mut FrameWriter,
) -> Result<Result<(), String>, LinkError> {
    let KvRequest { key, n_positions, layers, .. } = *request;
    let (mut layer, mut position) = (layers.from, 0);
    while layer < layers.to {
        let (answer, answered) = oneshot::channel();
        let event = Event::ReadKv { key, n_positions, layer, positions: position..n_positions, answer };
        let asked = async {
            let place = member.compute.unless_hung(member.pieces.acquire()).await?;
            member.compute.send(event).await?;
            let rows = member.compute.unless_hung(answered).await?;
            Ok::<_, Unavailable>((place, rows.unwrap_or_else(|_| Err("the segment was released".to_owned()))))
        };
        let (_place, rows) = match asked.await {
            Ok((place, Ok(rows))) => (place, rows),
            Ok((_, Err(why))) => return Ok(Err(why)),
            Err(error) => return Ok(Err(error.to_string())),
        };
        position = rows.position.saturating_add(rows.n_positions);
        if position >= n_positions {
            (layer, position) = (layer + 1, 0);
        }
        writer.write(&Frame::KvRows(rows)).await?;
    }
    Ok(Ok(()))
}

/// Whether a request may be answered. The host tells both ends of a plan that follows, the one a moment before the other: a successor that is not
/// known yet is waited for.
async fn until_checked(
    request: &KvRequest,
    proof: &Proof,
    assignment: &watch::Receiver<Assignment>,
) -> Result<(), String> {
    let mut assignment = assignment.clone();
    let told = assignment.wait_for(|now| successors(request, proof, now).next().is_some());
    // Who is none by then is refused.
    let _ = tokio::time::timeout(TOLD_BY, told).await;
    let now = assignment.borrow();
    let mut own = successors(request, proof, &now).map(|one| one.layers).peekable();
    if own.peek().is_none() {
        return Err(format!("{} has no part in what follows this generation", request.phone));
    }
    check(request, &now)?;
    let asked = request.layers;
    match own.any(|own| own.from <= asked.from && asked.to <= own.to) {
        true => Ok(()),
        false => {
            Err(format!("layers {} to {} are not those that {} goes on with", asked.from, asked.to, request.phone))
        }
    }
}

/// Ends when the phone that asks goes on with nothing any more: its plan is gone, or it is.
async fn until_parted(request: &KvRequest, proof: &Proof, assignment: &watch::Receiver<Assignment>) {
    let mut assignment = assignment.clone();
    let parted = assignment.wait_for(|now| successors(request, proof, now).next().is_none()).await.map(drop);
    if parted.is_err() {
        // Whoever took the assignment away ends the transfer.
        std::future::pending::<()>().await;
    }
}

/// What the phone that asks goes on with, of sessions of this generation.
fn successors<'a>(
    request: &'a KvRequest,
    proof: &'a Proof,
    assignment: &'a Assignment,
) -> impl Iterator<Item = &'a Successor> {
    let is_known = |one: &&Successor| one.phone == request.phone && acquaintance::is(proof, &one.phone, &one.key);
    assignment.successors.iter().filter(is_known)
}

/// Whether a request is for what this stage holds.
fn check(request: &KvRequest, assignment: &Assignment) -> Result<(), String> {
    if !version::CURRENT.speaks_with(request.version) {
        return Err(version::refusal(&request.phone, request.version, "this phone"));
    }
    let (asked, held) = (request.layers, assignment.holds);
    if asked.from < held.from || held.to < asked.to || asked.from >= asked.to {
        return Err(format!("layers {} to {} are not this stage's {} to {}", asked.from, asked.to, held.from, held.to));
    }
    if !(1..=assignment.context_length).contains(&request.n_positions) {
        return Err(format!(
            "{} positions were asked for, a session has {} at most",
            request.n_positions, assignment.context_length
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
