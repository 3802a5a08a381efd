//! Models: files that the host fetches where they are elsewhere, verifies once and then serves piece by piece.
//!
//! The digests of a model's files are taken once; the manifest is kept in the data folder under their identity (paths, lengths,
//! times of last change), so that a restart is quick. Decides nothing: `reconcile` asks for work and writes what came of it. Nothing here
//! waits for a disk but threads of its own.

pub mod fetch;
mod kept;
mod readings;
mod refusal;
pub mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use polyphony_api::ModelSource;
use polyphony_model::Manifest;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

pub use refusal::{Reason, Refusal};

use crate::secret::Secret;
use fetch::{FetchError, FetchSettings, FetchStep, Fetched, Order, Track};
use kept::{Identity, Kept};
use readings::{Pace, ReadingId, Readings, SIDE_BY_SIDE};
use source::{SourceError, path_of};

/// Fetched at a time, of those that get on: they share no server, and one that is slow holds back none.
const FETCHED_SIDE_BY_SIDE: usize = 16;
/// What cannot be asked for is left alone for so long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How often it is looked whether a file is still the one that was read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A model that is verified and served.
#[derive(Debug, PartialEq)]
pub struct Resolved {
    /// As its source names it: a file, a part of one, a pattern or a folder.
    pub path: PathBuf,
    pub manifest: Manifest,
    /// The exact bytes whose SHA-256 is `digest`.
    pub manifest_json: Bytes,
    pub digest: String,
}

/// What a Model object asks for. Its spec is immutable, so its uid names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub uid: String,
    pub source: String,
    pub sha256: Option<String>,
    /// What the source's revision stands for, once its status has kept it.
    pub commit: Option<String>,
    pub token: Option<TokenRef>,
}

/// Where the token of a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRef {
    pub namespace: String,
    pub secret: String,
    pub key: String,
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Its files are being fetched, or wait to be.
    Fetching {
        step: FetchStep,
        /// For seconds no byte has come.
        is_stalled: bool,
    },
    /// The commit that its source stands for, which has to be kept before anything of it is fetched.
    Named {
        commit: String,
    },
    /// The file is being read, or waits to be.
    Verifying,
    /// The file is being read, and for seconds no byte has come.
    Stalled {
        path: PathBuf,
    },
    Resolved(Arc<Resolved>),
    Refused(Refusal),
}

/// All models of this process.
pub struct ModelStore {
    kept: Kept,
    settings: FetchSettings,
    state: Mutex<State>,
    /// Woken when a model got further.
    pub changed: Notify,
}

struct State {
    /// By uid.
    entries: BTreeMap<String, Entry>,
    readings: Readings,
    fetches: Readings,
}

enum Entry {
    Fetching { id: ReadingId, track: Arc<Track> },
    Named(String),
    Reading { id: ReadingId, path: Option<PathBuf> },
    Done(Done),
}

struct Done {
    path: Option<PathBuf>,
    /// The files as they were when `outcome` was found.
    identity: Option<Identity>,
    outcome: Result<Arc<Resolved>, Refusal>,
    looked_at: Instant,
    /// A thread looks at the file, or hangs while it does.
    is_looked_at: bool,
    /// The file is another one by now.
    is_stale: bool,
    /// When to look whether what was refused is right by now; files of this host are looked at all the time.
    ask_again_at: Option<Instant>,
}

// === impl ModelStore ===

impl ModelStore {
    /// # Errors
    /// When the folder for manifests cannot be made.
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        Self::with_settings(folder, FetchSettings::default())
    }

    /// # Errors
    /// As [`ModelStore::new`].
    pub fn with_settings(folder: PathBuf, settings: FetchSettings) -> std::io::Result<Self> {
        let (readings, fetches) = (Readings::new(SIDE_BY_SIDE), Readings::new(FETCHED_SIDE_BY_SIDE));
        let state = State { entries: BTreeMap::new(), readings, fetches };
        Ok(Self { kept: Kept::new(folder)?, settings, state: Mutex::new(state), changed: Notify::new() })
    }

    /// How far the model with this uid is; `None` when nobody has asked for it, or its file is another one by now. Waits for no disk.
    pub fn progress(&self, uid: &str) -> Option<Progress> {
        let state = self.lock();
        match state.entries.get(uid)? {
            Entry::Fetching { id, track } => {
                Some(Progress::Fetching { step: track.step(), is_stalled: state.fetches.is_stalled(*id) })
            }
            Entry::Named(commit) => Some(Progress::Named { commit: commit.clone() }),
            Entry::Reading { id, path: Some(path) } if state.readings.is_stalled(*id) => {
                Some(Progress::Stalled { path: path.clone() })
            }
            Entry::Reading { .. } => Some(Progress::Verifying),
            Entry::Done(done) if done.is_stale => None,
            Entry::Done(done) => Some(match &done.outcome {
                Ok(resolved) => Progress::Resolved(resolved.clone()),
                Err(refusal) => Progress::Refused(refusal.clone()),
            }),
        }
    }

    /// The resolved model with this manifest digest.
    pub fn by_digest(&self, digest: &str) -> Option<Arc<Resolved>> {
        self.lock().entries.values().find_map(|entry| match entry {
            Entry::Done(Done { outcome: Ok(resolved), .. }) if resolved.digest == digest => Some(resolved.clone()),
            _ => None,
        })
    }

    /// Forgets every model but those with these uids and calls their readings off; looks after those that are read, and at the files of
    /// those that have been. To be called about every second.
    pub fn tend(self: &Arc<Self>, uids: &BTreeSet<String>, now: Instant) {
        let mut state = self.lock();
        let State { entries, readings, fetches } = &mut *state;
        entries.retain(|uid, entry| {
            let stays = uids.contains(uid);
            match entry {
                Entry::Reading { id, .. } if !stays => readings.call_off(*id),
                Entry::Fetching { id, .. } if !stays => fetches.call_off(*id),
                _ => {}
            }
            stays
        });
        readings.look(now);
        fetches.look(now);
        for (uid, entry) in entries.iter_mut() {
            let Entry::Done(done) = entry else { continue };
            done.is_stale |= done.ask_again_at.is_some_and(|at| now >= at);
            if let Some(path) = done.path.clone()
                && !done.is_looked_at
                && now.saturating_duration_since(done.looked_at) >= LOOK_EVERY
            {
                done.looked_at = now;
                done.is_looked_at = self.look_at(uid.clone(), path);
            }
        }
        self.start_next(&mut state, now);
    }

    /// Starts to fetch or verify a model, unless that goes on already. [`ModelStore::progress`] tells what came of it.
    pub fn resolve(self: &Arc<Self>, wanted: Wanted) {
        self.resolve_with_token(wanted, None);
    }

    /// The same with the token that its source asks for.
    pub fn resolve_with_token(self: &Arc<Self>, wanted: Wanted, token: Option<Secret>) {
        let now = Instant::now();
        let mut state = self.lock();
        if matches!(state.entries.get(&wanted.uid), Some(Entry::Reading { .. } | Entry::Fetching { .. })) {
            return;
        }
        let parsed = ModelSource::parse(&wanted.source).map_err(SourceError::from);
        let found = parsed.and_then(|source| Ok((path_of(&source, self.settings.cache.as_deref())?, source)));
        match found {
            Ok((Some(path), _)) => self.start_reading(&mut state, wanted, path),
            Ok((None, source)) => {
                let order = Order { source, commit: wanted.commit.clone(), token };
                let (store, of, track) = (self.clone(), wanted.clone(), Arc::new(Track::default()));
                let told = track.clone();
                let id = state.fetches.add(Box::new(move |pace| store.fetch(&of, &order, &told, &pace)));
                state.entries.insert(wanted.uid, Entry::Fetching { id, track });
            }
            Err(error) => {
                let outcome = Err(Refusal::of_source(&error));
                state.entries.insert(wanted.uid, Entry::Done(Done::new(None, None, outcome, now)));
                self.changed.notify_one();
            }
        }
        self.start_next(&mut state, now);
    }

    /// Refuses a model that cannot even be asked for, and asks again in a while.
    pub fn refuse(&self, wanted: Wanted, refusal: Refusal) {
        let now = Instant::now();
        let mut done = Done::new(None, None, Err(refusal), now);
        done.ask_again_at = Some(now + REFUSED_FOR);
        self.lock().entries.insert(wanted.uid, Entry::Done(done));
        self.changed.notify_one();
    }

    fn start_reading(self: &Arc<Self>, state: &mut State, wanted: Wanted, path: PathBuf) {
        let (store, of, read_from) = (self.clone(), wanted.clone(), path.clone());
        let id = state.readings.add(Box::new(move |pace| store.read(&of, read_from, &pace)));
        state.entries.insert(wanted.uid, Entry::Reading { id, path: Some(path) });
    }

    /// Fetches one model, on a thread of its own; what came is read as any other.
    fn fetch(self: &Arc<Self>, wanted: &Wanted, order: &Order, track: &Track, pace: &Pace) {
        let fetched = catch_unwind(AssertUnwindSafe(|| fetch::run(&self.settings, order, track, pace)));
        let fetched = fetched.unwrap_or_else(|_| {
            Some(Err(FetchError::Client { why: "it broke: report this as a bug, with the source".to_owned() }))
        });
        let now = Instant::now();
        let mut state = self.lock();
        state.fetches.end(pace.id());
        let is_wanted = matches!(state.entries.get(&wanted.uid), Some(Entry::Fetching { id, .. }) if *id == pace.id());
        if let (true, Some(fetched)) = (is_wanted, fetched) {
            match fetched {
                Ok(Fetched::Named(commit)) => drop(state.entries.insert(wanted.uid.clone(), Entry::Named(commit))),
                Ok(Fetched::There(path)) => self.start_reading(&mut state, wanted.clone(), path),
                Err(error) => {
                    let mut done = Done::new(None, None, Err(Refusal::of_fetch(&error)), now);
                    done.ask_again_at = error.ask_again_after().map(|pause| now + pause);
                    state.entries.insert(wanted.uid.clone(), Entry::Done(done));
                }
            }
        }
        self.start_next(&mut state, now);
        drop(state);
        self.changed.notify_one();
    }

    /// Reads one file, on a thread of its own.
    fn read(&self, wanted: &Wanted, path: PathBuf, pace: &Pace) {
        // Known of a file that breaks the reading, too, or it would be read again for ever.
        let identity = Identity::of(&path);
        let verified =
            catch_unwind(AssertUnwindSafe(|| self.verify(&path, identity.as_ref(), wanted.sha256.as_deref(), pace)));
        let outcome = verified.unwrap_or_else(|_| Err(Refusal::of_panic(&wanted.source)));
        let now = Instant::now();
        let mut state = self.lock();
        state.readings.end(pace.id());
        if matches!(state.entries.get(&wanted.uid), Some(Entry::Reading { id, .. }) if *id == pace.id()) {
            state.entries.insert(wanted.uid.clone(), Entry::Done(Done::new(Some(path), identity, outcome, now)));
        }
        self.start_next(&mut state, now);
        drop(state);
        self.changed.notify_one();
    }

    fn start_next(&self, state: &mut State, now: Instant) {
        while let Err((failed, error)) = state.fetches.start_next(now) {
            for entry in state.entries.values_mut() {
                if matches!(entry, Entry::Fetching { id, .. } if *id == failed) {
                    let mut done = Done::new(None, None, Err(Refusal::of_thread(&error)), now);
                    done.ask_again_at = Some(now + REFUSED_FOR);
                    *entry = Entry::Done(done);
                }
            }
        }
        while let Err((failed, error)) = state.readings.start_next(now) {
            for entry in state.entries.values_mut() {
                if let Entry::Reading { id, path } = entry
                    && *id == failed
                {
                    *entry = Entry::Done(Done::new(path.take(), None, Err(Refusal::of_thread(&error)), now));
                }
            }
        }
    }

    /// Whether the file is still the one that was read: asked on a thread, since even that can hang. Says whether that was begun.
    fn look_at(self: &Arc<Self>, uid: String, path: PathBuf) -> bool {
        let store = self.clone();
        let looked = std::thread::Builder::new().name("model-look".to_owned()).spawn(move || {
            let found = Identity::of(&path);
            let mut state = store.lock();
            let Some(Entry::Done(done)) = state.entries.get_mut(&uid) else { return };
            done.is_looked_at = false;
            if done.path.as_ref() == Some(&path) && done.identity != found {
                done.is_stale = true;
                store.changed.notify_one();
            }
        });
        if let Err(error) = &looked {
            tracing::warn!(%error, "no thread could be started to look at a model file; give the controller more");
        }
        looked.is_ok()
    }

    /// Reads the file, or the manifest that was made of it before.
    fn verify(
        &self,
        path: &Path,
        identity: Option<&Identity>,
        sha256: Option<&str>,
        pace: &Pace,
    ) -> Result<Arc<Resolved>, Refusal> {
        let known = identity.and_then(|identity| self.kept.find(path, identity));
        let is_new = known.is_none();
        let mut go_on = |n_bytes| match pace.note(n_bytes) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let manifest = match known {
            Some(manifest) => manifest,
            None => Manifest::build_with_progress(path, &mut go_on).map_err(|error| Refusal::of_files(&error))?,
        };
        let manifest_json = serde_json::to_vec(&manifest).map_err(|error| Refusal {
            reason: Reason::InvalidFile,
            message: format!("{} gives no manifest: {error}; convert the model anew", path.display()),
        })?;
        if let (true, Some(identity)) = (is_new, identity) {
            self.kept.keep(path, identity, &manifest_json);
        }
        if let Some(expected) = sha256
            && manifest.file_sha256() != expected
        {
            return Err(Refusal::of_digest(path, &manifest.file_sha256(), expected));
        }
        let digest = hex::encode(Sha256::digest(&manifest_json));
        Ok(Arc::new(Resolved { path: path.to_owned(), manifest, manifest_json: manifest_json.into(), digest }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are replaced whole, so a panic elsewhere leaves none half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Done ===

impl Done {
    fn new(
        path: Option<PathBuf>,
        identity: Option<Identity>,
        outcome: Result<Arc<Resolved>, Refusal>,
        now: Instant,
    ) -> Self {
        Self { path, identity, outcome, looked_at: now, is_looked_at: false, is_stale: false, ask_again_at: None }
    }
}

/// The bytes of each layer that a model status lists.
pub fn layer_bytes(manifest: &Manifest) -> Vec<u64> {
    let mut of_layer: HashMap<u32, u64> = HashMap::new();
    for tensor in &manifest.tensors {
        if let Some(layer) = tensor.layer {
            *of_layer.entry(layer).or_default() += tensor.n_bytes;
        }
    }
    (0..manifest.hyperparameters.n_layers).map(|layer| of_layer.get(&layer).copied().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests;
