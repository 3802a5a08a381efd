//! The command line's grammar: flags that every verb has, and the list of verbs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::connection::ClusterFlags;
use crate::verbs;

const EXAMPLES: &str = "Examples:
  polyctl up --phones 3                                 start a control plane and three phones on this machine
  polyctl apply -f manifests/smollm2.yaml               say what to run
  polyctl wait infer/smollm2 --for=condition=Available  wait until it answers
  polyctl chat smollm2 \"What is the capital of France?\"
  polyctl get all                                       phones, models, deployments and placements
  polyctl down                                          stop it all; what was applied is kept";

/// polyctl: large language models over many phones, declared like any Kubernetes object.
#[derive(Debug, Parser)]
#[command(name = "polyctl", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 110)]
pub struct Options {
    #[command(flatten)]
    pub cluster: ClusterFlags,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the control plane and phones on this machine
    Up(verbs::up::Up),
    /// Stop what `up` started; objects are kept
    Down(verbs::down::Down),
    /// Create or change objects from files
    Apply(verbs::apply::Apply),
    /// Show objects
    Get(verbs::get::Get),
    /// Show one object with its conditions and events
    Describe(verbs::describe::Describe),
    /// Delete objects
    Delete(verbs::delete::Delete),
    /// Wait until a condition holds
    Wait(verbs::wait::Wait),
    /// Talk to a deployment
    Chat(verbs::chat::Chat),
    /// Show what the controller, a phone, or the phones of a deployment wrote
    Logs(verbs::logs::Logs),
    /// Show the versions of this program and of the server
    Version(verbs::version::Version),
}

/// Reads a command line.
///
/// # Errors
/// clap's error, which prints itself; `--help` and `--version` are errors of that kind too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
    Options::try_parse_from(arguments)
}

// === impl Options ===

impl Options {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let cluster = self.cluster;
        match self.verb {
            Verb::Up(verb) => verb.run(cluster).await,
            Verb::Down(verb) => verb.run(cluster).await,
            Verb::Apply(verb) => verb.run(cluster).await,
            Verb::Get(verb) => verb.run(cluster).await,
            Verb::Describe(verb) => verb.run(cluster).await,
            Verb::Delete(verb) => verb.run(cluster).await,
            Verb::Wait(verb) => verb.run(cluster).await,
            Verb::Chat(verb) => verb.run(cluster).await,
            Verb::Logs(verb) => verb.run(cluster).await,
            Verb::Version(verb) => verb.run(cluster).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_verb() {
        for line in [
            "polyctl -n lab get phones -o wide",
            "polyctl get phones -owide -n lab",
            "polyctl get -n=lab phones -o=wide",
        ] {
            let options = parse(line.split(' ').map(OsString::from)).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(options.cluster.namespace.as_deref(), Some("lab"), "{line}");
        }
    }
}
