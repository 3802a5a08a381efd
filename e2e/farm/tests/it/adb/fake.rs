//! A stand-in for the program adb: a script that says what the real one says in states that are hard to provoke. Needs no device.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use polyphony_farm::adb::{Adb, AdbError, Choice, Patience, Standing};
use polyphony_farm::{AdbFarm, Device, FarmError, Wish};

/// Past this process: what another test starts meanwhile would hold the file open to be written to, and what is written to is not run.
fn write_program(path: &Path, text: &str) {
    let write = ["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""];
    assert!(Command::new("sh").args(write).arg(path).arg(text).status().unwrap().success());
}

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
    write_program(&path, &text);
    path
}

/// A device of this machine's own shell: what is the shell's folder there is one of the test's here, `data` in `folder`. A forward has to be noted before it
/// is laid. The first to remove all of something takes its time. While there is a file `data.unplugged`, it is away.
fn write_device(folder: &Path, serial: &str) -> std::path::PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let path = folder.join("adb-stand-in");
    let text = format!(
        "#!/bin/sh
# A stand-in for adb and for a device, of a test's.
data={data}
[ \"$1\" = -s ] && shift 2
verb=$1
shift
[ ! -e $data.unplugged ] || {{ echo 'error: closed' >&2; exit 1; }}
case $verb in
    devices) printf 'List of devices attached\\n{serial}\\tdevice\\n' ;;
    shell)
        [ \"$1\" = -n ] && shift
        case $* in *'rm -rf'*) mkdir $data.removed 2>/dev/null && sleep 0.5 ;; esac
        properties='getprop() {{ case $1 in *sdk) echo 34 ;; *abilist) echo x86_64 ;; *) echo stand-in ;; esac; }}'
        exec sh -c \"$properties
$(printf '%s\\n' \"$*\" | sed \"s,/data/local/tmp,$data,g\")\"
        ;;
    forward)
        case $1 in
            --remove) echo removed >>$data.forwards ;;
            --no-rebind) grep -qx \"$2\" $data/*/.forwards && echo noted >>$data.forwards || echo unknown >>$data.forwards ;;
            *) echo unknown >>$data.forwards ;;
        esac
        ;;
    reverse) ;;
    *) echo \"adb-stand-in: no $verb\" >&2; exit 1 ;;
esac
",
        data = data.display()
    );
    write_program(&path, &text);
    path
}

/// A server that is there, to be seen and not spoken to.
fn server() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn adb(program: std::path::PathBuf, server: &TcpListener) -> Adb {
    let patience = Patience { call: Duration::from_millis(1500), ..Patience::default() };
    Adb { program, port: server.local_addr().unwrap().port(), patience, is_shielded: false }
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
        // Whoever adb has started holds what it would have written to.
        ("sleep 20 & exit 0", "has not answered within 1 s"),
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
    let address = server.local_addr().unwrap();
    drop(server);
    // What another test is just starting holds it open until it runs.
    let began = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "the listener does not go");
    }
    std::fs::write(&gone, "").unwrap();
    let error = traits.join().unwrap().unwrap_err();
    assert!(matches!(error, AdbError::ServerLost { .. }), "{error}");
}

#[test]
fn no_adb_and_no_server_are_told_before_anything_is_asked() {
    let here = tempfile::tempdir().unwrap();
    let closed = server().local_addr().unwrap().port();
    let (program, patience) = (here.path().join("absent"), Patience::default());
    let absent = Adb { program, port: closed, patience, is_shielded: false };
    let said = AdbFarm::new(absent.clone(), Choice::default()).err().unwrap().to_string();
    assert!(said.contains("absent") && said.contains("install adb"), "{said}");
    assert!(matches!(absent.devices(), Err(AdbError::ServerGone { .. })));
}

#[test]
fn of_two_runs_at_once_one_has_the_device() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let mut adb = adb(write_device(here.path(), "A"), &server);
    adb.patience.call = Duration::from_secs(20);
    for round in 0..6 {
        let _ = std::fs::remove_dir(here.path().join("data.removed"));
        let barrier = Barrier::new(2);
        let take = || {
            let mut farm = AdbFarm::new(adb.clone(), Choice::default()).unwrap();
            barrier.wait();
            let taken = farm.take_device(&Wish::named("phone-1"));
            // Nobody gives it free before the other has asked.
            barrier.wait();
            taken.map(drop).map_err(|error| error.to_string())
        };
        let taken = thread::scope(|scope| [scope.spawn(take), scope.spawn(take)].map(|run| run.join().unwrap()));
        let refused: Vec<&String> = taken.iter().filter_map(|taken| taken.as_ref().err()).collect();
        assert!(refused.len() == 1 && refused[0].contains("in use by the process"), "round {round}: {taken:?}");
        let left: Vec<_> = std::fs::read_dir(here.path().join("data")).unwrap().flatten().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

#[test]
fn what_another_machine_has_over_a_network_is_left_alone_and_on_a_cable_was_left() {
    for (serial, is_in_use) in [("10.1.2.3:5555", true), ("A1", false)] {
        let (here, server) = (tempfile::tempdir().unwrap(), server());
        let adb = adb(write_device(here.path(), serial), &server);
        let folder = here.path().join("data/polyphony-farm");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(".owner"), "attic boot-0 1 1 0 pid\n").unwrap();
        std::fs::write(folder.join("left"), "").unwrap();
        let mut farm = AdbFarm::new(adb, Choice::default()).unwrap();
        let taken = farm.take_device(&Wish::named("phone-1"));
        assert_eq!(taken.is_err(), is_in_use, "{serial}");
        assert_eq!(folder.join("left").exists(), is_in_use, "{serial}");
        if let Err(error) = &taken {
            let FarmError::Adb { source: AdbError::NoneFits { reasons }, .. } = error else { panic!("{error}") };
            assert!(reasons[0].contains("in use by a run on the machine attic"), "{reasons:?}");
        }
        drop((taken, farm));
        assert_eq!(folder.join(".owner").exists(), is_in_use, "{serial}: a claim of somebody else's stays");
    }
}

#[test]
fn a_device_that_adb_lists_twice_is_lent_once() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let adb = adb(write_device(here.path(), "A\\tdevice\\n10.1.2.3:5555"), &server);
    let mut farm = AdbFarm::new(adb, Choice::default()).unwrap();
    let device = farm.take_device(&Wish::named("phone-1")).unwrap();
    let said = farm.take_device(&Wish::named("phone-2")).err().unwrap().to_string();
    assert!(said.contains("10.1.2.3:5555: it is the same device as A, which is taken"), "{said}");
    assert!(here.path().join("data/polyphony-farm/phone-1").exists());
    drop(device);
}

#[test]
fn what_could_not_be_cleared_is_cleared_before_the_device_is_lent_again() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let mut farm = AdbFarm::new(adb(write_device(here.path(), "A"), &server), Choice::default()).unwrap();
    let left = here.path().join("data/polyphony-farm/phone-1/left");
    for is_dropped in [false, true] {
        let device = farm.take_device(&Wish::named("phone-1")).unwrap();
        std::fs::write(&left, "").unwrap();
        std::fs::write(here.path().join("data.unplugged"), "").unwrap();
        if is_dropped {
            drop(device);
        } else {
            let error = Box::new(device).give_back().unwrap_err().to_string();
            assert!(error.contains("the connection to the device was lost"), "{error}");
        }
        std::fs::remove_file(here.path().join("data.unplugged")).unwrap();
        assert!(left.exists());
        // Under another name, whose folder alone would be made anew.
        drop(farm.take_device(&Wish::named("phone-2")).unwrap());
        assert!(!left.exists(), "dropped: {is_dropped}");
    }
}

#[test]
fn a_way_to_a_device_is_noted_before_it_is_laid() {
    let (here, server) = (tempfile::tempdir().unwrap(), server());
    let mut farm = AdbFarm::new(adb(write_device(here.path(), "A"), &server), Choice::default()).unwrap();
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    // Nothing is there to be scraped: the way does not lead anywhere.
    device.metrics(4000).unwrap_err();
    assert_eq!(std::fs::read_to_string(here.path().join("data.forwards")).unwrap(), "noted\nremoved\n");
}
