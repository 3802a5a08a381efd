//! What llama.cpp's own programs say.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cache_dir;
use crate::case::{Case, On, What};

/// Its programs on one case, the way that was the faster.
pub struct Llama<'a> {
    case: &'a Case,
    flash_attention: bool,
}

// === impl Llama ===

impl<'a> Llama<'a> {
    /// Tries it with its fused attention and without.
    pub fn faster(case: &'a Case) -> Result<Self> {
        let [with, without] = [true, false].map(|flash_attention| Self { case, flash_attention });
        Ok(if with.run()? >= without.run()? { with } else { without })
    }

    /// Tokens a second.
    pub fn run(&self) -> Result<f64> {
        let (name, arguments, figure) = match self.case.what {
            What::Decode { after, n } => ("llama-bench", vec![("-p", 0), ("-n", n), ("-d", after)], "avg_ts"),
            What::Prefill { n } => ("llama-bench", vec![("-p", n), ("-n", 0)], "avg_ts"),
            What::Together { sessions, after, n } => {
                let context = sessions * (after + n);
                let arguments = vec![("-npl", sessions), ("-npp", after), ("-ntg", n), ("-c", context)];
                ("llama-batched-bench", arguments, "speed_tg")
            }
        };
        let (build, threads) = match self.case.on {
            On::Cpu { threads } if is_held_to_avx2() => ("build-avx2", threads),
            On::Cpu { threads } => ("build", threads),
            On::Lavapipe => ("build-vulkan", 1),
        };
        let program = program(build, name)?;
        let mut command = Command::new(&program);
        command.arg("-m").arg(self.case.path()).args(["-t", &threads.to_string()]);
        if self.case.on == On::Lavapipe {
            // It takes no device made of software but by name.
            command.env("GGML_VK_VISIBLE_DEVICES", "0").args(["-ngl", "99"]);
        }
        for (flag, value) in arguments {
            command.args([flag, &value.to_string()]);
        }
        if name == "llama-bench" {
            command.args(["-fa", if self.flash_attention { "1" } else { "0" }, "-r", "1", "-o", "jsonl"]);
        } else {
            command.args(["-fa", if self.flash_attention { "on" } else { "off" }, "--output-format", "jsonl"]);
        }
        let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
        self::figure(&output, figure).with_context(|| name.to_owned())
    }
}

/// The figure of this name in the last line that has one.
pub fn figure(output: &Output, name: &str) -> Result<f64> {
    if !output.status.success() {
        bail!("it failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let rows = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let figures = rows.filter_map(|row| row[name].as_f64()).collect::<Vec<_>>();
    figures.last().copied().with_context(|| format!("it told no speed: {said}"))
}

/// Whether ours is kept to what AVX2 has; then llama.cpp is built for that.
fn is_held_to_avx2() -> bool {
    std::env::var("POLYPHONY_LANES").is_ok_and(|lanes| lanes == "avx2")
}

/// Whether there is a build for what a case is on.
pub fn is_built(case: &Case) -> bool {
    case.on != On::Lavapipe || program("build-vulkan", "llama-bench").is_ok()
}

/// One of its programs.
pub fn program(build: &str, name: &str) -> Result<PathBuf> {
    let program = cache_dir().join("peers").join(build).join("bin").join(name);
    if !program.exists() {
        let kind = build.strip_prefix("build-").unwrap_or_default();
        bail!("{} is not there; `scripts/peers.sh {kind}` builds it", program.display());
    }
    Ok(program)
}
