//! `completion`: lets a shell complete verbs and flags, and the server's kinds and names.
//!
//! The shell asks this program for every word, by clap's engine; each verb says at its arguments, by [`objects`],
//! [`phones`] and their like, which words of the server these may be.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use strum::IntoStaticStr;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::Catalogue;
use crate::options::Options;

/// By this variable the shell says that it wants words, and who it is.
const VARIABLE: &str = "POLYCTL_COMPLETE";
const PROGRAM: &str = "polyctl";

/// A completion that takes longer is worse than none.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Print a completion script: `source <(polyctl completion bash)`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bash:  source <(polyctl completion bash)
  zsh:   source <(polyctl completion zsh)
  fish:  polyctl completion fish | source")]
pub struct Completion {
    /// The shell that the script is for
    shell: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum Known {
    Bash,
    Zsh,
    Fish,
}

// === impl Completion ===

impl Completion {
    pub async fn run(self, _cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let shells = Shells::builtins();
        let shell = shells.completer(self.shell.into()).expect("clap's engine speaks to the three shells");
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Answers a shell that asks for words; false if none asks.
///
/// # Errors
/// clap's error, for a shell that is not known, or an output that cannot be written.
pub fn answer(arguments: &[OsString]) -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    let engine = CompleteEnv::with_factory(grammar).var(VARIABLE).bin(PROGRAM).completer(PROGRAM);
    engine.try_complete(arguments.iter().cloned(), folder.as_deref())
}

/// The grammar as it is completed: flags are offered where nothing else can stand, or to who began one.
fn grammar() -> Command {
    let began_flag = Line::asked().is_some_and(|line| line.current.starts_with('-'));
    let command = Options::command();
    if began_flag { command } else { without_flags(command.disable_help_flag(true).disable_version_flag(true)) }
}

fn without_flags(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| {
        let is_flag = !argument.is_positional();
        argument.hide(is_flag)
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_flags))
}

// === what the server knows ===

/// `TYPE NAME…` and `TYPE/NAME…`.
pub fn objects() -> ArgValueCandidates {
    asked(|line, server| async move {
        let (_, words) = line.words();
        match (words.first(), line.current.split_once('/')) {
            (_, Some((kind, _))) => server.names(kind, &format!("{kind}/")).await,
            (None, None) => server.kinds(),
            (Some(kind), None) if kind.contains('/') => Vec::new(),
            (Some(kind), None) => server.names(kind, "").await,
        }
    })
}

/// A kind.
pub fn kinds() -> ArgValueCandidates {
    asked(|_, server| async move { server.kinds() })
}

/// Names of phones.
pub fn phones() -> ArgValueCandidates {
    asked(|_, server| async move { server.names("phones", "").await })
}

/// Names of deployments.
pub fn deployments() -> ArgValueCandidates {
    asked(|_, server| async move { server.names("inferencedeployments", "").await })
}

/// Names of Models.
pub fn models() -> ArgValueCandidates {
    asked(|_, server| async move { server.names("models", "").await })
}

/// Names of the kind that the verb itself names, such as those of `top phones`.
pub fn of_the_verb() -> ArgValueCandidates {
    asked(|line, server| async move {
        let (verb, _) = line.words();
        server.names(&verb, "").await
    })
}

/// Whatever has a log: the controller, phones, and the phones of deployments.
pub fn logged() -> ArgValueCandidates {
    asked(|line, server| async move {
        if let Some((kind, _)) = line.current.split_once('/') {
            return server.names(kind, &format!("{kind}/")).await;
        }
        let mut found = vec!["controller".to_owned()];
        for kind in ["phones", "inferencedeployments"] {
            found.extend(server.names(kind, "").await);
        }
        each_once(found)
    })
}

/// Candidates that the server of the line's own flags is asked for; none when it does not answer in time.
fn asked<F>(ask: fn(Line, Served) -> F) -> ArgValueCandidates
where
    F: Future<Output = Vec<String>> + 'static,
{
    ArgValueCandidates::new(move || {
        let words = async {
            let line = Line::asked()?;
            let connection = line.cluster()?.connect().await.ok()?;
            let catalogue = Catalogue::fetch(&connection.server).await.ok()?;
            Some(ask(line, Served { connection, catalogue }).await)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = runtime.map(|runtime| runtime.block_on(async { tokio::time::timeout(PATIENCE, words).await }));
        let found = found.ok().and_then(Result::ok).flatten().unwrap_or_default();
        found.into_iter().enumerate().map(|(i, word)| CompletionCandidate::new(word).display_order(Some(i))).collect()
    })
}

/// A server that answered, and its kinds.
struct Served {
    connection: Connection,
    catalogue: Catalogue,
}

// === impl Served ===

impl Served {
    fn kinds(&self) -> Vec<String> {
        let listed = self.catalogue.all().into_iter().filter(|resource| resource.can("list"));
        each_once(listed.map(|resource| resource.plural.clone()))
    }

    /// The names of a kind's objects, each after `prefix`.
    async fn names(&self, kind: &str, prefix: &str) -> Vec<String> {
        let Ok(resource) = self.catalogue.find(kind) else { return Vec::new() };
        let path = resource.collection_path(Some(&self.connection.namespace));
        let objects = self.connection.server.list(&path).await.unwrap_or_default();
        let names = objects.iter().filter_map(|object| object["metadata"]["name"].as_str());
        names.map(|name| format!("{prefix}{name}")).collect()
    }
}

/// Two groups may have a kind of the same name, such as events.
fn each_once(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in words {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    found
}

/// The line that is being written.
#[derive(Debug, PartialEq)]
struct Line {
    /// The program and the words before the cursor.
    before: Vec<OsString>,
    /// The word at the cursor.
    current: String,
}

// === impl Line ===

impl Line {
    /// The line that the shell asks about: it stands after `--` in this program's arguments.
    fn asked() -> Option<Line> {
        let words = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
        let place = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|place| place.parse().ok());
        Line::new(words, place)
    }

    /// Without a place the last word is the one that is being written.
    fn new(mut words: Vec<OsString>, place: Option<usize>) -> Option<Line> {
        let place = place.or(words.len().checked_sub(1))?;
        let current = words.get(place).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        words.truncate(place);
        Some(Line { before: words, current })
    }

    /// What clap understands of it, though it is not finished.
    fn read(&self) -> Option<ArgMatches> {
        Options::command().ignore_errors(true).try_get_matches_from(&self.before).ok()
    }

    fn cluster(&self) -> Option<ClusterFlags> {
        ClusterFlags::from_arg_matches(&self.read()?).ok()
    }

    /// The innermost verb, and the words of its `TYPE NAME…` so far.
    fn words(&self) -> (String, Vec<String>) {
        let Some(matches) = self.read() else { return Default::default() };
        let (mut verb, mut at) = (String::new(), &matches);
        while let Some((name, inner)) = at.subcommand() {
            (verb, at) = (name.to_owned(), inner);
        }
        let words = at.try_get_many::<String>("words").ok().flatten();
        (verb, words.into_iter().flatten().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unfinished_line_is_understood_as_far_as_it_goes() {
        for (text, verb, words, namespace, current) in [
            ("polyctl get ", "get", "", None, ""),
            ("polyctl -n lab get ph", "get", "", Some("lab"), "ph"),
            ("polyctl get phones ", "get", "phones", None, ""),
            ("polyctl get phones -o wide -n=lab ", "get", "phones", Some("lab"), ""),
            ("polyctl get phones -o ", "get", "phones", None, ""),
            ("polyctl describe phone/a infer/sm", "describe", "phone/a", None, "infer/sm"),
            ("polyctl wait infer x --for", "wait", "infer x", None, "--for"),
            ("polyctl wait ", "wait", "", None, ""),
            ("polyctl top ph ", "phones", "", None, ""),
            ("polyctl model rm ", "rm", "", None, ""),
            ("polyctl nonsense ", "", "", None, ""),
            ("polyctl ", "", "", None, ""),
        ] {
            let line = Line::new(text.split(' ').map(OsString::from).collect(), None).unwrap();
            let (found, of_verb) = line.words();
            assert_eq!((found.as_str(), of_verb.join(" ").as_str()), (verb, words), "{text:?}");
            assert_eq!(line.cluster().unwrap().namespace.as_deref(), namespace, "{text:?}");
            assert_eq!(line.current, current, "{text:?}");
        }
        assert_eq!(Line::new(Vec::new(), None), None);
        // The cursor stands before the end.
        let line = Line::new(["polyctl", "get", "ph", "-o"].map(OsString::from).to_vec(), Some(2)).unwrap();
        assert_eq!((line.current.as_str(), line.before.len()), ("ph", 2));
    }
}
