//! `user`: who comes to the embedded API by a certificate of their own: a colleague, a dashboard, a CI.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::Uri;
use jiff::Timestamp;
use polyphony_controller::door::place::{Place, path_in};
use polyphony_controller::door::users::{self, Part};
use polyphony_controller::kubeconfig::{Credential, text_of};
use polyphony_identity::{Authority, DEFAULT_DOMAIN, Lifetimes, write_private};

use crate::connection::ClusterFlags;
use crate::duration;
use crate::records::{self, delete_all};
use crate::server::Server;
use crate::table::align;

/// Users of the control plane on this machine: who comes to its API by a certificate, as admin or viewer.
#[derive(Debug, Args)]
pub struct User {
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Debug, Subcommand)]
enum UserVerb {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Make a user, and their kubeconfig: `user create mia --role viewer --out mia.kubeconfig`
#[derive(Debug, Args)]
struct Create {
    /// As the audit names them: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME", value_parser = records::name)]
    name: String,
    /// viewer reads everything but Secrets and changes nothing; admin may do all
    #[arg(long, value_name = "ROLE", default_value_t = Part::default())]
    role: Part,
    /// After how long the certificate ends, which nobody renews
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration::lifetime)]
    expires: Duration,
    /// Make the user anew: what a kubeconfig of before shows is good no more
    #[arg(long)]
    again: bool,
    /// The file to write the kubeconfig to, for you alone to read (else it is printed)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A request for a certificate (PKCS #10 in PEM, `-` for standard input) of a key that stays where it is; the kubeconfig names NAME.key beside it then
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// How the user reaches the API (as you do), such as https://192.168.1.10:7443: the controller's --api-address, or one that its --allowed-host names
    #[arg(long, value_name = "URL", value_parser = https)]
    server: Option<String>,
    /// The folder of the authority, where the controller was started with --authority-dir; else it lies in the data folder
    #[arg(long, value_name = "DIR")]
    authority_dir: Option<PathBuf>,
    /// The controller's --trust-domain, with --authority-dir
    #[arg(long, value_name = "DOMAIN", default_value = DEFAULT_DOMAIN, requires = "authority_dir")]
    trust_domain: String,
}

/// List the users: the role of each, and how long their certificates last
#[derive(Debug, Args)]
struct List;

/// Take users away by their names; their certificates let nobody in from then on
#[derive(Debug, Args)]
struct Delete {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

fn https(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let url = text.parse::<Uri>().ok().filter(|url| url.scheme_str() == Some("https"));
    match url.filter(|url| url.host().is_some() && url.path_and_query().is_none_or(|rest| rest == "/")) {
        Some(_) => Ok(text.to_owned()),
        None => Err("certificates are shown over TLS alone: write https://HOST:PORT".into()),
    }
}

// === impl User ===

impl User {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let server = cluster.connect().await?.server;
        match self.verb {
            UserVerb::Create(create) => create.run(&server, &cluster).await?,
            UserVerb::List(List) => list(server.client()).await?,
            UserVerb::Delete(Delete { names }) => {
                delete_all("user", &names, async |name| users::delete(server.client(), name).await).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Create ===

impl Create {
    async fn run(self, server: &Server, cluster: &ClusterFlags) -> anyhow::Result<()> {
        let place = match self.authority_dir {
            Some(path) => Place::Folder { path, domain: self.trust_domain },
            None => Place::File(path_in(&cluster.data_dir_of_cluster()?)),
        };
        let sealed = place.read().await?;
        let sealed = sealed.with_context(|| format!("there is no authority in {place}: {WHERE}"))?;
        let authority = Authority::open(&sealed, Lifetimes { leaf: self.expires, ..Lifetimes::default() })?;
        // What another authority signs is nobody's there.
        if !server.roots().iter().any(|root| authority.has_root(root)) {
            bail!("the API at {} is not of the authority in {place}: {WHERE}", server.address());
        }
        let request = self.request.as_ref().map(read).transpose()?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let issued = users::sign(&authority, (&self.name, self.role), request.as_deref(), now);
        let issued = match &self.request {
            Some(path) => issued.with_context(|| path.display().to_string())?,
            None => issued?,
        };
        let (chain, key) = (issued.papers.chain_pem(), issued.key.map(|key| key.pem()));
        let file = format!("{}.key", self.name);
        let credential = match &key {
            Some(key) => Credential::Certificate { chain: &chain, key },
            None => Credential::CertificateOfFile { chain: &chain, key: &file },
        };
        let url = self.server.unwrap_or_else(|| format!("https://{}", server.address()));
        let kubeconfig = text_of(&url, &sealed.roots_pem(), &self.name, credential);
        users::record(server.client(), &issued.account, self.again).await?;
        match &self.out {
            Some(path) => write_private(path, kubeconfig.as_bytes()).with_context(|| {
                format!("user {} is made, and {} cannot be written: --again makes them anew", self.name, path.display())
            })?,
            None => write!(io::stdout(), "{kubeconfig}").with_context(|| {
                format!("user {} is made, and nobody reads of it: --again makes them anew", self.name)
            })?,
        }
        let left = duration::human(i64::try_from(issued.account.expires.saturating_sub(now))?);
        let told = self.out.map_or_else(|| "what was printed".to_owned(), |path| path.display().to_string());
        writeln!(io::stderr(), "user {} is {} for {left}; {told} is their kubeconfig", self.name, self.role)?;
        if issued.account.expires < now.saturating_add(self.expires.as_secs()) {
            writeln!(
                io::stderr(),
                "that is as long as the authority's issuer is good: `polyctl certs rotate` makes a new one"
            )?;
        }
        Ok(())
    }
}

/// What to do where an authority is not the API's.
const WHERE: &str = "run this on the host of that control plane, with the --data-dir of `polyctl up` or the --authority-dir of the controller; users of a cluster are that cluster's to make";
/// No request is longer.
const MAX_REQUEST: u64 = 64 << 10;

fn read(path: &PathBuf) -> anyhow::Result<String> {
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?),
    };
    let mut bytes = Vec::new();
    source.take(MAX_REQUEST).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN"));
    text.with_context(|| format!("{} is no request in PEM: make one with `openssl req -new`", path.display()))
}

async fn list(client: &kube::Client) -> anyhow::Result<()> {
    let (accounts, now) = (users::list(client).await?, Timestamp::now().as_second());
    if accounts.is_empty() {
        return Ok(writeln!(io::stderr(), "No users found.")?);
    }
    let mut lines = vec![["NAME", "ROLE", "ENDS IN", "KEY"].map(str::to_owned).to_vec()];
    for account in accounts {
        let left = match i64::try_from(account.expires).unwrap_or(i64::MAX).saturating_sub(now) {
            left if left > 0 => duration::human(left),
            _ => "<expired>".to_owned(),
        };
        lines.push(vec![account.name, account.part.to_string(), left, account.key.to_string()]);
    }
    io::stdout().write_all(align(&lines, &mut Vec::new(), 6, 3).as_bytes())?;
    Ok(())
}
