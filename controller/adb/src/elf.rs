//! What a program is built for, as its file tells: a check before it is pushed. Scripts are for any device.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::verdict::AdbError;

/// The programs' headers of a linked program lie at its beginning, and its loader's name right after them.
const HEAD: u64 = 64 << 10;
const PT_INTERP: u32 = 3;

/// What an ELF program asks for.
#[derive(Debug, PartialEq)]
struct Built {
    /// In Android's word for it.
    abi: String,
    /// The loader that it names; none where it needs none.
    loader: Option<String>,
}

/// # Errors
/// When the file cannot be read.
pub fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(program)?.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// # Errors
/// When a device of these ABIs cannot run the program.
pub fn check(program: &str, head: &[u8], abis: &[String]) -> Result<(), AdbError> {
    let Some(built) = read(head) else { return Ok(()) };
    if !abis.contains(&built.abi) {
        return Err(AdbError::WrongAbi { program: program.to_owned(), built_for: built.abi, runs: abis.to_vec() });
    }
    match built.loader {
        Some(loader) if !loader.starts_with("/system/bin/linker") => {
            Err(AdbError::NotAndroid { program: program.to_owned(), loader })
        }
        _ => Ok(()),
    }
}

/// None where it is no ELF file, or cut off within its header. Little-endian alone, as every Android is.
fn read(head: &[u8]) -> Option<Built> {
    let number = |at: usize, n: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(n)?)?;
        bytes.iter().rev().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let is_wide = *head.get(4)? == 2;
    let abi = match number(18, 2)? {
        3 => "x86".to_owned(),
        40 => "armeabi-v7a".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "arm64-v8a".to_owned(),
        243 => "riscv64".to_owned(),
        machine => format!("ELF machine {machine}"),
    };
    let (table, size, count) = if is_wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    let loader = (0..count).find_map(|idx| {
        let at = table.checked_add(idx.checked_mul(size)?)?;
        let is_loader = number(at, 4)? == PT_INTERP as usize;
        let place = if is_wide { number(at.checked_add(8)?, 8)? } else { number(at.checked_add(4)?, 4)? };
        let name = head.get(place..)?.split(|byte| *byte == 0).next()?;
        is_loader.then(|| String::from_utf8_lossy(name).into_owned())
    });
    Some(Built { abi, loader })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A header of 64 bytes, one program header and the loader's name.
    fn program(machine: u8, loader: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = machine;
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        (bytes[64], bytes[72]) = (3, 120);
        bytes.extend(loader.bytes().chain([0]));
        bytes
    }

    #[test]
    fn a_program_says_which_devices_run_it() {
        let phone = ["arm64-v8a".to_owned(), "armeabi-v7a".to_owned()];
        let android = "/system/bin/linker64";
        check("agent", &program(183, android), &phone).unwrap();
        check("script", b"#!/bin/sh\n", &phone).unwrap();
        let wrong = check("agent", &program(62, android), &phone).unwrap_err().to_string();
        assert!(wrong.contains("built for x86_64") && wrong.contains("arm64-v8a and armeabi-v7a"), "{wrong}");
        let other = check("agent", &program(183, "/lib/ld-linux-aarch64.so.1"), &phone).unwrap_err();
        assert!(matches!(&other, AdbError::NotAndroid { loader, .. } if loader.contains("ld-linux")), "{other}");
        assert!(matches!(check("agent", &program(8, android), &phone), Err(AdbError::WrongAbi { .. })));
    }

    #[test]
    fn a_header_that_lies_or_is_cut_off_ends_no_program() {
        let whole = program(183, "/system/bin/linker64");
        for len in 0..whole.len() {
            let _ = read(&whole[..len]);
        }
        let mut far = whole.clone();
        far[72..80].fill(0xff);
        far[32..40].fill(0xff);
        assert_eq!(read(&far).unwrap().loader, None);
    }
}
