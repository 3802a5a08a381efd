//! The file of a farm: which devices, by what names, and what their agents are given. Asks no device anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use polyphony_adb::{Choice, Listed, Standing};
use polyphony_identity::is_dns_label;
use serde::Deserialize;

use super::AGENT;
use crate::manifest::{self, Document, ManifestError};

const KIND: &str = "Farm";
const BACKENDS: [&str; 5] = ["auto", "cpu", "cpu-int8", "vulkan", "vulkan-int8"];
/// Stands for the device's ABI in the path of a program.
const ABI: &str = "{abi}";

/// A farm as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Farm {
    pub(super) name: String,
    /// By serial, those that are named; where none is, the farm is every device that adb lists.
    devices: Vec<Named>,
    /// What a device has to be, beside being named.
    pub(super) choice: Choice,
    agent: AgentTerms,
}

#[derive(Clone, Debug, PartialEq)]
struct Named {
    serial: String,
    phone: String,
    agent: AgentTerms,
}

/// What an agent is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AgentTerms {
    /// Where its program is, with `{abi}` for the device's.
    program: Option<PathBuf>,
    memory: Option<String>,
    backend: Option<String>,
    threads: Option<u32>,
}

/// One device of a farm, as adb has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) serial: String,
    /// The name of its Phone.
    pub(super) phone: String,
    /// Whether the file names it: what it is not, is then somebody's mistake.
    pub(super) is_named: bool,
    pub(super) agent: AgentTerms,
    /// None where adb does not list it.
    pub(super) standing: Option<Standing>,
}

/// Why a file is no farm.
#[derive(Debug, thiserror::Error)]
pub(super) enum FarmFileError {
    #[error("the farm {file} cannot be read: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{file} holds {found} objects: one of the kind {KIND} was expected")]
    NotOne { file: String, found: usize },
    #[error("{file}: {source}")]
    Syntax { file: String, source: serde_yaml::Error },
    #[error("{place}: {field}: {what}")]
    Meaning { place: String, field: String, what: String },
    #[error("{one} and {other} would both be the Phone {phone}: give one of them another name in spec.devices")]
    SameName { phone: String, one: String, other: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FarmFile {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Spec {
    devices: Vec<DeviceEntry>,
    selector: SelectorEntry,
    agent: AgentEntry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    serial: String,
    name: Option<String>,
    #[serde(default)]
    agent: AgentEntry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct SelectorEntry {
    abi: Option<String>,
    min_api_level: Option<u32>,
    min_memory: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentEntry {
    program: Option<PathBuf>,
    memory: Option<String>,
    backend: Option<String>,
    threads: Option<u32>,
}

/// What is wrong, and where.
struct Fault {
    field: String,
    what: String,
}

fn fault(field: impl Into<String>, what: impl Into<String>) -> Fault {
    Fault { field: field.into(), what: what.into() }
}

// === impl Farm ===

impl Farm {
    /// Reads a file, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be read, or is no farm; with the line and the field.
    pub(super) fn read(file: &str) -> Result<Self, FarmFileError> {
        let unreadable = |source| FarmFileError::Unreadable { file: file.to_owned(), source };
        if file == "-" {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(unreadable)?;
            return Self::parse("STDIN", &text, Path::new(""));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        Self::parse(file, &text, Path::new(file).parent().unwrap_or(Path::new("")))
    }

    /// `folder` is where relative paths of the text begin.
    fn parse(file: &str, text: &str, folder: &Path) -> Result<Self, FarmFileError> {
        let documents = manifest::parse(file, text)?;
        let [document] = documents.as_slice() else {
            return Err(FarmFileError::NotOne { file: file.to_owned(), found: documents.len() });
        };
        let told = |Fault { field, what }| FarmFileError::Meaning { place: document.place_of(&field), field, what };
        check_kind(document).map_err(told)?;
        let read: FarmFile =
            serde_yaml::from_str(text).map_err(|source| FarmFileError::Syntax { file: file.to_owned(), source })?;
        read.resolve(folder).map_err(told)
    }

    /// The devices of the farm among those that adb lists, and those that it lists not and should.
    ///
    /// # Errors
    /// When two would have one name.
    pub(super) fn entries(&self, listed: &[Listed]) -> Result<Vec<Entry>, FarmFileError> {
        let standing = |serial: &str| listed.iter().find(|one| one.serial == serial).map(|one| one.standing.clone());
        let named = self.devices.iter().map(|device| Entry {
            serial: device.serial.clone(),
            phone: device.phone.clone(),
            is_named: true,
            agent: device.agent.clone(),
            standing: standing(&device.serial),
        });
        let found = listed.iter().filter(|_| self.devices.is_empty()).map(|one| Entry {
            serial: one.serial.clone(),
            phone: phone_name(&one.serial),
            is_named: false,
            agent: self.agent.clone(),
            standing: Some(one.standing.clone()),
        });
        let entries: Vec<Entry> = named.chain(found).collect();
        let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in &entries {
            if let Some(other) = by_name.insert(&entry.phone, &entry.serial) {
                let (phone, one) = (entry.phone.clone(), other.to_owned());
                return Err(FarmFileError::SameName { phone, one, other: entry.serial.clone() });
            }
        }
        Ok(entries)
    }
}

fn check_kind(document: &Document) -> Result<(), Fault> {
    let version = format!("{}/{}", polyphony_api::GROUP, polyphony_api::VERSION);
    if document.kind() != KIND {
        return Err(fault("kind", format!("{KIND} was expected, {} found", document.kind())));
    }
    if document.api_version() != version {
        return Err(fault("apiVersion", format!("{version} was expected, {} found", document.api_version())));
    }
    Ok(())
}

/// What a device is called that has no name of its own: by its serial, so that it is the same however many there are.
fn phone_name(serial: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = "phone-".chars().chain(serial.chars().map(letter)).take(63).collect();
    name.trim_end_matches('-').to_owned()
}

// === impl FarmFile ===

impl FarmFile {
    fn resolve(self, folder: &Path) -> Result<Farm, Fault> {
        if !is_dns_label(&self.metadata.name) {
            return Err(fault("metadata.name", not_a_name(&self.metadata.name)));
        }
        let agent = self.spec.agent.resolve("spec.agent", folder)?;
        let mut serials = BTreeSet::new();
        let mut devices = Vec::new();
        for (idx, device) in self.spec.devices.into_iter().enumerate() {
            let field = |name: &str| format!("spec.devices[{idx}].{name}");
            let serial = device.serial;
            if serial.is_empty() || serial.starts_with('-') || !serial.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(fault(
                    field("serial"),
                    format!("{serial:?} is no serial: take one that `adb devices` lists"),
                ));
            }
            if !serials.insert(serial.clone()) {
                return Err(fault(field("serial"), format!("{serial} is there already")));
            }
            let phone = device.name.unwrap_or_else(|| phone_name(&serial));
            if !is_dns_label(&phone) {
                return Err(fault(field("name"), not_a_name(&phone)));
            }
            let own = device.agent.resolve(&field("agent"), folder)?;
            devices.push(Named { serial, phone, agent: own.over(&agent) });
        }
        Ok(Farm { name: self.metadata.name, devices, choice: self.spec.selector.resolve()?, agent })
    }
}

fn not_a_name(name: &str) -> String {
    format!("{name:?} is no name: write 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end")
}

// === impl SelectorEntry ===

impl SelectorEntry {
    fn resolve(self) -> Result<Choice, Fault> {
        let least_memory_bytes = match self.min_memory {
            None => None,
            Some(text) => Some(bytes("spec.selector.minMemory", &text)?),
        };
        Ok(Choice { abi: self.abi, least_api_level: self.min_api_level, least_memory_bytes, ..Choice::default() })
    }
}

fn bytes(field: &str, text: &str) -> Result<u64, Fault> {
    match polyphony_api::quantity::parse_bytes(text) {
        Ok(0) => Err(fault(field, "it has to be more than nothing, such as 1Gi")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(fault(field, error.to_string())),
    }
}

// === impl AgentEntry ===

impl AgentEntry {
    fn resolve(self, place: &str, folder: &Path) -> Result<AgentTerms, Fault> {
        if let Some(memory) = &self.memory {
            bytes(&format!("{place}.memory"), memory)?;
        }
        if let Some(backend) = self.backend.as_deref().filter(|backend| !BACKENDS.contains(backend)) {
            let what = format!("there is no backend {backend}: there are {}", BACKENDS.join(", "));
            return Err(fault(format!("{place}.backend"), what));
        }
        let program = self.program.map(|program| folder.join(program));
        Ok(AgentTerms { program, memory: self.memory, backend: self.backend, threads: self.threads })
    }
}

// === impl AgentTerms ===

impl AgentTerms {
    /// These, and what they do not say as `other` says it.
    fn over(self, other: &Self) -> Self {
        Self {
            program: self.program.or_else(|| other.program.clone()),
            memory: self.memory.or_else(|| other.memory.clone()),
            backend: self.backend.or_else(|| other.backend.clone()),
            threads: self.threads.or(other.threads),
        }
    }

    /// As flags of the agent.
    pub(super) fn arguments(&self) -> Vec<String> {
        let threads = self.threads.map(|threads| threads.to_string());
        let flags = [("--memory", &self.memory), ("--backend", &self.backend), ("--threads", &threads)];
        flags
            .into_iter()
            .flat_map(|(flag, value)| value.iter().flat_map(move |value| [flag.to_owned(), value.clone()]))
            .collect()
    }

    /// Where a program for a device of these ABIs may be, the likeliest first. `builds` are folders of builds.
    pub(super) fn programs(&self, abis: &[String], builds: &[PathBuf]) -> Vec<PathBuf> {
        let places = match &self.program {
            Some(program) => vec![program.display().to_string()],
            None => {
                builds.iter().map(|folder| folder.join("android").join(ABI).join(AGENT).display().to_string()).collect()
            }
        };
        let mut programs: Vec<PathBuf> = Vec::new();
        for abi in abis {
            for place in &places {
                let program = PathBuf::from(place.replace(ABI, abi));
                if !programs.contains(&program) {
                    programs.push(program);
                }
            }
        }
        programs
    }
}

/// Folders that `make android` may have built into: that of this program's own build, and the one of the folder that is worked in.
pub(super) fn builds() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_owned);
    [Some(PathBuf::from("target")), beside].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "apiVersion: polyphony.dev/v1alpha1\nkind: Farm\nmetadata:\n  name: shelf\n";

    fn parse(spec: &str) -> Result<Farm, FarmFileError> {
        Farm::parse("farm.yaml", &format!("{HEAD}{spec}"), Path::new("/farm"))
    }

    fn ready(serial: &str) -> Listed {
        Listed { serial: serial.to_owned(), standing: Standing::Ready }
    }

    #[test]
    fn a_farm_without_devices_is_all_that_adb_lists() {
        let farm = parse("").unwrap();
        let entries = farm.entries(&[ready("R5CT_12.4"), ready("127.0.0.1:16550")]).unwrap();
        let phones: Vec<_> = entries.iter().map(|entry| (entry.phone.as_str(), entry.is_named)).collect();
        assert_eq!(phones, [("phone-r5ct-12-4", false), ("phone-127-0-0-1-16550", false)]);
        let error = farm.entries(&[ready("A.1"), ready("a-1")]).unwrap_err().to_string();
        assert!(error.contains("A.1 and a-1 would both be the Phone phone-a-1"), "{error}");
        assert!(farm.entries(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_farm_with_devices_is_these_alone_in_their_order_and_listed_or_not() {
        let spec = "spec:\n  devices:\n  - serial: 0012\n    name: kitchen\n    agent: {memory: 2Gi}\n  - {serial: A1}\n  agent: {memory: 1Gi, backend: cpu, threads: 4}\n";
        let farm = parse(spec).unwrap();
        let entries = farm.entries(&[ready("A1"), ready("C3")]).unwrap();
        let [kitchen, other] = entries.as_slice() else { panic!("{entries:?}") };
        // Digits are no number.
        assert_eq!((kitchen.serial.as_str(), kitchen.phone.as_str(), &kitchen.standing), ("0012", "kitchen", &None));
        assert_eq!((other.phone.as_str(), &other.standing), ("phone-a1", &Some(Standing::Ready)));
        assert_eq!(kitchen.agent.arguments(), ["--memory", "2Gi", "--backend", "cpu", "--threads", "4"]);
        assert_eq!(other.agent.arguments(), ["--memory", "1Gi", "--backend", "cpu", "--threads", "4"]);
    }

    #[test]
    fn a_selector_is_what_a_device_has_to_be() {
        let farm = parse("spec:\n  selector: {abi: arm64-v8a, minApiLevel: 26, minMemory: 3Gi}\n").unwrap();
        let expected = Choice {
            abi: Some("arm64-v8a".into()),
            least_api_level: Some(26),
            least_memory_bytes: Some(3 << 30),
            ..Choice::default()
        };
        assert_eq!(farm.choice, expected);
    }

    #[test]
    fn a_program_is_the_one_for_the_devices_abi() {
        let abis = ["arm64-v8a".to_owned(), "armeabi-v7a".to_owned()];
        let builds = [PathBuf::from("target"), PathBuf::from("/build")];
        let of = |spec: &str| parse(spec).unwrap().agent.programs(&abis, &builds);
        let built = ["target/android/arm64-v8a/polyphony-agent", "/build/android/arm64-v8a/polyphony-agent"];
        assert_eq!(of("")[..2], built.map(PathBuf::from));
        assert_eq!(of("").len(), 4);
        let own = of("spec:\n  agent: {program: '../bin/{abi}/polyphony-agent'}\n");
        assert_eq!(own[0], Path::new("/farm/../bin/arm64-v8a/polyphony-agent"));
        assert_eq!(of("spec:\n  agent: {program: /bin/polyphony-agent}\n"), [PathBuf::from("/bin/polyphony-agent")]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_field() {
        for (spec, words) in [
            (
                "spec:\n  device: []\n",
                "farm.yaml: spec: unknown field `device`, expected one of `devices`, `selector`, `agent` at line 6",
            ),
            (
                "spec:\n  agent:\n    memory: lots\n",
                "farm.yaml:7, document 1: spec.agent.memory: \"lots\" is not a quantity",
            ),
            ("spec:\n  agent: {memory: '0'}\n", "spec.agent.memory: it has to be more than nothing"),
            ("spec:\n  agent: {backend: abacus}\n", "spec.agent.backend: there is no backend abacus: there are auto"),
            ("spec:\n  selector: {minMemory: 3 GB}\n", "spec.selector.minMemory"),
            ("spec:\n  selector: {minApiLevel: new}\n", "line 6"),
            (
                "spec:\n  devices:\n  - serial: A1\n  - serial: A1\n",
                "farm.yaml:8, document 1: spec.devices[1].serial: A1 is there already",
            ),
            (
                "spec:\n  devices:\n  - {serial: A1, name: Big Phone}\n",
                "spec.devices[0].name: \"Big Phone\" is no name",
            ),
            ("spec:\n  devices:\n  - {serial: ''}\n", "spec.devices[0].serial: \"\" is no serial"),
            ("spec:\n  devices:\n  - {serial: A1, agent: {memory: lots}}\n", "spec.devices[0].agent.memory"),
            ("spec:\n  devices:\n  - {name: a}\n", "missing field `serial`"),
            (
                "spec:\n  devices:\n  - {serial: [A1]}\n",
                "spec.devices[0].serial: invalid type: sequence, expected a string",
            ),
            ("spec: {}\nstatus: {}\n", "unknown field `status`"),
            ("spec:\n  agent: {}\n  agent: {}\n", "duplicate entry"),
            ("---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n", "farm.yaml holds 2 objects"),
        ] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("farm.yaml"), "{spec:?} says {error:?}");
        }
        let of = |text: &str| Farm::parse("farm.yaml", text, Path::new("")).unwrap_err().to_string();
        assert!(
            of(&HEAD.replace("Farm", "Model"))
                .contains("farm.yaml:2, document 1: kind: Farm was expected, Model found")
        );
        assert!(of(&HEAD.replace("v1alpha1", "v2")).contains("polyphony.dev/v1alpha1 was expected"));
        assert!(of(&HEAD.replace("shelf", "My Shelf")).contains("metadata.name: \"My Shelf\" is no name"));
        assert!(of("").contains("holds 0 objects"));
        let absent = Farm::read("absent.yaml").unwrap_err().to_string();
        assert!(absent.contains("the farm absent.yaml cannot be read"), "{absent}");
    }

    #[test]
    fn the_committed_farm_is_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/farm.yaml");
        assert_eq!(Farm::read(file).unwrap().name, "shelf");
    }
}
