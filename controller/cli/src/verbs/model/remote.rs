//! `model import` of a source that is elsewhere: the controller fetches it, and this shows how far that is.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use polyphony_api::ModelSource;
use polyphony_api::model_source::{HubSource, Pick};
use polyphony_journal::tell;
use serde_json::{Value, json};

use super::{models_path, name_of_file, object};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::terminal;

/// As long as `wait` waits at most.
const A_WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is to be imported.
pub(super) struct Remote {
    pub source: ModelSource,
    pub name: String,
    /// `NAME` or `NAME/KEY` of a Secret.
    pub token_secret: Option<String>,
    pub waits: bool,
}

/// What a Model's status says, as far as this shows it.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    status: String,
    reason: String,
    message: String,
    bytes: u64,
    total: Option<u64>,
    file: String,
}

// === impl Remote ===

impl Remote {
    /// Creates the Model, and waits until it is verified or refused.
    ///
    /// # Errors
    /// When there is another Model of the name, and with the reason why it is refused.
    pub(super) async fn import(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let collection = models_path(&connection.namespace);
        let mut spec = json!({"source": self.source.to_string()});
        if let Some(secret) = &self.token_secret {
            let (name, key) = secret.split_once('/').unwrap_or((secret, "token"));
            spec["tokenSecretRef"] = json!({"name": name, "key": key});
        }
        let existing = connection.server.find(&object::path_of(connection, &self.name)).await?;
        object::make(connection, &self.name, &spec, existing).await?;
        if self.waits {
            self.wait(connection, &collection).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn wait(&self, connection: &Connection, collection: &str) -> anyhow::Result<()> {
        let screen = Screen::new();
        let mut said = String::new();
        let decide = |object: Option<&Value>| {
            let Some(object) = object else { return Some(Err("it was deleted meanwhile".to_owned())) };
            let shown = Shown::of(object);
            screen.show(&shown, &mut said);
            match shown.status.as_str() {
                "True" => Some(Ok(object.clone())),
                "False" => Some(Err(format!("{}: {}", shown.reason, shown.message))),
                _ => None,
            }
        };
        let outcome = connection.server.until(collection, &self.name, Instant::now() + A_WEEK, decide).await;
        screen.bar.finish_and_clear();
        let model = match outcome? {
            Some(Ok(model)) => model,
            Some(Err(why)) => return Err(Failure::Request(format!("model {:?}: {why}", self.name)).into()),
            None => return Err(Failure::Request(format!("model {:?} is still not verified", self.name)).into()),
        };
        let status = &model["status"];
        let commit = status["commit"].as_str().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        tell!(
            "{}: {} with {} layers, {}{commit}; kept as {}",
            self.name,
            status["architecture"].as_str().unwrap_or("a model"),
            status["layers"],
            status["size"].as_str().unwrap_or_default(),
            status["path"].as_str().unwrap_or_default()
        );
        Ok(())
    }
}

// === impl Shown ===

impl Shown {
    fn of(model: &Value) -> Self {
        let status = &model["status"];
        let conditions = status["conditions"].as_array();
        let resolved = conditions.into_iter().flatten().find(|condition| condition["type"] == "Resolved");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let of = |field: &str| text(resolved.and_then(|resolved| resolved.get(field)));
        Self {
            status: of("status"),
            reason: of("reason"),
            message: of("message"),
            bytes: status["progress"]["bytes"].as_u64().unwrap_or(0),
            total: status["progress"]["totalBytes"].as_u64(),
            file: text(status["progress"].get("file")),
        }
    }
}

/// A bar on a terminal; lines elsewhere.
struct Screen {
    bar: ProgressBar,
    is_terminal: bool,
}

// === impl Screen ===

impl Screen {
    fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(1) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:32}] {bytes} of {total_bytes}  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, is_terminal }
    }

    /// `said` is the last line that was printed.
    fn show(&self, shown: &Shown, said: &mut String) {
        if self.is_terminal {
            // What is there stays there while it is read.
            if shown.bytes > 0 || shown.total.is_some() {
                let length = shown.total.unwrap_or(shown.bytes).max(1);
                self.bar.update(|state| {
                    state.set_len(length);
                    state.set_pos(shown.bytes);
                });
            }
            self.bar.set_prefix(if shown.reason.is_empty() { "Waiting".to_owned() } else { shown.reason.clone() });
            let is_troubled =
                !["Resolving", "Downloading", "Verifying", "Verified", ""].contains(&shown.reason.as_str());
            let message = if is_troubled { &shown.message } else { &shown.file };
            self.bar.set_message(terminal::line(message).into_owned());
            return;
        }
        let line = format!("{}: {}", shown.reason, shown.message);
        if shown.status == "Unknown" && *said != line {
            tell!("{}", terminal::line(&line));
            *said = line;
        }
    }
}

/// A name for the Model of a source that is elsewhere: that of the repository without `-GGUF`, and what was picked.
pub(super) fn name_of(source: &ModelSource) -> Option<String> {
    let text = match source {
        ModelSource::Hub(HubSource { name, pick, .. }) => {
            let is_gguf = name.get(name.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case("-gguf"));
            let name = if is_gguf { &name[..name.len() - 5] } else { name };
            match pick {
                Pick::Usual => name.to_owned(),
                Pick::Quantisation(word) => format!("{name}.{word}"),
                Pick::File(path) => path.rsplit('/').next().unwrap_or_default().to_owned(),
            }
        }
        ModelSource::Https(url) => {
            let path = url.split('?').next().unwrap_or_default();
            path.rsplit('/').next().unwrap_or_default().to_owned()
        }
        ModelSource::File(_) | ModelSource::Cache(_) => return None,
    };
    name_of_file(&text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_gives_its_model_a_name() {
        for (source, name) in [
            ("hf://unsloth/gemma-3-270m-it-GGUF:Q4_K_M", "gemma-3-270m-it.q4-k-m"),
            ("hf://o/Name_2@v1", "name-2"),
            ("hf://o/n:sub/M-Q8_0.gguf", "m-q8-0"),
            ("https://h/a/M-Q8_0.gguf?download=1", "m-q8-0"),
        ] {
            assert_eq!(name_of(&ModelSource::parse(source).unwrap()).as_deref(), Some(name), "{source}");
        }
    }

    #[test]
    fn a_status_is_shown_by_its_condition_and_its_bytes() {
        let model = json!({"status": {"progress": {"bytes": 5, "totalBytes": 9, "file": "m.gguf", "shown": "55% of 9"},
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Resolved", "status": "Unknown", "reason": "Downloading", "message": "m"}]}});
        let shown = Shown::of(&model);
        assert_eq!(
            (shown.status.as_str(), shown.reason.as_str(), shown.bytes, shown.total),
            ("Unknown", "Downloading", 5, Some(9))
        );
        assert_eq!(Shown::of(&json!({})), Shown::default());
    }
}
