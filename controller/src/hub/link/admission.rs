//! Admission: what a connection has to show before it is a phone's link, and the papers that others come for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_identity::{Clock, Proven, Role, is_dns_label};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Enrolled, Join, Remedy, ToAgent, ToHub};
use polyphony_wire::{Caller, Connection, FrameWriter, LinkError, Proof};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::LinkEnd;
use super::said::recognise;
use crate::hub::Hub;
use crate::hub::keys::is_recorded;
use crate::hub::registry::{MAX_PHONES, Seat};

/// A handshake, and a join after it, have to come within this time each.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A key that was recorded a moment ago is seen by then.
const RECORDED_BY: Duration = Duration::from_secs(3);
/// An agent that joins under a linked phone's name waits this long for the older link to show that it lives.
const PROOF_OF_LIFE: Duration = Duration::from_millis(1500);
const PROOF_POLL: Duration = Duration::from_millis(50);

/// Who is let in, and what for.
pub(super) enum Admitted {
    /// A phone that may have a link.
    Link(Box<Newcomer>),
    /// A phone that wants to be led to another one.
    Call { connection: Connection, holder: Proven, phone: String },
    /// A phone that was called, and comes.
    Answer { connection: Connection, holder: Proven, call: u64 },
}

/// A phone that may have a link.
pub(super) struct Newcomer {
    pub(super) connection: Connection,
    pub(super) join: Join,
    /// None where nobody shows anything, as in benches.
    pub(super) holder: Option<Proven>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// Hears what a stranger wants, within its time: papers, which it is given, or a link, which it is let in for where it has shown that the name
/// is its own and there is a place.
pub(super) async fn admit(hub: &Hub, caller: Caller, places: Arc<Semaphore>) -> Result<Admitted, LinkEnd> {
    let mut connection = caller.meet(HANDSHAKE_DEADLINE).await?;
    let join = match connection.reader.next_within(HANDSHAKE_DEADLINE).await? {
        Frame::ToHub(ToHub::Join(join)) => *join,
        Frame::ToHub(ToHub::Enrol(enrol)) => {
            let papers = hub.registrar.enrol(&enrol).await.map_err(|reason| (reason, Remedy::Person));
            return Err(answer(&mut connection.writer, papers).await);
        }
        Frame::ToHub(ToHub::Renew { request }) => {
            let papers = renewed(hub, &connection.peer.proof, &request).await;
            return Err(answer(&mut connection.writer, papers).await);
        }
        Frame::ToHub(ToHub::Call { phone }) => {
            let holder = guest(hub, &mut connection).await?;
            if !is_dns_label(&phone) {
                let reason = "what is called is no name of a phone".to_owned();
                return Err(refuse(&mut connection.writer, reason, Remedy::Person).await);
            }
            return Ok(Admitted::Call { connection, holder, phone });
        }
        Frame::ToHub(ToHub::Answer { call }) => {
            let holder = guest(hub, &mut connection).await?;
            return Ok(Admitted::Answer { connection, holder, call });
        }
        other => return Err(LinkError::unexpected(&other, "a join, a call, or a request for papers").into()),
    };
    match let_in(hub, &connection.peer.proof, join, places).await {
        Ok((join, holder, place)) => Ok(Admitted::Link(Box::new(Newcomer { connection, join, holder, _place: place }))),
        Err((reason, remedy)) => Err(refuse(&mut connection.writer, reason, remedy).await),
    }
}

type Refusal = (String, Remedy);

async fn let_in(
    hub: &Hub,
    proof: &Proof,
    join: Join,
    places: Arc<Semaphore>,
) -> Result<(Join, Option<Proven>, OwnedSemaphorePermit), Refusal> {
    let join = recognise(join).map_err(|reason| (reason, Remedy::Person))?;
    let holder = own_name(hub, proof, &join.phone).await?;
    let full = || format!("{MAX_PHONES} phones are linked, which is the limit: stop the agent of another one");
    let place = places.try_acquire_owned().map_err(|_| (full(), Remedy::Person))?;
    Ok((join, holder, place))
}

/// The phone at the other end of a connection that is no link; or the end of who is none.
async fn guest(hub: &Hub, connection: &mut Connection) -> Result<Proven, LinkEnd> {
    let known = match connection.proven().cloned() {
        Some(holder) => {
            let name = holder.name.name.clone();
            own_name(hub, &connection.peer.proof, &name).await.map(|_| holder)
        }
        None => Err(("no certificate was shown: join with a token first".to_owned(), Remedy::Enrol)),
    };
    match known {
        Ok(holder) => Ok(holder),
        Err((reason, remedy)) => Err(refuse(&mut connection.writer, reason, remedy).await),
    }
}

/// Whether the name is of who is at the other end: it holds the certificate, that is good now, and the Phone records its key.
async fn own_name(hub: &Hub, proof: &Proof, name: &str) -> Result<Option<Proven>, Refusal> {
    let holder = match proof {
        Proof::Plain => return Ok(None),
        Proof::None => return Err(("no certificate was shown: join with a token first".to_owned(), Remedy::Enrol)),
        Proof::Certificate(holder) => holder,
    };
    if holder.name.role != Role::Phone || holder.name.name != name {
        return Err((format!("the certificate is of {}, not of phone {name}", holder.name), Remedy::Person));
    }
    if holder.is_expired(Clock::system().now()) {
        return Err(("the certificate has run out: it is renewed for the asking".to_owned(), Remedy::Renew));
    }
    check_recorded(hub, holder).await.map(|()| Some(holder.clone()))
}

/// Papers in place of those that are shown, also of some that have run out: TLS has seen to how long ago.
async fn renewed(hub: &Hub, proof: &Proof, request: &str) -> Result<Enrolled, Refusal> {
    let holder = proof.proven().filter(|holder| holder.name.role == Role::Phone);
    let holder = holder.ok_or_else(|| ("no phone's certificate was shown".to_owned(), Remedy::Enrol))?;
    check_recorded(hub, holder).await?;
    hub.registrar.renew(&holder.name.name, &holder.key, request).map_err(|reason| (reason, Remedy::Enrol))
}

async fn check_recorded(hub: &Hub, holder: &Proven) -> Result<(), Refusal> {
    let name = &holder.name.name;
    let mut keys = hub.keys.clone();
    let recorded = keys.wait_for(|keys| is_recorded(keys.as_ref(), name, &holder.key));
    match tokio::time::timeout(RECORDED_BY, recorded).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err((
            format!(
                "no Phone {name} records this device's key: it was deleted, or another device has the name; join again with a new token, which `polyctl join-command` on the host prints"
            ),
            Remedy::Enrol,
        )),
    }
}

/// Gives papers, or says why there are none; the connection is over with it.
async fn answer(writer: &mut FrameWriter, papers: Result<Enrolled, Refusal>) -> LinkEnd {
    match papers {
        Ok(papers) => match writer.write(&Frame::ToAgent(ToAgent::Enrolled(papers))).await {
            Ok(()) => LinkEnd::Answered,
            Err(error) => error.into(),
        },
        Err((reason, remedy)) => refuse(writer, reason, remedy).await,
    }
}

/// Tells the agent why it is refused; whether it takes that or not.
pub(super) async fn refuse(writer: &mut FrameWriter, reason: String, remedy: Remedy) -> LinkEnd {
    let refused = Frame::ToAgent(ToAgent::Refused { reason: reason.clone(), remedy });
    match tokio::time::timeout(HANDSHAKE_DEADLINE, writer.write(&refused)).await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => LinkEnd::Refused(reason),
    }
}

/// Seats a phone, or says why not.
pub(super) async fn seat(hub: &Hub, join: Join) -> Result<Seat, String> {
    let asked_at = Instant::now();
    if hub.registry.last_heard(&join.phone).is_some() {
        hub.registry.probe(&join.phone, asked_at);
        while asked_at.elapsed() < PROOF_OF_LIFE {
            tokio::time::sleep(PROOF_POLL).await;
            match hub.registry.last_heard(&join.phone) {
                Some(heard) if heard > asked_at => {
                    return Err(format!(
                        "a phone named {} is linked already and answers: stop its agent, or give this one another --name",
                        join.phone
                    ));
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    hub.registry.seat(join, Instant::now())
}
