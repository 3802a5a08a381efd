//! A link: one agent's connection, from its join to its end. Or one on which it is led to another phone.
//!
//! Reading and writing are two tasks that end together; the end is reported at once to the registry and to the gateway.

mod admission;
mod said;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polyphony_identity::{Clock, Proven};
use polyphony_protocol::hub::{Assignment, Neighbours, Remedy, ToAgent, ToHub, Welcome};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Bounds, Caller, Connection, FrameReader, FrameWriter, LinkError, Stranger};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Hub;
use super::keys::is_recorded;
use super::registry::Seat;
use super::relay;
use admission::{Admitted, Newcomer, admit, refuse, seat};
use said::bounded;

/// What an agent may send, and how long it may take for what is sent to it: slow is not gone.
pub(super) const BOUNDS: Bounds =
    Bounds { greeting_bytes: 64 << 10, frame_bytes: 1 << 20, write_deadline: Duration::from_secs(30) };
/// A clock may be set meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How often an agent is asked to speak.
const HEARTBEAT_SECONDS: f64 = 1.0;

/// How an agent's link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the agent was refused: {0}")]
    Refused(String),
    #[error("it had not joined, and another one knocked")]
    Displaced,
    #[error("it was cut")]
    Cut,
    #[error("it had asked for papers, and has them")]
    Answered,
    #[error("its certificate has run out, and it did not renew it")]
    RanOut,
    #[error("its Phone no longer records its key: it was deleted, or another device has its name")]
    Revoked,
    #[error("the hub stops")]
    Stopping,
    #[error("it led to another phone, and {0}")]
    Led(String),
}

/// Serves one connection until it ends.
pub async fn serve(hub: Hub, caller: Caller, stranger: Stranger, places: Arc<Semaphore>, stop: CancellationToken) {
    let from = caller.from;
    let end = tokio::select! {
        () = stop.cancelled() => LinkEnd::Stopping,
        Err(end) = serve_until_end(&hub, caller, stranger, places) => end,
    };
    match end {
        // Each of these has been told already, or is nothing to tell.
        LinkEnd::Stopping
        | LinkEnd::Displaced
        | LinkEnd::Answered
        | LinkEnd::Led(_)
        | LinkEnd::Link(LinkError::Closed) => {
            tracing::debug!(%from, %end, "link ended")
        }
        end => tracing::info!(%from, "link ended: {end}"),
    }
}

async fn serve_until_end(
    hub: &Hub,
    caller: Caller,
    stranger: Stranger,
    places: Arc<Semaphore>,
) -> Result<std::convert::Infallible, LinkEnd> {
    let admitted = tokio::select! {
        () = stranger.displaced() => return Err(LinkEnd::Displaced),
        admitted = admit(hub, caller, places) => admitted?,
    };
    // It has shown that it is a phone; whoever knocks next is no matter to it.
    drop(stranger);
    match admitted {
        Admitted::Link(newcomer) => keep(hub, *newcomer).await,
        Admitted::Call { connection, holder, phone } => Err(lead(hub, connection, &holder, &phone).await),
        Admitted::Answer { connection, holder, call } => {
            let Some(mut back) = hub.relay.answer(&holder.name.name, call, connection) else {
                return Err(LinkEnd::Answered);
            };
            let reason = "nobody waits for that answer any more".to_owned();
            Err(refuse(&mut back.writer, reason, Remedy::Person).await)
        }
    }
}

/// Leads a phone to another one, for as long as plans say so and both are who they were.
async fn lead(hub: &Hub, mut connection: Connection, holder: &Proven, to: &str) -> LinkEnd {
    let from = holder.name.name.as_str();
    let (way, mut other) = match relay::reach(hub, from, to).await {
        Ok(found) => found,
        Err(reason) => return refuse(&mut connection.writer, reason, Remedy::Person).await,
    };
    let other_holder = other.proven().cloned();
    for end in [&mut other, &mut connection] {
        if let Err(error) = end.writer.write(&Frame::Accepted).await {
            return error.into();
        }
    }
    tracing::info!(%from, %to, "one phone is led to another over this host");
    let end = tokio::select! {
        end = relay::splice(&way, connection.into_relayed(), other.into_relayed()) => end.map_or_else(|error| error.to_string(), |()| "one of the two closed it".to_owned()),
        () = relay::until_closed(hub, from, to) => "no plan has the one dial the other any more".to_owned(),
        () = revoked(hub, Some(holder)) => return LinkEnd::Revoked,
        () = revoked(hub, other_holder.as_ref()) => return LinkEnd::Revoked,
    };
    tracing::info!(%from, %to, %end, "the way between two phones ended");
    LinkEnd::Led(end)
}

async fn keep(hub: &Hub, newcomer: Newcomer) -> Result<std::convert::Infallible, LinkEnd> {
    let Newcomer { connection, join, holder, _place } = newcomer;
    let Connection { mut reader, mut writer, peer, .. } = connection;
    let (name, protocol, from) = (join.phone.clone(), join.version, peer.address);
    let seat = match seat(hub, join).await {
        Ok(seat) => seat,
        Err(reason) => return Err(refuse(&mut writer, reason, Remedy::Person).await),
    };
    tracing::info!(phone = %name, %from, %protocol, "phone joined");
    if seat.replaces {
        hub.frames.phone_gone(&name);
    }
    let presence = Presence { hub, name: &name, id: seat.id, holder: holder.as_ref() };
    let good_until = AtomicU64::new(holder.as_ref().map_or(u64::MAX, |holder| holder.not_after));
    reader.trust();
    let (answers, to_answer) = mpsc::channel(16);
    let cut = seat.cut.clone();
    let end = tokio::select! {
        () = cut.cancelled() => LinkEnd::Cut,
        () = revoked(hub, holder.as_ref()) => LinkEnd::Revoked,
        () = run_out(&good_until) => LinkEnd::RanOut,
        Err(end) = read_frames(&presence, reader, answers, &good_until) => end,
        Err(end) = write_queue(&presence, writer, seat, to_answer) => end,
    };
    tracing::info!(phone = %name, "the link of a phone ended: {end}");
    Err(end)
}

/// Leaves the registry when it is dropped, however the link ends.
struct Presence<'a> {
    hub: &'a Hub,
    name: &'a str,
    id: u64,
    /// Who it has shown to be; none where nobody shows anything, as in benches.
    holder: Option<&'a Proven>,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.hub.registry.unseat(self.name, self.id) {
            self.hub.frames.phone_gone(self.name);
        }
    }
}

/// Ends when the Phone of a link records its key no longer.
async fn revoked(hub: &Hub, holder: Option<&Proven>) {
    let Some(holder) = holder else { return std::future::pending().await };
    let mut keys = hub.keys.clone();
    let gone = keys.wait_for(|keys| keys.is_some() && !is_recorded(keys.as_ref(), &holder.name.name, &holder.key));
    if gone.await.is_err() {
        // Whoever told of keys has ended; so will the hub.
        std::future::pending().await
    }
}

/// Ends when the certificate of a link has run out, and none has come in its place.
async fn run_out(good_until: &AtomicU64) {
    loop {
        let left = good_until.load(Ordering::Relaxed).saturating_sub(Clock::system().now());
        if left == 0 {
            return;
        }
        // Its last second is still good.
        tokio::time::sleep(Duration::from_secs(left).min(LONGEST_LOOK)).await;
    }
}

async fn read_frames(
    presence: &Presence<'_>,
    mut reader: FrameReader,
    answers: mpsc::Sender<Frame>,
    good_until: &AtomicU64,
) -> Result<std::convert::Infallible, LinkEnd> {
    let Presence { hub, name, id, holder } = *presence;
    let mut looks = tokio::time::interval(PING_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut n_bytes = reader.n_bytes_read();
    loop {
        let frame = tokio::select! {
            biased;
            frame = reader.next() => Some(frame?),
            _ = looks.tick() => None,
        };
        // A frame may be long under way: its bytes are a sign of life too.
        if frame.is_some() || reader.n_bytes_read() > n_bytes {
            n_bytes = reader.n_bytes_read();
            hub.registry.heard(name, id, Instant::now());
        }
        let Some(frame) = frame else { continue };
        match frame {
            Frame::Ping { nonce } => {
                // Waiting here is the brake for an agent that asks faster than it reads.
                if answers.send(Frame::Pong { nonce }).await.is_err() {
                    return Err(LinkEnd::Cut);
                }
            }
            Frame::Pong { nonce } => hub.registry.pong(name, id, nonce, Instant::now()),
            Frame::ToHub(ToHub::Metrics { id: asked, text }) => hub.registry.told_metrics(name, id, asked, text),
            Frame::ToHub(ToHub::Renew { request }) => {
                let Some(holder) = holder else { continue };
                match hub.registrar.renew(name, &holder.key, &request) {
                    Ok(papers) => {
                        good_until.store(papers.good_until_seconds, Ordering::Relaxed);
                        if answers.send(Frame::ToAgent(ToAgent::Enrolled(papers))).await.is_err() {
                            return Err(LinkEnd::Cut);
                        }
                    }
                    // It asks again, and is refused by name when what it has runs out.
                    Err(reason) => tracing::warn!(phone = %name, %reason, "a certificate was not renewed"),
                }
            }
            Frame::ToHub(ToHub::Heartbeat(heartbeat)) => hub.registry.heartbeat(name, id, bounded(heartbeat)),
            frame @ (Frame::Token(_) | Frame::Failed(_) | Frame::Paused { .. } | Frame::Resumed { .. }) => {
                hub.frames.deliver(name, frame);
            }
            other => return Err(LinkError::unexpected(&other, "a heartbeat, a token, a failure or a ping").into()),
        }
    }
}

/// Writes welcome, assignments whenever they change, queued frames, answers and pings.
async fn write_queue(
    presence: &Presence<'_>,
    mut writer: FrameWriter,
    mut seat: Seat,
    mut to_answer: mpsc::Receiver<Frame>,
) -> Result<std::convert::Infallible, LinkEnd> {
    let Presence { hub, name, id, .. } = *presence;
    let welcome = Welcome {
        version: version::CURRENT,
        weights_url: hub.weights_url.clone(),
        heartbeat_seconds: HEARTBEAT_SECONDS,
        time_seconds: Clock::system().now(),
    };
    writer.write(&Frame::ToAgent(ToAgent::Welcome(welcome))).await?;

    let mut assigned = hub.assigned.clone();
    assigned.mark_changed();
    let mut sent: Option<Vec<Assignment>> = None;
    let mut neighbourhood = hub.neighbourhood.clone();
    neighbourhood.mark_changed();
    let mut told = Neighbours::default();
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let first = tokio::select! {
            biased;
            changed = assigned.changed() => {
                if changed.is_err() {
                    return Err(LinkEnd::Stopping);
                }
                let all = assigned.borrow_and_update().clone();
                let Some(all) = all else { continue };
                let own = all.get(name).cloned().unwrap_or_default();
                if sent.as_ref() == Some(&own) {
                    continue;
                }
                let frame = Frame::ToAgent(ToAgent::Assignments { segments: own.clone() });
                sent = Some(own);
                frame
            }
            changed = neighbourhood.changed() => {
                if changed.is_err() {
                    return Err(LinkEnd::Stopping);
                }
                let own = neighbourhood.borrow_and_update().of(name);
                if told == own {
                    continue;
                }
                told = own.clone();
                Frame::ToAgent(ToAgent::Neighbours(own))
            }
            _ = pings.tick() => match hub.registry.ping(name, id, Instant::now()) {
                Some(nonce) => Frame::Ping { nonce },
                None => return Err(LinkEnd::Cut),
            },
            answer = to_answer.recv() => match answer {
                Some(frame) => frame,
                None => return Err(LinkEnd::Cut),
            },
            frame = seat.queue.recv() => match frame {
                Some(frame) => frame,
                None => return Err(LinkEnd::Cut),
            },
        };
        writer.write_with(&first, &mut seat.queue).await?;
    }
}
