//! The command line's grammar: flags that every verb has, and the list of verbs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::connection::ClusterFlags;
use crate::verbs;

const EXAMPLES: &str = "Examples:
  polyctl up --phones 3                                 start a control plane and three phones on this machine
  polyctl apply -f manifests/smollm2.yaml               say what to run
  polyctl wait infer/smollm2 --for=condition=Available  wait until it answers
  polyctl chat smollm2 \"What is the capital of France?\"
  polyctl get polyphony                                 phones, models, deployments and placements
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
    /// Change an object in an editor
    Edit(verbs::edit::Edit),
    /// Delete objects
    Delete(verbs::delete::Delete),
    /// Set the number of replicas
    Scale(verbs::scale::Scale),
    /// Wait until a condition holds
    Wait(verbs::wait::Wait),
    /// Show how a deployment would be spread, without changing anything
    Plan(verbs::plan::PlanVerb),
    /// Talk to a deployment
    Chat(verbs::chat::Chat),
    /// Show what the controller, a phone, or the phones of a deployment wrote
    Logs(verbs::logs::Logs),
    /// Show what phones hold and how fast deployments answer
    Top(verbs::top::Top),
    Doctor(verbs::doctor::Doctor),
    /// Bring model files in, list them, and take them away
    Model(verbs::model::ModelVerb),
    /// Keep new segments away from phones
    Cordon(verbs::cordon::Cordon),
    /// Let phones take segments again
    Uncordon(verbs::cordon::Uncordon),
    /// Move everything off phones and keep it away
    Drain(verbs::drain::Drain),
    /// Let a phone try again what has failed on it
    Phone(verbs::phone::Phone),
    /// Print the line that lets another machine join as a phone, and a QR code for the app
    JoinCommand(verbs::join_command::JoinCommand),
    Token(verbs::token::Token),
    Certs(verbs::certs::Certs),
    Key(verbs::key::Key),
    User(verbs::user::User),
    Backup(verbs::backup::BackupVerb),
    Restore(verbs::backup::RestoreVerb),
    /// Have phones on cables, or whatever adb lists, run agents of this machine's control plane
    Farm(verbs::farm::FarmVerb),
    /// Play with uneven phones on this machine
    Lab(verbs::lab::LabVerb),
    /// Explain a kind and its fields
    Explain(verbs::explain::Explain),
    /// Show the kinds that the server has
    ApiResources(verbs::api_resources::ApiResources),
    /// Print a completion script for bash, zsh or fish
    Completion(verbs::completion::Completion),
    /// Show the versions of this program and of the server
    Version(verbs::version::Version),
}

/// What the program is called by whom it answers: `polyctl`, or `kubectl polyphony` as kubectl's plugin.
pub fn program_of(name: Option<&OsString>) -> &'static str {
    let stem = name.and_then(|name| std::path::Path::new(name).file_stem()?.to_str());
    if stem == Some("kubectl-polyphony") { "kubectl polyphony" } else { "polyctl" }
}

/// Reads a command line of `program`.
///
/// # Errors
/// clap's error, which prints itself; `--help` and `--version` are errors of that kind too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, program: &str) -> Result<Options, clap::Error> {
    let mut command = Options::command().bin_name(program);
    let matches = command.try_get_matches_from_mut(arguments)?;
    Options::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
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
            Verb::JoinCommand(verb) => verb.run(cluster).await,
            Verb::Token(verb) => verb.run(cluster).await,
            Verb::Certs(verb) => verb.run(cluster).await,
            Verb::Key(verb) => verb.run(cluster).await,
            Verb::User(verb) => verb.run(cluster).await,
            Verb::Backup(verb) => verb.run(cluster).await,
            Verb::Restore(verb) => verb.run(cluster).await,
            Verb::Edit(verb) => verb.run(cluster).await,
            Verb::Scale(verb) => verb.run(cluster).await,
            Verb::Plan(verb) => verb.run(cluster).await,
            Verb::Top(verb) => verb.run(cluster).await,
            Verb::Doctor(verb) => verb.run(cluster).await,
            Verb::Model(verb) => verb.run(cluster).await,
            Verb::Cordon(verb) => verb.run(cluster).await,
            Verb::Uncordon(verb) => verb.run(cluster).await,
            Verb::Drain(verb) => verb.run(cluster).await,
            Verb::Phone(verb) => verb.run(cluster).await,
            Verb::Farm(verb) => verb.run(cluster).await,
            Verb::Lab(verb) => verb.run(cluster).await,
            Verb::Explain(verb) => verb.run(cluster).await,
            Verb::ApiResources(verb) => verb.run(cluster).await,
            Verb::Completion(verb) => verb.run(cluster).await,
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
            let options =
                parse(line.split(' ').map(OsString::from), "polyctl").unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(options.cluster.namespace.as_deref(), Some("lab"), "{line}");
        }
    }
}
