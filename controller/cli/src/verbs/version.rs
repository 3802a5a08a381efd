//! `version`: of this program and of the server.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::connection::ClusterFlags;
use crate::failure::Failure;
use crate::printing::{self, Format};
use crate::terminal;

/// Show the versions of this program and of the server.
#[derive(Debug, Args)]
pub struct Version {
    /// Of this program only
    #[arg(long)]
    client: bool,
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT", value_parser = printing::parse_format)]
    output: Option<Format>,
}

// === impl Version ===

impl Version {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let own = concat!("v", env!("CARGO_PKG_VERSION"));
        let server = if self.client { Ok(None) } else { server_version(&cluster).await.map(Some) };
        let mut out = io::stdout().lock();
        match &self.output {
            Some(format @ (Format::Json | Format::Yaml | Format::JsonPath(_))) => {
                let mut versions = json!({"clientVersion": {"gitVersion": own}});
                if let Ok(Some(server)) = &server {
                    versions["serverVersion"] = server.clone();
                }
                printing::write_value(&mut out, format, &versions)?;
            }
            Some(_) => return Err(Failure::Request("--output must be 'yaml' or 'json'".into()).into()),
            None => {
                writeln!(out, "Client Version: {own}")?;
                if let Ok(Some(server)) = &server {
                    let version = server["gitVersion"].as_str().unwrap_or("unknown");
                    writeln!(out, "Server Version: {}", terminal::line(version))?;
                }
            }
        }
        server?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn server_version(cluster: &ClusterFlags) -> anyhow::Result<Value> {
    Ok(cluster.connect().await?.server.get("/version").await?)
}
