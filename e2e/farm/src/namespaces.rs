//! The namespace farm: each device a network namespace with a share of the processors, a memory limit and links of its own.
//!
//! Links are kept by a switch in this process, over TAP devices, since not every kernel has `netem`. The namespaces have no
//! way to any network but the lab's: this machine is reached through ports that [`Device::host_port`] opens. Needs root.

mod cgroup;
mod frame;
mod name;
mod namespace;
mod relay;
mod switch;
mod tap;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::programs::{Programs, check_name};
use crate::scrape::{ask, connect};
use crate::{Device, Farm, FarmError, Launch, Link, Package, Shape, State, Wish};

use cgroup::{Group, Hierarchy, LEAST_CORES};
use namespace::{Namespace, address_of};
use polyphony_journal::tell;
use relay::Relay;
pub use switch::Carried;
use switch::{Switch, Wiring};

const KIND: &str = "namespace";
/// The file in a device's folder that holds its share of one core; it is written anew when the share changes.
pub const SHARE_FILE: &str = "cpu-share";
/// This machine's own port of the switch.
const HOST_PORT: u8 = 1;
const LAST_PORT: u8 = 254;
/// The share of this machine's cores that devices may have together: the rest is the controller's and the switch's.
const MOST_OF_ALL_CORES: f64 = 0.8;
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// What is lost and how delays vary, unless a seed is given.
const SEED: u64 = 4;

/// Lends devices that share one network.
pub struct NamespaceFarm {
    folder: PathBuf,
    lab: Arc<Lab>,
}

/// What the devices of a farm share. The last to be dropped removes it.
struct Lab {
    members: Mutex<BTreeMap<String, Member>>,
    /// By port: ways from the lab's network to this machine's loopback.
    relays: Mutex<BTreeMap<u16, Relay>>,
    /// Where this machine's end of the lab's network is.
    host: Namespace,
    switch: Switch,
    group: Group,
    most_cores: f64,
}

struct Member {
    port: u8,
    shape: Shape,
}

struct NamespaceDevice {
    // Dropped first: the programs end before their groups go.
    programs: Programs,
    /// By port: this device's loopback to the lab's end of this machine.
    relays: BTreeMap<u16, Relay>,
    namespace: Arc<Namespace>,
    group: Group,
    port: u8,
    lab: Arc<Lab>,
}

// === impl NamespaceFarm ===

impl NamespaceFarm {
    /// A farm that keeps its devices' files in `folder`, and first removes what farms left behind whose process was killed.
    ///
    /// # Errors
    /// [`FarmError::Unable`] where this machine cannot hold a lab: without root, `/dev/net/tun`, `ip` or control groups.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, FarmError> {
        Self::seeded(folder, SEED)
    }

    /// The same with a seed of its own for what is lost and how delays vary.
    ///
    /// # Errors
    /// As [`NamespaceFarm::new`].
    pub fn seeded(folder: impl Into<PathBuf>, seed: u64) -> Result<Self, FarmError> {
        if let Some(why) = Self::obstacle() {
            return Err(FarmError::Unable { kind: KIND, why });
        }
        let unable = |what: &str, error: io::Error| FarmError::Unable { kind: KIND, why: format!("{what}: {error}") };
        let hierarchy = Hierarchy::find(Path::new(CONTROL_GROUPS)).map_err(|error| unable(CONTROL_GROUPS, error))?;
        name::remove_leftovers(&hierarchy);
        let group = Group::new(&hierarchy, &name::fresh()).map_err(|error| unable("its control group", error))?;
        let switch = Switch::start(seed).map_err(|error| unable("its switch", error))?;
        let (host, tap) = Namespace::new(HOST_PORT).map_err(|error| unable("its network", error))?;
        switch.attach(HOST_PORT, tap);
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let lab = Lab {
            members: Mutex::default(),
            relays: Mutex::default(),
            host,
            switch,
            group,
            most_cores: MOST_OF_ALL_CORES * n_cores as f64,
        };
        Ok(Self { folder: folder.into(), lab: Arc::new(lab) })
    }

    /// Why this machine cannot hold a lab, in words; none where it can, as far as can be seen.
    pub fn obstacle() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root, for network namespaces and control groups".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("needs /dev/net/tun: `modprobe tun`, or a kernel with it".to_owned());
        }
        if Command::new("ip").arg("-V").output().is_err() {
            return Some("needs the program ip: install iproute2".to_owned());
        }
        Hierarchy::find(Path::new(CONTROL_GROUPS)).err().map(|error| error.to_string())
    }

    /// The frames that the switch has carried and lost.
    pub fn carried(&self) -> Carried {
        self.lab.switch.carried()
    }
}

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

impl Farm for NamespaceFarm {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn take(&mut self, wish: &Wish) -> Result<Box<dyn Device>, FarmError> {
        let name = wish.name.clone();
        check_name(&name)?;
        let port = self.lab.admit(&name, &wish.shape)?;
        let taken = self.take_port(&name, port, &wish.shape);
        if taken.is_err() {
            self.lab.dismiss(&name);
        }
        Ok(Box::new(taken?))
    }
}

impl NamespaceFarm {
    fn take_port(&self, name: &str, port: u8, shape: &Shape) -> Result<NamespaceDevice, FarmError> {
        let kernel = |what, source| FarmError::Kernel { device: name.to_owned(), what, source };
        let programs = Programs::new(name, &self.folder)?;
        let group = self.lab.group.inner(name).map_err(|source| kernel("a control group", source))?;
        limit(&group, programs.folder(), shape).map_err(|source| kernel("its limits", source))?;
        let (namespace, tap) = Namespace::new(port).map_err(|source| kernel("a network namespace", source))?;
        self.lab.switch.attach(port, tap);
        let (lab, namespace) = (Arc::clone(&self.lab), Arc::new(namespace));
        Ok(NamespaceDevice { programs, relays: BTreeMap::new(), namespace, group, port, lab })
    }
}

// === impl Lab ===

impl Lab {
    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port of the switch for a new device, if its shape can be had.
    fn admit(&self, name: &str, shape: &Shape) -> Result<u8, FarmError> {
        let mut members = self.members();
        if members.contains_key(name) {
            return Err(FarmError::Taken { kind: KIND, device: name.to_owned() });
        }
        check_shape(name, shape)?;
        self.check_cores(&members, name, shape)?;
        let is_free = |port: &u8| members.values().all(|member| member.port != *port);
        let Some(port) = (HOST_PORT + 1..=LAST_PORT).find(is_free) else {
            let why = format!("it has {} devices, and addresses for no more", members.len());
            return Err(FarmError::Unable { kind: KIND, why });
        };
        members.insert(name.to_owned(), Member { port, shape: shape.clone() });
        self.switch.rewire(wiring(&members));
        Ok(port)
    }

    fn check_cores(&self, members: &BTreeMap<String, Member>, name: &str, shape: &Shape) -> Result<(), FarmError> {
        let others = members.iter().filter(|(other, _)| *other != name);
        let taken: f64 = others.filter_map(|(_, member)| member.shape.cpu_cores).sum();
        let asked = shape.cpu_cores.unwrap_or(0.0);
        // Shares are written in hundredths: what is over by rounding is not over.
        if asked > 0.0 && asked + taken > self.most_cores + 1e-6 {
            return Err(FarmError::TooMuchProcessor { device: name.to_owned(), asked, taken, most: self.most_cores });
        }
        Ok(())
    }

    fn reshape(&self, name: &str, shape: &Shape, group: &Group, folder: &Path) -> Result<(), FarmError> {
        let mut members = self.members();
        check_shape(name, shape)?;
        self.check_cores(&members, name, shape)?;
        let kernel = |source| FarmError::Kernel { device: name.to_owned(), what: "its limits", source };
        limit(group, folder, shape).map_err(kernel)?;
        if let Some(member) = members.get_mut(name) {
            member.shape = shape.clone();
        }
        self.switch.rewire(wiring(&members));
        Ok(())
    }

    fn dismiss(&self, name: &str) {
        let mut members = self.members();
        if let Some(member) = members.remove(name) {
            self.switch.detach(member.port);
        }
        self.switch.rewire(wiring(&members));
    }

    /// Opens a port at the lab's end of this machine that leads to its loopback.
    fn open(&self, port: u16) -> io::Result<()> {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        if relays.contains_key(&port) {
            return Ok(());
        }
        let listener = self.host.within(move || TcpListener::bind((address_of(HOST_PORT), port)))?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        relays.insert(port, Relay::start(listener, move || TcpStream::connect_timeout(&loopback, DIAL_PATIENCE))?);
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.group.remove() {
            tell!("the lab's control group was not removed: {error}");
        }
    }
}

/// Limits a device's programs, and tells its share to those that keep it in bursts shorter than the kernel's ticks as well.
fn limit(group: &Group, folder: &Path, shape: &Shape) -> io::Result<()> {
    group.limit(shape)?;
    // Put in place at once: a program may read it at any moment.
    let (file, fresh) = (folder.join(SHARE_FILE), folder.join(".cpu-share"));
    fs::write(&fresh, shape.cpu_cores.unwrap_or(1.0).to_string())?;
    fs::rename(fresh, file)
}

/// What a shape must be to mean anything.
fn check_shape(device: &str, shape: &Shape) -> Result<(), FarmError> {
    let bad = |what: String| Err(FarmError::BadShape { device: device.to_owned(), what });
    if let Some(cores) = shape.cpu_cores.filter(|cores| !(LEAST_CORES..=1.0).contains(cores)) {
        return bad(format!("a CPU share of {cores} cores; give {LEAST_CORES} to 1"));
    }
    if shape.memory_bytes == Some(0) {
        return bad("no memory; give it some".to_owned());
    }
    for link in shape.link.iter().chain(shape.links.values()) {
        if !(0.0..=1.0).contains(&link.loss) {
            return bad(format!("a link that loses {} of its packets; give 0 to 1", link.loss));
        }
        if link.bits_per_second == Some(0) {
            return bad("a link of 0 bits a second; cut it instead".to_owned());
        }
        if link.delay + link.jitter > LONGEST_DELAY {
            return bad(format!("a link with a delay over {} s", LONGEST_DELAY.as_secs()));
        }
    }
    Ok(())
}

const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What lies between the devices, and between each and this machine. Where two devices each name a link to the other, the
/// sender's holds; where one does, it holds in both directions.
fn wiring(members: &BTreeMap<String, Member>) -> Wiring {
    let named = |from: &str, to: &str| members.get(from).and_then(|member| member.shape.links.get(to));
    let mut wiring = Wiring::default();
    for (name, member) in members {
        if let Some(link) = &member.shape.link {
            wiring.shared.insert(member.port, link.clone());
        }
        for (other, peer) in members.iter().filter(|(other, _)| *other != name) {
            if let Some(link) = named(name, other).or(named(other, name)) {
                wiring.own.insert((member.port, peer.port), with_cut(link, [member, peer]));
            }
        }
    }
    wiring
}

/// A device that is cut off is so on every link, its own ones as well.
fn with_cut(link: &Link, ends: [&Member; 2]) -> Link {
    let is_off = |member: &Member| member.shape.link.as_ref().is_some_and(|link| link.is_cut);
    Link { is_cut: link.is_cut || ends.into_iter().any(is_off), ..link.clone() }
}

// === impl NamespaceDevice ===

impl Device for NamespaceDevice {
    fn name(&self) -> &str {
        self.programs.device()
    }

    fn address(&self) -> IpAddr {
        address_of(self.port).into()
    }

    fn folder(&self) -> &Path {
        self.programs.folder()
    }

    /// The answer is the lab's end of this machine, over the device's link. The device's own loopback leads there as well,
    /// for programs that are told a loopback address by the host.
    fn host_port(&mut self, port: u16) -> Result<SocketAddr, FarmError> {
        let device = self.name().to_owned();
        let kernel = |source| FarmError::Kernel { device: device.clone(), what: "a way to this machine", source };
        self.lab.open(port).map_err(kernel)?;
        let host = SocketAddr::from((address_of(HOST_PORT), port));
        if !self.relays.contains_key(&port) {
            let listen = move || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let listener = self.namespace.within(listen).map_err(kernel)?;
            let namespace = Arc::clone(&self.namespace);
            let dial = move || namespace.within(move || TcpStream::connect_timeout(&host, DIAL_PATIENCE));
            self.relays.insert(port, Relay::start(listener, dial).map_err(kernel)?);
        }
        Ok(host)
    }

    fn install(&mut self, package: &Package) -> Result<(), FarmError> {
        self.programs.install(package)
    }

    fn run(&mut self, launch: &Launch) -> Result<(), FarmError> {
        let (namespace, group) = (&self.namespace, &self.group);
        self.programs.run(launch, |mut command| {
            let mut child = namespace.within(move || command.spawn())?;
            // It runs without limits for the moment until here.
            if let Err(error) = group.add(child.id()) {
                // One that has ended by now is not in need of limits.
                if child.try_wait()?.is_none() {
                    child.kill().and_then(|()| child.wait())?;
                    return Err(error);
                }
            }
            Ok(child)
        })
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

    /// Asked inside the namespace, so that neither the question nor the answer takes a link: at the device's address, else
    /// at its loopback.
    fn metrics(&mut self, port: u16) -> Result<String, FarmError> {
        let addresses = [self.address(), Ipv4Addr::LOCALHOST.into()].map(|ip| SocketAddr::new(ip, port));
        let url = format!("http://{}/metrics", addresses[0]);
        let error = |detail| FarmError::Metrics { device: self.name().to_owned(), url: url.clone(), detail };
        // Only dialled there: the thread inside is needed by the device's relays meanwhile.
        let dial = move || connect(addresses[0]).or_else(|_| connect(addresses[1]));
        let stream = self.namespace.within(dial).map_err(|source| error(source.to_string()))?;
        ask(stream).map_err(error)
    }

    fn reshape(&mut self, shape: &Shape) -> Result<(), FarmError> {
        self.lab.reshape(self.name(), shape, &self.group, self.folder())
    }

    fn give_back(mut self: Box<Self>) -> Result<(), FarmError> {
        self.programs.remove()
    }
}

impl Drop for NamespaceDevice {
    fn drop(&mut self) {
        // In this order: what runs ends, then its group goes, then its name is free.
        let ended = self.programs.end_all();
        self.relays.clear();
        let removed = self.group.remove();
        self.lab.dismiss(self.programs.device());
        if let Err(error) = ended {
            tell!("{error}");
        }
        if let Err(error) = removed {
            tell!("the control group of {} was not removed: {error}", self.programs.device());
        }
    }
}
