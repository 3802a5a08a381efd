//! The workbench: labs with the model on them, whose weights were fetched once for all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use polyphony_farm::lab::Lab;
use serde_json::Value;

use crate::deployments::{Wanted, model_manifest};
use crate::progress;

/// So many times the memory of its file each agent has: for as many deployments at once.
const ROOM: &str = "--room=10";
/// A lab that is measured while something else runs for a moment is measured again.
const ATTEMPTS: usize = 4;
/// How long phones may take to probe each other.
const LINKS_PATIENCE: Duration = Duration::from_secs(30);

/// What all labs of the bench have in common.
pub struct Workbench {
    model: PathBuf,
    weights: tempfile::TempDir,
}

/// A lab that runs, with the model applied.
pub struct Running {
    pub lab: Lab,
    pub shelf: Shelf,
    pub gateway: Gateway,
}

/// The file of a committed lab.
pub fn lab_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/lab").join(format!("{name}.yaml"))
}

// === impl Workbench ===

impl Workbench {
    /// Fetches all weights onto one phone, and keeps them.
    ///
    /// # Errors
    /// When a lab of one phone does not run.
    pub async fn new(model: &Path) -> Result<Self> {
        let bench = Self { model: model.to_owned(), weights: tempfile::tempdir()? };
        let file = bench.weights.path().join("lab.yaml");
        std::fs::write(&file, "phones:\n- {name: phone-1, cpu: 0.8, memory: 400Mi}\n")?;
        let running = bench.start_with(&file, &["--tolerance=1000"]).await?;
        std::fs::remove_file(&file)?;
        Wanted::new("all", "Optimal").deploy(&running.shelf, &running.lab).await?;
        let cache = running.shelf.data_dir().join("lab/phone-1/data/weights");
        for entry in std::fs::read_dir(&cache).with_context(|| format!("no weights in {}", cache.display()))? {
            let from = entry?.path();
            std::fs::copy(&from, bench.weights.path().join(from.file_name().unwrap_or_default()))?;
        }
        Ok(bench)
    }

    /// Starts a lab whose phones have the weights already; again, when it was disturbed while it was measured.
    ///
    /// # Errors
    /// When it does not start, or is off its profile each time.
    pub async fn start(&self, file: &Path) -> Result<Running> {
        let weights = format!("--weights={}", self.weights.path().display());
        let tolerance = std::env::var("BENCH_LAB_TOLERANCE").map(|percent| format!("--tolerance={percent}"));
        let mut terms = vec![ROOM, &weights];
        terms.extend(tolerance.as_deref());
        let mut attempt = 1;
        loop {
            match self.start_with(file, &terms).await {
                Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains("--tolerance") => {
                    progress(&format!("{}: not exact ({error:#}); once more", file.display()));
                    attempt += 1;
                }
                started => return started,
            }
        }
    }

    async fn start_with(&self, file: &Path, terms: &[&str]) -> Result<Running> {
        let lab = Lab::read(file)?;
        let shelf = Shelf::lab(file, terms)?;
        shelf.apply(&model_manifest(&self.model))?.ok()?;
        await_links(&shelf, lab.phones.len()).await?;
        let gateway = Gateway::new(&shelf.endpoints()?.gateway)?;
        Ok(Running { lab, shelf, gateway })
    }
}

/// Waits until phones have measured the links between them: plans made before are made on guesses.
async fn await_links(shelf: &Shelf, n_phones: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let phones = shelf.list("phones")?;
        let has_links = |phone: &Value| {
            let links = phone["status"]["links"].as_array().into_iter().flatten();
            links.filter(|link| link["megabitsPerSecond"].is_number()).count() + 1 >= n_phones
        };
        if phones.iter().filter(|phone| has_links(phone)).count() >= n_phones {
            return Ok(());
        }
        if began.elapsed() > LINKS_PATIENCE {
            progress("not every link was measured: plans go by what is known");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
