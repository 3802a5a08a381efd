//! The process farm.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use polyphony_farm::{Farm, FarmError, Launch, Link, Package, ProcessFarm, Shape, Wish};

use crate::contract::a_farm_keeps_its_word;

#[test]
fn the_process_farm_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    a_farm_keeps_its_word(&mut ProcessFarm::new(folder.path()));
}

#[test]
fn limits_that_a_process_cannot_have_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut farm = ProcessFarm::new(folder.path());
    let slow = Shape { cpu_cores: Some(0.5), link: Some(Link::default()), ..Shape::default() };
    let refused = farm.take(&Wish { name: "phone-1".into(), shape: slow.clone() }).err().unwrap().to_string();
    assert!(refused.contains("phone-1") && refused.contains("a CPU share or links"), "{refused}");
    let mut phone = farm.take(&Wish::named("phone-1")).unwrap();
    assert!(matches!(phone.reshape(&slow), Err(FarmError::Unsupported { .. })));
    phone.reshape(&Shape::default()).unwrap();
}

#[test]
fn metrics_are_what_the_program_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut phone = ProcessFarm::new(folder.path()).take(&Wish::named("phone-1")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nup 1\n", "HTTP/1.1 404 Not Found\r\n\r\n"];
    let server = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /metrics HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(phone.metrics(port).unwrap(), "up 1\n");
    let refused = phone.metrics(port).unwrap_err().to_string();
    assert!(refused.contains("404 Not Found"), "{refused}");
    server.join().unwrap();
}

#[test]
fn a_dropped_device_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut phone = ProcessFarm::new(folder.path()).take(&Wish::named("phone-1")).unwrap();
    phone.install(&Package::of("/bin/sleep")).unwrap();
    phone.run(&Launch::of("sleep", ["600"])).unwrap();
    let program = phone.folder().join("sleep");
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|process| std::fs::read_link(process.path().join("exe")).ok()).any(|exe| exe == program)
    };
    assert!(runs());
    drop(phone);
    assert!(!runs());
}
