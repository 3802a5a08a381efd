//! The namespace farm: shares, limits and links are what they are said to be.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_farm::{Device, Farm, FarmError, Link, NamespaceFarm, Shape, State, Wish};

use crate::contract::a_farm_keeps_its_word;
use crate::parts::{self, figures, package, part};

/// Long enough for a busy machine, short enough for a person who waits for a failing test.
const SOON: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

/// A lab, one at a time, so that none slows another's figures; none where the machine cannot hold one.
fn lab() -> Option<(NamespaceFarm, tempfile::TempDir, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    if let Some(why) = NamespaceFarm::obstacle() {
        polyphony_skip::skipped(why);
        return None;
    }
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    Some((NamespaceFarm::new(folder.path()).unwrap(), folder, turn))
}

fn take(farm: &mut NamespaceFarm, name: &str, shape: Shape) -> Box<dyn Device> {
    let mut device = farm.take(&Wish { name: name.to_owned(), shape }).unwrap();
    device.install(&package()).unwrap();
    device
}

fn wait_for(device: &dyn Device, what: &str) {
    wait_until(what, || device.logs(&parts::name()).unwrap_or_default().lines().any(|line| line == what));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "waited {SOON:?} for {what}");
        std::thread::sleep(20 * MS);
    }
}

fn serve(device: &mut dyn Device, what: &str) {
    device.run(&part(&[what])).unwrap();
    wait_for(device, "listening");
}

fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty());
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn with_link(link: Link) -> Shape {
    Shape { link: Some(link), ..Shape::default() }
}

fn own_link(peer: &str, link: Link) -> Shape {
    Shape { links: [(peer.to_owned(), link)].into(), ..Shape::default() }
}

#[test]
fn the_namespace_farm_keeps_the_contract() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    a_farm_keeps_its_word(&mut farm);
}

#[test]
fn a_round_trip_is_the_delays_of_the_links() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let delay = |ms: u32| Link { delay: ms * MS, ..Link::default() };
    let mut far = take(&mut farm, "far", with_link(delay(2)));
    let near = |peer: Option<Link>| Shape { link: Some(delay(3)), links: named(peer), ..Shape::default() };
    let mut near_device = take(&mut farm, "near", near(None));
    serve(far.as_mut(), "echo");
    let host = far.address().to_string();
    for (peer, expected) in [(None, 10.0), (Some(delay(3)), 6.0), (Some(delay(0)), 0.0), (Some(delay(20)), 40.0)] {
        near_device.reshape(&near(peer.clone())).unwrap();
        let before = figures(near_device.as_ref()).len();
        near_device.run(&part(&["ask", &host, "60"])).unwrap();
        wait_until("the answers", || figures(near_device.as_ref()).len() == before + 60);
        wait_until("its end", || near_device.state(&parts::name()).unwrap() != State::Running);
        let trip = median(figures(near_device.as_ref()).split_off(before)) / 1000.0;
        println!("{peer:?}: {trip:.3} ms of {expected} ms");
        // Never less than the delays. More: four passes through kernel and switch, and a machine that may be busy.
        assert!(trip >= expected && trip <= expected + 2.0, "{peer:?}: {trip} ms, {expected} ms expected");
    }
}

fn named(link: Option<Link>) -> std::collections::BTreeMap<String, Link> {
    link.into_iter().map(|link| ("far".to_owned(), link)).collect()
}

#[test]
fn a_rate_limits_a_transfer() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let mut far = take(&mut farm, "far", Shape::default());
    let mut near = take(&mut farm, "near", with_link(Link { bits_per_second: Some(16_000_000), ..Link::default() }));
    serve(far.as_mut(), "sink");
    near.run(&part(&["send", &far.address().to_string(), "4000000"])).unwrap();
    wait_for(near.as_ref(), "done");
    let seconds = figures(near.as_ref())[0] / 1e6;
    println!("4 MB over 16 Mbit/s: {seconds:.2} s");
    // 2 s for the bytes alone; headers and the losses by which TCP finds the rate are on top.
    assert!((2.0..4.0).contains(&seconds), "{seconds} s");
}

#[test]
fn a_cut_stops_what_goes_over_a_link_until_it_heals() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let mut far = take(&mut farm, "far", Shape::default());
    let mut near = take(&mut farm, "near", Shape::default());
    serve(far.as_mut(), "echo");
    near.run(&part(&["ask", &far.address().to_string(), "2000"])).unwrap();
    wait_until("the first answers", || figures(near.as_ref()).len() > 10);
    near.reshape(&own_link("far", Link { is_cut: true, ..Link::default() })).unwrap();
    // One that was under way may still arrive.
    std::thread::sleep(50 * MS);
    let cut = figures(near.as_ref()).len();
    std::thread::sleep(500 * MS);
    assert_eq!(figures(near.as_ref()).len(), cut, "answers came over a link that is cut");
    near.reshape(&Shape::default()).unwrap();
    wait_until("answers over the healed link", || figures(near.as_ref()).len() > cut + 10);
}

#[test]
fn the_host_is_reached_by_its_port_and_by_the_devices_own_loopback() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let (mut stream, mut asked) = (stream.unwrap(), [0; 64]);
            let n = std::io::Read::read(&mut stream, &mut asked).unwrap();
            assert!(asked[..n].starts_with(b"GET /"));
            std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\nhello 1\n").unwrap();
        }
    });
    let mut phone = take(&mut farm, "phone-1", Shape::default());
    let host = phone.host_port(port).unwrap();
    assert_eq!(phone.host_port(port).unwrap(), host, "a second time it is open already");
    assert!(!host.ip().is_loopback(), "{host}");
    // Asked at the device's loopback: there the relay stands, and behind it the host.
    assert_eq!(phone.metrics(port).unwrap(), "hello 1\n");
    let mut other = take(&mut farm, "phone-2", Shape::default());
    other.host_port(port).unwrap();
    assert_eq!(other.metrics(port).unwrap(), "hello 1\n");
    server.join().unwrap();
}

#[test]
fn a_share_of_the_processor_slows_a_loop_in_proportion() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let share = |cores| Shape { cpu_cores: Some(cores), ..Shape::default() };
    let mut phone = take(&mut farm, "phone-1", share(0.8));
    phone.run(&part(&["spin"])).unwrap();
    let next = |phone: &dyn Device| {
        // The first may have begun under the share before.
        let seen = figures(phone).len() + 1;
        wait_until("loops", || figures(phone).len() >= seen + 3);
        median(figures(phone).split_off(seen))
    };
    let fast = next(phone.as_ref());
    phone.reshape(&share(0.25)).unwrap();
    let slow = next(phone.as_ref());
    println!("a loop takes {fast} us of 0.8 cores, {slow} us of 0.25: {:.2} times", slow / fast);
    assert_eq!(std::fs::read_to_string(phone.folder().join("cpu-share")).unwrap(), "0.25");
    // 3.2 times by the shares. Wide, for a machine on which others build: they slow what has the larger share, so that it is
    // less, and may take a turn of the other's, so that it is more.
    assert!((1.3..6.0).contains(&(slow / fast)), "{fast} us, then {slow} us");
}

#[test]
fn more_memory_than_the_limit_kills() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let mut phone = take(&mut farm, "phone-1", Shape { memory_bytes: Some(64 << 20), ..Shape::default() });
    phone.run(&part(&["hoard", "200000000"])).unwrap();
    wait_until("its end", || phone.state(&parts::name()).unwrap() != State::Running);
    let State::Ended(how) = phone.state(&parts::name()).unwrap() else { unreachable!("it has ended") };
    assert!(how.contains("signal: 9"), "{how}\n{}", phone.logs(&parts::name()).unwrap());
    phone.reshape(&Shape { memory_bytes: Some(400 << 20), ..Shape::default() }).unwrap();
    phone.run(&part(&["hoard", "200000000"])).unwrap();
    wait_for(phone.as_ref(), "has 200000000");
}

#[test]
fn shapes_that_cannot_be_are_refused_with_what_is_left() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let wish = |name: &str, shape| Wish { name: name.to_owned(), shape };
    let share = |cores| Shape { cpu_cores: Some(cores), ..Shape::default() };
    let mut refused = |shape: Shape| farm.take(&wish("phone-1", shape)).err().unwrap().to_string();
    for (shape, words) in [
        (share(0.05), "0.05 cores"),
        (share(1.5), "1.5 cores"),
        (with_link(Link { loss: 1.5, ..Link::default() }), "1.5 of its packets"),
        (with_link(Link { bits_per_second: Some(0), ..Link::default() }), "0 bits"),
        (with_link(Link { delay: Duration::from_secs(61), ..Link::default() }), "60 s"),
        (Shape { memory_bytes: Some(0), ..Shape::default() }, "no memory"),
    ] {
        let error = refused(shape);
        assert!(error.contains("phone-1") && error.contains(words), "{error}");
    }
    let n_cores = std::thread::available_parallelism().unwrap().get();
    let mut devices: Vec<_> =
        (0..n_cores).map(|idx| farm.take(&wish(&format!("phone-{idx}"), share(0.8))).unwrap()).collect();
    let full = farm.take(&wish("one-more", share(0.1))).err().unwrap();
    assert!(matches!(full, FarmError::TooMuchProcessor { .. }), "{full}");
    devices[0].reshape(&share(0.7)).unwrap();
    farm.take(&wish("one-more", share(0.1))).unwrap();
}

fn groups_of(pid: u32) -> Vec<String> {
    let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory"];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("polyphony-lab.{pid}."))).collect()
}

fn runs(program: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| std::fs::read_link(process.path().join("exe")).ok()).any(|exe| exe == program)
}

#[test]
fn what_a_killed_owner_left_is_removed_by_the_next_lab() {
    let Some((farm, folder, _turn)) = lab() else { return };
    drop(farm);
    let place = folder.path().join("left");
    let output = std::fs::File::create(folder.path().join("log")).unwrap();
    let launch = part(&["own", place.to_str().unwrap()]);
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(&launch.arguments)
        .envs(&launch.environment)
        .stdout(output)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let program = place.join("phone-1/sleep");
    wait_until("the owner's program", || {
        std::fs::read_to_string(folder.path().join("log")).unwrap().contains("owns") && runs(&program)
    });
    assert!(!groups_of(owner.id()).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(runs(&program), "a killed owner cannot end what it started");
    let _next = NamespaceFarm::new(folder.path().join("next")).unwrap();
    assert!(!runs(&program));
    assert_eq!(groups_of(owner.id()), Vec::<String>::new());
}

#[test]
fn a_farm_that_is_dropped_leaves_nothing() {
    let Some((mut farm, _folder, _turn)) = lab() else { return };
    let mut phone = take(&mut farm, "phone-1", Shape::default());
    serve(phone.as_mut(), "echo");
    let program = phone.folder().join(parts::name());
    assert!(runs(&program));
    assert!(!groups_of(std::process::id()).is_empty());
    drop(farm);
    assert!(runs(&program), "the devices outlive their farm");
    drop(phone);
    assert!(!runs(&program));
    assert_eq!(groups_of(std::process::id()), Vec::<String>::new());
}
