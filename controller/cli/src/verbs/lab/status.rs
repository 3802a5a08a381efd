//! `lab status`: the phones of a lab, how fast they were found to be, and their links.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::question::{Answer, Question, Status, ask};
use crate::connection::ClusterFlags;

/// Show the phones, how fast they were found to be, and their links
#[derive(Debug, Args)]
pub(super) struct LabStatus {
    /// As JSON
    #[arg(long)]
    json: bool,
}

const HEADER: [&str; 8] = ["NAME", "STATE", "ADDRESS", "CPU", "MEMORY", "MS A LAYER", "OFF", "LINK"];

// === impl LabStatus ===

impl LabStatus {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        if let Answer::Status { status } = ask(&super::data_dir(&cluster)?, &Question::Status).await? {
            let text = if self.json { serde_json::to_string_pretty(&status)? + "\n" } else { table(&status) };
            write!(io::stdout(), "{text}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A line a phone, then the links of two phones alone.
pub(super) fn table(status: &Status) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    for phone in &status.phones {
        let calibrated = |figure: fn(super::calibration::Calibration) -> String| {
            phone.calibration.map_or_else(|| "-".to_owned(), figure)
        };
        lines.push([
            phone.name.clone(),
            phone.state.clone(),
            phone.address.clone(),
            phone.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
            format!("{}Mi", phone.segment_bytes >> 20),
            calibrated(|found| format!("{:.2}", found.layer_seconds * 1000.0)),
            calibrated(|found| format!("{:+.1}%", found.off() * 100.0)),
            phone.link.clone(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{}", cells.join("   ").trim_end());
    }
    for phone in &status.phones {
        for (peer, link) in &phone.links {
            let _ = writeln!(out, "{} - {peer}: {link}", phone.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::calibration::Calibration;
    use super::super::question::PhoneStatus;
    use super::*;

    #[test]
    fn a_phone_is_a_line_and_a_link_of_two_alone_another() {
        let phone = PhoneStatus {
            name: "phone-1".into(),
            address: "10.77.0.2".into(),
            state: "running".into(),
            cpu: Some(0.25),
            segment_bytes: 96 << 20,
            link: "1 ms".into(),
            links: vec![("phone-2".into(), "cut".into())],
            calibration: Some(Calibration { layer_seconds: 0.0041, expected_seconds: 0.004 }),
        };
        let text = table(&Status { phones: vec![phone], ..Status::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME      STATE     ADDRESS     CPU    MEMORY   MS A LAYER   OFF     LINK");
        assert_eq!(lines[1], "phone-1   running   10.77.0.2   0.25   96Mi     4.10         +2.5%   1 ms");
        assert_eq!(lines[2], "phone-1 - phone-2: cut");
    }
}
