//! A link: one agent's connection, from its join to its end.
//!
//! Reading and writing are two tasks that end together; the end is reported at once to the registry and to the gateway.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polyphony_identity::{Clock, Proven, Role, is_dns_label};
use polyphony_protocol::hub::{Assignment, Enrolled, Heartbeat, Join, Neighbours, Remedy, ToAgent, ToHub, Welcome};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Bounds, Caller, Connection, FrameReader, FrameWriter, LinkError, Proof};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Hub;
use super::keys::is_recorded;
use super::registry::{MAX_PHONES, Seat};
use super::strangers::Stranger;

/// What an agent may send, and how long it may take for what is sent to it: slow is not gone.
pub(super) const BOUNDS: Bounds =
    Bounds { greeting_bytes: 64 << 10, frame_bytes: 1 << 20, write_deadline: Duration::from_secs(30) };
/// A handshake, and a join after it, have to come within this time each.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A key that was recorded a moment ago is seen by then.
const RECORDED_BY: Duration = Duration::from_secs(3);
/// An agent that joins under a linked phone's name waits this long for the older link to show that it lives.
const PROOF_OF_LIFE: Duration = Duration::from_millis(1500);
const PROOF_POLL: Duration = Duration::from_millis(50);
/// A clock may be set meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How often an agent is asked to speak.
const HEARTBEAT_SECONDS: f64 = 1.0;
/// What one heartbeat may list, and the length of its texts.
const MAX_LISTED: usize = 256;
const MAX_SPEEDS: usize = 8;
/// Types of KV caches; there are three.
const MAX_KV_CACHES: usize = 8;
const MAX_TEXT: usize = 512;
/// More layers than any model has.
const MAX_LAYERS: u32 = 1 << 12;

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
        LinkEnd::Stopping | LinkEnd::Displaced | LinkEnd::Answered | LinkEnd::Link(LinkError::Closed) => {
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
    let Admitted { connection, join, holder, _place } = tokio::select! {
        () = stranger.displaced() => return Err(LinkEnd::Displaced),
        admitted = admit(hub, caller, places) => admitted?,
    };
    // It has shown that it is a phone; whoever knocks next is no matter to it.
    drop(stranger);
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

/// A phone that may have a link.
struct Admitted {
    connection: Connection,
    join: Join,
    /// None where nobody shows anything, as in benches.
    holder: Option<Proven>,
    _place: OwnedSemaphorePermit,
}

/// Hears what a stranger wants, within its time: papers, which it is given, or a link, which it is let in for where it has shown that the name
/// is its own and there is a place.
async fn admit(hub: &Hub, caller: Caller, places: Arc<Semaphore>) -> Result<Admitted, LinkEnd> {
    let mut connection = caller.meet(HANDSHAKE_DEADLINE).await?;
    let mut join = match connection.reader.next_within(HANDSHAKE_DEADLINE).await? {
        Frame::ToHub(ToHub::Join(join)) => join,
        Frame::ToHub(ToHub::Enrol(enrol)) => {
            let papers = hub.registrar.enrol(&enrol).await.map_err(|reason| (reason, Remedy::Person));
            return Err(answer(&mut connection.writer, papers).await);
        }
        Frame::ToHub(ToHub::Renew { request }) => {
            let papers = renewed(hub, &connection.peer.proof, &request).await;
            return Err(answer(&mut connection.writer, papers).await);
        }
        other => return Err(LinkError::unexpected(&other, "a join, or a request for papers").into()),
    };
    let known = match recognise(&join) {
        Ok(()) => own_name(hub, &connection.peer.proof, &join.phone).await,
        Err(reason) => Err((reason, Remedy::Person)),
    };
    let full = || format!("{MAX_PHONES} phones are linked, which is the limit: stop the agent of another one");
    let place = known.and_then(|holder| match places.try_acquire_owned() {
        Ok(place) => Ok((holder, place)),
        Err(_) => Err((full(), Remedy::Person)),
    });
    match place {
        Ok((holder, place)) => {
            join.speeds.truncate(MAX_SPEEDS);
            join.kv_caches.truncate(MAX_KV_CACHES);
            Ok(Admitted { connection, join, holder, _place: place })
        }
        Err((reason, remedy)) => Err(refuse(&mut connection.writer, reason, remedy).await),
    }
}

type Refusal = (String, Remedy);

/// Whether the name is of who is at the other end: it holds the certificate, that is good now, and the Phone records its key.
async fn own_name(hub: &Hub, proof: &Proof, name: &str) -> Result<Option<Proven>, Refusal> {
    let holder = match proof {
        Proof::Plain => return Ok(None),
        Proof::None => return Err(("no certificate was shown: join with a token first".to_owned(), Remedy::Enrol)),
        Proof::Certificate(holder) => holder,
    };
    if holder.name.role != Role::Phone || holder.name.name != name {
        return Err((format!("the certificate is of {}, not of phone {name}", holder.name), Remedy::Person));
    }
    if holder.is_expired(Clock::system().now()) {
        return Err(("the certificate has run out: it is renewed for the asking".to_owned(), Remedy::Renew));
    }
    check_recorded(hub, holder).await.map(|()| Some(holder.clone()))
}

/// Papers in place of those that are shown, also of some that have run out: TLS has seen to how long ago.
async fn renewed(hub: &Hub, proof: &Proof, request: &str) -> Result<Enrolled, Refusal> {
    let holder = proof.proven().filter(|holder| holder.name.role == Role::Phone);
    let holder = holder.ok_or_else(|| ("no phone's certificate was shown".to_owned(), Remedy::Enrol))?;
    check_recorded(hub, holder).await?;
    hub.registrar.renew(&holder.name.name, &holder.key, request).map_err(|reason| (reason, Remedy::Enrol))
}

async fn check_recorded(hub: &Hub, holder: &Proven) -> Result<(), Refusal> {
    let name = &holder.name.name;
    let mut keys = hub.keys.clone();
    let recorded = keys.wait_for(|keys| is_recorded(keys.as_ref(), name, &holder.key));
    match tokio::time::timeout(RECORDED_BY, recorded).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err((
            format!(
                "no Phone {name} records this device's key: it was deleted, or another device has the name; join again with a new token, which `polyctl join-command` on the host prints"
            ),
            Remedy::Enrol,
        )),
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

/// Gives papers, or says why there are none; the connection is over with it.
async fn answer(writer: &mut FrameWriter, papers: Result<Enrolled, Refusal>) -> LinkEnd {
    match papers {
        Ok(papers) => match writer.write(&Frame::ToAgent(ToAgent::Enrolled(papers))).await {
            Ok(()) => LinkEnd::Answered,
            Err(error) => error.into(),
        },
        Err((reason, remedy)) => refuse(writer, reason, remedy).await,
    }
}

/// Tells the agent why it is refused; whether it takes that or not.
async fn refuse(writer: &mut FrameWriter, reason: String, remedy: Remedy) -> LinkEnd {
    let refused = Frame::ToAgent(ToAgent::Refused { reason: reason.clone(), remedy });
    match tokio::time::timeout(HANDSHAKE_DEADLINE, writer.write(&refused)).await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => LinkEnd::Refused(reason),
    }
}

/// Checks a join, or says what is wrong with it.
fn recognise(join: &Join) -> Result<(), String> {
    if !version::CURRENT.speaks_with(join.version) {
        // Its name is not checked yet, and goes into a log.
        let name: String = join.phone.chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
        return Err(version::refusal(&format!("the agent of {name}"), join.version, "this hub"));
    }
    check_join(join)
}

/// Seats a phone, or says why not.
async fn seat(hub: &Hub, join: Join) -> Result<Seat, String> {
    let asked_at = Instant::now();
    if hub.registry.last_heard(&join.phone).is_some() {
        hub.registry.probe(&join.phone, asked_at);
        while asked_at.elapsed() < PROOF_OF_LIFE {
            tokio::time::sleep(PROOF_POLL).await;
            match hub.registry.last_heard(&join.phone) {
                Some(heard) if heard > asked_at => {
                    return Err(format!(
                        "a phone named {} is linked already and answers: stop its agent, or give this one another --name",
                        join.phone
                    ));
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    hub.registry.seat(join, Instant::now())
}

fn check_join(join: &Join) -> Result<(), String> {
    if !is_dns_label(&join.phone) {
        let start: String = join.phone.chars().take(80).collect();
        return Err(format!(
            "{start:?} is no name for a phone: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
        ));
    }
    if join.ring_address.parse::<SocketAddr>().is_err() {
        return Err(
            "the ring address is not of the form IP:PORT, such as 127.0.0.1:7701: correct --ring-address".into()
        );
    }
    let texts =
        [&join.agent_version, &join.backend, &join.device, &join.numerics, &join.metrics_address, &join.instance];
    let speeds = join.speeds.iter().flat_map(|speed| [&speed.backend, &speed.device, &speed.numerics]);
    if texts.into_iter().chain(speeds).chain(&join.kv_caches).any(|text| text.len() > MAX_TEXT) {
        return Err(format!("a text of the join is over {MAX_TEXT} bytes: update the agent"));
    }
    if ![&join.metrics_address, &join.instance].into_iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err("the metrics address or the instance of the join is not printable: update the agent".into());
    }
    if join.numerics.is_empty() || join.numerics.contains('/') {
        return Err("the join names no numerics, such as cpu-f32-r1: update the agent".into());
    }
    if join.speeds.iter().any(|speed| speed.numerics.contains('/')) {
        return Err("a speed of the join names no numerics, such as cpu-f32-r1: update the agent".into());
    }
    let mut named = join.speeds.iter().map(|speed| speed.numerics.as_str()).filter(|numerics| !numerics.is_empty());
    let mut seen = BTreeSet::new();
    if let Some(twice) = named.find(|numerics| !seen.insert(*numerics)) {
        return Err(format!("the join tells two speeds of {twice}: update the agent"));
    }
    Ok(())
}

/// The longest name of a phone, which is a DNS label.
const MAX_NAME: usize = 63;

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

/// Keeps a heartbeat within bounds, whatever the agent listed.
fn bounded(mut heartbeat: Heartbeat) -> Heartbeat {
    heartbeat.segments.truncate(MAX_LISTED);
    heartbeat.links.truncate(MAX_LISTED);
    heartbeat.links_down.truncate(MAX_LISTED);
    heartbeat.links_down.retain(|down| down.peer.len() <= MAX_TEXT && down.reason.len() <= MAX_TEXT);
    heartbeat.temperature_celsius = heartbeat.temperature_celsius.filter(|celsius| celsius.is_finite());
    let believed = |seconds: Option<f64>| seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    heartbeat.links.retain(|link| link.peer.len() <= MAX_TEXT);
    for link in &mut heartbeat.links {
        link.bytes_per_second = believed(link.bytes_per_second);
    }
    for segment in &mut heartbeat.segments {
        segment.seconds_per_layer = believed(segment.seconds_per_layer);
        segment.prefill_seconds_per_layer_per_token = believed(segment.prefill_seconds_per_layer_per_token);
        segment.seconds_besides_layers = believed(segment.seconds_besides_layers);
        segment.layers_timed = segment.layers_timed.min(MAX_LAYERS);
        if let Some(message) = &mut segment.message
            && message.len() > MAX_TEXT
        {
            *message = message.chars().take(MAX_TEXT / 4).collect();
        }
    }
    heartbeat
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

#[cfg(test)]
mod tests {
    use polyphony_protocol::hub::{LinkReport, SegmentPhase, SegmentReport, Speed};

    use super::super::fixtures::join;
    use super::*;

    #[test]
    fn a_heartbeat_is_kept_within_bounds() {
        let link = |peer: String| LinkReport { peer, round_trip_seconds: 0.001, bytes_per_second: Some(f64::NAN) };
        let segment = SegmentReport {
            namespace: "default".into(),
            name: "s".into(),
            phase: SegmentPhase::Ready,
            bytes_loaded: 0,
            bytes_total: 0,
            seconds_per_layer: Some(-1.0),
            prefill_seconds_per_layer_per_token: None,
            seconds_besides_layers: None,
            layers_timed: u32::MAX,
            queued_rows: 0,
            sessions: 0,
            message: None,
        };
        let links = vec![link("phone-1".into()), link("x".repeat(MAX_TEXT + 1))];
        let kept = bounded(Heartbeat { segments: vec![segment], links, ..Heartbeat::default() });
        assert_eq!((kept.segments[0].layers_timed, kept.segments[0].seconds_per_layer), (MAX_LAYERS, None));
        assert_eq!(kept.links.len(), 1);
        assert_eq!(kept.links[0].bytes_per_second, None);
    }

    fn speed(numerics: &str) -> Speed {
        let (backend, device, numerics) = ("cpu".into(), "cpu".into(), numerics.into());
        Speed { backend, device, numerics, gflops: 1.0, batch_gflops: 1.0, gigabytes_per_second: 1.0 }
    }

    #[test]
    fn what_an_agent_says_of_itself_is_short_and_printable() {
        type Edit = fn(&mut Join);
        let taken: [Edit; 3] = [
            |_| {},
            |join| join.instance = "x".repeat(MAX_TEXT),
            |join| (join.instance, join.metrics_address) = ("0f3a!".into(), "[::1]:9".into()),
        ];
        for edit in taken {
            let mut join = join("a");
            edit(&mut join);
            assert_eq!(check_join(&join), Ok(()), "{join:?}");
        }
        let refused: [(Edit, &str); 9] = [
            (|join| join.instance = "x".repeat(MAX_TEXT + 1), "over 512 bytes"),
            (|join| join.instance = "a b".into(), "not printable"),
            (|join| join.instance = "a\n".into(), "not printable"),
            (|join| join.instance = "ä".into(), "not printable"),
            (|join| join.metrics_address = "\u{1b}[2J".into(), "not printable"),
            (|join| join.device = "x".repeat(MAX_TEXT + 1), "over 512 bytes"),
            (|join| join.numerics = "cpu/f32".into(), "names no numerics"),
            (|join| join.ring_address = "here".into(), "--ring-address"),
            (|join| join.speeds = vec![speed("cpu-int8-r2"), speed("cpu-int8-r2")], "two speeds of cpu-int8-r2"),
        ];
        for (edit, why) in refused {
            let mut join = join("a");
            edit(&mut join);
            let said = check_join(&join).err().unwrap_or_default();
            assert!(said.contains(why), "{why} is not in {said:?}");
        }
    }
}
