//! Desk: request bodies, and the work of reading them, within bounds of memory however many come at once.
//!
//! A body's first page counts with its connection. A longer body takes room for all of itself, in turn, from then until its prompt is tokens;
//! where others wait for that room, one that comes slowly gives way. Texts are parsed and tokenised within a smaller bound, since that takes
//! many times their size. Of both a part is for what is short, which waits for nobody's long one; among the others little goes before much.

mod budget;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use futures::StreamExt;
use http::header;
use polyphony_doorway::is_late;
use tokio::time::Instant;

use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::fields::Fields;

use budget::{Budget, SHORT_BYTES};
use lane::Taken;

/// So much of a body is read before it has room of its own: no more than its connection's own buffers.
const PAGE_BYTES: usize = 16 << 10;

pub(crate) struct Desk {
    bodies: Budget,
    texts: Budget,
    config: Arc<GatewayConfig>,
}

/// A body that has come, in its room.
pub(crate) struct Sheet {
    bytes: Vec<u8>,
    room: Room,
}

/// What a request takes of the bound; given back when dropped.
pub(crate) struct Room {
    n_bytes: usize,
    /// `None` where a page is enough.
    _taken: Option<Taken>,
}

/// A body that comes.
struct Coming {
    body: BodyDataStream,
    max_bytes: usize,
    n_bytes: usize,
}

// === impl Desk ===

impl Desk {
    pub(crate) fn new(config: Arc<GatewayConfig>) -> Self {
        let budget = |bytes| Budget::new(bytes, &config);
        Self { bodies: budget(config.bodies_bytes), texts: budget(config.texts_bytes), config }
    }

    /// Reads a request's body, when there is room for it.
    ///
    /// # Errors
    /// 413 for one over the limit, 408 for one that does not come in time, 503 where there is no room in time, or where it came too slowly
    /// for those who wait for room.
    pub(crate) async fn take(&self, request: Request) -> Result<Sheet, ApiError> {
        let max_bytes = self.config.max_body_bytes;
        let length = told_length(&request);
        if length.is_some_and(|length| length > max_bytes) {
            return Err(ApiError::body_too_large(max_bytes));
        }
        let mut coming = Coming { body: request.into_body().into_data_stream(), max_bytes, n_bytes: 0 };
        let mut bytes = Vec::new();
        while bytes.len() <= PAGE_BYTES {
            match coming.next().await? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => return Ok(Sheet::new(bytes, None)),
            }
        }
        // One whose length nobody tells may be short.
        let mut n_bytes = length.unwrap_or(SHORT_BYTES).max(bytes.len());
        let mut taken = self.bodies.share(n_bytes).await?;
        bytes.reserve_exact(n_bytes - bytes.len());
        let began = Instant::now();
        let in_the_way = || ApiError::body_in_the_way(self.config.retry_after);
        loop {
            let piece = tokio::select! {
                biased;
                piece = coming.next() => piece?,
                () = taken.is_wanted_from(began + self.allowance(bytes.len())) => {
                    return Err(in_the_way());
                }
            };
            let Some(piece) = piece else { break };
            if bytes.len() + piece.len() > n_bytes {
                n_bytes = max_bytes;
                taken = tokio::select! {
                    biased;
                    more = self.bodies.share(n_bytes) => more?,
                    () = taken.is_wanted_from(began + self.allowance(bytes.len())) => return Err(in_the_way()),
                };
                bytes.reserve_exact(n_bytes - bytes.len());
            }
            bytes.extend_from_slice(&piece);
        }
        bytes.shrink_to_fit();
        taken.shrink_to(bytes.len());
        Ok(Sheet::new(bytes, Some(taken)))
    }

    /// How long the room for a body of which so much has come is its own, whoever waits.
    fn allowance(&self, n_bytes: usize) -> Duration {
        let earned = n_bytes as u64 / self.config.crowded_bytes_per_second.max(1);
        self.config.crowded_within + Duration::from_secs(earned)
    }

    /// What `read` makes of a body's fields, and the room that goes on being taken.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        sheet: Sheet,
        read: impl FnOnce(Fields) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Room), ApiError> {
        let Sheet { bytes, room } = sheet;
        let read = self.work(&room, move || {
            let fields = Fields::parse(&bytes)?;
            drop(bytes);
            read(fields)
        });
        Ok((read.await?, room))
    }

    /// Text work on a request, off the threads that serve.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        room: &Room,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let taken = self.texts.share(room.n_bytes).await?;
        // Who asked may go away; the work goes on, and so does what it takes.
        let worked = tokio::task::spawn_blocking(move || {
            let _taken = taken;
            work()
        });
        let failed = |error| ApiError::internal(format!("turning text into tokens failed: {error}"));
        worked.await.unwrap_or_else(|error| Err(failed(error)))
    }
}

/// How long a request's body is, where that is known before it has come.
fn told_length(request: &Request) -> Option<usize> {
    let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    told.or_else(|| usize::try_from(request.body().size_hint().exact()?).ok())
}

// === impl Sheet ===

impl Sheet {
    fn new(bytes: Vec<u8>, taken: Option<Taken>) -> Self {
        let room = Room { n_bytes: bytes.len(), _taken: taken };
        Self { bytes, room }
    }
}

// === impl Coming ===

impl Coming {
    /// The next piece; `None` at the end. To be given up, and asked again later, loses nothing.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let piece = self.body.next().await.transpose().map_err(|error| match is_late(&error) {
            true => ApiError::body_late(),
            false => ApiError::body(format!("the body could not be read: {error}; send it again")),
        })?;
        self.n_bytes += piece.as_ref().map_or(0, Bytes::len);
        match self.n_bytes > self.max_bytes {
            true => Err(ApiError::body_too_large(self.max_bytes)),
            false => Ok(piece),
        }
    }
}
