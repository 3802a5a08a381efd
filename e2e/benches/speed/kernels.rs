//! Kernels: what a multiply-add of each matrix product costs, as the kernels' own example measures it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::kernel_line::{KernelLine, read};
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::shelf::{program, run};

use crate::figures::Figures;
use crate::progress;

/// Engines by the example's names for them, and what the table calls them. Of Vulkan both sources of weights: agents take images
/// on drivers made of software, and storage buffers on GPUs.
const ENGINES: [(&str, &str); 8] = [
    ("cpu", "cpu"),
    ("cpu-2", "cpu, 2 threads"),
    ("cpu-int8", "cpu, int8"),
    ("cpu-int8-2", "cpu, int8, 2 threads"),
    ("image", "vulkan, image"),
    ("image-int8", "vulkan, int8, image"),
    ("storage", "vulkan, storage"),
    ("storage-int8", "vulkan, int8, storage"),
];
/// The fewest whose interval holds the median with 95 %.
const RUNS: usize = 6;
/// No further run is begun after this.
const PATIENCE: Duration = Duration::from_secs(180);

/// One product on one engine: the engine, the weights' type, the matrix, and how many rows at once.
type Product = (&'static str, String, String, u32);

#[derive(Default)]
struct Samples {
    cpu_nanoseconds: Vec<f64>,
    gigabytes_per_second: Vec<f64>,
}

/// Runs the example again and again, engine by engine, back and forth; what it does not give is left out.
pub fn measure(quick: bool, figures: &mut Figures) {
    let began = Instant::now();
    let mut products: BTreeMap<Product, Samples> = BTreeMap::new();
    let n_runs = if quick { 1 } else { RUNS };
    let mut engines = ENGINES.to_vec();
    for n in 0..n_runs {
        if began.elapsed() > PATIENCE {
            figures.leave_out(&format!("runs of the kernels after the first {n} of {n_runs}: the time was over"));
            break;
        }
        progress(&format!("kernels, run {} of {n_runs}", n + 1));
        engines.retain(|&(engine, name)| match once(engine) {
            Ok(lines) => {
                for line in lines {
                    let samples = products.entry((name, line.weight_type, line.matrix, line.rows)).or_default();
                    samples.cpu_nanoseconds.push(line.cpu_ns_per_multiply_add);
                    samples.gigabytes_per_second.push(line.gigabytes_per_second);
                }
                true
            }
            Err(error) => {
                // In full to whoever looks on; the report must not hold a path of this machine.
                progress(&format!("kernels, {name}: {error:#}"));
                figures.leave_out(&format!("kernels, {name}: `matvec_speed --json {engine}` gave nothing"));
                false
            }
        });
        engines.reverse();
    }
    let (mut costs, mut bandwidths) = (Vec::new(), Vec::new());
    for ((engine, weight_type, matrix, n_rows), samples) in products {
        let what = format!(
            "product alone, weights in cache, {weight_type} {matrix}, {n_rows} row{}",
            if n_rows == 1 { "" } else { "s" }
        );
        let cost = Row::of(&what, engine, None, "CPU-ns/multiply-add", samples.cpu_nanoseconds);
        costs.extend(cost.map(|row| match (engine, n_rows, weight_type.to_uppercase().as_str()) {
            ("vulkan, int8, image", 1, "Q4_0") => row.with_goal(Goal::AtMost(0.6), Some(10.0)),
            ("vulkan, int8, image", 1, "Q4_1") => row.with_goal(Goal::AtMost(0.6), None),
            _ => row,
        }));
        bandwidths.extend(Row::of(&what, engine, None, "GB/s", samples.gigabytes_per_second));
    }
    figures.kernels = costs.into_iter().chain(bandwidths).collect();
}

fn once(engine: &str) -> Result<Vec<KernelLine>> {
    let mut command = Command::new(program("examples/matvec_speed")?);
    command.args(["--json", engine]);
    let said = run(command)?.ok().with_context(|| format!("matvec_speed {engine}"))?;
    Ok(read(&said.stdout)?)
}
