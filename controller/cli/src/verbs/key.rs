//! `key`: what apps show at the gateway to be answered. Beyond loopback nobody is answered without one.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use polyphony_controller::door::client_keys::{self, Terms};

use crate::connection::ClusterFlags;
use crate::duration;
use crate::records::{self, delete_all};
use crate::table::align;

/// Keys of clients: what apps show at the gateway.
#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Make a key and print it, this once: what is kept of it is a hash: `key create notes-app --requests-per-minute 60`
#[derive(Debug, Args)]
struct Create {
    /// What the key is called in metrics and logs: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME", value_parser = records::name)]
    name: String,
    /// A model that it may ask, by the id that GET /v1/models lists (all); can be given several times, or with commas
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Vec<String>,
    /// How many requests it may send in a minute (any number)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// How many tokens, of prompts and answers together, it may use in a minute (any number)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_minute: Option<u32>,
    /// After how long it expires, such as 30d (never)
    #[arg(long, value_name = "DURATION", value_parser = duration::lifetime)]
    expires: Option<Duration>,
}

/// List the keys: what each may. Never the keys themselves
#[derive(Debug, Args)]
struct List;

/// Take keys away by their names; who shows one is refused from then on
#[derive(Debug, Args)]
struct Delete {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

// === impl Key ===

impl Key {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let server = cluster.connect().await?.server;
        match self.verb {
            KeyVerb::Create(create) => create.run(server.client()).await?,
            KeyVerb::List(List) => list(server.client()).await?,
            KeyVerb::Delete(Delete { names }) => {
                delete_all("key", &names, async |name| client_keys::delete(server.client(), name).await).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Create ===

impl Create {
    async fn run(self, client: &kube::Client) -> anyhow::Result<()> {
        let expires = self.expires.map(|after| Timestamp::now() + after);
        let terms = Terms {
            name: self.name,
            models: self
                .models
                .into_iter()
                .map(|model| model.trim().to_owned())
                .filter(|model| !model.is_empty())
                .collect(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            expires,
        };
        match client_keys::create(client, &terms).await {
            Ok(key) => writeln!(io::stdout(), "{key}")?,
            Err(kube::Error::Api(status)) if status.code == 409 => anyhow::bail!(
                "there is a key {} already, and it cannot be shown again: `polyctl key delete {}` takes it away",
                terms.name,
                terms.name
            ),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

async fn list(client: &kube::Client) -> anyhow::Result<()> {
    let (mut keys, now) = (client_keys::list(client).await?, Timestamp::now().as_second());
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    let mut lines = vec![["NAME", "REQUESTS/MIN", "TOKENS/MIN", "EXPIRES", "MODELS"].map(str::to_owned).to_vec()];
    let limit = |limit: Option<u32>| limit.map_or_else(|| "<any>".to_owned(), |limit| limit.to_string());
    for key in &keys {
        let expires = match key.expires_at.and_then(|at| i64::try_from(at).ok()) {
            None => "<never>".to_owned(),
            Some(at) if at <= now => "<expired>".to_owned(),
            Some(at) => duration::human(at - now),
        };
        let models = if key.models.is_empty() { "<all>".to_owned() } else { key.models.join(",") };
        lines.push(vec![
            key.name.clone(),
            limit(key.requests_per_minute),
            limit(key.tokens_per_minute),
            expires,
            models,
        ]);
    }
    match keys.is_empty() {
        true => writeln!(io::stderr(), "No keys found.")?,
        false => io::stdout().write_all(align(&lines, &mut Vec::new(), 6, 3).as_bytes())?,
    }
    Ok(())
}
