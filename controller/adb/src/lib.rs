//! Devices that the real `adb` lists: a phone on a cable, an emulator, a machine that runs adbd. Knows no program of ours, and no cluster.
//!
//! Every call has a deadline, and ends in an answer or a verdict ([`AdbError`]) that says what to do. What is run on a device outlives the connection
//! that started it ([`script`]), and no file is pushed that is there ([`store`]). An [`Installation`] is all of that in one folder of a device which
//! stays when this process ends.

mod client;
pub mod elf;
pub mod installation;
mod launch;
mod listing;
pub mod script;
pub mod store;
mod verdict;

pub use client::{Adb, Answer, Patience};
pub use installation::Installation;
pub use launch::Launch;
pub use listing::{Choice, Listed, Standing, Traits, is_of_network};
pub use verdict::AdbError;
