//! OpenAI's API over the sessions, with vLLM's `/tokenize` and `/detokenize`: the way of a request from its body to its answer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tracing::Instrument;

use crate::callers::Caller;
use crate::chat::{self, ChatForm, ChatRequest};
use crate::completions::{CompletionForm, CompletionRequest, Prompt};
use crate::door::Door;
use crate::errors::ApiError;
use crate::fit;
use crate::form::{Form, Head};
use crate::generation::{Generation, Limits};
use crate::guard::RequestId;
use crate::model_text::ModelText;
use crate::models::{list, model_object};
use crate::random::random;
use crate::sessions::{Job, Model};
use crate::sse::{self, Begin, Outputs};
use crate::tally::Tally;
use crate::tokenize::{DetokenizeRequest, Source, TokenizeRequest, tokenized};

type Shared = State<Arc<Door>>;

pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v1/models", get(models))
        // A model outside of the namespace `default` has a slash in its id.
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
}

async fn models(State(door): Shared, request: Request) -> Response {
    let caller = caller_of(&request);
    Json(list(&door.sessions.models(), |id| caller.sees(id))).into_response()
}

async fn model(State(door): Shared, Path(id): Path<String>, request: Request) -> Result<Response, ApiError> {
    caller_of(&request).check_model(&id)?;
    let table = door.sessions.models();
    let known = || ApiError::model_not_found(&id, table.deployments.keys());
    let route = table.deployments.get(&id).ok_or_else(known)?;
    Ok(Json(model_object(&id, route)).into_response())
}

async fn chat(State(door): Shared, request: Request) -> Result<Response, ApiError> {
    counted(&door, "chat", request, async |request, tally| answer_chat(&door, request, tally).await).await
}

async fn completions(State(door): Shared, request: Request) -> Result<Response, ApiError> {
    counted(&door, "completions", request, async |request, tally| answer_completion(&door, request, tally).await).await
}

/// Who sent it, as the door has recognised.
fn caller_of(request: &Request) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

/// One request within its span; what becomes of it is counted once, here or by its session.
async fn counted(
    door: &Door,
    endpoint: &'static str,
    request: Request,
    answer: impl AsyncFnOnce(Request, Arc<Tally>) -> Result<Response, ApiError>,
) -> Result<Response, ApiError> {
    let id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let tally = Tally::begin(door.metrics.clone(), endpoint, id, caller_of(&request));
    let answered = answer(request, tally.clone()).instrument(tally.span.clone()).await;
    if let Err(error) = &answered {
        tally.fail(error);
    }
    answered
}

async fn answer_chat(door: &Door, request: Request, tally: Arc<Tally>) -> Result<Response, ApiError> {
    let (sheet, limits) = (door.desk.take(request).await?, door.limits());
    let (request, room) = door.desk.read(sheet, move |fields| ChatRequest::parse(&fields, &limits)).await?;
    let generation = request.generation;
    let model = door.model(&generation.model, &tally).await?;
    let (text, context_length) = (model.text.clone(), model.route.context_length);
    let parse_contents = door.config.control_tokens_in_messages;
    let work = move || chat::tokens(&text, request.chat, parse_contents, context_length);
    let prompt = door.desk.work(&room, work).await?;
    drop(room);
    let head = head(&generation, "chatcmpl", "chat.completion", "chat.completion.chunk", prompt.len());
    let form = ChatForm {
        head: head.clone(),
        text: Arc::clone(&model.text),
        logprobs: generation.logprobs,
        names: generation.token_names,
        prompt_token_ids: generation.return_token_ids.then(|| prompt.clone()),
    };
    answer(door, model, &generation, "messages", head, vec![(prompt, form)], tally).await
}

async fn answer_completion(door: &Door, request: Request, tally: Arc<Tally>) -> Result<Response, ApiError> {
    let (sheet, limits) = (door.desk.take(request).await?, door.limits());
    let (request, room) = door.desk.read(sheet, move |fields| CompletionRequest::parse(&fields, &limits)).await?;
    let CompletionRequest { generation, prompts, echo, add_special_tokens } = request;
    let model = door.model(&generation.model, &tally).await?;
    let (text, context_length) = (model.text.clone(), model.route.context_length);
    let work = move || {
        let one = |prompt| completion_tokens(&text, prompt, add_special_tokens, context_length, echo);
        prompts.into_iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let prompts = door.desk.work(&room, work).await?;
    drop(room);
    let n_prompt = prompts.iter().map(|(tokens, _)| tokens.len()).sum();
    let head = head(&generation, "cmpl", "text_completion", "text_completion", n_prompt);
    let asked = prompts.into_iter().enumerate().map(|(index, (prompt, echo))| {
        let prompt_token_ids = generation.return_token_ids.then(|| prompt.clone());
        let shown = (generation.logprobs, generation.token_names);
        let form = CompletionForm::new(head.clone(), index, model.text.clone(), shown, prompt_token_ids, echo);
        (prompt, form)
    });
    let asked = asked.collect();
    answer(door, model, &generation, "prompt", head, asked, tally).await
}

async fn tokenize(State(door): Shared, request: Request) -> Result<Response, ApiError> {
    let caller = caller_of(&request);
    let sheet = door.desk.take(request).await?;
    let (request, room) = door.desk.read(sheet, |fields| TokenizeRequest::parse(&fields)).await?;
    let model = door.model_or_only(request.model, &caller).await?;
    let parse_contents = door.config.control_tokens_in_messages;
    let answer = door.desk.work(&room, move || {
        let context_length = model.route.context_length;
        let tokens = match request.source {
            Source::Text { prompt, add_special_tokens } => {
                text_tokens(&model.text, &prompt, add_special_tokens, context_length)?
            }
            Source::Chat(chat) => chat::tokens(&model.text, chat, parse_contents, context_length)?,
        };
        Ok(tokenized(&tokens, context_length, request.return_token_strs.then_some(&*model.text)))
    });
    Ok(Json(answer.await?).into_response())
}

async fn detokenize(State(door): Shared, request: Request) -> Result<Response, ApiError> {
    let caller = caller_of(&request);
    let sheet = door.desk.take(request).await?;
    let (request, room) = door.desk.read(sheet, |fields| DetokenizeRequest::parse(&fields)).await?;
    let model = door.model_or_only(request.model, &caller).await?;
    let prompt = door.desk.work(&room, move || {
        check_vocabulary("tokens", &model.text, &request.tokens)?;
        Ok(model.text.tokenizer.decode(&request.tokens, false))
    });
    Ok(Json(json!({"prompt": prompt.await?})).into_response())
}

// === impl Door ===

impl Door {
    fn limits(&self) -> Limits {
        Limits { max_stop_bytes: self.config.max_stop_bytes, max_prompts: self.config.max_prompts }
    }

    async fn model(&self, id: &str, tally: &Tally) -> Result<Model, ApiError> {
        tally.caller.check_model(id)?;
        if self.sessions.models().deployments.contains_key(id) {
            tally.name(id);
        }
        self.sessions.model(id).await
    }

    /// The named model, or the only one there is.
    async fn model_or_only(&self, id: Option<String>, caller: &Caller) -> Result<Model, ApiError> {
        let table = self.sessions.models();
        let mut ids = table.deployments.keys().filter(|id| caller.sees(id));
        match (id, ids.next(), ids.next()) {
            (Some(id), ..) => {
                caller.check_model(&id)?;
                self.sessions.model(&id).await
            }
            (None, Some(only), None) => self.sessions.model(only).await,
            (None, ..) => Err(ApiError::missing("model", "the id of a model that GET /v1/models lists")),
        }
    }
}

fn head(
    generation: &Generation,
    id_prefix: &str,
    object: &'static str,
    chunk_object: &'static str,
    n_prompt: usize,
) -> Head {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Head {
        id: format!("{id_prefix}-{:016x}{:016x}", random(), random()),
        created: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        model: generation.model.clone(),
        object,
        chunk_object,
        n_prompt,
        include_usage: generation.include_usage,
    }
}

/// Runs a session for each prompt, the field `param`, and gives the answers the form that the client asked for.
async fn answer<F: Form>(
    door: &Door,
    model: Model,
    generation: &Generation,
    param: &str,
    head: Head,
    asked: Vec<(Vec<u32>, F)>,
    tally: Arc<Tally>,
) -> Result<Response, ApiError> {
    tally.span.record("id", &head.id);
    generation.check_vocabulary(model.text.tokenizer.n_vocab())?;
    let is_one = asked.len() == 1;
    let (mut begins, mut forms) = (Vec::new(), Vec::new());
    for (index, (prompt, form)) in asked.into_iter().enumerate() {
        let param = if is_one { param.to_owned() } else { format!("{param}[{index}]") };
        let tally = if index == 0 { tally.clone() } else { tally.another() };
        let job = job(&model, generation, &param, prompt, tally)?;
        job.tally.caller.charge(u32::try_from(job.prompt.len()).unwrap_or(u32::MAX));
        begins.push(door.sessions.clone().start(job));
        forms.push(form);
    }
    // As many as the rings have places: the others would only wait in the queue, and be refused for it.
    let at_once = model.route.rings.len().saturating_mul(model.route.max_sessions as usize);
    let mut rest = begins.into_iter();
    // The first one's refusal is the request's.
    let Some(first) = rest.next() else { return Err(ApiError::missing(param, "a prompt")) };
    let outputs = Outputs::new(first.await?, rest.collect::<Vec<Begin>>(), at_once);
    match generation.stream {
        true => Ok(sse::respond(outputs, &head, forms, door.config.keep_alive)),
        false => sse::collect(outputs, &head, forms).await,
    }
}

fn job(
    model: &Model,
    generation: &Generation,
    param: &str,
    prompt: Vec<u32>,
    tally: Arc<Tally>,
) -> Result<Job, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::field(param, "send at least one token; the prompt is empty"));
    }
    let end_tokens = model.text.tokenizer.end_tokens();
    let options = generation.options(param, prompt.len(), model.route.context_length, end_tokens, random())?;
    Ok(Job {
        model: model.id.clone(),
        manifest_digest: model.route.manifest_digest.clone(),
        text: model.text.clone(),
        prompt,
        options,
        stops: generation.stops.clone(),
        tally,
    })
}

/// The tokens of a completion's prompt, and its text where it is wanted back.
fn completion_tokens(
    text: &ModelText,
    prompt: Prompt,
    add_special_tokens: bool,
    context_length: u32,
    echo: bool,
) -> Result<(Vec<u32>, Option<String>), ApiError> {
    match prompt {
        Prompt::Text(prompt) => {
            let tokens = text_tokens(text, &prompt, add_special_tokens, context_length)?;
            Ok((tokens, echo.then_some(prompt)))
        }
        Prompt::Tokens(tokens) => {
            check_vocabulary("prompt", text, &tokens)?;
            let shown = echo.then(|| text.tokenizer.decode(&tokens, false));
            Ok((tokens, shown))
        }
    }
}

/// Control tokens are found by name, as vLLM does: clients that render templates themselves count on it.
fn text_tokens(
    text: &ModelText,
    prompt: &str,
    add_special_tokens: bool,
    context_length: u32,
) -> Result<Vec<u32>, ApiError> {
    fit::check("prompt", prompt, &text.tokenizer, context_length)?;
    let tokens = match add_special_tokens {
        true => text.tokenizer.encode_prompt(prompt, true),
        false => text.tokenizer.encode(prompt, true),
    };
    tokens.map_err(|error| ApiError::field("prompt", error))
}

fn check_vocabulary(param: &str, text: &ModelText, tokens: &[u32]) -> Result<(), ApiError> {
    let n_vocab = text.tokenizer.n_vocab();
    match tokens.iter().position(|token| *token >= n_vocab) {
        None => Ok(()),
        Some(idx) => {
            let expected = format!("send token ids below {n_vocab}, the size of the vocabulary, not {}", tokens[idx]);
            Err(ApiError::field(&format!("{param}[{idx}]"), expected))
        }
    }
}

#[cfg(test)]
mod tests;
