//! Relays: a port in one network whose connections are carried on into another.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often the thread looks whether it is to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// Connections of one relay at a time; those beyond are closed at once.
const MOST_CONNECTIONS: usize = 256;

/// A listening thread. Dropped, it ends with all connections that it carries.
pub(super) struct Relay {
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Relay ===

impl Relay {
    /// Carries what is dialled at `listener`, of whatever network, to what `dial` dials.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(
        listener: TcpListener,
        dial: impl Fn() -> io::Result<TcpStream> + Send + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, opened) = (Arc::clone(&stop), Arc::clone(&open));
        let thread = thread::Builder::new().name("lab-relay".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut watched = [PollFd::new(&listener, PollFlags::IN)];
                // Interrupted or over: look again.
                let _ = poll(&mut watched, Some(&LOOK));
                while let Ok((near, _)) = listener.accept() {
                    // Whoever dialled sees a connection that ends, as where nothing listens.
                    let _ = dial().and_then(|far| join(near, far, &opened));
                }
            }
        })?;
        Ok(Self { stop, open, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics on nothing.
            let _ = thread.join();
        }
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that has ended by itself is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Carries bytes both ways, each in a thread of its own, until both ends are done.
fn join(near: TcpStream, far: TcpStream, open: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    for stream in [&near, &far] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
    }
    {
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|stream| stream.take_error().is_ok() && stream.peer_addr().is_ok());
        if open.len() >= MOST_CONNECTIONS {
            return Ok(());
        }
        open.push(near.try_clone()?);
    }
    for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        thread::Builder::new().name("lab-relay".to_owned()).spawn(move || {
            let carried = io::copy(&mut from, &mut to);
            // The end of one direction is passed on; a fault ends both.
            let how = if carried.is_ok() { Shutdown::Write } else { Shutdown::Both };
            let _ = to.shutdown(how);
            if carried.is_err() {
                let _ = from.shutdown(Shutdown::Both);
            }
        })?;
    }
    Ok(())
}
