//! Counters: what agents count of the bytes that they send each other and of their steps, read from their metrics.

use std::time::Duration;

use anyhow::Result;
use polyphony_e2e::bench::steps::Steps;
use serde_json::Value;

/// What agents have counted so far, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Bytes sent along their rings.
    pub hidden: f64,
    pub token: f64,
    /// Steps of decoding.
    pub steps: Steps,
}

/// The metrics endpoints of some agents.
pub struct Counters {
    client: reqwest::Client,
    urls: Vec<String>,
}

// === impl Counters ===

impl Counters {
    /// # Errors
    /// When the HTTP client cannot start.
    pub fn of(phones: &[Value]) -> Result<Self> {
        polyphony_wire::take_ring();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let url = |phone: &Value| Some(format!("http://{}/metrics", phone["status"]["metricsAddress"].as_str()?));
        Ok(Self { client, urls: phones.iter().filter_map(url).collect() })
    }

    /// The sum over all agents; none when one of them does not tell.
    pub async fn read(&self) -> Option<Counted> {
        let mut sum = Counted::default();
        for url in &self.urls {
            let text = self.client.get(url).send().await.ok()?.text().await.ok()?;
            sum.hidden += sent_bytes(&text, "hidden")?;
            // An agent that never was a tail has no such line yet.
            sum.token += sent_bytes(&text, "token").unwrap_or(0.0);
            // One without a segment has none either.
            let steps = Steps::of_all(&text).unwrap_or_default();
            sum.steps = Steps { n: sum.steps.n + steps.n, seconds: sum.steps.seconds + steps.seconds };
        }
        (!self.urls.is_empty()).then_some(sum)
    }
}

/// The sum of the counter's lines of a kind in Prometheus' text form.
fn sent_bytes(text: &str, kind: &str) -> Option<f64> {
    let label = format!("kind=\"{kind}\"");
    let lines = text.lines().filter(|line| line.starts_with("polyphony_sent_bytes_total{") && line.contains(&label));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
}
