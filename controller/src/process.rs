//! The process: everything wired together, from the listeners to the orderly end.

mod endpoints;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use polyphony_api::SYSTEM_NAMESPACE;
use polyphony_apiserver::{ApiServer, ApiServerConfig};
use polyphony_doorway::{Doorway, Hosts, Limits, Origins, only_from_here};
use polyphony_gateway::{Gateway, GatewayConfig, RouteTable};
use polyphony_protocol::Frame;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::discovery;
use crate::flags::Flags;
use crate::hub::registry::Registry;
use crate::hub::{FrameSink, Hub, weights};
use crate::kubeconfig;
use crate::leases::{self, Leases};
use crate::metrics::{self, Metrics};
use crate::models::ModelStore;
use crate::reconcile::Reconciler;
use crate::reconcile::act::Actor;
use crate::reconcile::herald::Herald;
use crate::reconcile::observe::{Settings, Sources};
use crate::reconcile::reach::Reach;
use crate::reconcile::stores::Stores;
use crate::secret::{Secret, write_private};
pub use endpoints::Endpoints;

/// After a start, agents have this long beyond the grace period to come back: their back-off may be at its longest.
const COME_BACK: Duration = Duration::from_secs(10);
/// The API has to answer within this at the start.
const API_DEADLINE: Duration = Duration::from_secs(30);
/// The parts of its descriptors that the ports may take, so that each always has its own.
const GATEWAY_PART: usize = 4;
const WEIGHTS_PART: usize = 8;
const METRICS_PART: usize = 32;
/// What runs on after the stop signal is dropped after this.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running controller.
pub struct Process {
    pub endpoints: Endpoints,
    gateway: Arc<Gateway>,
    data_dir: PathBuf,
    stop: CancellationToken,
    /// Stopped after all else: the others may still write.
    stop_api: CancellationToken,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    api_tasks: JoinSet<anyhow::Result<()>>,
}

// === impl Process ===

impl Process {
    /// Starts everything; gives back when every port answers and `endpoints.json` is written.
    ///
    /// # Errors
    /// With cause, place and remedy: a port in use, a folder that cannot be written, an API that does not answer.
    pub async fn start(flags: Flags, stop: CancellationToken) -> anyhow::Result<Self> {
        let data_dir = flags.data_dir.clone();
        let fetch_settings = flags.fetch_settings()?;
        std::fs::create_dir_all(&data_dir)
            .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
        let hub_listener = listen(flags.hub_address, "--hub-address", flags.insecure).await?;
        let weights_address = flags.weights_address.unwrap_or_else(|| SocketAddr::new(flags.hub_address.ip(), 0));
        let weights_listener = listen(weights_address, "--weights-address", flags.insecure).await?;
        let gateway_listener = listen(flags.gateway_address, "--gateway-address", flags.insecure).await?;
        let metrics_listener = listen(flags.metrics_address, "--metrics-address", flags.insecure).await?;
        let metrics_address = metrics_listener.local_addr()?;
        let join_token = Secret::in_file(&data_dir.join("join-token"))?;
        let host_key = Secret::in_file(&data_dir.join("host-key"))?;

        let stop_api = CancellationToken::new();
        let mut api_tasks = JoinSet::new();
        let kubeconfig = match &flags.kubeconfig {
            Some(path) => path.clone(),
            None => serve_api(&flags, &stop_api, &mut api_tasks).await?,
        };
        // Not sooner: the store's lock has shown that no other controller lives in this folder.
        Endpoints::remove(&data_dir);
        let (client, api_url) = kubeconfig::client(&kubeconfig).await?;
        // The embedded API speaks TLS and plain HTTP on its one port; the second needs no authority.
        let api_url = if flags.kubeconfig.is_none() { api_url.replacen("https://", "http://", 1) } else { api_url };
        ensure_namespace(&client)
            .await
            .with_context(|| format!("the API at {api_url} does not answer as it should"))?;

        let watches = TaskTracker::new();
        let reach = Arc::new(Reach::new(Instant::now()));
        let stores = Arc::new(Stores::start(&client, &reach, &watches, &stop));
        tokio::time::timeout(API_DEADLINE, stores.wait_until_ready())
            .await
            .with_context(|| format!("the API at {api_url} has not listed our resources within {} s: are the definitions in manifests/crds applied?", API_DEADLINE.as_secs()))?
            .context("a watch ended at the start")?;

        let run_out = leases::run_out(&client, Timestamp::now()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the API does not list the leases of phones: they are taken for as ready as they were, for some seconds");
            BTreeSet::new()
        });

        let registry = Arc::new(Registry::default());
        let models = ModelStore::with_settings(data_dir.join("models"), fetch_settings);
        let models = Arc::new(models.context("cannot make the folder for manifests")?);
        let (routes, routes_seen) = watch::channel(Arc::new(RouteTable::default()));
        let (assigned, assigned_seen) = watch::channel(None);
        let (neighbourhood, neighbourhood_seen) = watch::channel(Arc::default());
        let hosts = |address: SocketAddr| Hosts::new(address.ip(), &flags.allowed_host);
        let config = GatewayConfig {
            hosts: Some(hosts(flags.gateway_address)),
            origins: Origins::new(&flags.cors_origin),
            control_tokens_in_messages: flags.control_tokens_in_messages,
            ..GatewayConfig::default()
        };
        let gateway = Gateway::new(config, registry.clone(), routes_seen);
        let metrics = Arc::new(Metrics::new(gateway.metrics().registry()));
        let gateway_url = format!("http://{}", gateway_listener.local_addr()?);
        let weights_url = format!("http://{}", weights_listener.local_addr()?);
        let endpoints = Endpoints {
            api: api_url,
            gateway: gateway_url.clone(),
            hub: hub_listener.local_addr()?.to_string(),
            weights: weights_url.clone(),
            metrics: format!("http://{metrics_address}"),
            pid: std::process::id(),
        };
        let hub = Hub {
            registry: registry.clone(),
            frames: Arc::new(ToGateway(gateway.clone())),
            join_token: join_token.clone(),
            weights_url,
            assigned: assigned_seen,
            neighbourhood: neighbourhood_seen,
        };
        let settings =
            Settings { grace_period: flags.grace_period, startup_grace: flags.grace_period + COME_BACK, gateway_url };
        let leases = Leases { client: client.clone(), registry: registry.clone(), stores: stores.clone() };
        let sources = Arc::new(Sources {
            stores,
            registry: registry.clone(),
            models: models.clone(),
            gateway: gateway.clone(),
            run_out,
            setbacks: Mutex::default(),
        });
        let reconciler = Reconciler {
            actor: Actor { client, registry, models: models.clone() },
            herald: Herald {
                sources: sources.clone(),
                settings: settings.clone(),
                host_key,
                assigned,
                neighbourhood,
                routes,
            },
            sources,
            outbox: Arc::default(),
            reach: reach.clone(),
            settings,
            metrics: metrics.clone(),
        };

        let said_token = join_token.clone();
        let mut tasks = JoinSet::new();
        let weights = only_from_here(weights::router(models, join_token), hosts(weights_address));
        spawn(&mut tasks, "the weights server", serve(weights_listener, weights, WEIGHTS_PART, stop.clone()));
        spawn(&mut tasks, "the gateway", serve(gateway_listener, gateway.router(), GATEWAY_PART, stop.clone()));
        let metrics =
            only_from_here(metrics::router(gateway.clone(), metrics, reach, metrics_address), hosts(metrics_address));
        spawn(&mut tasks, "the metrics server", serve(metrics_listener, metrics, METRICS_PART, stop.clone()));
        let advertisement = discovery::advertise(flags.advertise, hub_listener.local_addr()?, &said_token)?;
        spawn(&mut tasks, "the hub", done(hub.run(hub_listener, stop.clone())));
        if let Some(advertisement) = advertisement {
            spawn(&mut tasks, "the advertisement", done(advertisement.keep(stop.clone())));
        }
        spawn(&mut tasks, "the leases", done(leases.run(stop.clone())));
        spawn(&mut tasks, "the reconcile loop", done(reconciler.run(stop.clone())));
        spawn(
            &mut tasks,
            "the watches",
            done(async move {
                watches.close();
                watches.wait().await;
            }),
        );
        endpoints.write(&data_dir).context("cannot write endpoints.json")?;
        tracing::info!(api = %endpoints.api, gateway = %endpoints.gateway, hub = %endpoints.hub, "the controller is up");
        Ok(Self { endpoints, gateway, data_dir, stop, stop_api, tasks, api_tasks })
    }

    /// Runs until the stop signal, or until a part of it fails.
    ///
    /// # Errors
    /// The part that failed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            // At the stop signal every part ends, which is no failure then.
            biased;
            () = self.stop.cancelled() => Ok(()),
            Some(part) = self.tasks.join_next() => broken(part),
            Some(part) = self.api_tasks.join_next() => broken(part.map(|result| ("the API server", result))),
        };
        Endpoints::remove(&self.data_dir);
        self.gateway.close();
        self.stop.cancel();
        let stopping = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
            tracing::warn!("open connections are dropped after {} s", STOP_DEADLINE.as_secs());
            self.tasks.shutdown().await;
        }
        self.stop_api.cancel();
        let stopping = async { while self.api_tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
            self.api_tasks.shutdown().await;
        }
        ended
    }
}

/// A part that ended while it should run is an error, however it ended.
fn broken(part: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Result<()> {
    match part {
        Ok((name, Err(error))) => Err(error.context(format!("{name} failed"))),
        Ok((name, Ok(()))) => bail!("{name} ended by itself; report this as a bug"),
        Err(error) => bail!("a part of the controller broke: {error}; report this as a bug"),
    }
}

/// Opens the embedded API and serves it; gives the path of the kubeconfig that it wrote.
async fn serve_api(
    flags: &Flags,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<PathBuf> {
    let listener = listen(flags.api_address, "--api-address", flags.insecure).await?;
    let address = listener.local_addr()?;
    let token = Secret::in_file(&flags.data_dir.join("token"))?;
    let crds = polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd));
    let bound = flags.api_address.ip();
    let bound = (!bound.is_loopback()).then(|| bound.to_string());
    let allowed_hosts = flags.allowed_host.iter().cloned().chain(bound).collect();
    let config = ApiServerConfig {
        store_path: flags.data_dir.join("store.redb"),
        token: token.reveal().to_owned(),
        crds: crds.collect::<Result<_, _>>().context("a resource definition is no JSON")?,
        allowed_hosts,
    };
    let server = tokio::task::spawn_blocking(move || ApiServer::open(config)).await??;
    let path = flags.data_dir.join("kubeconfig");
    write_private(&path, server.kubeconfig(address).as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let stop = stop.clone();
    tasks.spawn(done(server.serve(listener, stop)));
    Ok(path)
}

/// The namespace of leases, and with it whether the API answers at all.
async fn ensure_namespace(client: &Client) -> Result<(), kube::Error> {
    let metadata = ObjectMeta { name: Some(SYSTEM_NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Listens, on loopback only unless a person insists (invariant 10).
async fn listen(address: SocketAddr, flag: &str, insecure: bool) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() && !insecure {
        bail!(
            "{flag} {address} is not a loopback address, and nothing there would be encrypted: use 127.0.0.1, or add --insecure in a closed lab network"
        );
    }
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop the program that uses it, or choose another address with {flag}")
    })
}

async fn serve(
    listener: TcpListener,
    router: Router,
    part_of_descriptors: usize,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    Doorway::new(listener, Limits::part_of_descriptors(part_of_descriptors)).serve(router, stop).await;
    Ok(())
}

async fn done(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}

fn spawn(
    tasks: &mut JoinSet<(&'static str, anyhow::Result<()>)>,
    name: &'static str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { (name, work.await) });
}

/// The gateway as the hub sees it.
struct ToGateway(Arc<Gateway>);

impl FrameSink for ToGateway {
    fn deliver(&self, phone: &str, frame: Frame) {
        self.0.deliver(phone, frame);
    }

    fn phone_gone(&self, phone: &str) {
        self.0.phone_gone(phone);
    }
}

/// Where a file of the data folder is.
fn endpoints_path(data_dir: &Path) -> PathBuf {
    data_dir.join("endpoints.json")
}
