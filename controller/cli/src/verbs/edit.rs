//! `edit`: an object in the person's own editor, and back to the server as a patch.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use serde_json::Value;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource};
use crate::failure::Failure;
use crate::manifest;
use crate::merge_patch;
use crate::printing;
use crate::selection::select;
use crate::server::with_query;
use crate::verbs::apply::{refused_fields, remedies};
use crate::verbs::completion;
use crate::yaml;

const HEADER: &str = "\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// Change objects in $KUBE_EDITOR, $EDITOR or vi: `edit infer smollm2`.
#[derive(Debug, Args)]
pub struct Edit {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME", required = true, add = completion::objects())]
    words: Vec<String>,
    /// The name under which the fields are owned
    #[arg(long, value_name = "NAME", default_value = "polyctl-edit")]
    field_manager: String,
}

/// Why an edit came to nothing.
#[derive(Debug, thiserror::Error)]
enum EditError {
    #[error("unable to launch the editor {editor:?}: {source}: name another in $KUBE_EDITOR or $EDITOR")]
    Launch { editor: String, source: io::Error },
    #[error("there was a problem with the editor {editor:?}: it ended with {status}; nothing was changed")]
    Editor { editor: String, status: std::process::ExitStatus },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
}

// === impl Edit ===

impl Edit {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        for selection in select("edit", &self.words, &catalogue)? {
            if selection.names.is_empty() {
                return Err(Failure::Request("resource(s) were provided, but no name was specified".into()).into());
            }
            for name in &selection.names {
                self.edit(&connection, &selection.resource, name).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn edit(&self, connection: &Connection, resource: &Resource, name: &str) -> anyhow::Result<()> {
        let path = resource.object_path(&connection.namespace, name);
        let before = printing::for_people(connection.server.get(&path).await?, resource, false);
        let original = yaml::to_string(&before)?;
        let mut shown = original.clone();
        let mut complaint: Option<String> = None;
        let file = std::env::temp_dir().join(format!("polyctl-edit-{}-{name}.yaml", std::process::id()));
        loop {
            let header = format!("{HEADER}{}", comments(complaint.as_deref()));
            let edited = open_editor(&file, &format!("{header}{shown}"))?;
            let edited = without_comments(&edited);
            if edited.trim().is_empty() || edited == original {
                remove(&file);
                writeln!(io::stdout(), "Edit cancelled, no changes made.")?;
                return Ok(());
            }
            if let Some(complaint) = complaint.as_deref().filter(|_| edited == shown) {
                // Saved as it was refused: nothing more will come. The file is kept for the person.
                let told = Failure::Request("Edit cancelled, no valid changes were saved.".into());
                let mut notes: Vec<String> = complaint.lines().map(str::to_owned).collect();
                notes.push(format!("A copy of your changes has been stored to \"{}\"", file.display()));
                return Err(Failure::Noted { failure: Box::new(told), notes }.into());
            }
            shown = edited;
            complaint = match self.send(connection, resource, &path, name, &before, &shown).await {
                Ok(changed) => {
                    remove(&file);
                    let outcome = if changed { "edited" } else { "skipped" };
                    writeln!(io::stdout(), "{}/{name} {outcome}", resource.singular_name())?;
                    return Ok(());
                }
                Err(refused) => Some(refused),
            };
        }
    }

    /// False when nothing differs after all; the error is what the person is told.
    async fn send(
        &self,
        connection: &Connection,
        resource: &Resource,
        path: &str,
        name: &str,
        before: &Value,
        text: &str,
    ) -> Result<bool, String> {
        let documents = manifest::parse("the object", text).map_err(|error| error.to_string())?;
        let [document] = documents.as_slice() else {
            return Err("exactly one object is edited at a time".to_owned());
        };
        let same = |field: &str, now: &str, was: &Value| {
            if was.as_str() == Some(now) { Ok(()) } else { Err(format!("{field} may not be changed: it was {was}")) }
        };
        same("apiVersion", document.api_version(), &before["apiVersion"])?;
        same("kind", document.kind(), &before["kind"])?;
        same("metadata.name", document.name(), &Value::from(name))?;
        let Some(patch) = merge_patch::between(before, &document.object) else { return Ok(false) };
        let parameters = [("fieldManager", Some(self.field_manager.as_str())), ("fieldValidation", Some("Strict"))];
        match connection.server.merge_patch(&with_query(path, &parameters), &patch).await {
            Ok(_) => Ok(true),
            Err(failure) => {
                let mut lines = vec![failure.to_string()];
                // Line numbers would be those of a file whose head has changed by then: fields are enough here.
                lines.extend(refused_fields(&failure).into_iter().map(|field| format!("* {field}")));
                lines.extend(remedies(connection, resource, &failure).await);
                Err(lines.join("\n"))
            }
        }
    }
}

fn comments(complaint: Option<&str>) -> String {
    let Some(complaint) = complaint else { return String::new() };
    let lines = complaint.lines().map(|line| format!("# {line}\n"));
    lines.chain(std::iter::once("#\n".to_owned())).collect()
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Writes the file, lets the person edit it, and reads it again.
fn open_editor(file: &Path, text: &str) -> Result<String, EditError> {
    use std::os::unix::fs::OpenOptionsExt;
    let at = |source| EditError::File { path: file.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(file).map_err(at)?;
    opened.write_all(text.as_bytes()).map_err(at)?;
    drop(opened);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = variable("KUBE_EDITOR").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // An editor may have arguments: the shell splits them as it does elsewhere.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{editor} \"$@\""), "polyctl-edit"]).arg(file);
    let status = command.status().map_err(|source| EditError::Launch { editor: editor.clone(), source })?;
    if !status.success() {
        remove(file);
        return Err(EditError::Editor { editor, status });
    }
    std::fs::read_to_string(file).map_err(at)
}

fn remove(file: &Path) {
    // It may be gone already: editors are free to move it.
    let _ = std::fs::remove_file(file);
}
