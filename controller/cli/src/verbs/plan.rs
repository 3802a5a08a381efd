//! `plan`: how a deployment would be spread over the phones there are, without changing anything.
//!
//! The server checks the manifests (a dry run), and the controller's own planner answers from what the API says of
//! phones and placements. Of the model's file only the header is read, on this machine.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use k8s_openapi::jiff::Timestamp;
use polyphony_api::{GROUP, InferenceDeployment, Model, VERSION};
use polyphony_controller::models::source::path_of_model;
use polyphony_controller::reconcile::preview::{Preview, Prompt, World, expert_costs, preview};
use polyphony_model::{Manifest, STEP_ROWS, SourceFiles};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::Catalogue;
use crate::failure::Failure;
use crate::manifest::{self, Document};
use crate::plan::{self, Told};
use crate::printing::{self, Format};
use crate::server::{path_segment, with_query};
use crate::verbs::apply::{namespace_of, told_with_places, unmapped};

/// Show where the layers of a deployment would go, how fast it would be, what limits it, and what other ways to place
/// them would give: `plan -f smollm2.yaml`.
#[derive(Debug, Args)]
pub struct PlanVerb {
    /// A file of YAML or JSON, a folder of such files, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = ValueHint::AnyPath, required = true)]
    files: Vec<String>,
    /// With the folders below folders
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Tokens of the prompt whose time to first token is predicted
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// json, yaml or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", value_parser = parse_format)]
    output: Option<Format>,
}

fn parse_format(text: &str) -> Result<Format, String> {
    match printing::parse_format(text) {
        Ok(format @ (Format::Json | Format::Yaml | Format::JsonPath(_))) => Ok(format),
        _ => Err("allowed formats are: json, yaml, jsonpath=TEMPLATE".to_owned()),
    }
}

// === impl PlanVerb ===

impl PlanVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let documents = manifest::load(&self.files, self.recursive)?;
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let (mut deployments, mut models): (Vec<InferenceDeployment>, Vec<Model>) = (Vec::new(), Vec::new());
        for document in &documents {
            let object = checked(&connection, &catalogue, cluster.namespace.as_deref(), document).await?;
            match document.kind() {
                "InferenceDeployment" => deployments.push(typed(object, document)?),
                "Model" => models.push(typed(object, document)?),
                _ => {}
            }
        }
        if deployments.is_empty() {
            return Err(Failure::Request("no InferenceDeployment in the files: there is nothing to plan".into()).into());
        }
        let world = World {
            now: Timestamp::now(),
            deployments: read(&connection, "inferencedeployments").await?,
            phones: read(&connection, "phones").await?,
            placements: read(&connection, "segmentplacements").await?,
        };
        let (mut short, mut values) = (Vec::new(), Vec::new());
        for (n_shown, deployment) in deployments.iter().enumerate() {
            let (model, outline) = self.model_of(&connection, deployment, &models).await?;
            let digest = model.status.as_ref().and_then(|status| status.manifest_digest.clone()).unwrap_or_default();
            let prompt = Prompt { n_tokens: self.prompt_tokens, chunk_tokens: STEP_ROWS };
            let previews = preview(&world, deployment, &outline, &digest, prompt);
            let (experts, prompt_tokens) = (expert_costs(&outline), self.prompt_tokens);
            let told = Told { deployment, experts, previews: &previews, prompt_tokens };
            if self.output.is_some() {
                values.push(plan::value(&told));
            } else {
                let mut out = io::stdout().lock();
                if n_shown > 0 {
                    writeln!(out)?;
                }
                write!(out, "{}", plan::text(&told))?;
            }
            short.extend(previews.into_iter().filter_map(|Preview { replica, planned, .. }| {
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                planned.err().map(|why| Failure::Request(format!("{name}, replica {replica}: no plan: {why}")))
            }));
        }
        if let Some(format) = &self.output {
            // One deployment is itself, several are a list.
            let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
            printing::write_value(&mut io::stdout().lock(), format, &value)?;
        }
        Failure::collect(short)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The deployment's model, of the files or of the API, and the outline of its file.
    async fn model_of(
        &self,
        connection: &Connection,
        deployment: &InferenceDeployment,
        models: &[Model],
    ) -> Result<(Model, Manifest), Failure> {
        let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
        let name = &deployment.spec.model;
        let is_meant = |model: &&Model| {
            model.metadata.name.as_ref() == Some(name) && model.metadata.namespace.as_ref() == Some(&namespace)
        };
        let model = match models.iter().find(is_meant) {
            Some(model) => model.clone(),
            None => {
                let path = format!(
                    "/apis/{GROUP}/{VERSION}/namespaces/{}/models/{}",
                    path_segment(&namespace),
                    path_segment(name)
                );
                let found = connection.server.get(&path).await?;
                serde_json::from_value(found).map_err(|error| Failure::Request(format!("model {name}: {error}")))?
            }
        };
        let path = path_of_model(&model).map_err(|error| Failure::Request(format!("model {name}: {error}")))?;
        let outline = outline(&path).map_err(|detail| Failure::Request(format!("model {name}: {detail}")))?;
        Ok((model, outline))
    }
}

fn outline(path: &Path) -> Result<Manifest, String> {
    let is_here = SourceFiles::named_by(path).is_ok_and(|files| files.iter().any(|file| file.exists()));
    if !is_here {
        return Err(format!(
            "its file {} is not on this machine, and its header is what a plan is made of: run this where the controller runs, \
             or bring the file here with `polyctl model import`",
            path.display()
        ));
    }
    Manifest::outline(path).map_err(|error| error.to_string())
}

/// The object as the server would store it, defaults and all; nothing is stored.
async fn checked(
    connection: &Connection,
    catalogue: &Catalogue,
    asked_namespace: Option<&str>,
    document: &Document,
) -> Result<Value, Failure> {
    let resource =
        catalogue.find_kind(document.api_version(), document.kind()).map_err(|unknown| unmapped(document, &unknown))?;
    let namespace = namespace_of(document, resource, asked_namespace, &connection.namespace)?;
    let mut object = document.object.clone();
    if resource.namespaced {
        object["metadata"]["namespace"] = namespace.as_str().into();
    }
    let parameters = [
        ("fieldManager", Some("polyctl")),
        ("fieldValidation", Some("Strict")),
        ("force", Some("true")),
        ("dryRun", Some("All")),
    ];
    let path = with_query(&resource.object_path(&namespace, document.name()), &parameters);
    match connection.server.apply(&path, &object).await {
        Ok((_, object)) => Ok(object),
        Err(failure) => Err(told_with_places(connection, resource, document, failure).await),
    }
}

fn typed<T: DeserializeOwned>(object: Value, document: &Document) -> Result<T, Failure> {
    serde_json::from_value(object).map_err(|error| {
        Failure::Request(format!("{}: this version of polyctl cannot read it: {error}", document.place_of("kind")))
    })
}

/// All objects of a kind; one that a newer server wrote otherwise is left out.
async fn read<T: DeserializeOwned>(connection: &Connection, plural: &str) -> Result<Vec<T>, Failure> {
    let objects = connection.server.list(&format!("/apis/{GROUP}/{VERSION}/{plural}")).await?;
    Ok(objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect())
}
