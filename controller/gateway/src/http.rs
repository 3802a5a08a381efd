//! HTTP: the routes, and the way of a request through them: body, fields, model, prompt, session, answer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{Method, StatusCode, Uri, header};
use polyphony_model::Chat;
use serde_json::json;
use tracing::Instrument;

use crate::chat::{ChatForm, ChatRequest};
use crate::completions::{CompletionForm, CompletionRequest, Prompt};
use crate::errors::ApiError;
use crate::form::{Form, Head};
use crate::gateway::Gateway;
use crate::metrics::Tally;
use crate::model_text::ModelText;
use crate::models::{list, model_object};
use crate::request::{Fields, Generation};
use crate::routes::{DeploymentRoute, RouteTable};
use crate::sessions::{Job, random};
use crate::sse;
use crate::tokenize::{DetokenizeRequest, Source, TokenizeRequest, tokenized};

type Door = State<Arc<Gateway>>;
type Body = Result<Bytes, BytesRejection>;

/// Every route of the gateway.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let limit = DefaultBodyLimit::max(gateway.config.max_body_bytes);
    Router::new()
        .route("/v1/models", get(models))
        // A model outside of the namespace `default` has a slash in its id.
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async |method: Method, uri: Uri| ApiError::no_route(&method, uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::wrong_method(&method, uri.path()))
        .layer(limit)
        .with_state(gateway)
}

async fn models(State(gateway): Door) -> Response {
    Json(list(&gateway.table())).into_response()
}

async fn model(State(gateway): Door, Path(id): Path<String>) -> Result<Response, ApiError> {
    let table = gateway.table();
    let route = deployment(&table, &id)?;
    Ok(Json(model_object(&id, route)).into_response())
}

async fn healthz() -> &'static str {
    "ok"
}

/// Ready when any model can answer; otherwise says of each why not.
async fn readyz(State(gateway): Door) -> Response {
    let table = gateway.table();
    match crate::models::why_not_ready(&table) {
        None => "ok".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn metrics(State(gateway): Door) -> Result<Response, ApiError> {
    let text = gateway.metrics.text().map_err(|error| ApiError::internal(format!("no metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

async fn chat(State(gateway): Door, body: Body) -> Result<Response, ApiError> {
    counted(&gateway, "chat", |tally| chat_answer(&gateway, body, tally)).await
}

async fn completions(State(gateway): Door, body: Body) -> Result<Response, ApiError> {
    counted(&gateway, "completions", |tally| completion_answer(&gateway, body, tally)).await
}

/// One request within its span; what becomes of it is counted once, here or by its session.
async fn counted<F: Future<Output = Result<Response, ApiError>>>(
    gateway: &Gateway,
    endpoint: &'static str,
    answer: impl FnOnce(Arc<Tally>) -> F,
) -> Result<Response, ApiError> {
    let tally = Tally::begin(gateway.metrics.clone(), endpoint);
    let answered = answer(tally.clone()).instrument(tally.span.clone()).await;
    if let Err(error) = &answered {
        tally.fail(error);
    }
    answered
}

async fn chat_answer(gateway: &Gateway, body: Body, tally: Arc<Tally>) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&fields(gateway, body)?, &gateway.limits())?;
    let generation = request.generation;
    let model = Model::find(gateway, &generation.model, Some(&tally)).await?;
    let text = Arc::clone(&model.text);
    let prompt = blocking(move || chat_tokens(&text, &request.messages, request.add_generation_prompt)).await?;
    let head = head(&generation, "chatcmpl", "chat.completion", "chat.completion.chunk", prompt.len());
    let form = ChatForm {
        head,
        text: Arc::clone(&model.text),
        logprobs: generation.logprobs,
        names: generation.token_names,
        prompt_token_ids: generation.return_token_ids.then(|| prompt.clone()),
    };
    answer(gateway, model, &generation, ("messages", prompt), form, tally).await
}

async fn completion_answer(gateway: &Gateway, body: Body, tally: Arc<Tally>) -> Result<Response, ApiError> {
    let request = CompletionRequest::parse(&fields(gateway, body)?, &gateway.limits())?;
    let generation = request.generation;
    let model = Model::find(gateway, &generation.model, Some(&tally)).await?;
    let text = Arc::clone(&model.text);
    let (prompt, echo) = blocking(move || {
        let (tokens, shown) = match request.prompt {
            Prompt::Text(prompt) => (text_tokens(&text, &prompt, request.add_special_tokens)?, prompt),
            Prompt::Tokens(tokens) => {
                check_vocabulary("prompt", &text, &tokens)?;
                let shown = text.tokenizer.decode(&tokens, false);
                (tokens, shown)
            }
        };
        Ok((tokens, request.echo.then_some(shown)))
    })
    .await?;
    let head = head(&generation, "cmpl", "text_completion", "text_completion", prompt.len());
    let prompt_token_ids = generation.return_token_ids.then(|| prompt.clone());
    let form = CompletionForm::new(
        head,
        Arc::clone(&model.text),
        (generation.logprobs, generation.token_names),
        prompt_token_ids,
        echo,
    );
    answer(gateway, model, &generation, ("prompt", prompt), form, tally).await
}

async fn tokenize(State(gateway): Door, body: Body) -> Result<Response, ApiError> {
    let request = TokenizeRequest::parse(&fields(&gateway, body)?)?;
    let model = Model::find_or_only(&gateway, request.model).await?;
    let context_length = model.route.context_length;
    let answer = blocking(move || {
        let tokens = match &request.source {
            Source::Text { prompt, add_special_tokens } => text_tokens(&model.text, prompt, *add_special_tokens)?,
            Source::Chat { messages, add_generation_prompt } => {
                chat_tokens(&model.text, messages, *add_generation_prompt)?
            }
        };
        Ok(tokenized(&tokens, context_length, request.return_token_strs.then_some(&*model.text)))
    });
    Ok(Json(answer.await?).into_response())
}

async fn detokenize(State(gateway): Door, body: Body) -> Result<Response, ApiError> {
    let request = DetokenizeRequest::parse(&fields(&gateway, body)?)?;
    let model = Model::find_or_only(&gateway, request.model).await?;
    let prompt = blocking(move || {
        check_vocabulary("tokens", &model.text, &request.tokens)?;
        Ok(model.text.tokenizer.decode(&request.tokens, false))
    });
    Ok(Json(json!({"prompt": prompt.await?})).into_response())
}

/// A model as a request meets it: its route at this moment, and its text side.
struct Model {
    id: String,
    route: DeploymentRoute,
    text: Arc<ModelText>,
}

// === impl Model ===

impl Model {
    async fn find(gateway: &Gateway, id: &str, tally: Option<&Tally>) -> Result<Self, ApiError> {
        let route = deployment(&gateway.table(), id)?.clone();
        if let Some(tally) = tally {
            tally.name(id);
        }
        let text = match route.model_path.clone() {
            Some(path) => gateway.texts.get(&route.manifest_digest, path).await.map_err(ApiError::internal)?,
            // Phones that serve do not need the file, nor does who has read it.
            None => gateway.texts.known(&route.manifest_digest).ok_or_else(|| {
                let reason = route.unavailable_reason.as_deref().or(Some("its model file is not resolved yet"));
                ApiError::not_ready(id, reason, gateway.config.retry_after)
            })?,
        };
        Ok(Self { id: id.to_owned(), route, text })
    }

    /// The named model, or the only one there is.
    async fn find_or_only(gateway: &Gateway, id: Option<String>) -> Result<Self, ApiError> {
        let table = gateway.table();
        let mut ids = table.deployments.keys();
        match (id, ids.next(), ids.next()) {
            (Some(id), ..) => Self::find(gateway, &id, None).await,
            (None, Some(only), None) => Self::find(gateway, only, None).await,
            (None, ..) => Err(ApiError::missing("model", "the id of a model that GET /v1/models lists")),
        }
    }
}

fn deployment<'a>(table: &'a RouteTable, id: &str) -> Result<&'a DeploymentRoute, ApiError> {
    table.deployments.get(id).ok_or_else(|| ApiError::model_not_found(id, table.deployments.keys()))
}

fn fields(gateway: &Gateway, body: Body) -> Result<Fields, ApiError> {
    match body {
        Ok(bytes) => Fields::parse(&bytes),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::body_too_large(gateway.config.max_body_bytes))
        }
        Err(rejection) => Err(ApiError::body(format!("the body could not be read: {rejection}; send it again"))),
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

/// Runs the session and gives its answer the form that the client asked for.
async fn answer(
    gateway: &Gateway,
    model: Model,
    generation: &Generation,
    (param, prompt): (&str, Vec<u32>),
    form: impl Form,
    tally: Arc<Tally>,
) -> Result<Response, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::field(param, "send at least one token; the prompt is empty"));
    }
    generation.check_vocabulary(model.text.tokenizer.n_vocab())?;
    let end_tokens = model.text.tokenizer.end_tokens();
    let options = generation.options(param, prompt.len(), model.route.context_length, end_tokens, random())?;
    tally.span.record("id", &form.head().id);
    let job = Job {
        model: model.id,
        manifest_digest: model.route.manifest_digest,
        text: model.text,
        prompt,
        options,
        stops: generation.stops.clone(),
        tally,
    };
    let outputs = gateway.sessions.start(job).await?;
    match generation.stream {
        true => Ok(sse::respond(outputs, form, gateway.config.keep_alive)),
        false => sse::collect(outputs, form).await,
    }
}

/// Control tokens are found by name, as vLLM does: clients that render templates themselves count on it.
fn text_tokens(text: &ModelText, prompt: &str, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let tokens = match add_special_tokens {
        true => text.tokenizer.encode_prompt(prompt, true),
        false => text.tokenizer.encode(prompt, true),
    };
    tokens.map_err(|error| ApiError::field("prompt", error))
}

fn chat_tokens(
    text: &ModelText,
    messages: &[polyphony_model::ChatMessage],
    add_generation_prompt: bool,
) -> Result<Vec<u32>, ApiError> {
    let chat = Chat { messages: messages.to_vec(), tools: Vec::new(), add_generation_prompt };
    text.chat_tokens(&chat, false).map_err(|why| ApiError::field("messages", why))
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

/// Text work of any length, off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.unwrap_or_else(|error| Err(ApiError::internal(format!("turning text into tokens failed: {error}"))))
}
