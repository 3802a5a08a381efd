//! Progress: a bar for each segment that loads, on standard error.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use polyphony_api::{GROUP, VERSION};
use serde_json::Value;

use crate::server::{Server, with_query};
use crate::terminal;

const REFRESH: Duration = Duration::from_millis(150);
const TEMPLATE: &str = "{prefix} [{bar:16}] {msg}";

/// The path of the placements of a deployment.
pub fn placements_path(namespace: &str, deployment: &str) -> String {
    let path =
        format!("/apis/{GROUP}/{VERSION}/namespaces/{}/segmentplacements", crate::server::path_segment(namespace));
    // Not by label: a label holds less than a name may.
    with_query(&path, &[("fieldSelector", Some(&format!("spec.deployment={deployment}")))])
}

/// Shows the placements of a deployment load for as long as `waiting` takes, and gives what it gives.
pub async fn while_loading<T>(
    server: &Server,
    namespace: &str,
    deployment: &str,
    waiting: impl Future<Output = T>,
) -> T {
    let mut bars = Bars::default();
    let path = placements_path(namespace, deployment);
    let drawing = async {
        loop {
            // Bars are a courtesy: what cannot be read is not drawn.
            if let Ok(placements) = server.list(&path).await {
                bars.draw(&loading(&placements));
            }
            tokio::time::sleep(REFRESH).await;
        }
    };
    let result = tokio::select! {
        result = waiting => result,
        () = drawing => unreachable!("drawing has no end"),
    };
    if let Ok(placements) = server.list(&path).await {
        bars.draw(&loading(&placements));
    }
    bars.leave();
    result
}

/// How far one segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loading {
    pub placement: String,
    pub label: String,
    pub bytes_loaded: u64,
    pub bytes_total: u64,
    pub phase: String,
}

// === impl Loading ===

impl Loading {
    /// `12 of 64 MiB  Loading`.
    fn message(&self) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / 1_048_576.0;
        format!("{:3.0} of {:3.0} MiB  {}", mebibytes(self.bytes_loaded), mebibytes(self.bytes_total), self.phase)
    }
}

/// The segments of the newest generation of each replica, in the order of the ring.
pub fn loading(placements: &[Value]) -> Vec<Loading> {
    let number = |object: &Value, field: &str| object["spec"][field].as_u64().unwrap_or(0);
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    for placement in placements {
        let generation = newest.entry(number(placement, "replica")).or_default();
        *generation = (*generation).max(number(placement, "planGeneration"));
    }
    let mut current: Vec<&Value> = placements
        .iter()
        .filter(|placement| newest.get(&number(placement, "replica")) == Some(&number(placement, "planGeneration")))
        .collect();
    current.sort_by_key(|placement| (number(placement, "replica"), number(placement, "stage")));
    let text = |value: &Value| terminal::line(value.as_str().unwrap_or_default()).into_owned();
    let width = current.iter().map(|placement| text(&placement["spec"]["phone"]).chars().count()).max().unwrap_or(0);
    let holds_width =
        current.iter().map(|placement| text(&placement["spec"]["holds"]["summary"]).chars().count()).max().unwrap_or(0);
    current
        .into_iter()
        .map(|placement| {
            let status = &placement["status"];
            let (phone, holds) = (text(&placement["spec"]["phone"]), text(&placement["spec"]["holds"]["summary"]));
            Loading {
                placement: text(&placement["metadata"]["name"]),
                label: format!("{phone:width$}  {holds:holds_width$}"),
                bytes_loaded: status["bytesLoaded"].as_u64().unwrap_or(0),
                bytes_total: status["bytesTotal"].as_u64().unwrap_or(0),
                phase: status["phase"].as_str().unwrap_or("Pending").to_owned(),
            }
        })
        .collect()
}

#[derive(Default)]
struct Bars {
    screen: MultiProgress,
    /// With what each shows, so that only changes are drawn.
    bars: BTreeMap<String, (ProgressBar, Loading)>,
}

// === impl Bars ===

impl Bars {
    fn draw(&mut self, segments: &[Loading]) {
        let is_gone = |name: &String| !segments.iter().any(|segment| segment.placement == *name);
        let gone: Vec<String> = self.bars.keys().filter(|name| is_gone(name)).cloned().collect();
        for (bar, _) in gone.iter().filter_map(|name| self.bars.remove(name)) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        for segment in segments {
            // A bar of no length would be drawn full.
            let length = segment.bytes_total.max(1);
            match self.bars.get_mut(&segment.placement) {
                Some((_, shown)) if shown == segment => {}
                Some((bar, shown)) => {
                    bar.update(|state| {
                        state.set_len(length);
                        state.set_pos(segment.bytes_loaded);
                    });
                    bar.set_message(segment.message());
                    *shown = segment.clone();
                }
                None => {
                    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
                    let bar = ProgressBar::new(length)
                        .with_style(style.progress_chars("=> "))
                        .with_prefix(segment.label.clone())
                        .with_message(segment.message())
                        .with_position(segment.bytes_loaded);
                    let bar = self.screen.add(bar);
                    bar.tick();
                    self.bars.insert(segment.placement.clone(), (bar, segment.clone()));
                }
            }
        }
    }

    /// Leaves the bars on the screen as they are.
    fn leave(&self) {
        for (bar, _) in self.bars.values() {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn placement(name: &str, generation: u64, stage: u64, phone: &str, loaded: u64) -> Value {
        json!({"metadata": {"name": name}, "spec": {"replica": 0, "planGeneration": generation, "stage": stage, "phone": phone,
            "holds": {"summary": format!("layers {stage}")}}, "status": {"phase": "Loading", "bytesLoaded": loaded, "bytesTotal": 10}})
    }

    #[test]
    fn only_the_newest_generation_is_drawn_in_ring_order() {
        let placements =
            [placement("g2-1", 2, 1, "phone-10", 3), placement("g1-0", 1, 0, "p", 10), placement("g2-0", 2, 0, "p", 7)];
        let drawn = loading(&placements);
        assert_eq!(drawn.iter().map(|segment| segment.placement.as_str()).collect::<Vec<_>>(), ["g2-0", "g2-1"]);
        assert_eq!(drawn[0].label, "p         layers 0");
        assert_eq!((drawn[1].bytes_loaded, drawn[1].bytes_total), (3, 10));
        let half = Loading { bytes_loaded: 32 << 20, bytes_total: 64 << 20, ..drawn[1].clone() };
        assert_eq!(half.message(), " 32 of  64 MiB  Loading");
    }
}
