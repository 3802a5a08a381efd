//! `api-resources`: the kinds that the server has.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::connection::ClusterFlags;
use crate::discovery::{Catalogue, Resource};
use crate::table::align;

/// Show the kinds that the server has, with their short names.
#[derive(Debug, Args)]
pub struct ApiResources {
    /// wide or name
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Form>,
    /// Only those of this group; '' is the core group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Only those that live in namespaces, or with =false that do not
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only those with all of these verbs
    #[arg(long, value_name = "VERBS", value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only those in all of these categories
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',')]
    categories: Vec<String>,
    /// Order by name or kind instead of by group
    #[arg(long, value_name = "FIELD")]
    sort_by: Option<Order>,
    /// Without the headers
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Form {
    Wide,
    Name,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Order {
    Name,
    Kind,
}

// === impl ApiResources ===

impl ApiResources {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let catalogue = Catalogue::fetch(&cluster.connect().await?.server).await?;
        let mut resources: Vec<&Resource> =
            catalogue.all().into_iter().filter(|resource| self.shows(resource)).collect();
        match self.sort_by {
            Some(Order::Name) => resources.sort_by(|left, right| left.plural.cmp(&right.plural)),
            Some(Order::Kind) => resources.sort_by(|left, right| left.kind.cmp(&right.kind)),
            None => {}
        }
        write!(io::stdout().lock(), "{}", self.text(&resources))?;
        Ok(ExitCode::SUCCESS)
    }

    fn shows(&self, resource: &Resource) -> bool {
        self.api_group.as_ref().is_none_or(|group| *group == resource.group)
            && self.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
            && self.verbs.iter().all(|verb| resource.can(verb))
            && self.categories.iter().all(|category| resource.categories.contains(category))
    }

    fn text(&self, resources: &[&Resource]) -> String {
        if self.output == Some(Form::Name) {
            return resources.iter().map(|resource| format!("{}\n", resource.plural_name())).collect();
        }
        let wide = self.output == Some(Form::Wide);
        let mut lines = Vec::new();
        if !self.no_headers {
            let mut headers = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
            if wide {
                headers.extend(["VERBS", "CATEGORIES"]);
            }
            lines.push(headers.into_iter().map(str::to_owned).collect());
        }
        for resource in resources {
            let mut line = vec![
                resource.plural.clone(),
                resource.short_names.join(","),
                resource.api_version(),
                resource.namespaced.to_string(),
                resource.kind.clone(),
            ];
            if wide {
                line.extend([resource.verbs.join(","), resource.categories.join(",")]);
            }
            lines.push(line);
        }
        align(&lines, &mut Vec::new(), 6, 3)
    }
}
