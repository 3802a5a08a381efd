//! Two ends meet: in TLS by their names, and in plain for benches.
#![allow(clippy::unwrap_used)]

use polyphony_identity::{Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Signed};
use polyphony_protocol::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::Uncounted;

const NOW: u64 = 1_800_000_000;
const DEADLINE: Duration = Duration::from_secs(20);

fn wire(security: Security) -> Wire {
    Wire::new(Bounds::default(), Arc::new(Uncounted), security)
}

fn phone(authority: &Authority, name: &str) -> Wire {
    let key = Key::generate().unwrap();
    let request = Signed::read(&key.request().unwrap()).unwrap();
    let papers = authority.certify(&request, &Name::phone(name, DEFAULT_DOMAIN), NOW).unwrap();
    let credentials = Credentials::new(&key, &papers, Clock::told(NOW)).unwrap();
    wire(Security::mutual(&credentials, Audience::Certified).unwrap())
}

fn authority() -> Authority {
    Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap()
}

fn whom(name: &str) -> Whom {
    Whom::Named(Name::phone(name, DEFAULT_DOMAIN))
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn who_dials_is_met_as_a_stranger_and_heard() {
    let authority = authority();
    let ends = [(wire(Security::Plain), wire(Security::Plain)), (phone(&authority, "a"), phone(&authority, "b"))];
    for (dials, lets_in) in ends {
        let (listener, address) = listener().await;
        let whom = whom("b");
        let meeting = async { lets_in.accept(&listener).await.meet(DEADLINE).await };
        let (dialled, met) = tokio::join!(dials.dial(&address, &whom, DEADLINE), meeting);
        let (mut dialled, mut met) = (dialled.unwrap(), met.unwrap());
        assert_eq!(dialled.peer.address.to_string(), address);
        dialled.writer.write(&Frame::Ping { nonce: 7 }).await.unwrap();
        assert_eq!(met.reader.next().await.unwrap(), Frame::Ping { nonce: 7 });
        if let Some(proven) = met.proven() {
            assert_eq!(proven.name, Name::phone("a", DEFAULT_DOMAIN));
            assert!(met.meter.n_read() > 1000, "the bytes of a handshake count");
        }
        dialled.writer.write(&Frame::Filler(vec![0; 65 << 10].into())).await.unwrap();
        assert!(matches!(met.reader.next().await, Err(LinkError::Frame(_))), "a stranger sent more than a greeting");
        drop(met);
        assert!(matches!(dialled.reader.next().await, Err(LinkError::Closed | LinkError::Io(_))));
    }
}

#[tokio::test]
async fn somebody_else_than_is_meant_is_told_of_in_words() {
    let (ours, theirs) = (authority(), authority());
    let (dials, stranger) = (phone(&ours, "a"), phone(&theirs, "b"));
    let table = [
        (phone(&ours, "c"), "certificate cannot be taken"),
        (stranger, "another installation"),
        (wire(Security::Plain), "no TLS"),
    ];
    for (lets_in, why) in table {
        let (listener, address) = listener().await;
        let serving = async {
            let Ok(mut met) = lets_in.accept(&listener).await.meet(DEADLINE).await else { return };
            // In plain: what comes is no frame, and is answered as one who speaks no TLS answers.
            let _ = met.reader.next().await;
            let _ = met.writer.write(&Frame::Accepted).await;
        };
        let whom = whom("b");
        let (dialled, ()) = tokio::join!(dials.dial(&address, &whom, DEADLINE), serving);
        let said = dialled.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(why), "{why} is not in {said:?}");
    }
}

#[tokio::test]
async fn who_speaks_no_tls_or_an_older_one_or_is_slow_is_not_let_in() {
    let authority = authority();
    let lets_in = phone(&authority, "b");
    let hello_of_tls_1_2 = {
        // A hello that offers TLS 1.2 alone: no extension says more.
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0]);
        let mut handshake = vec![1, 0, 0, hello.len() as u8];
        handshake.extend(hello);
        let mut record = vec![22, 3, 1, 0, handshake.len() as u8];
        record.extend(handshake);
        record
    };
    let oversized = {
        // A handshake message that says it has 16 MiB, and goes on and on.
        let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
        record.resize(5 + 0x4000, 0);
        record
    };
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "no TLS"),
        (&hello_of_tls_1_2, "no TLS 1.3"),
        (&oversized, "TLS"),
        (b"", "nothing came"),
    ] {
        let (listener, address) = listener().await;
        let (mut stream, caller) =
            tokio::join!(async { TcpStream::connect(&address).await.unwrap() }, lets_in.accept(&listener));
        stream.write_all(bytes).await.unwrap();
        let deadline = if bytes.is_empty() { Duration::from_millis(50) } else { DEADLINE };
        let said = caller.meet(deadline).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(why), "{why} is not in {said:?}");
        // An alert, a few bytes long, and the end.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 64, "{rest:?}");
    }
}
