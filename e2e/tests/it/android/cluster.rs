//! A cluster of devices that adb lists and of agents on this machine, which meet over the hub alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use polyphony_e2e::shelf::{Shelf, run, wait_until};
use polyphony_farm::adb::{Adb, AdbDevice, Choice};
use polyphony_farm::{AdbFarm, Content, Device, Launch, Package, State, Wish};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

/// One test at a time has the devices.
static DEVICES: Mutex<()> = Mutex::const_new(());
const SERIALS: &str = "POLYPHONY_ANDROID_SERIALS";
/// The script that started the devices, where they are cheap ones.
const CHEAP: &str = "POLYPHONY_CHEAP_PHONES";
const AGENT: &str = "polyphony-agent";
const SENSORS: &str = "sensors.json";
const SOON: Duration = Duration::from_secs(90);
/// What a cheap phone is given to be killed or started, in seconds; the script's own deadlines are shorter.
const OBEYS: &str = "120";
/// An agent of this machine's that holds no layers before a device's are to go to it: where there is one device alone, a ring of two could not do without it.
const SPARE: &str = "phone-2";

/// The devices that are named, for the test that asks alone.
pub(super) async fn serials() -> (MutexGuard<'static, ()>, Vec<String>) {
    let serials = std::env::var(SERIALS).unwrap_or_default();
    let serials: Vec<String> = serials.split_whitespace().map(str::to_owned).collect();
    assert!(!serials.is_empty(), "{SERIALS} names no devices; `make e2e-android` starts some");
    (DEVICES.lock().await, serials)
}

pub(super) struct Cluster {
    // Dropped first: the devices are given back while their farm lives.
    devices: BTreeMap<String, AdbDevice>,
    /// Those that went and are not back.
    lost: BTreeSet<String>,
    has_spare: bool,
    pub(super) shelf: Shelf,
    _farm: AdbFarm,
}

// === impl Cluster ===

impl Cluster {
    /// `n_here` agents of this machine, `phone-1` and so on, and one on each device, `adb-1` and so on; all are Ready.
    pub(super) fn up(serials: &[String], n_here: usize, memory: &str) -> Self {
        let shelf = Shelf::planned("cpu", n_here, memory).unwrap();
        shelf.start().unwrap();
        let choice = Choice { serials: serials.to_vec(), ..Choice::default() };
        let mut farm = AdbFarm::new(Adb::from_environment(), choice).unwrap();
        let mut devices = BTreeMap::new();
        for name in (1..=serials.len()).map(|idx| format!("adb-{idx}")) {
            let mut device = farm.take_device(&Wish::named(&name)).unwrap();
            let token = shelf.join_token(&name).unwrap().into_bytes();
            let package = Package::of(agent_for(&device)).with("join-token", Content::Bytes(token));
            device.install(&package).unwrap();
            devices.insert(name, device);
        }
        let mut cluster = Self { devices, lost: BTreeSet::new(), has_spare: false, shelf, _farm: farm };
        for name in cluster.names() {
            cluster.feel(&name, 90, 30.0);
            cluster.run(&name, memory);
        }
        cluster.wait_ready(&cluster.names());
        cluster
    }

    /// For rings of two, a device and an agent of this machine, which find another plan when the device goes: with another device, or with the spare.
    pub(super) fn up_for_losses(serials: &[String], memory: &str) -> Self {
        let has_spare = serials.len() == 1;
        let mut cluster = Self::up(serials, if has_spare { 2 } else { 1 }, memory);
        cluster.has_spare = has_spare;
        cluster.withdraw_spare();
        cluster
    }

    /// Layers may go to the spare, where there is one.
    pub(super) fn offer_spare(&self) {
        if self.has_spare {
            self.shelf.polyctl(&["uncordon", SPARE]).unwrap().ok().unwrap();
        }
    }

    /// The spare is empty again, and stays so; what it had is a device's.
    pub(super) fn withdraw_spare(&self) {
        if self.has_spare {
            wait_until("the spare to be known", SOON, || Ok(self.shelf.get(&format!("phone/{SPARE}")).ok())).unwrap();
            let timeout = format!("--timeout={}s", SOON.as_secs());
            self.shelf.polyctl(&["drain", SPARE, &timeout]).unwrap().ok().unwrap();
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.devices.keys().cloned().collect()
    }

    pub(super) fn device(&mut self, name: &str) -> &mut AdbDevice {
        self.devices.get_mut(name).unwrap_or_else(|| panic!("no device {name}"))
    }

    /// Starts a device's agent, which joins by its token the first time, and by its key from then on.
    pub(super) fn run(&mut self, name: &str, memory: &str) {
        let endpoints = self.shelf.endpoints().unwrap();
        let port =
            |address: &str| -> u16 { address.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap() };
        let device = self.device(name);
        device.host_port(port(&endpoints.weights)).unwrap();
        let hub = device.host_port(port(&endpoints.hub)).unwrap().to_string();
        let ring = SocketAddr::new(device.address(), 0).to_string();
        let flags = [
            ("--name", name),
            ("--hub", &hub),
            ("--token-file", "join-token"),
            ("--ca-hash", &endpoints.ca_hash),
            ("--data-dir", "data"),
            ("--memory", memory),
            ("--backend", "cpu"),
            ("--threads", "1"),
            ("--ring-address", &ring),
            ("--sensors", SENSORS),
        ];
        device.run(&Launch::of(AGENT, flags.into_iter().flat_map(|(flag, value)| [flag, value]))).unwrap();
    }

    /// What a device's sensors say from now on. It is not charging.
    pub(super) fn feel(&self, name: &str, battery_percent: u8, celsius: f64) {
        let said = json!({"batteryPercent": battery_percent, "charging": false, "temperatureCelsius": celsius});
        self.devices[name].put(Path::new(SENSORS), said.to_string().as_bytes()).unwrap();
    }

    /// The device goes without warning: all of it where it is a cheap one, its agent where people own it.
    pub(super) fn lose(&mut self, name: &str) {
        let Some(script) = std::env::var_os(CHEAP) else { return self.device(name).kill(AGENT).unwrap() };
        self.lost.insert(name.to_owned());
        tell_cheap_phone(script, "kill", self.device(name).serial()).unwrap();
    }

    /// What is lost comes back for the tests after this one, whatever becomes of this.
    fn bring_back(&mut self) {
        let Some(script) = std::env::var_os(CHEAP) else { return };
        for name in std::mem::take(&mut self.lost) {
            if let Err(error) = tell_cheap_phone(script.clone(), "start", self.devices[&name].serial()) {
                eprintln!("{name} stays lost, and the tests after this one miss it: {error:#}");
            }
        }
    }

    pub(super) fn wait_ready(&mut self, names: &[String]) {
        for name in names {
            let waited = wait_until(&format!("{name} to be Ready"), SOON, || {
                if let State::Ended(how) = self.device(name).state(AGENT)? {
                    panic!("{name} ended ({how}):\n{}", self.log(name));
                }
                let phone = self.shelf.get(&format!("phone/{name}"))?;
                Ok(is(&phone, "Ready").then_some(()))
            });
            waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log(name)));
        }
    }

    pub(super) fn log(&self, name: &str) -> String {
        self.devices[name].logs(AGENT).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.names() {
                let log = self.log(&name);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- last lines of {name}:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
        self.bring_back();
    }
}

/// Whether a Phone has a condition.
pub(super) fn is(phone: &serde_json::Value, condition: &str) -> bool {
    let conditions = phone["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
}

/// What `make android` built for the device.
fn agent_for(device: &AdbDevice) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let builds = test.ancestors().nth(3).unwrap().join("android");
    let built = device.traits().abis.iter().map(|abi| builds.join(abi).join(AGENT)).find(|path| path.exists());
    built.unwrap_or_else(|| {
        panic!("nothing is built in {} for {:?}: `make android`", builds.display(), device.traits().abis)
    })
}

fn tell_cheap_phone(script: OsString, verb: &str, serial: &str) -> Result<()> {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(OBEYS).arg(script).args([verb, serial]);
    run(command)?.ok().with_context(|| format!("{verb} {serial}")).map(drop)
}
