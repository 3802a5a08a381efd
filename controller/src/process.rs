//! The process: everything wired together, from the listeners to the orderly end.

mod embedded;
mod endpoints;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use polyphony_api::SYSTEM_NAMESPACE;
use polyphony_doorway::{Doorway, Hosts, Limits, Origins, only_from_here};
use polyphony_gateway::{Gateway, GatewayConfig, RouteTable};
use polyphony_identity::{Audience, Lifetimes, Name, Role};
use polyphony_protocol::Frame;
use polyphony_wire::Security;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::discovery;
use crate::door::authority::KeptAuthority;
use crate::door::place::{self, Place};
use crate::door::servers::{Server, hosts_of};
use crate::door::{Door, client_keys, tokens, users};
use crate::flags::Flags;
use crate::hub::registry::Registry;
use crate::hub::relay::Relay;
use crate::hub::weights::Readers;
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
use crate::secret::Secret;
use embedded::Embedded;
pub use endpoints::Endpoints;

/// After a start, agents have this long beyond the grace period to come back: their back-off may be at its longest.
const COME_BACK: Duration = Duration::from_secs(10);
/// The API has to answer within this at the start.
const API_DEADLINE: Duration = Duration::from_secs(30);
/// The parts of its descriptors that the ports may take, so that each always has its own.
const GATEWAY_PART: usize = 4;
const WEIGHTS_PART: usize = 8;
const METRICS_PART: usize = 32;
/// What HTTP ports speak, in TLS's own words (ALPN).
const HTTP: &[u8] = b"http/1.1";
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
        let (stop_api, mut api_tasks) = (CancellationToken::new(), JoinSet::new());
        match start(&flags, &stop, &stop_api, &mut api_tasks).await {
            Ok((endpoints, gateway, tasks)) => {
                Ok(Self { endpoints, gateway, data_dir: flags.data_dir, stop, stop_api, tasks, api_tasks })
            }
            Err(error) => {
                // Whoever tries again finds the store free.
                end(stop_api, api_tasks).await;
                Err(error)
            }
        }
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
        end(self.stop_api, self.api_tasks).await;
        ended
    }
}

/// Ends the embedded API, which lets go of its store.
async fn end(stop_api: CancellationToken, mut api_tasks: JoinSet<anyhow::Result<()>>) {
    stop_api.cancel();
    let stopping = async { while api_tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
        api_tasks.shutdown().await;
    }
}

/// Everything of a process: what it says of itself, the gateway, and what runs.
type Started = (Endpoints, Arc<Gateway>, JoinSet<(&'static str, anyhow::Result<()>)>);

/// Opens every port and begins every part; the embedded API's are in `api_tasks`.
async fn start(
    flags: &Flags,
    stop: &CancellationToken,
    stop_api: &CancellationToken,
    api_tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Started> {
    let data_dir = &flags.data_dir;
    let fetch_settings = flags.fetch_settings()?;
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    check_doors(flags)?;
    let hub_listener = listen(flags.hub_address, "--hub-address").await?;
    let weights_address = flags.weights_address.unwrap_or_else(|| SocketAddr::new(flags.hub_address.ip(), 0));
    let weights_listener = listen(weights_address, "--weights-address").await?;
    let gateway_listener = listen(flags.gateway_address, "--gateway-address").await?;
    let metrics_listener = listen(flags.metrics_address, "--metrics-address").await?;
    let metrics_address = metrics_listener.local_addr()?;

    let lifetimes = Lifetimes { leaf: flags.certificate_lifetime, ..Lifetimes::default() };
    let authority_in = |place| KeptAuthority::open(place, &flags.trust_domain, lifetimes);
    let (users, users_seen) = watch::channel(Arc::default());
    let mut tasks = JoinSet::new();
    let (client, api_url, authority, api_server) = match &flags.kubeconfig {
        Some(path) => {
            let (client, api_url) = kubeconfig::client(path).await?;
            ensure_namespace(&client, &api_url).await?;
            let authority = authority_in(place_of_authority(flags, Some(&client))).await?;
            (client, api_url, authority, None)
        }
        None => {
            let embedded = Embedded::open(flags, users_seen.clone()).await?;
            let api_url = url_of(embedded.address()?);
            let authority = authority_in(place_of_authority(flags, None)).await?;
            let server = Server::new(&authority, Role::Api, hosts_of(flags.api_address, &flags.allowed_host))?;
            let tls = acceptor(&server, Audience::Anybody)?;
            let own = embedded.serve(&authority, tls, stop_api, api_tasks).await?;
            let (client, _) = kubeconfig::client(&own).await?;
            ensure_namespace(&client, &api_url).await?;
            spawn(&mut tasks, "the users", done(users::watch(client.clone(), users, stop.clone())));
            (client, api_url, authority, Some(server))
        }
    };
    // Not sooner: the store's lock has shown that no other controller lives in this folder.
    Endpoints::remove(data_dir);
    check_keys(flags, &client).await?;

    let (ca_hash, domain) = authority.with(|authority| (authority.ca_hash(), authority.domain().to_owned()));
    let server = |role, address| Server::new(&authority, role, hosts_of(address, &flags.allowed_host));
    let hub_server = server(Role::Hub, flags.hub_address)?;
    let weights_server = server(Role::Weights, weights_address)?;
    let gateway_server = server(Role::Gateway, flags.gateway_address)?;
    // Metrics are a door of the same house, for other clients.
    let metrics_server = server(Role::Gateway, flags.metrics_address)?;
    let metrics_token = flags.metrics_token_file.as_deref().map(Secret::in_file).transpose()?;

    let watches = TaskTracker::new();
    let reach = Arc::new(Reach::new(Instant::now()));
    let stores = Arc::new(Stores::start(&client, &reach, &watches, stop));
    tokio::time::timeout(API_DEADLINE, stores.wait_until_ready())
        .await
        .with_context(|| format!("the API at {api_url} has not listed our resources within {} s: are the definitions in manifests/crds applied?", API_DEADLINE.as_secs()))?
        .context("a watch ended at the start")?;

    let run_out = leases::run_out(&client, Timestamp::now()).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the API does not list the leases of phones: they are taken for as ready as they were, for some seconds");
        BTreeSet::new()
    });

    let registry = Arc::new(Registry::default());
    let known_phones = registry.clone();
    let models = ModelStore::with_settings(data_dir.join("models"), fetch_settings);
    let models = Arc::new(models.context("cannot make the folder for manifests")?);
    let (routes, routes_seen) = watch::channel(Arc::new(RouteTable::default()));
    let (assigned, assigned_seen) = watch::channel(None);
    let (neighbourhood, neighbourhood_seen) = watch::channel(Arc::default());
    let (keys, keys_seen) = watch::channel(None);
    let hosts = |address: SocketAddr| Hosts::new(address.ip(), &flags.allowed_host);
    let config = GatewayConfig {
        hosts: Some(hosts(flags.gateway_address)),
        origins: Origins::new(&flags.cors_origin),
        control_tokens_in_messages: flags.control_tokens_in_messages,
        keys_required: asks_for_keys(flags),
        ..GatewayConfig::default()
    };
    let (client_keys, client_keys_seen) = watch::channel(Arc::default());
    let gateway = Gateway::new(config, registry.clone(), routes_seen, client_keys_seen);
    let relay = Relay::new(flags.relay_bytes_per_second);
    let metrics = Arc::new(Metrics::new(gateway.metrics().registry(), relay.counts()));
    let gateway_url = url_of(gateway_listener.local_addr()?);
    let weights_url = format!("https://{}", weights_listener.local_addr()?);
    let endpoints = Endpoints {
        api: api_url,
        gateway: gateway_url.clone(),
        hub: hub_listener.local_addr()?.to_string(),
        weights: weights_url.clone(),
        metrics: url_of(metrics_address),
        ca_hash,
        pid: std::process::id(),
    };
    let hub = Hub {
        registry: registry.clone(),
        frames: Arc::new(ToGateway(gateway.clone())),
        registrar: Arc::new(Door { authority: authority.clone(), client: client.clone(), keys: keys_seen.clone() }),
        security: Security::mutual(&hub_server.credentials, Audience::Joining { rejoin_window: flags.rejoin_window })?,
        keys: keys_seen.clone(),
        weights_url,
        assigned: assigned_seen.clone(),
        relay,
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
        actor: Actor { client: client.clone(), registry, models: models.clone() },
        herald: Herald { sources: sources.clone(), settings: settings.clone(), keys, assigned, neighbourhood, routes },
        sources,
        outbox: Arc::default(),
        reach: reach.clone(),
        settings,
        metrics: metrics.clone(),
    };

    let metrics_door = metrics::Door {
        gateway: gateway.clone(),
        metrics,
        registry: known_phones,
        reach,
        own_address: metrics_address,
        token: metrics_token,
        users: users_seen,
    };
    let readers = Readers { keys: keys_seen, assigned: assigned_seen, are_plain: false };
    // Phones ask for it by the name that its certificate has.
    let weights_name = Name::of_controller(Role::Weights, domain.as_str()).dns();
    let weights_hosts = Hosts::new(weights_address.ip(), flags.allowed_host.iter().cloned().chain([weights_name]));
    let weights = only_from_here(weights::router(models, readers), weights_hosts);
    let doorway = |listener, part| Doorway::new(listener, Limits::part_of_descriptors(part));
    let at_weights = doorway(weights_listener, WEIGHTS_PART).only_tls(acceptor(&weights_server, Audience::Certified)?);
    spawn(&mut tasks, "the weights server", done(at_weights.serve(weights, stop.clone())));
    let at_gateway = doorway(gateway_listener, GATEWAY_PART).with_tls(acceptor(&gateway_server, Audience::Anybody)?);
    spawn(&mut tasks, "the gateway", done(at_gateway.serve(gateway.router(), stop.clone())));
    let metrics = only_from_here(metrics::router(metrics_door), hosts(metrics_address));
    let at_metrics = doorway(metrics_listener, METRICS_PART).with_tls(acceptor(&metrics_server, Audience::Anybody)?);
    spawn(&mut tasks, "the metrics server", done(at_metrics.serve(metrics, stop.clone())));
    spawn(&mut tasks, "the authority", done(authority.keep(stop.clone())));
    let servers = [
        ("the hub's certificate", hub_server),
        ("the weights server's certificate", weights_server),
        ("the gateway's certificate", gateway_server),
        ("the metrics server's certificate", metrics_server),
    ];
    for (name, server) in servers.into_iter().chain(api_server.map(|server| ("the API's certificate", server))) {
        spawn(&mut tasks, name, done(server.keep(stop.clone())));
    }
    spawn(&mut tasks, "the join tokens", done(tokens::clean(client.clone(), stop.clone())));
    spawn(&mut tasks, "the keys of clients", done(client_keys::watch(client, client_keys, stop.clone())));
    let advertisement = discovery::advertise(flags.advertise, hub_listener.local_addr()?, &ca_hash)?;
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
    endpoints.write(data_dir).context("cannot write endpoints.json")?;
    tracing::info!(api = %endpoints.api, gateway = %endpoints.gateway, hub = %endpoints.hub, ca_hash = %endpoints.ca_hash, "the controller is up");
    Ok((endpoints, gateway, tasks))
}

/// A part that ended while it should run is an error, however it ended.
fn broken(part: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Result<()> {
    match part {
        Ok((name, Err(error))) => Err(error.context(format!("{name} failed"))),
        Ok((name, Ok(()))) => bail!("{name} ended by itself; report this as a bug"),
        Err(error) => bail!("a part of the controller broke: {error}; report this as a bug"),
    }
}

/// The namespace of leases, and with it whether the API answers at all.
async fn ensure_namespace(client: &Client, api_url: &str) -> anyhow::Result<()> {
    let metadata = ObjectMeta { name: Some(SYSTEM_NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("the API at {api_url} does not answer as it should")),
    }
}

/// Beyond loopback metrics ask who comes, as the gateway does.
fn check_doors(flags: &Flags) -> anyhow::Result<()> {
    let metrics = flags.metrics_address;
    if !metrics.ip().is_loopback() && flags.metrics_token_file.is_none() {
        bail!(
            "--metrics-address {metrics} is not a loopback address, and everybody who reaches it could read it: use 127.0.0.1, or give --metrics-token-file"
        );
    }
    Ok(())
}

/// Whether a gateway beyond loopback asks for keys.
fn asks_for_keys(flags: &Flags) -> bool {
    !flags.gateway_address.ip().is_loopback() && !flags.no_auth
}

/// A gateway that nobody can ask is a mistake, unless somebody says that keys come later.
async fn check_keys(flags: &Flags, client: &Client) -> anyhow::Result<()> {
    if !asks_for_keys(flags) || flags.await_keys {
        return Ok(());
    }
    if client_keys::list(client).await.context("the API does not list the keys of clients")?.is_empty() {
        let address = flags.gateway_address;
        bail!(
            "--gateway-address {address} is not a loopback address, and no client has a key, so nobody could ask: make one while the gateway listens on 127.0.0.1 (`polyctl key create NAME`), start with --await-keys, or let everybody ask with --no-auth"
        );
    }
    Ok(())
}

/// A Secret is one of the cluster that `client` speaks with; the embedded API's users are of the authority, which so lies beside its store.
fn place_of_authority(flags: &Flags, client: Option<&Client>) -> Place {
    match (&flags.authority_dir, flags.authority_secret.as_ref().zip(client)) {
        (Some(path), _) => Place::Folder { path: path.clone(), domain: flags.trust_domain.clone() },
        (None, Some(((namespace, name), client))) => {
            Place::Secret { client: client.clone(), namespace: namespace.clone(), name: name.clone() }
        }
        (None, None) => Place::File(place::path_in(&flags.data_dir)),
    }
}

/// TLS as that server.
fn acceptor(server: &Server, audience: Audience) -> anyhow::Result<TlsAcceptor> {
    let config = server.credentials.server(audience, HTTP).context("TLS cannot be set up")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How a port is asked: where it is beyond loopback, TLS alone is taken from others.
fn url_of(address: SocketAddr) -> String {
    let scheme = if address.ip().is_loopback() { "http" } else { "https" };
    format!("{scheme}://{address}")
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop the program that uses it, or choose another address with {flag}")
    })
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
