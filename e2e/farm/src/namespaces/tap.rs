//! TAP devices: a network interface of the kernel whose frames are read and written as bytes of a descriptor.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl;

/// An Ethernet interface, without the four bytes of packet information before each frame (linux/if_tun.h).
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
/// `_IOW('T', 202, int)`, although it takes a request of the form below.
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
/// Of an interface's name, its end included (linux/if.h).
const NAME_BYTES: usize = 16;

/// `struct ifreq` (linux/if.h) with its flags: as large as the largest of its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: i16,
    rest: [u8; 22],
}

/// Makes an interface in the network namespace of the calling thread. It is gone when the descriptor is closed.
///
/// # Errors
/// When `/dev/net/tun` is not there or may not be used, or the name is taken there.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let tun = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut request = InterfaceRequest { name: [0; NAME_BYTES], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().zip(name.bytes().take(NAME_BYTES - 1)) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads an ifreq of 40 bytes, which this is, and writes none of our memory.
    unsafe { ioctl::ioctl(&tun, ioctl::Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    Ok(tun)
}
