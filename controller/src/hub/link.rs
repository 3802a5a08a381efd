//! A link: one agent's connection, from its join to its end.
//!
//! Reading and writing are two tasks that end together; the end is reported at once to the registry and to the gateway.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_protocol::hub::{Assignment, Heartbeat, Join, Neighbours, ToAgent, ToHub, Welcome};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Bounds, Caller, Connection, FrameReader, FrameWriter, LinkError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Hub;
use super::registry::{MAX_PHONES, Seat};
use super::strangers::Stranger;

/// What an agent may send, and how long it may take for what is sent to it: slow is not gone.
pub(super) const BOUNDS: Bounds =
    Bounds { greeting_bytes: 64 << 10, frame_bytes: 1 << 20, write_deadline: Duration::from_secs(30) };
/// A join has to come within this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// An agent that joins under a linked phone's name waits this long for the older link to show that it lives.
const PROOF_OF_LIFE: Duration = Duration::from_millis(1500);
const PROOF_POLL: Duration = Duration::from_millis(50);
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
        LinkEnd::Stopping | LinkEnd::Displaced | LinkEnd::Link(LinkError::Closed) => {
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
    let (connection, join, _place) = tokio::select! {
        () = stranger.displaced() => return Err(LinkEnd::Displaced),
        admitted = admit(hub, caller, places) => admitted?,
    };
    // It has shown that it is a phone; whoever knocks next is no matter to it.
    drop(stranger);
    let Connection { mut reader, mut writer, peer: from } = connection;
    let (name, protocol) = (join.phone.clone(), join.version);
    let seat = match seat(hub, join).await {
        Ok(seat) => seat,
        Err(reason) => return Err(refuse(&mut writer, reason).await),
    };
    tracing::info!(phone = %name, %from, %protocol, "phone joined");
    if seat.replaces {
        hub.frames.phone_gone(&name);
    }
    let presence = Presence { hub, name: &name, id: seat.id };
    reader.trust();
    let (answers, to_answer) = mpsc::channel(16);
    let cut = seat.cut.clone();
    let end = tokio::select! {
        () = cut.cancelled() => LinkEnd::Cut,
        Err(end) = read_frames(&presence, reader, answers) => end,
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
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.hub.registry.unseat(self.name, self.id) {
            self.hub.frames.phone_gone(self.name);
        }
    }
}

/// Hears a stranger's join, within its time, and lets it in where it shows the token and there is a place.
async fn admit(
    hub: &Hub,
    caller: Caller,
    places: Arc<Semaphore>,
) -> Result<(Connection, Join, OwnedSemaphorePermit), LinkEnd> {
    let mut connection = caller.meet().await?;
    let mut join = match connection.reader.next_within(HANDSHAKE_DEADLINE).await? {
        Frame::ToHub(ToHub::Join(join)) => join,
        other => return Err(LinkError::unexpected(&other, "a join").into()),
    };
    let place = recognise(hub, &join).and_then(|()| {
        places
            .try_acquire_owned()
            .map_err(|_| format!("{MAX_PHONES} phones are linked, which is the limit: stop the agent of another one"))
    });
    match place {
        Ok(place) => {
            join.speeds.truncate(MAX_SPEEDS);
            join.kv_caches.truncate(MAX_KV_CACHES);
            Ok((connection, join, place))
        }
        Err(reason) => Err(refuse(&mut connection.writer, reason).await),
    }
}

/// Tells the agent why it is refused; whether it takes that or not.
async fn refuse(writer: &mut FrameWriter, reason: String) -> LinkEnd {
    let refused = Frame::ToAgent(ToAgent::Refused { reason: reason.clone() });
    match tokio::time::timeout(HANDSHAKE_DEADLINE, writer.write(&refused)).await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => LinkEnd::Refused(reason),
    }
}

/// Checks a join, or says what is wrong with it.
fn recognise(hub: &Hub, join: &Join) -> Result<(), String> {
    if !version::CURRENT.speaks_with(join.version) {
        // Its name is not checked yet, and goes into a log.
        let name: String = join.phone.chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
        return Err(version::refusal(&format!("the agent of {name}"), join.version, "this hub"));
    }
    if !hub.join_token.matches(&join.token) {
        return Err("the join token is wrong: copy the line that `polyctl join-command` prints on the host".into());
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

fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| inner(byte) || byte == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

async fn read_frames(
    presence: &Presence<'_>,
    mut reader: FrameReader,
    answers: mpsc::Sender<Frame>,
) -> Result<std::convert::Infallible, LinkEnd> {
    let Presence { hub, name, id } = *presence;
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
    let Presence { hub, name, id } = *presence;
    let welcome = Welcome {
        version: version::CURRENT,
        weights_url: hub.weights_url.clone(),
        heartbeat_seconds: HEARTBEAT_SECONDS,
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

    #[test]
    fn a_phones_name_is_a_dns_label() {
        for good in ["phone-1", "a", "0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "Phone", "a.b", "a/b", &"x".repeat(64), "ä"] {
            assert!(!is_dns_label(bad), "{bad}");
        }
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
