//! `make day`: a simulated day of 20 phones as a table, with their limits, without, and at rest. `cargo run --example day -- SEED…`

use std::time::Instant;

use anyhow::{Context, Result};
use polyphony_day::{Parameters, Regard, run};

fn main() -> Result<()> {
    let of = Parameters::of_the_file()?;
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let seeds = asked.iter().map(|seed| seed.parse::<u64>().with_context(|| format!("{seed} is no seed")));
    let mut seeds: Vec<u64> = seeds.collect::<Result<_>>()?;
    if seeds.is_empty() {
        seeds = vec![1, 2, 3];
    }
    for seed in seeds {
        for (regard, title) in [
            (Regard::Limits, "phones keep their limits"),
            (Regard::Blind, "blind to battery and heat"),
            (Regard::Rest, "nobody asks for anything"),
        ] {
            let began = Instant::now();
            let report = run(&of, seed, regard)?;
            println!("seed {seed}, {title} ({:.1} s)\n{report}", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
