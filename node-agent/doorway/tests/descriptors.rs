//! The limit of descriptors, which is the whole process's: so this test has one of its own.

#![allow(clippy::unwrap_used)]

use polyphony_doorway::{Limits, raise_descriptors};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_process_takes_what_the_system_lets_it_have_and_its_ports_follow() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let few = 128;
    setrlimit(Resource::Nofile, Rlimit { current: Some(few), maximum }).unwrap();
    assert_eq!(Limits::part_of_descriptors(4).connections, 32);
    raise_descriptors().unwrap();
    let most = maximum.map_or(1 << 16, |maximum| maximum.min(1 << 16));
    assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: Some(most), maximum });
    let places = usize::try_from(most).unwrap() / 4;
    assert_eq!(Limits::part_of_descriptors(4).connections, places.min(4096), "and no port takes more than that");
    raise_descriptors().unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current, Some(most), "it is enough already");
}
