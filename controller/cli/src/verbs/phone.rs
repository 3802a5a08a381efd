//! `phone`: what people do to phones beyond their spec. `forgive`: what has failed there is forgotten, so that plans come back at once.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use polyphony_selector::LabelSelector;
use serde_json::json;

use crate::connection::ClusterFlags;
use crate::failure::Failure;
use crate::phones::{name_of, pick};
use crate::server::with_query;
use crate::verbs::completion;

/// The name under which the verb owns fields.
const FIELD_MANAGER: &str = "polyctl-phone";

/// Let a phone try again at once what has failed on it.
#[derive(Debug, Args)]
pub struct Phone {
    #[command(subcommand)]
    verb: PhoneVerb,
}

#[derive(Debug, Subcommand)]
enum PhoneVerb {
    Forgive(Forgive),
}

/// Forget what has failed on phones: models that they could not load, peers that they could not reach: `phone forgive phone-1`.
#[derive(Debug, Args)]
struct Forgive {
    /// Names of phones
    #[arg(value_name = "PHONE", add = completion::phones())]
    words: Vec<String>,
    /// Phones with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
}

// === impl Phone ===

impl Phone {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        match self.verb {
            PhoneVerb::Forgive(verb) => verb.run(&cluster).await,
        }
    }
}

// === impl Forgive ===

impl Forgive {
    async fn run(self, cluster: &ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let (resource, phones) = pick(&connection, "phone forgive", &self.words, self.selector.as_ref()).await?;
        let mut failures = Vec::new();
        for phone in &phones {
            let n_failures = phone["status"]["failures"].as_array().map_or(0, Vec::len);
            let path = format!("{}/status", resource.object_path("", name_of(phone)));
            let path = with_query(&path, &[("fieldManager", Some(FIELD_MANAGER))]);
            let title = format!("{}/{}", resource.singular_name(), name_of(phone));
            if n_failures == 0 {
                writeln!(io::stdout(), "{title} already forgiven")?;
                continue;
            }
            match connection.server.merge_patch(&path, &json!({"status": {"failures": null}})).await {
                Ok(_) => writeln!(io::stdout(), "{title} forgiven ({n_failures} forgotten)")?,
                Err(failure) => failures.push(failure),
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }
}
