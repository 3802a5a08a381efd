//! `lab`: a control plane and uneven phones on one machine, each in a network namespace with links of its own.
//!
//! The phones live in a process of their own, the keeper, which outlives this one; every other verb here asks it.

mod calibration;
mod keep;
mod keeper;
mod question;
mod set;
mod status;
mod terms;
mod up;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::connection::ClusterFlags;
use crate::verbs::down::Down;
use question::{Answer, Question, ask};

/// The keeper's name among the processes.
const LAB: &str = "lab";
/// The program of a phone.
const AGENT: &str = "polyphony-agent";

/// A lab of uneven phones on this machine: shares of the processor, memory, links; all can change while it runs. Needs root.
#[derive(Debug, Args)]
pub struct LabVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start a control plane and the phones of a file
    Up(up::LabUp),
    /// Stop the phones and the control plane; objects are kept
    Down(Down),
    /// Show the phones, how fast they were found to be, and their links
    Status(status::LabStatus),
    /// Change a phone or a link while it runs
    Set(set::LabSet),
    /// End a phone's agent without warning, as when its battery is taken out
    Kill(Named),
    /// Start the agent of a phone again
    Start(Named),
    /// Print what a phone's agent answers to a scrape
    #[command(hide = true)]
    Metrics(Metrics),
    /// Hold a lab until told to end; `lab up` starts this
    #[command(hide = true)]
    Keep(keep::Keep),
}

#[derive(Debug, Args)]
struct Named {
    /// The phone
    phone: String,
}

#[derive(Debug, Args)]
struct Metrics {
    phone: String,
    port: u16,
}

// === impl LabVerb ===

impl LabVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Up(verb) => verb.run(cluster).await,
            What::Down(verb) => verb.run(cluster).await,
            What::Status(verb) => verb.run(cluster).await,
            What::Set(verb) => verb.run(cluster).await,
            What::Kill(Named { phone }) => {
                tell(&cluster, Question::Kill { phone: phone.clone() }, &phone, "killed").await
            }
            What::Start(Named { phone }) => {
                tell(&cluster, Question::Start { phone: phone.clone() }, &phone, "started").await
            }
            What::Metrics(Metrics { phone, port }) => {
                if let Answer::Text { text } = ask(&data_dir(&cluster)?, &Question::Metrics { phone, port }).await? {
                    write!(io::stdout(), "{text}")?;
                }
                Ok(ExitCode::SUCCESS)
            }
            What::Keep(verb) => verb.run(cluster).await,
        }
    }
}

/// Asks the keeper for something that is done or not.
async fn tell(cluster: &ClusterFlags, question: Question, phone: &str, done: &str) -> anyhow::Result<ExitCode> {
    ask(&data_dir(cluster)?, &question).await?;
    writeln!(io::stdout(), "{phone} {done}")?;
    Ok(ExitCode::SUCCESS)
}

fn data_dir(cluster: &ClusterFlags) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(cluster.data_dir()?)?)
}
