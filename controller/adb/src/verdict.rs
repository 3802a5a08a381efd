//! Verdicts: why adb, its server or a device does not do what it was asked, told apart by adb's own words.

use std::io;
use std::time::Duration;

/// Cause and remedy; which device it is about is said around it.
#[derive(Debug, thiserror::Error)]
pub enum AdbError {
    #[error(
        "the program {program} cannot be run: {source}; install adb (on Debian: `apt-get install adb`), or name it in $ADB"
    )]
    NoClient { program: String, source: io::Error },
    #[error(
        "no adb server listens at port {port} of this machine: `adb start-server`, and `adb connect` for devices of a network"
    )]
    ServerGone { port: u16 },
    #[error(
        "the adb server at port {port} was killed or lost during `{what}`: `adb start-server`, and `adb connect` for devices of a network"
    )]
    ServerLost { port: u16, what: String },
    #[error("`{what}` has not answered within {} s, and was given up: is the device asleep, or its cable loose?", .deadline.as_secs())]
    Silent { what: String, deadline: Duration },
    #[error(
        "{n_bytes} bytes were not pushed within {} s, and what had come was removed: the cable or the network is too slow or stands still; try another",
        .deadline.as_secs()
    )]
    TooSlow { n_bytes: u64, deadline: Duration },
    #[error("adb lists no device {serial}: is it plugged in, with USB debugging on? `adb devices` shows what is")]
    NotListed { serial: String },
    #[error("the device is offline: plug it in again, or `adb disconnect` and `adb connect` one of a network")]
    Offline,
    #[error(
        "the device has not allowed this machine's adb: unlock it, and accept the question about USB debugging on its screen"
    )]
    Unauthorized,
    #[error("adb may not open the device: see its udev rules, or the group plugdev")]
    NoPermission,
    #[error("the device is in the state {state}, and takes no commands: boot it into Android")]
    OtherState { state: String },
    #[error("the connection to the device was lost during `{what}`: did it restart, or was it unplugged?")]
    Cut { what: String },
    #[error("the data partition has no room for {what}: free some, or choose another device")]
    NoRoom { what: String },
    #[error("{program} is built for {built_for}, and the device runs {}: build it for that (`make android`)", .runs.join(" and "))]
    WrongAbi { program: String, built_for: String, runs: Vec<String> },
    #[error("{program} asks for the loader {loader}, which no Android has: build it for Android (`make android`)")]
    NotAndroid { program: String, loader: String },
    #[error("it is in use by the process {pid} of this machine: wait for that, or end it")]
    InUse { pid: u32 },
    #[error(
        "it is in use by a run on the machine {machine}: wait for that, or, where that has ended, `adb shell rm -rf {folder}`"
    )]
    InUseElsewhere { machine: String, folder: &'static str },
    #[error("no device of adb's is free that fits{}", listed(.reasons))]
    NoneFits { reasons: Vec<String> },
    #[error("the device has not started again within {} s: {last}", .deadline.as_secs())]
    NotBack { deadline: Duration, last: String },
    #[error("`{what}` failed: {said}")]
    Refused { what: String, said: String },
}

/// What a failed call means, by what it wrote; `what` was asked of `serial`.
pub(crate) fn judge(what: &str, serial: &str, said: &str) -> AdbError {
    let text = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let what = what.to_owned();
    if has(&["no space left on device"]) {
        return AdbError::NoRoom { what };
    }
    if has(&["unauthorized", "still authorizing"]) {
        return AdbError::Unauthorized;
    }
    if has(&["no permissions", "insufficient permissions"]) {
        return AdbError::NoPermission;
    }
    if has(&["device offline", "still connecting"]) {
        return AdbError::Offline;
    }
    if text.contains("device '") && text.contains("' not found") || has(&["no devices/emulators found"]) {
        return AdbError::NotListed { serial: serial.to_owned() };
    }
    // A server that is gone is found out by its port, before these words are read.
    let of_a_lost_connection = [
        "error: closed",
        "protocol fault",
        "couldn't read",
        "connection reset",
        "broken pipe",
        "failed to read copy response",
        "failed to get feature set",
        "eof",
    ];
    if has(&of_a_lost_connection) || text.trim().is_empty() {
        return AdbError::Cut { what };
    }
    AdbError::Refused { what, said: said.trim().to_owned() }
}

fn listed(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return ": it lists none; plug one in with USB debugging on, or `adb connect` it".to_owned();
    }
    format!(":\n  {}", reasons.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adbs_words_are_told_apart() {
        type Expected = fn(&AdbError) -> bool;
        let table: [(&str, Expected); 13] = [
            ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", |e| {
                matches!(e, AdbError::Unauthorized)
            }),
            ("error: device still authorizing", |e| matches!(e, AdbError::Unauthorized)),
            ("error: device offline", |e| matches!(e, AdbError::Offline)),
            ("error: device still connecting", |e| matches!(e, AdbError::Offline)),
            ("error: device 'A1' not found", |e| matches!(e, AdbError::NotListed { serial } if serial == "A1")),
            ("error: no devices/emulators found", |e| matches!(e, AdbError::NotListed { .. })),
            ("adb: error: failed to copy 'a' to 'b': remote couldn't write file: No space left on device", |e| {
                matches!(e, AdbError::NoRoom { .. })
            }),
            ("error: insufficient permissions for device: user in plugdev group", |e| {
                matches!(e, AdbError::NoPermission)
            }),
            ("error: closed", |e| matches!(e, AdbError::Cut { .. })),
            ("adb: error: protocol fault (couldn't read status): Success", |e| matches!(e, AdbError::Cut { .. })),
            ("adb: error: failed to read copy response", |e| matches!(e, AdbError::Cut { .. })),
            ("", |e| matches!(e, AdbError::Cut { .. })),
            (
                "adb: error: failed to copy: remote Permission denied",
                |e| matches!(e, AdbError::Refused { said, .. } if said.contains("Permission denied")),
            ),
        ];
        for (said, is_it) in table {
            let verdict = judge("push", "A1", said);
            assert!(is_it(&verdict), "{said:?} is taken for {verdict:?}");
        }
    }
}
