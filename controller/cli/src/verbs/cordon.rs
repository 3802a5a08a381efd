//! `cordon` and `uncordon`: whether phones take new segments. What runs is left where it is.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use polyphony_selector::LabelSelector;
use serde_json::{Value, json};

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::Resource;
use crate::failure::Failure;
use crate::phones::{name_of, pick};
use crate::server::with_query;
use crate::verbs::apply::DryRun;
use crate::verbs::completion;

/// The name under which both verbs own the fields.
const FIELD_MANAGER: &str = "polyctl-cordon";

/// Keep new segments away from phones; what they hold stays: `cordon phone-1`.
#[derive(Debug, Args)]
pub struct Cordon {
    #[command(flatten)]
    which: Which,
}

/// Let phones take segments again, and end their draining: `uncordon phone-1`.
#[derive(Debug, Args)]
pub struct Uncordon {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// Names of phones
    #[arg(value_name = "PHONE", add = completion::phones())]
    words: Vec<String>,
    /// Phones with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// Only say what would happen: `server` asks the server, `client` does not
    #[arg(long, value_name = "WHO", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
}

// === impl Cordon ===

impl Cordon {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        self.which.set(&cluster, "cordon", &json!({"unschedulable": true}), "cordoned").await
    }
}

// === impl Uncordon ===

impl Uncordon {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        self.which.set(&cluster, "uncordon", &json!({"unschedulable": false, "drain": false}), "uncordoned").await
    }
}

// === impl Which ===

impl Which {
    async fn set(&self, cluster: &ClusterFlags, verb: &str, spec: &Value, done: &str) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let (resource, phones) = pick(&connection, verb, &self.words, self.selector.as_ref()).await?;
        let mut failures = Vec::new();
        for phone in &phones {
            match set_spec(&connection, &resource, phone, spec, FIELD_MANAGER, self.dry_run).await {
                Ok(changed) => {
                    let already = if changed { "" } else { "already " };
                    let title = resource.singular_name();
                    writeln!(io::stdout(), "{title}/{} {already}{done}{}", name_of(phone), self.dry_run.suffix())?;
                }
                Err(failure) => failures.push(failure),
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Sets fields of a phone's spec; false when it said so already.
pub(super) async fn set_spec(
    connection: &Connection,
    resource: &Resource,
    phone: &Value,
    spec: &Value,
    field_manager: &str,
    dry_run: DryRun,
) -> Result<bool, Failure> {
    // A field that is absent is false.
    let is_set = |(field, value): (&String, &Value)| phone["spec"][field].as_bool().unwrap_or(false) == *value;
    if spec.as_object().into_iter().flatten().all(is_set) {
        return Ok(false);
    }
    if dry_run != DryRun::Client {
        let dry = (dry_run == DryRun::Server).then_some("All");
        let parameters = [("fieldManager", Some(field_manager)), ("dryRun", dry)];
        let path = with_query(&resource.object_path("", name_of(phone)), &parameters);
        connection.server.merge_patch(&path, &json!({"spec": spec})).await?;
    }
    Ok(true)
}
