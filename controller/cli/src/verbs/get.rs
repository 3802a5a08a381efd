//! `get`: objects as the server's table, or whole.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use kube::core::WatchEvent;
use polyphony_journal::tell;
use polyphony_jsonpath::Path;
use serde_json::Value;

use crate::connection::{ClusterFlags, Connection};
use crate::discovery::{Catalogue, Resource};
use crate::failure::Failure;
use crate::filters::Filters;
use crate::printing::{self, Format};
use crate::selection::{Selection, select};
use crate::server::{JSON, TABLE, with_query};
use crate::table::{Table, View};
use crate::verbs::completion;

/// Show objects: `get phones`, `get infer smollm2 -o yaml`, `get polyphony -o wide`, `get segmentplacements -w`.
#[derive(Debug, Args)]
pub struct Get {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…
    #[arg(value_name = "TYPE [NAME]", add = completion::objects())]
    words: Vec<String>,
    /// wide, json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", value_parser = printing::parse_format)]
    output: Option<Format>,
    /// After the list, show changes until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Show changes without the list first
    #[arg(long)]
    watch_only: bool,
    /// With -w, show the kind of each change
    #[arg(long)]
    output_watch_events: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    filters: Filters,
    /// Order by this path, such as `.metadata.creationTimestamp`
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<Path>,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Without the headers
    #[arg(long)]
    no_headers: bool,
    /// With the kind before each name
    #[arg(long)]
    show_kind: bool,
    /// With a column of labels
    #[arg(long)]
    show_labels: bool,
    /// With managedFields in yaml and json
    #[arg(long)]
    show_managed_fields: bool,
}

// === impl Get ===

impl Get {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let selections = select("get", &self.words, &catalogue)?;
        let named = selections.iter().any(|selection| !selection.names.is_empty());
        if named && self.filters.restrict() {
            return Err(Failure::Request("name cannot be provided when a selector is specified".into()).into());
        }
        if named && self.all_namespaces {
            return Err(Failure::Request("a resource cannot be retrieved by name across all namespaces".into()).into());
        }
        if self.watch || self.watch_only {
            let [selection] = selections.as_slice() else {
                return Err(Failure::Request("you may only specify a single resource type with --watch".into()).into());
            };
            if selection.names.len() > 1 {
                return Err(Failure::Request("you may only watch one name, or all of them".into()).into());
            }
            return self.watch(&connection, selection).await;
        }
        match self.format() {
            Format::Table { wide } => self.print_tables(&connection, &selections, wide).await,
            format => self.print_objects(&connection, &selections, &format).await,
        }
    }

    fn format(&self) -> Format {
        self.output.clone().unwrap_or(Format::Table { wide: false })
    }

    async fn print_tables(
        &self,
        connection: &Connection,
        selections: &[Selection],
        wide: bool,
    ) -> anyhow::Result<ExitCode> {
        let (mut printed, mut failures) = (0, Vec::new());
        for selection in selections {
            let resource = &selection.resource;
            let mut table = Table::new(self.view(resource, wide, selections.len() > 1));
            for path in self.paths(connection, selection) {
                let include = self.sort_by.as_ref().map(|_| "Object");
                match connection.server.get_table(&with_query(&path, &[("includeObject", include)])).await {
                    Ok(mut answer) => {
                        self.sort(&mut answer);
                        table.add(&answer);
                    }
                    Err(failure) if failure.is_not_found() && self.ignore_not_found => {}
                    Err(failure) => failures.push(failure),
                }
            }
            if table.rows.is_empty() {
                continue;
            }
            let mut out = io::stdout().lock();
            if printed > 0 {
                writeln!(out)?;
            }
            write!(out, "{}", table.render(!self.no_headers))?;
            printed += 1;
        }
        if printed == 0 && failures.is_empty() && !self.ignore_not_found {
            let namespaced = selections.iter().any(|selection| selection.resource.namespaced);
            if namespaced && !self.all_namespaces {
                tell!("No resources found in {} namespace.", connection.namespace);
            } else {
                tell!("No resources found");
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn print_objects(
        &self,
        connection: &Connection,
        selections: &[Selection],
        format: &Format,
    ) -> anyhow::Result<ExitCode> {
        let (mut objects, mut failures) = (Vec::new(), Vec::new());
        for selection in selections {
            for path in self.paths(connection, selection) {
                let mut answer = match connection.server.get(&path).await {
                    Ok(answer) => answer,
                    Err(failure) if failure.is_not_found() && self.ignore_not_found => continue,
                    Err(failure) => {
                        failures.push(failure);
                        continue;
                    }
                };
                self.sort(&mut answer);
                let items = answer.get_mut("items").filter(|_| selection.names.is_empty()).map(Value::take);
                let found = match items {
                    Some(Value::Array(items)) => items,
                    _ => vec![answer],
                };
                let finished = found
                    .into_iter()
                    .map(|object| printing::for_people(object, &selection.resource, self.show_managed_fields));
                objects.extend(finished.map(|object| (&selection.resource, object)));
            }
        }
        let one = matches!(selections, [Selection { names, .. }] if names.len() == 1);
        let mut out = io::stdout().lock();
        match objects.as_slice() {
            [] if one => {}
            [(resource, object)] if one => printing::write_object(&mut out, format, resource, object)?,
            _ if *format == Format::Name => {
                for (resource, object) in &objects {
                    printing::write_object(&mut out, format, resource, object)?;
                }
            }
            _ => {
                let list = printing::list_of(objects.into_iter().map(|(_, object)| object).collect());
                printing::write_object(&mut out, format, &selections[0].resource, &list)?;
            }
        }
        Failure::collect(failures)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows the list, then every change; starts over where the server has forgotten the version or ended the stream.
    async fn watch(&self, connection: &Connection, selection: &Selection) -> anyhow::Result<ExitCode> {
        let resource = &selection.resource;
        let format = self.format();
        let table_form = matches!(format, Format::Table { .. });
        let mut screen = Screen::new(self, resource, format);
        let collection = resource.collection_path(self.scope(connection));
        let by_name = selection.names.first().map(|name| format!("metadata.name={name}"));
        let [labels, (_, fields)] = self.filters.parameters();
        let filters = [labels, ("fieldSelector", by_name.as_deref().or(fields))];
        if let Some(name) = selection.names.first() {
            // A name that does not exist is an error here too.
            connection.server.get(&resource.object_path(&connection.namespace, name)).await?;
        }
        let accept = if table_form { TABLE } else { JSON };
        let list = connection.server.get_as(&with_query(&collection, &filters), accept).await?;
        let mut version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        screen.show_list(&list, self.watch_only)?;
        loop {
            let mut parameters = vec![
                ("watch", Some("true")),
                ("allowWatchBookmarks", Some("true")),
                ("resourceVersion", Some(version.as_str())),
            ];
            parameters.extend(filters);
            let events = connection.server.watch(&with_query(&collection, &parameters), accept).await?;
            let mut events = std::pin::pin!(events);
            let mut newest = None;
            while let Some(event) = events.next().await {
                let (kind, object) = match event? {
                    WatchEvent::Added(object) => ("ADDED", object),
                    WatchEvent::Modified(object) => ("MODIFIED", object),
                    WatchEvent::Deleted(object) => ("DELETED", object),
                    WatchEvent::Bookmark(bookmark) => {
                        newest = Some(bookmark.metadata.resource_version);
                        continue;
                    }
                    WatchEvent::Error(status) if status.code == 410 => {
                        let list = connection.server.get_as(&with_query(&collection, &filters), accept).await?;
                        newest = list["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                        break;
                    }
                    WatchEvent::Error(status) => return Err(Failure::Server(status).into()),
                };
                let of_row = &object["rows"][0]["object"]["metadata"]["resourceVersion"];
                newest =
                    of_row.as_str().or(object["metadata"]["resourceVersion"].as_str()).map(str::to_owned).or(newest);
                screen.show_event(kind, object)?;
            }
            if let Some(newest) = newest {
                version = newest;
            }
        }
    }

    fn view(&self, resource: &Resource, wide: bool, several_kinds: bool) -> View {
        View {
            wide,
            with_namespace: self.all_namespaces && (resource.namespaced || several_kinds),
            with_labels: self.show_labels,
            kind_prefix: (several_kinds || self.show_kind).then(|| resource.singular_name()),
        }
    }

    fn scope<'a>(&self, connection: &'a Connection) -> Option<&'a str> {
        (!self.all_namespaces).then_some(connection.namespace.as_str())
    }

    /// One path a name, or that of the filtered collection.
    fn paths(&self, connection: &Connection, selection: &Selection) -> Vec<String> {
        if selection.names.is_empty() {
            let path = selection.resource.collection_path(self.scope(connection));
            let filters = self.filters.parameters();
            return vec![with_query(&path, &filters)];
        }
        selection.names.iter().map(|name| selection.resource.object_path(&connection.namespace, name)).collect()
    }

    fn sort(&self, answer: &mut Value) {
        let Some(path) = &self.sort_by else { return };
        let key = |object: &Value| {
            path.find(object).first().map(|value| (value.as_f64().unwrap_or(f64::MAX), (*value).clone()))
        };
        let compare = |left: &Value, right: &Value| match (key(left), key(right)) {
            (Some((left, left_text)), Some((right, right_text))) => {
                left.total_cmp(&right).then_with(|| left_text.to_string().cmp(&right_text.to_string()))
            }
            (left, right) => left.is_some().cmp(&right.is_some()),
        };
        if let Some(rows) = answer["rows"].as_array_mut() {
            rows.sort_by(|left, right| compare(&left["object"], &right["object"]));
        } else if let Some(items) = answer["items"].as_array_mut() {
            items.sort_by(compare);
        }
    }
}

/// What a watch has on the screen.
struct Screen<'a> {
    verb: &'a Get,
    resource: &'a Resource,
    format: Format,
    table: Table,
    has_headers: bool,
}

// === impl Screen ===

impl<'a> Screen<'a> {
    fn new(verb: &'a Get, resource: &'a Resource, format: Format) -> Self {
        let wide = format == Format::Table { wide: true };
        let table = Table::new(verb.view(resource, wide, false));
        Self { verb, resource, format, table, has_headers: verb.no_headers }
    }

    fn show_list(&mut self, list: &Value, skip: bool) -> io::Result<()> {
        if let Format::Table { .. } = self.format {
            self.table.add(list);
            if skip {
                self.table.rows.clear();
            }
            return self.flush("ADDED");
        }
        if !skip {
            for object in list["items"].as_array().into_iter().flatten() {
                self.show_event("ADDED", object.clone())?;
            }
        }
        Ok(())
    }

    fn show_event(&mut self, kind: &str, object: Value) -> io::Result<()> {
        if let Format::Table { .. } = self.format {
            self.table.add(&object);
            return self.flush(kind);
        }
        let object = printing::for_people(object, self.resource, self.verb.show_managed_fields);
        let mut out = io::stdout().lock();
        if self.format == Format::Yaml {
            writeln!(out, "---")?;
        }
        printing::write_object(&mut out, &self.format, self.resource, &object)?;
        out.flush()
    }

    fn flush(&mut self, kind: &str) -> io::Result<()> {
        if self.table.rows.is_empty() {
            return Ok(());
        }
        let text = self.table.render(!self.has_headers);
        let mut out = io::stdout().lock();
        for (idx, line) in text.lines().enumerate() {
            if self.verb.output_watch_events {
                let first = if idx == 0 && !self.has_headers { "EVENT" } else { kind };
                write!(out, "{first:<11}")?;
            }
            writeln!(out, "{line}")?;
        }
        self.has_headers = true;
        out.flush()
    }
}
