//! A shelf of phones: a control plane in a folder of its own and agents on a farm's devices, taken down when it is dropped.

mod lab;
mod phones;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_farm::{Farm, ProcessFarm};
use serde::Deserialize;
use serde_json::Value;

use phones::{AGENT, AgentSettings, Phones};

/// How long phones may take to join.
const JOIN_DEADLINE: Duration = Duration::from_secs(120);

/// Phones and a control plane, on free ports of this machine.
pub struct Shelf {
    data_dir: tempfile::TempDir,
    up: Vec<String>,
    /// Variables of every program that is started for it.
    environment: Vec<(String, String)>,
    /// Those of a farm; `None` where `polyctl up` starts the agents.
    phones: Mutex<Option<Phones>>,
}

/// Where the programs of a shelf listen.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    pub api: String,
    pub gateway: String,
    pub hub: String,
    pub weights: String,
    /// The digest of the root's key.
    pub ca_hash: String,
    pub pid: u32,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

// === impl Shelf ===

impl Shelf {
    /// Starts `phones` phones on the CPU backend, each with `phone_memory`, as processes of this machine.
    ///
    /// # Errors
    /// When the programs are not built or do not start; with what they said.
    pub fn up(phones: usize, phone_memory: &str) -> Result<Self> {
        Self::up_on("cpu", phones, phone_memory)
    }

    /// The same on another backend.
    ///
    /// # Errors
    /// As [`Shelf::up`], and when the backend does not open.
    pub fn up_on(backend: &str, phones: usize, phone_memory: &str) -> Result<Self> {
        Self::up_from(backend, phones, phone_memory, |folder| Box::new(ProcessFarm::new(folder)))
    }

    /// The same with agents that compute a step with so many threads.
    ///
    /// # Errors
    /// As [`Shelf::up_on`].
    pub fn up_with_threads(backend: &str, threads: usize, phones: usize, phone_memory: &str) -> Result<Self> {
        Self::up_as(backend, (AGENT, threads), phones, phone_memory, |folder| Box::new(ProcessFarm::new(folder)))
    }

    /// As [`Shelf::up_on`], with another program than the agent, which takes its flags: its place below the folder of programs.
    ///
    /// # Errors
    /// As [`Shelf::up_on`].
    pub fn up_with_agent(agent: &str, backend: &str, phones: usize, phone_memory: &str) -> Result<Self> {
        Self::up_as(backend, (agent, 1), phones, phone_memory, |folder| Box::new(ProcessFarm::new(folder)))
    }

    /// The same on devices of the farm that `farm` makes, which may keep its files in the folder that it is given.
    ///
    /// # Errors
    /// As [`Shelf::up_on`], and when the farm does not lend as many devices.
    pub fn up_from(
        backend: &str,
        phones: usize,
        phone_memory: &str,
        farm: impl FnOnce(PathBuf) -> Box<dyn Farm>,
    ) -> Result<Self> {
        Self::up_as(backend, (AGENT, 1), phones, phone_memory, farm)
    }

    fn up_as(
        backend: &str,
        (agent, threads): (&str, usize),
        phones: usize,
        phone_memory: &str,
        farm: impl FnOnce(PathBuf) -> Box<dyn Farm>,
    ) -> Result<Self> {
        let shelf = Self::planned(backend, 0, phone_memory)?;
        shelf.start()?;
        let endpoints = shelf.endpoints()?;
        let hub: SocketAddr = endpoints.hub.parse().context("the hub's address in endpoints.json")?;
        let weights = endpoints.weights.trim_start_matches("https://").trim_end_matches('/');
        let weights: SocketAddr = weights.parse().context("the weights' address in endpoints.json")?;
        let settings = AgentSettings {
            program: program(agent)?,
            backend: backend.to_owned(),
            threads,
            memory: phone_memory.to_owned(),
            hub_port: hub.port(),
            weights_port: weights.port(),
            ca_hash: endpoints.ca_hash,
        };
        let token = |phone: &str| shelf.join_token(phone);
        *shelf.phones() = Some(Phones::take(farm(shelf.data_dir().join("farm")), phones, &settings, token)?);
        shelf.wait_ready()?;
        Ok(shelf)
    }

    /// A shelf that is not started yet, and whose agents `polyctl up` starts itself.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn planned(backend: &str, phones: usize, phone_memory: &str) -> Result<Self> {
        let data_dir = tempfile::Builder::new().prefix("polyphony-").tempdir()?;
        let up = ["up", "--phones", &phones.to_string(), "--phone-memory", phone_memory, "--backend", backend]
            .into_iter()
            .chain(["--api-port", "0", "--gateway-port", "0", "--hub-port", "0"])
            .map(str::to_owned)
            .collect();
        Ok(Self { data_dir, up, environment: Vec::new(), phones: Mutex::new(None) })
    }

    /// With these variables for `polyctl`, and for what it starts.
    #[must_use]
    pub fn with_environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Runs `polyctl up`; a second time it starts what is no longer there.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn start(&self) -> Result<Said> {
        self.start_with(&[])
    }

    /// The same with more flags.
    ///
    /// # Errors
    /// As [`Shelf::start`].
    pub fn start_with(&self, flags: &[&str]) -> Result<Said> {
        let up: Vec<&str> = self.up.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        self.polyctl(&up)?.ok()
    }

    /// A join token for a phone.
    ///
    /// # Errors
    /// When the API takes it not.
    pub fn join_token(&self, phone: &str) -> Result<String> {
        Ok(self.polyctl(&["token", "create", "--phone", phone])?.ok()?.stdout.trim().to_owned())
    }

    /// Waits until every phone of the farm is Ready.
    fn wait_ready(&self) -> Result<()> {
        let is_ready = |phone: &Value| {
            let conditions = phone["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        let names = self.phones().as_ref().map(Phones::names).unwrap_or_default();
        wait_until("every phone to be Ready", JOIN_DEADLINE, || {
            if let Some(Err(error)) = self.phones().as_mut().map(Phones::check) {
                return Ok(Some(Err(error)));
            }
            let known = self.list("phones")?;
            let ready = |name: &String| known.iter().any(|one| one["metadata"]["name"] == **name && is_ready(one));
            Ok(names.iter().all(ready).then_some(Ok(())))
        })?
    }

    fn phones(&self) -> MutexGuard<'_, Option<Phones>> {
        self.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processes that run for this shelf: the control plane's, and those of agents, which work in folders of its own.
    ///
    /// # Errors
    /// When the list of the control plane's cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let ledger: Value = serde_json::from_slice(&std::fs::read(self.data_dir().join("processes.json"))?)?;
        let listed = ledger["processes"].as_array().context("processes.json lists no processes")?;
        let pid = |process: &Value| process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let mut pids = listed.iter().map(pid).collect::<Option<Vec<u32>>>().context("a process without pid")?;
        let running = std::fs::read_dir("/proc")?.flatten();
        pids.extend(running.filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let folder = std::fs::read_link(process.path().join("cwd")).ok()?;
            folder.starts_with(self.data_dir().join("farm")).then_some(pid)
        }));
        Ok(pids)
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// # Errors
    /// When the controller has not said where it listens.
    pub fn endpoints(&self) -> Result<Endpoints> {
        let path = self.data_dir().join("endpoints.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs polyctl on this shelf.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn polyctl(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(program("polyctl")?);
        command.arg(arguments[0]).arg("--data-dir").arg(self.data_dir()).args(&arguments[1..]);
        command.env_remove("KUBECONFIG").envs(self.environment.iter().map(|(name, value)| (name, value)));
        run(command)
    }

    /// Writes a manifest into the shelf's folder and applies it.
    ///
    /// # Errors
    /// When polyctl cannot be started.
    pub fn apply(&self, manifest: &str) -> Result<Said> {
        let path = self.data_dir().join("manifest.yaml");
        std::fs::write(&path, manifest)?;
        self.polyctl(&["apply", "-f", &path.to_string_lossy()])
    }

    /// Waits until the deployment is available.
    ///
    /// # Errors
    /// When it is not within two minutes; with its description.
    pub fn wait_available(&self, deployment: &str) -> Result<()> {
        let target = format!("inferencedeployment/{deployment}");
        let waited = self.polyctl(&["wait", "--for=condition=Available", &target, "--timeout=120s"])?;
        if waited.code != 0 {
            let story = self.polyctl(&["describe", "inferencedeployment", deployment])?;
            bail!("{deployment} is not available: {}\n{}", waited.stderr, story.stdout);
        }
        Ok(())
    }

    /// An object as the API has it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn get(&self, what: &str) -> Result<Value> {
        let said = self.polyctl(&["get", what, "-o", "json"])?.ok()?;
        Ok(serde_json::from_str(&said.stdout)?)
    }

    /// The objects of a kind.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        Ok(self.get(kind)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// The phones that hold layers of a deployment's newest generation, by stage.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn phones_of(&self, deployment: &str) -> Result<Vec<String>> {
        let mut placements: Vec<Value> = self.list("segmentplacements")?;
        placements.retain(|one| one["spec"]["deployment"] == deployment);
        let generation = |one: &Value| one["spec"]["planGeneration"].as_u64().unwrap_or(0);
        let newest = placements.iter().map(generation).max();
        placements.retain(|one| Some(generation(one)) == newest);
        placements.sort_by_key(|one| one["spec"]["stage"].as_u64());
        Ok(placements.iter().filter_map(|one| Some(one["spec"]["phone"].as_str()?.to_owned())).collect())
    }

    /// Kills a process of this shelf (`controller` or a phone) without warning.
    ///
    /// # Errors
    /// When the shelf does not know it.
    pub fn kill(&self, name: &str) -> Result<()> {
        if let Some(phones) = self.phones().as_mut().filter(|phones| phones.has(name)) {
            return phones.kill(name);
        }
        let ledger: Value = serde_json::from_slice(&std::fs::read(self.data_dir().join("processes.json"))?)?;
        let process = ledger["processes"].as_array().into_iter().flatten().find(|process| process["name"] == name);
        let pid = process.and_then(|process| process["pid"].as_u64()).with_context(|| format!("no process {name}"))?;
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
        if !killed.success() {
            bail!("{name} (process {pid}) was not there to be killed");
        }
        // The signal is sent, and what it ends has still to end; then it may lie there until its parent looks.
        wait_until(&format!("{name} to end"), Duration::from_secs(10), || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
            Ok(matches!(state, None | Some('Z' | 'X')).then_some(()))
        })
    }

    /// What a phone's agent answers to a scrape at the address that its Phone names.
    ///
    /// Phones of a lab are asked through their keeper, since nothing else reaches them.
    ///
    /// # Errors
    /// When the Phone names none, or nothing answers there.
    pub fn metrics(&self, phone: &str) -> Result<String> {
        let object = self.get(&format!("phone/{phone}"))?;
        let address =
            object["status"]["metricsAddress"].as_str().with_context(|| format!("{phone} names no metrics"))?;
        let address: SocketAddr = address.parse().with_context(|| format!("{phone} has its metrics at {address}"))?;
        if self.is_lab() {
            return Ok(self.polyctl(&["lab", "metrics", phone, &address.port().to_string()])?.ok()?.stdout);
        }
        self.phones().as_mut().with_context(|| format!("{phone} is no phone of a farm"))?.metrics(phone, address.port())
    }

    /// What a process of this shelf has logged.
    pub fn log(&self, name: &str) -> String {
        if let Some(phones) = self.phones().as_ref().filter(|phones| phones.has(name)) {
            return phones.log(name).unwrap_or_else(|error| error.to_string());
        }
        std::fs::read_to_string(self.data_dir().join(format!("logs/{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["controller", "phone-1", "phone-2", "phone-3"] {
                let log = self.log(name);
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- last lines of {name}:");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        // Whatever a test did, its processes end.
        if let Some(Err(error)) = self.phones().as_mut().map(Phones::give_back) {
            eprintln!("a phone was not given back: {error}");
        }
        if let Err(error) = self.polyctl(&["down"]) {
            eprintln!("the shelf was not taken down: {error}");
        }
    }
}

// === impl Said ===

impl Said {
    /// # Errors
    /// When the command failed; with what it said.
    pub fn ok(self) -> Result<Self> {
        if self.code != 0 {
            bail!("exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(mut command: Command) -> Result<Said> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(Said {
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        code: status.code().unwrap_or(-1),
    })
}

/// A program of this workspace, built into the same folder as the running test.
///
/// # Errors
/// When it is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).map(|folder| folder.join(name)).unwrap_or_default();
    if !path.exists() {
        bail!("{} is not built: `cargo build --workspace --bins`, or `make test`", path.display());
    }
    Ok(path)
}

/// The folder of models and tools that set-up fills.
pub fn cache_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    std::env::var_os("POLYPHONY_CACHE").map_or_else(|| base().join("polyphony"), PathBuf::from)
}

/// SmolLM2 135M; none where it is missing, which is said aloud.
pub fn real_model() -> Option<PathBuf> {
    fetched_model("SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Gemma 3 270M; none where it is missing, which is said aloud.
pub fn real_gemma() -> Option<PathBuf> {
    fetched_model("gemma-3-270m-q4_k_m.gguf")
}

fn fetched_model(file: &str) -> Option<PathBuf> {
    let path = cache_dir().join("models").join(file);
    if !path.exists() {
        polyphony_skip::skipped(format_args!("{} is not there; `make setup-tests` fetches it", path.display()));
        return None;
    }
    Some(path)
}

/// A BLOOM of random weights, where `make bloom` has written one.
pub fn random_bloom() -> Option<PathBuf> {
    Some(cache_dir().join("models/random-bloom-24x512.Q8_0.gguf")).filter(|path| path.exists())
}

/// Whether a Vulkan driver is installed, as the loader looks for one.
pub fn vulkan_is_here() -> bool {
    let folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let has_driver = |folder: &&str| std::fs::read_dir(folder).is_ok_and(|mut drivers| drivers.next().is_some());
    std::env::var_os("VK_DRIVER_FILES").is_some() || folders.iter().any(has_driver)
}

/// A file of the golden folder.
pub fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Looks at something again and again until it is there.
///
/// # Errors
/// When it is not there by the deadline; `what` says what was waited for.
pub fn wait_until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let seen = look();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if began.elapsed() > deadline {
            seen.with_context(|| format!("waited {deadline:?} for {what}"))?;
            bail!("waited {deadline:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
