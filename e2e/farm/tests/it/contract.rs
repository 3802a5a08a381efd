//! The contract of farms: the same questions to any driver.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use polyphony_farm::{Content, Device, Farm, FarmError, Launch, Package, State, Wish};

/// Long enough for a busy machine, short enough for a person who waits for a failing test.
const SOON: Duration = Duration::from_secs(30);

/// A program that any POSIX shell can run: says what it was given, then does what its first argument asks.
const SCRIPT: &str = "
echo \"$0 runs with $MOOD and $(cat files/note) in $(pwd)\"
case $1 in
    wait) while :; do sleep 1; done ;;
    fail) echo 'no such phone' >&2; exit 3 ;;
esac
";

/// Where devices have their shell: Android has had none at /bin until its version 10.
fn shell(farm: &dyn Farm) -> &'static str {
    if farm.kind() == "adb" { "/system/bin/sh" } else { "/bin/sh" }
}

fn write_program(folder: &Path, shell: &str) -> Package {
    let path = folder.join("script");
    std::fs::write(&path, format!("#!{shell}{SCRIPT}")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let note = folder.join("note");
    std::fs::write(&note, "a note").unwrap();
    Package::of(path).with("files/note", Content::File(note)).with("token", Content::Bytes(b"secret".to_vec()))
}

fn wait_for_log(device: &dyn Device, text: &str) -> String {
    let began = Instant::now();
    loop {
        let log = device.logs("script").unwrap();
        if log.contains(text) {
            return log;
        }
        assert!(began.elapsed() < SOON, "{text:?} is not in the log:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_end(device: &mut dyn Device) -> String {
    let began = Instant::now();
    loop {
        if let State::Ended(how) = device.state("script").unwrap() {
            return how;
        }
        assert!(began.elapsed() < SOON, "the program does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes a device through its whole life.
pub fn a_farm_keeps_its_word(farm: &mut dyn Farm) {
    let here = tempfile::tempdir().unwrap();
    let package = write_program(here.path(), shell(farm));

    let mut phone = farm.take(&Wish::named("phone-1")).unwrap();
    assert_eq!(phone.name(), "phone-1");
    assert!(matches!(farm.take(&Wish::named("phone-1")), Err(FarmError::Taken { .. })));
    assert!(matches!(farm.take(&Wish::named("No Name")), Err(FarmError::BadName { .. })));
    assert!(matches!(phone.run(&Launch::of("script", ["wait"])), Err(FarmError::NotInstalled { .. })));
    assert!(matches!(phone.logs("script"), Err(FarmError::NeverRun { .. })));
    let absent = phone.install(&Package::of(here.path().join("absent"))).unwrap_err().to_string();
    assert!(absent.contains("phone-1") && absent.contains("absent"), "{absent}");
    let escape = package.clone().with("../note", Content::Bytes(Vec::new()));
    assert!(matches!(phone.install(&escape), Err(FarmError::Outside { .. })));

    phone.install(&package).unwrap();
    phone.run(&Launch::of("script", ["wait"]).with("MOOD", "joy")).unwrap();
    let log = wait_for_log(phone.as_ref(), "joy");
    assert!(log.contains("joy and a note") && log.contains(phone.folder().to_str().unwrap()), "{log}");
    assert_eq!(phone.state("script").unwrap(), State::Running);
    assert!(matches!(phone.run(&Launch::of("script", ["wait"])), Err(FarmError::Running { .. })));
    assert!(matches!(phone.install(&package), Err(FarmError::Running { .. })));

    phone.kill("script").unwrap();
    assert!(matches!(phone.state("script").unwrap(), State::Ended(_)));
    phone.run(&Launch::of("script", ["fail"]).with("MOOD", "sorrow")).unwrap();
    assert!(wait_for_end(phone.as_mut()).contains('3'));
    let log = phone.logs("script").unwrap();
    assert!(log.contains("joy") && log.contains("sorrow"), "a second run adds to the log:\n{log}");
    let dead = phone.kill("script").unwrap_err().to_string();
    assert!(dead.contains("phone-1") && dead.contains("no such phone"), "{dead}");

    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert!(phone.host_port(port).is_ok());
    let silent = phone.metrics(port).unwrap_err().to_string();
    assert!(silent.contains("/metrics") && silent.contains(&port.to_string()), "{silent}");

    phone.give_back().unwrap();
    let again = farm.take(&Wish::named("phone-1")).unwrap();
    assert!(matches!(again.logs("script"), Err(FarmError::NeverRun { .. })), "a device is taken with nothing on it");
}
