//! The OpenAI-compatible endpoint as a client sees it: a chat request, and the stream of its answer.

use std::time::Instant;

use futures::StreamExt;
use polyphony_controller::proxy;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure;

/// The longest line of a stream that is read; a token is far below it.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    pub role: &'static str,
    pub content: String,
}

/// What an answer is wanted to.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// A chat, which the model's template makes a text of.
    Chat(&'a [Message]),
    /// A text that is gone on with.
    Text(&'a str),
}

/// How the answer is drawn; what is absent is the server's to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub min_p: Option<f32>,
    pub top_p: Option<f32>,
    pub seed: Option<i64>,
}

/// An answer that has ended.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    pub finish_reason: Option<String>,
    pub timing: Timing,
}

/// When tokens came.
#[derive(Clone, Debug)]
pub struct Timing {
    pub asked: Instant,
    pub first_token: Option<Instant>,
    pub last_token: Option<Instant>,
    pub n_tokens: u64,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error(
        "{url} cannot be reached: {detail}: is the control plane up? `polyctl up` starts it, --url names another endpoint"
    )]
    Unreachable { url: String, detail: String },
    #[error("{url} answered {status}: {message}")]
    Refused {
        url: String,
        status: u16,
        message: String,
        /// Such as `context_length_exceeded`.
        code: Option<String>,
    },
    #[error("the answer broke off after {n_tokens} tokens: {detail}")]
    BrokenOff { n_tokens: u64, detail: String },
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

/// A client for the endpoint at `base_url`. What the cluster itself named is reached without a proxy, as this machine is;
/// anything else as the environment says.
///
/// # Errors
/// [`ChatError::Unreachable`] when there can be none, such as for a proxy that is no URL.
pub fn client(base_url: &str, told_by_cluster: bool) -> Result<reqwest::Client, ChatError> {
    polyphony_wire::take_ring();
    let builder = reqwest::Client::builder()
        .user_agent(crate::server::user_agent())
        .connect_timeout(std::time::Duration::from_secs(10));
    let is_here = reqwest::Url::parse(base_url).is_ok_and(|url| url.host_str().is_some_and(proxy::is_loopback));
    let builder = if told_by_cluster || is_here { builder.no_proxy() } else { builder };
    builder
        .build()
        .map_err(|error| ChatError::Unreachable { url: base_url.to_owned(), detail: failure::root_cause(&error) })
}

/// Asks, and hands each piece of the answer's text to `show` as it comes.
///
/// # Errors
/// [`ChatError`] where the endpoint refuses or the stream ends early, or the error of `show`.
pub async fn ask(
    client: &reqwest::Client,
    base_url: &str,
    model: &str,
    prompt: Prompt<'_>,
    sampling: &Sampling,
    mut show: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Answer, ChatError> {
    let route = match prompt {
        Prompt::Chat(_) => "chat/completions",
        Prompt::Text(_) => "completions",
    };
    let url = format!("{}/{route}", base_url.trim_end_matches('/'));
    let unreachable =
        |error: reqwest::Error| ChatError::Unreachable { url: url.clone(), detail: failure::root_cause(&error) };
    let asked = Instant::now();
    let response = client.post(&url).json(&body(model, prompt, sampling)).send().await.map_err(unreachable)?;
    let status = response.status();
    if !status.is_success() {
        let text = response.text().await.unwrap_or_default();
        let told = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let of_error = |field: &str| told["error"][field].as_str().map(str::to_owned);
        let (message, code) = (of_error("message").unwrap_or(text), of_error("code"));
        return Err(ChatError::Refused { url, status: status.as_u16(), message, code });
    }
    let timing = Timing { asked, first_token: None, last_token: None, n_tokens: 0 };
    let mut answer = Answer { text: String::new(), finish_reason: None, timing };
    let mut lines = Lines::default();
    let mut stream = response.bytes_stream();
    while let Some(bytes) = stream.next().await {
        let broken =
            |detail: String, answer: &Answer| ChatError::BrokenOff { n_tokens: answer.timing.n_tokens, detail };
        let bytes = bytes.map_err(|error| broken(failure::root_cause(&error), &answer))?;
        for data in lines.feed(&bytes).map_err(|detail| broken(detail, &answer))? {
            if data == "[DONE]" {
                return Ok(answer);
            }
            let chunk: Value = serde_json::from_str(&data)
                .map_err(|error| broken(format!("a chunk is not JSON: {error}"), &answer))?;
            if let Some(message) = chunk["error"]["message"].as_str() {
                return Err(broken(message.to_owned(), &answer));
            }
            answer.take(&chunk, &mut show)?;
        }
    }
    Err(ChatError::BrokenOff { n_tokens: answer.timing.n_tokens, detail: "the stream ended without [DONE]".to_owned() })
}

fn body(model: &str, prompt: Prompt<'_>, sampling: &Sampling) -> Value {
    let mut body = json!({"model": model, "stream": true, "stream_options": {"include_usage": true}});
    match prompt {
        Prompt::Chat(messages) => body["messages"] = json!(messages),
        Prompt::Text(text) => body["prompt"] = json!(text),
    }
    let options = [
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("min_p", sampling.min_p.map(Value::from)),
        ("top_p", sampling.top_p.map(Value::from)),
        ("seed", sampling.seed.map(Value::from)),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

// === impl Answer ===

impl Answer {
    fn take(&mut self, chunk: &Value, show: &mut impl FnMut(&str) -> std::io::Result<()>) -> std::io::Result<()> {
        let choice = &chunk["choices"][0];
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            let now = Instant::now();
            self.timing.first_token.get_or_insert(now);
            self.timing.last_token = Some(now);
            // Until the usage comes, a piece counts as a token.
            self.timing.n_tokens += 1;
            self.text.push_str(text);
            show(text)?;
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        if let Some(n_tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            self.timing.n_tokens = n_tokens;
        }
        Ok(())
    }
}

// === impl Timing ===

impl Timing {
    /// `37 tokens · 9.1 tokens/s · time to first token 0.84 s`. The speed is that of decoding: the first token is prefill's.
    pub fn summary(&self) -> String {
        let noun = if self.n_tokens == 1 { "token" } else { "tokens" };
        let mut parts = vec![format!("{} {noun}", self.n_tokens)];
        if let (Some(first), Some(last)) = (self.first_token, self.last_token) {
            let seconds = last.duration_since(first).as_secs_f64();
            if self.n_tokens > 1 && seconds > 0.0 {
                parts.push(format!("{:.1} tokens/s", (self.n_tokens - 1) as f64 / seconds));
            }
            parts.push(format!("time to first token {:.2} s", first.duration_since(self.asked).as_secs_f64()));
        }
        parts.join(" · ")
    }
}

/// Cuts a stream of server-sent events into the data of its events.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

// === impl Lines ===

impl Lines {
    /// The data of every event that `bytes` completes.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(data) = line.trim_end().strip_prefix("data:") {
                events.push(data.trim_start().to_owned());
            }
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            return Err(format!("a line of the stream is over {MAX_LINE_BYTES} bytes"));
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_are_cut_wherever_the_bytes_are() {
        let stream = "data: {\"a\": \"é\"}\r\n\r\n: ping\n\nevent: x\ndata:[DONE]\n\n".as_bytes();
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut events = lines.feed(&stream[..cut]).unwrap();
            events.extend(lines.feed(&stream[cut..]).unwrap());
            assert_eq!(events, ["{\"a\": \"é\"}", "[DONE]"], "cut at {cut}");
        }
        assert!(Lines::default().feed(&vec![b'x'; MAX_LINE_BYTES + 1]).is_err());
    }

    #[test]
    fn the_request_says_only_what_was_asked() {
        let messages = [Message { role: "user", content: "hi".into() }];
        let plain = body("m", Prompt::Chat(&messages), &Sampling::default());
        assert_eq!(plain["messages"], json!([{"role": "user", "content": "hi"}]));
        assert_eq!((plain.get("seed"), plain.get("max_tokens")), (None, None));
        let sampling =
            Sampling { max_tokens: Some(5), temperature: Some(0.5), min_p: Some(0.25), top_p: None, seed: Some(7) };
        let full = body("m", Prompt::Text("hi"), &sampling);
        assert_eq!((full.get("messages"), &full["prompt"]), (None, &json!("hi")));
        assert_eq!((&full["max_tokens"], &full["temperature"], &full["seed"]), (&json!(5), &json!(0.5), &json!(7)));
        assert_eq!((&full["min_p"], full.get("top_p")), (&json!(0.25), None));
    }

    #[test]
    fn pieces_of_chats_and_of_texts_are_taken() {
        let timing = Timing { asked: Instant::now(), first_token: None, last_token: None, n_tokens: 0 };
        let mut answer = Answer { text: String::new(), finish_reason: None, timing };
        let chunks = [
            json!({"choices": [{"delta": {"role": "assistant"}}]}),
            json!({"choices": [{"delta": {"content": "a"}}]}),
            json!({"choices": [{"text": "b", "finish_reason": "length"}]}),
            json!({"choices": [], "usage": {"completion_tokens": 7}}),
        ];
        for chunk in &chunks {
            answer.take(chunk, &mut |_| Ok(())).unwrap();
        }
        assert_eq!((answer.text.as_str(), answer.finish_reason.as_deref()), ("ab", Some("length")));
        assert_eq!(answer.timing.n_tokens, 7);
    }

    #[test]
    fn an_answer_is_summed_up_from_its_tokens_and_times() {
        let asked = Instant::now();
        let timing = Timing {
            asked,
            first_token: Some(asked + Duration::from_millis(840)),
            last_token: Some(asked + Duration::from_millis(4840)),
            n_tokens: 37,
        };
        assert_eq!(timing.summary(), "37 tokens · 9.0 tokens/s · time to first token 0.84 s");
        let none = Timing { asked, first_token: None, last_token: None, n_tokens: 0 };
        assert_eq!(none.summary(), "0 tokens");
    }

    #[test]
    fn chunks_become_text_usage_and_reason() {
        let mut answer = Answer {
            text: String::new(),
            finish_reason: None,
            timing: Timing { asked: Instant::now(), first_token: None, last_token: None, n_tokens: 0 },
        };
        let mut shown = Vec::new();
        for chunk in [
            json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
            json!({"choices": [{"delta": {"content": "Par"}}]}),
            json!({"choices": [{"delta": {"content": "is"}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": {"completion_tokens": 3}}),
        ] {
            answer
                .take(&chunk, &mut |text| {
                    shown.push(text.to_owned());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(
            (answer.text.as_str(), answer.finish_reason.as_deref(), answer.timing.n_tokens),
            ("Paris", Some("stop"), 3)
        );
        assert_eq!(shown, ["Par", "is"]);
    }
}
