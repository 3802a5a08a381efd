//! `doctor`: what this phone computes with, found, asked for known answers and measured, and told to a person.

use std::collections::BTreeSet;
use std::fmt::Write;

use polyphony_kernels::vulkan::quirks;
use polyphony_protocol::hub::{BackendFault, Speed};

use crate::agent::allocatable;
use crate::backend::{self, Measuring, Sabotage};
use crate::flags::Flags;
use crate::platform;

/// What was found.
pub struct Finding {
    pub text: String,
    /// Whether all of it computes rightly.
    pub is_well: bool,
}

/// Looks at all that the flags leave this phone. Takes some seconds where it was never looked at before.
///
/// # Errors
/// When nothing of it can be used.
pub fn examine(flags: &Flags) -> anyhow::Result<Finding> {
    let capacity_bytes = platform::memory_bytes().unwrap_or(0);
    let memory_bytes = allocatable(flags.memory, capacity_bytes)?;
    let how = Measuring {
        threads: flags.threads,
        share: None,
        data_dir: flags.data_dir.clone(),
        memory_bytes,
        program: std::env::current_exe().ok(),
        sabotage: flags.sabotage_file.as_deref().map(Sabotage::new),
    };
    let chosen = backend::choose(flags.backend, &how)?;
    let faults = chosen.aside().list();
    let memory = format!("{} MiB, {} MiB of them for segments", capacity_bytes >> 20, memory_bytes >> 20);
    Ok(Finding { text: text(&memory, &chosen.speeds(), &faults), is_well: faults.is_empty() })
}

fn text(memory: &str, speeds: &[Speed], faults: &[BackendFault]) -> String {
    let mut text = format!("Memory   {memory}\n");
    // Of one that is two, each is there itself.
    let devices = speeds.iter().filter(|speed| speed.backend != backend::MIXED).map(|speed| &speed.device);
    let faulty = faults.iter().filter(|fault| fault.backend != backend::MIXED).map(|fault| &fault.device);
    let devices = devices.chain(faulty);
    let devices: BTreeSet<&str> = devices.map(String::as_str).filter(|device| !device.is_empty()).collect();
    for device in devices {
        line(&mut text, format_args!("Device   {device}"));
        for quirk in quirks::of(device) {
            line(
                &mut text,
                format_args!("         others report: {} ({}); it is asked more often", quirk.what, quirk.source),
            );
        }
    }
    let mut rows = vec![["CLASS", "ANSWERS", "GFLOP/S", "OF 4 ROWS", "OF A PROMPT", "GB/S"].map(str::to_owned)];
    for speed in speeds {
        let figures = [speed.gflops, speed.batch_gflops, speed.prefill_gflops, speed.gigabytes_per_second];
        let [one, four, prompt, bytes] = figures.map(|figure| format!("{figure:.2}"));
        rows.push([speed.numerics.clone(), "known".to_owned(), one, four, prompt, bytes]);
    }
    for fault in faults {
        let class = if fault.numerics.is_empty() { &fault.backend } else { &fault.numerics };
        rows.push([class.as_str(), "WRONG", "-", "-", "-", "-"].map(str::to_owned));
    }
    text.push('\n');
    let widths = [0, 1, 2, 3, 4].map(|at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0));
    for [class, answers, one, four, prompt, bytes] in rows {
        let [a, b, c, d, e] = widths;
        line(&mut text, format_args!("{class:a$}   {answers:b$}   {one:>c$}   {four:>d$}   {prompt:>e$}   {bytes}"));
    }
    for fault in faults {
        let class = if fault.numerics.is_empty() { &fault.backend } else { &fault.numerics };
        line(&mut text, format_args!("\n{class} is not used: {}", fault.reason));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_beside_what_is_not_and_what_others_tell_of_it() {
        let speed = Speed {
            backend: "cpu".into(),
            device: "cpu (8 threads, dotprod)".into(),
            numerics: "cpu-f32-r1".into(),
            gflops: 12.0,
            batch_gflops: 34.5,
            prefill_gflops: 80.0,
            gigabytes_per_second: 9.25,
        };
        let fault = BackendFault {
            backend: "vulkan".into(),
            device: "vulkan Adreno (TM) 840 (driver)".into(),
            numerics: "vulkan-f32-r3-adreno".into(),
            reason: "a layer gives 2 where 1 is right".into(),
        };
        let found = text("512 MiB", &[speed], &[fault]);
        assert_eq!(
            found,
            "Memory   512 MiB
Device   cpu (8 threads, dotprod)
Device   vulkan Adreno (TM) 840 (driver)
         others report: a fourth of all runs wrong with near-square workgroups (pytorch/executorch#22327); it is asked more often

CLASS                  ANSWERS   GFLOP/S   OF 4 ROWS   OF A PROMPT   GB/S
cpu-f32-r1             known       12.00       34.50         80.00   9.25
vulkan-f32-r3-adreno   WRONG           -           -             -   -

vulkan-f32-r3-adreno is not used: a layer gives 2 where 1 is right
"
        );
    }
}
