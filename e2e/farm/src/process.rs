//! The process farm: each device is a folder, and its programs are processes of this machine. Limits nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use polyphony_journal::tell;

use crate::programs::{Programs, check_name};
use crate::scrape::scrape;
use crate::{Device, Farm, FarmError, Launch, Package, Shape, State, Wish};

const KIND: &str = "process";

/// Lends folders below its own.
pub struct ProcessFarm {
    folder: PathBuf,
    taken: Arc<Mutex<BTreeSet<String>>>,
}

struct ProcessDevice {
    programs: Programs,
    /// The farm's names; this one's is removed at the end.
    taken: Arc<Mutex<BTreeSet<String>>>,
}

// === impl ProcessFarm ===

impl ProcessFarm {
    /// A farm whose devices are folders in `folder`, which is made when it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), taken: Arc::default() }
    }
}

impl Farm for ProcessFarm {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn take(&mut self, wish: &Wish) -> Result<Box<dyn Device>, FarmError> {
        let name = wish.name.clone();
        check_name(&name)?;
        refuse_limits(&name, &wish.shape)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains(&name) {
            return Err(FarmError::Taken { kind: KIND, device: name });
        }
        let programs = Programs::new(&name, &self.folder)?;
        taken.insert(name);
        Ok(Box::new(ProcessDevice { programs, taken: Arc::clone(&self.taken) }))
    }
}

fn refuse_limits(device: &str, shape: &Shape) -> Result<(), FarmError> {
    let limits = shape.limits();
    if limits.is_empty() {
        return Ok(());
    }
    Err(FarmError::Unsupported { kind: KIND, device: device.to_owned(), what: limits.join(" or ") })
}

// === impl ProcessDevice ===

impl Device for ProcessDevice {
    fn name(&self) -> &str {
        self.programs.device()
    }

    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn folder(&self) -> &Path {
        self.programs.folder()
    }

    fn host_port(&mut self, port: u16) -> Result<SocketAddr, FarmError> {
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn install(&mut self, package: &Package) -> Result<(), FarmError> {
        self.programs.install(package)
    }

    fn run(&mut self, launch: &Launch) -> Result<(), FarmError> {
        self.programs.run(launch, |mut command| command.spawn())
    }

    fn state(&mut self, program: &str) -> Result<State, FarmError> {
        self.programs.state(program)
    }

    fn kill(&mut self, program: &str) -> Result<(), FarmError> {
        self.programs.kill(program)
    }

    fn logs(&self, program: &str) -> Result<String, FarmError> {
        self.programs.logs(program)
    }

    fn metrics(&mut self, port: u16) -> Result<String, FarmError> {
        let address = SocketAddr::new(self.address(), port);
        scrape(address).map_err(|detail| FarmError::Metrics {
            device: self.name().to_owned(),
            url: format!("http://{address}/metrics"),
            detail,
        })
    }

    fn reshape(&mut self, shape: &Shape) -> Result<(), FarmError> {
        refuse_limits(self.name(), shape)
    }

    fn give_back(mut self: Box<Self>) -> Result<(), FarmError> {
        self.programs.remove()
    }
}

impl Drop for ProcessDevice {
    fn drop(&mut self) {
        // Ended before the name is free.
        if let Err(error) = self.programs.end_all() {
            tell!("{error}");
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(self.programs.device());
    }
}
