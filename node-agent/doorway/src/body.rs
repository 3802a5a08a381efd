//! Body: what a request brings has to come in time; and when an answer's body is over, its connection rests.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::awaited::Awaited;
use crate::hall::Guest;
use crate::limits::Limits;
use crate::visit::Visit;

/// A request's body did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body did not come in time: nothing for {} s, or less than {bytes_per_second} bytes/s over more than {} s", pause.as_secs_f32(), within.as_secs_f32())]
pub struct BodyLate {
    pause: Duration,
    within: Duration,
    bytes_per_second: u64,
}

/// Whether a [`BodyLate`] is behind an error.
pub fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyLate>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// So much of a body that nobody reads to its end is let pass, and for so long.
const PASSED_BYTES: usize = 64 << 20;
const PASSED_WITHIN: Duration = Duration::from_secs(3);

/// The body of a request, with its deadlines. What is not read of it is let pass: most clients hear no answer before they have sent all.
pub(crate) struct Asked {
    /// `None` once it is over.
    body: Option<Incoming>,
    /// Its client sends it when somebody begins to read.
    is_held_back: bool,
    guest: Arc<Guest>,
    limits: Arc<Limits>,
    awaited: Awaited,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The body of an answer.
pub(crate) struct Answer {
    body: axum::body::Body,
    guest: Arc<Guest>,
}

// === impl Asked ===

impl Asked {
    /// `is_held_back` of a client that expects to be asked for it.
    pub(crate) fn new(body: Incoming, is_held_back: bool, guest: Arc<Guest>, limits: Arc<Limits>) -> Self {
        Self { body: Some(body), is_held_back, guest, limits, awaited: Awaited::default(), sleep: None }
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let now = Instant::now();
        self.is_held_back = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(polled) = Pin::new(body).poll_frame(context) {
            if !matches!(polled, Some(Ok(_))) {
                self.body = None;
            }
            let data = polled.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            self.awaited.come(data.map_or(0, Bytes::len), now);
            return Poll::Ready(polled.map(|frame| frame.map_err(axum::Error::new)));
        }
        let limits = self.limits.clone();
        let deadline = self.awaited.wait(now, &limits);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        let late = sleep.as_mut().poll(context);
        if late.is_ready() {
            self.body = None;
        }
        late.map(|()| {
            let Limits { body_pause: pause, body_within: within, body_bytes_per_second: bytes_per_second, .. } =
                *limits;
            Some(Err(axum::Error::new(BodyLate { pause, within, bytes_per_second })))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !body.is_end_stream() && !self.is_held_back);
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            let guest = self.guest.clone();
            runtime.spawn(async move {
                let _ = timeout(PASSED_WITHIN, let_pass(rest)).await;
                guest.note(Visit::pass);
            });
        }
    }
}

async fn let_pass(mut body: Incoming) {
    let mut n_bytes = 0;
    while n_bytes <= PASSED_BYTES {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        n_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(body: axum::body::Body, guest: Arc<Guest>) -> Self {
        Self { body, guest }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.guest.rest();
    }
}
