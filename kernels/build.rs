//! Build script: parses and validates every variant of every kernel, so that a bad kernel does not build.

use naga::SourceLocation;
use naga::valid::{Capabilities, ValidationFlags, Validator};

#[allow(dead_code, reason = "the crate moves bits, the script only asks for their places")]
#[path = "src/blocks.rs"]
mod blocks;
#[allow(dead_code, reason = "as above")]
#[path = "src/kv_type.rs"]
mod kv_type;
#[allow(dead_code, reason = "as above")]
#[path = "src/packing.rs"]
mod packing;
#[allow(dead_code, reason = "as above")]
#[path = "src/weight_type.rs"]
mod weight_type;
#[path = "src/wgsl.rs"]
mod wgsl;

use wgsl::{Piece, Variant};

fn main() {
    println!("cargo::rerun-if-changed=wgsl");
    for file in ["blocks", "kv_type", "packing", "weight_type", "wgsl", "wgsl/form", "wgsl/weights"] {
        println!("cargo::rerun-if-changed=src/{file}.rs");
    }
    for variant in Variant::all() {
        let pieces = variant.pieces(64);
        if let Err(error) = validate(&pieces) {
            println!("cargo::error={error} ({variant:?})");
            return;
        }
    }
}

fn validate(pieces: &[Piece]) -> Result<(), String> {
    let source: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let module = naga::front::wgsl::parse_str(&source)
        .map_err(|error| format!("{}: {}", place(pieces, error.location(&source)), error.message()))?;
    Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32).validate(&module).map_err(
        |error| {
            let mut causes = vec![error.as_inner().to_string()];
            let mut source_error = std::error::Error::source(error.as_inner());
            while let Some(cause) = source_error {
                causes.push(cause.to_string());
                source_error = cause.source();
            }
            format!("{}: {}", place(pieces, error.location(&source)), causes.join(": "))
        },
    )?;
    Ok(())
}

/// File and line of a place in the joined source.
fn place(pieces: &[Piece], location: Option<SourceLocation>) -> String {
    let Some(location) = location else {
        return format!("wgsl/{}", pieces.last().map_or("", |piece| piece.file));
    };
    let mut line = location.line_number as usize;
    for piece in pieces {
        let n_lines = piece.text.lines().count();
        if line <= n_lines {
            return format!("wgsl/{}:{line}:{}", piece.file, location.line_position);
        }
        line -= n_lines;
    }
    "the end of the source".to_string()
}
