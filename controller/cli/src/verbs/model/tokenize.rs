//! `model tokenize`: texts from standard input to tokens, and back to the text that these stand for.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueHint};
use polyphony_model::{Tokenized, Tokenizer, text_of_line};

use super::place;
use crate::connection::ClusterFlags;
use crate::failure::Failure;
use crate::printing::{self, Format};

const EXAMPLES: &str = "Examples:
  echo '\"Hello, world\"' | polyctl model tokenize smollm2
  polyctl model tokenize model.gguf --add-special -o json < texts.jsonl";

/// Show the tokens of texts, one a line in JSON, from standard input.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tokenize {
    /// A GGUF file, with or without tensors, a tokenizer.json or the folder of one, or the name of a Model
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    of: String,
    /// Take the names of control tokens in the texts as these tokens
    #[arg(long)]
    special: bool,
    /// Put the tokens there that the model wants before and after a text
    #[arg(long)]
    add_special: bool,
    /// json: one object a line
    #[arg(short, long, value_name = "FORMAT", value_parser = printing::parse_format)]
    output: Option<Format>,
}

// === impl Tokenize ===

impl Tokenize {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let is_json = match &self.output {
            None => false,
            Some(Format::Json) => true,
            Some(_) => return Err(Failure::Request("--output must be 'json'".into()).into()),
        };
        let path = place::path_of(&self.of, cluster).await?;
        let tokenizer = open(&path)?;
        let mut out = io::stdout().lock();
        for (idx, line) in io::stdin().lock().lines().enumerate() {
            let line = line.context("reading standard input")?;
            if line.trim().is_empty() {
                continue;
            }
            let at = || format!("line {} of standard input", idx + 1);
            let text = text_of_line(&line).with_context(at)?;
            let tokenized = Tokenized::new(&tokenizer, text, self.special, self.add_special).with_context(at)?;
            if is_json {
                writeln!(out, "{}", serde_json::to_string(&tokenized)?)?;
            } else {
                let ids: Vec<String> = tokenized.ids.iter().map(u32::to_string).collect();
                writeln!(out, "{}\t{}", ids.join(" "), serde_json::to_string(&tokenized.decoded)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn open(path: &Path) -> anyhow::Result<Tokenizer> {
    // The folder of a model in parts has none, and one with a tokenizer alone has no model.
    let json = Some(path.join("tokenizer.json")).filter(|json| json.exists()).unwrap_or(path.to_owned());
    if json.extension().is_none_or(|extension| extension != "json") {
        return Ok(Tokenizer::open(path)?);
    }
    let at = || json.display().to_string();
    let tokenizer = std::fs::read(&json).with_context(at)?;
    // Beside it, where there is one.
    let config = std::fs::read(json.with_file_name("tokenizer_config.json")).ok();
    Tokenizer::from_json(&tokenizer, config.as_deref()).with_context(at)
}
