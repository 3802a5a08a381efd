//! A stand-in for the program adb: a script that says what the real one says in states that are hard to provoke. Needs no device.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use polyphony_farm::adb::{Adb, AdbError, Choice, Patience, Standing};
use polyphony_farm::{AdbFarm, Wish};

/// Adb's part in all of it: one device that answers as `shell`, a piece of script with the asked words in `$*`, does.
fn write_adb(folder: &Path, devices: &str, shell: &str) -> std::path::PathBuf {
    let path = folder.join("adb-stand-in");
    let text = format!(
        "#!/bin/sh
# A stand-in for adb, of a test's.
[ \"$1\" = -s ] && shift 2
case $1 in
    devices) printf 'List of devices attached\\n{devices}\\n' ;;
    shell) {shell} ;;
    *) echo \"adb-stand-in: no $1\" >&2; exit 1 ;;
esac
"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// A server that is there, to be seen and not spoken to.
fn server() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn adb(program: std::path::PathBuf, server: &TcpListener) -> Adb {
    let patience = Patience { call: Duration::from_millis(1500), ..Patience::default() };
    Adb { program, port: server.local_addr().unwrap().port(), patience }
}

fn taken(adb: Adb) -> String {
    let mut farm = AdbFarm::new(adb, Choice::default()).unwrap();
    farm.take_device(&Wish::named("phone-1")).err().unwrap().to_string()
}

#[test]
fn every_standing_of_a_device_has_its_verdict() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let devices = "A\\tunauthorized\\nB\\toffline\\nC\\tno permissions (user in plugdev)\\nD\\tsideload";
    let adb = adb(write_adb(here.path(), devices, "exit 1"), &server);
    let standings: Vec<Standing> = adb.devices().unwrap().into_iter().map(|one| one.standing).collect();
    assert_eq!(standings.len(), 4, "{standings:?}");
    let said = taken(adb);
    for words in [
        "A: the device has not allowed",
        "B: the device is offline",
        "C: adb may not open",
        "D: the device is in the state sideload",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

#[test]
fn a_device_that_fails_in_mid_call_has_its_verdict() {
    let table = [
        ("echo model x; exit 0", "the connection to the device was lost"),
        ("echo 'error: closed' >&2; exit 1", "the connection to the device was lost"),
        ("echo \"error: device 'A' not found\" >&2; exit 1", "adb lists no device A"),
        ("echo 'error: device unauthorized.' >&2; exit 1", "has not allowed this machine's adb"),
        ("exec sleep 600", "has not answered within 1 s"),
        ("printf '\\npolyphony-ended:1\\n'; echo 'cat: No space left on device' >&2", "has no room"),
    ];
    for (shell, words) in table {
        let (here, server) = (tempfile::tempdir().unwrap(), server());
        let said = taken(adb(write_adb(here.path(), "A\\tdevice", shell), &server));
        assert!(said.contains(words), "{shell}: {words} is not in\n{said}");
    }
}

#[test]
fn a_server_that_goes_in_mid_call_is_the_verdict_whatever_adb_says() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let gone = here.path().join("gone");
    // It says something else once the server is not there any more.
    let shell = format!("while [ ! -e {} ]; do sleep 0.05; done; echo 'error: closed' >&2; exit 1", gone.display());
    let mut adb = adb(write_adb(here.path(), "A\\tdevice", &shell), &server);
    adb.patience.call = Duration::from_secs(20);
    let traits = std::thread::spawn(move || adb.traits("A"));
    // The call has begun once its script waits; that it found a server is what the listener has taken.
    server.accept().unwrap();
    drop(server);
    std::fs::write(&gone, "").unwrap();
    let error = traits.join().unwrap().unwrap_err();
    assert!(matches!(error, AdbError::ServerLost { .. }), "{error}");
}

#[test]
fn no_adb_and_no_server_are_told_before_anything_is_asked() {
    let here = tempfile::tempdir().unwrap();
    let closed = server().local_addr().unwrap().port();
    let absent = Adb { program: here.path().join("absent"), port: closed, patience: Patience::default() };
    let said = AdbFarm::new(absent.clone(), Choice::default()).err().unwrap().to_string();
    assert!(said.contains("absent") && said.contains("install adb"), "{said}");
    assert!(matches!(absent.devices(), Err(AdbError::ServerGone { .. })));
}
