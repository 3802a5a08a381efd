//! Dashboards: every query of the chart's dashboards, asked of a real Prometheus that has scraped a real run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use polyphony_e2e::shelf::{Endpoints, Shelf, cache_dir, program, real_model, run, wait_until};
use polyphony_e2e::stream::Gateway;
use polyphony_farm::{Content, Device, Farm, Launch, Package, ProcessFarm, Wish};
use serde_json::{Value, json};

/// Prometheus has to have seen what happened by then.
const SEEN: Duration = Duration::from_secs(90);
/// What Grafana puts in for its own variables.
const MACROS: [(&str, &str); 3] = [("__rate_interval", "30s"), ("__range", "15m"), ("__interval", "2s")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn dashboards() -> Vec<(String, Value)> {
    let read = |name: &str| -> Value {
        let path = root().join(format!("charts/polyphony/dashboards/{name}.json"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    ["fleet", "deployment"].map(|name| (name.to_owned(), read(name))).into()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// One query of a dashboard, and what asks it.
struct Query {
    asked_by: String,
    expr: String,
    is_instant: bool,
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let of_panel = |panel: &Value| -> Vec<Query> {
        let asked_by = |target: &Value| format!("{:?} {}", text(panel, "title"), text(target, "refId"));
        let query = |target: &Value| Query {
            asked_by: asked_by(target),
            expr: text(target, "expr").to_owned(),
            is_instant: target["instant"] == true,
        };
        list(panel, "/targets").iter().map(query).collect()
    };
    let marks = list(dashboard, "/annotations/list").iter().map(|mark| Query {
        asked_by: format!("the mark {:?}", text(mark, "name")),
        expr: text(mark, "expr").to_owned(),
        is_instant: false,
    });
    list(dashboard, "/panels").iter().flat_map(of_panel).chain(marks).collect()
}

/// Variables as Grafana knows them, by name.
#[derive(Default)]
struct Variables(BTreeMap<String, String>);

// === impl Variables ===

impl Variables {
    /// `$name` replaced; a `$1` of a label_replace stays.
    fn put_into(&self, expr: &str) -> String {
        let names = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut names: Vec<_> = names.chain(MACROS).collect();
        // The longest first: `$phone` must not eat the beginning of `$phones`.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(&format!("${name}"), value))
    }

    /// Asks for each variable's values, in the order of the dashboard, as Grafana does.
    async fn of(dashboard: &Value, prometheus: &Prometheus) -> Result<Self> {
        let mut known = Self::default();
        for variable in list(dashboard, "/templating/list") {
            let (name, kind) = (text(variable, "name"), text(variable, "type"));
            if kind == "datasource" {
                continue;
            }
            let query = known.put_into(text(&variable["query"], "query"));
            let values = prometheus.values(&query, text(variable, "regex")).await?;
            let Some(first) = values.first() else { bail!("the variable {name} has no value: {query}") };
            let value = match (variable["includeAll"] == true, variable["allValue"].as_str()) {
                (true, Some(all)) => all.to_owned(),
                (true, None) => format!("({})", values.join("|")),
                (false, _) => first.clone(),
            };
            known.0.insert(name.to_owned(), value);
        }
        Ok(known)
    }
}

/// Prometheus' HTTP API.
struct Prometheus {
    client: reqwest::Client,
    base: String,
    began: f64,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

// === impl Prometheus ===

impl Prometheus {
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let response = self.client.get(format!("{}/api/v1/{path}", self.base)).query(parameters).send().await?;
        let answer: Value = response.json().await?;
        if answer["status"] != "success" {
            bail!("Prometheus refuses {parameters:?}: {}", text(&answer, "error"));
        }
        Ok(answer["data"].clone())
    }

    /// What a query variable finds: `label_values(SELECTOR, LABEL)`, or `query_result(EXPR)` with a regex `/LABEL="([^"]+)"/`.
    async fn values(&self, query: &str, regex: &str) -> Result<Vec<String>> {
        let found: BTreeSet<String> = if let Some(rest) = query.strip_prefix("label_values(") {
            let (selector, label) = rest.trim_end_matches(')').rsplit_once(", ").context("no label is named")?;
            let values = self.ask(&format!("label/{label}/values"), &[("match[]", selector)]).await?;
            list(&values, "").iter().filter_map(Value::as_str).map(str::to_owned).collect()
        } else {
            let expr = query.strip_prefix("query_result(").and_then(|rest| rest.strip_suffix(')'));
            let expr = expr.with_context(|| format!("this test cannot read the variable's query {query}"))?;
            let label = regex.strip_prefix('/').and_then(|rest| rest.strip_suffix("=\"([^\"]+)\"/"));
            let label = label.with_context(|| format!("this test cannot read the variable's regex {regex}"))?;
            let result = self.ask("query", &[("query", expr)]).await?;
            let labels = list(&result, "/result").iter().map(|series| text(&series["metric"], label).to_owned());
            labels.collect()
        };
        Ok(found.into_iter().collect())
    }

    /// Whether the query gives any number: over the whole run, and at this moment when it is a table's.
    async fn has_data(&self, expr: &str, is_instant: bool) -> Result<bool> {
        let is_number = |sample: &Value| sample[1].as_str().is_some_and(|text| text.parse().is_ok_and(f64::is_finite));
        let (start, end) = (self.began.to_string(), now().to_string());
        let over_time = [("query", expr), ("start", &start), ("end", &end), ("step", "2")];
        let data = self.ask("query_range", &over_time).await?;
        let some_time = list(&data, "/result").iter().flat_map(|series| list(series, "/values")).any(is_number);
        if !is_instant {
            return Ok(some_time);
        }
        let data = self.ask("query", &[("query", expr)]).await?;
        Ok(some_time && list(&data, "/result").iter().any(|series| is_number(&series["value"])))
    }
}

/// A phone besides, too small for any segment, whose battery and heat a file plays: this machine may have no sensors.
fn sensing_phone(shelf: &Shelf) -> Result<Box<dyn Device>> {
    let sensors = json!({"batteryPercent": 80, "charging": true, "temperatureCelsius": 31.0}).to_string();
    let token = shelf.join_token("phone-4")?.into_bytes();
    let package = Package::of(program("polyphony-agent")?).with("join-token", Content::Bytes(token));
    let mut device = ProcessFarm::new(shelf.data_dir().join("farm")).take(&Wish::named("phone-4"))?;
    device.install(&package.with("sensors.json", Content::Bytes(sensors.into_bytes())))?;
    let Endpoints { hub, ca_hash, .. } = shelf.endpoints()?;
    let identity = ["--name", "phone-4", "--hub", &hub, "--token-file", "join-token", "--ca-hash", &ca_hash];
    let figures = ["--data-dir", "data", "--memory", "1Mi", "--backend", "cpu", "--sensors", "sensors.json"];
    device.run(&Launch::of("polyphony-agent", identity.into_iter().chain(figures)))?;
    Ok(device)
}

/// The PATH with the folder of tools that set-up fills; none without Prometheus.
fn path_with_prometheus() -> Option<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain([cache_dir().join("bin")]).collect();
    folders.iter().any(|folder| folder.join("prometheus").is_file()).then(|| std::env::join_paths(&folders).unwrap())
}

/// Starts three phones and Prometheus; gives Prometheus' address.
fn up_with_prometheus(shelf: &Shelf, path: &std::ffi::OsStr) -> Result<String> {
    let mut up = Command::new(program("polyctl")?);
    up.args(["up", "--phones", "3", "--phone-memory", "100Mi", "--backend", "cpu", "--with-prometheus"]);
    up.args(["--prometheus-port", "0", "--api-port", "0", "--gateway-port", "0", "--hub-port", "0", "--data-dir"]);
    up.arg(shelf.data_dir()).env("PATH", path).env_remove("KUBECONFIG");
    let said = run(up)?.ok()?;
    let line =
        said.stdout.lines().find(|line| line.to_lowercase().starts_with("prometheus") && line.contains("http://"));
    let address = line.and_then(|line| line.split_whitespace().last());
    address.map(str::to_owned).with_context(|| format!("no address of Prometheus in\n{}", said.stdout))
}

async fn answer(gateway: &Gateway, question: &str) {
    let messages = json!([{"role": "user", "content": question}]);
    let body = json!({"model": "smollm2", "max_tokens": 24, "messages": messages});
    let (status, answer) = gateway.post("/v1/chat/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

/// Answers, a request that is refused, and an answer that outlives its phone.
async fn talk(shelf: &Shelf, gateway: &Gateway) {
    tokio::join!(answer(gateway, "What is the capital of France?"), answer(gateway, "Name three rivers."));
    let too_long = json!({"model": "smollm2", "prompt": "word ".repeat(2000), "max_tokens": 8});
    let (status, answer) = gateway.post("/v1/completions", &too_long).await.unwrap();
    assert_eq!(status, 400, "{answer}");

    let story =
        json!({"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": true, "stream": true});
    let mut pieces = gateway.stream("/v1/completions", &story).await.unwrap();
    let mut n_pieces = 0;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert!(piece.get("error").is_none(), "{piece}");
        n_pieces += 1;
        if n_pieces == 10 {
            shelf.kill(shelf.phones_of("smollm2").unwrap().last().unwrap()).unwrap();
        }
    }
    assert!(n_pieces > 10);
}

#[tokio::test]
async fn every_query_of_the_dashboards_returns_data_of_a_real_run() {
    if real_model().is_none() {
        return;
    }
    let Some(path) = path_with_prometheus() else {
        polyphony_skip::skipped("prometheus is not installed; `make setup-tests` fetches it");
        return;
    };
    let shelf = Shelf::planned("cpu", 3, "100Mi").unwrap();
    let began = now();
    let base = up_with_prometheus(&shelf, &path).unwrap();
    let _sensing = sensing_phone(&shelf).unwrap();
    shelf.apply(&std::fs::read_to_string(root().join("manifests/smollm2.yaml")).unwrap()).unwrap().ok().unwrap();
    shelf.wait_available("smollm2").unwrap();
    polyphony_wire::take_ring();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let prometheus = Prometheus { client, base: base.trim_end_matches('/').to_owned(), began };
    // Counts that rise before the first scrape have no rate.
    let seen = "count_over_time(polyphony_plan_generation{deployment=\"smollm2\"}[5m]) > 1 and on() count(polyphony_segment_layers) > 1";
    let deadline = tokio::time::Instant::now() + SEEN;
    while !prometheus.has_data(seen, true).await.unwrap_or(false) {
        assert!(tokio::time::Instant::now() < deadline, "Prometheus has seen no deployment in {SEEN:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    talk(&shelf, &gateway).await;

    for (name, dashboard) in dashboards() {
        let deadline = tokio::time::Instant::now() + SEEN;
        loop {
            let empty = empty_queries(&dashboard, &prometheus).await;
            match empty {
                Ok(empty) if empty.is_empty() => break,
                Ok(empty) if tokio::time::Instant::now() > deadline => {
                    panic!("without data after {SEEN:?} on the dashboard {name}:\n{}", empty.join("\n"))
                }
                Err(error) if tokio::time::Instant::now() > deadline => panic!("the dashboard {name}: {error:#}"),
                // A rate needs what it counts to go on from one scrape to the next.
                _ => answer(&gateway, "Name three rivers.").await,
            }
        }
    }
    // `down` ends Prometheus too.
    let pid = processes(&shelf).into_iter().find(|(name, _)| name == "prometheus").map(|(_, pid)| pid).unwrap();
    shelf.polyctl(&["down"]).unwrap().ok().unwrap();
    wait_until("Prometheus to end", Duration::from_secs(20), || {
        Ok((!Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
    })
    .unwrap();
}

fn processes(shelf: &Shelf) -> Vec<(String, u64)> {
    let ledger = std::fs::read(shelf.data_dir().join("processes.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    let processes = list(&ledger, "/processes").iter();
    processes.map(|process| (text(process, "name").to_owned(), process["pid"].as_u64().unwrap())).collect()
}

/// The queries of a dashboard that give nothing.
async fn empty_queries(dashboard: &Value, prometheus: &Prometheus) -> Result<Vec<String>> {
    let variables = Variables::of(dashboard, prometheus).await?;
    let mut empty = Vec::new();
    for query in queries(dashboard) {
        let expr = variables.put_into(&query.expr);
        let has_data = prometheus.has_data(&expr, query.is_instant).await.with_context(|| query.asked_by.clone())?;
        if !has_data {
            empty.push(format!("{}: {expr}", query.asked_by));
        }
    }
    Ok(empty)
}

#[test]
fn dashboards_are_laid_out_and_say_what_they_show() {
    for (name, dashboard) in dashboards() {
        assert_eq!(text(&dashboard, "uid"), format!("polyphony-{name}"));
        let variables = list(&dashboard, "/templating/list").iter().map(|variable| text(variable, "name"));
        let variables: BTreeSet<&str> = variables.chain(MACROS.map(|(name, _)| name)).collect();
        assert!(variables.contains("datasource") && variables.contains("phone"), "{name}: {variables:?}");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard, "/panels") {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title:?} has another panel's id");
            let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24, "{name}: {title:?} is over the edge");
            for cell in (0..side("w")).flat_map(|x| (0..side("h")).map(move |y| (x, y))) {
                let cell = (side("x") + cell.0, side("y") + cell.1);
                assert!(taken.insert(cell), "{name}: {title:?} lies over another panel at {cell:?}");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(text(panel, "description").len() > 20, "{name}: {title:?} does not say what it shows");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title:?}");
            assert!(!list(panel, "/targets").is_empty(), "{name}: {title:?} asks nothing");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(panel["type"] == "heatmap" || defaults["unit"].is_string(), "{name}: {title:?} has no unit");
        }
        for query in queries(&dashboard) {
            let named =
                query.expr.split('$').skip(1).map(|rest| {
                    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
                });
            for variable in named {
                assert!(
                    variables.contains(variable),
                    "{name}: {} uses ${variable}, which is not there",
                    query.asked_by
                );
            }
        }
    }
}
