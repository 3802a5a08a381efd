//! `apply`: objects of files to the server, by server-side apply.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum, ValueHint};
use http::StatusCode;
use serde_json::Value;
use strum::IntoStaticStr;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource, UnknownKind};
use crate::failure::Failure;
use crate::manifest::{self, Document};
use crate::printing::{self, Format};
use crate::schema;
use crate::server::with_query;

/// Who writes what `apply` writes, unless another is named; and what other verbs write for it.
pub(super) const FIELD_MANAGER: &str = "polyctl";

/// Create or change objects: `apply -f manifests/smollm2.yaml`, `apply -f FOLDER`, `apply -f -`.
#[derive(Debug, Args)]
pub struct Apply {
    /// A file of YAML or JSON, a folder of such files, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = ValueHint::AnyPath, required = true)]
    files: Vec<String>,
    /// With the folders below folders
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Only say what would happen: `server` asks the server, `client` only reads the files
    #[arg(long, value_name = "WHO", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Take over fields that another manager owns
    #[arg(long)]
    force_conflicts: bool,
    /// Server-side apply is the only kind there is; accepted as kubectl's flag
    #[arg(long, hide = true)]
    server_side: bool,
    /// The name under which the fields are owned
    #[arg(long, value_name = "NAME", default_value = FIELD_MANAGER)]
    field_manager: String,
    /// What to do about unknown fields: strict, warn or ignore; a key that is repeated is refused always
    #[arg(long, value_name = "HOW", default_value = "strict")]
    validate: Validation,
    /// Print the objects: json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", value_parser = printing::parse_format)]
    output: Option<Format>,
}

/// Who only pretends to do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(super) enum DryRun {
    None,
    Server,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, IntoStaticStr)]
enum Validation {
    #[value(alias = "true")]
    Strict,
    Warn,
    #[value(alias = "false")]
    Ignore,
}

// === impl Apply ===

impl Apply {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let documents = manifest::load(&self.files, self.recursive)?;
        if documents.is_empty() {
            return Err(Failure::Request("no objects passed to apply".into()).into());
        }
        let connection = cluster.connect().await?;
        let mut catalogue = Catalogue::fetch(&connection.server).await?;
        let mut failures = Vec::new();
        for document in &documents {
            // A definition earlier in the files may have made the kind known by now.
            if catalogue.find_kind(document.api_version(), document.kind()).is_err() {
                catalogue = Catalogue::fetch(&connection.server).await?;
            }
            let resource = match catalogue.find_kind(document.api_version(), document.kind()) {
                Ok(resource) => resource,
                Err(unknown) => {
                    failures.push(unmapped(document, &unknown));
                    continue;
                }
            };
            if let Err(failure) = self.apply(&connection, cluster.namespace.as_deref(), resource, document).await? {
                failures.push(failure);
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The outer error is of our output, the inner one of this object.
    async fn apply(
        &self,
        connection: &Connection,
        asked_namespace: Option<&str>,
        resource: &Resource,
        document: &Document,
    ) -> io::Result<Result<(), Failure>> {
        let namespace = match namespace_of(document, resource, asked_namespace, &connection.namespace) {
            Ok(namespace) => namespace,
            Err(failure) => return Ok(Err(failure)),
        };
        let path = resource.object_path(&namespace, document.name());
        let (outcome, object) = match self.send(connection, &path, resource, &namespace, document).await {
            Ok(sent) => sent,
            Err(failure) => return Ok(Err(told_with_places(connection, resource, document, failure).await)),
        };
        let mut out = io::stdout().lock();
        match &self.output {
            Some(format) => {
                printing::write_object(&mut out, format, resource, &printing::for_people(object, resource, false))?
            }
            None => {
                writeln!(out, "{}/{} {outcome}{}", resource.singular_name(), document.name(), self.dry_run.suffix())?
            }
        }
        Ok(Ok(()))
    }

    async fn send(
        &self,
        connection: &Connection,
        path: &str,
        resource: &Resource,
        namespace: &str,
        document: &Document,
    ) -> Result<(&'static str, Value), Failure> {
        let before = connection.server.find(path).await?;
        if self.dry_run == DryRun::Client {
            let outcome = if before.is_some() { "configured" } else { "created" };
            return Ok((outcome, document.object.clone()));
        }
        let mut object = document.object.clone();
        if resource.namespaced && document.namespace().is_none() {
            object["metadata"]["namespace"] = namespace.into();
        }
        let query = with_query(
            path,
            &[
                ("fieldManager", Some(self.field_manager.as_str())),
                ("fieldValidation", Some(self.validate.into())),
                ("force", self.force_conflicts.then_some("true")),
                ("dryRun", (self.dry_run == DryRun::Server).then_some("All")),
            ],
        );
        let (status, after) = connection.server.apply(&query, &object).await?;
        Ok((outcome(status, before.as_ref(), &after), after))
    }
}

impl DryRun {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Server => " (server dry run)",
            DryRun::Client => " (dry run)",
        }
    }
}

/// `created`, `configured` or `unchanged`. A dry run keeps the version, so what counts is what a person can see; the
/// status is not the file's to change, and may move at any moment.
fn outcome(status: StatusCode, before: Option<&Value>, after: &Value) -> &'static str {
    let visible = |object: &Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|field, _| !matches!(field.as_str(), "managedFields" | "resourceVersion" | "generation"));
        }
        object
    };
    match before {
        None => "created",
        Some(_) if status == StatusCode::CREATED => "created",
        Some(before) if visible(before) == visible(after) => "unchanged",
        Some(_) => "configured",
    }
}

pub(super) fn namespace_of(
    document: &Document,
    resource: &Resource,
    asked: Option<&str>,
    current: &str,
) -> Result<String, Failure> {
    match (document.namespace(), asked) {
        (Some(own), Some(asked)) if resource.namespaced && own != asked => Err(Failure::Request(format!(
            "{}: the namespace from the provided object {own:?} does not match the namespace {asked:?}. \
             You must pass '--namespace={own}' to perform this operation.",
            document.place_of("metadata.namespace")
        ))),
        (Some(own), _) => Ok(own.to_owned()),
        (None, _) => Ok(current.to_owned()),
    }
}

pub(super) fn unmapped(document: &Document, unknown: &UnknownKind) -> Failure {
    Failure::Request(format!(
        "{}: resource mapping not found for name: {:?}: {unknown}\nensure CRDs are installed first",
        document.place_of("kind"),
        document.name()
    ))
}

/// The server's words, then for each field that they name its file and line, and a remedy where one is known.
pub(super) async fn told_with_places(
    connection: &Connection,
    resource: &Resource,
    document: &Document,
    failure: Failure,
) -> Failure {
    let Some(status) = failure.status() else { return failure };
    let fields = faulty_fields(status);
    let mut notes: Vec<String> = fields.iter().map(|field| format!("{}: {field}", document.place_of(field))).collect();
    notes.extend(remedies(connection, resource, &failure).await);
    if fields.is_empty() {
        notes.push(document.place_of("kind"));
    }
    if status.is_conflict() && !fields.is_empty() {
        notes.push(
            "another manager owns these fields: take them over with --force-conflicts, or leave them out of the file"
                .to_owned(),
        );
    }
    Failure::Noted { failure: Box::new(failure), notes }
}

/// For each field that the server does not know, what it may have been meant to be.
pub(super) async fn remedies(connection: &Connection, resource: &Resource, failure: &Failure) -> Vec<String> {
    let mut found = Vec::new();
    let Some(status) = failure.status() else { return found };
    for field in faulty_fields(status) {
        if status.message.contains(&format!("unknown field \"{field}\"")) {
            found.extend(schema::remedy_for_unknown(&connection.server, resource, &field).await);
        }
    }
    found
}

/// The paths that a failure complains about.
pub(super) fn refused_fields(failure: &Failure) -> Vec<String> {
    failure.status().map(faulty_fields).unwrap_or_default()
}

/// The paths that a `Status` complains about: its causes, else those that a strict decoder quotes.
fn faulty_fields(status: &kube::core::Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields: Vec<String> = causes.map(|cause| cause.field.clone()).filter(|field| !field.is_empty()).collect();
    if fields.is_empty() {
        for marker in ["unknown field \"", "duplicate field \""] {
            let quoted = status.message.split(marker).skip(1);
            fields.extend(quoted.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    fields.dedup();
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_outcome_is_what_a_person_can_see() {
        let old =
            json!({"metadata": {"resourceVersion": "1", "managedFields": [1]}, "spec": {"a": 1}, "status": {"b": 1}});
        let same =
            json!({"metadata": {"resourceVersion": "2", "managedFields": [2]}, "spec": {"a": 1}, "status": {"b": 2}});
        let other = json!({"metadata": {"resourceVersion": "1"}, "spec": {"a": 2}});
        for (status, before, after, expected) in [
            (StatusCode::CREATED, None, &old, "created"),
            (StatusCode::CREATED, Some(&old), &other, "created"),
            (StatusCode::OK, Some(&old), &same, "unchanged"),
            (StatusCode::OK, Some(&old), &other, "configured"),
        ] {
            assert_eq!(outcome(status, before, after), expected);
        }
    }

    #[test]
    fn faulty_fields_come_from_causes_or_quotes() {
        let strict = kube::core::Status::failure(
            "Model in version \"v1alpha1\" cannot be handled as a Model: strict decoding error: unknown field \"spec.a\", unknown field \"spec.b\"",
            "BadRequest",
        );
        assert_eq!(faulty_fields(&strict), ["spec.a", "spec.b"]);
        assert!(faulty_fields(&kube::core::Status::failure("no", "Forbidden")).is_empty());
    }
}
