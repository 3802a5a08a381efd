//! The keeper's own: a farm of namespaces with an agent on each device, and what it answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use polyphony_farm::lab::{Lab, Phone, Sensors, link_profile};
use polyphony_farm::namespaces::SHARE_FILE;
use polyphony_farm::{Content, Device, Farm, Launch, Link, NamespaceFarm, Package, Shape, State, Wish};
use polyphony_identity::{Digest, JoinToken};

use super::AGENT;
use super::calibration::{Calibration, await_speed, calibrate};
use super::question::{Answer, Change, PhoneStatus, Question, Status};
use super::terms::Terms;

const TOKEN_FILE: &str = "join-token";
/// What a phone's sensors say, beside its agent.
const SENSORS_FILE: &str = "sensors.json";
/// A device beside the phones, without limits, by which they are measured.
const REFERENCE: &str = "reference";

/// Where the control plane listens.
pub(super) struct ControlPlane {
    pub(super) hub_port: u16,
    pub(super) weights_port: u16,
    pub(super) ca_hash: Digest,
    /// By the name of the phone that each is for.
    pub(super) tokens: BTreeMap<String, JoinToken>,
}

/// A lab that runs. Dropped, it is gone.
pub(super) struct Keeper {
    file: String,
    phones: BTreeMap<String, Kept>,
    farm: NamespaceFarm,
}

struct Kept {
    phone: Phone,
    device: Box<dyn Device>,
    hub: SocketAddr,
    ca_hash: Digest,
    calibration: Calibration,
    /// Where the agent's first run begins in its log, behind what it was measured by.
    log_start: usize,
}

// === impl Keeper ===

impl Keeper {
    /// Takes the phones of a lab, measures each, and starts their agents.
    ///
    /// # Errors
    /// When this machine cannot hold the lab, or a phone is not as fast as its profile says.
    pub(super) fn start(
        (mut lab, file): (Lab, &Path),
        data_dir: &Path,
        agent: PathBuf,
        control_plane: &ControlPlane,
        terms: &Terms,
    ) -> anyhow::Result<Self> {
        let mut farm = NamespaceFarm::new(data_dir.join("lab"))?;
        let package = Package::of(agent);
        let mut devices = Vec::new();
        for phone in &mut lab.phones {
            let more = phone.segment_bytes.saturating_mul(terms.room - 1);
            phone.segment_bytes = phone.segment_bytes.saturating_add(more);
            phone.shape.memory_bytes = phone.shape.memory_bytes.map(|bytes| bytes.saturating_add(more));
            let mut device = farm.take(&Wish { name: phone.name.clone(), shape: phone.shape.clone() })?;
            let token = control_plane.tokens.get(&phone.name).map(JoinToken::reveal).unwrap_or_default();
            device.install(&package.clone().with(TOKEN_FILE, Content::Bytes(token.into_bytes())))?;
            devices.push(device);
        }
        let mut reference = farm.take(&Wish::named(REFERENCE)).with_context(|| {
            format!("no phone of a lab may be named {REFERENCE}: that is the device that phones are measured by")
        })?;
        reference.install(&package)?;
        let calibrations = calibrate(&lab.phones, &mut devices, reference.as_mut(), terms.tolerance)?;
        reference.give_back()?;
        let mut phones = BTreeMap::new();
        for ((phone, mut device), (name, calibration)) in lab.phones.into_iter().zip(devices).zip(calibrations) {
            let off = calibration.off() * 100.0;
            let milliseconds = calibration.layer_seconds * 1000.0;
            // Whoever started it may have gone, and its log may be full.
            let _ = writeln!(io::stdout(), "{name}: {milliseconds:.2} ms a layer, {off:+.1} % off its profile");
            let hub = device.host_port(control_plane.hub_port)?;
            device.host_port(control_plane.weights_port)?;
            let log_start = device.logs(AGENT)?.len();
            let ca_hash = control_plane.ca_hash;
            let mut kept = Kept { phone, device, hub, ca_hash, calibration, log_start };
            kept.show_log(data_dir)?;
            if let Some(weights) = &terms.weights {
                kept.give_weights(weights)?;
            }
            kept.run()?;
            phones.insert(name, kept);
        }
        // They measured themselves during the same seconds, as when they were calibrated.
        for kept in phones.values_mut() {
            await_speed(kept.device.as_mut(), kept.log_start)?;
        }
        Ok(Self { file: file.display().to_string(), phones, farm })
    }

    pub(super) fn answer(&mut self, question: Question) -> Answer {
        let done = |outcome: anyhow::Result<()>| outcome.map(|()| Answer::Done);
        let answer = match question {
            Question::Status => self.status().map(|status| Answer::Status { status }),
            Question::Set { phone, change } => done(self.set(&phone, &change)),
            Question::Kill { phone } => done(self.kept(&phone).and_then(|kept| Ok(kept.device.kill(AGENT)?))),
            Question::Start { phone } => done(self.kept(&phone).and_then(Kept::run)),
            Question::Metrics { phone, port } => {
                let metrics = self.kept(&phone).and_then(|kept| Ok(kept.device.metrics(port)?));
                metrics.map(|text| Answer::Text { text })
            }
        };
        answer.unwrap_or_else(|error| Answer::Refused { why: format!("{error:#}") })
    }

    fn kept(&mut self, phone: &str) -> anyhow::Result<&mut Kept> {
        let names: Vec<&str> = self.phones.keys().map(String::as_str).collect();
        let stranger = format!("the lab has no phone {phone}: it has {}", names.join(", "));
        self.phones.get_mut(phone).context(stranger)
    }

    fn set(&mut self, name: &str, change: &Change) -> anyhow::Result<()> {
        let peer = match &change.to {
            None => None,
            Some(peer) => Some(self.kept(peer)?.phone.clone()),
        };
        let kept = self.kept(name)?;
        let shape = changed(&kept.phone, peer.as_ref(), change)?;
        kept.device.reshape(&shape)?;
        kept.phone.shape = shape;
        if let Some(sensors) = &change.sensors {
            let old = kept.phone.sensors.clone().unwrap_or_default();
            kept.phone.sensors = Some(Sensors {
                battery_percent: sensors.battery_percent.or(old.battery_percent),
                charging: sensors.charging.or(old.charging),
                temperature_celsius: sensors.temperature_celsius.or(old.temperature_celsius),
            });
            kept.write_sensors()?;
        }
        Ok(())
    }

    fn status(&mut self) -> anyhow::Result<Status> {
        let carried = self.farm.carried();
        let mut phones = Vec::new();
        for (name, kept) in &mut self.phones {
            let shape = &kept.phone.shape;
            phones.push(PhoneStatus {
                name: name.clone(),
                address: kept.device.address().to_string(),
                state: match kept.device.state(AGENT)? {
                    State::Running => "running".to_owned(),
                    State::Ended(how) => format!("ended ({how})"),
                },
                cpu: shape.cpu_cores,
                segment_bytes: kept.phone.segment_bytes,
                link: words(shape.link.as_ref()),
                links: shape.links.iter().map(|(peer, link)| (peer.clone(), words(Some(link)))).collect(),
                calibration: Some(kept.calibration),
            });
        }
        let (frames_carried, frames_lost) = (carried.carried, carried.lost);
        Ok(Status { file: self.file.clone(), phones, frames_carried, frames_lost })
    }
}

// === impl Kept ===

impl Kept {
    fn run(&mut self) -> anyhow::Result<()> {
        self.write_sensors()?;
        let Self { phone, device, hub, ca_hash, .. } = self;
        let ca_hash = ca_hash.to_string();
        let ring_address = SocketAddr::new(device.address(), 0).to_string();
        let (hub, memory) = (hub.to_string(), phone.segment_bytes.to_string());
        // Paths are relative: the agent runs in its device's folder, wherever that is.
        let mut arguments = vec![
            ("--name", phone.name.as_str()),
            ("--hub", &hub),
            ("--token-file", TOKEN_FILE),
            ("--ca-hash", &ca_hash),
            ("--data-dir", "data"),
            ("--memory", &memory),
            ("--backend", &phone.backend),
            ("--threads", "1"),
            ("--ring-address", &ring_address),
        ];
        // Only what computes on the processor is slowed by a share of it.
        if phone.backend.starts_with("cpu") {
            arguments.push(("--cpu-share-file", SHARE_FILE));
        }
        if phone.sensors.is_some() {
            arguments.push(("--sensors", SENSORS_FILE));
        }
        let flags = arguments.into_iter().flat_map(|(flag, value)| [flag, value]);
        Ok(device.run(&Launch::of(AGENT, flags))?)
    }

    fn write_sensors(&self) -> anyhow::Result<()> {
        let Some(sensors) = &self.phone.sensors else { return Ok(()) };
        let (file, fresh) = (self.device.folder().join(SENSORS_FILE), self.device.folder().join(".sensors.json"));
        fs::write(&fresh, serde_json::to_vec(sensors)?).and_then(|()| fs::rename(&fresh, &file))?;
        Ok(())
    }

    /// Puts weights where the agent keeps those that it has fetched.
    fn give_weights(&self, weights: &Path) -> anyhow::Result<()> {
        let cannot = || format!("weights of {} for {}", weights.display(), self.phone.name);
        let cache = self.device.folder().join("data/weights");
        fs::create_dir_all(&cache).with_context(cannot)?;
        for entry in fs::read_dir(weights).with_context(cannot)? {
            let from = entry.with_context(cannot)?.path();
            let to = cache.join(from.file_name().unwrap_or_default());
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).with_context(cannot)?;
        }
        Ok(())
    }

    /// Puts the agent's log where `polyctl logs` looks.
    fn show_log(&self, data_dir: &Path) -> anyhow::Result<()> {
        let place = data_dir.join("logs").join(format!("{}.log", self.phone.name));
        // Of an earlier lab, or of `polyctl up`.
        let _ = fs::remove_file(&place);
        symlink(self.device.folder().join(format!(".logs/{AGENT}.log")), &place)
            .with_context(|| format!("{} cannot be linked", place.display()))
    }
}

/// A phone's shape with a change.
fn changed(phone: &Phone, peer: Option<&Phone>, change: &Change) -> anyhow::Result<Shape> {
    let mut shape = phone.shape.clone();
    shape.cpu_cores = change.cpu.or(shape.cpu_cores);
    shape.memory_bytes = change.memory_bytes.or(shape.memory_bytes);
    let base = |now: Link| match &change.profile {
        // A profile replaces all but a cut, which is its own matter.
        Some(name) => link_profile(name).map(|link| Link { is_cut: now.is_cut, ..link }),
        None => Ok(now),
    };
    if change.profile.is_none() && change.link == Default::default() {
        return Ok(shape);
    }
    match peer {
        None => {
            let now = base(shape.link.clone().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            shape.link = Some(change.link.of(&now).map_err(anyhow::Error::msg)?);
        }
        Some(peer) => {
            let now = base(link_between(phone, peer)).map_err(anyhow::Error::msg)?;
            shape.links.insert(peer.name.clone(), change.link.of(&now).map_err(anyhow::Error::msg)?);
        }
    }
    Ok(shape)
}

/// What lies between two phones now: a link of their own, or the one's and then the other's.
fn link_between(phone: &Phone, peer: &Phone) -> Link {
    let own = phone.shape.links.get(&peer.name).or(peer.shape.links.get(&phone.name));
    if let Some(own) = own {
        return own.clone();
    }
    let [near, far] = [phone, peer].map(|phone| phone.shape.link.clone().unwrap_or_default());
    Link {
        bits_per_second: near.bits_per_second.into_iter().chain(far.bits_per_second).min(),
        delay: near.delay + far.delay,
        jitter: near.jitter + far.jitter,
        loss: 1.0 - (1.0 - near.loss) * (1.0 - far.loss),
        is_cut: false,
    }
}

fn words(link: Option<&Link>) -> String {
    let Some(link) = link else { return "ideal".to_owned() };
    if link.is_cut {
        return "cut".to_owned();
    }
    let rate = link.bits_per_second.map(|rate| format!("{} Mbit/s", rate as f64 / 1e6));
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    let jitter = if link.jitter.is_zero() { String::new() } else { format!(" ± {}", milliseconds(link.jitter)) };
    let delay = format!("{}{jitter} ms", milliseconds(link.delay));
    let loss = (link.loss > 0.0).then(|| format!("{} % lost", (link.loss * 1e6).round() / 1e4));
    rate.into_iter().chain([delay]).chain(loss).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_farm::lab::LinkChange;

    use super::*;

    fn two_phones() -> (Phone, Phone) {
        let text =
            "phones:\n- {name: a, profile: flagship, link: good-wifi}\n- {name: b, profile: old, link: hotspot}\n";
        let mut phones = Lab::parse(text, Path::new("lab.yaml")).unwrap().phones.into_iter();
        (phones.next().unwrap(), phones.next().unwrap())
    }

    #[test]
    fn a_change_to_one_peer_begins_with_what_lies_between_now() {
        let (a, b) = two_phones();
        let cut = LinkChange { cut: Some(true), ..LinkChange::default() };
        let change = Change { to: Some("b".into()), link: cut, ..Change::default() };
        let shape = changed(&a, Some(&b), &change).unwrap();
        assert_eq!(shape.link, a.shape.link, "the link to everybody stays");
        assert_eq!((words(Some(&shape.links["b"])).as_str(), shape.links["b"].delay.as_millis()), ("cut", 21));
        let healed = Change { link: LinkChange { cut: Some(false), ..LinkChange::default() }, ..change };
        let healed = changed(&Phone { shape, ..a }, Some(&b), &healed).unwrap();
        assert_eq!(words(Some(&healed.links["b"])), "10 Mbit/s, 21 ± 3.2 ms, 0.02 % lost");
    }

    #[test]
    fn a_share_a_profile_and_a_figure_over_it_change_alone() {
        let (a, _) = two_phones();
        let slower = changed(&a, None, &Change { cpu: Some(0.25), ..Change::default() }).unwrap();
        assert_eq!((slower.cpu_cores, &slower.link), (Some(0.25), &a.shape.link));
        let delay = LinkChange { delay_milliseconds: Some(50.0), ..LinkChange::default() };
        let change = Change { profile: Some("hotspot".into()), link: delay, ..Change::default() };
        let far = changed(&a, None, &change).unwrap();
        assert_eq!(words(far.link.as_ref()), "10 Mbit/s, 50 ± 3 ms, 0.02 % lost");
        let unknown = changed(&a, None, &Change { profile: Some("string".into()), ..Change::default() }).unwrap_err();
        assert!(unknown.to_string().contains("good-wifi"), "{unknown}");
    }
}
