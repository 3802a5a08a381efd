//! Figures: the samples of every ring as they come in, and the rows that they become, with issue 3's goals.

use std::collections::BTreeMap;

use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;

use crate::machine::cores;
use crate::rings::{Ring, Run, SHORT_PROMPT};

pub const MODEL: &str = "SmolLM2-135M-Instruct Q4_1";

/// What a ring has shown, one sample a round.
#[derive(Default)]
struct Samples {
    decode: Vec<f64>,
    decode_cpu: Vec<f64>,
    besides_steps: Vec<f64>,
    prefill: Vec<f64>,
    prefill_cpu: Vec<f64>,
    first_short: Vec<f64>,
    first_long: Vec<f64>,
    prefill_tokens: u32,
    hidden_bytes: Vec<f64>,
    token_bytes: Vec<f64>,
    /// One a second of one turn.
    joules: Vec<f64>,
}

/// All samples of a bench.
#[derive(Default)]
pub struct Figures {
    /// By backend and agents.
    rings: BTreeMap<(&'static str, u32), Samples>,
    pub kernels: Vec<Row>,
    pub controller: Vec<Row>,
    /// One sample a run: what others took of the processors.
    pub other_load: Vec<f64>,
    pub left_out: Vec<String>,
}

// === impl Figures ===

impl Figures {
    pub fn leave_out(&mut self, why: &str) {
        self.left_out.push(why.to_owned());
    }

    pub fn note(&mut self, ring: &Ring, run: Run) {
        let samples = self.rings.entry((ring.backend, ring.agents)).or_default();
        let (decode, first) = (&run.decode.decode, &run.prefill.first_token);
        let (n_decoded, n_prompt) = (f64::from(run.decode.n_decoded), f64::from(run.prefill_tokens));
        samples.decode.push(n_decoded / decode.seconds);
        samples.decode_cpu.push(decode.spent.measured * 1e3 / n_decoded);
        samples.prefill.push(n_prompt / first.seconds);
        samples.prefill_cpu.push(first.spent.measured * 1e3 / n_prompt);
        samples.first_short.push(run.decode.first_token.seconds * 1e3);
        samples.first_long.push(first.seconds * 1e3);
        samples.prefill_tokens = run.prefill_tokens;
        if let Some((before, after)) = run.counted {
            if ring.agents > 1 {
                // The last token is not fed back, so nothing of it is sent on; the tail sends no hidden state.
                let passed = f64::from(SHORT_PROMPT) + n_decoded;
                samples.hidden_bytes.push((after.hidden - before.hidden) / passed / f64::from(ring.agents - 1));
                samples.token_bytes.push((after.token - before.token) / (n_decoded + 1.0));
            } else if let Some(step) = after.steps.seconds_each_since(before.steps) {
                samples.besides_steps.push((decode.seconds / n_decoded - step) * 1e3);
            }
        }
        self.other_load.push(decode.spent.other_load(decode.seconds, cores()));
    }

    /// Joules a token, second by second; none where nothing could be told from rest.
    pub fn note_energy(&mut self, ring: &Ring, joules: Vec<f64>) {
        if joules.is_empty() {
            self.leave_out(&format!("joules a token of {}: the battery gave no more than at rest", ring.backend));
        }
        self.rings.entry((ring.backend, ring.agents)).or_default().joules = joules;
    }

    /// Every row of the report; what there is no sample of is told in `left_out`.
    pub fn rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut sent = Vec::new();
        for (&(backend, agents), samples) in &self.rings {
            let row = |what: &str, unit, samples: &[f64]| Row::of(what, backend, Some(agents), unit, samples.to_vec());
            let decode = row("decode", "tokens/s", &samples.decode).map(|row| match (backend, agents) {
                ("cpu" | "cpu-int8", 1) => row.with_goal(Goal::AtLeast(40.0), Some(75.0)),
                ("vulkan", 1) => row.with_goal(Goal::AtLeast(8.0), Some(0.47)),
                _ => row,
            });
            let long = format!("first token, prompt of {}", samples.prefill_tokens);
            rows.extend(decode);
            rows.extend(row("decode, processor time", "CPU-ms/token", &samples.decode_cpu));
            rows.extend(
                row("decode, besides the step", "ms/token", &samples.besides_steps)
                    .map(|row| row.with_goal(Goal::AtMost(0.15), None)),
            );
            rows.extend(row("decode, energy", "J/token", &samples.joules));
            rows.extend(row("prefill", "tokens/s", &samples.prefill));
            rows.extend(row("prefill, processor time", "CPU-ms/token", &samples.prefill_cpu));
            rows.extend(row(&format!("first token, prompt of {SHORT_PROMPT}"), "ms", &samples.first_short));
            rows.extend(row(&long, "ms", &samples.first_long));
            sent.extend(row("hidden state sent", "bytes/token/hop", &samples.hidden_bytes));
            sent.extend(row("token frames sent", "bytes/token", &samples.token_bytes));
        }
        rows.extend(self.ratio_rows());
        if sent.is_empty() {
            self.leave_out("bytes a token a hop: the agents have no metrics that count them");
        }
        rows.extend(sent);
        rows.append(&mut self.kernels);
        rows.append(&mut self.controller);
        rows
    }

    /// Three agents against one, by the pairs of each round.
    fn ratio_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (&(backend, agents), samples) in &self.rings {
            let Some(alone) = self.rings.get(&(backend, 1)).filter(|_| agents > 1) else { continue };
            let row = |what: &str, over: &[f64], under: &[f64]| {
                Row::of(&format!("{what}, {agents} against 1"), backend, Some(agents), "×", ratios(over, under))
            };
            let decode = row("decode", &samples.decode, &alone.decode).map(|row| match backend {
                "cpu" | "cpu-int8" => row.with_goal(Goal::AtLeast(0.75), Some(0.76)),
                _ => row,
            });
            rows.extend(decode);
            rows.extend(row("processor time a token", &samples.decode_cpu, &alone.decode_cpu));
            rows.extend(row("prefill", &samples.prefill, &alone.prefill));
        }
        rows
    }
}
