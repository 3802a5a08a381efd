//! An authority signs, and is rotated, under programs that talk by what it signed.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::{Audience, Clock, Credentials, DEFAULT_DOMAIN, Proven, Role, Whom, explain};

const NOW: u64 = 1_800_000_000;
const PROTOCOL: &[u8] = b"test";

fn authority() -> Authority {
    Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap()
}

fn name(role: Role, name: &str) -> Name {
    Name::new(role, name, DEFAULT_DOMAIN)
}

fn hub() -> Name {
    Name::of_controller(Role::Hub, DEFAULT_DOMAIN)
}

/// A program whose papers are of `at`, and whose clock says `clock`.
fn program(authority: &Authority, name: &Name, at: u64, clock: u64) -> Credentials {
    let key = Key::generate().unwrap();
    let papers = match name.role {
        Role::Phone => authority.certify(&Signed::read(&key.request().unwrap()).unwrap(), name, at).unwrap(),
        _ => authority.certify_server(&key, name, &["127.0.0.1".into()], at).unwrap(),
    };
    Credentials::new(&key, &papers, Clock::told(clock)).unwrap()
}

/// Who the server took the client for, or what either of them says.
async fn meet(client: Client<'_>, server: &Credentials, audience: Audience) -> Result<Option<Proven>, String> {
    let acceptor = TlsAcceptor::from(Arc::new(server.server(audience, PROTOCOL).unwrap()));
    let (config, whom) = match client {
        Client::Dials(credentials, whom) => (credentials.client(matches!(whom, Whom::Hub(_)), PROTOCOL).unwrap(), whom),
        Client::Joins(hash) => (Whom::pinned_client(hash, PROTOCOL).unwrap(), Whom::Pinned(hash)),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = async {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(Proven::of_connection(stream.get_ref().1.peer_certificates()))
    };
    let dialling = async {
        let mut stream = connector.connect(whom.server_name(), near).await?;
        // In TLS 1.3 who dials hears only then whether its own certificate was taken.
        stream.read_u8().await
    };
    let (dialled, served) = tokio::join!(dialling, serving);
    dialled.map_err(|error| explain(&error).unwrap_or_else(|| error.to_string()))?;
    served.map_err(|error| explain(&error).unwrap_or_else(|| error.to_string()))
}

enum Client<'a> {
    Dials(&'a Credentials, Whom),
    Joins(Digest),
}

#[tokio::test]
async fn each_knows_the_other_by_name_and_role() {
    let authority = authority();
    let phone = program(&authority, &name(Role::Phone, "a"), NOW, NOW);
    let server = program(&authority, &hub(), NOW, NOW);
    let met = meet(Client::Dials(&phone, Whom::Hub(hub())), &server, Audience::Certified).await.unwrap().unwrap();
    assert_eq!((met.name, met.key), (phone.own().name, phone.own().key));
    // A name or a role that the certificate has not.
    let other = program(&authority, &name(Role::Phone, "b"), NOW, NOW);
    let wrong: [(&Credentials, Name); 4] = [
        (&other, hub()),
        (&other, Name::of_controller(Role::Weights, DEFAULT_DOMAIN)),
        (&other, name(Role::Phone, "c")),
        (&server, Name::of_controller(Role::Weights, DEFAULT_DOMAIN)),
    ];
    for (server, whom) in wrong {
        let said = meet(Client::Dials(&phone, Whom::Named(whom.clone())), server, Audience::Certified).await;
        assert!(said.as_ref().is_err_and(|why| why.contains("certificate cannot be taken")), "{whom}: {said:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_nobody_and_comes_no_further_than_a_join() {
    let (ours, theirs) = (authority(), authority());
    let server = program(&ours, &hub(), NOW, NOW);
    let stranger = program(&theirs, &name(Role::Phone, "a"), NOW, NOW);
    let said = meet(Client::Dials(&stranger, Whom::Hub(hub())), &server, Audience::Certified).await;
    assert!(said.as_ref().is_err_and(|why| why.contains("another installation")), "{said:?}");
    let joining = Audience::Joining { rejoin_window: Duration::ZERO };
    assert_eq!(meet(Client::Joins(ours.ca_hash()), &server, joining).await, Ok(None));
    let said = meet(Client::Joins(ours.ca_hash()), &server, Audience::Certified).await;
    assert!(said.as_ref().is_err_and(|why| why.contains("asks for a certificate")), "{said:?}");
    let said = meet(Client::Joins(theirs.ca_hash()), &server, joining).await;
    assert!(said.as_ref().is_err_and(|why| why.contains("--ca-hash")), "{said:?}");
    // One that has the root's certificate, which is no secret, but nothing that it signed.
    let key = Key::generate().unwrap();
    let mut papers = theirs.certify_server(&key, &hub(), &[], NOW).unwrap();
    papers.chain.push(ours.root.clone());
    let poser = Credentials::new(&key, &papers, Clock::told(NOW)).unwrap();
    assert!(meet(Client::Joins(ours.ca_hash()), &poser, joining).await.is_err());
    // A phone that poses as the hub.
    let key = Key::generate().unwrap();
    let mut papers = ours.certify_server(&key, &name(Role::Phone, "a"), &[], NOW).unwrap();
    papers.chain.push(ours.root.clone());
    let poser = Credentials::new(&key, &papers, Clock::told(NOW)).unwrap();
    let said = meet(Client::Joins(ours.ca_hash()), &poser, joining).await;
    assert!(said.as_ref().is_err_and(|why| why.contains("role phone")), "{said:?}");
}

#[tokio::test]
async fn what_has_run_out_is_good_for_nothing_but_to_be_renewed() {
    let authority = authority();
    let (day, later) = (86_400, NOW + 3 * 86_400);
    let sleeper = program(&authority, &name(Role::Phone, "a"), NOW, NOW);
    let server = program(&authority, &hub(), later, later);
    let come = async |audience| meet(Client::Dials(&sleeper, Whom::Hub(hub())), &server, audience).await;
    for audience in
        [Audience::Certified, Audience::Anybody, Audience::Joining { rejoin_window: Duration::from_secs(day) }]
    {
        let said = come(audience).await;
        assert!(said.as_ref().is_err_and(|why| why.contains("run out")), "{audience:?}: {said:?}");
    }
    let met = come(Audience::Joining { rejoin_window: Duration::from_secs(2 * day) }).await.unwrap().unwrap();
    assert!(met.is_expired(later) && !met.is_expired(NOW + day));
    let early = program(&authority, &name(Role::Phone, "b"), later, NOW);
    let server = program(&authority, &hub(), NOW, NOW);
    let said = meet(Client::Dials(&early, Whom::Hub(hub())), &server, Audience::Certified).await;
    assert!(said.as_ref().is_err_and(|why| why.contains("begins later")), "not yet valid: {said:?}");
}

#[tokio::test]
async fn a_device_that_knows_no_time_hears_it_from_the_hub_and_from_nobody_else() {
    let authority = authority();
    let phone = program(&authority, &name(Role::Phone, "a"), NOW, 0);
    let (server, peer) =
        (program(&authority, &hub(), NOW, NOW), program(&authority, &name(Role::Phone, "b"), NOW, NOW));
    let whom = || Whom::Named(peer.own().name);
    assert!(meet(Client::Dials(&phone, whom()), &peer, Audience::Certified).await.is_err(), "not valid yet, in 1970");
    meet(Client::Dials(&phone, Whom::Hub(hub())), &server, Audience::Certified).await.unwrap();
    phone.clock().tell(NOW);
    meet(Client::Dials(&phone, whom()), &peer, Audience::Certified).await.unwrap();
    // What has surely ended is not taken, not even of a hub.
    phone.clock().tell(NOW + 2 * 86_400);
    assert!(meet(Client::Dials(&phone, Whom::Hub(hub())), &server, Audience::Certified).await.is_err());
}

#[tokio::test]
async fn an_issuer_and_a_root_are_exchanged_under_who_trusts_them() {
    let mut authority = authority();
    let old = program(&authority, &name(Role::Phone, "old"), NOW, NOW);
    let old_hash = authority.ca_hash();
    authority.rotate_issuer(NOW + 1).unwrap();
    assert_eq!(authority.ca_hash(), old_hash);
    let audience = Audience::Joining { rejoin_window: Duration::ZERO };
    let meets = async |authority: &Authority, phone: &Credentials| {
        let server = program(authority, &hub(), NOW + 2, NOW + 2);
        meet(Client::Dials(phone, Whom::Hub(hub())), &server, audience).await.map(|met| met.is_some())
    };
    assert_eq!(meets(&authority, &old).await, Ok(true));
    for _ in 0..2 {
        authority.rotate_root(NOW + 2).unwrap();
        let new = program(&authority, &name(Role::Phone, "new"), NOW + 2, NOW + 2);
        assert_eq!((meets(&authority, &old).await, meets(&authority, &new).await), (Ok(true), Ok(true)));
    }
    assert_ne!(authority.ca_hash(), old_hash);
    authority.forget_retired();
    assert!(meets(&authority, &old).await.is_err());
}

#[tokio::test]
async fn an_authority_of_a_wrong_clock_is_made_anew_under_who_trusts_it() {
    let year = 31_556_952;
    // A board without a clock, and one whose clock was set to a year that is to come.
    for first in [3_600, NOW + 70 * year] {
        let mut authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), first).unwrap();
        let hash = authority.ca_hash();
        let old = program(&authority, &name(Role::Phone, "old"), first, NOW);
        assert!(authority.is_due(NOW) && !authority.is_due(first));
        authority.renew(NOW).unwrap();
        assert!(!authority.is_due(NOW) && authority.ca_hash() == hash && authority.retired().count() == 0);
        // Stock verifiers look at a root's time too.
        for one in [&authority.root, &authority.issuer] {
            assert!(validity_of(one).is_some_and(|(begin, end)| begin < NOW && NOW < end));
        }
        // Who has the root of before believes what it signs now.
        let server = program(&authority, &hub(), NOW, NOW);
        let joining = Audience::Joining { rejoin_window: Duration::from_secs(100 * year) };
        let met = meet(Client::Dials(&old, Whom::Hub(hub())), &server, joining).await;
        assert_eq!(met.is_ok(), first < NOW, "what has not begun is not taken: {met:?}");
        let new = program(&authority, &name(Role::Phone, "new"), NOW, NOW);
        meet(Client::Dials(&new, Whom::Hub(hub())), &server, joining).await.unwrap();
    }
    // A root is as good for its whole time, and goes on by itself when most of it is over.
    let mut authority = authority();
    authority.renew(NOW + 7 * year).unwrap();
    assert!(authority.ends().0 > NOW + 16 * year);
}

#[test]
fn an_authority_is_kept_and_opened_again() {
    let mut authority = authority();
    authority.rotate_root(NOW).unwrap();
    let sealed = authority.sealed();
    let written = serde_json::to_string(&sealed).unwrap();
    let opened = Authority::open(&serde_json::from_str(&written).unwrap(), Lifetimes::default()).unwrap();
    assert!(opened.sealed() == sealed && opened.ca_hash() == authority.ca_hash());
    assert!(!opened.is_due(NOW + 86_400) && opened.is_due(NOW + 300 * 86_400));
    let refused = |edit: fn(&mut Sealed)| {
        let mut sealed = sealed.clone();
        edit(&mut sealed);
        Authority::open(&sealed, Lifetimes::default()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(|sealed| sealed.issuer_key = sealed.root_key.clone().unwrap()).contains("not the one of its"));
    assert!(refused(|sealed| sealed.issuer_key = "x".into()).contains("no private key"));
    assert!(refused(|sealed| sealed.root = "x".into()).contains("no certificate"));
    assert!(refused(|sealed| sealed.domain = "a_b".into()).contains("no domain"));
    let mut kept_elsewhere = sealed.clone();
    kept_elsewhere.root_key = None;
    let mut opened = Authority::open(&kept_elsewhere, Lifetimes::default()).unwrap();
    assert!(matches!(opened.rotate_root(NOW), Err(AuthorityError::NoRootKey)) && !opened.is_due(u64::MAX));
}

#[test]
fn a_certificate_ends_no_later_than_who_signed_it() {
    let lifetimes = Lifetimes { issuer: Duration::from_secs(100), ..Lifetimes::default() };
    let authority = Authority::generate(DEFAULT_DOMAIN, lifetimes, NOW).unwrap();
    let key = Key::generate().unwrap();
    let certify =
        |now| authority.certify(&Signed::read(&key.request().unwrap()).unwrap(), &name(Role::Phone, "a"), now);
    let holder = certify(NOW).unwrap().holder().unwrap();
    assert_eq!((holder.not_before, holder.not_after), (NOW - 3600, NOW + 100));
    assert_eq!(holder.key, key.digest());
    assert!(matches!(certify(NOW + 100), Err(AuthorityError::RunOut(_))));
    assert!(matches!(Authority::generate("Not a domain", lifetimes, NOW), Err(AuthorityError::Domain(_))));
}
