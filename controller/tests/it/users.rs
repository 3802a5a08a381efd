//! Who comes to the embedded API by a certificate, and who does not.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use polyphony_api::{Model, Phone, SYSTEM_NAMESPACE};
use polyphony_apiserver::{Credential, kubeconfig as text_of};
use polyphony_controller::door::authority::rotate;
use polyphony_controller::door::place::{Place, path_in};
use polyphony_controller::door::users::{self, Issued, Part, UserError};
use polyphony_controller::{Process, kubeconfig};
use polyphony_identity::{
    Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Papers, Role, Signed, Whom,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::farm::{Farm, flags, until};

async fn authority_of(folder: &Path) -> Authority {
    let sealed = Place::File(path_in(folder)).read().await.unwrap().unwrap();
    Authority::open(&sealed, Lifetimes::default()).unwrap()
}

/// A client that shows those papers to the API of `folder`, and nothing else.
async fn client_of(folder: &Path, papers: &Papers, key: &Key) -> Client {
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("kubeconfig")).unwrap()).unwrap();
    let url = written["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let roots = std::fs::read_to_string(folder.join("ca.crt")).unwrap();
    let (chain, key) = (papers.chain_pem(), key.pem());
    let path = folder.join("somebody");
    std::fs::write(&path, text_of(url, &roots, "somebody", Credential::Certificate { chain: &chain, key: &key }))
        .unwrap();
    kubeconfig::client(&path).await.unwrap().0
}

fn papers_of(authority: &Authority, role: Role, name: &str) -> (Papers, Key) {
    let (key, name) = (Key::generate().unwrap(), Name::new(role, name, DEFAULT_DOMAIN));
    let request = Signed::read(&key.request().unwrap()).unwrap();
    (authority.certify(&request, &name, Clock::system().now()).unwrap(), key)
}

/// A new user of the API that `client` speaks with.
async fn made(
    client: &Client,
    authority: &Authority,
    who: (&str, Part),
    request: Option<&str>,
) -> Result<Issued, UserError> {
    let issued = users::sign(authority, who, request, Clock::system().now())?;
    users::record(client, &issued.account, false).await?;
    Ok(issued)
}

async fn code_of(client: &Client) -> Result<usize, (u16, String)> {
    match Api::<Phone>::all(client.clone()).list(&ListParams::default()).await {
        Ok(phones) => Ok(phones.items.len()),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => Err((0, error.to_string())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_lets_in_its_user_as_long_as_they_are_recorded_and_no_phone() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let (authority, now) = (authority_of(folder.path()).await, Clock::system().now());
    let mia = made(&farm.client, &authority, ("mia", Part::Viewer), None).await.unwrap();
    let mia = client_of(folder.path(), &mia.papers, &mia.key.unwrap()).await;
    until("mia is let in", async || code_of(&mia).await.map_err(|why| format!("{why:?}"))).await;
    // She looks, and does nothing.
    let refused = |result: kube::Result<()>| match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    };
    let secrets = |client: &Client| Api::<Secret>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    assert_eq!(refused(secrets(&mia).list(&ListParams::default()).await.map(drop)), 403);
    let namespaces = Api::<Namespace>::all(mia.clone());
    assert_eq!(refused(namespaces.delete("default", &DeleteParams::default()).await.map(drop)), 403);
    // One whose key stays where it was made, and who may do all.
    let key = Key::generate().unwrap();
    let request = key.request().unwrap();
    let ops = made(&farm.client, &authority, ("ops", Part::Admin), Some(&request)).await.unwrap();
    assert!(ops.key.is_none() && ops.account.key == key.digest());
    let ops = client_of(folder.path(), &ops.papers, &key).await;
    until("ops is let in", async || code_of(&ops).await.map_err(|why| format!("{why:?}"))).await;
    assert_eq!(secrets(&ops).list(&ListParams::default()).await.unwrap().items.len(), 2);
    let again = made(&farm.client, &authority, ("mia", Part::Admin), None).await;
    assert!(matches!(again, Err(UserError::Taken(_))));
    let reserved = made(&farm.client, &authority, ("polyphony", Part::Admin), None).await;
    assert!(matches!(reserved, Err(UserError::Reserved(_))));
    // Nobody else: a phone, a server, who signed for the same name elsewhere, and who is of no record.
    for (role, name) in [(Role::Phone, "mia"), (Role::Hub, "controller"), (Role::Gateway, "mia")] {
        let (papers, key) = papers_of(&authority, role, name);
        let (code, why) = code_of(&client_of(folder.path(), &papers, &key).await).await.unwrap_err();
        assert!(code == 401 && why.contains(&format!("of {role} {name}")), "{code} {why}");
    }
    let (papers, key) = papers_of(&authority, Role::User, "mia");
    let (code, why) = code_of(&client_of(folder.path(), &papers, &key).await).await.unwrap_err();
    assert!(code == 401 && why.contains("recorded with the key"), "{code} {why}");
    let other = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).unwrap();
    let (papers, key) = papers_of(&other, Role::User, "mia");
    assert_eq!(code_of(&client_of(folder.path(), &papers, &key).await).await.unwrap_err().0, 0, "no TLS comes about");
    // Made anew, with another key: what was shown before is nobody's.
    let anew = users::sign(&authority, ("ops", Part::Viewer), None, now).unwrap();
    users::record(&farm.client, &anew.account, true).await.unwrap();
    until("ops is who came last", async || match code_of(&ops).await {
        Err((401, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let ops = client_of(folder.path(), &anew.papers, &anew.key.unwrap()).await;
    // A Secret of somebody else's with such a name is left alone.
    let other = Secret {
        metadata: ObjectMeta { name: Some("user-other".into()), ..ObjectMeta::default() },
        ..Secret::default()
    };
    secrets(&farm.client).create(&PostParams::default(), &other).await.unwrap();
    assert!(!users::delete(&farm.client, "other").await.unwrap());
    assert!(made(&farm.client, &authority, ("other", Part::Viewer), None).await.is_err());
    assert!(secrets(&farm.client).get_opt("user-other").await.unwrap().is_some());
    // To be deleted is to be shut out, on connections that are open too.
    assert!(users::delete(&farm.client, "mia").await.unwrap());
    until("mia is shut out", async || match code_of(&mia).await {
        Err((401, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(code_of(&ops).await.is_ok() && !users::delete(&farm.client, "mia").await.unwrap());
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeconfigs_follow_the_authority_and_the_controller_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let place = Place::File(path_in(folder.path()));
    let exchange = |authority: &mut Authority| {
        authority.rotate_root(Clock::system().now())?;
        authority.forget_retired();
        Ok(())
    };
    rotate(&place, Lifetimes::default(), exchange).await.unwrap();
    // Written anew, and good for the port as it is now.
    let client = until("the kubeconfig names the new root", async || {
        let (client, _) = kubeconfig::client(&folder.path().join("kubeconfig")).await.unwrap();
        code_of(&client).await.map(|_| client).map_err(|why| format!("{why:?}"))
    })
    .await;
    // The controller sees what is written, and writes.
    let lost = serde_json::from_value(json!({
        "apiVersion": "polyphony.dev/v1alpha1", "kind": "Model", "metadata": { "name": "lost" },
        "spec": { "source": "file:///nowhere" },
    }))
    .unwrap();
    let models = Api::<Model>::default_namespaced(client);
    models.create(&PostParams::default(), &lost).await.unwrap();
    until("the controller judges a model", async || {
        let status = models.get("lost").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        if status.conditions.is_empty() { Err(format!("{status:?}")) } else { Ok(()) }
    })
    .await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_shown_for_a_token_or_a_users_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("metrics-token");
    std::fs::write(&token, "scrape\n").unwrap();
    let stop = CancellationToken::new();
    let flags = polyphony_controller::Flags { metrics_token_file: Some(token), ..flags(folder.path()) };
    let process = Process::start(flags, stop.clone()).await.unwrap();
    let address = process.endpoints.metrics.trim_start_matches("http://").to_owned();
    let running = tokio::spawn(process.run());
    let authority = authority_of(folder.path()).await;
    let (client, _) = kubeconfig::client(&folder.path().join("kubeconfig")).await.unwrap();
    let scrape = async |papers: &Papers, key: &Key, headers: &str| {
        let credentials = Credentials::new(key, papers, Clock::system()).unwrap();
        let whom = Whom::Named(Name::of_controller(Role::Gateway, DEFAULT_DOMAIN)).server_name();
        let connector = TlsConnector::from(Arc::new(credentials.client(false, b"http/1.1").unwrap()));
        let mut stream = connector.connect(whom, TcpStream::connect(&address).await.unwrap()).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (papers, key) = papers_of(&authority, Role::Phone, "a");
    assert_eq!(scrape(&papers, &key, "").await, "401", "a phone");
    assert_eq!(scrape(&papers, &key, "Authorization: Bearer wrong\r\n").await, "401");
    assert_eq!(scrape(&papers, &key, "Authorization: Bearer scrape\r\n").await, "200");
    let grafana = made(&client, &authority, ("grafana", Part::Viewer), None).await.unwrap();
    let key = grafana.key.unwrap();
    until("the user is let in", async || match scrape(&grafana.papers, &key, "").await.as_str() {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    assert_eq!(
        scrape(&grafana.papers, &key, "Authorization: Bearer wrong\r\n").await,
        "401",
        "a token that is shown counts"
    );
    stop.cancel();
    running.await.unwrap().unwrap();
}
