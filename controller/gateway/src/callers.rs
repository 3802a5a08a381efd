//! Callers: who asks, by the key that was shown, and what that key may still ask now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::errors::ApiError;
use crate::keys::{ClientKey, KeyBook};
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::quota::{Bucket, Level};

/// Whom keys are known of.
pub(crate) struct Callers {
    /// Whether who shows none is refused.
    is_required: bool,
    book: watch::Receiver<Arc<KeyBook>>,
    /// What each key has used, by its name: a key of the same name goes on where that was.
    used: Mutex<BTreeMap<String, Arc<Mutex<Used>>>>,
    metrics: Arc<Metrics>,
}

/// Who sent a request.
#[derive(Clone, Default)]
pub(crate) struct Caller(Option<Arc<Known>>);

struct Known {
    key: Arc<ClientKey>,
    used: Arc<Mutex<Used>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Used {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// Names of headers, as OpenAI has them: what is limited, then limit, remaining and reset.
const HEADERS: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

/// Lets requests pass of whom a key is known, or of anybody where none is asked for, and says what is left in their answers.
pub(crate) async fn recognised(State(callers): State<Arc<Callers>>, mut request: Request, next: Next) -> Response {
    // Who only looks whether this program lives shows no key.
    if ["/health", "/healthz", "/readyz"].contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let caller = match callers.caller(request.headers()) {
        Ok(caller) => caller,
        Err(error) => return refused(&callers, &request, error),
    };
    if request.method() == Method::POST
        && let Err(error) = caller.begin()
    {
        let mut response = refused(&callers, &request, error);
        caller.tell(response.headers_mut());
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    caller.tell(response.headers_mut());
    response
}

fn refused(callers: &Callers, request: &Request, error: ApiError) -> Response {
    tracing::info!(path = %request.uri().path(), status = error.status.as_u16(), code = error.code, "a request was refused at the door");
    callers.metrics.fail_nameless(&error);
    let is_unknown = error.status == http::StatusCode::UNAUTHORIZED;
    let mut response = error.into_response();
    if is_unknown {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

// === impl Callers ===

impl Callers {
    pub(crate) fn new(is_required: bool, book: watch::Receiver<Arc<KeyBook>>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { is_required, book, used: Mutex::default(), metrics })
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let key = shown.and_then(|shown| self.book.borrow().find(shown));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match key {
            Some(key) if key.is_expired(now) => Err(ApiError::key_expired(&key.name)),
            Some(key) => Ok(Caller(Some(Arc::new(self.known(key))))),
            None if !self.is_required => Ok(Caller::default()),
            None if shown.is_none() => Err(ApiError::no_key()),
            None => Err(ApiError::wrong_key()),
        }
    }

    fn known(&self, key: Arc<ClientKey>) -> Known {
        let used = lock(&self.used).entry(key.name.clone()).or_default().clone();
        let now = Instant::now();
        let resize = |bucket: &mut Option<Bucket>, limit: Option<u32>| match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.resize(limit, now),
            (_, limit) => *bucket = limit.map(|limit| Bucket::full(limit, now)),
        };
        {
            let mut used = lock(&used);
            resize(&mut used.requests, key.requests_per_minute);
            resize(&mut used.tokens, key.tokens_per_minute);
        }
        Known { key, used, metrics: self.metrics.clone() }
    }
}

// === impl Caller ===

impl Caller {
    /// Whether the model is one that it may ask.
    pub(crate) fn check_model(&self, model: &str) -> Result<(), ApiError> {
        match &self.0 {
            Some(known) if !known.key.may(model) => Err(ApiError::model_not_allowed(model, &known.key.models)),
            _ => Ok(()),
        }
    }

    /// Whether it is to see that there is such a model.
    pub(crate) fn sees(&self, model: &str) -> bool {
        self.check_model(model).is_ok()
    }

    /// Its key's name, for the log; empty for who shows none.
    pub(crate) fn name(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.key.name)
    }

    /// So many tokens were read or written for it.
    pub(crate) fn charge(&self, tokens: u32) {
        let Some(known) = &self.0 else { return };
        known.metrics.key(&known.key.name).tokens.inc_by(tokens.into());
        if let Some(bucket) = &mut lock(&known.used).tokens {
            bucket.charge(tokens, Instant::now());
        }
    }

    fn begin(&self) -> Result<(), ApiError> {
        let Some(known) = &self.0 else { return Ok(()) };
        let counters = known.metrics.key(&known.key.name);
        let (mut used, now) = (lock(&known.used), Instant::now());
        // One that is refused for its tokens is no request.
        let tokens = used.tokens.as_mut().map_or(Ok(()), |bucket| bucket.check(now));
        let limited = |what: &'static str, limit: Option<u32>| {
            let limited = counters.limited.clone();
            move |after: Duration| {
                limited.inc();
                ApiError::rate_limited(what, limit.unwrap_or(0), after)
            }
        };
        tokens.map_err(limited("tokens", known.key.tokens_per_minute))?;
        let requests = used.requests.as_mut().map_or(Ok(()), |bucket| bucket.take_one(now));
        requests.map_err(limited("requests", known.key.requests_per_minute))?;
        counters.requests.inc();
        Ok(())
    }

    /// Says what is left.
    fn tell(&self, headers: &mut HeaderMap) {
        let Some(known) = &self.0 else { return };
        let (mut used, now) = (lock(&known.used), Instant::now());
        let Used { requests, tokens } = &mut *used;
        for (names, bucket) in HEADERS.into_iter().zip([requests, tokens]) {
            let Some(Level { limit, remaining, reset }) = bucket.as_mut().map(|bucket| bucket.level(now)) else {
                continue;
            };
            let reset = format!("{}ms", reset.as_millis());
            let values = [limit.to_string(), remaining.to_string(), reset];
            for (name, value) in names.into_iter().zip(values) {
                headers.extend(HeaderValue::from_str(&value).ok().map(|value| (name, value)));
            }
        }
    }
}
