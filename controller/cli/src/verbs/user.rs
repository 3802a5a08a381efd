//! `user`: who comes to the embedded API by a certificate of their own: a colleague, a dashboard, a CI.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use polyphony_controller::door::place::{Place, path_in};
use polyphony_controller::door::users::{self, Part};
use polyphony_controller::kubeconfig::{Credential, text_of};
use polyphony_identity::{Authority, Lifetimes, is_dns_label};

use crate::connection::ClusterFlags;
use crate::duration;
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

/// Make a user and print their kubeconfig, this once: `user create mia --role viewer > mia.kubeconfig`
#[derive(Debug, Args)]
struct Create {
    /// As the audit names them: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME", value_parser = user_name)]
    name: String,
    /// viewer reads everything but Secrets and changes nothing; admin may do all
    #[arg(long, value_name = "ROLE", default_value_t = Part::default())]
    role: Part,
    /// After how long the certificate ends
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = duration::parse)]
    expires: Duration,
    /// A request for a certificate (PKCS #10 in PEM, `-` for standard input) of a key that stays where it is; the kubeconfig names NAME.key beside it then
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// How the user reaches the API (as you do), such as https://192.168.1.10:7443: an address that it listens on, or an --allowed-host of the controller
    #[arg(long, value_name = "URL", value_parser = https)]
    server: Option<String>,
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

fn user_name(text: &str) -> Result<String, String> {
    match is_dns_label(text) && text.len() <= 40 {
        true => Ok(text.to_owned()),
        false => {
            Err("a user's name is 1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end".into())
        }
    }
}

fn https(text: &str) -> Result<String, String> {
    match text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("certificates are shown over TLS alone: write https://HOST:PORT".into()),
    }
}

// === impl User ===

impl User {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let server = cluster.connect().await?.server;
        match self.verb {
            UserVerb::Create(create) => {
                let place = Place::File(path_in(&cluster.data_dir_of_cluster()?));
                create.run(server.client(), server.address(), &place).await?;
            }
            UserVerb::List(List) => list(server.client()).await?,
            UserVerb::Delete(Delete { names }) => {
                for name in names {
                    match users::delete(server.client(), &name).await? {
                        true => writeln!(io::stdout(), "user {name} deleted")?,
                        false => {
                            anyhow::bail!("there is no user {name}: `polyctl user list` shows those that there are")
                        }
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Create ===

impl Create {
    async fn run(self, client: &kube::Client, address: &str, place: &Place) -> anyhow::Result<()> {
        let sealed = place.read().await?;
        let sealed = sealed.ok_or_else(|| {
            anyhow::anyhow!("there is no authority in {place}, and its API takes users by nothing else: run this on the host of `polyctl up`; users of a cluster are that cluster's to make")
        })?;
        let authority = Authority::open(&sealed, Lifetimes { leaf: self.expires, ..Lifetimes::default() })?;
        let request = self.request.as_ref().map(read).transpose()?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let issued = users::create(client, &authority, (&self.name, self.role), request.as_deref(), now).await?;
        let (chain, key) = (issued.papers.chain_pem(), issued.key.map(|key| key.pem()));
        let file = format!("{}.key", self.name);
        let credential = match &key {
            Some(key) => Credential::Certificate { chain: &chain, key },
            None => Credential::CertificateOfFile { chain: &chain, key: &file },
        };
        let url = self.server.unwrap_or_else(|| format!("https://{address}"));
        write!(io::stdout(), "{}", text_of(&url, &sealed.roots_pem(), &self.name, credential))?;
        let left = duration::human(i64::try_from(issued.account.expires.saturating_sub(now))?);
        writeln!(io::stderr(), "user {} is {} for {left}; what was printed is their kubeconfig", self.name, self.role)?;
        Ok(())
    }
}

/// No request is longer.
const MAX_REQUEST: u64 = 64 << 10;

fn read(path: &PathBuf) -> anyhow::Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?),
    };
    source.take(MAX_REQUEST).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
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
