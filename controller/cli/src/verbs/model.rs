//! `model`: model files in Polyphony's own cache folder, and the Model objects that name them.

mod cached;
mod object;
mod place;
mod remote;
mod show;
mod tokenize;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use polyphony_api::{GROUP, ModelSource, VERSION};
use polyphony_controller::models::source::{cache_folder, cache_name, in_cache};
use polyphony_journal::tell;
use polyphony_model::{Manifest, SourceFile, SourceFiles};
use serde_json::{Value, json};

use crate::connection::{ClusterFlags, Connection};
use crate::failure::Failure;
use crate::server::path_segment;
use crate::table::align;
use crate::verbs::completion;

/// Bring model files in, list them, and take them away.
#[derive(Debug, Args)]
pub struct ModelVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a model's files, take them into the cache, and create its Model; or have the controller fetch them
    Import(Import),
    /// Show Models, and files of the cache that no Model names
    #[command(visible_alias = "ls")]
    List(List),
    /// Delete Models, and with --file their files
    Rm(Rm),
    /// Show a model's architecture, tokens, template, types of weights, and memory by layer
    Show(show::Show),
    /// Show the tokens of texts from standard input, and the text that these stand for
    Tokenize(tokenize::Tokenize),
}

const EXAMPLES: &str = "Examples:
  polyctl model import hf://unsloth/gemma-3-270m-it-GGUF:Q4_K_M
  polyctl model import https://example.com/models/model.gguf
  polyctl model import model-00001-of-00003.gguf";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Import {
    /// A GGUF file, a part of one that was split or all of them, or a folder with config.json and safetensors; or what the controller
    /// fetches: hf://owner/name[@revision][:quantisation or file], or https://host/file
    #[arg(required = true, value_name = "FILE|SOURCE")]
    files: Vec<PathBuf>,
    /// The Model's name (else it is made from the file's)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Copy the files even where hard links would do
    #[arg(long)]
    copy: bool,
    /// The Secret with the token that a source asks for; its entry `token`, or another KEY
    #[arg(long, value_name = "NAME[/KEY]")]
    token_secret: Option<String>,
    /// Do not wait until the controller has fetched and verified a source
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Without the headers
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
struct Rm {
    /// Names of Models
    #[arg(required = true, value_name = "NAME", add = completion::models())]
    names: Vec<String>,
    /// The files in the cache as well, unless another Model names them
    #[arg(long, visible_alias = "cache")]
    file: bool,
    /// Also when a deployment runs it
    #[arg(long)]
    force: bool,
}

/// Why a file is not taken in.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("there is no cache folder: set POLYPHONY_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    #[error("{} and {} are not of one model: import one after the other", .first.display(), .other.display())]
    Several { first: PathBuf, other: PathBuf },
    #[error("{} cannot be named as a model: give a name with --name", .path.display())]
    NoName { path: PathBuf },
    #[error(transparent)]
    Files(#[from] polyphony_model::FilesError),
    #[error(transparent)]
    Model(#[from] polyphony_model::ModelError),
    #[error("{}: {source}", .path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error("{} is there already with other contents: rename {} and import it again", .cached.display(), .file.display())]
    Other { cached: PathBuf, file: PathBuf },
}

// === impl ModelVerb ===

impl ModelVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Import(verb) => verb.run(cluster).await,
            What::List(verb) => verb.run(cluster).await,
            What::Rm(verb) => verb.run(cluster).await,
            What::Show(verb) => verb.run(cluster).await,
            What::Tokenize(verb) => verb.run(cluster).await,
        }
    }
}

// === impl Import ===

impl Import {
    async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        // Before minutes of reading are spent.
        let connection = cluster.connect().await?;
        if let Some(source) = self.source()? {
            let no_name = || ImportError::NoName { path: source.to_string().into() };
            let name = self.name.clone().or_else(|| remote::name_of(&source)).ok_or_else(no_name)?;
            let (token_secret, waits) = (self.token_secret, !self.no_wait);
            return remote::Remote { source, name, token_secret, waits }.import(&connection).await;
        }
        let file = self.file()?;
        let no_name = || ImportError::NoName { path: file.to_owned() };
        let files = SourceFiles::open(file).map_err(ImportError::from)?.files;
        let cached_name = cached::name_of(file, &files).ok_or_else(no_name)?;
        let name = self.name.clone().or_else(|| name_of_file(&cached_name)).ok_or_else(no_name)?;
        let existing = connection.server.find(&object::path_of(&connection, &name)).await?;

        let manifest = verify(file)?;
        let of = &manifest.hyperparameters;
        tell!(
            "{}: {} with {} layers, {} MiB, SHA-256 {}",
            file.display(),
            of.architecture,
            of.n_layers,
            manifest.file_bytes().div_ceil(1 << 20),
            manifest.file_sha256()
        );
        let cached = self.take_in(file, &cached_name, &files, &manifest)?;
        tell!("kept as {}", cached.display());

        let spec = json!({"source": format!("cache://{cached_name}"), "sha256": manifest.file_sha256()});
        object::make(&connection, &name, &spec, existing).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// What is elsewhere, where that is named.
    fn source(&self) -> anyhow::Result<Option<ModelSource>> {
        let text = self.files.first().and_then(|first| first.to_str()).unwrap_or_default();
        if !text.contains("://") {
            return Ok(None);
        }
        let source = ModelSource::parse(text)?;
        if !source.is_remote() {
            let text =
                format!("{text} is on the host already: name the file itself, or write a Model of it and apply that");
            return Err(Failure::Request(text).into());
        }
        if self.files.len() > 1 {
            return Err(Failure::Request("one source at a time: import one after the other".to_owned()).into());
        }
        Ok(Some(source))
    }

    /// The one that stands for all files that are named: a shell puts the names of all parts in place of a pattern.
    fn file(&self) -> Result<&Path, ImportError> {
        let first = self.files.first().expect("the verb asks for one at least");
        for other in &self.files[1..] {
            if SourceFiles::named_by(other)? != SourceFiles::named_by(first)? {
                return Err(ImportError::Several { first: first.clone(), other: other.clone() });
            }
        }
        Ok(first)
    }

    /// The model's place in the cache; its files are linked or copied there, all of them or none.
    fn take_in(
        &self,
        file: &Path,
        name: &str,
        files: &[SourceFile],
        manifest: &Manifest,
    ) -> Result<PathBuf, ImportError> {
        let folder = cache_folder().ok_or(ImportError::NoCache)?.join("models");
        let cached = folder.join(name);
        if cached.exists() {
            let is_same =
                |one: &Path, other: &Path| Some(std::fs::canonicalize(one).ok()? == std::fs::canonicalize(other).ok()?);
            if is_same(&cached, file) == Some(true) || verify(&cached)?.file_sha256() == manifest.file_sha256() {
                return Ok(cached);
            }
            return Err(ImportError::Other { cached, file: file.to_owned() });
        }
        cached::place(&folder, name, files, self.copy)
            .map_err(|source| ImportError::Cache { path: cached.clone(), source })?;
        Ok(cached)
    }
}

/// Reads all files and checks them, with a bar on a terminal.
fn verify(file: &Path) -> Result<Manifest, polyphony_model::ModelError> {
    let length = SourceFiles::open(file).map_or(0, |found| found.files.iter().map(|file| file.len).sum());
    let bar = if io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("checking [{bar:32}] {bytes} of {total_bytes}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let manifest = Manifest::build_with_progress(file, &mut |n_bytes| {
        bar.set_position(n_bytes);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    manifest
}

/// `SmolLM2-135M-Instruct.Q4_1.gguf` as an object's name: `smollm2-135m-instruct.q4-1`.
fn name_of_file(file_name: &str) -> Option<String> {
    let stem = file_name.strip_suffix(".gguf").unwrap_or(file_name).to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let labels: Vec<&str> =
        name.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty()).collect();
    let name: String = labels.join(".").chars().take(253).collect();
    let name = name.trim_end_matches(['-', '.']);
    (!name.is_empty()).then(|| name.to_owned())
}

fn models_path(namespace: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{}/models", path_segment(namespace))
}

/// The file or folder of the cache that a Model names, or was fetched into.
fn cached_file(model: &Value) -> Option<String> {
    let source = ModelSource::parse(model["spec"]["source"].as_str()?).ok()?;
    cache_name(&source, model["status"]["commit"].as_str())
}

async fn in_all_namespaces(connection: &Connection, plural: &str) -> Result<Vec<Value>, Failure> {
    connection.server.list(&format!("/apis/{GROUP}/{VERSION}/{plural}")).await
}

// === impl List ===

impl List {
    async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let models = connection.server.list(&models_path(&connection.namespace)).await?;
        let mut lines = Vec::new();
        if !self.no_headers {
            lines.push(
                ["NAME", "RESOLVED", "PROGRESS", "ARCHITECTURE", "LAYERS", "SIZE", "SOURCE"]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
        for model in &models {
            let text = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
            let conditions = model["status"]["conditions"].as_array();
            let resolved = conditions.into_iter().flatten().find(|condition| condition["type"] == "Resolved");
            lines.push(vec![
                text(&model["metadata"]["name"]),
                resolved.map_or_else(|| "Unknown".to_owned(), |condition| text(&condition["status"])),
                text(&model["status"]["progress"]["shown"]),
                text(&model["status"]["architecture"]),
                model["status"]["layers"].as_u64().map_or_else(|| "<none>".to_owned(), |n| n.to_string()),
                text(&model["status"]["size"]),
                text(&model["spec"]["source"]),
            ]);
        }
        let everywhere = in_all_namespaces(&connection, "models").await?;
        let named: Vec<String> = everywhere.iter().filter_map(cached_file).collect();
        for (file, n_bytes) in cached::all() {
            if !named.contains(&file) {
                let size = format!("{}Mi", n_bytes.div_ceil(1 << 20));
                let none = || "<none>".to_owned();
                lines.push(vec![none(), none(), none(), none(), none(), size, format!("cache://{file}")]);
            }
        }
        if lines.len() == usize::from(!self.no_headers) {
            tell!(
                "No models in {} namespace, and no file in the cache: polyctl model import FILE.gguf",
                connection.namespace
            );
            return Ok(ExitCode::SUCCESS);
        }
        write!(io::stdout(), "{}", align(&lines, &mut Vec::new(), 6, 3))?;
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Rm ===

impl Rm {
    async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let mut failures = Vec::new();
        for name in &self.names {
            match self.remove(&connection, name).await {
                Ok(lines) => {
                    for line in lines {
                        writeln!(io::stdout(), "{line}")?;
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn remove(&self, connection: &Connection, name: &str) -> Result<Vec<String>, Failure> {
        let namespace = &connection.namespace;
        let path = format!("{}/{}", models_path(namespace), path_segment(name));
        let model = connection.server.get(&path).await?;
        if !self.force {
            let folder = format!("/apis/{GROUP}/{VERSION}/namespaces/{}/inferencedeployments", path_segment(namespace));
            let deployments = connection.server.list(&folder).await?;
            let users: Vec<&str> = deployments
                .iter()
                .filter(|deployment| deployment["spec"]["model"] == name)
                .filter_map(|deployment| deployment["metadata"]["name"].as_str())
                .collect();
            if !users.is_empty() {
                let text = format!(
                    "model {name:?} is run by inferencedeployment {}: delete that first, or use --force",
                    users.join(", ")
                );
                return Err(Failure::Request(text));
            }
        }
        connection.server.delete(&path, &json!({"apiVersion": "v1", "kind": "DeleteOptions"})).await?;
        let mut lines = vec![format!("model.{GROUP} {name:?} deleted from {namespace} namespace")];
        if self.file {
            lines.push(remove_file(connection, &model).await?);
        }
        Ok(lines)
    }
}

/// Removes the cached file of a Model that is gone, and says what became of it.
async fn remove_file(connection: &Connection, model: &Value) -> Result<String, Failure> {
    let Some(file) = cached_file(model) else {
        let source = model["spec"]["source"].as_str().unwrap_or_default();
        return Ok(format!("{source} is not in the cache and stays"));
    };
    let uid = model["metadata"]["uid"].as_str();
    let others = in_all_namespaces(connection, "models").await?;
    let other = others
        .iter()
        .find(|other| cached_file(other).as_ref() == Some(&file) && other["metadata"]["uid"].as_str() != uid);
    if let Some(other) = other {
        let name = other["metadata"]["name"].as_str().unwrap_or_default();
        return Ok(format!("file {file} stays: model {name:?} names it too"));
    }
    let Some(path) = cache_folder().map(|folder| in_cache(&folder, &file)) else {
        return Ok(format!("file {file} is in no cache folder of this machine"));
    };
    match cached::remove(&path) {
        Ok(()) => Ok(format!("file {} deleted", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("file {} is not on this machine", path.display()))
        }
        Err(error) => Err(Failure::Request(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_becomes_an_objects_name() {
        for (file, name) in [
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("smollm2-135m-instruct.q4-1")),
            ("a b__.gguf", Some("a-b")),
            ("_x_..y.gguf", Some("x.y")),
            ("é.gguf", None),
        ] {
            assert_eq!(name_of_file(file).as_deref(), name, "{file}");
        }
    }
}
