//! Parts: what this test program does when a test runs it on a device, as its first argument after `part` says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use polyphony_farm::{Device, Farm, Launch, NamespaceFarm, Package, Wish};

/// Where servers of devices listen; each device has all ports for itself.
pub const PORT: u16 = 4000;
/// The variable that says which part it is.
const PART: &str = "FARM_TEST_PART";
const TEST: &str = "parts::a_part_is_played";

/// The program, as it is installed on devices.
pub fn package() -> Package {
    Package::of(std::env::current_exe().unwrap())
}

pub fn name() -> String {
    std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

/// A launch that plays a part.
pub fn part(words: &[&str]) -> Launch {
    Launch::of(&name(), ["--exact", TEST, "--nocapture"]).with(PART, &words.join(" "))
}

/// Not a test of its own: does what another test asks of a device.
#[test]
fn a_part_is_played() {
    let Ok(words) = std::env::var(PART) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    match words[0] {
        "echo" => echo(),
        "sink" => sink(),
        "ask" => ask(words[1], words[2].parse().unwrap()),
        "send" => send(words[1], words[2].parse().unwrap()),
        "spin" => spin(),
        "hoard" => hoard(words[1].parse().unwrap()),
        "own" => own(words[1]),
        other => panic!("no part {other}"),
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    println!("listening");
    listener
}

fn echo() {
    for stream in listen().incoming() {
        let mut stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer).unwrap();
            }
        });
    }
}

/// Swallows what comes and answers its length when it ends.
fn sink() {
    for stream in listen().incoming() {
        let mut stream = stream.unwrap();
        let n = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        stream.write_all(&n.to_be_bytes()).unwrap();
    }
}

/// Prints the microseconds of each round trip; goes on until it has `n`, over as many connections as it takes.
fn ask(host: &str, n: usize) {
    let mut stream = TcpStream::connect((host, PORT)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [7; 64];
    for _ in 0..n {
        let began = Instant::now();
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
        println!("took {} us", began.elapsed().as_micros());
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("done");
}

fn send(host: &str, n_bytes: usize) {
    let mut stream = TcpStream::connect((host, PORT)).unwrap();
    let began = Instant::now();
    stream.write_all(&vec![1; n_bytes]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u64::from_be_bytes(answer), n_bytes as u64);
    println!("took {} us\ndone", began.elapsed().as_micros());
}

/// Prints the microseconds of a work that is always the same, again and again.
fn spin() {
    loop {
        let began = Instant::now();
        let mut value = 1_u64;
        for idx in 0..20_000_000_u64 {
            value = std::hint::black_box(value.wrapping_mul(0x9e37_79b9).rotate_left(7) ^ idx);
        }
        println!("took {} us", began.elapsed().as_micros());
    }
}

fn hoard(n_bytes: usize) {
    println!("hoarding");
    let bytes = vec![1_u8; n_bytes];
    println!("has {}", std::hint::black_box(bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>()));
}

/// Has a lab with a program in it, and waits to be killed.
fn own(folder: &str) {
    let mut farm = NamespaceFarm::new(folder).unwrap();
    let mut phone = farm.take(&Wish::named("phone-1")).unwrap();
    phone.install(&Package::of("/bin/sleep")).unwrap();
    phone.run(&Launch::of("sleep", ["600"])).unwrap();
    println!("owns {}", phone.folder().display());
    std::thread::sleep(Duration::from_secs(600));
}

/// The figures that a part has printed so far, in microseconds.
pub fn figures(device: &dyn Device) -> Vec<f64> {
    let log = device.logs(&name()).unwrap_or_default();
    log.lines().filter_map(|line| line.strip_prefix("took ")?.strip_suffix(" us")?.parse().ok()).collect()
}
