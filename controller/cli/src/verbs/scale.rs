//! `scale`: the number of replicas, through the scale subresource.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use polyphony_selector::LabelSelector;
use serde_json::{Value, json};

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource};
use crate::failure::Failure;
use crate::selection::select;
use crate::server::with_query;
use crate::verbs::apply::DryRun;
use crate::verbs::completion;

/// The name under which the field is owned.
const FIELD_MANAGER: &str = "polyctl-scale";

/// Set the number of replicas: `scale infer/smollm2 --replicas=2`.
#[derive(Debug, Args)]
pub struct Scale {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME", required = true, add = completion::objects())]
    words: Vec<String>,
    /// The new number of replicas, 0 or more
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_replicas)]
    replicas: u32,
    /// Only if this is the number now
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    current_replicas: Option<i64>,
    /// Only if this is the object's version now
    #[arg(long, value_name = "VERSION")]
    resource_version: Option<String>,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// Only say what would happen: `server` asks the server, `client` does not
    #[arg(long, value_name = "WHO", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
}

fn parse_replicas(text: &str) -> Result<u32, String> {
    let replicas = text.parse().ok().filter(|replicas| i32::try_from(*replicas).is_ok());
    replicas.ok_or_else(|| format!("it has to be a whole number from 0 to {}", i32::MAX))
}

// === impl Scale ===

impl Scale {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let (mut n_scaled, mut failures) = (0, Vec::new());
        for selection in select("scale", &self.words, &catalogue)? {
            let resource = &selection.resource;
            let names =
                if selection.names.is_empty() { self.all_of(&connection, resource).await? } else { selection.names };
            for name in names {
                match self.scale(&connection, resource, &name).await {
                    Ok(()) => {
                        let suffix = self.dry_run.suffix();
                        writeln!(io::stdout(), "{}/{name} scaled{suffix}", resource.singular_name())?;
                        n_scaled += 1;
                    }
                    Err(failure) => failures.push(failure),
                }
            }
        }
        if n_scaled == 0 && failures.is_empty() {
            return Err(Failure::Request("no objects passed to scale".into()).into());
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn all_of(&self, connection: &Connection, resource: &Resource) -> Result<Vec<String>, Failure> {
        if !self.all && self.selector.as_ref().is_none_or(LabelSelector::is_empty) {
            return Err(Failure::Request("resource(s) were provided, but no name was specified".into()));
        }
        let path = resource.collection_path(Some(&connection.namespace));
        let objects = connection
            .server
            .list(&with_query(&path, &[("labelSelector", self.selector.as_ref().map(LabelSelector::as_str))]))
            .await?;
        Ok(objects.iter().filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    async fn scale(&self, connection: &Connection, resource: &Resource, name: &str) -> Result<(), Failure> {
        let path = format!("{}/scale", resource.object_path(&connection.namespace, name));
        let now = connection.server.get(&path).await?;
        let current = now["spec"]["replicas"].as_i64().unwrap_or(0);
        if let Some(expected) = self.current_replicas.filter(|expected| *expected >= 0 && *expected != current) {
            return Err(Failure::Request(format!("Expected replicas to be {expected}, was {current}")));
        }
        let version = now["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if let Some(expected) = self.resource_version.as_deref().filter(|expected| *expected != version) {
            return Err(Failure::Request(format!("Expected resource version to be {expected}, was {version}")));
        }
        if self.dry_run == DryRun::Client {
            return Ok(());
        }
        let mut patch = json!({"spec": {"replicas": self.replicas}});
        if self.current_replicas.is_some() || self.resource_version.is_some() {
            // Whoever changes it in between is not overwritten.
            patch["metadata"] = json!({"resourceVersion": version});
        }
        let dry = (self.dry_run == DryRun::Server).then_some("All");
        let parameters = [("fieldManager", Some(FIELD_MANAGER)), ("dryRun", dry)];
        let _: Value = connection.server.merge_patch(&with_query(&path, &parameters), &patch).await?;
        Ok(())
    }
}
