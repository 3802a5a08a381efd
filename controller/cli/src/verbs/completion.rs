//! `completion`: scripts that let a shell complete verbs and flags, and the server's kinds and names.
//!
//! clap writes the script of the grammar; a few lines around it ask this program, by a hidden verb, for the words that
//! only the server knows.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::Catalogue;
use crate::options::Options;

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

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// The words that may stand where the cursor is, as far as only the server knows them; one a line. Fails silently.
#[derive(Debug, Args)]
pub struct Words {
    /// The command line so far, without the program, up to the word that is being written
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    line: Vec<String>,
}

const BASH: &str = r#"
_polyctl_with_names() {
    local line=("${COMP_WORDS[@]:1:COMP_CWORD}") names
    names=$(polyctl __words -- "${line[@]}" 2>/dev/null)
    if [[ -n $names ]]; then
        COMPREPLY=($(compgen -W "$names" -- "${COMP_WORDS[COMP_CWORD]}"))
    else
        _polyctl "$@"
    fi
}
complete -F _polyctl_with_names -o nosort -o bashdefault -o default polyctl 2>/dev/null ||
    complete -F _polyctl_with_names -o bashdefault -o default polyctl
"#;

const ZSH: &str = r#"
_polyctl_with_names() {
    local -a names
    names=(${(f)"$(polyctl __words -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#names )); then compadd -- $names; else _polyctl "$@"; fi
}
compdef _polyctl_with_names polyctl
"#;

const FISH: &str = r#"
function __polyctl_words
    set -l line (commandline -opc) (commandline -ct)
    polyctl __words -- $line[2..-1] 2>/dev/null
end
complete -c polyctl -f -n 'count (__polyctl_words) >/dev/null' -a '(__polyctl_words)'
"#;

// === impl Completion ===

impl Completion {
    pub async fn run(self, _cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let (shell, names) = match self.shell {
            Known::Bash => (Shell::Bash, BASH),
            Known::Zsh => (Shell::Zsh, ZSH),
            Known::Fish => (Shell::Fish, FISH),
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Options::command(), "polyctl", &mut script);
        script.extend_from_slice(names.as_bytes());
        io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Words ===

impl Words {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let found = tokio::time::timeout(PATIENCE, self.words(&cluster)).await;
        for word in found.ok().flatten().unwrap_or_default() {
            writeln!(io::stdout(), "{word}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// None where the grammar alone decides.
    async fn words(&self, cluster: &ClusterFlags) -> Option<Vec<String>> {
        let asked = asked_for(&self.line)?;
        let mut cluster = cluster.clone();
        if let Some(namespace) = flag_value(&self.line, &["-n", "--namespace"]) {
            cluster.namespace = Some(namespace);
        }
        if let Some(file) = flag_value(&self.line, &["--kubeconfig"]) {
            cluster.kubeconfig = Some(file.into());
        }
        if let Some(folder) = flag_value(&self.line, &["--data-dir"]) {
            cluster.data_dir = Some(folder.into());
        }
        let connection = cluster.connect().await.ok()?;
        let catalogue = Catalogue::fetch(&connection.server).await.ok()?;
        match asked {
            Asked::Kinds => {
                let ours = |resource: &&crate::discovery::Resource| resource.can("list");
                let names = catalogue.all().into_iter().filter(ours).map(|resource| resource.plural.clone());
                Some(each_once(names))
            }
            Asked::Names { kind, with_kind } => {
                let prefix = if with_kind { format!("{kind}/") } else { String::new() };
                names_of(&connection, &catalogue, &kind, &prefix).await
            }
            Asked::Logs => {
                let mut found = vec!["controller".to_owned()];
                for kind in ["phones", "inferencedeployments"] {
                    found.extend(names_of(&connection, &catalogue, kind, "").await.unwrap_or_default());
                }
                Some(each_once(found))
            }
        }
    }
}

/// The names of a kind's objects, each after `prefix`.
async fn names_of(connection: &Connection, catalogue: &Catalogue, kind: &str, prefix: &str) -> Option<Vec<String>> {
    let path = catalogue.find(kind).ok()?.collection_path(Some(&connection.namespace));
    let objects = connection.server.list(&path).await.ok()?;
    let name = |object: &serde_json::Value| Some(format!("{prefix}{}", object["metadata"]["name"].as_str()?));
    Some(objects.iter().filter_map(name).collect())
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

/// What the server is asked for.
#[derive(Debug, PartialEq)]
enum Asked {
    Kinds,
    Names {
        kind: String,
        with_kind: bool,
    },
    /// Whatever has a log: the controller, phones, and the phones of deployments.
    Logs,
}

/// Verbs whose first word is a kind and whose others are names of it.
const BY_KIND: [&str; 7] = ["get", "describe", "delete", "wait", "scale", "edit", "explain"];

/// Which words the last one of the line may be. Values of flags are the grammar's.
fn asked_for(line: &[String]) -> Option<Asked> {
    let (current, before) = line.split_last()?;
    if current.starts_with('-') {
        return None;
    }
    let mut words: Vec<&str> = Vec::new();
    let mut is_value = false;
    for word in before {
        if word.starts_with('-') {
            is_value = VALUED.contains(&word.as_str());
        } else if std::mem::take(&mut is_value) {
        } else {
            words.push(word);
        }
    }
    if is_value {
        return None;
    }
    let names = |kind: &str| Some(Asked::Names { kind: kind.to_owned(), with_kind: false });
    let (verb, rest) = words.split_first()?;
    match (*verb, rest) {
        (verb, []) if BY_KIND.contains(&verb) => match current.split_once('/') {
            Some((kind, _)) => Some(Asked::Names { kind: kind.to_owned(), with_kind: true }),
            None => Some(Asked::Kinds),
        },
        ("explain", _) => None,
        (verb, [kind, ..]) if BY_KIND.contains(&verb) => match (kind.contains('/'), current.split_once('/')) {
            (false, _) => names(kind),
            (true, Some((kind, _))) => Some(Asked::Names { kind: kind.to_owned(), with_kind: true }),
            (true, None) => None,
        },
        ("cordon" | "uncordon" | "drain", _) | ("top", ["phones" | "phone" | "ph", ..]) => names("phones"),
        ("chat", []) | ("top", ["deployments" | "deployment" | "infer", ..]) => names("inferencedeployments"),
        ("logs", []) => match current.split_once('/') {
            Some((kind, _)) => Some(Asked::Names { kind: kind.to_owned(), with_kind: true }),
            None => Some(Asked::Logs),
        },
        ("model", ["rm", ..]) => names("models"),
        _ => None,
    }
}

/// Flags whose value is the next word.
const VALUED: [&str; 14] = [
    "-n",
    "--namespace",
    "--kubeconfig",
    "--context",
    "--data-dir",
    "-o",
    "--output",
    "-l",
    "--selector",
    "--for",
    "--timeout",
    "-f",
    "--filename",
    "--field-selector",
];

fn flag_value(line: &[String], names: &[&str]) -> Option<String> {
    let position = line.iter().position(|word| names.contains(&word.as_str()));
    position.and_then(|position| line.get(position + 1).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_on_the_line_says_what_is_asked_for() {
        let names = |kind: &str| Some(Asked::Names { kind: kind.to_owned(), with_kind: false });
        for (line, expected) in [
            ("get ", Some(Asked::Kinds)),
            ("get ph", Some(Asked::Kinds)),
            ("-n lab get ", Some(Asked::Kinds)),
            ("get phones ", names("phones")),
            ("get phones -o wide ", names("phones")),
            ("get phones -o ", None),
            ("describe infer/sm", Some(Asked::Names { kind: "infer".into(), with_kind: true })),
            ("drain ", names("phones")),
            ("chat sm", names("inferencedeployments")),
            ("chat smollm2 hel", None),
            ("model rm ", names("models")),
            ("logs ", Some(Asked::Logs)),
            ("logs infer/", Some(Asked::Names { kind: "infer".into(), with_kind: true })),
            ("model ", None),
            ("get --wa", None),
            ("ge", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(asked_for(&words), expected, "{line:?}");
        }
    }
}
