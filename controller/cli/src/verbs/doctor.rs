//! `doctor`: what phones compute with, whether it answers as it should, and what is wrong with them.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use polyphony_api::{GROUP, Phone, VERSION};
use polyphony_selector::LabelSelector;

use crate::connection::ClusterFlags;
use crate::doctor::{backends, complaints};
use crate::phones::pick;
use crate::table::align;
use crate::verbs::completion;

/// Show what phones compute with, whether it gives known answers, and what is wrong: `doctor`, `doctor phone-1`. Fails where something is.
/// On a phone itself `polyphony-agent doctor` asks anew.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only these phones
    #[arg(value_name = "PHONE", add = completion::phones())]
    names: Vec<String>,
    /// Only phones with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
}

// === impl Doctor ===

impl Doctor {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let found = if self.names.is_empty() && self.selector.is_none() {
            connection.server.list(&format!("/apis/{GROUP}/{VERSION}/phones")).await?
        } else {
            pick(&connection, "doctor", &self.names, self.selector.as_ref()).await?.1
        };
        // One that a newer server wrote otherwise is left out.
        let phones: Vec<Phone> = found.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect();
        let (lines, complaints) = (backends(&phones), complaints(&phones));
        if phones.is_empty() {
            writeln!(io::stdout(), "No resources found")?;
            return Ok(ExitCode::SUCCESS);
        }
        write!(io::stdout(), "{}", align(&lines, &mut Vec::new(), 6, 3))?;
        if complaints.is_empty() {
            writeln!(io::stdout(), "\nnothing is wrong")?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(io::stdout(), "\n{}", complaints.join("\n"))?;
        Ok(ExitCode::FAILURE)
    }
}
