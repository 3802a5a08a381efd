//! Rings: for each backend three real agents, a deployment on one of them and one over all three.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use polyphony_e2e::bench::budget::{Lengths, Pace};
use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use serde_json::Value;

use crate::counters::{Counted, Counters};
use crate::request::{Timed, complete};

pub const ACTIVATION_TYPE: &str = "f16";
/// So much that one agent holds the model alone.
const PHONE_MEMORY: &str = "2Gi";
const AGENTS: u32 = 3;
/// Prompt of the decode runs: short, so that it is the decoding that is measured.
pub const SHORT_PROMPT: u32 = 16;

/// What agents compute with: as tables call it, as the agents' flag does, and with how many threads a step.
#[derive(Clone, Copy, Debug)]
pub struct Computing {
    pub name: &'static str,
    pub flag: &'static str,
    pub threads: usize,
}

/// What answers: one deployment.
pub struct Ring {
    /// The name of what it computes with.
    pub backend: &'static str,
    pub agents: u32,
    gateway: Gateway,
    /// The controller with the gateway, and every agent.
    pids: Vec<u32>,
    counters: Counters,
}

/// One turn of a ring.
pub struct Run {
    /// A short prompt, then decoding.
    pub decode: Timed,
    /// A long prompt, one token.
    pub prefill: Timed,
    pub prefill_tokens: u32,
    /// What the agents had counted before `decode` and after it; none where agents do not tell.
    pub counted: Option<(Counted, Counted)>,
}

/// A shelf for each backend, and all their rings; taken down when it is dropped.
pub struct Shelves {
    shelves: BTreeMap<&'static str, Shelf>,
    pub rings: Vec<Ring>,
}

/// The name of the deployment on so many agents.
fn deployment(agents: u32) -> String {
    format!("on-{agents}")
}

/// The model on one agent and on all. For the throughput of several sessions, so that the planner shares the layers out: for
/// one session nearly all on one agent would be as fast, and would say little of a ring.
fn manifest(model: &Path, agents: &[u32], flag: &str) -> String {
    let path = model.display();
    let model = format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: smollm2}}\nspec: {{source: \"file://{path}\"}}\n"
    );
    let arithmetic = if flag.ends_with("-int8") { "Int8" } else { "F32" };
    let deployment = |agents: u32| {
        format!(
            "---\napiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: {}}}\nspec:\n  \
             model: smollm2\n  contextLength: 256\n  maxSessions: 4\n  objective: Throughput\n  \
             placement: {{minPhones: {agents}, maxPhones: {agents}}}\n  \
             numerics: {{arithmetic: {arithmetic}, activationType: {ACTIVATION_TYPE}}}\n",
            deployment(agents)
        )
    };
    agents.iter().fold(model, |all, agents| all + &deployment(*agents))
}

// === impl Shelves ===

impl Shelves {
    /// # Errors
    /// When a shelf does not start or a deployment does not become available; with why.
    pub fn start(backends: &[Computing], model: &Path) -> Result<Self> {
        let mut all = Self { shelves: BTreeMap::new(), rings: Vec::new() };
        for Computing { name, flag, threads } in backends {
            // With all of a small machine's processors in one agent, a second one would take them from it.
            let n_agents = if *threads == 1 { AGENTS } else { 1 };
            crate::progress(&format!("starting {n_agents} agents on {name}"));
            let shelf = match threads {
                1 => {
                    let shelf = Shelf::planned(flag, n_agents as usize, PHONE_MEMORY)?;
                    shelf.start()?;
                    shelf
                }
                _ => Shelf::up_with_threads(flag, *threads, n_agents as usize, PHONE_MEMORY)?,
            };
            let rings: &[u32] = if n_agents == 1 { &[1] } else { &[1, AGENTS] };
            shelf.apply(&manifest(model, rings, flag))?.ok()?;
            let pids = shelf.pids()?;
            for &agents in rings {
                shelf.wait_available(&deployment(agents))?;
                let gateway = Gateway::new(&shelf.endpoints()?.gateway)?;
                let counters = Counters::of(&shelf.list("phones")?)?;
                all.rings.push(Ring { backend: name, agents, gateway, pids: pids.clone(), counters });
            }
            all.shelves.insert(name, shelf);
        }
        Ok(all)
    }

    /// What each backend calls its device.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn devices(&self) -> Result<BTreeMap<String, String>> {
        let device = |(backend, shelf): (&&'static str, &Shelf)| {
            let phones = shelf.list("phones")?;
            let device = phones.first().and_then(|phone| phone["status"]["device"].as_str()).unwrap_or("unknown");
            Ok(((*backend).to_owned(), device.to_owned()))
        };
        self.shelves.iter().map(device).collect()
    }

    /// The numerics class of each backend's segments.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn numerics(&self) -> Result<BTreeMap<String, String>> {
        let class = |(backend, shelf): (&&'static str, &Shelf)| {
            let stages = shelf.list("segmentplacements")?;
            let class = stages.first().and_then(|stage| stage["spec"]["numericsClass"].as_str()).unwrap_or("unknown");
            Ok(((*backend).to_owned(), class.to_owned()))
        };
        self.shelves.iter().map(class).collect()
    }

    /// How many layers each agent of the ring over all has, by stage.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn splits(&self) -> Result<BTreeMap<String, String>> {
        let split = |(backend, shelf): (&&'static str, &Shelf)| {
            let mut stages = shelf.list("segmentplacements")?;
            stages.retain(|stage| stage["spec"]["deployment"] == deployment(AGENTS).as_str());
            stages.sort_by_key(|stage| stage["spec"]["stage"].as_u64());
            let layers = |stage: &Value| {
                let at = |field: &str| stage["spec"]["holds"][field].as_u64().unwrap_or(0);
                at("to").saturating_sub(at("from")).to_string()
            };
            let layers: Vec<String> = stages.iter().map(layers).collect();
            Ok(((*backend).to_owned(), layers.join(" + ")))
        };
        let has_ring =
            |backend: &&'static str| self.rings.iter().any(|ring| ring.backend == *backend && ring.agents > 1);
        self.shelves.iter().filter(|(backend, _)| has_ring(backend)).map(split).collect()
    }
}

// === impl Ring ===

impl Ring {
    /// # Errors
    /// When the ring does not answer.
    pub async fn run(&self, lengths: Lengths) -> Result<Run> {
        let before = self.counters.read().await;
        let decode = self.complete(SHORT_PROMPT, lengths.decode_tokens).await?;
        let after = self.counters.read().await;
        let prefill = self.complete(lengths.prefill_tokens, 0).await?;
        Ok(Run { decode, prefill, prefill_tokens: lengths.prefill_tokens, counted: before.zip(after) })
    }

    /// Has it answer a short prompt with so many tokens and one; how many it gave.
    ///
    /// # Errors
    /// When the ring does not answer.
    pub async fn answer(&self, n_decode: u32) -> Result<u32> {
        Ok(self.complete(SHORT_PROMPT, n_decode).await?.n_decoded + 1)
    }

    /// How fast it is about, once all kernels are compiled.
    ///
    /// # Errors
    /// When the ring does not answer.
    pub async fn pace(&self) -> Result<Pace> {
        const DECODED: u32 = 4;
        self.complete(SHORT_PROMPT, 2).await?;
        let warm = self.complete(SHORT_PROMPT, DECODED).await?;
        Ok(Pace {
            prefill_seconds: warm.first_token.seconds / f64::from(SHORT_PROMPT),
            decode_seconds: warm.decode.seconds / f64::from(DECODED),
        })
    }

    async fn complete(&self, n_prompt: u32, n_decode: u32) -> Result<Timed> {
        let answer = complete(&self.gateway, &deployment(self.agents), n_prompt, n_decode, &self.pids).await;
        answer.with_context(|| format!("{} agents on {}", self.agents, self.backend))
    }
}
