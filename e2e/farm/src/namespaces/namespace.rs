//! Namespaces: a network of its own, and a thread that lives in it and does there what it is asked to.
//!
//! A namespace has no name in the file system: it ends with the last thread, process or socket in it, however that ends.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use rustix::thread::UnshareFlags;

use super::frame::mac_of;
use super::tap;

/// The one interface of a namespace beside loopback.
const INTERFACE: &str = "lab0";
/// Of the network that a lab is; every lab has the same, each in namespaces of its own.
const PREFIX_BITS: u8 = 24;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. Dropped, it lives on only in what runs in it.
pub(super) struct Namespace {
    jobs: Sender<Job>,
}

/// The address of a port of the switch: 10.77.0.PORT.
pub(super) const fn address_of(port: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, port)
}

// === impl Namespace ===

impl Namespace {
    /// A new namespace with loopback and one interface, whose frames come out of the descriptor.
    ///
    /// # Errors
    /// When the kernel refuses, or `ip` is not there or fails.
    pub(super) fn new(port: u8) -> io::Result<(Self, OwnedFd)> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, outcome) = mpsc::channel();
        thread::Builder::new().name(format!("lab-{port}")).spawn(move || {
            let made = enter_new(port);
            let is_made = made.is_ok();
            // Whoever asked may have given up.
            let _ = ready.send(made);
            if is_made {
                todo.into_iter().for_each(|job| job());
            }
        })?;
        let tap = outcome.recv().map_err(|_| gone())??;
        Ok((Self { jobs }, tap))
    }

    /// Does something inside: sockets that it makes and processes that it starts are the namespace's.
    ///
    /// # Errors
    /// Of `job`, or when the thread in the namespace is gone.
    pub(super) fn within<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, outcome) = mpsc::channel();
        let job = Box::new(move || {
            // Whoever asked may have given up.
            let _ = answer.send(job());
        });
        self.jobs.send(job).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread in the network namespace is gone")
}

/// Takes the calling thread into a new network namespace, for good, and sets its interfaces up.
fn enter_new(port: u8) -> io::Result<OwnedFd> {
    // SAFETY: of all flags only FILES changes what descriptors mean, and it is not among these.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    let tap = tap::open(INTERFACE)?;
    let mac = mac_of(port).map(|byte| format!("{byte:02x}")).join(":");
    let address = address_of(port);
    ip(&format!(
        "link set lo up\n\
         link set {INTERFACE} address {mac} addrgenmode none\n\
         addr add {address}/{PREFIX_BITS} dev {INTERFACE}\n\
         link set {INTERFACE} up\n"
    ))?;
    Ok(tap)
}

/// Runs commands of `ip` in the namespace of the calling thread.
fn ip(commands: &str) -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("ip (iproute2): {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(())
}
