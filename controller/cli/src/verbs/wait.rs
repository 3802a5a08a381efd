//! `wait`: until objects are as they should be.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource};
use crate::duration;
use crate::failure::Failure;
use crate::filters::Filters;
use crate::progress;
use crate::selection::{Selection, select};
use crate::server::with_query;
use crate::verbs::completion;
use crate::wait_for::Goal;

/// Wait until a condition holds: `wait infer/smollm2 --for=condition=Available --timeout=5m`.
#[derive(Debug, Args)]
pub struct Wait {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME", required = true, add = completion::objects())]
    words: Vec<String>,
    /// condition=TYPE[=STATUS], jsonpath='{PATH}'[=VALUE], delete or create
    #[arg(long = "for", value_name = "GOAL")]
    goal: Goal,
    /// How long to wait; 0 looks once, a negative one waits a week
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true, value_parser = duration::parse)]
    timeout: Duration,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filters: Filters,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// One object to wait for.
struct Target<'a> {
    resource: &'a Resource,
    namespace: String,
    name: String,
}

// === impl Wait ===

impl Wait {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let selections = select("wait", &self.words, &catalogue)?;
        let targets = self.targets(&connection, &selections).await?;
        if targets.is_empty() {
            return match self.goal {
                Goal::Delete => Ok(ExitCode::SUCCESS),
                _ => Err(Failure::Request("no matching resources found".into()).into()),
            };
        }
        let deadline = Instant::now() + self.timeout;
        let mut failures = Vec::new();
        for target in targets {
            match self.wait_for(&connection, &target, deadline).await {
                Ok(true) => {
                    writeln!(io::stdout(), "{}/{} condition met", target.resource.singular_name(), target.name)?
                }
                Ok(false) => {}
                Err(failure) => failures.push(failure),
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn targets<'a>(
        &self,
        connection: &Connection,
        selections: &'a [Selection],
    ) -> Result<Vec<Target<'a>>, Failure> {
        let mut targets = Vec::new();
        for Selection { resource, names } in selections {
            let all = self.all || self.filters.restrict();
            if names.is_empty() && !all {
                return Err(Failure::Request("resource(s) were provided, but no name was specified".into()));
            }
            for name in names {
                targets.push(Target { resource, namespace: connection.namespace.clone(), name: name.clone() });
            }
            if names.is_empty() {
                let scope = (!self.all_namespaces).then_some(connection.namespace.as_str());
                let filters = self.filters.parameters();
                for object in connection.server.list(&with_query(&resource.collection_path(scope), &filters)).await? {
                    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                    targets.push(Target { resource, namespace: text("namespace"), name: text("name") });
                }
            }
        }
        Ok(targets)
    }

    /// True when the goal is met, false when there is nothing to say: an object to be deleted that never was.
    async fn wait_for(&self, connection: &Connection, target: &Target<'_>, deadline: Instant) -> Result<bool, Failure> {
        let server = &connection.server;
        let resource = target.resource;
        // An object that does not exist is an error here and now, as in kubectl.
        match server.get(&resource.object_path(&target.namespace, &target.name)).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() && self.goal == Goal::Delete => return Ok(false),
            Err(failure) if failure.is_not_found() && self.goal == Goal::Create => {}
            Err(failure) => return Err(failure),
        }
        let mut why_not = String::new();
        let collection = resource.collection_path(Some(&target.namespace));
        let mut uid = None;
        let waiting = server.until(&collection, &target.name, deadline, |object| {
            // Another object of the same name means that the one to be deleted is gone.
            let now = object.and_then(|object| object["metadata"]["uid"].as_str()).map(str::to_owned);
            let first = uid.get_or_insert_with(|| now.clone());
            let replaced = self.goal == Goal::Delete && now.is_some() && *first != now;
            why_not = self.goal.why_not(object);
            (replaced || self.goal.is_met(object)).then_some(())
        });
        let shows_loading = matches!(&self.goal, Goal::Condition { type_, .. } if type_.eq_ignore_ascii_case("available"))
            && resource.kind == "InferenceDeployment"
            && io::stderr().is_terminal();
        let met = if shows_loading {
            progress::while_loading(server, &target.namespace, &target.name, waiting).await?
        } else {
            waiting.await?
        };
        if met.is_some() {
            return Ok(true);
        }
        let failure =
            Failure::Request(format!("timed out waiting for the condition on {}/{}", resource.plural, target.name));
        Err(Failure::Noted { failure: Box::new(failure), notes: vec![why_not] })
    }
}
