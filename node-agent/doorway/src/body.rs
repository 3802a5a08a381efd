//! Body: what a request brings has to come in time; and when an answer's body is over, its connection rests.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::hall::Guest;
use crate::limits::Limits;

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

/// The body of a request, with its deadlines.
pub(crate) struct Asked {
    body: Incoming,
    limits: Arc<Limits>,
    /// From the first look at it.
    began: Option<Instant>,
    heard: Instant,
    n_bytes: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The body of an answer.
pub(crate) struct Answer {
    body: axum::body::Body,
    guest: Arc<Guest>,
}

// === impl Asked ===

impl Asked {
    pub(crate) fn new(body: Incoming, limits: Arc<Limits>) -> Self {
        Self { body, limits, began: None, heard: Instant::now(), n_bytes: 0, sleep: None }
    }

    fn deadline(&self, began: Instant) -> Instant {
        let earned = Duration::from_secs(self.n_bytes / self.limits.body_bytes_per_second.max(1));
        (self.heard + self.limits.body_pause).min(began + self.limits.body_within + earned)
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
        let began = match self.began {
            Some(began) => began,
            None => {
                self.heard = now;
                *self.began.insert(now)
            }
        };
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(context) {
            self.heard = now;
            if let Some(data) = polled.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
                self.n_bytes += data.len() as u64;
            }
            return Poll::Ready(polled.map(|frame| frame.map_err(axum::Error::new)));
        }
        let deadline = self.deadline(began);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context).map(|()| {
            let Limits { body_pause: pause, body_within: within, body_bytes_per_second: bytes_per_second, .. } =
                *self.limits;
            Some(Err(axum::Error::new(BodyLate { pause, within, bytes_per_second })))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
