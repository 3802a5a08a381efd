//! SSE: an answer as it comes, as server-sent events; and, from the same outputs, as one body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::answer::Output;
use crate::errors::ApiError;
use crate::form::Form;

/// What ends a stream that is whole. One that broke off ends with an error event instead.
const DONE: &str = "[DONE]";

/// The answer as a stream of events. A client that goes away drops it, which closes the session.
pub(crate) fn respond(outputs: mpsc::Receiver<Output>, form: impl Form, keep_alive: Duration) -> Response {
    Sse::new(events(outputs, form)).keep_alive(KeepAlive::new().interval(keep_alive)).into_response()
}

/// The answer as one body.
///
/// # Errors
/// What the session says where it broke off.
pub(crate) async fn collect(mut outputs: mpsc::Receiver<Output>, mut form: impl Form) -> Result<Response, ApiError> {
    let mut pieces = Vec::new();
    loop {
        match outputs.recv().await {
            Some(Output::Piece(piece)) => pieces.push(piece),
            Some(Output::End(end)) => {
                let usage = form.head().usage(pieces.len());
                return Ok(Json(form.whole(&pieces, &end, usage)).into_response());
            }
            Some(Output::Failed(error)) => return Err(error),
            None => return Err(broke_off()),
        }
    }
}

struct Answering<F> {
    outputs: mpsc::Receiver<Output>,
    form: F,
    ready: VecDeque<Event>,
    n_tokens: usize,
    is_over: bool,
}

fn events<F: Form>(
    outputs: mpsc::Receiver<Output>,
    mut form: F,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let ready = form.opening().as_ref().map(event).into_iter().collect();
    let answering = Answering { outputs, form, ready, n_tokens: 0, is_over: false };
    stream::unfold(answering, |mut answering| async move {
        let event = answering.next().await?;
        Some((Ok(event), answering))
    })
}

// === impl Answering ===

impl<F: Form> Answering<F> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            match self.outputs.recv().await {
                Some(Output::Piece(piece)) => {
                    self.n_tokens += 1;
                    self.ready.extend(self.form.piece(&piece).as_ref().map(event));
                }
                Some(Output::End(end)) => {
                    self.ready.push_back(event(&self.form.end(&end)));
                    let head = self.form.head();
                    if head.include_usage {
                        self.ready.push_back(event(&head.usage_chunk(self.n_tokens)));
                    }
                    self.ready.push_back(Event::default().data(DONE));
                    self.is_over = true;
                }
                Some(Output::Failed(error)) => self.break_off(&error),
                None => self.break_off(&broke_off()),
            }
        }
    }

    fn break_off(&mut self, error: &ApiError) {
        self.ready.push_back(event(&error.as_body()));
        self.is_over = true;
    }
}

/// The session's task ended without a last word, which only a panic in it can do.
fn broke_off() -> ApiError {
    ApiError::internal(
        "the session ended without saying why: see the gateway's log, and send the request again".to_owned(),
    )
}

fn event(data: &impl Serialize) -> Event {
    // JSON of values and strings cannot fail, and holds no line break.
    Event::default().json_data(data).unwrap_or_default()
}
