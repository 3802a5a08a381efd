//! What a client of ours sees: one phone, a class of 8 bits, behind the gateway.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::case::{Case, On, What};

const DEPLOYMENT: &str = "one";

pub struct Ours {
    /// Alive as long as it is asked.
    _shelf: Shelf,
    gateway: String,
    what: What,
    n_runs: u32,
}

/// An answer as it came: when it was asked for, and when which of its tokens came.
pub struct Answer {
    pub asked: Instant,
    came: Vec<Instant>,
}

// === impl Ours ===

impl Ours {
    pub fn up(case: &Case) -> Result<Self> {
        let (backend, threads) = match case.on {
            On::Cpu { threads } => ("cpu-int8", threads),
            On::Lavapipe => ("vulkan-int8", 1),
        };
        let shelf = Shelf::up_with_threads(backend, threads, 1, "4Gi")?;
        shelf.apply(&manifest(case))?.ok()?;
        shelf.wait_available(DEPLOYMENT)?;
        if let Ok(lanes) = std::env::var("POLYPHONY_LANES") {
            let device = shelf.list("phones")?[0]["status"]["device"].as_str().unwrap_or_default().to_owned();
            ensure!(device.contains(&lanes), "the agent computes by {device}, and is to be held to {lanes}");
        }
        let gateway = shelf.endpoints()?.gateway;
        Ok(Self { _shelf: shelf, gateway, what: case.what, n_runs: 0 })
    }

    /// Tokens a second.
    pub async fn run(&mut self) -> Result<f64> {
        // Anew each time: while llama.cpp has its turn, a connection may be idle for longer than the gateway keeps it.
        let gateway = Gateway::new(&self.gateway)?;
        // Another prompt each time, so that nothing of it is known.
        self.n_runs += 1;
        let of_run = 101 * self.n_runs;
        match self.what {
            What::Decode { after, n } => {
                let answer = ask(&gateway, DEPLOYMENT, prompt(after, of_run), n + 1).await?;
                Ok(f64::from(n) / (answer.last()? - answer.first()?).as_secs_f64())
            }
            What::Prefill { n } => {
                let answer = ask(&gateway, DEPLOYMENT, prompt(n, of_run), 1).await?;
                Ok(f64::from(n) / (answer.first()? - answer.asked).as_secs_f64())
            }
            What::Together { sessions, after, n } => {
                let asked =
                    (0..sessions).map(|session| ask(&gateway, DEPLOYMENT, prompt(after, of_run + session), n + 1));
                let answers = futures::future::try_join_all(asked).await?;
                // While all are at it.
                let firsts = answers.iter().map(Answer::first).collect::<Result<Vec<_>>>()?;
                let lasts = answers.iter().map(Answer::last).collect::<Result<Vec<_>>>()?;
                let (from, to) = firsts.into_iter().max().zip(lasts.into_iter().min()).context("no session")?;
                let came = answers.iter().flat_map(|answer| &answer.came).filter(|came| (from..to).contains(*came));
                Ok(came.count() as f64 / (to - from).as_secs_f64())
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    pub fn first(&self) -> Result<Instant> {
        self.came.first().copied().context("no token came")
    }

    pub fn last(&self) -> Result<Instant> {
        self.came.last().copied().context("no token came")
    }
}

fn manifest(case: &Case) -> String {
    let path = case.path();
    let (context, sessions) = match case.what {
        What::Decode { after, n } => (after + n, 1),
        What::Prefill { n } => (n, 1),
        What::Together { sessions, after, n } => (after + n, sessions),
    };
    let (path, context) = (path.display(), (context + 1).next_multiple_of(64));
    format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: model}}\nspec: {{source: \"file://{path}\"}}\n---\n\
         apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: {DEPLOYMENT}}}\nspec:\n  \
         model: model\n  contextLength: {context}\n  maxSessions: {sessions}\n  placement: {{minPhones: 1, maxPhones: 1}}\n"
    )
}

/// Tokens that every vocabulary here has.
pub fn prompt(n: u32, of_run: u32) -> Vec<u32> {
    (0..n).map(|idx| 100 + (37 * idx + of_run) % 800).collect()
}

/// Asks a deployment for so many tokens.
pub async fn ask(gateway: &Gateway, deployment: &str, prompt: Vec<u32>, n: u32) -> Result<Answer> {
    let body = json!({
        "model": deployment, "prompt": prompt, "max_tokens": n, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let asked = Instant::now();
    let mut pieces = gateway.stream("/v1/completions", &body).await?;
    let mut came = Vec::new();
    while let Some(piece) = pieces.next().await? {
        if let Some(error) = piece.get("error") {
            bail!("the answer broke off: {error}");
        }
        let n = piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
        came.extend(std::iter::repeat_n(Instant::now(), n));
    }
    if came.len() != n as usize {
        bail!("{} tokens came, {n} were wanted", came.len());
    }
    Ok(Answer { asked, came })
}
