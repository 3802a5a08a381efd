//! Deletes, finalizers, owners, and what goes with a namespace or a definition.

use serde_json::{Value, json};

use crate::harness::{DEADLINE, MERGE, Server, WIDGETS, version, widget, widget_crd};

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut body = widget(name, "red");
    body["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": blocks,
    }]);
    body
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_its_answer_names_it() {
    let server = Server::start();
    let created = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    server.delete(&format!("{path}?dryRun=All"), &Value::Null).await.is(200);
    let wrong = json!({"preconditions": {"uid": "other"}});
    server.delete(&path, &wrong).await.fails(409, "Conflict");
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    server.delete(&path, &wrong).await.fails(409, "Conflict");
    server.delete(&path, &json!({"propagationPolicy": "Sideways"})).await.fails(400, "BadRequest");
    let status = server.delete(&path, &json!({"propagationPolicy": "Background"})).await.is(200);
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"]["uid"], created["metadata"]["uid"]);
    server.get(&path).await.fails(404, "NotFound");
    server.delete(&path, &Value::Null).await.fails(404, "NotFound");
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let server = Server::start();
    let mut body = widget("a", "red");
    body["metadata"]["finalizers"] = json!(["example.dev/one", "example.dev/two"]);
    server.post(WIDGETS, &body).await.is(201);
    let path = format!("{WIDGETS}/a");
    let held = server.delete(&path, &Value::Null).await.is(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["generation"], 2);
    let again = server.delete(&path, &Value::Null).await.is(200);
    assert_eq!(version(&again), version(&held));
    let more = json!({"metadata": {"finalizers": ["example.dev/one", "example.dev/three"]}});
    let status = server.patch(&path, MERGE, &more).await.fails(422, "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.finalizers");
    let mut watch = server.watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&held))).await;
    server.patch(&path, MERGE, &json!({"metadata": {"finalizers": ["example.dev/two"]}})).await.is(200);
    let last = server.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.is(200);
    assert!(version(&last) > version(&held));
    server.get(&path).await.fails(404, "NotFound");
    assert_eq!(watch.next().await.unwrap().0, "MODIFIED");
    let (r#type, gone) = watch.next().await.unwrap();
    assert_eq!((r#type.as_str(), version(&gone)), ("DELETED", version(&last)));
}

#[tokio::test]
async fn dependents_follow_their_owner_in_the_background() {
    let server = Server::start();
    let owner = server.widget("owner", "red").await;
    let child = server.post(WIDGETS, &owned("child", &owner, true)).await.is(201);
    server.post(WIDGETS, &owned("grandchild", &child, true)).await.is(201);
    server.widget("stranger", "red").await;
    server.delete(&format!("{WIDGETS}/owner"), &json!({"propagationPolicy": "Background"})).await.is(200);
    server.until(&format!("{WIDGETS}/child"), 404).await;
    server.until(&format!("{WIDGETS}/grandchild"), 404).await;
    server.get(&format!("{WIDGETS}/stranger")).await.is(200);
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let server = Server::start();
    let owner = server.widget("owner", "red").await;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    server.post(WIDGETS, &child).await.is(201);
    let waiting = server.delete(&format!("{WIDGETS}/owner"), &json!({"propagationPolicy": "Foreground"})).await.is(200);
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let child_leaves = async {
        while !server.get(&format!("{WIDGETS}/child")).await.body["metadata"]["deletionTimestamp"].is_string() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, child_leaves).await.unwrap();
    server.get(&format!("{WIDGETS}/owner")).await.is(200);
    server.patch(&format!("{WIDGETS}/child"), MERGE, &json!({"metadata": {"finalizers": null}})).await.is(200);
    server.until(&format!("{WIDGETS}/owner"), 404).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let server = Server::start();
    let owner = server.widget("owner", "red").await;
    server.post(WIDGETS, &owned("child", &owner, true)).await.is(201);
    server.delete(&format!("{WIDGETS}/owner?propagationPolicy=Orphan"), &Value::Null).await.is(200);
    server.until(&format!("{WIDGETS}/owner"), 404).await;
    let child = server.get(&format!("{WIDGETS}/child")).await.is(200);
    assert_eq!(child["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len), 0);
}

#[tokio::test]
async fn who_has_another_owner_stays() {
    let server = Server::start();
    let (one, two) = (server.widget("one", "red").await, server.widget("two", "red").await);
    let mut child = owned("child", &one, false);
    let other = owned("child", &two, false)["metadata"]["ownerReferences"][0].clone();
    child["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    child["metadata"]["ownerReferences"].as_array_mut().unwrap().push(other);
    let child = server.post(WIDGETS, &child).await.is(201);
    let mut watch = server.watch(&format!("{WIDGETS}/child?watch=true&resourceVersion={}", version(&child))).await;
    server.delete(&format!("{WIDGETS}/one"), &Value::Null).await.is(200);
    let (r#type, child) = watch.next().await.unwrap();
    assert_eq!(r#type, "MODIFIED");
    let owners = child["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0]["name"], "two");
}

#[tokio::test]
async fn an_owner_that_never_was_takes_its_dependents_along() {
    let server = Server::start();
    let ghost = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "ghost", "uid": "gone"}});
    server.post(WIDGETS, &owned("child", &ghost, false)).await.is(201);
    server.until(&format!("{WIDGETS}/child"), 404).await;
    // Of a kind that is not served nobody can say that it is gone.
    let foreign = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "there"}});
    server.post(WIDGETS, &owned("other", &foreign, false)).await.is(201);
    server.widget("later", "red").await;
    server.delete(&format!("{WIDGETS}/later"), &Value::Null).await.is(200);
    server.get(&format!("{WIDGETS}/other")).await.is(200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start();
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        server.widget(name, color).await;
    }
    let deleted = server.delete(&format!("{WIDGETS}?labelSelector=color%3Dred"), &Value::Null).await.is(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(WIDGETS).await.is(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let server = Server::start();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    server.post("/api/v1/namespaces", &namespace).await.is(201);
    let inside = "/apis/example.dev/v1/namespaces/n/widgets";
    let mut held = widget("a", "red");
    held["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    server.post(inside, &held).await.is(201);
    let leaving = server.delete("/api/v1/namespaces/n", &json!({"propagationPolicy": "Background"})).await.is(200);
    assert_eq!(leaving["status"]["phase"], "Terminating");
    let status = server.post(inside, &widget("b", "red")).await.fails(403, "Forbidden");
    assert!(status["message"].as_str().unwrap().contains("because it is being terminated"));
    server.patch(&format!("{inside}/a"), MERGE, &json!({"metadata": {"finalizers": null}})).await.is(200);
    server.until("/api/v1/namespaces/n", 404).await;
    server.get(&format!("{inside}/a")).await.is(404);
    server.delete("/api/v1/namespaces/default", &Value::Null).await.fails(403, "Forbidden");
}

#[tokio::test]
async fn a_definition_comes_and_goes_with_its_objects() {
    let server = Server::start();
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut crd: Value = serde_json::from_str(&widget_crd().to_string().replace("idget", "adget")).unwrap();
    crd["spec"]["names"]["shortNames"] = json!([]);
    assert_eq!(crd["metadata"]["name"], "wadgets.example.dev");
    let created = server.post(crds, &crd).await.is(201);
    let conditions = created["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
    let wadgets = "/apis/example.dev/v1/namespaces/default/wadgets";
    let wadget = json!({"apiVersion": "example.dev/v1", "kind": "Wadget", "metadata": {"name": "a"}, "spec": {}});
    server.post(wadgets, &wadget).await.is(201);
    server.delete(&format!("{crds}/wadgets.example.dev"), &Value::Null).await.is(200);
    server.until(&format!("{crds}/wadgets.example.dev"), 404).await;
    server.until(wadgets, 404).await;
    crd["metadata"]["name"] = json!("other.example.dev");
    let status = server.post(crds, &crd).await.fails(422, "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn a_definition_with_a_rule_that_cannot_be_evaluated_is_refused() {
    let server = Server::start();
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut crd: Value = serde_json::from_str(&widget_crd().to_string().replace("idget", "adget")).unwrap();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([{"rule": "self.size > 0"}, {"rule": "self.size >"}]);
    let status = server.post(crds, &crd).await.fails(422, "Invalid");
    assert_eq!(
        status["details"]["causes"][0]["field"],
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[1].rule"
    );
    assert!(status["message"].as_str().unwrap().contains("compilation failed"), "{status}");
}

#[tokio::test]
async fn two_that_own_each_other_go_in_the_foreground_too() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let b = server.post(WIDGETS, &owned("b", &a, true)).await.is(201);
    let back = owned("a", &b, true)["metadata"]["ownerReferences"].clone();
    server.patch(&format!("{WIDGETS}/a"), MERGE, &json!({"metadata": {"ownerReferences": back}})).await.is(200);
    server.delete(&format!("{WIDGETS}/a"), &json!({"propagationPolicy": "Foreground"})).await.is(200);
    server.until(&format!("{WIDGETS}/a"), 404).await;
    server.until(&format!("{WIDGETS}/b"), 404).await;
}
