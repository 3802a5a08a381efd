//! Ethernet frames as far as the switch reads them: who sent one to whom, and ARP, which it answers itself. Pure.

/// Bytes before the payload: destination, source, type.
const HEADER_BYTES: usize = 14;
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Of Ethernet and IPv4 (RFC 826): hardware, protocol, their lengths, and the operation 1, a request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ARP_BYTES: usize = 28;

/// The hardware address of a port: locally administered, its last byte the port.
pub(super) const fn mac_of(port: u8) -> [u8; 6] {
    [0x02, b'L', b'A', b'B', 0, port]
}

/// The port that a frame is for; none where it is for all, for a group, or too short to be a frame.
pub(super) fn destination(frame: &[u8]) -> Option<u8> {
    let mac: [u8; 6] = frame.get(..6)?.try_into().ok()?;
    (frame.len() >= HEADER_BYTES && mac == mac_of(mac[5])).then_some(mac[5])
}

/// What a request for the hardware address of a port is answered with; none for any other frame.
///
/// Addresses of the lab say their port in the last byte, as hardware addresses do, so that nobody has to be asked.
pub(super) fn arp_answer(frame: &[u8]) -> Option<Vec<u8>> {
    let arp = frame.get(HEADER_BYTES..HEADER_BYTES + ARP_BYTES)?;
    if frame[12..14] != TYPE_ARP || arp[..8] != ARP_REQUEST {
        return None;
    }
    let (sender, target) = (&arp[8..18], &arp[24..28]);
    // Only of the network of the sender, and not of the sender itself: that question asks whether it is alone.
    if target[..3] != sender[6..9] || target == &sender[6..10] {
        return None;
    }
    let mac = mac_of(target[3]);
    let mut answer = Vec::with_capacity(HEADER_BYTES + ARP_BYTES);
    answer.extend_from_slice(&sender[..6]);
    answer.extend_from_slice(&mac);
    answer.extend_from_slice(&TYPE_ARP);
    answer.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend_from_slice(&mac);
    answer.extend_from_slice(target);
    answer.extend_from_slice(sender);
    Some(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([0x02, b'L', b'A', b'B', 0, 2, 0x08, 0x06]);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 0x02, b'L', b'A', b'B', 0, 2, 10, 77, 0, 2]);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    #[test]
    fn a_question_for_an_address_is_answered_with_the_port_it_names() {
        let answer = arp_answer(&request([10, 77, 0, 3])).unwrap();
        let mut expected = vec![0x02, b'L', b'A', b'B', 0, 2, 0x02, b'L', b'A', b'B', 0, 3, 0x08, 0x06];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 2, 0x02, b'L', b'A', b'B', 0, 3, 10, 77, 0, 3]);
        expected.extend([0x02, b'L', b'A', b'B', 0, 2, 10, 77, 0, 2]);
        assert_eq!(answer, expected);
        for other in [[10, 78, 0, 3], [10, 77, 0, 2]] {
            assert_eq!(arp_answer(&request(other)), None, "{other:?}");
        }
        for cut in 0..request([10, 77, 0, 3]).len() {
            assert_eq!(arp_answer(&request([10, 77, 0, 3])[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_frame_goes_to_one_port_or_to_none() {
        let mut frame = [mac_of(7), mac_of(2)].concat();
        assert_eq!(destination(&frame), None, "too short");
        frame.extend([0x08, 0x00]);
        assert_eq!(destination(&frame), Some(7));
        frame[..6].fill(0xff);
        assert_eq!(destination(&frame), None);
        assert_eq!(destination(&[]), None);
    }
}
