//! `explain`: what a kind and its fields mean, from the server's schema.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::connection::ClusterFlags;
use crate::discovery::Catalogue;
use crate::explain::{ExplainError, explain};
use crate::failure::Failure;
use crate::schema;
use crate::verbs::completion;

/// Explain a kind or a field: `explain infer`, `explain infer.spec.placement`, `explain phone --recursive`.
#[derive(Debug, Args)]
pub struct Explain {
    /// TYPE[.FIELD…]
    #[arg(value_name = "TYPE", add = completion::kinds())]
    subject: Option<String>,
    /// The fields below the fields too, without their descriptions
    #[arg(long)]
    recursive: bool,
    /// The version of the kind to explain, such as polyphony.dev/v1alpha1
    #[arg(long, value_name = "VERSION")]
    api_version: Option<String>,
}

// === impl Explain ===

impl Explain {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let Some(subject) = &self.subject else {
            let text = "You must specify the type of resource to explain. \
                        Use \"polyctl api-resources\" for a complete list of supported resources.";
            return Err(Failure::Request(text.into()).into());
        };
        let server = cluster.connect().await?.server;
        let catalogue = Catalogue::fetch(&server).await?;
        let (kind, fields) = subject.split_once('.').unwrap_or((subject, ""));
        // `phones.polyphony.dev` is a kind; `phone.spec` is a field of one.
        let (resource, path) = match catalogue.find(subject) {
            Ok(resource) if !fields.is_empty() => (resource, Vec::new()),
            _ => (catalogue.find(kind)?, fields.split('.').filter(|field| !field.is_empty()).collect()),
        };
        let mut resource = resource.clone();
        if let Some(api_version) = &self.api_version {
            let unknown = || {
                Failure::Request(format!("couldn't find resource for \"{api_version}, Resource={}\"", resource.plural))
            };
            resource = catalogue.find_kind(api_version, &resource.kind).map_err(|_| unknown())?.clone();
        }
        let document = schema::document(&server, &resource).await?;
        match explain(&document, &resource, &path, self.recursive) {
            Ok(text) => write!(io::stdout(), "{text}")?,
            Err(error) => {
                if let ExplainError::NoField { header, .. } = &error {
                    write!(io::stdout(), "{header}")?;
                }
                return Err(error.into());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
