//! Desk: request bodies, and the work of reading them, within bounds of memory however many come at once.
//!
//! A body's bytes count from before they are read until its prompt is tokens; texts are parsed and tokenised within a smaller bound, since
//! that takes many times their size. Who finds no room waits for a while, in turn.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::{StatusCode, header};
use polyphony_doorway::is_late;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::request::Fields;

/// However short a body, it counts for this much.
const SMALLEST_BYTES: usize = 4 << 10;

pub(crate) struct Desk {
    bodies: Budget,
    texts: Budget,
    max_body_bytes: usize,
}

/// Bytes that may be in use at once.
struct Budget {
    places: Arc<Semaphore>,
    bytes: usize,
    patience: Duration,
    retry_after: Duration,
}

/// A body that has come, in its room.
pub(crate) struct Sheet {
    bytes: Bytes,
    room: Room,
}

/// What a request takes of the bound; given back when dropped.
pub(crate) struct Room {
    n_bytes: usize,
    _permit: OwnedSemaphorePermit,
}

// === impl Desk ===

impl Desk {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        let budget = |bytes: usize| Budget {
            places: Arc::new(Semaphore::new(bytes.max(SMALLEST_BYTES))),
            bytes: bytes.max(SMALLEST_BYTES),
            patience: config.queue_deadline,
            retry_after: config.retry_after,
        };
        Self {
            bodies: budget(config.bodies_bytes),
            texts: budget(config.texts_bytes),
            max_body_bytes: config.max_body_bytes,
        }
    }

    /// Reads a request's body, when there is room for it.
    ///
    /// # Errors
    /// 413 for one over the limit, 408 for one that does not come in time, 503 where there is no room in time.
    pub(crate) async fn take(&self, request: Request) -> Result<Sheet, ApiError> {
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let n_bytes: usize = length.unwrap_or(self.max_body_bytes);
        if n_bytes > self.max_body_bytes {
            return Err(ApiError::body_too_large(self.max_body_bytes));
        }
        let permit = self.bodies.permit(n_bytes).await?;
        let bytes = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(self.max_body_bytes),
            _ if is_late(&rejection) => ApiError::body_late(),
            _ => ApiError::body(format!("the body could not be read: {rejection}; send it again")),
        })?;
        Ok(Sheet { bytes, room: Room { n_bytes, _permit: permit } })
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
        let permit = self.texts.permit(room.n_bytes).await?;
        // Who asked may go away; the work goes on, and so does what it takes.
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        let failed = |error| ApiError::internal(format!("turning text into tokens failed: {error}"));
        worked.await.unwrap_or_else(|error| Err(failed(error)))
    }
}

// === impl Budget ===

impl Budget {
    async fn permit(&self, n_bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        // What is larger than all that there is takes all.
        let n_bytes = u32::try_from(n_bytes.clamp(SMALLEST_BYTES, self.bytes)).unwrap_or(u32::MAX);
        match timeout(self.patience, self.places.clone().acquire_many_owned(n_bytes)).await {
            Ok(Ok(permit)) => Ok(permit),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(ApiError::too_busy(self.patience, self.retry_after)),
        }
    }
}
