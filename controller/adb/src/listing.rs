//! Which devices there are: what adb lists, what each tells of itself, and which of them somebody wants.

use crate::client::Adb;
use crate::verdict::AdbError;

/// Which devices a farm may lend. What is absent is not asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Only these.
    pub serials: Vec<String>,
    /// `ro.build.version.sdk` at least: 24 is Android 7.0.
    pub least_api_level: Option<u32>,
    /// Among those that the device runs: `arm64-v8a`.
    pub abi: Option<String>,
    pub least_memory_bytes: Option<u64>,
}

/// A line of `adb devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub serial: String,
    pub standing: Standing,
}

/// How adb is with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Ready,
    Offline,
    Unauthorized,
    NoPermission,
    /// In adb's word: `recovery`.
    Other(String),
}

/// What a device says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    pub model: String,
    pub api_level: u32,
    /// The device's favourite first.
    pub abis: Vec<String>,
    pub memory_bytes: u64,
    /// Its maker's, whatever adb calls it; empty where it does not say. Some makers give all of theirs the same.
    pub own_serial: String,
    /// Its kernel's present boot, which is another on each device; empty where it does not say.
    pub boot: String,
}

const TRAITS: &str = "echo \"serial $(getprop ro.serialno)\"
echo \"boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null)\"
echo \"model $(getprop ro.product.model)\"
echo \"api $(getprop ro.build.version.sdk)\"
echo \"abis $(getprop ro.product.cpu.abilist)\"
while read -r key value unit; do [ \"$key\" = MemTotal: ] && echo \"memory $value\"; done </proc/meminfo
true";

impl Adb {
    /// Every device that the server knows, whatever its state.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn devices(&self) -> Result<Vec<Listed>, AdbError> {
        Ok(parse_devices(&self.call("", &["devices"], self.patience.call)?))
    }

    /// # Errors
    /// When the device does not answer.
    pub fn traits(&self, serial: &str) -> Result<Traits, AdbError> {
        Ok(parse_traits(&self.ask(serial, "look at the device", TRAITS, None)?))
    }
}

fn parse_devices(said: &str) -> Vec<Listed> {
    let lines = said.lines().skip_while(|line| !line.starts_with("List of devices")).skip(1);
    let listed = lines.filter_map(|line| {
        let (serial, state) = line.trim().split_once(char::is_whitespace)?;
        Some(Listed { serial: serial.to_owned(), standing: standing(state.trim()) })
    });
    listed.collect()
}

/// Whether it is reached over a network, and so by other machines as well: a serial of host and port, or a name of mDNS.
pub fn is_of_network(serial: &str) -> bool {
    let has_port = serial.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    has_port || serial.ends_with("._tcp")
}

fn standing(state: &str) -> Standing {
    match state {
        "device" => Standing::Ready,
        "offline" | "connecting" => Standing::Offline,
        "unauthorized" | "authorizing" => Standing::Unauthorized,
        state if state.starts_with("no permissions") => Standing::NoPermission,
        other => Standing::Other(other.to_owned()),
    }
}

fn parse_traits(said: &str) -> Traits {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or_default();
    Traits {
        model: value("model").trim().to_owned(),
        api_level: value("api").trim().parse().unwrap_or(0),
        abis: value("abis").split(',').map(str::trim).filter(|abi| !abi.is_empty()).map(str::to_owned).collect(),
        memory_bytes: value("memory").trim().parse::<u64>().map_or(0, |kilobytes| kilobytes * 1024),
        own_serial: value("serial").trim().to_owned(),
        boot: value("boot").trim().to_owned(),
    }
}

// === impl Traits ===

impl Traits {
    /// Whether both are of one device, which adb lists by two serials: over a cable and over a network.
    pub fn is_same_device(&self, other: &Self) -> bool {
        let says = |traits: &Self| !traits.own_serial.is_empty() && !traits.boot.is_empty();
        says(self) && self.own_serial == other.own_serial && self.boot == other.boot
    }
}

// === impl Standing ===

impl Standing {
    /// # Errors
    /// The verdict on a device that takes no commands.
    pub fn check(&self) -> Result<(), AdbError> {
        match self {
            Self::Ready => Ok(()),
            Self::Offline => Err(AdbError::Offline),
            Self::Unauthorized => Err(AdbError::Unauthorized),
            Self::NoPermission => Err(AdbError::NoPermission),
            Self::Other(state) => Err(AdbError::OtherState { state: state.clone() }),
        }
    }
}

// === impl Choice ===

impl Choice {
    pub fn names(&self, serial: &str) -> bool {
        self.serials.is_empty() || self.serials.iter().any(|wanted| wanted == serial)
    }

    /// Why a device is not wanted, in words; none where it is.
    pub fn objection(&self, traits: &Traits) -> Option<String> {
        if let Some(least) = self.least_api_level.filter(|least| traits.api_level < *least) {
            return Some(format!("its API level is {}, {least} or more is asked for", traits.api_level));
        }
        if let Some(abi) = self.abi.as_ref().filter(|abi| !traits.abis.contains(abi)) {
            return Some(format!("it runs {}, {abi} is asked for", traits.abis.join(" and ")));
        }
        let least = self.least_memory_bytes.filter(|least| traits.memory_bytes < *least)?;
        Some(format!("it has {} MiB of memory, {} or more are asked for", traits.memory_bytes >> 20, least >> 20))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn adbs_list_is_read_whatever_state_devices_are_in() {
        let said = "* daemon started successfully\nList of devices attached\nA1\tdevice\n10.0.0.2:5555\toffline\nB2\tunauthorized\n\
                    C3\tno permissions (user in plugdev group; are your udev rules wrong?); see [http://…]\nD4\trecovery\n\n";
        let standings = [
            ("A1", Standing::Ready),
            ("10.0.0.2:5555", Standing::Offline),
            ("B2", Standing::Unauthorized),
            ("C3", Standing::NoPermission),
            ("D4", Standing::Other("recovery".into())),
        ];
        let expected = standings.map(|(serial, standing)| Listed { serial: serial.into(), standing });
        assert_eq!(parse_devices(said), expected);
        assert!(matches!(Standing::Other("recovery".into()).check(), Err(AdbError::OtherState { .. })));
    }

    #[test]
    fn a_serial_tells_who_may_be_connected_to_the_device() {
        for serial in ["10.0.0.2:5555", "[fe80::1]:5555", "pixel.local:41234", "adb-39041F-Zx1._adb-tls-connect._tcp"] {
            assert!(is_of_network(serial), "{serial}");
        }
        for serial in ["R5CT1234567", "emulator-5554", "usb:1-2", ":5555", "a:b"] {
            assert!(!is_of_network(serial), "{serial}");
        }
    }

    #[test]
    fn a_device_is_chosen_by_what_it_says() {
        let said = "model Pixel 7\napi 34\nabis arm64-v8a,armeabi-v7a\nmemory 7654321\n";
        let traits = parse_traits(said);
        assert_eq!((traits.model.as_str(), traits.api_level), ("Pixel 7", 34));
        assert_eq!(traits.abis, ["arm64-v8a", "armeabi-v7a"]);
        assert_eq!(traits.memory_bytes, 7_654_321 * 1024);
        let fits = |choice: Choice| choice.objection(&traits).is_none();
        assert!(fits(Choice::default()));
        assert!(fits(Choice { least_api_level: Some(34), abi: Some("armeabi-v7a".into()), ..Choice::default() }));
        assert!(!fits(Choice { least_api_level: Some(35), ..Choice::default() }));
        assert!(!fits(Choice { abi: Some("x86_64".into()), ..Choice::default() }));
        assert!(!fits(Choice { least_memory_bytes: Some(8 << 30), ..Choice::default() }));
        assert_eq!(parse_traits("").api_level, 0, "a device that says nothing is none that fits a wish");
    }

    #[test]
    fn a_device_is_known_over_any_way() {
        let of = |serial: &str, boot: &str| parse_traits(&format!("serial {serial}\nboot {boot}\nmodel Pixel 7\n"));
        assert!(of("A1", "b-1").is_same_device(&of("A1", "b-1")));
        // Devices of one name, namespaces of one kernel, and devices that do not say.
        for (one, other) in [(("A1", "b-1"), ("A1", "b-2")), (("A1", "b-1"), ("B2", "b-1")), (("", "b-1"), ("", "b-1"))]
        {
            assert!(!of(one.0, one.1).is_same_device(&of(other.0, other.1)), "{one:?} {other:?}");
        }
        assert!(!of("A1", "").is_same_device(&of("A1", "")));
    }
}
