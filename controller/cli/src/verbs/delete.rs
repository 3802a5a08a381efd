//! `delete`: objects by name, by file, by label, or all of a kind; by default until they are gone.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use serde_json::{Value, json};
use strum::IntoStaticStr;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource};
use crate::duration;
use crate::failure::Failure;
use crate::filters::Filters;
use crate::manifest;
use crate::selection::select;
use crate::server::with_query;
use crate::verbs::apply::DryRun;
use crate::verbs::completion;

/// A week: kubectl's meaning of "until it is gone".
const UNTIL_GONE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Delete objects: `delete infer smollm2`, `delete -f manifests/smollm2.yaml`, `delete models --all`.
#[derive(Debug, Args)]
pub struct Delete {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME", add = completion::objects())]
    words: Vec<String>,
    /// The objects of a file, a folder, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = ValueHint::AnyPath)]
    files: Vec<String>,
    /// With the folders below folders
    #[arg(short = 'R', long)]
    recursive: bool,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    filters: Filters,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    wait: bool,
    /// How long to wait; 0 means until they are gone
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// What becomes of the objects that these own
    #[arg(long, value_name = "HOW", default_value = "background")]
    cascade: Cascade,
    /// Seconds that the objects may take to end; negative means the kind's own
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Only say what would happen: `server` asks the server, `client` does not
    #[arg(long, value_name = "WHO", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Print names alone
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    output: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, IntoStaticStr)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// One object to delete.
struct Target {
    resource: Resource,
    namespace: String,
    name: String,
}

// === impl Delete ===

impl Delete {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        self.check_usage()?;
        let documents = manifest::load(&self.files, self.recursive)?;
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let mut targets = Vec::new();
        // The last first: what was applied on top of something goes before it.
        for document in documents.iter().rev() {
            let resource = catalogue
                .find_kind(document.api_version(), document.kind())
                .map_err(|unknown| Failure::Request(format!("{}: {unknown}", document.place_of("kind"))))?;
            let namespace = document.namespace().unwrap_or(&connection.namespace).to_owned();
            targets.push(Target { resource: resource.clone(), namespace, name: document.name().to_owned() });
        }
        if !self.words.is_empty() {
            for selection in select("delete", &self.words, &catalogue)? {
                if selection.names.is_empty() {
                    targets.extend(self.all_of(&connection, &selection.resource).await?);
                }
                for name in selection.names {
                    targets.push(Target {
                        resource: selection.resource.clone(),
                        namespace: connection.namespace.clone(),
                        name,
                    });
                }
            }
        }
        if targets.is_empty() {
            writeln!(io::stdout(), "No resources found")?;
        }
        self.delete(&connection, targets).await
    }

    fn check_usage(&self) -> Result<(), Failure> {
        let refuse = |text: &str| Err(Failure::Request(text.to_owned()));
        // A selector that selects everything is none: `--all` says it, and nothing else deletes everything.
        let filtered = self.filters.restrict();
        let named = self.words.len() > 1 || self.words.iter().any(|word| word.contains('/'));
        if self.words.is_empty() && self.files.is_empty() {
            return refuse("you must provide one or more resources by argument or filename");
        }
        if !self.words.is_empty() && !self.files.is_empty() {
            return refuse("when files are provided as input, you may not specify a resource by arguments as well");
        }
        if self.all && filtered {
            return refuse("cannot set --all and --selector at the same time");
        }
        if named && (self.all || filtered) {
            return refuse("name cannot be provided when a selector or --all is specified");
        }
        if !self.words.is_empty() && !named && !self.all && !filtered {
            return refuse("resource(s) were provided, but no name was specified");
        }
        Ok(())
    }

    async fn all_of(&self, connection: &Connection, resource: &Resource) -> Result<Vec<Target>, Failure> {
        let scope = (!self.all_namespaces).then_some(connection.namespace.as_str());
        let filters = self.filters.parameters();
        let objects = connection.server.list(&with_query(&resource.collection_path(scope), &filters)).await?;
        let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let target = |object: &Value| Target {
            resource: resource.clone(),
            namespace: text(object, "namespace"),
            name: text(object, "name"),
        };
        Ok(objects.iter().map(target).collect())
    }

    async fn delete(&self, connection: &Connection, targets: Vec<Target>) -> anyhow::Result<ExitCode> {
        let policy: &str = self.cascade.into();
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = self.grace_period.into();
        }
        if self.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for target in targets {
            let path = target.resource.object_path(&target.namespace, &target.name);
            let answer = match self.dry_run {
                DryRun::Client => connection.server.get(&path).await,
                DryRun::None | DryRun::Server => connection.server.delete(&path, &options).await,
            };
            match answer {
                Ok(answer) => {
                    writeln!(io::stdout(), "{}", self.told(&target))?;
                    // The answer is the object, or a Status that tells of it.
                    let uid =
                        answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str()).map(str::to_owned);
                    deleted.push((target, uid));
                }
                Err(failure) if failure.is_not_found() && (self.ignore_not_found || self.all) => {}
                Err(failure) => failures.push(failure),
            }
        }
        if self.wait && self.dry_run == DryRun::None {
            failures.extend(self.await_gone(connection, deleted).await);
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    fn told(&self, target: &Target) -> String {
        let title = target.resource.singular_name();
        if self.output.is_some() {
            return format!("{title}/{}", target.name);
        }
        let place =
            if target.resource.namespaced { format!(" from {} namespace", target.namespace) } else { String::new() };
        format!("{title} {:?} deleted{place}{}", target.name, self.dry_run.suffix())
    }

    async fn await_gone(&self, connection: &Connection, deleted: Vec<(Target, Option<String>)>) -> Vec<Failure> {
        let patience = if self.timeout.is_zero() { UNTIL_GONE } else { self.timeout };
        let deadline = Instant::now() + patience;
        let mut failures = Vec::new();
        for (Target { resource, namespace, name }, uid) in deleted {
            let collection = resource.collection_path(Some(&namespace));
            let mut held_by = Value::Null;
            let gone = connection.server.until(&collection, &name, deadline, |object| {
                let Some(object) = object else { return Some(()) };
                held_by = object["metadata"]["finalizers"].clone();
                let other = uid.is_some() && object["metadata"]["uid"].as_str() != uid.as_deref();
                other.then_some(())
            });
            match gone.await {
                Ok(Some(())) => {}
                Ok(None) => {
                    let failure =
                        Failure::Request(format!("timed out waiting for the condition on {}/{name}", resource.plural));
                    failures.push(Failure::Noted {
                        failure: Box::new(failure),
                        notes: vec![format!("finalizers that hold it: {held_by}")],
                    });
                }
                Err(failure) => failures.push(failure),
            }
        }
        failures
    }
}
