//! The host link: the one connection that the agent dials to the host, kept for ever.
//!
//! Over it come assignments and the gateway's frames; over it go heartbeats, tokens and failures.

mod papers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use polyphony_protocol::frame::{Failed, FailureCode};
use polyphony_protocol::hub::{Heartbeat, Join, Neighbours, ToAgent, ToHub, Welcome};
use polyphony_protocol::{Frame, RouteKey, version};
use polyphony_wire::{Connection, FrameReader, LinkError, Wire};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::assignment::Assignments;
use crate::backend::Aside;
use crate::board::Board;
use crate::budget::Budget;
use crate::metrics::Metrics;
use crate::reading::Reading;
use crate::relay::Answering;
use crate::serve::event::{Event, Source, key_of};
use crate::serve::members::Members;
use crate::serve::outlet::FromStages;
use crate::weights::Host;

use papers::Renewals;

pub use papers::HubPapers;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// The hub pings each second; a hub that is silent this long is gone.
const SILENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// For an agent that was welcomed before: a host that is started anew waits for its phones.
const LONGEST_PAUSE_OF_KNOWN: Duration = Duration::from_secs(2);
/// More than this would stand in the way of heartbeats.
const MAX_METRICS_BYTES: usize = 256 << 10;
/// Papers that were asked for have come by then, or are asked for again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How long changes are gathered for one heartbeat.
const GATHER_CHANGES: Duration = Duration::from_millis(20);
/// Frames that wait for the socket.
const QUEUE_FRAMES: usize = 1024;

/// What the link works with.
pub struct HubLink {
    pub address: String,
    /// Who this phone is, and how it stays that.
    pub papers: HubPapers,
    pub join: Join,
    pub board: Arc<Board>,
    /// Backends that failed.
    pub aside: Aside,
    pub members: Members,
    pub assignments: Assignments,
    pub wire: Wire,
    /// Frames for the gateway.
    pub outgoing: FromStages,
    /// What segments may take.
    pub memory: Budget,
    /// Battery and heat.
    pub readings: watch::Receiver<Reading>,
    /// What is shown to who scrapes this phone through the host.
    pub metrics: Arc<Metrics>,
    /// Told whose links are to be measured.
    pub neighbours: watch::Sender<Neighbours>,
    /// Who answers phones that call over the host.
    pub answering: Answering,
    /// Told where weights come from.
    pub host: watch::Sender<Option<Host>>,
    /// Whether a person waits for the first welcome. Until it comes a failure is the end, for who can act on it is there.
    pub is_awaited: bool,
}

/// When it is dialled again.
struct Retry {
    pause: Duration,
    longest: Duration,
}

// === impl HubLink ===

impl HubLink {
    /// Keeps the link until `shutdown`. Segments stay as they are while it is down.
    ///
    /// # Errors
    /// When somebody waits for the first welcome and it does not come.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), LinkError> {
        let mut retry = Retry { pause: FIRST_PAUSE, longest: LONGEST_PAUSE };
        loop {
            let end = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                end = self.once(&mut retry) => end,
            };
            let why = end.as_ref().err().map(|error| format!("no link to the host at {}: {error}", self.address));
            self.board.set_away(why);
            if let Err(error) = end {
                if self.is_awaited {
                    return Err(error);
                }
                tracing::warn!(hub = %self.address, %error, retry_in = ?retry.pause, "no link to the host");
            }
            // The gateway that had this phone's sessions replays them, or is gone: they are over here, before the next link is up.
            self.members.host_lost();
            // Frames for it are void.
            let wait = tokio::time::sleep(retry.pause);
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = &mut wait => break,
                    _ = self.outgoing.frames.recv() => {}
                }
            }
            self.outgoing.clear();
            retry.pause = (retry.pause * 2).min(retry.longest);
        }
    }

    async fn once(&mut self, retry: &mut Retry) -> Result<(), LinkError> {
        let (connection, welcome) = self.greet().await?;
        let Connection { mut reader, mut writer, peer, .. } = connection;
        self.papers.hear_time(&peer.proof, welcome.time_seconds)?;
        if !version::CURRENT.speaks_with(welcome.version) {
            return Err(LinkError::Refused(version::refusal("the host", welcome.version, "this agent")));
        }
        self.papers.settle();
        tracing::info!(hub = %self.address, "joined");
        *retry = Retry { pause: FIRST_PAUSE, longest: LONGEST_PAUSE_OF_KNOWN };
        self.meet_host(&welcome, peer.address.ip())?;
        self.is_awaited = false;
        self.board.set_welcomed();
        let told = Duration::try_from_secs_f64(welcome.heartbeat_seconds).unwrap_or(Duration::MAX);
        let every = told.clamp(Duration::from_millis(100), Duration::from_secs(60));
        let (queue, mut waiting) = mpsc::channel(QUEUE_FRAMES);
        let (board, aside) = (self.board.clone(), self.aside.clone());
        let members = self.members.clone();
        let (memory, readings) = (self.memory.clone(), self.readings.clone());
        let overruns = self.outgoing.overruns();
        let renewals = self.papers.renewals();
        let told = Told {
            members: &members,
            assignments: &mut self.assignments,
            neighbours: &self.neighbours,
            answering: &self.answering,
            papers: &mut self.papers,
            metrics: &self.metrics,
        };
        tokio::select! {
            () = overruns.notified() => Err(LinkError::Overrun),
            end = writer.write_queue(&mut waiting) => end,
            end = told.read_frames(&mut reader, queue.clone()) => end,
            end = ask_for_papers(renewals, queue.clone()) => end,
            end = send_heartbeats(&board, &aside, &memory, &readings, every, queue.clone()) => end,
            end = forward(&mut self.outgoing.frames, queue) => end,
        }
    }

    /// Dials the hub and is welcomed; papers that it does not take are mended once, where they can be.
    async fn greet(&mut self) -> Result<(Connection, Welcome), LinkError> {
        let mut is_mended = false;
        loop {
            let mut link = self.wire.dial(&self.address, &self.papers.hub(), HANDSHAKE).await?;
            // What has come until now is void too. What comes from here on may be of a session that the host begins as soon as it has read the join.
            self.outgoing.clear();
            link.writer.write(&Frame::ToHub(ToHub::Join(self.join.clone().into()))).await?;
            match link.reader.next_within(HANDSHAKE).await? {
                Frame::ToAgent(ToAgent::Welcome(welcome)) => return Ok((link, welcome)),
                Frame::ToAgent(ToAgent::Refused { reason, remedy }) => {
                    if is_mended {
                        return Err(LinkError::Refused(reason));
                    }
                    self.papers.mend(&self.wire, &self.address, reason, remedy).await?;
                    is_mended = true;
                }
                other => return Err(LinkError::unexpected(&other, "a welcome")),
            }
        }
    }

    fn meet_host(&self, welcome: &Welcome, dialled: IpAddr) -> Result<(), LinkError> {
        let url = weights_url(&welcome.weights_url, dialled);
        let host = Host::new(&url, &self.papers.credentials)
            .map_err(|error| LinkError::Refused(format!("cannot fetch weights from {url}: {error}")))?;
        self.host.send_replace(Some(host));
        Ok(())
    }
}

/// The base URL of weights; a host that listens on all its addresses is meant at the one that was dialled.
fn weights_url(told: &str, dialled: IpAddr) -> String {
    let Ok(mut url) = reqwest::Url::parse(told) else { return told.to_owned() };
    let everywhere = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if !url.host_str().is_some_and(everywhere) || url.set_ip_host(dialled).is_err() {
        return told.to_owned();
    }
    url.as_str().trim_end_matches('/').to_owned()
}

/// Who is told what comes from the host.
struct Told<'a> {
    members: &'a Members,
    assignments: &'a mut Assignments,
    neighbours: &'a watch::Sender<Neighbours>,
    answering: &'a Answering,
    papers: &'a mut HubPapers,
    metrics: &'a Arc<Metrics>,
}

impl Told<'_> {
    async fn read_frames(self, reader: &mut FrameReader, queue: mpsc::Sender<Frame>) -> Result<(), LinkError> {
        loop {
            match reader.next_unless_silent(SILENCE).await? {
                Frame::Ping { nonce } => send(&queue, Frame::Pong { nonce }).await?,
                Frame::ToAgent(ToAgent::Assignments { segments }) => self.assignments.apply(segments),
                Frame::ToAgent(ToAgent::Neighbours(told)) => drop(self.neighbours.send_replace(told)),
                Frame::ToAgent(ToAgent::Called { call }) => self.answering.answer(call),
                Frame::ToAgent(ToAgent::Enrolled(enrolled)) => self.papers.take(&enrolled)?,
                Frame::ToAgent(ToAgent::TellMetrics { id }) => {
                    drop(tokio::spawn(tell(self.metrics.clone(), id, queue.clone())));
                }
                Frame::ToAgent(ToAgent::Refused { reason, .. }) => return Err(LinkError::Refused(reason)),
                frame => {
                    let Some(key) = key_of(&frame) else {
                        return Err(LinkError::unexpected(&frame, "a session's frame"));
                    };
                    if let Some(failed) = hand_over(frame, key, self.members).await {
                        send(&queue, Frame::Failed(failed)).await?;
                    }
                }
            }
        }
    }
}

/// Gives a gateway's frame to the stage that it is for.
async fn hand_over(frame: Frame, key: RouteKey, members: &Members) -> Option<Failed> {
    // What is already gone needs no closing.
    let is_close = matches!(frame, Frame::Close { .. });
    let member = members.find(key.ring, key.generation);
    let why = match member {
        None => "this phone holds no segment of that plan".to_owned(),
        Some(member) => match member.compute.try_send(Event::Frame { frame, source: Source::Host }) {
            Ok(()) => return None,
            Err(error) => error.to_string(),
        },
    };
    (!is_close).then_some(Failed { key, code: FailureCode::StaleGeneration, message: why })
}

async fn send_heartbeats(
    board: &Board,
    aside: &Aside,
    memory: &Budget,
    readings: &watch::Receiver<Reading>,
    every: Duration,
    queue: mpsc::Sender<Frame>,
) -> Result<(), LinkError> {
    loop {
        let now = *readings.borrow();
        let heartbeat = Heartbeat {
            battery_percent: now.battery.percent,
            charging: now.battery.is_charging,
            temperature_celsius: now.temperature_celsius(),
            segments: board.segments(),
            links: board.links(),
            links_down: board.links_down(),
            faults: Some(aside.list()),
            withdrawal: board.withdrawal(),
            active_watts: board.energy().active_watts,
            allocatable_bytes: Some(memory.limit_bytes()),
        };
        send(&queue, Frame::ToHub(ToHub::Heartbeat(heartbeat))).await?;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            // Changes that come together go out together, and news of a phone that changes for ever are bounded.
            () = board.changed() => tokio::time::sleep(GATHER_CHANGES).await,
        }
    }
}

/// Tells the metrics; the host asks for them one at a time.
async fn tell(metrics: Arc<Metrics>, id: u64, queue: mpsc::Sender<Frame>) {
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    let text = text.ok().and_then(Result::ok).filter(|text| text.len() <= MAX_METRICS_BYTES).unwrap_or_default();
    // A link that has ended meanwhile needs none.
    let _ = queue.send(Frame::ToHub(ToHub::Metrics { id, text })).await;
}

/// Asks for new papers whenever those of now are due.
async fn ask_for_papers(renewals: Renewals, queue: mpsc::Sender<Frame>) -> Result<(), LinkError> {
    loop {
        renewals.due().await;
        send(&queue, Frame::ToHub(ToHub::Renew { request: renewals.request() })).await?;
        tokio::time::sleep(RENEWAL_PAUSE).await;
    }
}

async fn forward(outgoing: &mut mpsc::Receiver<Frame>, queue: mpsc::Sender<Frame>) -> Result<(), LinkError> {
    while let Some(frame) = outgoing.recv().await {
        send(&queue, frame).await?;
    }
    Ok(())
}

async fn send(queue: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), LinkError> {
    queue.send(frame).await.map_err(|_| LinkError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_host_that_listens_everywhere_come_from_where_it_was_dialled() {
        let dialled = IpAddr::from([10, 0, 0, 5]);
        assert_eq!(weights_url("https://0.0.0.0:7701", dialled), "https://10.0.0.5:7701");
        assert_eq!(weights_url("https://[::]:7701", dialled), "https://10.0.0.5:7701");
        assert_eq!(weights_url("https://127.0.0.1:7701", dialled), "https://127.0.0.1:7701");
        assert_eq!(weights_url("no url", dialled), "no url");
    }
}
