//! The agent: probes the phone, opens its ring port, and keeps the host link until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use polyphony_protocol::frame::MAX_FRAME_BYTES;
use polyphony_protocol::hub::{Join, Neighbours};
use polyphony_protocol::version;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::assignment::{Assignments, Context, Residents};
use crate::backend;
use crate::board::Board;
use crate::budget::Budget;
use crate::cpu_share::CpuShare;
use crate::flags::Flags;
use crate::hub_link::HubLink;
use crate::metrics::{self, Identity, Metrics};
use crate::neighbours;
use crate::probe;
use crate::sensors::Sensors;
use crate::serve::ring::{self, Members};
use crate::weights::Cache;

/// A session that nobody closes is forgotten after this.
const IDLE_DEADLINE: Duration = Duration::from_secs(900);
/// Frames that wait for the host link.
const QUEUE_FRAMES: usize = 1024;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the flags do not fit this machine: no token, a port in use, a backend that does not open; and a [`LinkError`]
/// when somebody waits for the `first` welcome of the host and it does not come.
///
/// [`LinkError`]: crate::frame_io::LinkError
pub async fn run(flags: Flags, first: Option<oneshot::Sender<()>>) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    run_to_the_end(flags, shutdown, first).await
}

/// Runs until `shutdown`.
///
/// # Errors
/// As [`run`].
pub async fn run_until(flags: Flags, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_to_the_end(flags, shutdown, None).await
}

async fn run_to_the_end(
    flags: Flags,
    shutdown: CancellationToken,
    first: Option<oneshot::Sender<()>>,
) -> anyhow::Result<()> {
    let token = read_token(&flags)?;
    let ring_listener = bind_ring(&flags).await?;
    let ring_address = ring_listener.local_addr()?;
    let metrics_listener = metrics::bind(flags.metrics_address, flags.insecure).await?;
    let metrics_address = metrics_listener.local_addr()?;
    let (choice, threads, data_dir) = (flags.backend, flags.threads, flags.data_dir.clone());
    let share = flags.cpu_share_file.as_deref().map(CpuShare::open).transpose()?;
    let chosen =
        tokio::task::spawn_blocking(move || backend::choose(choice, threads, share.as_ref(), &data_dir)).await??;
    for speed in &chosen.speeds {
        tracing::info!(backend = %speed.backend, device = %speed.device, gflops = format!("{:.2}", speed.gflops), "measured");
    }
    let capacity_bytes = probe::memory_bytes().unwrap_or(0);
    let allocatable_bytes = match (flags.memory, capacity_bytes) {
        (Some(limit), _) => limit,
        (None, 0) => bail!("this system does not say how much memory it has: give --memory"),
        (None, capacity) => capacity / 2,
    };
    let cache = Cache::open(flags.data_dir.join("weights"), flags.cache_size)?;
    let join = Join {
        version: version::CURRENT,
        phone: flags.name.clone(),
        token,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ring_address: ring_address.to_string(),
        capacity_bytes,
        allocatable_bytes,
        backend: chosen.name.to_owned(),
        device: chosen.device.clone(),
        numerics: chosen.numerics.clone(),
        speeds: chosen.speeds.clone(),
        metrics_address: metrics_address.to_string(),
    };
    tracing::info!(phone = %flags.name, ring = %ring_address, metrics = %metrics_address, backend = chosen.name, device = %chosen.device, limit = MAX_FRAME_BYTES, "agent started");
    let board = Arc::new(Board::default());
    let memory = Budget::new(allocatable_bytes);
    let sensors = Sensors { file: flags.sensors.clone() };
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: chosen.name.to_owned(),
        device: chosen.device.clone(),
        speeds: chosen.speeds.clone(),
    };
    let metrics = Arc::new(Metrics::new(identity, board.clone(), memory.clone(), sensors.clone()));
    let traffic = metrics.traffic.clone();
    let members = Members::default();
    let (to_host, outgoing) = mpsc::channel(QUEUE_FRAMES);
    let (host, known_host) = watch::channel(None);
    let context = Arc::new(Context {
        phone: flags.name.clone(),
        memory,
        chosen,
        cache,
        board: board.clone(),
        metrics: metrics.clone(),
        members: members.clone(),
        to_host,
        step_deadline: Duration::from_secs_f64(flags.step_deadline_seconds.clamp(1.0, 86_400.0)),
        idle_deadline: IDLE_DEADLINE,
        fetching: tokio::sync::Mutex::new(()),
        host: known_host,
        residents: Residents::default(),
    });
    let (neighbours, known_neighbours) = watch::channel(Neighbours::default());
    let listening = tokio::spawn(ring::listen(
        ring_listener,
        members.clone(),
        known_neighbours.clone(),
        traffic.clone(),
        shutdown.clone(),
    ));
    let measured = tokio::spawn(neighbours::measure(
        flags.name.clone(),
        known_neighbours,
        board.clone(),
        traffic.clone(),
        shutdown.clone(),
    ));
    let scraped = tokio::spawn(metrics::serve(metrics_listener, metrics, shutdown.clone()));
    let assignments = Assignments::new(context);
    let link = HubLink {
        address: flags.hub,
        join,
        board,
        members,
        assignments,
        traffic,
        outgoing,
        sensors,
        neighbours,
        host,
        first,
    };
    let ended = link.run(shutdown.clone()).await;
    shutdown.cancel();
    listening.await?;
    measured.await?;
    scraped.await?;
    tracing::info!("agent stopped");
    Ok(ended?)
}

fn read_token(flags: &Flags) -> anyhow::Result<String> {
    let token = match (&flags.token, &flags.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the join token from {}", file.display()))?,
        (None, None) => bail!("no join token: give --token-file or POLYPHONY_JOIN_TOKEN"),
    };
    Ok(token.trim().to_owned())
}

async fn bind_ring(flags: &Flags) -> anyhow::Result<TcpListener> {
    let address = flags.ring_address;
    if !address.ip().is_loopback() && !flags.insecure {
        bail!(
            "--ring-address {address} is not loopback, and hidden states would travel there in plain text: use 127.0.0.1, or --insecure in a closed lab"
        );
    }
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another --ring-address"))
}

fn cancel_on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}
