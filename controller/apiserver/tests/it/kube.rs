//! A controller of `kube`, unchanged, over TLS: finalizer, status by apply, events, leases, streamed lists.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Event as CoreEvent;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalize, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Config, CustomResource, Resource, ResourceExt};
use polyphony_apiserver::{Credential, kubeconfig};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{DEADLINE, open};

#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "example.dev",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus",
    schema = "disabled"
)]
struct WidgetSpec {
    color: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct WidgetStatus {
    phase: Option<String>,
}

/// A served API with a client that knows nothing but its kubeconfig.
struct Cluster {
    client: Client,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let server = open(directory.path(), "store.redb");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = kubeconfig(
            &format!("http://{}", listener.local_addr().unwrap()),
            "",
            "polyphony",
            Credential::Token("token"),
        );
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let serving = tokio::spawn(async move { server.serve(listener, None, stop).await });
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        Cluster { client, shutdown, serving, _directory: directory }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

struct Context {
    client: Client,
    recorder: Recorder,
    reconciled: AtomicUsize,
    cleaned: AtomicUsize,
}

async fn reconcile(
    widget: Arc<Widget>,
    context: Arc<Context>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let api: Api<Widget> = Api::namespaced(context.client.clone(), "default");
    finalizer(&api, "example.dev/it", widget, |event| async {
        match event {
            Finalize::Apply(widget) => {
                context.reconciled.fetch_add(1, Ordering::SeqCst);
                let status = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "status": {"phase": "Ready"}});
                let params = PatchParams::apply("it-controller").force();
                api.patch_status(&widget.name_any(), &params, &Patch::Apply(&status)).await?;
                let event = Event {
                    type_: EventType::Normal,
                    reason: "Ready".to_owned(),
                    note: Some("it is ready".to_owned()),
                    action: "Reconcile".to_owned(),
                    secondary: None,
                };
                context.recorder.publish(&event, &widget.object_ref(&())).await?;
            }
            Finalize::Cleanup(_) => {
                context.cleaned.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_kube_reconciles_and_comes_to_rest() {
    let cluster = Cluster::start().await;
    let client = cluster.client.clone();
    let widgets: Api<Widget> = Api::namespaced(client.clone(), "default");
    let reporter = Reporter { controller: "it".to_owned(), instance: None };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client: client.clone(),
        reconciled: AtomicUsize::new(0),
        cleaned: AtomicUsize::new(0),
    });
    let controller = tokio::spawn({
        let context = context.clone();
        Controller::new(widgets.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(std::time::Duration::from_millis(50)), context)
            .for_each(|_| async {})
    });

    let created = widgets.create(&PostParams::default(), &Widget::new("a", WidgetSpec::default())).await.unwrap();
    let ready = await_condition(widgets.clone(), "a", |widget: Option<&Widget>| {
        widget.and_then(|widget| widget.status.as_ref()?.phase.as_deref()) == Some("Ready")
    });
    tokio::time::timeout(DEADLINE, ready).await.unwrap().unwrap();

    // Another widget goes through the same queue, so when it is ready the first one has come to rest.
    widgets.create(&PostParams::default(), &Widget::new("b", WidgetSpec::default())).await.unwrap();
    let ready = await_condition(widgets.clone(), "b", |widget: Option<&Widget>| {
        widget.and_then(|widget| widget.status.as_ref()?.phase.as_deref()) == Some("Ready")
    });
    tokio::time::timeout(DEADLINE, ready).await.unwrap().unwrap();
    // Each: once for the finalizer, once for the status that this wrote, and no more: the same status is no change.
    assert!(context.reconciled.load(Ordering::SeqCst) <= 4, "{:?}", context.reconciled);

    let events: Api<CoreEvent> = Api::namespaced(client.clone(), "default");
    let about = ListParams::default().fields("involvedObject.name=a,reason=Ready");
    let told = async {
        loop {
            let list = events.list(&about).await.unwrap();
            if let Some(event) = list.items.into_iter().next() {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(DEADLINE, told).await.unwrap();
    assert_eq!(event.message.as_deref(), Some("it is ready"));

    widgets.delete("a", &DeleteParams::default()).await.unwrap();
    let uid = created.uid().unwrap();
    let gone = await_condition(widgets.clone(), "a", conditions::is_deleted(&uid));
    tokio::time::timeout(DEADLINE, gone).await.unwrap().unwrap();
    assert_eq!(context.cleaned.load(Ordering::SeqCst), 1);
    controller.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn lists_are_streamed_and_paged_to_the_watcher_of_kube() {
    let cluster = Cluster::start().await;
    let widgets: Api<Widget> = Api::namespaced(cluster.client.clone(), "default");
    for name in ["a", "b", "c"] {
        widgets.create(&PostParams::default(), &Widget::new(name, WidgetSpec::default())).await.unwrap();
    }
    for config in [watcher::Config::default().streaming_lists(), watcher::Config::default().page_size(1)] {
        let mut events = pin!(watcher(widgets.clone(), config));
        let mut names = Vec::new();
        let listed = async {
            loop {
                match events.next().await.unwrap().unwrap() {
                    watcher::Event::Init => {}
                    watcher::Event::InitApply(widget) => names.push(widget.name_any()),
                    watcher::Event::InitDone => return,
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, listed).await.unwrap();
        assert_eq!(names, ["a", "b", "c"]);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_lease_is_taken_by_one_of_two() {
    let cluster = Cluster::start().await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-system");
    let metadata = ObjectMeta { name: Some("leader".to_owned()), ..ObjectMeta::default() };
    let lease = Lease { metadata, spec: Some(LeaseSpec::default()) };
    let read = leases.create(&PostParams::default(), &lease).await.unwrap();
    let held_by = |holder: &str| {
        let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..read.clone() }
    };
    leases.replace("leader", &PostParams::default(), &held_by("one")).await.unwrap();
    let late = leases.replace("leader", &PostParams::default(), &held_by("two")).await.unwrap_err();
    assert!(matches!(late, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    cluster.stop().await;
}
