//! Three phones beside llama.cpp's RPC. Either side's processes are in the phones' namespaces and groups: one thread each, without pacing, in 2 ms
//! of each 4; any two phones are 5 ms and 200 Mbit/s apart. llama.cpp has a third of the layers on each phone, its client on the first; ours are
//! where the planner puts them for prompts of that length.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use polyphony_e2e::shelf::{Shelf, run};
use polyphony_e2e::stream::Gateway;
use polyphony_farm::namespaces::NamespaceFarm;

use crate::llama;
use crate::ours::{ask, prompt};

/// The file in the cache's models, and what both are asked: tokens after a short prompt, and the first one after a long prompt.
pub const MODEL: (&str, &str) = ("SmolLM2-135M Q4_0", "SmolLM2-135M-Instruct.requantised-Q4_0.gguf");
const AFTER: u32 = 16;
const N_TOKENS: u32 = 64;
const PROMPT: u32 = 300;

/// Layers that llama.cpp gives away: of SmolLM2's 30 a third stays with the client.
const LAYERS_ELSEWHERE: u32 = 20;
const RPC_PORT: u16 = 50_052;
/// Microseconds of a processor in so many.
const QUOTA: [&str; 2] = ["2000", "4000"];

const LAB: &str = "phones:
- {name: phone-1, cpu: 0.5, memory: 400Mi}
- {name: phone-2, cpu: 0.5, memory: 400Mi}
- {name: phone-3, cpu: 0.5, memory: 400Mi}
links:
- {between: [phone-1, phone-2], delayMilliseconds: 5, megabitsPerSecond: 200}
- {between: [phone-2, phone-3], delayMilliseconds: 5, megabitsPerSecond: 200}
- {between: [phone-1, phone-3], delayMilliseconds: 5, megabitsPerSecond: 200}
";

/// Both sides' figures, turn by turn.
#[derive(Default)]
pub struct Measured {
    /// Tokens a second, ours and theirs.
    pub decode: [Vec<f64>; 2],
    /// Seconds to the first token of the long prompt.
    pub first_token: [Vec<f64>; 2],
}

/// Why it cannot be measured here.
pub fn obstacle() -> Option<String> {
    let program = llama::program("build", "ggml-rpc-server");
    NamespaceFarm::obstacle().or_else(|| program.err().map(|error| error.to_string()))
}

/// Measures so many turns; who begins changes from turn to turn.
pub async fn measure(model: &Path, rounds: usize) -> Result<Measured> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lab.yaml");
    std::fs::write(&file, LAB)?;
    // What the lab says of shares is put aside below.
    let shelf = Shelf::lab(&file, &["--tolerance=1000", "--room=3"])?;
    let phones = Phone::all(&shelf)?;
    for phone in &phones {
        phone.take_pacing_away()?;
    }
    shelf.apply(&manifest(model))?.ok()?;
    shelf.wait_available("chat")?;
    let ours = shelf.endpoints()?.gateway;
    let theirs = Rpc::start(&phones, model)?;

    let mut measured = Measured::default();
    // The first turn is without a clock: both have read the file then.
    for round in 0..=rounds {
        for side in [round % 2, 1 - round % 2] {
            let (decode, first_token) = if side == 0 { of_ours(&ours, round as u32).await? } else { theirs.run()? };
            if round > 0 {
                measured.decode[side].push(decode);
                measured.first_token[side].push(first_token);
            }
        }
    }
    Ok(measured)
}

/// Tokens a second, and seconds to a first token.
async fn of_ours(gateway: &str, round: u32) -> Result<(f64, f64)> {
    let gateway = Gateway::new(gateway)?;
    let of_run = 101 * round;
    let answer = ask(&gateway, "chat", prompt(AFTER, of_run), N_TOKENS + 1).await?;
    let decode = f64::from(N_TOKENS) / (answer.last()? - answer.first()?).as_secs_f64();
    let answer = ask(&gateway, "chat", prompt(PROMPT, of_run + 1), 1).await?;
    Ok((decode, (answer.first()? - answer.asked).as_secs_f64()))
}

fn manifest(model: &Path) -> String {
    format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: model}}\nspec: {{source: \"file://{}\"}}\n---\n\
         apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: chat}}\nspec:\n  model: model\n  contextLength: 512\n  \
         maxSessions: 1\n  promptTokens: {PROMPT}\n  loadBalancing: {{enabled: false}}\n  placement: {{minPhones: 3, maxPhones: 3}}\n",
        model.display()
    )
}

/// A phone of the lab, as the kernel has it.
struct Phone {
    name: String,
    agent: u32,
    /// Its group of the controller of processors.
    group: PathBuf,
    address: Ipv4Addr,
}

// === impl Phone ===

impl Phone {
    /// Those whose agents run in the lab's folder, by name.
    fn all(shelf: &Shelf) -> Result<Vec<Self>> {
        let mut phones = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            let of_process = PathBuf::from(format!("/proc/{pid}"));
            let Ok(folder) = std::fs::read_link(of_process.join("cwd")) else { continue };
            let line = std::fs::read_to_string(of_process.join("cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            let name = words.iter().position(|word| *word == "--name").and_then(|at| words.get(at + 1));
            let is_agent = words[0].ends_with("polyphony-agent") && folder.starts_with(shelf.data_dir());
            if let (true, Some(name)) = (is_agent, name) {
                phones.push(Self::of(pid, name)?);
            }
        }
        phones.sort_by(|one, other| one.name.cmp(&other.name));
        ensure!(phones.len() == 3, "{} agents of three run", phones.len());
        Ok(phones)
    }

    fn of(agent: u32, name: &str) -> Result<Self> {
        let groups = std::fs::read_to_string(format!("/proc/{agent}/cgroup"))?;
        let group = groups.lines().find_map(|line| {
            let (_, of) = line.split_once(':')?;
            let (controllers, path) = of.split_once(':')?;
            controllers.split(',').any(|controller| controller == "cpu").then_some(path)
        });
        let group = Path::new("/sys/fs/cgroup/cpu").join(group.context("it is in no group")?.trim_start_matches('/'));
        let said = run(inside(agent, "ip", &["-4", "-o", "addr", "show", "scope", "global"]))?.ok()?;
        let address = said.stdout.split_whitespace().find_map(|word| word.split('/').next()?.parse().ok());
        Ok(Self { name: name.to_owned(), agent, group, address: address.context("it has no address")? })
    }

    /// Both sides have what the kernel gives them; the agent's own share of it is all.
    fn take_pacing_away(&self) -> Result<()> {
        let [quota, period] = QUOTA;
        // A quota that is over its period for a moment is refused where processors are few.
        for (file, value) in [("cfs_quota_us", "1000"), ("cfs_period_us", period), ("cfs_quota_us", quota)] {
            std::fs::write(self.group.join(format!("cpu.{file}")), value)?;
        }
        Ok(std::fs::write(format!("/proc/{}/cwd/cpu-share", self.agent), "1")?)
    }

    /// Starts a program in the phone's namespace and group.
    fn start(&self, program: &Path, arguments: &[String]) -> Result<Child> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = inside(self.agent, &program.to_string_lossy(), &arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        std::fs::write(self.group.join("cgroup.procs"), child.id().to_string())?;
        Ok(child)
    }
}

fn inside(agent: u32, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &agent.to_string(), "--net", program]).args(arguments);
    command
}

/// llama.cpp over the three.
struct Rpc<'a> {
    client: &'a Phone,
    model: &'a Path,
    servers: Vec<Server>,
    addresses: String,
    /// With its fused attention or without, whichever was faster: of decoding, and of the prompt.
    flash_attention: [bool; 2],
}

/// Ends with whoever holds it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself, or ends here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// === impl Rpc ===

impl<'a> Rpc<'a> {
    fn start(phones: &'a [Phone], model: &'a Path) -> Result<Self> {
        let program = llama::program("build", "ggml-rpc-server")?;
        let [client, others @ ..] = phones else { bail!("there is no phone") };
        let mut servers = Vec::new();
        for phone in others {
            let arguments = ["-H", &phone.address.to_string(), "-p", &RPC_PORT.to_string(), "-t", "1"];
            servers.push(Server(phone.start(&program, &arguments.map(str::to_owned))?));
        }
        std::thread::sleep(Duration::from_secs(2));
        for server in &mut servers {
            ensure!(server.0.try_wait()?.is_none(), "{} ended at once", program.display());
        }
        let addresses: Vec<String> = others.iter().map(|phone| format!("{}:{RPC_PORT}", phone.address)).collect();
        let mut it = Self { client, model, servers, addresses: addresses.join(","), flash_attention: [true; 2] };
        for (at, arguments) in [Self::DECODE, Self::PREFILL].into_iter().enumerate() {
            it.flash_attention[at] = it.bench(arguments, true)? >= it.bench(arguments, false)?;
        }
        Ok(it)
    }

    const DECODE: [u32; 3] = [0, N_TOKENS, AFTER];
    const PREFILL: [u32; 3] = [PROMPT, 0, 0];

    /// Tokens a second, and seconds to a first token: without a server and its words, which flatters it.
    fn run(&self) -> Result<(f64, f64)> {
        let [of_decode, of_prefill] = self.flash_attention;
        let decode = self.bench(Self::DECODE, of_decode)?;
        Ok((decode, f64::from(PROMPT) / self.bench(Self::PREFILL, of_prefill)?))
    }

    fn bench(&self, [prompt, tokens, depth]: [u32; 3], flash_attention: bool) -> Result<f64> {
        ensure!(!self.servers.is_empty(), "no server runs");
        let flash_attention = if flash_attention { "1" } else { "0" };
        let model = self.model.to_string_lossy();
        let (layers, figures) = (LAYERS_ELSEWHERE.to_string(), [prompt, tokens, depth].map(|n| n.to_string()));
        let [prompt, tokens, depth] = &figures;
        let arguments = [
            ["-m", &model],
            ["-t", "1"],
            ["--rpc", &self.addresses],
            ["-ngl", &layers],
            ["-p", prompt],
            ["-n", tokens],
            ["-d", depth],
            ["-fa", flash_attention],
            ["-r", "1"],
            ["-o", "jsonl"],
        ];
        let arguments: Vec<String> = arguments.concat().into_iter().map(str::to_owned).collect();
        let child = self.client.start(&llama::program("build", "llama-bench")?, &arguments)?;
        llama::figure(&child.wait_with_output()?, "avg_ts")
    }
}
