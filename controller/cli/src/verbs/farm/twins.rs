//! Twins: a device that adb lists twice, as over a cable and over the network, is one member of a farm, and not two that take it from each other.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use polyphony_adb::Traits;

use super::member::Member;
use super::{AT_ONCE, blocking};

/// What is told of a member beside the one that is `first`.
pub(super) fn same_as(first: &str) -> String {
    format!("it is the same device as {first}")
}

/// By their serials, members that are passed over, each with the title of the one that the device is. Who does not answer is nobody's twin.
pub(super) async fn twins(members: &[Member]) -> anyhow::Result<BTreeMap<String, String>> {
    let seen = stream::iter(members).map(async |member| {
        let own = member.clone();
        anyhow::Ok((member, blocking(move || own.traits()).await?.ok()))
    });
    let seen: Vec<anyhow::Result<(&Member, Option<Traits>)>> = seen.buffered(AT_ONCE).collect().await;
    let mut named = Vec::new();
    for one in seen {
        if let (member, Some(traits)) = one? {
            named.push((member.serial.clone(), member.title(), traits));
        }
    }
    Ok(paired(&named))
}

/// Of serial, title and traits. Of a device's serials the one that it has itself stands for it, which is that of its cable, or else the first.
fn paired(seen: &[(String, String, Traits)]) -> BTreeMap<String, String> {
    let first_of = |traits: &Traits| {
        let mut same = seen.iter().filter(|(_, _, other)| traits.is_same_device(other));
        let by_cable = same.clone().find(|(serial, _, other)| *serial == other.own_serial);
        by_cable.or_else(|| same.next())
    };
    let twin = |(serial, _, traits): &(String, String, Traits)| {
        let (first, title, _) = first_of(traits)?;
        (first != serial).then(|| (serial.clone(), title.clone()))
    };
    seen.iter().filter_map(twin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_on_a_cable_and_on_the_network_is_the_one_on_the_cable() {
        let seen = |serial: &str, own_serial: &str, boot: &str| {
            let traits = Traits { own_serial: own_serial.into(), boot: boot.into(), ..Traits::default() };
            (serial.to_owned(), format!("phone ({serial})"), traits)
        };
        let listed = [
            seen("10.0.0.7:5555", "A1", "b-1"),
            seen("A1", "A1", "b-1"),
            seen("adb-A1._adb-tls-connect._tcp", "A1", "b-1"),
            seen("10.0.0.8:5555", "B2", "b-2"),
            seen("10.0.0.9:5555", "B2", "b-2"),
            // Of one maker, who has a serial for all.
            seen("10.0.0.10:5555", "0123456789ABCDEF", "b-3"),
            seen("10.0.0.11:5555", "0123456789ABCDEF", "b-4"),
            seen("mute-1", "", ""),
            seen("mute-2", "", ""),
        ];
        let expected = [
            ("10.0.0.7:5555", "phone (A1)"),
            ("adb-A1._adb-tls-connect._tcp", "phone (A1)"),
            ("10.0.0.9:5555", "phone (10.0.0.8:5555)"),
        ];
        assert_eq!(paired(&listed), expected.map(|(one, other)| (one.to_owned(), other.to_owned())).into());
    }
}
