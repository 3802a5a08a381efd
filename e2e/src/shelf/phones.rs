//! The phones of a shelf: an agent on each of a few devices that a farm lends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use polyphony_farm::{Content, Device, Farm, Launch, Package, State, Wish};

/// The program that a phone runs as a rule.
pub(super) const AGENT: &str = "polyphony-agent";

/// What every phone of a shelf has in common.
pub(super) struct AgentSettings {
    pub program: PathBuf,
    pub backend: String,
    /// That one step is computed with.
    pub threads: usize,
    pub memory: String,
    /// The hub's port on this machine's loopback.
    pub hub_port: u16,
    /// That of manifests and weights, which the hub names by its loopback address.
    pub weights_port: u16,
    /// The digest of the host's root.
    pub ca_hash: String,
}

/// Devices by the name of their phone. The farm is kept as long as they are.
pub(super) struct Phones {
    devices: BTreeMap<String, Box<dyn Device>>,
    /// The name that it is installed under.
    program: String,
    _farm: Box<dyn Farm>,
}

// === impl AgentSettings ===

impl AgentSettings {
    /// The name that the program is installed under.
    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

// === impl Phones ===

impl Phones {
    /// Takes `n` devices, `phone-1` and so on, and runs an agent on each.
    ///
    /// # Errors
    /// When the farm has not as many, or an agent does not start.
    pub(super) fn take(
        mut farm: Box<dyn Farm>,
        n: usize,
        settings: &AgentSettings,
        join_token: impl Fn(&str) -> Result<String>,
    ) -> Result<Self> {
        let package = Package::of(settings.program.clone());
        let mut devices = BTreeMap::new();
        for name in (1..=n).map(|idx| format!("phone-{idx}")) {
            let mut device = farm.take(&Wish::named(&name))?;
            let token = join_token(&name)?.into_bytes();
            device.install(&package.clone().with("join-token", Content::Bytes(token)))?;
            let hub = device.host_port(settings.hub_port)?;
            device.host_port(settings.weights_port)?;
            device.run(&launch(device.as_ref(), hub, settings))?;
            devices.insert(name, device);
        }
        Ok(Self { devices, program: settings.name(), _farm: farm })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.devices.keys().cloned().collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.devices.contains_key(name)
    }

    /// # Errors
    /// When a phone's agent has ended; with its last words.
    pub(super) fn check(&mut self) -> Result<()> {
        for (name, device) in &mut self.devices {
            if let State::Ended(how) = device.state(&self.program)? {
                bail!("{name} ended ({how}):\n{}", device.logs(&self.program)?);
            }
        }
        Ok(())
    }

    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        Ok(self.devices.get_mut(name).with_context(|| format!("no phone {name}"))?.kill(&self.program)?)
    }

    pub(super) fn metrics(&mut self, name: &str, port: u16) -> Result<String> {
        Ok(self.devices.get_mut(name).with_context(|| format!("no phone {name}"))?.metrics(port)?)
    }

    pub(super) fn log(&self, name: &str) -> Result<String> {
        Ok(self.devices.get(name).with_context(|| format!("no phone {name}"))?.logs(&self.program)?)
    }

    /// Ends every agent and gives the devices back.
    ///
    /// # Errors
    /// The first device's that cannot be given back; the others are, nevertheless.
    pub(super) fn give_back(&mut self) -> Result<()> {
        let given: Vec<_> = std::mem::take(&mut self.devices).into_values().map(Device::give_back).collect();
        Ok(given.into_iter().collect::<Result<(), _>>()?)
    }
}

fn launch(device: &dyn Device, hub: SocketAddr, settings: &AgentSettings) -> Launch {
    let ring_address = SocketAddr::new(device.address(), 0);
    let mut arguments = vec!["--name".to_owned(), device.name().to_owned()];
    // Paths are relative: the agent runs in its device's folder, wherever that is.
    for (flag, value) in [
        ("--hub", hub.to_string().as_str()),
        ("--token-file", "join-token"),
        ("--ca-hash", &settings.ca_hash),
        ("--data-dir", "data"),
        ("--memory", &settings.memory),
        ("--backend", &settings.backend),
        ("--threads", &settings.threads.to_string()),
        ("--ring-address", &ring_address.to_string()),
    ] {
        arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    Launch::of(&settings.name(), arguments)
}
