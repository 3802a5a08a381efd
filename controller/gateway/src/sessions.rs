//! Sessions: the seam between an API and what answers its prompts. An API is a file over it, and knows no ring and no phone.
//!
//! Three things are asked: which models there are, what turns a model's text into tokens, and to begin an answer. To drop an answer is to
//! cancel it.

use std::sync::Arc;

use futures::future::BoxFuture;
use polyphony_protocol::session::SessionOptions;
use tokio::sync::mpsc;

use crate::answer::Output;
use crate::errors::ApiError;
use crate::model_text::ModelText;
use crate::routes::{DeploymentRoute, RouteTable};
use crate::tally::Tally;

/// What answers prompts.
pub(crate) trait Sessions: Send + Sync + 'static {
    /// The models that there are at this moment.
    fn models(&self) -> Arc<RouteTable>;

    /// A model with its text side.
    ///
    /// # Errors
    /// 404 where there is none of that name, 503 where its file is not read and cannot be, or not before long, or the program ends, 500 where it is at fault.
    fn model<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Model, ApiError>>;

    /// Waits for a place, and begins to answer.
    ///
    /// # Errors
    /// 503 when nothing can answer or the model has changed, 429 when too many wait, 503 when no place came free in time.
    fn start(self: Arc<Self>, job: Job) -> BoxFuture<'static, Result<Answer, ApiError>>;
}

/// A model as a request meets it: its route at this moment, and its text side.
#[derive(Clone)]
pub(crate) struct Model {
    /// The model id of the route table.
    pub(crate) id: String,
    pub(crate) route: DeploymentRoute,
    pub(crate) text: Arc<ModelText>,
}

/// A prompt that is ready to be answered.
pub(crate) struct Job {
    /// The model id of the route table.
    pub(crate) model: String,
    /// Of the model file that the prompt's tokens are of.
    pub(crate) manifest_digest: String,
    pub(crate) text: Arc<ModelText>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) options: SessionOptions,
    pub(crate) stops: Vec<String>,
    pub(crate) tally: Arc<Tally>,
}

/// An answer as it comes. Dropping it cancels it.
pub(crate) struct Answer(mpsc::Receiver<Output>);

// === impl Answer ===

impl Answer {
    pub(crate) fn new(outputs: mpsc::Receiver<Output>) -> Self {
        Self(outputs)
    }

    /// What it says next. After the last word there is nothing more to ask for.
    pub(crate) async fn next(&mut self) -> Output {
        // A session ends without a last word only where a panic in it does it.
        let broke_off = || {
            let why = "the session ended without saying why: see the gateway's log, and send the request again";
            Output::Failed(ApiError::internal(why.to_owned()))
        };
        self.0.recv().await.unwrap_or_else(broke_off)
    }
}
