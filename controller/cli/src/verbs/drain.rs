//! `drain`: phones are cordoned, and what they hold moves to others; until they hold nothing.
//!
//! The moving is the controller's: it makes the next plan without the phone and lets the old one go when the next is
//! ready. Where no other plan is possible the segment stays, and this verb says why.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use polyphony_journal::tell;
use polyphony_selector::LabelSelector;
use serde_json::{Value, json};

use crate::connection::{ClusterFlags, Connection};
use crate::duration;
use crate::failure::Failure;
use crate::phones::{name_of, pick};
use crate::server::{path_segment, with_query};
use crate::terminal;
use crate::verbs::apply::DryRun;
use crate::verbs::completion;
use crate::verbs::cordon::set_spec;

/// The name under which the fields are owned.
const FIELD_MANAGER: &str = "polyctl-drain";

const POLL: Duration = Duration::from_millis(300);

/// Move everything off phones and keep it away: `drain phone-1 --timeout=2m`. `uncordon` takes it back.
#[derive(Debug, Args)]
pub struct Drain {
    /// Names of phones
    #[arg(value_name = "PHONE", add = completion::phones())]
    words: Vec<String>,
    /// Phones with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// How long to wait for each phone to be empty; 0 means for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// Only say what would happen: `server` asks the server, `client` does not
    #[arg(long, value_name = "WHO", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
}

// === impl Drain ===

impl Drain {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let (resource, phones) = pick(&connection, "drain", &self.words, self.selector.as_ref()).await?;
        let title = resource.singular_name();
        let suffix = self.dry_run.suffix();
        // All are cordoned before the first is emptied, so that nothing moves from one to the next.
        for phone in &phones {
            let spec = json!({"unschedulable": true});
            let cordoned = set_spec(&connection, &resource, phone, &spec, FIELD_MANAGER, self.dry_run).await?;
            let already = if cordoned { "" } else { "already " };
            writeln!(io::stdout(), "{title}/{} {already}cordoned{suffix}", name_of(phone))?;
        }
        for phone in &phones {
            let spec = json!({"drain": true});
            set_spec(&connection, &resource, phone, &spec, FIELD_MANAGER, self.dry_run).await?;
        }
        let mut failures = Vec::new();
        for phone in &phones {
            let name = name_of(phone);
            let emptied = if self.dry_run == DryRun::None {
                self.await_empty(&connection, name).await
            } else {
                would_evict(&connection, name, suffix).await
            };
            match emptied {
                Ok(()) => writeln!(io::stdout(), "{title}/{name} drained{suffix}")?,
                Err(failure) => failures.push(failure),
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn await_empty(&self, connection: &Connection, phone: &str) -> Result<(), Failure> {
        let deadline = (!self.timeout.is_zero()).then(|| Instant::now() + self.timeout);
        let mut announced: BTreeSet<String> = BTreeSet::new();
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let held = placements_of(connection, phone).await?;
            let names: BTreeSet<String> = held.iter().map(place_of).collect();
            for gone in announced.difference(&names) {
                let name = gone.rsplit('/').next().unwrap_or_default();
                say(format_args!("segmentplacement.polyphony.dev/{name} evicted"))?;
            }
            for new in names.difference(&announced) {
                say(format_args!("evicting segmentplacement {new}"))?;
            }
            announced = names;
            if held.is_empty() {
                return Ok(());
            }
            for (deployment, why) in hindrances(connection, &held).await? {
                if told.get(&deployment) != Some(&why) {
                    tell!("waiting for inferencedeployment {deployment}: {}", terminal::line(&why));
                    told.insert(deployment, why);
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let held: Vec<&str> = announced.iter().map(String::as_str).collect();
                let text = format!(
                    "unable to drain phone {phone:?}: after {} it still holds {}",
                    duration::human(i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX)),
                    held.join(", ")
                );
                let mut notes: Vec<String> = told
                    .into_iter()
                    .map(|(deployment, why)| format!("inferencedeployment {deployment}: {why}"))
                    .collect();
                notes.push(format!(
                    "it stays marked, and empties when it can: `polyctl uncordon {phone}` takes that back"
                ));
                return Err(Failure::Noted { failure: Box::new(Failure::Request(text)), notes });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn say(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::Request(format!("standard output: {error}")))
}

async fn would_evict(connection: &Connection, phone: &str, suffix: &str) -> Result<(), Failure> {
    for placement in placements_of(connection, phone).await? {
        say(format_args!("evicting segmentplacement {}{suffix}", place_of(&placement)))?;
    }
    Ok(())
}

async fn placements_of(connection: &Connection, phone: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("/apis/{}/{}/segmentplacements", polyphony_api::GROUP, polyphony_api::VERSION);
    connection.server.list(&with_query(&path, &[("fieldSelector", Some(&format!("spec.phone={phone}")))])).await
}

/// `namespace/name`.
fn place_of(object: &Value) -> String {
    format!("{}/{}", object["metadata"]["namespace"].as_str().unwrap_or_default(), name_of(object))
}

/// What the deployments of these placements say that they lack, by `namespace/name`.
async fn hindrances(connection: &Connection, placements: &[Value]) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for placement in placements {
        let namespace = placement["metadata"]["namespace"].as_str().unwrap_or_default();
        let deployment = placement["spec"]["deployment"].as_str().unwrap_or_default();
        let (group, version) = (polyphony_api::GROUP, polyphony_api::VERSION);
        let path = format!(
            "/apis/{group}/{version}/namespaces/{}/inferencedeployments/{}",
            path_segment(namespace),
            path_segment(deployment)
        );
        let Some(object) = connection.server.find(&path).await? else { continue };
        let conditions = object["status"]["conditions"].as_array();
        let degraded = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Degraded" && condition["status"] == "True");
        if let Some(message) = degraded.and_then(|condition| condition["message"].as_str()) {
            found.insert(format!("{namespace}/{deployment}"), message.to_owned());
        }
    }
    Ok(found)
}
