//! `join-command`: the line that lets a device join as a phone, and the same as a link, which the app opens, with a QR code of that.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use polyphony_identity::JoinLink;
use polyphony_journal::tell;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::connection::ClusterFlags;
use crate::processes::endpoints::Endpoints;
use crate::verbs::token::TermsFlags;

/// Make a join token and print the line that lets a device join by it; in a terminal also a QR code of a link that the app reads, which does the
/// same. Show either to nobody else until it is used.
#[derive(Debug, Args)]
pub struct JoinCommand {
    /// The address that agents are to dial, when the hub listens on all addresses or is reached by another
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Print the link in place of the line: for the app, by message or as a code of your own
    #[arg(long)]
    link: bool,
    /// Whether to print a QR code of the link; auto: when the output is a terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = PrintQr::Auto)]
    print_qr: PrintQr,
    #[command(flatten)]
    terms: TermsFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PrintQr {
    Auto,
    Always,
    Never,
}

/// Why there is no line to print.
#[derive(Debug, thiserror::Error)]
pub enum JoinCommandError {
    #[error("no controller runs in {}: start one with `polyctl up`, or name its folder with --data-dir", .0.display())]
    NotRunning(PathBuf),
    #[error("{} says that the hub listens at {hub:?}, which is no address: restart the controller", .file.display())]
    Garbled { file: PathBuf, hub: String },
    #[error("the hub listens on all addresses, and this machine does not say which one others reach: give --host")]
    NoAddress,
    #[error("the link is too long for a QR code ({0}): leave it out with --print-qr=never")]
    TooLong(qrcode::types::QrError),
}

// === impl JoinCommand ===

impl JoinCommand {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = cluster.data_dir_of_cluster()?;
        let endpoints = Endpoints::read(&data_dir).ok_or_else(|| JoinCommandError::NotRunning(data_dir.clone()))?;
        let hub = hub(&data_dir, &endpoints)?;
        let host = match &self.host {
            Some(host) => host.clone(),
            None if hub.ip().is_unspecified() => routed_address().ok_or(JoinCommandError::NoAddress)?.to_string(),
            None => hub.ip().to_string(),
        };
        let token = self.terms.create(cluster.connect().await?.server.client()).await?;
        let link = JoinLink { hub: address(&host, hub.port()), token, ca_hash: endpoints.ca_hash };
        let terminal = io::stdout().is_terminal();
        let mut out = io::stdout().lock();
        writeln!(out, "{}", if self.link { link.reveal() } else { line(&link) })?;
        if self.print_qr == PrintQr::Always || self.print_qr == PrintQr::Auto && terminal {
            out.write_all(qr_code(&link.reveal(), terminal)?.as_bytes())?;
        }
        out.flush()?;
        if terminal && !self.link {
            tell!("The line is for a shell on the phone, the code for its app. Either lets one device join.");
        }
        if hub.ip().is_loopback() {
            tell!("{}", only_here(hub));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn hub(data_dir: &Path, endpoints: &Endpoints) -> Result<SocketAddr, JoinCommandError> {
    let garbled = |_| JoinCommandError::Garbled { file: data_dir.join("endpoints.json"), hub: endpoints.hub.clone() };
    endpoints.hub.parse().map_err(garbled)
}

fn address(host: &str, port: u16) -> String {
    let bare = host.trim_matches(['[', ']']);
    let is_v6 = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if is_v6 { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") }
}

/// The token goes by the environment: what is on a command line can be read by every user of a machine.
fn line(JoinLink { hub, token, ca_hash }: &JoinLink) -> String {
    format!("POLYPHONY_JOIN_TOKEN={} polyphony-agent join {hub} --ca-hash {ca_hash}", token.reveal())
}

fn only_here(hub: SocketAddr) -> String {
    format!(
        "note: the hub listens on {} only, so this line works on this machine alone: `polyctl up --listen ADDRESS` lets devices of a \
         network join.",
        hub.ip()
    )
}

/// The address of this machine that its default route leaves from. Nothing is sent.
pub fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation (RFC 5737): connecting a datagram socket only looks up the route.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

/// A QR code in half blocks. In a terminal it is black on white whatever the terminal's own colours are; elsewhere its
/// light parts are the blocks, as a dark screen shows them.
fn qr_code(text: &str, terminal: bool) -> Result<String, JoinCommandError> {
    // A screen is neither torn nor dirty: the lowest level of error correction gives the largest squares.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(JoinCommandError::TooLong)?;
    let mut renderer = code.render::<Dense1x2>();
    if !terminal {
        renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    let picture = renderer.build();
    let (before, after) = if terminal { ("\x1b[38;5;16;48;5;231m", "\x1b[0m") } else { ("", "") };
    Ok(picture.lines().map(|line| format!("{before}{line}{after}\n")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Digest, JoinToken};

    use super::*;

    #[test]
    fn the_line_is_what_an_agent_takes() {
        let (token, hash) = (JoinToken::generate(), Digest::of_spki(b"root"));
        let secret = token.reveal();
        for (host, port, written) in
            [("127.0.0.1", 7700, "127.0.0.1:7700"), ("desk.lan", 7701, "desk.lan:7701"), ("fd00::5", 1, "[fd00::5]:1")]
        {
            let link = JoinLink { hub: address(host, port), token: token.clone(), ca_hash: hash };
            assert_eq!(
                line(&link),
                format!("POLYPHONY_JOIN_TOKEN={secret} polyphony-agent join {written} --ca-hash {hash}")
            );
        }
    }

    #[test]
    fn a_camera_reads_the_link_off_the_qr_code() {
        let (token, ca_hash) = (JoinToken::generate(), Digest::of_spki(b"root"));
        let link = JoinLink { hub: "192.168.100.100:7700".into(), token, ca_hash };
        for terminal in [false, true] {
            let seen = read(&qr_code(&link.reveal(), terminal).unwrap(), terminal);
            assert_eq!(seen.parse(), Ok(link.clone()), "terminal: {terminal}");
        }
    }

    /// Looks at the printed half blocks as a camera would, on a dark screen or in the colours that they set.
    fn read(printed: &str, terminal: bool) -> String {
        const SCALE: usize = 4;
        let bare = printed.replace("\x1b[38;5;16;48;5;231m", "").replace("\x1b[0m", "");
        let rows: Vec<Vec<bool>> = bare
            .lines()
            .flat_map(|line| {
                let half = |blocks: &'static str| line.chars().map(move |block| blocks.contains(block)).collect();
                [half("▀█"), half("▄█")]
            })
            .collect();
        assert!(rows[0].len() <= 80, "{} columns are more than a terminal has", rows[0].len());
        let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            // Blocks are drawn in the foreground: black where colours are set, else light.
            if rows[y / SCALE][x / SCALE] == terminal { 0 } else { 255 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }
}
