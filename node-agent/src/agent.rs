//! The agent: probes the phone, opens its ring port, and keeps the host link until it is told to stop.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use polyphony_identity::Audience;
use polyphony_kernels::KvType;
use polyphony_protocol::frame::MAX_FRAME_BYTES;
use polyphony_protocol::hub::{Join, Neighbours};
use polyphony_protocol::version;
use polyphony_wire::{Bounds, Security, Uncounted, Wire};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::acquaintance::Acquaintance;
use crate::assignment::{Assignments, Context, Ordeals, Residents};
use crate::backend::{self, Measuring, Sabotage};
use crate::board::Board;
use crate::budget::Budget;
use crate::cpu_share::CpuShare;
use crate::data_dir::DataDir;
use crate::duty::Governor;
use crate::enrolment::{self, Enrolment};
use crate::flags::Flags;
use crate::hub_link::{HubLink, HubPapers};
use crate::identity::Identity;
use crate::meter;
use crate::metrics::{self, Labels, Metrics};
use crate::neighbours;
use crate::offer::Offer;
use crate::platform;
use crate::policy::{Limits, Policy};
use crate::relay::{Answering, Relay};
use crate::sensors::Sensors;
use crate::serve::members::Members;
use crate::serve::outlet;
use crate::serve::ring;
use crate::steward::Steward;
use crate::told::Told;
use crate::weights::Cache;

/// A session that nobody closes is forgotten after this.
const IDLE_DEADLINE: Duration = Duration::from_secs(900);
/// Frames that wait for the host link.
const QUEUE_FRAMES: usize = 1024;

/// What an agent is run with besides its flags.
pub struct Terms {
    /// Ends it.
    pub shutdown: CancellationToken,
    /// What a person gave to join with.
    pub enrolment: Option<Enrolment>,
    /// Whether a person waits for the first welcome of the host: without it the agent ends, for who can act on it is there.
    pub is_awaited: bool,
    /// This program, where it can be started once more to measure the GPU apart.
    pub program: Option<PathBuf>,
    /// Where the agent keeps what it knows of itself.
    pub board: Arc<Board>,
    /// What an app says of the phone.
    pub told: Option<watch::Receiver<Told>>,
    /// In place of what the phone's papers give: [`Security::Plain`] speaks with other phones in the clear, whoever they are, for a bench that
    /// measures what TLS costs, and for nothing else. No flag leads here.
    pub between_phones: Option<Security>,
}

// === impl Terms ===

impl Terms {
    /// Of an agent that nobody waits for and nobody tells anything.
    pub fn until(shutdown: CancellationToken) -> Self {
        let board = Arc::new(Board::default());
        Self { shutdown, enrolment: None, is_awaited: false, program: None, board, told: None, between_phones: None }
    }
}

/// A token that SIGTERM and SIGINT cancel.
///
/// # Errors
/// When the system takes no handler.
pub fn ended_by_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ended.cancel();
    });
    Ok(shutdown)
}

/// Runs until its end.
///
/// # Errors
/// When the flags do not fit this machine: no papers and no token, a port in use, a backend that does not open; and a [`LinkError`]
/// when somebody waits for the first welcome of the host and it does not come.
///
/// [`LinkError`]: polyphony_wire::LinkError
pub async fn run(flags: Flags, terms: Terms) -> anyhow::Result<()> {
    let Terms { shutdown, enrolment, is_awaited, program, board, told, between_phones } = terms;
    let _data_dir = DataDir::take(&flags.data_dir)?;
    let mut identity = Identity::open(&flags.data_dir)?;
    let ring_listener = bind_ring(&flags).await?;
    let ring_address = ring_listener.local_addr()?;
    let metrics_listener = metrics::bind(flags.metrics_address).await?;
    let metrics_address = metrics_listener.local_addr()?;
    let choice = flags.backend;
    let share = flags.cpu_share_file.as_deref().map(CpuShare::open).transpose()?;
    let capacity_bytes = platform::memory_bytes().unwrap_or(0);
    let allocatable_bytes = allocatable(flags.memory, capacity_bytes)?;
    // A lab's share is of one core.
    let threads = if share.is_some() && flags.threads == 0 { 1 } else { flags.threads };
    let (data_dir, memory_bytes) = (flags.data_dir.clone(), allocatable_bytes);
    let sabotage = flags.sabotage_file.as_deref().map(Sabotage::new);
    let how = Measuring { threads, share, data_dir, memory_bytes, program, sabotage };
    let choosing = tokio::task::spawn_blocking(move || backend::choose(choice, &how));
    let chosen = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        chosen = choosing => chosen??,
    };
    let speeds = chosen.speeds();
    for speed in &speeds {
        tracing::info!(numerics = %speed.numerics, device = %speed.device, gflops = format!("{:.2}", speed.gflops), "measured");
    }
    let joining = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Joining);
    let taking_part = enrolment::credentials(&mut identity, &flags, enrolment.as_ref(), &joining, is_awaited, &board);
    let credentials = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        credentials = taking_part => credentials?,
    };
    let cache = Cache::open(flags.data_dir.join("weights"), flags.cache_size)?;
    let join = Join {
        version: version::CURRENT,
        phone: flags.name.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ring_address: ring_address.to_string(),
        capacity_bytes,
        allocatable_bytes,
        backend: chosen.first().name.to_owned(),
        device: chosen.first().device.clone(),
        numerics: chosen.first().numerics.clone(),
        speeds: speeds.clone(),
        kv_caches: KvType::ALL.map(|kv_type| kv_type.name().to_owned()).into(),
        metrics_address: metrics_address.to_string(),
        instance: instance(),
        hardware: platform::hardware(),
    };
    tracing::info!(phone = %flags.name, ring = %ring_address, metrics = %metrics_address, numerics = %chosen.names(), protocol = %version::CURRENT, device = %chosen.first().device, limit = MAX_FRAME_BYTES, "agent started");
    let memory = Budget::new(allocatable_bytes);
    let (readings, sensed) = Sensors { file: flags.sensors.clone(), told }.watch(shutdown.clone()).await;
    let limits = Limits { min_battery_percent: flags.min_battery, max_temperature_celsius: flags.max_temperature };
    let steward = Steward {
        readings: readings.clone(),
        policy: Policy::new(limits),
        governor: Governor::new(flags.hold_temperature),
        board: board.clone(),
        duty: chosen.duty().clone(),
        offer: Offer::new(allocatable_bytes),
        memory: memory.clone(),
    };
    let watched = tokio::spawn(steward.run());
    let labels = Labels {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: chosen.first().name.to_owned(),
        device: chosen.first().device.clone(),
        speeds,
    };
    let metrics =
        Arc::new(Metrics::new(labels, board.clone(), memory.clone(), readings.clone(), chosen.duty().clone()));
    let security = Security::mutual(&credentials, Audience::Certified)?;
    let counted = |security| Wire::new(Bounds::default(), Arc::new(metrics.traffic.clone()), security);
    let ring_wire = counted(between_phones.unwrap_or_else(|| security.clone()));
    let wire = counted(security);
    let domain = credentials.own().name.domain;
    let hub = HubPapers { identity, credentials, enrolment };
    let relay = Relay { address: flags.hub.clone(), hub: hub.hub(), wire: wire.clone() };
    let (answering, called) = Answering::new(relay.clone());
    let acquaintance = Acquaintance { phone: flags.name.clone(), domain, wire: ring_wire.clone(), relay };
    let members = Members::default();
    let (to_host, outgoing) = outlet::to_host(QUEUE_FRAMES);
    let (host, known_host) = watch::channel(None);
    let context = Arc::new(Context {
        phone: flags.name.clone(),
        memory: memory.clone(),
        chosen,
        cache,
        ordeals: Ordeals::open(&flags.data_dir),
        board: board.clone(),
        metrics: metrics.clone(),
        members: members.clone(),
        acquaintance: acquaintance.clone(),
        to_host,
        step_deadline: Duration::from_secs_f64(flags.step_deadline_seconds),
        idle_deadline: IDLE_DEADLINE,
        fetching: tokio::sync::Mutex::new(()),
        host: known_host,
        residents: Residents::default(),
    });
    let (neighbours, known_neighbours) = watch::channel(Neighbours::default());
    let listening = tokio::spawn(ring::listen(
        ring_listener,
        called,
        members.clone(),
        known_neighbours.clone(),
        ring_wire,
        shutdown.clone(),
    ));
    let measured = tokio::spawn(neighbours::measure(acquaintance, known_neighbours, board.clone(), shutdown.clone()));
    let metered = tokio::spawn(meter::run(readings.clone(), board.clone()));
    let scraped = tokio::spawn(metrics::serve(metrics_listener, metrics.clone(), shutdown.clone()));
    let assignments = Assignments::new(context.clone());
    let link = HubLink {
        aside: context.chosen.aside().clone(),
        address: flags.hub,
        papers: hub,
        join,
        board,
        members,
        assignments,
        wire,
        outgoing,
        memory,
        readings,
        metrics,
        neighbours,
        answering,
        host,
        is_awaited,
    };
    let ended = link.run(shutdown.clone()).await;
    shutdown.cancel();
    context.ordeals.end();
    listening.await?;
    measured.await?;
    metered.await?;
    scraped.await?;
    sensed.await?;
    watched.await?;
    tracing::info!("agent stopped");
    Ok(ended?)
}

/// What segments may take: what a person allows, as far as there is so much.
pub(crate) fn allocatable(allowed: Option<u64>, capacity_bytes: u64) -> anyhow::Result<u64> {
    match (allowed, capacity_bytes) {
        (Some(allowed), 0) => Ok(allowed),
        (Some(allowed), capacity) if allowed > capacity => {
            tracing::warn!(
                "--memory allows {} MiB and this phone has {} MiB: segments get no more than that",
                allowed >> 20,
                capacity >> 20
            );
            Ok(capacity)
        }
        (Some(allowed), _) => Ok(allowed),
        (None, 0) => bail!("this system does not say how much memory it has: give --memory"),
        (None, capacity) => Ok(capacity / 2),
    }
}

async fn bind_ring(flags: &Flags) -> anyhow::Result<TcpListener> {
    let address = flags.ring_address;
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another --ring-address"))
}

/// Tells this life of the agent from those before and after it.
fn instance() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_more_memory_is_offered_than_there_is() {
        for (allowed, capacity, expected) in
            [(Some(u64::MAX), 1000, 1000), (Some(10), 1000, 10), (Some(10), 0, 10), (None, 1000, 500)]
        {
            assert_eq!(allocatable(allowed, capacity).unwrap(), expected, "{allowed:?} of {capacity}");
        }
        assert!(allocatable(None, 0).unwrap_err().to_string().contains("--memory"));
    }
}
