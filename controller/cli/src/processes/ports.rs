//! Ports: whether the controller can have them, and who has them if not.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::shell;

/// Another process listens where the controller is to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} for the {purpose} is in use{}: choose another with {flag} (0 takes any free one), or end that process", .holder.as_ref().map_or_else(String::new, |holder| format!(" by {holder}")))]
pub struct PortInUse {
    pub port: u16,
    pub purpose: &'static str,
    pub flag: &'static str,
    /// Name and pid, where the kernel lets us see them.
    pub holder: Option<String>,
}

/// Whether the port can be listened on now; port 0 always can.
///
/// # Errors
/// [`PortInUse`], naming the flag that changes it.
pub fn check(port: u16, purpose: &'static str, flag: &'static str) -> Result<(), PortInUse> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(PortInUse { port, purpose, flag, holder: holder(port) })
        }
        // Any other fault is the controller's to tell, with its own address.
        _ => Ok(()),
    }
}

/// `name (pid n)` of the process that listens on `port`.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let socket = format!("socket:[{}]", tables.iter().find_map(|table| listening_inode(table, port))?);
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |path: std::path::PathBuf| {
            std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == socket.as_str())
        };
        if descriptors.flatten().any(|descriptor| holds(descriptor.path())) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let arguments = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            let program = std::fs::read_link(process.path().join("exe")).unwrap_or_default();
            let name = whole_name(name.trim(), &arguments, &program);
            return Some(format!("{name} (pid {pid}{})", data_dir_of(&arguments)));
        }
    }
    None
}

/// A process's name, which the kernel cuts to 15 bytes, as its first argument or its program's file has it in full.
fn whole_name(cut: &str, arguments: &str, program: &Path) -> String {
    let first = Path::new(arguments.split('\0').next().unwrap_or_default());
    let mut names = [first, program].into_iter().filter_map(|path| path.file_name()?.to_str());
    names.find(|name| name.starts_with(cut)).unwrap_or(cut).to_owned()
}

/// `, of --data-dir D` where arguments separated by NUL name one: it is what `polyctl down` wants to know.
fn data_dir_of(arguments: &str) -> String {
    let after_flag = arguments.split('\0').skip_while(|argument| *argument != "--data-dir").nth(1);
    after_flag.map_or_else(String::new, |folder| format!(", of --data-dir {}", shell::quoted(folder)))
}

/// The socket that listens on `port` in a table of proc(5)'s `/proc/net/tcp`: state 0A, local port in hexadecimal.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        (u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&"0A"))
            .then(|| fields.get(9).copied())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_in_use_names_its_flag_and_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check(port, "gateway", "--gateway-port").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("port {port} for the gateway is in use")) && text.contains("--gateway-port"),
            "{text}"
        );
        if let Some(holder) = error.holder {
            assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        }
        assert_eq!(check(0, "gateway", "--gateway-port"), Ok(()));
    }

    #[test]
    fn a_name_that_the_kernel_cut_is_made_whole() {
        for (cut, arguments, program, expected) in [
            ("polyphony-contr", "/opt/polyphony-controller\0--insecure\0", "", "polyphony-controller"),
            ("polyphony-contr", "", "/opt/polyphony-controller", "polyphony-controller"),
            ("worker", "nginx: worker process\0", "/usr/sbin/nginx", "worker"),
            ("nc", "nc\0-l\0", "/usr/bin/nc.openbsd", "nc"),
            ("nc", "", "", "nc"),
        ] {
            assert_eq!(whole_name(cut, arguments, Path::new(program)), expected, "{cut} {arguments:?}");
        }
    }

    #[test]
    fn another_control_plane_is_known_by_its_folder() {
        assert_eq!(
            data_dir_of("polyphony-controller\0--data-dir\0/home/ada/.polyphony\0--insecure\0"),
            ", of --data-dir /home/ada/.polyphony"
        );
        assert_eq!(data_dir_of("nc\0-l\0"), "");
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:9000 01 00000000:00000000 00:00000000 00000000  1000        0 111 1\n\
             1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 222 1\n";
        assert_eq!(listening_inode(table, 8080), Some("222"));
        assert_eq!(listening_inode(table, 81), None);
    }
}
