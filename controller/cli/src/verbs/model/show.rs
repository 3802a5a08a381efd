//! `model show`: what the headers of a model's files say: architecture, tokens, template, types of weights, memory by layer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueHint};
use polyphony_model::{Card, Manifest, SourceFiles, TensorEntry, TextSide, Tokenizer};
use serde_json::{Value, json};

use super::place;
use crate::connection::ClusterFlags;
use crate::describe::layout::{Layout, mebibytes};
use crate::failure::Failure;
use crate::printing::{self, Format};

/// Lines of a template that are shown.
const TEMPLATE_LINES: usize = 12;
/// And characters of each.
const TEMPLATE_WIDTH: usize = 100;

/// Show what a model is made of, from the headers of its files.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// A GGUF file, a folder with config.json and safetensors, or the name of a Model
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    of: String,
    /// json: one object
    #[arg(short, long, value_name = "FORMAT", value_parser = printing::parse_format)]
    output: Option<Format>,
}

/// Tensors of one kind and type.
#[derive(Debug, Default, PartialEq)]
struct Group {
    n_tensors: usize,
    n_bytes: u64,
}

// === impl Show ===

impl Show {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let is_json = match &self.output {
            None => false,
            Some(Format::Json) => true,
            Some(_) => return Err(Failure::Request("--output must be 'json'".into()).into()),
        };
        let path = place::path_of(&self.of, cluster).await?;
        let files = SourceFiles::open(&path)?;
        let manifest = Manifest::outline(&path)?;
        let card = Card::from_gguf(&files.header);
        let text = TextSide::of(&files, &manifest.hyperparameters).with_context(|| path.display().to_string())?;
        let source = template_source(&files);
        let mut out = io::stdout().lock();
        match is_json {
            true => {
                serde_json::to_writer_pretty(&mut out, &as_json(&path, &manifest, &card, &text, source.as_deref()))?;
                writeln!(out)?;
            }
            false => write!(out, "{}", for_people(&path, &manifest, &card, &text, source.as_deref()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn for_people(path: &Path, manifest: &Manifest, card: &Card, text: &TextSide, template: Option<&str>) -> String {
    let of = &manifest.hyperparameters;
    let mut layout = Layout::default();
    layout.field("Path", path.display());
    layout.field_if("Name", card.name.as_deref());
    layout.field_if("Licence", card.licence.as_deref());
    layout.field("Files", format!("{}, {}", manifest.files.len(), mebibytes(manifest.file_bytes())));
    layout.field("Architecture", of.architecture);
    layout.field("Parameters", format!("{:.1} million", card.n_parameters as f64 / 1e6));
    layout.field("Layers", of.n_layers);
    layout.field("Context Length", format!("{} tokens", of.context_length));
    layout.field("Hidden Size", of.hidden_size);
    layout.field("Heads", format!("{} of {} values, {} for keys and values", of.n_heads, of.head_size, of.n_kv_heads));
    layout.field("Feed-Forward Size", of.ffn_size);
    let tokenizer = &text.tokenizer;
    layout.field("Tokens", format!("{} of {} rows", tokenizer.n_vocab(), of.vocab_size));
    layout.field_if("Begin", tokenizer.bos().map(|token| shown_token(tokenizer, token)));
    layout.field_if("Begins Every Text", tokenizer.add_bos().then_some("yes"));
    let ends: Vec<String> = tokenizer.end_tokens().iter().map(|token| shown_token(tokenizer, *token)).collect();
    layout.field("Ends An Answer", if ends.is_empty() { "<none>".to_owned() } else { ends.join(", ") });
    match (&text.template, template) {
        (None, _) => layout.field("Chat Template", "<none>: it completes texts, and takes no chats"),
        (Some(_), source) => {
            let source = source.unwrap_or_default();
            layout.field("Chat Template", format!("{} characters", source.chars().count()));
            let mut lines = source.lines();
            for line in lines.by_ref().take(TEMPLATE_LINES) {
                let line: String = line.chars().filter(|c| !c.is_control()).take(TEMPLATE_WIDTH).collect();
                layout.line(1, &line);
            }
            let n_more = lines.count();
            if n_more > 0 {
                layout.line(1, &format!("… and {n_more} lines more: -o json has them all"));
            }
        }
    }
    let rows = groups(manifest).into_iter().map(|((group, of_type), found)| {
        vec![group.to_owned(), of_type, found.n_tensors.to_string(), mebibytes(found.n_bytes)]
    });
    layout.table("Types", &["Tensors", "Type", "Number", "Memory"], rows.collect());
    let rows = parts(manifest).into_iter().map(|(part, each, all)| vec![part, mebibytes(each), mebibytes(all)]);
    layout.table("Memory", &["Part", "Each", "All"], rows.collect());
    layout.finish()
}

fn as_json(path: &Path, manifest: &Manifest, card: &Card, text: &TextSide, template: Option<&str>) -> Value {
    let of = &manifest.hyperparameters;
    let tokenizer = &text.tokenizer;
    let types: Vec<Value> = groups(manifest)
        .into_iter()
        .map(|((group, of_type), found)| json!({"tensors": group, "type": of_type, "number": found.n_tensors, "bytes": found.n_bytes}))
        .collect();
    let layer_bytes: Vec<u64> = (0..of.n_layers).map(|layer| manifest.layer_bytes(layer)).collect();
    json!({
        "path": path, "card": card, "hyperparameters": of, "files": manifest.files.iter().map(|file| &file.name).collect::<Vec<_>>(),
        "fileBytes": manifest.file_bytes(), "types": types, "layerBytes": layer_bytes,
        "tokens": {"count": tokenizer.n_vocab(), "begin": tokenizer.bos(), "beginsEveryText": tokenizer.add_bos(), "ends": tokenizer.end_tokens()},
        "chatTemplate": template.filter(|_| text.template.is_some()),
    })
}

/// The template's own text: the compiled one does not keep it.
fn template_source(files: &SourceFiles) -> Option<String> {
    let of_header = || {
        let keys = ["tokenizer.chat_template", "tokenizer.chat_template.default", "tokenizer.chat_template.tool_use"];
        keys.iter().find_map(|key| files.header.metadata.optional_string(key).ok().flatten().map(str::to_owned))
    };
    let Some(text) = &files.text else { return of_header() };
    let of_config = || {
        let config: Value = serde_json::from_slice(text.config.as_deref()?).ok()?;
        match &config["chat_template"] {
            Value::String(template) => Some(template.clone()),
            Value::Array(several) => several.first()?["template"].as_str().map(str::to_owned),
            _ => None,
        }
    };
    text.template.clone().or_else(of_config)
}

fn shown_token(tokenizer: &Tokenizer, token: u32) -> String {
    format!("{token} {:?}", String::from_utf8_lossy(tokenizer.token_bytes(token)))
}

/// Tensors by what they do and how they are stored, in the order of a pass through the model.
fn groups(manifest: &Manifest) -> Vec<((&'static str, String), Group)> {
    let mut groups: BTreeMap<(usize, &'static str, String), Group> = BTreeMap::new();
    for tensor in &manifest.tensors {
        let (order, name) = kind_of(tensor);
        let group = groups.entry((order, name, tensor.tensor_type.to_string())).or_default();
        group.n_tensors += 1;
        group.n_bytes += tensor.n_bytes;
    }
    groups.into_iter().map(|((_, name, of_type), group)| ((name, of_type), group)).collect()
}

/// By the names that all files have for such tensors, whatever their family.
fn kind_of(tensor: &TensorEntry) -> (usize, &'static str) {
    const KINDS: [&str; 8] =
        ["embedding", "attention", "feed-forward", "experts", "norms", "biases", "output", "others"];
    let name = tensor.name.rsplit_once("blk.").map_or(tensor.name.as_str(), |(_, rest)| rest);
    let name = name.split_once('.').filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(name, |(_, rest)| rest);
    let idx = if name.contains("norm") {
        4
    } else if name.ends_with(".bias") {
        5
    } else if name.starts_with("token_embd") || name.starts_with("position_embd") {
        0
    } else if name.contains("attn") {
        1
    } else if name.contains("exps") || name.contains("gate_inp") {
        3
    } else if name.starts_with("ffn") {
        2
    } else if name.starts_with("output") {
        6
    } else {
        7
    };
    (idx, KINDS[idx])
}

/// What a phone has to hold of the model: layers of one size together.
fn parts(manifest: &Manifest) -> Vec<(String, u64, u64)> {
    let of_whole = |is_wanted: fn(&str) -> bool| -> u64 {
        let tensors = manifest.tensors.iter().filter(|tensor| tensor.layer.is_none() && is_wanted(&tensor.name));
        tensors.map(|tensor| tensor.n_bytes).sum()
    };
    let is_embedding: fn(&str) -> bool = |name| name.contains("embd");
    let embedding = of_whole(is_embedding);
    let mut parts = vec![("embedding".to_owned(), embedding, embedding)];
    let n_layers = manifest.hyperparameters.n_layers;
    let mut from = 0;
    while from < n_layers {
        let each = manifest.layer_bytes(from);
        let n = (from..n_layers).take_while(|layer| manifest.layer_bytes(*layer) == each).count() as u32;
        let name = if n == 1 { format!("layer {from}") } else { format!("layers {from}-{}", from + n - 1) };
        parts.push((name, each, each * u64::from(n)));
        from += n;
    }
    let rest = of_whole(|name| !name.contains("embd"));
    parts.push(("rest".to_owned(), rest, rest));
    parts
}
