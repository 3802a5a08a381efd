//! Tally: one request from its arrival to what became of it, counted and logged once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tracing::Span;

use crate::answer::FinishReason;
use crate::callers::Caller;
use crate::errors::ApiError;
use crate::metrics::{Metrics, ModelMetrics};

/// A request on its way. The first that says what became of it is heard; if nobody does, its client went away.
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    model: OnceLock<Arc<ModelMetrics>>,
    pub(crate) began: Instant,
    /// What the request does is logged within.
    pub(crate) span: Span,
    /// Who asked.
    pub(crate) caller: Caller,
    is_settled: AtomicBool,
}

/// What an answer took, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    pub(crate) prompt_tokens: u32,
    pub(crate) generation_tokens: u32,
    pub(crate) first_token_seconds: f64,
    pub(crate) replays: u32,
}

// === impl Tally ===

impl Tally {
    /// `request_id` is the client's own name of it, or ours.
    pub(crate) fn begin(metrics: Arc<Metrics>, endpoint: &'static str, request_id: &str, caller: Caller) -> Arc<Self> {
        let empty = tracing::field::Empty;
        let span = tracing::info_span!(
            "request",
            endpoint,
            request_id,
            key = caller.name(),
            model = empty,
            id = empty,
            session = empty
        );
        let (model, is_settled) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(Self { metrics, model, began: Instant::now(), span, caller, is_settled })
    }

    /// One more prompt of the same request, which is counted by itself.
    pub(crate) fn another(&self) -> Arc<Self> {
        let (metrics, model, span) = (self.metrics.clone(), self.model.clone(), self.span.clone());
        let (caller, is_settled) = (self.caller.clone(), AtomicBool::new(false));
        Arc::new(Self { metrics, model, began: self.began, span, caller, is_settled })
    }

    /// The request is for this model, which the route table names.
    pub(crate) fn name(&self, model: &str) {
        self.span.record("model", model);
        self.model.get_or_init(|| self.metrics.model(model));
    }

    /// The answer is whole.
    pub(crate) fn end(&self, reason: FinishReason, effort: Effort) {
        if self.is_settled.swap(true, Ordering::Relaxed) {
            return;
        }
        let seconds = self.began.elapsed().as_secs_f64();
        if let Some(model) = self.model.get() {
            model.success.with_label_values(&[reason.as_str()]).inc();
            model.request_seconds.observe(seconds);
        }
        let Effort { prompt_tokens, generation_tokens, first_token_seconds, replays } = effort;
        tracing::info!(parent: &self.span, finished_reason = reason.as_str(), prompt_tokens, generation_tokens, first_token_seconds, seconds, replays, "request answered");
    }

    /// There is no answer, or it broke off.
    pub(crate) fn fail(&self, error: &ApiError) {
        if self.is_settled.swap(true, Ordering::Relaxed) {
            return;
        }
        let code = error.code.unwrap_or_default();
        match self.model.get() {
            Some(model) => model.failures.with_label_values(&[code]).inc(),
            None => self.metrics.fail_nameless(error),
        }
        let (status, seconds) = (error.status.as_u16(), self.began.elapsed().as_secs_f64());
        if error.status.is_server_error() {
            tracing::warn!(parent: &self.span, status, code, seconds, error = %error.message, "request failed");
        } else {
            // What the client wrote is the client's own.
            tracing::info!(parent: &self.span, status, code, seconds, "request refused");
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if *self.is_settled.get_mut() {
            return;
        }
        if let Some(model) = self.model.get() {
            model.success.with_label_values(&["abort"]).inc();
        }
        let seconds = self.began.elapsed().as_secs_f64();
        tracing::info!(parent: &self.span, seconds, "the client went away");
    }
}
