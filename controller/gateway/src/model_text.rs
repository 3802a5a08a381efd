//! Model text: the tokenizer and chat template of a model file, read once and kept for the next request.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use polyphony_model::{ChatTemplate, TextSide, TextStream, Tokenizer};
use tokio::sync::OnceCell;

use crate::stop::{Passed, StopMatcher};

/// What turns a model's text into tokens and back.
#[derive(Debug)]
pub(crate) struct ModelText {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// `None` of a model that is no chat model.
    pub(crate) template: Option<ChatTemplate>,
}

/// How log-probabilities name their tokens. Two tokens may have the same text; ids are always apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenNames {
    Text,
    /// `token_id:42`, as vLLM has it.
    Ids,
}

/// A model that is being read, or has been.
type Loading = Arc<OnceCell<Arc<ModelText>>>;

/// The latest models, by the digest of their manifests.
#[derive(Debug)]
pub(crate) struct ModelTexts {
    /// The latest used is the last.
    cached: Mutex<VecDeque<(String, Loading)>>,
    limit: usize,
}

// === impl ModelText ===

impl ModelText {
    fn load(path: &Path) -> Result<Self, String> {
        let TextSide { tokenizer, template } =
            TextSide::open(path).map_err(|error| format!("the model file {}: {error}", path.display()))?;
        Ok(Self { tokenizer: Arc::new(tokenizer), template })
    }

    /// A token's name as the client wants it.
    pub(crate) fn name_of(&self, token: u32, names: TokenNames) -> String {
        match names {
            TokenNames::Text => self.token_name(token),
            TokenNames::Ids => format!("token_id:{token}"),
        }
    }

    /// What a token looks like in a list of log-probabilities; bytes that are no whole character as `bytes:\xNN…`.
    pub(crate) fn token_name(&self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
        }
    }
}

// === impl ModelTexts ===

impl ModelTexts {
    /// Keeps at most `limit` models, and at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { cached: Mutex::default(), limit: limit.max(1) }
    }

    /// The text side of a model; the first request reads the file, others at that time wait for it.
    ///
    /// # Errors
    /// What is wrong with the file, in words. The next request tries again.
    pub(crate) async fn get(&self, digest: &str, path: PathBuf) -> Result<Arc<ModelText>, String> {
        let cell = self.cell(digest);
        let load = || async {
            let loading = tokio::task::spawn_blocking(move || ModelText::load(&path));
            let text = loading.await.map_err(|error| format!("reading the model file failed: {error}"))??;
            Ok::<_, String>(Arc::new(text))
        };
        cell.get_or_try_init(load).await.cloned()
    }

    /// The text side of a model that has been read before, whose file may be gone since.
    pub(crate) fn known(&self, digest: &str) -> Option<Arc<ModelText>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = cached.iter().position(|(known, _)| known == digest).and_then(|at| cached.remove(at))?;
        // What is used stays, above all where it could not be read again.
        let text = entry.1.get().cloned();
        cached.push_back(entry);
        text
    }

    /// Digests of the models that [`known`](Self::known) finds.
    pub(crate) fn all_known(&self) -> BTreeSet<String> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let read = cached.iter().filter(|(_, loading)| loading.get().is_some());
        read.map(|(digest, _)| digest.clone()).collect()
    }

    fn cell(&self, digest: &str) -> Loading {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cached.iter().position(|(known, _)| known == digest);
        let entry = known.and_then(|at| cached.remove(at)).unwrap_or_else(|| (digest.to_owned(), Arc::default()));
        let cell = Arc::clone(&entry.1);
        if cached.len() >= self.limit {
            cached.pop_front();
        }
        cached.push_back(entry);
        cell
    }
}

/// One answer's text as its tokens come: whole characters, and nothing of a stop string.
#[derive(Debug)]
pub(crate) struct AnswerText {
    stream: TextStream,
    stops: StopMatcher,
}

// === impl AnswerText ===

impl AnswerText {
    pub(crate) fn new(model: &ModelText, stops: Vec<String>) -> Self {
        Self { stream: model.tokenizer.stream(true), stops: StopMatcher::new(stops) }
    }

    pub(crate) fn push(&mut self, token: u32) -> Passed {
        let text = self.stream.push(token);
        self.stops.push(&text)
    }

    /// The answer ends: what was held back, unless it completes a stop string.
    pub(crate) fn finish(mut self) -> Passed {
        let mut passed = self.stops.push(&self.stream.finish());
        if passed.stopped_by.is_none() {
            passed.text.push_str(&self.stops.finish());
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_used_last_are_kept() {
        let texts = ModelTexts::new(2);
        let (a, b) = (texts.cell("a"), texts.cell("b"));
        assert!(texts.known("a").is_none(), "nothing has read it, but it is used again");
        texts.cell("c");
        assert!(Arc::ptr_eq(&a, &texts.cell("a")));
        assert!(!Arc::ptr_eq(&b, &texts.cell("b")), "used before all others");
    }
}
