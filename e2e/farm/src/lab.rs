//! Labs: phones and links as a person writes them in a file, read into names and shapes. Runs nothing.

mod figures;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Link, Shape};
pub use figures::parse_bytes;
use figures::{LabFile, LinkFigures, PhoneFigures, Profiles};
pub use figures::{LinkChange, Sensors};

/// The profiles that every lab may name.
const PROFILES: &str = include_str!("../../../manifests/lab/profiles.yaml");
const PROFILES_FILE: &str = "manifests/lab/profiles.yaml";
/// What an agent needs besides what it gives to segments: its program, its buffers, what it is just fetching.
const AGENT_BYTES: u64 = 96 << 20;
/// As many as a lab has addresses for, and more than any machine has cores for.
const MOST_PHONES: usize = 64;

/// A lab as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Lab {
    pub phones: Vec<Phone>,
}

/// One phone of a lab.
#[derive(Clone, Debug, PartialEq)]
pub struct Phone {
    pub name: String,
    pub shape: Shape,
    /// What its agent gives to segments. The shape's memory is more: the agent itself is in it.
    pub segment_bytes: u64,
    /// What its agent computes with, such as `cpu`.
    pub backend: String,
    /// What its sensors say, where they are to say something.
    pub sensors: Option<Sensors>,
}

/// Why a file is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("the lab {} cannot be read: {source}", .file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{}: {source}", .file.display())]
    Syntax { file: PathBuf, source: serde_yaml::Error },
    #[error("{}, line {line}: {field}: {what}", .file.display())]
    Meaning { file: PathBuf, line: usize, field: String, what: String },
}

// === impl Lab ===

impl Lab {
    /// # Errors
    /// When it cannot be read, or is no lab.
    pub fn read(file: &Path) -> Result<Self, LabError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| LabError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// Reads the text of `file`.
    ///
    /// # Errors
    /// [`LabError`] with the file, the line and the field.
    pub fn parse(text: &str, file: &Path) -> Result<Self, LabError> {
        let syntax = |file: &Path, source| LabError::Syntax { file: file.to_owned(), source };
        let mut profiles: Profiles =
            serde_yaml::from_str(PROFILES).map_err(|source| syntax(Path::new(PROFILES_FILE), source))?;
        let lab: LabFile = serde_yaml::from_str(text).map_err(|source| syntax(file, source))?;
        profiles.phones.extend(lab.profiles.phones.clone());
        profiles.links.extend(lab.profiles.links.clone());
        lab.resolve(&profiles).map_err(|Fault { field, word, what }| LabError::Meaning {
            file: file.to_owned(),
            line: line_of(text, &word),
            field,
            what,
        })
    }

    pub fn phone(&self, name: &str) -> Option<&Phone> {
        self.phones.iter().find(|phone| phone.name == name)
    }

    /// How long the links of this file hold a packet back on its way from one phone to another, either way: the link of these two, or
    /// else the one's and then the other's. Zero to itself.
    pub fn delay(&self, one: &str, other: &str) -> Duration {
        if one == other {
            return Duration::ZERO;
        }
        let own = |from: &str, to: &str| self.phone(from).and_then(|phone| phone.shape.links.get(to));
        let access = |name: &str| self.phone(name).and_then(|phone| phone.shape.link.as_ref());
        match own(one, other).or_else(|| own(other, one)) {
            Some(link) => link.delay,
            None => [one, other].into_iter().filter_map(access).map(|link| link.delay).sum(),
        }
    }
}

/// A link by the name of its profile.
///
/// # Errors
/// With the names that there are.
pub fn link_profile(name: &str) -> Result<Link, String> {
    let profiles: Profiles = serde_yaml::from_str(PROFILES).map_err(|error| error.to_string())?;
    let figures =
        profiles.links.get(name).ok_or_else(|| format!("no link profile {name}: {}", known(&profiles.links)))?;
    figures.link()
}

/// What is wrong, where, and by which word its line is found.
struct Fault {
    field: String,
    word: String,
    what: String,
}

fn fault(field: String, word: &str, what: impl Into<String>) -> Fault {
    Fault { field, word: word.to_owned(), what: what.into() }
}

/// The first line that has the word, counted from 1.
fn line_of(text: &str, word: &str) -> usize {
    text.lines().position(|line| line.contains(word)).map_or(1, |idx| idx + 1)
}

fn known<T>(profiles: &BTreeMap<String, T>) -> String {
    format!("there are {}", profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}

// === impl LabFile ===

impl LabFile {
    fn resolve(&self, profiles: &Profiles) -> Result<Lab, Fault> {
        if self.phones.is_empty() || self.phones.len() > MOST_PHONES {
            return Err(fault(
                "phones".into(),
                "phones",
                format!("{} phones; give 1 to {MOST_PHONES}", self.phones.len()),
            ));
        }
        let mut names = BTreeSet::new();
        let mut phones = Vec::new();
        for (idx, phone) in self.phones.iter().enumerate() {
            let field = |name: &str| format!("phones[{idx}].{name}");
            crate::programs::check_name(&phone.name)
                .map_err(|error| fault(field("name"), &phone.name, error.to_string()))?;
            if !names.insert(phone.name.as_str()) {
                return Err(fault(field("name"), &phone.name, format!("there is a {} already", phone.name)));
            }
            phones.push(resolve_phone(phone, profiles, field)?);
        }
        for (idx, between) in self.links.iter().enumerate() {
            let field = |name: &str| format!("links[{idx}].{name}");
            let [one, other] = &between.between;
            if let Some(stranger) = [one, other].into_iter().find(|name| !names.contains(name.as_str())) {
                return Err(fault(field("between"), stranger, format!("there is no phone {stranger}")));
            }
            if one == other {
                return Err(fault(field("between"), one, "a phone has no link to itself"));
            }
            let link = resolve_link(&between.figures(), between.profile.as_deref(), profiles, field)?;
            if let Some(phone) = phones.iter_mut().find(|phone| phone.name == *one) {
                phone.shape.links.insert(other.clone(), link);
            }
        }
        Ok(Lab { phones })
    }
}

fn resolve_phone(
    phone: &figures::PhoneEntry,
    profiles: &Profiles,
    field: impl Fn(&str) -> String,
) -> Result<Phone, Fault> {
    let profile = match &phone.profile {
        None => PhoneFigures::default(),
        Some(name) => profiles.phones.get(name).cloned().ok_or_else(|| {
            fault(field("profile"), name, format!("no phone profile {name}: {}", known(&profiles.phones)))
        })?,
    };
    let own = phone.figures();
    let cpu = own.cpu.or(profile.cpu);
    if let Some(cpu) = cpu.filter(|cpu| !(0.1..=1.0).contains(cpu)) {
        return Err(fault(field("cpu"), &cpu.to_string(), format!("{cpu} of a core; give 0.1 to 1")));
    }
    let memory = own.memory.as_ref().or(profile.memory.as_ref());
    let memory = memory.ok_or_else(|| fault(field("memory"), &phone.name, "give a quantity such as 96Mi"))?;
    let segment_bytes = parse_bytes(memory).map_err(|what| fault(field("memory"), memory, what))?;
    let backend = own.backend.or(profile.backend).unwrap_or_else(|| "cpu".to_owned());
    if !["auto", "cpu", "cpu-int8", "vulkan", "vulkan-int8"].contains(&backend.as_str()) {
        let what = format!("no backend {backend}: there are auto, cpu, cpu-int8, vulkan, vulkan-int8");
        return Err(fault(field("backend"), &backend, what));
    }
    let link = match &phone.link {
        None => None,
        Some(name) => Some(resolve_link(&LinkFigures::default(), Some(name), profiles, |_| field("link"))?),
    };
    let memory_bytes = segment_bytes.saturating_add(AGENT_BYTES);
    let shape = Shape { cpu_cores: cpu, memory_bytes: Some(memory_bytes), link, links: BTreeMap::new() };
    Ok(Phone { name: phone.name.clone(), shape, segment_bytes, backend, sensors: phone.sensors.clone() })
}

fn resolve_link(
    own: &LinkFigures,
    profile: Option<&str>,
    profiles: &Profiles,
    field: impl Fn(&str) -> String,
) -> Result<Link, Fault> {
    let profile = match profile {
        None => LinkFigures::default(),
        Some(name) => profiles.links.get(name).cloned().ok_or_else(|| {
            fault(field("profile"), name, format!("no link profile {name}: {}", known(&profiles.links)))
        })?,
    };
    let figures = own.over(&profile);
    figures.link().map_err(|what| {
        let word = what.split(':').next().unwrap_or_default().to_owned();
        fault(field(&word), &word, what)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Lab, LabError> {
        Lab::parse(text, Path::new("lab.yaml"))
    }

    #[test]
    fn a_phone_has_its_profile_with_its_own_figures_over_it() {
        let lab = parse(
            "profiles:\n  links:\n    cable: {delayMilliseconds: 0.1}\nphones:\n- {name: a, profile: flagship, memory: 1Gi, link: \
             cable}\n- {name: b, cpu: 0.5, memory: 64Mi, sensors: {batteryPercent: 20}}\nlinks:\n- {between: [a, b], profile: \
             hotspot, delayMilliseconds: 40, cut: true}\n",
        )
        .unwrap();
        let [a, b] = &lab.phones[..] else { panic!("{lab:?}") };
        assert_eq!((a.shape.cpu_cores, a.segment_bytes, a.backend.as_str()), (Some(0.8), 1 << 30, "cpu"));
        assert_eq!(a.shape.memory_bytes, Some((1 << 30) + AGENT_BYTES));
        assert_eq!(a.shape.link.as_ref().unwrap().delay, Duration::from_micros(100));
        let own = &a.shape.links["b"];
        assert_eq!((own.delay, own.bits_per_second, own.is_cut), (Duration::from_millis(40), Some(10_000_000), true));
        assert_eq!((b.shape.cpu_cores, &b.shape.link), (Some(0.5), &None));
        assert_eq!(b.sensors.as_ref().unwrap().battery_percent, Some(20));
    }

    #[test]
    fn a_packet_waits_on_the_link_of_two_phones_or_else_on_the_one_s_and_the_other_s() {
        let lab = parse(
            "phones:\n- {name: a, profile: flagship, link: good-wifi}\n- {name: b, profile: old, link: hotspot}\n- {name: c, profile: \
             old}\nlinks:\n- {between: [a, c], delayMilliseconds: 3}\n",
        )
        .unwrap();
        for (one, other, milliseconds) in
            [("a", "b", 21), ("b", "a", 21), ("a", "c", 3), ("c", "a", 3), ("b", "c", 20), ("a", "a", 0)]
        {
            assert_eq!(lab.delay(one, other), Duration::from_millis(milliseconds), "{one} to {other}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_field() {
        for (text, words) in [
            ("phones: []", "lab.yaml, line 1: phones: 0 phones"),
            ("phones:\n- {name: a, memory: 1Gi}\n- {name: a, memory: 1Gi}", "phones[1].name: there is a a already"),
            ("phones:\n- {name: A_b, memory: 1Gi}", "line 2: phones[0].name"),
            (
                "phones:\n- {name: a, profile: phablet}",
                "line 2: phones[0].profile: no phone profile phablet: there are flagship",
            ),
            ("phones:\n- {name: a, memory: lots}", "line 2: phones[0].memory"),
            ("phones:\n- {name: a}", "line 2: phones[0].memory: give a quantity such as 96Mi"),
            ("phones:\n- {name: a, memory: 1Gi, cpu: 3}", "line 2: phones[0].cpu: 3 of a core"),
            ("phones:\n- {name: a, memory: 1Gi, link: string}", "phones[0].link: no link profile string"),
            ("phones:\n- {name: a, memory: 1Gi, backend: abacus}", "phones[0].backend: no backend abacus"),
            ("phones:\n- {name: a, memory: 1Gi}\nlinks:\n- {between: [a, b]}", "links[0].between: there is no phone b"),
            ("phones:\n- {name: a, memory: 1Gi}\nlinks:\n- {between: [a, a]}", "no link to itself"),
            ("phones:\n- {name: a, memory: 1Gi, colour: red}", "unknown field `colour`"),
            ("phones:\n- {name: a, memory: 1Gi, cpu: fast}", "line 2"),
            ("phones:\n- name: [", "lab.yaml: "),
            (
                "phones:\n- {name: a, memory: 1Gi}\n- {name: b, memory: 1Gi}\nlinks:\n- {between: [a, b], lossPercent: 120}",
                "lossPercent",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("lab.yaml"), "{text:?} says {error:?}");
        }
        let absent = Lab::read(Path::new("absent.yaml")).unwrap_err().to_string();
        assert!(absent.contains("absent.yaml cannot be read"), "{absent}");
    }

    #[test]
    fn the_committed_labs_are_labs_whose_shares_a_machine_of_two_cores_has() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/lab");
        let mut n_labs = 0;
        for path in [folder.clone(), folder.join("rows")].iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
            let path = path.unwrap().path();
            if path.is_dir() || path.file_name().is_some_and(|name| name == "profiles.yaml") {
                continue;
            }
            let lab = Lab::read(&path).unwrap();
            let cores: f64 = lab.phones.iter().filter_map(|phone| phone.shape.cpu_cores).sum();
            assert!(cores < 1.6, "{}: {cores} cores", path.display());
            n_labs += 1;
        }
        assert!(n_labs >= 12, "{n_labs}");
    }
}
