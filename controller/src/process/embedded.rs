//! The embedded API: its store, who may come in, its port, and the kubeconfigs that lead to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use polyphony_apiserver::{
    ApiServer, ApiServerConfig, Bearer, ByCertificate, Credential, NobodyKnown, Role, User, kubeconfig,
};
use polyphony_identity::{Authority, Clock, random_word, write_private};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{done, listen};
use crate::backup::store_in;
use crate::door::authority::KeptAuthority;
use crate::door::users::Accounts;
use crate::flags::Flags;
use crate::secret::Secret;

/// Users by token: who may do all, as kubeconfigs name them; who looks alone; and this process.
const ADMIN: &str = "polyphony";
const VIEWER: &str = "viewer";
const PROGRAM: &str = "controller";
/// Letters of a token that lives as long as this process.
const OWN_TOKEN: usize = 40;

/// After a kubeconfig could not be written.
const PAUSE: Duration = Duration::from_secs(5);

/// An embedded API whose store is open, and whose port is not yet.
pub(super) struct Embedded {
    server: ApiServer,
    listener: TcpListener,
    own_token: String,
    kubeconfigs: Kubeconfigs,
}

/// Those of people: `kubeconfig`, and `kubeconfig-viewer` for who is to look alone.
struct Kubeconfigs {
    folder: PathBuf,
    url: String,
    admin: Secret,
    viewer: Secret,
}

// === impl Embedded ===

impl Embedded {
    /// Opens the store, which is this process's alone from then on. Users who show a certificate are those of `accounts`.
    pub(super) async fn open(flags: &Flags, accounts: watch::Receiver<Arc<Option<Accounts>>>) -> anyhow::Result<Self> {
        let listener = listen(flags.api_address, "--api-address").await?;
        let admin = Secret::in_file(&flags.data_dir.join("token"))?;
        let viewer = Secret::in_file(&flags.data_dir.join("viewer-token"))?;
        let own_token = random_word(OWN_TOKEN);
        let crds = polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd));
        let bound = flags.api_address.ip();
        let bound = (!bound.is_loopback()).then(|| bound.to_string());
        let bearer = |name: &str, token: &str, role| Bearer {
            token: token.to_owned(),
            user: User { name: name.to_owned(), role },
        };
        let by_certificate: ByCertificate = Arc::new(move |shown| {
            let accounts = accounts.borrow().clone();
            let accounts = accounts.as_ref().as_ref().ok_or(NobodyKnown::Yet)?;
            accounts.user(shown, Clock::system().now()).map_err(|why| NobodyKnown::Because(why.to_string()))
        });
        let config = ApiServerConfig {
            store_path: store_in(&flags.data_dir),
            token: admin.reveal().to_owned(),
            bearers: vec![bearer(VIEWER, viewer.reveal(), Role::Viewer), bearer(PROGRAM, &own_token, Role::Program)],
            by_certificate: Some(by_certificate),
            crds: crds.collect::<Result<_, _>>().context("a resource definition is no JSON")?,
            allowed_hosts: flags.allowed_host.iter().cloned().chain(bound).collect(),
        };
        let server = tokio::task::spawn_blocking(move || ApiServer::open(config)).await??;
        let url = format!("https://{}", reached_here(listener.local_addr()?));
        let kubeconfigs = Kubeconfigs { folder: flags.data_dir.clone(), url, admin, viewer };
        Ok(Self { server, listener, own_token, kubeconfigs })
    }

    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Opens the port, and gives the path of the kubeconfig that is this process's own. People's are written anew whenever the authority is another one.
    pub(super) async fn serve(
        self,
        authority: &KeptAuthority,
        tls: TlsAcceptor,
        stop: &CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<PathBuf> {
        let mut address = reached_here(self.listener.local_addr()?);
        if !address.ip().is_loopback() {
            // This process needs no certificate to speak with itself, which an authority that is exchanged would take away.
            let own = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), "--api-address").await?;
            address = own.local_addr()?;
            tasks.spawn(done(self.server.clone().serve(own, None, stop.clone())));
        }
        tasks.spawn(done(self.server.serve(self.listener, Some(tls), stop.clone())));
        self.kubeconfigs.write(&authority.with(Authority::sealed).roots_pem())?;
        let own = kubeconfig(&format!("http://{address}"), "", PROGRAM, Credential::Token(&self.own_token));
        let path = write(&self.kubeconfigs.folder, "kubeconfig-controller", &own)?;
        tasks.spawn(done(self.kubeconfigs.keep(authority.clone(), stop.clone())));
        Ok(path)
    }
}

// === impl Kubeconfigs ===

impl Kubeconfigs {
    fn write(&self, roots: &str) -> anyhow::Result<()> {
        for (file, user, token) in [("kubeconfig", ADMIN, &self.admin), ("kubeconfig-viewer", VIEWER, &self.viewer)] {
            let text = kubeconfig(&self.url, roots, user, Credential::Token(token.reveal()));
            write(&self.folder, file, &text)?;
        }
        Ok(())
    }

    async fn keep(self, authority: KeptAuthority, stop: CancellationToken) {
        let mut changes = authority.changes();
        let mut is_behind = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if is_behind => {}
            }
            let written = self.write(&authority.with(Authority::sealed).roots_pem());
            is_behind = written.is_err();
            if let Err(error) = written {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the kubeconfigs name roots of before, which is tried again: is there room, and may this user write there?"
                );
            }
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    write_private(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What a port is dialled by on this machine: one that listens everywhere, on loopback.
fn reached_here(address: SocketAddr) -> SocketAddr {
    let here: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() { SocketAddr::new(here, address.port()) } else { address }
}
