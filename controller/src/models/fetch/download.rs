//! A download: one file, whose bytes are digested as they come, begun where the last attempt broke off, and put in its place whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap};
use reqwest::{Method, Response, StatusCode, Url};

use super::client::{Answer, Ask, Client, causes};
use super::digest::{Expected, Taking, linked_size};
use super::error::FetchError;
use super::guard::shown;
use super::space;
use super::track::Meter;
use crate::secret::Secret;

/// What already lies there is read so many bytes at a time.
const READ_BYTES: usize = 1 << 20;

/// One file, wherever it comes from.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub url: Url,
    pub token: Option<&'a Secret>,
    /// Where it goes.
    pub path: PathBuf,
    /// As people know it.
    pub name: String,
    pub n_bytes: Option<u64>,
    pub digest: Option<Expected>,
    /// Whether it may be gone on with only if its entity tag is still the same: nothing else tells one state of it from another.
    pub is_by_tag: bool,
}

/// What is there of a file.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    taking: Option<Taking>,
    is_resumed: bool,
}

// === impl Download ===

impl Download<'_> {
    /// Whether the file is there, whole: it is put there only so.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.is_file() && self.n_bytes.is_none_or(|len| len == found.len()))
    }

    /// Bytes that are still to come, where it is known.
    pub(super) fn n_missing(&self) -> u64 {
        let there = fs::metadata(self.part_path()).map_or(0, |found| found.len());
        self.n_bytes.unwrap_or(0).saturating_sub(there)
    }

    /// Goes on where the last attempt broke off; gives the file's length.
    ///
    /// # Errors
    /// Of which those that pass are worth another attempt.
    pub(super) async fn attempt(
        &self,
        accept: impl Fn(Answer) -> Result<Answer, FetchError>,
        meter: &mut Meter<'_>,
    ) -> Result<u64, FetchError> {
        meter.file(&self.name);
        let mut part = self.open_part(meter)?;
        if part.len > 0 && self.n_bytes == Some(part.len) && self.digest.is_some() {
            return self.finish(part, self.digest.as_ref());
        }
        let tag = self.tag_of(&part);
        let ask = Ask {
            method: Method::GET,
            url: self.url.clone(),
            token: self.token,
            from: part.len,
            if_range: tag.as_deref().filter(|_| self.is_by_tag),
        };
        let Answer { mut response, first, url } = accept(self.client.send(&ask).await?)?;
        let digest = self.agreed_digest(&first)?;
        let n_total = self.place(&mut part, &response, digest.as_ref())?;
        if let (None, Some(n_total)) = (self.n_bytes, n_total) {
            meter.learn_total(n_total);
            space::check(&self.folder(), n_total.saturating_sub(part.len))?;
        }
        self.keep_tag(&response)?;
        let broke_off = |n_bytes: u64, why: String| FetchError::BrokeOff { url: shown(&url), n_bytes, why };
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(broke_off(part.len, causes(&error.without_url()))),
            };
            if n_total.is_some_and(|n_total| part.len + chunk.len() as u64 > n_total) {
                part.remove();
                return Err(self.contradiction(format!("{} bytes", n_total.unwrap_or(0)), "more than that".to_owned()));
            }
            part.add(&chunk)?;
            meter.note(part.len);
        }
        match n_total {
            Some(n_total) if part.len < n_total => Err(broke_off(part.len, format!("{n_total} were announced"))),
            _ => self.finish(part, digest.as_ref()),
        }
    }

    fn open_part(&self, meter: &mut Meter<'_>) -> Result<Part, FetchError> {
        let path = self.part_path();
        let disk = |source| FetchError::disk(&path, source);
        fs::create_dir_all(self.folder()).map_err(disk)?;
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(disk)?;
        let len = file.metadata().map_err(disk)?.len();
        let taking = self.digest.as_ref().map(|digest| digest.take(self.n_bytes.unwrap_or(0)));
        let mut part = Part { path: path.clone(), file, len, taking, is_resumed: len > 0 };
        // What is too long, or of a state that nothing names, is begun anew.
        let is_useless = self.n_bytes.is_some_and(|n_bytes| len > n_bytes)
            || (self.digest.is_none() && self.n_bytes.is_some())
            || (self.is_by_tag && self.tag_of(&part).is_none());
        if is_useless {
            part.restart(self.digest.as_ref(), self.n_bytes)?;
        } else {
            part.digest_what_is_there(meter)?;
        }
        Ok(part)
    }

    /// Makes the part fit the answer; gives the length of the whole.
    fn place(
        &self,
        part: &mut Part,
        response: &Response,
        digest: Option<&Expected>,
    ) -> Result<Option<u64>, FetchError> {
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            part.remove();
            return Err(FetchError::BrokeOff {
                url: shown(&self.url),
                n_bytes: 0,
                why: "there is no such range of it, so that it is begun anew".to_owned(),
            });
        }
        let range =
            (response.status() == StatusCode::PARTIAL_CONTENT).then(|| content_range(response.headers())).flatten();
        match range {
            Some((from, whole)) if from == part.len => {
                if let (Some(said), Some(whole)) = (self.n_bytes, whole)
                    && said != whole
                {
                    return Err(self.contradiction(format!("{said} bytes"), format!("{whole} bytes")));
                }
                Ok(self.n_bytes.or(whole))
            }
            Some((from, _)) if part.len > 0 => {
                part.remove();
                let why = format!("it goes on at {from}, where byte {} was asked for; it is begun anew", part.len);
                Err(FetchError::BrokeOff { url: shown(&self.url), n_bytes: 0, why })
            }
            _ => {
                part.restart(digest, self.n_bytes)?;
                Ok(self.n_bytes.or(response.content_length()))
            }
        }
    }

    /// What the listing says, or else the answer; never two things.
    fn agreed_digest(&self, first: &HeaderMap) -> Result<Option<Expected>, FetchError> {
        let said = if self.is_by_tag { None } else { Expected::of_headers(first) };
        if let (Some(n_bytes), Some(said)) = (self.n_bytes, linked_size(first).filter(|_| !self.is_by_tag))
            && said != n_bytes
        {
            return Err(self.contradiction(format!("{n_bytes} bytes"), format!("{said} bytes")));
        }
        match (&self.digest, said) {
            (Some(listed), Some(said)) if listed.kind() == said.kind() && *listed != said => {
                Err(self.contradiction(listed.to_string(), said.to_string()))
            }
            (Some(listed), _) => Ok(Some(listed.clone())),
            (None, said) => Ok(said),
        }
    }

    fn finish(&self, mut part: Part, digest: Option<&Expected>) -> Result<u64, FetchError> {
        if let (Some(expected), Some(taking)) = (digest, part.taking.take()) {
            let found = taking.hex();
            if found != expected.hex() {
                part.remove();
                // What lay there may be to blame: it comes whole once.
                if part.is_resumed {
                    let why = format!("its {} is {found}, so that it is begun anew", expected.kind());
                    return Err(FetchError::BrokeOff { url: shown(&self.url), n_bytes: 0, why });
                }
                return Err(FetchError::Digest {
                    url: self.url.origin().ascii_serialization(),
                    file: self.name.clone(),
                    kind: expected.kind(),
                    expected: expected.hex().to_owned(),
                    found,
                });
            }
        }
        let disk = |source| FetchError::disk(&self.path, source);
        part.file.sync_all().and_then(|()| fs::rename(&part.path, &self.path)).map_err(disk)?;
        let _ = fs::remove_file(self.tag_path());
        Ok(part.len)
    }

    fn contradiction(&self, first: String, second: String) -> FetchError {
        let url = self.url.origin().ascii_serialization();
        FetchError::Contradiction { url, file: self.name.clone(), first, second }
    }

    fn folder(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).to_owned()
    }

    fn part_path(&self) -> PathBuf {
        with_ending(&self.path, ".part")
    }

    fn tag_path(&self) -> PathBuf {
        with_ending(&self.path, ".part.tag")
    }

    /// The entity tag of what is there of the file.
    fn tag_of(&self, part: &Part) -> Option<String> {
        if !self.is_by_tag || part.len == 0 {
            return None;
        }
        fs::read_to_string(self.tag_path()).ok().filter(|tag| !tag.is_empty())
    }

    fn keep_tag(&self, response: &Response) -> Result<(), FetchError> {
        if !self.is_by_tag {
            return Ok(());
        }
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).filter(|tag| !tag.starts_with("W/"));
        let path = self.tag_path();
        fs::write(&path, tag.unwrap_or_default()).map_err(|source| FetchError::disk(&path, source))
    }
}

// === impl Part ===

impl Part {
    /// Reads what an earlier attempt left.
    fn digest_what_is_there(&mut self, meter: &mut Meter<'_>) -> Result<(), FetchError> {
        let Some(taking) = self.taking.as_mut().filter(|_| self.len > 0) else { return Ok(()) };
        let mut bytes = vec![0; READ_BYTES];
        let mut n_read = 0;
        let mut from = File::open(&self.path).map_err(|source| FetchError::disk(&self.path, source))?;
        while n_read < self.len {
            let n = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(FetchError::disk(&self.path, source)),
            };
            taking.update(&bytes[..n]);
            n_read += n as u64;
            meter.note(n_read);
        }
        self.len = n_read;
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|source| FetchError::disk(&self.path, source))?;
        if let Some(taking) = &mut self.taking {
            taking.update(bytes);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, digest: Option<&Expected>, n_bytes: Option<u64>) -> Result<(), FetchError> {
        self.file.set_len(0).map_err(|source| FetchError::disk(&self.path, source))?;
        self.len = 0;
        self.is_resumed = false;
        self.taking = digest.map(|digest| digest.take(n_bytes.unwrap_or(0)));
        Ok(())
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// `bytes 100-199/200`: the first byte, and the length of the whole where it is said.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, whole.trim().parse().ok()))
}
