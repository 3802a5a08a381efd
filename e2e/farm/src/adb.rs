//! The adb farm: each device one that the real `adb` lists, be it a phone on a cable, an emulator, or a machine that runs adbd.
//!
//! Every call has a deadline, and ends in an answer or a verdict ([`AdbError`]). Devices reach this machine by ports that adb leads to it
//! ([`Device::host_port`]), and are reached by nobody: agents find each other over their hub. All that is put on a device lies in one folder of the
//! shell's, which is removed with the farm; what a crashed run left there is removed when the device is taken.

mod claim;
mod device;
mod turn;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polyphony_adb::is_of_network;
use polyphony_journal::tell;

use crate::programs::check_name;
use crate::{Device, Farm, FarmError, Shape, Wish};

use claim::{Claim, Holder};
pub use device::AdbDevice;
pub use polyphony_adb::{Adb, AdbError, Choice, Listed, Patience, Standing, Traits};

const KIND: &str = "adb";
/// Everything of a farm's on a device. A shell may write there, and run what it has written. Not where the guide has people put their agent's folder:
/// what is here is removed.
pub const BASE: &str = "/data/local/tmp/polyphony-farm";
/// Says whose it is: [`Claim`].
const OWNER: &str = ".owner";
const STORE: &str = ".store";
/// Ports that were led from the device to this machine, and from this machine to the device: for who cleans up after a crash.
const REVERSES: &str = ".reverses";
const FORWARDS: &str = ".forwards";
const POLL: Duration = Duration::from_millis(200);
/// How often somebody else may be faster with a device that nobody has.
const N_CLAIMS: usize = 5;

/// Lends the devices of an adb server that fit its choice.
pub struct AdbFarm {
    lab: Arc<Lab>,
}

/// What the devices of a farm share. The last to be dropped removes what is on them.
struct Lab {
    adb: Adb,
    choice: Choice,
    claim: Claim,
    /// By serial, every device that was ever claimed.
    devices: Mutex<BTreeMap<String, Hold>>,
    pushed_bytes: AtomicU64,
}

/// How a farm has a device.
#[derive(Clone, Debug, PartialEq)]
enum Hold {
    /// It says that it is ours, and may hold what others have left.
    Claimed,
    Free,
    Taken {
        /// By this name.
        name: String,
        traits: Traits,
    },
}

// === impl AdbFarm ===

impl AdbFarm {
    /// A farm of the devices that adb lists now or later. Starts adb's server where none runs.
    ///
    /// # Errors
    /// When there is no adb, or its server does not start.
    pub fn new(adb: Adb, choice: Choice) -> Result<Self, FarmError> {
        let adb = Adb { is_shielded: true, ..adb };
        let unable = |error: AdbError| FarmError::Unable { kind: KIND, why: error.to_string() };
        adb.start_server().map_err(unable)?;
        let (claim, devices) = (Claim::fresh(), Mutex::default());
        Ok(Self { lab: Arc::new(Lab { adb, choice, claim, devices, pushed_bytes: AtomicU64::new(0) }) })
    }

    /// As [`Farm::take`], for who asks more of a device than any farm's can do.
    ///
    /// # Errors
    /// As [`Farm::take`].
    pub fn take_device(&mut self, wish: &Wish) -> Result<AdbDevice, FarmError> {
        let name = wish.name.clone();
        check_name(&name)?;
        refuse_limits(&name, &wish.shape)?;
        if self.lab.devices().values().any(|hold| matches!(hold, Hold::Taken { name: taken, .. } if *taken == name)) {
            return Err(FarmError::Taken { kind: KIND, device: name });
        }
        self.lab.take(&name).map_err(|source| FarmError::Adb { device: name, source })
    }

    /// What had to be pushed until now: none of it twice to one device.
    pub fn pushed_bytes(&self) -> u64 {
        self.lab.pushed_bytes.load(Ordering::Relaxed)
    }
}

impl Farm for AdbFarm {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn take(&mut self, wish: &Wish) -> Result<Box<dyn Device>, FarmError> {
        Ok(Box::new(self.take_device(wish)?))
    }
}

fn refuse_limits(device: &str, shape: &Shape) -> Result<(), FarmError> {
    let limits = shape.limits();
    if limits.is_empty() {
        return Ok(());
    }
    Err(FarmError::Unsupported { kind: KIND, device: device.to_owned(), what: limits.join(" or ") })
}

// === impl Lab ===

impl Lab {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, Hold>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first device that fits, and the reasons of all others when none does.
    fn take(self: &Arc<Self>, name: &str) -> Result<AdbDevice, AdbError> {
        let mut reasons = Vec::new();
        // A server that was started anew knows none of a network. Whether it comes is seen from the list.
        let is_taken = |serial: &String| matches!(self.devices().get(serial), Some(Hold::Taken { .. }));
        let away = |serial: &&String| serial.parse::<SocketAddr>().is_ok() && !is_taken(serial);
        for serial in self.choice.serials.iter().filter(away) {
            let _ = self.look(serial);
        }
        let listed = self.adb.devices()?;
        for serial in self.choice.serials.iter().filter(|wanted| listed.iter().all(|one| one.serial != **wanted)) {
            reasons.push(format!("{serial}: {}", AdbError::NotListed { serial: serial.clone() }));
        }
        for one in listed.iter().filter(|one| self.choice.names(&one.serial)) {
            match self.try_take(name, one) {
                Ok(device) => return Ok(device),
                // Nobody else answers then, either.
                Err(Objection::Verdict(error @ (AdbError::ServerGone { .. } | AdbError::ServerLost { .. }))) => {
                    return Err(error);
                }
                Err(Objection::Verdict(error)) => reasons.push(format!("{}: {error}", one.serial)),
                Err(Objection::Unfit(why)) => reasons.push(format!("{}: {why}", one.serial)),
            }
        }
        Err(AdbError::NoneFits { reasons })
    }

    fn try_take(self: &Arc<Self>, name: &str, listed: &Listed) -> Result<AdbDevice, Objection> {
        let serial = listed.serial.clone();
        if let Some(Hold::Taken { name: taken, .. }) = self.devices().get(&serial) {
            return Err(Objection::Unfit(format!("it is taken as {taken}")));
        }
        listed.standing.check()?;
        let traits = self.adb.traits(&serial)?;
        if let Some(objection) = self.choice.objection(&traits) {
            return Err(Objection::Unfit(objection));
        }
        if let Some(other) = self.taken_as_well(&traits) {
            return Err(Objection::Unfit(format!("it is the same device as {other}, which is taken")));
        }
        self.claim(&serial)?;
        self.devices().insert(serial.clone(), Hold::Taken { name: name.to_owned(), traits: traits.clone() });
        Ok(AdbDevice::new(name, serial, traits, Arc::clone(self))?)
    }

    /// The serial by which a device is taken that adb lists twice, as over a cable and over the network.
    fn taken_as_well(&self, traits: &Traits) -> Option<String> {
        let devices = self.devices();
        let is_it = |hold: &Hold| matches!(hold, Hold::Taken { traits: taken, .. } if taken.is_same_device(traits));
        devices.iter().find(|(_, hold)| is_it(hold)).map(|(serial, _)| serial.clone())
    }

    /// Has the device for this farm: writes on it whose it is, and then removes what a crashed run has left there.
    fn claim(&self, serial: &str) -> Result<(), AdbError> {
        let mut tried = 0;
        loop {
            let found = self.claimed(serial)?;
            match Claim::parse(&found) {
                Some(claim) if claim == self.claim => break,
                Some(claim) => match claim.holder(is_of_network(serial)) {
                    Some(Holder::Process(pid)) => return Err(AdbError::InUse { pid }),
                    Some(Holder::Machine(machine)) => return Err(AdbError::InUseElsewhere { machine, folder: BASE }),
                    None => {}
                },
                None => {}
            }
            // From here on it is cleared, and at the end given free.
            self.devices().insert(serial.to_owned(), Hold::Claimed);
            let what = "write whose it is";
            if turn::is_done(&self.adb.ask(serial, what, &turn::claim(&found, &self.claim.line()), None)?) {
                break;
            }
            tried += 1;
            if tried == N_CLAIMS {
                return Err(AdbError::Refused {
                    what: what.to_owned(),
                    said: "others were faster each time".to_owned(),
                });
            }
        }
        let is_cleared = matches!(self.devices().get(serial), Some(Hold::Free | Hold::Taken { .. }));
        if !is_cleared {
            self.clear(serial)?;
        }
        Ok(())
    }

    /// What is written where claims are.
    fn claimed(&self, serial: &str) -> Result<String, AdbError> {
        Ok(self.adb.ask(serial, "see whose it is", &turn::claimed(), None)?.trim_end().to_owned())
    }

    /// Ends and removes all of ours on a device, whoever left it, but not the claim.
    fn clear(&self, serial: &str) -> Result<(), AdbError> {
        let script = format!(
            "cd {BASE} 2>/dev/null || exit 0; cat {REVERSES} 2>/dev/null; echo /; cat {FORWARDS} 2>/dev/null; true"
        );
        let said = self.adb.ask(serial, "see what is left", &script, None)?;
        let (reverses, forwards) = said.split_once('/').unwrap_or_default();
        let patience = self.adb.patience.call;
        if !reverses.trim().is_empty() {
            let laid = self.adb.call(serial, &["reverse", "--list"], patience)?;
            for way in reverses.split_whitespace().filter(|way| laid.split_whitespace().any(|word| word == *way)) {
                self.adb.call(serial, &["reverse", "--remove", way], patience)?;
            }
        }
        if !forwards.trim().is_empty() {
            let laid = self.adb.call(serial, &["forward", "--list"], patience)?;
            let is_laid = |way: &&str| laid.lines().any(|line| line.starts_with(&format!("{serial} {way} ")));
            for way in forwards.split_whitespace().filter(is_laid) {
                self.adb.call(serial, &["forward", "--remove", way], patience)?;
            }
        }
        self.adb.ask(serial, "end and remove what is left", &turn::clear(), None).map(drop)
    }

    /// Nothing of ours is on the device after that, unless somebody else has it, or it has forgotten everything.
    fn release(&self, serial: &str) -> Result<(), AdbError> {
        if Claim::parse(&self.claimed(serial)?).as_ref() != Some(&self.claim) {
            return Ok(());
        }
        self.clear(serial)?;
        self.adb.ask(serial, "give it free", &turn::release(&self.claim.line()), None).map(drop)
    }

    /// Waits until a device takes commands, and asks adb to connect it anew where it is one of a network.
    fn await_ready(
        &self,
        serial: &str,
        deadline: Duration,
        is_back: impl Fn() -> Result<bool, AdbError>,
    ) -> Result<(), AdbError> {
        let began = Instant::now();
        loop {
            let last = match self.look(serial).and_then(|()| is_back()) {
                Ok(true) => return Ok(()),
                Ok(false) => "it has not gone down yet, or is still starting".to_owned(),
                Err(error @ (AdbError::ServerGone { .. } | AdbError::NoClient { .. })) => return Err(error),
                Err(error) => error.to_string(),
            };
            if began.elapsed() >= deadline {
                return Err(AdbError::NotBack { deadline, last });
            }
            thread::sleep(POLL);
        }
    }

    fn look(&self, serial: &str) -> Result<(), AdbError> {
        let listed = self.adb.devices()?;
        let standing = listed.iter().find(|one| one.serial == serial).map(|one| &one.standing);
        if standing == Some(&Standing::Ready) {
            return Ok(());
        }
        // One of a network has host and port for its serial; one that went is in its own way.
        if serial.parse::<SocketAddr>().is_ok() {
            if standing.is_some() {
                self.adb.call("", &["disconnect", serial], self.adb.patience.call)?;
            }
            self.adb.call("", &["connect", serial], self.adb.patience.call)?;
        }
        standing.map_or_else(|| Err(AdbError::NotListed { serial: serial.to_owned() }), Standing::check)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for serial in self.devices().keys() {
            if let Err(error) = self.release(serial) {
                tell!("{serial}: {BASE} was left behind: {error}");
            }
        }
        self.claim.end();
    }
}

/// Why a listed device is not the one that is taken.
enum Objection {
    Unfit(String),
    Verdict(AdbError),
}

impl From<AdbError> for Objection {
    fn from(error: AdbError) -> Self {
        Self::Verdict(error)
    }
}
