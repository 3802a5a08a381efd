//! Fetching: models that lie on a hub or a web server, brought into the cache by a thread of its own.
//!
//! First a revision is resolved to a commit, which whoever asked keeps; then the files of that commit are fetched, and what is there is
//! never asked for again. Verifies digests as the source has them; whether it is a model is for others to say.

mod addresses;
mod choice;
mod client;
mod digest;
mod download;
mod error;
mod guard;
mod hub;
mod listing;
mod settings;
mod space;
mod track;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyphony_api::ModelSource;
use polyphony_api::model_source::{HubSource, is_path_within};
use reqwest::Url;

pub use settings::{DEFAULT_ENDPOINT, EndpointError, FetchSettings, parse_endpoint};
pub use track::{Bytes, FetchStep};

pub(super) use error::FetchError;
pub(super) use track::Track;

use super::readings::Pace;
use super::source::{SourceError, cache_folders, hub_folder, web_folder};
use crate::secret::Secret;
use client::{Answer, Client};
use download::Download;
use hub::{Hub, status_error};
use track::Meter;

/// No failing source is left alone for longer, but where it asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to be fetched.
pub(super) struct Order {
    pub source: ModelSource,
    /// What the revision of a source of a hub stands for, once that is kept.
    pub commit: Option<String>,
    pub token: Option<Secret>,
}

/// What came of it.
pub(super) enum Fetched {
    /// The commit that is to be kept before anything is fetched of it.
    Named(String),
    /// Where the model lies.
    There(PathBuf),
}

/// One fetch under way.
struct Fetch<'a> {
    settings: &'a FetchSettings,
    order: &'a Order,
    client: Client,
    meter: Meter<'a>,
    pauses: Pauses,
}

/// How long to wait before asking again.
struct Pauses {
    first: Duration,
    n_failed: u32,
}

/// Fetches on this thread until it is done, refused, or called off, which gives `None`.
pub(super) fn run(
    settings: &FetchSettings,
    order: &Order,
    track: &Track,
    pace: &Pace,
) -> Option<Result<Fetched, FetchError>> {
    // Of its own, so that no shutdown waits for a disk, and no disk holds up what else runs.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(Err(FetchError::Client { why: error.to_string() })),
    };
    let fetching = async {
        let client = Client::new(settings)?;
        let pauses = Pauses { first: settings.first_pause, n_failed: 0 };
        Fetch { settings, order, client, meter: Meter::new(track, pace), pauses }.all().await
    };
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            () = pace.called_off() => None,
            result = fetching => Some(result),
        }
    });
    runtime.shutdown_background();
    result
}

// === impl Fetch ===

impl Fetch<'_> {
    async fn all(&mut self) -> Result<Fetched, FetchError> {
        match &self.order.source {
            ModelSource::Hub(source) => self.hub_model(source).await,
            ModelSource::Https(url) => self.web_model(url).await,
            source => Err(SourceError::Remote { source_text: source.to_string() }.into()),
        }
    }

    async fn hub_model(&mut self, source: &HubSource) -> Result<Fetched, FetchError> {
        let Some(commit) = &self.order.commit else { return self.commit(source).await.map(Fetched::Named) };
        let folder = self.folder(&hub_folder(source, commit))?;
        let _lock = self.lock(&folder).await?;
        let listed = match listing::find(&folder, commit) {
            Some(listed) => listed,
            None => {
                let listed = self.files_of(source, commit).await?;
                listing::keep(&folder, commit, &listed)?;
                listed
            }
        };
        let chosen = choice::choose(source, &listed)?;
        let n_total = chosen.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.n_bytes));
        let endpoint = self.settings.endpoint.clone();
        let token = self.order.token.as_ref();
        self.meter.begin(Some(n_total), chosen.note.clone());
        let mut n_missing = 0_u64;
        for is_counted in [true, false] {
            for file in &chosen.files {
                let hub = Hub { client: &self.client, endpoint: &endpoint, token, source };
                let download = Download {
                    client: &self.client,
                    url: hub.file_url(commit, &file.path),
                    token,
                    path: folder.join(&file.path),
                    name: file.path.clone(),
                    n_bytes: Some(file.n_bytes),
                    digest: file.digest.clone(),
                    is_by_tag: false,
                };
                if download.is_there() {
                    if !is_counted {
                        self.meter.end(file.n_bytes);
                    }
                } else if is_counted {
                    n_missing = n_missing.saturating_add(download.n_missing());
                } else {
                    fetch_one(&download, |answer| hub.accept(answer), &mut self.meter, &mut self.pauses).await?;
                }
            }
            if is_counted {
                space::check(&folder, n_missing)?;
            }
        }
        Ok(Fetched::There(chosen.entry.map_or_else(|| folder.clone(), |entry| folder.join(entry))))
    }

    async fn commit(&mut self, source: &HubSource) -> Result<String, FetchError> {
        loop {
            let endpoint = &self.settings.endpoint;
            let hub = Hub { client: &self.client, endpoint, token: self.order.token.as_ref(), source };
            match hub.commit().await {
                Err(error) if error.passes() => self.pauses.wait(&error, &mut self.meter).await,
                result => return result,
            }
        }
    }

    async fn files_of(&mut self, source: &HubSource, commit: &str) -> Result<Vec<listing::Listed>, FetchError> {
        loop {
            let endpoint = &self.settings.endpoint;
            let hub = Hub { client: &self.client, endpoint, token: self.order.token.as_ref(), source };
            match hub.files(commit).await {
                Err(error) if error.passes() => self.pauses.wait(&error, &mut self.meter).await,
                result => return result,
            }
        }
    }

    async fn web_model(&mut self, text: &str) -> Result<Fetched, FetchError> {
        let wrong = || polyphony_api::model_source::SourceError::Https { source_text: text.to_owned() };
        let url = Url::parse(text).map_err(|_| SourceError::from(wrong()))?;
        let folder = self.folder(&web_folder(text))?;
        let _lock = self.lock(&folder).await?;
        self.meter.begin(None, None);
        let names = names_of(&url);
        for name in &names {
            let mut url = url.clone();
            if names.len() > 1
                && let Ok(mut parts) = url.path_segments_mut()
            {
                parts.pop().push(name);
            }
            let download = Download {
                client: &self.client,
                url: url.clone(),
                token: self.order.token.as_ref(),
                path: folder.join(name),
                name: name.clone(),
                n_bytes: None,
                digest: None,
                is_by_tag: true,
            };
            if download.is_there() {
                continue;
            }
            let has_token = self.order.token.is_some();
            let accept = |answer: Answer| match answer.response.status() {
                status if status.is_success() || status == reqwest::StatusCode::RANGE_NOT_SATISFIABLE => Ok(answer),
                status => Err(status_error(status, &answer.url, has_token, None)),
            };
            fetch_one(&download, accept, &mut self.meter, &mut self.pauses).await?;
        }
        Ok(Fetched::There(folder.join(&names[0])))
    }

    /// A folder of the cache.
    fn folder(&self, name: &str) -> Result<PathBuf, FetchError> {
        let no_cache = || SourceError::NoCache { source_text: self.order.source.to_string() };
        let cache = self.settings.cache.as_deref().ok_or_else(no_cache)?;
        let [_, downloads] = cache_folders(cache);
        let folder = downloads.join(name);
        std::fs::create_dir_all(&folder).map_err(|source| FetchError::disk(&folder, source))?;
        Ok(folder)
    }

    /// Two Models may mean files of one folder: they write there one after the other. The lock goes with its file.
    async fn lock(&mut self, folder: &Path) -> Result<File, FetchError> {
        let path = folder.join(".lock");
        let file = File::create(&path).map_err(|source| FetchError::disk(&path, source))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    let error = FetchError::InUse { folder: folder.to_owned() };
                    self.meter.wait(&error, self.settings.first_pause);
                    tokio::time::sleep(self.settings.first_pause).await;
                    self.meter.go_on();
                }
                Err(TryLockError::Error(source)) => return Err(FetchError::disk(&path, source)),
            }
        }
    }
}

/// Fetches a file by as many attempts as it takes.
async fn fetch_one(
    download: &Download<'_>,
    accept: impl Fn(Answer) -> Result<Answer, FetchError>,
    meter: &mut Meter<'_>,
    pauses: &mut Pauses,
) -> Result<(), FetchError> {
    loop {
        match download.attempt(&accept, meter).await {
            Ok(n_bytes) => {
                pauses.n_failed = 0;
                meter.end(n_bytes);
                return Ok(());
            }
            Err(error) if error.passes() => {
                // What gets on is not made to wait longer and longer.
                if matches!(&error, FetchError::BrokeOff { n_bytes: 1.., .. }) {
                    pauses.n_failed = 0;
                }
                pauses.wait(&error, meter).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The file that an address names, and all others where it is a part.
fn names_of(url: &Url) -> Vec<String> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    if !is_path_within(&name) || name.contains('/') || name.starts_with('.') {
        return vec!["model.gguf".to_owned()];
    }
    match name.strip_suffix(".gguf").and_then(choice::part) {
        Some((stem, _, count)) => (1..=count).map(|idx| format!("{stem}-{idx:05}-of-{count:05}.gguf")).collect(),
        None => vec![name],
    }
}

// === impl Pauses ===

impl Pauses {
    async fn wait(&mut self, error: &FetchError, meter: &mut Meter<'_>) {
        let pause = error.retry_after().unwrap_or_else(|| self.own());
        self.n_failed = self.n_failed.saturating_add(1);
        tracing::warn!(%error, seconds = pause.as_secs_f64(), "a model's source is asked again in a while");
        meter.wait(error, pause);
        tokio::time::sleep(pause).await;
        meter.go_on();
    }

    fn own(&self) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(self.n_failed)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_names_a_file_or_all_parts_of_one() {
        let names = |url: &str| names_of(&url.parse().unwrap());
        assert_eq!(names("https://h/a/m%20b.gguf?x=1"), ["m b.gguf"]);
        assert_eq!(names("https://h/m-00002-of-00002.gguf"), ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
        assert_eq!(names("https://h/a%2Fb"), ["model.gguf"]);
        assert_eq!(names("https://h/%2e%2e%2fx"), ["model.gguf"]);
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let pauses = |n_failed| Pauses { first: Duration::from_secs(1), n_failed }.own().as_secs();
        assert_eq!([0, 1, 3, 6, 60].map(pauses), [1, 2, 8, 60, 60]);
    }
}
