//! Questions to the gateway, answered in one piece or as server-sent events.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The OpenAI-compatible endpoint of a shelf.
#[derive(Clone)]
pub struct Gateway {
    client: reqwest::Client,
    base: String,
}

/// An answer that is read piece by piece.
pub struct Pieces {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

// === impl Gateway ===

impl Gateway {
    /// # Errors
    /// When the HTTP client cannot start.
    pub fn new(base: &str) -> Result<Self> {
        polyphony_wire::take_ring();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(300)).build()?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned() })
    }

    /// Posts a body; status and answer.
    ///
    /// # Errors
    /// When nothing or no JSON comes back.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let response = self.client.post(format!("{}{path}", self.base)).json(body).send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let value = serde_json::from_str(&text).with_context(|| format!("{path} answered {status}: {text}"))?;
        Ok((status, value))
    }

    /// Posts a body as it is; status and text.
    ///
    /// # Errors
    /// When nothing comes back.
    pub async fn post_text(&self, path: &str, body: &str) -> Result<(u16, String)> {
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// # Errors
    /// When nothing comes back.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let response = self.client.get(format!("{}{path}", self.base)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Posts a body with `"stream": true`.
    ///
    /// # Errors
    /// When the answer is no stream.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Pieces> {
        let response = self.client.post(format!("{}{path}", self.base)).json(body).send().await?;
        if !response.status().is_success() {
            bail!("{path} answered {}: {}", response.status(), response.text().await?);
        }
        Ok(Pieces { response, buffer: Vec::new() })
    }
}

// === impl Pieces ===

impl Pieces {
    /// The next event's JSON; `None` after `[DONE]`.
    ///
    /// # Errors
    /// When the stream ends before `[DONE]`.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8(event)?;
                let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
                match data.as_str() {
                    "" => continue,
                    "[DONE]" => return Ok(None),
                    json => return Ok(Some(serde_json::from_str(json)?)),
                }
            }
            let piece = self.response.chunk().await?.context("the stream ended before [DONE]")?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}
