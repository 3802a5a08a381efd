//! Deployments: what is applied to a lab, one beside the other, each seeing the memory that the lab's file names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::plan::{Held, Plan};
use polyphony_e2e::bench::steps::Steps;
use polyphony_e2e::shelf::Shelf;
use polyphony_farm::lab::Lab;
use serde_json::Value;

/// How long a deployment may take to be there.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long trouble may last that goes away by itself, such as a phone that is just joining.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(200);

/// What a deployment is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub strategy: &'static str,
    pub objective: &'static str,
    pub context_length: u32,
    pub max_sessions: u32,
    /// Exactly so many phones; none for as many as are best.
    pub phones: Option<usize>,
    pub balancer: Balancer,
}

/// Who moves layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    Off,
    Ours,
    /// One layer that stands by, between answers.
    Published,
}

pub fn model_manifest(file: &Path) -> String {
    format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: model}}\nspec: {{source: \"file://{}\"}}\n",
        file.display()
    )
}

// === impl Wanted ===

impl Wanted {
    /// One session of the best plan, on whatever phones.
    pub fn new(name: &str, strategy: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            strategy,
            objective: "Latency",
            context_length: 128,
            max_sessions: 1,
            phones: None,
            balancer: Balancer::Off,
        }
    }

    fn manifest(&self) -> String {
        let Self { name, strategy, objective, context_length, max_sessions, phones, balancer } = self;
        let balancing = balancer.fields();
        let phones = phones.map_or_else(String::new, |n| format!(", minPhones: {n}, maxPhones: {n}"));
        format!(
            "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: {name}}}\nspec:\n  model: \
             model\n  contextLength: {context_length}\n  maxSessions: {max_sessions}\n  objective: {objective}\n  placement: \
             {{strategy: {strategy}, memoryFraction: 1.0, assumeOthersIdle: true{phones}}}\n  loadBalancing: {{{balancing}}}\n  numerics: \
             {{arithmetic: F32, activationType: f16, kvCache: F32}}\n"
        )
    }

    /// Applies it and waits until it answers. It is planned as if it were alone on the phones of the lab's file: their agents
    /// have more memory, and what others take of it comes on top of what a phone may give.
    ///
    /// # Errors
    /// When it does not become available; with what its conditions say.
    pub async fn deploy(&self, shelf: &Shelf, lab: &Lab) -> Result<()> {
        allow(shelf, lab, &used_bytes(shelf)?)?;
        shelf.apply(&self.manifest())?.ok()?;
        self.await_available(shelf).await
    }

    /// Lets the phones give what the lab's file names and no more: for when what was there beside a deployment is gone.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn leave_alone(shelf: &Shelf, lab: &Lab) -> Result<()> {
        allow(shelf, lab, &BTreeMap::new())
    }

    /// # Errors
    /// When it is in trouble that lasts; with what its conditions say.
    pub async fn await_available(&self, shelf: &Shelf) -> Result<()> {
        let (began, mut in_trouble_since) = (Instant::now(), None);
        loop {
            let object = shelf.get(&format!("inferencedeployment/{}", self.name))?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let condition =
                |type_: &str| conditions.iter().find(|one| one["type"] == type_).cloned().unwrap_or_default();
            if condition("Available")["status"] == "True" {
                return Ok(());
            }
            let degraded = condition("Degraded");
            let words = degraded["message"].as_str().unwrap_or_default().to_owned();
            match degraded["status"] == "True" && degraded["reason"] != "ModelNotResolved" {
                true => drop(in_trouble_since.get_or_insert_with(Instant::now)),
                false => in_trouble_since = None,
            }
            if in_trouble_since.is_some_and(|since: Instant| since.elapsed() > TROUBLE_PATIENCE) {
                bail!("{}: {words}", degraded["reason"].as_str().unwrap_or("in trouble"));
            }
            if began.elapsed() > PATIENCE {
                bail!("not available after {} s: {}", PATIENCE.as_secs(), condition("Available")["message"]);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// # Errors
    /// When the API does not answer.
    pub fn delete(&self, shelf: &Shelf) -> Result<()> {
        shelf.polyctl(&["delete", "inferencedeployment", &self.name])?.ok().map(drop)
    }

    /// The phones of its newest generation with what each holds.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn plan(&self, shelf: &Shelf) -> Result<Plan> {
        let held = |stage: &Value| {
            let at = |field: &str| stage["spec"]["holds"][field].as_u64().unwrap_or(0);
            Held { phone: phone_of(stage), from: at("from"), to: at("to") }
        };
        Ok(Plan(self.stages(shelf)?.iter().map(held).collect()))
    }

    /// The decode steps that its stages have counted so far, in their order.
    ///
    /// # Errors
    /// When the API or an agent does not answer, or counts none.
    pub fn steps(&self, shelf: &Shelf) -> Result<Vec<Steps>> {
        let of_stage = |stage: &Value| {
            let (phone, name) = (phone_of(stage), stage["metadata"]["name"].as_str().unwrap_or_default());
            Steps::of(&shelf.metrics(&phone)?, name).with_context(|| format!("{phone} counts no steps of {name}"))
        };
        self.stages(shelf)?.iter().map(of_stage).collect()
    }

    /// The phone that holds the most layers.
    ///
    /// # Errors
    /// When the API does not answer, or nothing is placed.
    pub fn busiest_phone(&self, shelf: &Shelf) -> Result<String> {
        let Plan(stages) = self.plan(shelf)?;
        let busiest = stages.into_iter().max_by_key(|held| held.to - held.from);
        busiest.map(|held| held.phone).with_context(|| format!("{} is not placed", self.name))
    }

    /// The placements of its newest generation, in order.
    fn stages(&self, shelf: &Shelf) -> Result<Vec<Value>> {
        let mut stages = shelf.list("segmentplacements")?;
        stages.retain(|stage| stage["spec"]["deployment"] == self.name.as_str());
        let generation = |stage: &Value| stage["spec"]["planGeneration"].as_u64();
        let newest = stages.iter().map(generation).max().flatten();
        stages.retain(|stage| generation(stage) == newest);
        stages.sort_by_key(|stage| stage["spec"]["stage"].as_u64());
        Ok(stages)
    }

    /// What the controller expects of it.
    ///
    /// # Errors
    /// When it does not say.
    pub fn predicted_seconds_per_token(&self, shelf: &Shelf) -> Result<f64> {
        let object = shelf.get(&format!("inferencedeployment/{}", self.name))?;
        let predicted = object["status"]["predictedTokensPerSecond"].as_f64().filter(|speed| *speed > 0.0);
        Ok(1.0 / predicted.with_context(|| format!("{} predicts no speed", self.name))?)
    }
}

fn phone_of(stage: &Value) -> String {
    stage["spec"]["phone"].as_str().unwrap_or_default().to_owned()
}

// === impl Balancer ===

impl Balancer {
    /// Of `spec.loadBalancing`. A plan here is seconds old when its phone drops; one that has served for a while has its
    /// cool-down behind it.
    fn fields(self) -> &'static str {
        match self {
            Self::Off => "enabled: false",
            Self::Ours => "coolDownSeconds: 1",
            Self::Published => "coolDownSeconds: 1, strategy: LinguaLinked",
        }
    }
}

/// Lets each phone give what the lab's file names and `beside`, by phone.
fn allow(shelf: &Shelf, lab: &Lab, beside: &BTreeMap<String, u64>) -> Result<()> {
    let mut manifest = String::new();
    for phone in &lab.phones {
        let bytes = phone.segment_bytes + beside.get(&phone.name).copied().unwrap_or(0);
        let name = &phone.name;
        // Writing into a string cannot fail.
        let _ = write!(
            manifest,
            "apiVersion: polyphony.dev/v1alpha1\nkind: Phone\nmetadata: {{name: {name}}}\nspec: {{maxMemory: \"{bytes}\"}}\n---\n"
        );
    }
    let file = shelf.data_dir().join("phones.yaml");
    std::fs::write(&file, &manifest)?;
    shelf.polyctl(&["apply", "--force-conflicts", "-f", &file.to_string_lossy()])?.ok().map(drop)
}

/// What the segments on each phone take.
fn used_bytes(shelf: &Shelf) -> Result<BTreeMap<String, u64>> {
    let mut used = BTreeMap::new();
    for placement in shelf.list("segmentplacements")? {
        let phone = placement["spec"]["phone"].as_str().unwrap_or_default().to_owned();
        *used.entry(phone).or_insert(0) += placement["spec"]["plannedBytes"].as_u64().unwrap_or(0);
    }
    Ok(used)
}
