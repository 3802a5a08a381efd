//! Prometheus beside the phones, where it is installed: it scrapes the controller and the agents that the controller lists.
//!
//! It listens on loopback, keeps its data in the data directory, and is stopped by `down` like everything else.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::farm::{Farm, PROMETHEUS, STOP_PATIENCE, UpError, say};
use crate::processes::endpoints::Endpoints;
use crate::processes::{ports, program};

const DEFAULT_PORT: u16 = 9090;
/// How long it may take to answer; an old store is read first.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Why there is no Prometheus.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    #[error("--with-prometheus needs the program `prometheus`, which is not in {}: on Debian install it with `apt-get install prometheus` as root, or put it on $PATH", .looked_in.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotInstalled { looked_in: Vec<PathBuf> },
    #[error(
        "this controller serves no metrics: polyctl and polyphony-controller are of different versions; use those of one build"
    )]
    NoMetrics,
    #[error("{} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("Prometheus does not answer at {url} after {} s: look at `polyctl logs prometheus`", READY_TIMEOUT.as_secs())]
    NotReady { url: String },
}

/// Finds the program.
pub(super) fn find() -> Result<PathBuf, PrometheusError> {
    program::find(PROMETHEUS).map_err(|missing| PrometheusError::NotInstalled { looked_in: missing.looked_in })
}

impl Farm {
    pub(super) fn has_prometheus(&self) -> bool {
        self.processes.running(PROMETHEUS).is_some()
    }

    /// Starts Prometheus unless it runs as it should; gives its URL.
    pub(super) async fn start_prometheus(
        &mut self,
        program: &std::path::Path,
        endpoints: &Endpoints,
        asked_port: Option<u16>,
    ) -> anyhow::Result<String> {
        let metrics = endpoints.metrics.as_deref().ok_or(PrometheusError::NoMetrics)?;
        let folder = self.data_dir().join(PROMETHEUS);
        let path = folder.join("prometheus.yml");
        let config = configuration(metrics);
        let running = self.processes.running(PROMETHEUS).cloned();
        let last_port = running.as_ref().and_then(|running| running.arguments.iter().find_map(|one| port_in(one)));
        let port = match asked_port {
            Some(0) | None => last_port.or(asked_port.is_none().then_some(DEFAULT_PORT)).map_or_else(free_port, Ok)?,
            Some(port) => port,
        };
        let url = format!("http://127.0.0.1:{port}");
        let arguments = vec![
            format!("--config.file={}", path.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            "--storage.tsdb.retention.size=512MB".to_owned(),
            format!("{LISTEN_FLAG}{port}"),
            "--log.level=warn".to_owned(),
        ];
        if last_port != Some(port) {
            ports::check(port, "Prometheus server", "--prometheus-port")
                .map_err(|in_use| UpError::Ports(vec![in_use]))?;
        }
        if let Some(running) = running {
            if running.arguments == arguments && std::fs::read_to_string(&path).is_ok_and(|known| known == config) {
                say(PROMETHEUS, &format!("runs already (pid {})", running.pid));
                return Ok(url);
            }
            say(PROMETHEUS, "restarts with other settings");
            self.processes.stop(&[PROMETHEUS.to_owned()], STOP_PATIENCE).await.map_err(UpError::from)?;
        }
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, config))
            .map_err(|source| PrometheusError::Write { path: path.clone(), source })?;
        let pid = self.processes.start(PROMETHEUS, program, arguments).map_err(UpError::from)?.pid;
        self.await_prometheus(&url).await?;
        say(PROMETHEUS, &format!("started (pid {pid})"));
        Ok(url)
    }

    async fn await_prometheus(&mut self, url: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        polyphony_wire::take_ring();
        // It is on this machine: no proxy of the environment has a part in this.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        loop {
            let answer = client.get(format!("{url}/-/ready")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.check_alive(PROMETHEUS)?;
            if Instant::now() >= deadline {
                return Err(PrometheusError::NotReady { url: url.to_owned() }.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

const LISTEN_FLAG: &str = "--web.listen-address=127.0.0.1:";

fn port_in(argument: &str) -> Option<u16> {
    argument.strip_prefix(LISTEN_FLAG)?.parse().ok()
}

/// A port that is free at this moment: Prometheus itself does not say which one it took.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// One job: the controller lists itself and its agents. `metrics` is where it serves, with or without a scheme.
fn configuration(metrics: &str) -> String {
    let base = metrics.trim_end_matches('/').trim_end_matches("/metrics");
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    format!(
        "# Written by `polyctl up --with-prometheus` at each start.
global:
  scrape_interval: 2s
scrape_configs:
  - job_name: polyphony
    # Our labels `namespace` and `deployment` name what is served, not who serves.
    honor_labels: true
    http_sd_configs:
      - url: {base}/v1alpha1/prometheus/targets
        refresh_interval: 2s
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_from_the_controller_however_it_writes_its_address() {
        for metrics in ["127.0.0.1:7702", "http://127.0.0.1:7702", "http://127.0.0.1:7702/metrics"] {
            let config = configuration(metrics);
            assert!(config.contains("url: http://127.0.0.1:7702/v1alpha1/prometheus/targets\n"), "{config}");
        }
    }

    #[test]
    fn the_port_of_a_running_one_is_known_by_its_arguments() {
        assert_eq!(port_in("--web.listen-address=127.0.0.1:9091"), Some(9091));
        assert_eq!(port_in("--log.level=warn"), None);
    }
}
