//! A proxy before adb's server, that is slow, cuts off or falls silent when it is told to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How it passes on what clients say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    Pass,
    /// This many bytes a second, once a connection has said more than that.
    SlowFrom(u64),
    /// The connection ends once it has said so much.
    CutAfter(u64),
    /// Nothing more.
    Mute,
}

/// Listens as long as the test runs.
pub struct Proxy {
    port: u16,
    manner: Arc<Mutex<Manner>>,
}

// === impl Proxy ===

impl Proxy {
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let manner = Arc::new(Mutex::new(Manner::Pass));
        let of_connections = Arc::clone(&manner);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (here, there) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let manner = Arc::clone(&of_connections);
                thread::spawn(move || pass_on(client, server, &manner));
                thread::spawn(move || pass_on(there, here, &Mutex::new(Manner::Pass)));
            }
        });
        Self { port, manner }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }
}

/// Ends with either side.
fn pass_on(mut from: TcpStream, mut to: TcpStream, manner: &Mutex<Manner>) {
    let mut buffer = [0; 16 << 10];
    let mut n_passed = 0;
    while let Ok(n) = from.read(&mut buffer) {
        let manner = *manner.lock().unwrap_or_else(PoisonError::into_inner);
        n_passed += n as u64;
        match manner {
            Manner::SlowFrom(rate) if n_passed > rate => {
                thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
            }
            Manner::CutAfter(limit) if n_passed > limit => break,
            // Until the client has had enough.
            Manner::Mute if n > 0 => continue,
            _ => {}
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
