//! SSE: the answers of a request as they come, as server-sent events; and, from the same outputs, as one body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::answer::{End, Output, Piece};
use crate::errors::ApiError;
use crate::form::{Form, Head};
use crate::sessions::Answer;

/// What ends a stream that is whole. One that broke off ends with an error event instead.
const DONE: &str = "[DONE]";
/// A comment on a stream, which clients pass over, while nothing else comes.
const ALIVE: &str = "the phones are at work";

/// An answer that begins when it is asked for.
pub(crate) type Begin = BoxFuture<'static, Result<Answer, ApiError>>;

/// What the answers of a request say, each with its index.
pub(crate) struct Outputs {
    said: BoxStream<'static, (usize, Output)>,
    n_answers: usize,
}

// === impl Outputs ===

impl Outputs {
    /// `first` has begun; of all there are at most `at_once` at a time.
    pub(crate) fn new(first: Answer, rest: Vec<Begin>, at_once: usize) -> Self {
        let n_answers = 1 + rest.len();
        let first: Begin = Box::pin(async { Ok(first) });
        let answers = stream::iter(std::iter::once(first).chain(rest).enumerate());
        let said = answers.flat_map_unordered(at_once.max(1), |(index, begin)| {
            let begun = stream::once(begin).flat_map(|begun| match begun {
                Ok(answer) => said_by(answer).boxed(),
                Err(error) => stream::once(async { Output::Failed(error) }).boxed(),
            });
            begun.map(move |output| (index, output)).boxed()
        });
        Self { said: said.boxed(), n_answers }
    }
}

/// All that an answer says, to its last word.
fn said_by(answer: Answer) -> impl Stream<Item = Output> {
    stream::unfold(Some(answer), |answer| async {
        let mut answer = answer?;
        let output = answer.next().await;
        let goes_on = matches!(output, Output::Piece(_));
        Some((output, goes_on.then_some(answer)))
    })
}

/// The answers as a stream of events, with a form for each. A client that goes away drops it, which cancels them.
pub(crate) fn respond<F: Form>(outputs: Outputs, head: &Head, forms: Vec<F>, keep_alive: Duration) -> Response {
    let keep_alive = KeepAlive::new().interval(keep_alive).text(ALIVE);
    Sse::new(events(outputs, head.clone(), forms)).keep_alive(keep_alive).into_response()
}

/// The answers as one body.
///
/// # Errors
/// What the first session says that broke off.
pub(crate) async fn collect<F: Form>(
    mut outputs: Outputs,
    head: &Head,
    mut forms: Vec<F>,
) -> Result<Response, ApiError> {
    let mut whole: Vec<(Vec<Piece>, Option<End>)> = forms.iter().map(|_| Default::default()).collect();
    while let Some((index, output)) = outputs.said.next().await {
        let Some((pieces, end)) = whole.get_mut(index) else { continue };
        match output {
            Output::Piece(piece) => pieces.push(piece),
            Output::End(last) => *end = Some(last),
            Output::Failed(error) => return Err(error),
        }
    }
    let mut choices = Vec::with_capacity(whole.len());
    let mut n_tokens = 0;
    for (form, (pieces, end)) in forms.iter_mut().zip(&whole) {
        // Each answer has a last word.
        let end =
            end.as_ref().ok_or_else(|| ApiError::internal("an answer has no end: report this as a bug".into()))?;
        n_tokens += pieces.len();
        choices.push(form.choice(pieces, end));
    }
    let mut body = head.whole(choices, n_tokens);
    forms.iter().for_each(|form| form.complete(&mut body));
    Ok(Json(body).into_response())
}

struct Answering<F> {
    outputs: Outputs,
    head: Head,
    forms: Vec<F>,
    ready: VecDeque<Event>,
    n_tokens: usize,
    n_ended: usize,
    is_over: bool,
}

fn events<F: Form>(
    outputs: Outputs,
    head: Head,
    mut forms: Vec<F>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    // The first is a sign of life, before any token.
    let alive = std::iter::once(Event::default().comment(ALIVE));
    let ready = alive.chain(forms.iter_mut().filter_map(|form| form.opening().as_ref().map(event))).collect();
    let answering = Answering { outputs, head, forms, ready, n_tokens: 0, n_ended: 0, is_over: false };
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
            let (index, output) = self.outputs.said.next().await?;
            let Some(form) = self.forms.get_mut(index) else { continue };
            match output {
                Output::Piece(piece) => {
                    self.n_tokens += 1;
                    self.ready.extend(form.piece(&piece).as_ref().map(event));
                }
                Output::End(end) => {
                    self.ready.push_back(event(&form.end(&end)));
                    self.n_ended += 1;
                    if self.n_ended == self.outputs.n_answers {
                        self.finish();
                    }
                }
                Output::Failed(error) => {
                    self.ready.push_back(event(&error.as_body()));
                    self.is_over = true;
                }
            }
        }
    }

    fn finish(&mut self) {
        if self.head.include_usage {
            self.ready.push_back(event(&self.head.usage_chunk(self.n_tokens)));
        }
        self.ready.push_back(Event::default().data(DONE));
        self.is_over = true;
    }
}

fn event(data: &impl Serialize) -> Event {
    // JSON of values and strings cannot fail, and holds no line break.
    Event::default().json_data(data).unwrap_or_default()
}
