//! `top`: phones and deployments at work, from their status; renewed on a terminal until interrupted.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use polyphony_api::{GROUP, VERSION};
use polyphony_selector::LabelSelector;
use serde::de::DeserializeOwned;

use crate::connection::{ClusterFlags, Connection};
use crate::failure::Failure;
use crate::server::{path_segment, with_query};
use crate::table::align;
use crate::top;
use crate::verbs::completion;

const INTERVAL: Duration = Duration::from_secs(2);

/// Show what phones hold and how fast deployments answer: `top phones`, `top deployments --once`.
#[derive(Debug, Args)]
pub struct Top {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Segments, memory, measured time of a layer, sessions, temperature and battery of each phone
    #[command(visible_aliases = ["phone", "ph"])]
    Phones(Phones),
    /// Replicas, measured and predicted speed, phones and sessions of each deployment
    #[command(visible_aliases = ["deployment", "infer"], aliases = ["inferencedeployments", "inferencedeployment"])]
    Deployments(Deployments),
}

#[derive(Debug, Args)]
struct Phones {
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, Args)]
struct Deployments {
    #[command(flatten)]
    shown: Shown,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Debug, Args)]
struct Shown {
    /// Only those of these names
    #[arg(value_name = "NAME", add = completion::of_the_verb())]
    names: Vec<String>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// Show it once, also on a terminal
    #[arg(long)]
    once: bool,
    /// Without the headers
    #[arg(long)]
    no_headers: bool,
}

// === impl Top ===

impl Top {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let shown = self.kind.shown();
        if shown.once || !io::stdout().is_terminal() {
            write!(io::stdout(), "{}", self.kind.text(&connection).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        write!(io::stdout(), "\x1b[2J")?;
        loop {
            let text = self.kind.text(&connection).await?;
            let now = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
            let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            let mut out = io::stdout().lock();
            // Home, each line over the old one, and what is left below cleared: nothing flickers.
            write!(
                out,
                "\x1b[H\x1b[2m{now}  every {} s, Ctrl-C ends\x1b[0m\x1b[K\n\x1b[K\n{lines}\x1b[J",
                INTERVAL.as_secs()
            )?;
            out.flush()?;
            drop(out);
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    fn shown(&self) -> &Shown {
        match self {
            Kind::Phones(phones) => &phones.shown,
            Kind::Deployments(deployments) => &deployments.shown,
        }
    }

    async fn text(&self, connection: &Connection) -> Result<String, Failure> {
        let of_all = |plural: &str| format!("/apis/{GROUP}/{VERSION}/{plural}");
        let placements = read(connection.server.list(&of_all("segmentplacements")).await?);
        let shown = self.shown();
        let mut lines = match self {
            Kind::Phones(_) => {
                let phones = shown.list(connection, &of_all("phones"), "phones").await?;
                top::phones(&read(phones), &placements)
            }
            Kind::Deployments(deployments) => {
                let path = if deployments.all_namespaces {
                    of_all("inferencedeployments")
                } else {
                    let namespace = path_segment(&connection.namespace);
                    of_all(&format!("namespaces/{namespace}/inferencedeployments"))
                };
                let found = shown.list(connection, &path, "inferencedeployments").await?;
                top::deployments(&read(found), &placements, deployments.all_namespaces)
            }
        };
        if lines.len() == 1 {
            return Ok("No resources found\n".to_owned());
        }
        if shown.no_headers {
            lines.remove(0);
        }
        Ok(align(&lines, &mut Vec::new(), 6, 3))
    }
}

// === impl Shown ===

impl Shown {
    async fn list(&self, connection: &Connection, path: &str, plural: &str) -> Result<Vec<serde_json::Value>, Failure> {
        let mut found = connection
            .server
            .list(&with_query(path, &[("labelSelector", self.selector.as_ref().map(LabelSelector::as_str))]))
            .await?;
        let name_of = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(missing) = self.names.iter().find(|name| !found.iter().any(|object| name_of(object) == **name)) {
            // In the server's own words.
            connection.server.get(&format!("{path}/{}", path_segment(missing))).await?;
            return Err(Failure::Request(format!("{plural} {missing:?} does not match the selector")));
        }
        if !self.names.is_empty() {
            found.retain(|object| self.names.contains(&name_of(object)));
        }
        Ok(found)
    }
}

/// What can be read of the objects: one that a newer server wrote otherwise is left out.
fn read<T: DeserializeOwned>(objects: Vec<serde_json::Value>) -> Vec<T> {
    objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect()
}
