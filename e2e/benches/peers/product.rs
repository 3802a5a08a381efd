//! One product of a matrix and a vector on lavapipe: the kernels' own example beside llama.cpp's own measure of an operation.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use polyphony_e2e::bench::kernel_line::read;
use polyphony_e2e::shelf::program;

use crate::llama;

/// As llama.cpp's measure has it: outputs and inputs.
const SHAPE: (u32, u32) = (4096, 14_336);
/// On our side: weights read from images, products of bytes.
const ENGINE: &str = "image-int8";

/// The weights' type, and how many times as fast as llama.cpp ours is to be; of what is told alone there is no goal.
pub const PRODUCTS: [(&str, Option<f64>); 3] = [("Q4_0", Some(20.0)), ("Q4_K", Some(15.0)), ("Q8_0", None)];

pub fn row(weight_type: &str) -> String {
    let (n_out, n_in) = SHAPE;
    format!("matrix {n_out} × {n_in} by vector, {weight_type}, lavapipe")
}

/// Why there is nothing to measure beside.
pub fn obstacle() -> Option<String> {
    peer().err().map(|error| error.to_string())
}

/// Products a second: of ours by weight type, and of llama.cpp's of one; who begins changes from turn to turn.
///
/// # Errors
/// When either does not run, or tells no speed.
pub fn measure(weight_type: &str, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            of_ours.push(ours(weight_type)?);
        }
        of_theirs.push(theirs(weight_type)?);
        if round % 2 == 1 {
            of_ours.push(ours(weight_type)?);
        }
    }
    Ok((of_ours, of_theirs))
}

fn ours(weight_type: &str) -> Result<f64> {
    let output = Command::new(program("examples/matvec_speed")?).args(["--json", "--peer", ENGINE]).output()?;
    ensure!(output.status.success(), "matvec_speed failed: {}", String::from_utf8_lossy(&output.stderr));
    let lines = read(&String::from_utf8_lossy(&output.stdout))?;
    let line = lines.iter().find(|line| line.rows == 1 && line.weight_type.eq_ignore_ascii_case(weight_type));
    let (n_out, n_in) = SHAPE;
    let nanoseconds = line.context("matvec_speed tells nothing of this type")?.wall_ns_per_multiply_add;
    Ok(1e9 / (nanoseconds * f64::from(n_out) * f64::from(n_in)))
}

fn theirs(weight_type: &str) -> Result<f64> {
    let (n_out, n_in) = SHAPE;
    // As it spells them: q4_0, q4_K.
    let name = weight_type.replacen('Q', "q", 1);
    let operands = format!("type_a={name},type_b=f32,m={n_out},n=1,k={n_in}");
    let mut command = Command::new(peer()?);
    command.args(["perf", "-o", "MUL_MAT", "-b", "Vulkan0", "-p", &operands]);
    // It takes no device made of software but by name.
    let output = command.env("GGML_VK_VISIBLE_DEVICES", "0").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "it failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    let microseconds = said.split("us/run").next().and_then(|before| before.split_whitespace().last());
    let microseconds: f64 = microseconds
        .and_then(|figure| figure.parse().ok())
        .with_context(|| format!("it told no time of {operands}: {said}"))?;
    Ok(1e6 / microseconds)
}

fn peer() -> Result<std::path::PathBuf> {
    llama::program("build-vulkan", "few-runs-backend-ops")
}
