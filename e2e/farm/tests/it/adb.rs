//! The adb farm on what adb lists: those of `$POLYPHONY_ANDROID_SERIALS`, which `make e2e-android` starts where none are named.
//!
//! One test at a time has the devices and adb's server.

#[path = "adb/fake.rs"]
mod fake;
#[path = "adb/proxy.rs"]
mod proxy;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_farm::adb::{Adb, AdbError, BASE, Choice, Patience};
use polyphony_farm::{AdbFarm, Content, Device, FarmError, Launch, Package, State, Wish};
use polyphony_skip::left_out;

use crate::contract::a_farm_keeps_its_word;
use proxy::{Manner, Proxy};

static DEVICES: Mutex<()> = Mutex::new(());
const SERIALS: &str = "POLYPHONY_ANDROID_SERIALS";
/// The script that started the devices, where they are cheap ones.
const CHEAP: &str = "POLYPHONY_CHEAP_PHONES";
/// What a push goes at through a proxy that is slow: less than is asked for.
const SLOW: u64 = 64 << 10;
/// A partition of an emulated phone is not full before.
const FILLING: Duration = Duration::from_secs(300);
/// More than that is not filled, whosever it is.
const FILLED: u64 = 1 << 30;

/// The devices that are named, for the test that asks alone.
fn devices() -> (MutexGuard<'static, ()>, Vec<String>) {
    let serials = std::env::var(SERIALS).unwrap_or_default();
    let serials: Vec<String> = serials.split_whitespace().map(str::to_owned).collect();
    assert!(!serials.is_empty(), "{SERIALS} names no devices; `make e2e-android` starts some");
    (DEVICES.lock().unwrap_or_else(PoisonError::into_inner), serials)
}

fn farm_of(adb: Adb, serials: &[String]) -> AdbFarm {
    AdbFarm::new(adb, Choice { serials: serials.to_vec(), ..Choice::default() }).unwrap()
}

/// What the device's shell says, asked past the driver, and by its deadline. How the line ends does not matter.
fn shell(serial: &str, line: &str) -> String {
    shell_within(Adb::from_environment().patience.call, serial, line)
}

fn shell_within(deadline: Duration, serial: &str, line: &str) -> String {
    let said = Adb::from_environment().call(serial, &["shell", "-n", &format!("{line}; true")], deadline).unwrap();
    said.trim().to_owned()
}

/// The ways from the device to this machine, in adb's words.
fn ways(serial: &str) -> String {
    let adb = Adb::from_environment();
    adb.call(serial, &["reverse", "--list"], adb.patience.call).unwrap()
}

fn is_bare(serial: &str) -> bool {
    shell(serial, &format!("ls -d {BASE}* 2>/dev/null; echo asked")) == "asked"
}

/// Whether it is a cheap or an emulated phone, with nothing of a person's on it.
fn is_nobodys(serial: &str) -> bool {
    let is_emulated = "getprop ro.kernel.qemu; getprop ro.boot.qemu";
    std::env::var_os(CHEAP).is_some() || shell(serial, is_emulated).contains('1')
}

fn write_script(folder: &Path, name: &str, text: &str) -> Package {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/system/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Package::of(path)
}

fn verdict(error: FarmError) -> AdbError {
    match error {
        FarmError::Adb { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn the_adb_farm_keeps_the_contract_and_leaves_nothing() {
    let (_guard, serials) = devices();
    a_farm_keeps_its_word(&mut farm_of(Adb::from_environment(), &serials[..1]));
    assert!(is_bare(&serials[0]));
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn devices_are_chosen_by_what_they_are() {
    let (_guard, serials) = devices();
    let refused = |choice: Choice| {
        let mut farm = AdbFarm::new(Adb::from_environment(), choice).unwrap();
        farm.take_device(&Wish::named("phone-1")).err().unwrap().to_string()
    };
    let one = || Choice { serials: serials[..1].to_vec(), ..Choice::default() };
    let said = refused(Choice { least_api_level: Some(999), ..one() });
    assert!(said.contains(&serials[0]) && said.contains("999 or more"), "{said}");
    let said = refused(Choice { abi: Some("mips".into()), ..one() });
    assert!(said.contains("mips is asked for"), "{said}");
    let said = refused(Choice { least_memory_bytes: Some(1 << 50), ..one() });
    assert!(said.contains("MiB of memory"), "{said}");
    let said = refused(Choice { serials: vec!["NOBODY".into()], ..Choice::default() });
    assert!(said.contains("NOBODY") && said.contains("lists no device"), "{said}");

    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let device = farm.take_device(&Wish::named("phone-1")).unwrap();
    assert!(device.serial() == serials[0] && device.traits().api_level >= 24 && !device.traits().abis.is_empty());
    assert!(device.traits().memory_bytes > 0, "{:?}", device.traits());
    let said = farm.take_device(&Wish::named("phone-2")).err().unwrap().to_string();
    assert!(said.contains("it is taken as phone-1"), "{said}");
    let said = refused(one());
    assert!(said.contains(&format!("in use by the process {}", std::process::id())), "{said}");
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn what_is_on_a_device_is_not_pushed_again() {
    let (_guard, serials) = devices();
    let here = tempfile::tempdir().unwrap();
    let weights = here.path().join("weights");
    std::fs::write(&weights, vec![7; 3 << 20]).unwrap();
    let package = write_script(here.path(), "script", "wc -c <weights").with("weights", Content::File(weights.clone()));
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    device.install(&package).unwrap();
    let once = farm.pushed_bytes();
    assert!(once > 3 << 20);
    device.install(&package).unwrap();
    assert_eq!(farm.pushed_bytes(), once);
    // Nor after it was given back, nor under another name; but another content is.
    Box::new(device).give_back().unwrap();
    let mut device = farm.take_device(&Wish::named("phone-2")).unwrap();
    device.install(&package.clone().with("again", Content::File(weights.clone()))).unwrap();
    assert_eq!(farm.pushed_bytes(), once);
    std::fs::write(&weights, vec![8; 3 << 20]).unwrap();
    device.install(&package).unwrap();
    assert_eq!(farm.pushed_bytes(), once + (3 << 20));
    // What is there in part, for whatever reason, is not taken for the whole.
    shell(device.serial(), &format!("for each in {BASE}/.store/*; do echo >$each; done"));
    device.install(&package).unwrap();
    device.run(&Launch::of("script", [""; 0])).unwrap();
    let began = Instant::now();
    while !device.logs("script").unwrap().contains(&(3 << 20).to_string()) {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", device.logs("script").unwrap());
    }
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn what_a_crashed_run_left_is_ended_and_removed() {
    let (_guard, serials) = devices();
    let serial = &serials[0];
    let here = tempfile::tempdir().unwrap();
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    device.install(&write_script(here.path(), "script", "sleep 12345")).unwrap();
    device.run(&Launch::of("script", [""; 0])).unwrap();
    device.host_port(45_671).unwrap();
    // Every Android has another `ps`.
    let sleeper = "grep -ls '[1]2345' /proc/[0-9]*/cmdline 2>/dev/null";
    assert!(!shell(serial, sleeper).is_empty());
    // As if its process had been killed: nobody gives anything back, and the claim names nobody who lives.
    std::mem::forget((device, farm));
    shell(serial, &format!("set -- $(cat {BASE}/.owner); echo $1 boot-of-before 1 1 0 pid >{BASE}/.owner"));

    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let device = farm.take_device(&Wish::named("phone-2")).unwrap();
    assert_eq!(shell(serial, sleeper), "");
    assert_eq!(shell(serial, &format!("ls {BASE}")), "phone-2");
    assert!(!ways(serial).contains("45671"));
    drop((device, farm));
    assert!(is_bare(serial));
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_restarted_device_comes_back_with_its_files_and_its_ways() {
    let (_guard, serials) = devices();
    let here = tempfile::tempdir().unwrap();
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    device.install(&write_script(here.path(), "script", "echo up; sleep 600")).unwrap();
    device.host_port(45_672).unwrap();
    device.run(&Launch::of("script", [""; 0])).unwrap();
    device.restart().unwrap();
    assert!(matches!(device.state("script").unwrap(), State::Ended(_)));
    device.run(&Launch::of("script", [""; 0])).unwrap();
    assert_eq!(device.state("script").unwrap(), State::Running);
    let ways = ways(&serials[0]);
    assert!(ways.contains("45672"), "{ways}");
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_killed_server_is_named_and_a_new_one_finds_the_device_again() {
    let (_guard, serials) = devices();
    let adb = Adb::from_environment();
    let mut farm = farm_of(adb.clone(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    device.host_port(45_673).unwrap();
    adb.call("", &["kill-server"], adb.patience.call).unwrap();
    let error = device.host_port(45_674).unwrap_err();
    assert!(matches!(verdict(error), AdbError::ServerGone { .. } | AdbError::ServerLost { .. }));
    device.await_back().unwrap();
    device.host_port(45_674).unwrap();
    let ways = ways(&serials[0]);
    assert!(ways.contains("45673") && ways.contains("45674"), "{ways}");
    drop((device, farm));
    assert!(is_bare(&serials[0]));
    // Those that others have need it, too.
    for serial in &serials {
        drop(farm_of(adb.clone(), std::slice::from_ref(serial)).take_device(&Wish::named("phone-1")).unwrap());
    }
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_push_that_is_slow_or_cut_off_is_told_as_such_and_leaves_nothing() {
    let (_guard, serials) = devices();
    let here = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(Adb::from_environment().port);
    let patience = Patience { call: Duration::from_secs(4), least_push_rate: 4 << 20, ..Patience::default() };
    let mut farm = farm_of(Adb { port: proxy.port(), patience, ..Adb::from_environment() }, &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    let weights = here.path().join("weights");
    // What no buffer on the way holds.
    std::fs::write(&weights, vec![7; 24 << 20]).unwrap();
    let package = write_script(here.path(), "script", "true").with("weights", Content::File(weights));
    let base =
        |device: &dyn Device| shell(&serials[0], &format!("ls -A {BASE} {BASE}/.store {}", device.folder().display()));
    let before = base(&device);
    for (manner, is_it) in [
        (Manner::SlowFrom(SLOW), (|error| matches!(error, AdbError::TooSlow { .. })) as fn(&AdbError) -> bool),
        (Manner::CutAfter(1 << 20), |error| matches!(error, AdbError::Cut { .. })),
    ] {
        proxy.behave(manner);
        let error = verdict(device.install(&package).unwrap_err());
        assert!(is_it(&error), "{manner:?}: {error}");
        // Small things that were pushed whole may lie in the store.
        let left = base(&device);
        assert!(!left.contains(".coming") && left.lines().count() <= before.lines().count() + 1, "{left}");
    }
    proxy.behave(Manner::Pass);
    device.install(&package).unwrap();
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_server_that_says_nothing_is_given_up() {
    let (_guard, serials) = devices();
    let proxy = Proxy::start(Adb::from_environment().port);
    let patience = Patience { call: Duration::from_secs(2), ..Patience::default() };
    let mut farm = farm_of(Adb { port: proxy.port(), patience, ..Adb::from_environment() }, &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    proxy.behave(Manner::Mute);
    assert!(matches!(verdict(device.host_port(45_675).unwrap_err()), AdbError::Silent { .. }));
    proxy.behave(Manner::Pass);
    device.host_port(45_675).unwrap();
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn what_has_no_room_is_refused_before_it_is_pushed() {
    let (_guard, serials) = devices();
    let here = tempfile::tempdir().unwrap();
    let vast = here.path().join("vast");
    // Holes alone: it takes no room here.
    std::fs::File::create(&vast).unwrap().set_len(1 << 42).unwrap();
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    let package = write_script(here.path(), "script", "true").with("vast", Content::File(vast));
    let error = verdict(device.install(&package).unwrap_err());
    assert!(matches!(&error, AdbError::NoRoom { what } if what.contains("free")), "{error}");
    assert_eq!(farm.pushed_bytes(), 0);
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_partition_that_is_full_is_told_whatever_comes() {
    let (_guard, serials) = devices();
    let serial = &serials[0];
    if !is_nobodys(serial) {
        return left_out(format!("{serial} is no emulated phone: nobody's own is filled up"));
    }
    let free: Vec<u64> =
        shell(serial, "stat -f -c '%a %S' /data").split(' ').map(|word| word.parse().unwrap()).collect();
    if free[0] * free[1] > FILLED {
        return left_out(format!("{serial} has more free than is filled, {} MiB", (free[0] * free[1]) >> 20));
    }
    let here = tempfile::tempdir().unwrap();
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    shell_within(FILLING, serial, &format!("dd if=/dev/zero of={BASE}/phone-1/filler bs=65536 2>&1"));
    let error = verdict(device.put(Path::new("token"), &[7; 1 << 20]).unwrap_err());
    assert!(matches!(error, AdbError::NoRoom { .. }), "{error}");
    let error = verdict(device.install(&write_script(here.path(), "script", &"#".repeat(1 << 20))).unwrap_err());
    assert!(matches!(error, AdbError::NoRoom { .. }), "{error}");
    Box::new(device).give_back().unwrap();
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_program_for_another_processor_is_refused() {
    let (_guard, serials) = devices();
    let here = tempfile::tempdir().unwrap();
    let mut farm = farm_of(Adb::from_environment(), &serials[..1]);
    let mut device = farm.take_device(&Wish::named("phone-1")).unwrap();
    // The head of an ELF program, for a machine that no device here is.
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[18] = 243;
    let path = here.path().join("agent");
    std::fs::write(&path, head).unwrap();
    let error = verdict(device.install(&Package::of(path)).unwrap_err());
    assert!(matches!(&error, AdbError::WrongAbi { built_for, .. } if built_for == "riscv64"), "{error}");
    assert_eq!(farm.pushed_bytes(), 0);
}

#[test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
fn a_device_that_is_offline_is_told_as_such() {
    let (_guard, _) = devices();
    // It takes the connection and never says what it is.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let serial = mute.local_addr().unwrap().to_string();
    let said = farm_of(Adb::from_environment(), std::slice::from_ref(&serial))
        .take_device(&Wish::named("phone-1"))
        .err()
        .unwrap()
        .to_string();
    let adb = Adb::from_environment();
    adb.call("", &["disconnect", &serial], adb.patience.call).unwrap();
    assert!(said.contains(&format!("{serial}: the device is offline")), "{said}");
}
