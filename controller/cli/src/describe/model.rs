//! A model: its source, and what the host found there.

use polyphony_api::Model;

use super::layout::{Layout, mebibytes};
use super::{Story, events};

pub(super) fn write(layout: &mut Layout, model: &Model, story: &Story) {
    let status = model.status.clone().unwrap_or_default();
    layout.metadata(&model.metadata);
    layout.field("Source", &model.spec.source);
    layout.field_if("SHA-256", model.spec.sha256.as_deref());
    let token = model.spec.token_secret_ref.as_ref().map(|of| format!("{:?} of Secret {}", of.key, of.name));
    layout.field_if("Token", token);
    layout.field_if("Commit", status.commit);
    let progress = status.progress.map(|progress| match progress.file {
        Some(file) => format!("{}, now {file}", progress.shown),
        None => progress.shown,
    });
    layout.field_if("Progress", progress);
    layout.field_if("Path", status.path);
    layout.field_if("Architecture", status.architecture);
    layout.field_if("Size", status.size);
    layout.field_if("Layers", status.layers);
    let extremes = status.layer_bytes.iter().min().zip(status.layer_bytes.iter().max());
    layout.field_if("Bytes A Layer", extremes.map(|(least, most)| layer_range(*least, *most)));
    layout.field_if("Context Length", status.context_length.map(|tokens| format!("{tokens} tokens")));
    layout.field_if("Manifest Digest", status.manifest_digest);
    layout.conditions(&status.conditions, story.now);
    events::write(layout, story.events, model.metadata.name.as_deref().unwrap_or_default(), story.now);
}

fn layer_range(least: u64, most: u64) -> String {
    if least == most { mebibytes(least) } else { format!("{} to {}", mebibytes(least), mebibytes(most)) }
}
