//! Connections: which kubeconfig is meant, and the server that it names.

use std::path::{Path, PathBuf};

use clap::Args;
use kube::config::{Kubeconfig, KubeconfigError};
use polyphony_controller::kubeconfig::Access;
use polyphony_journal::tell;

use crate::failure;
use crate::server::Server;

/// The flags that say which cluster, and where in it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct ClusterFlags {
    /// The kubeconfig file to use (else that of --data-dir, $KUBECONFIG, ~/.polyphony/kubeconfig)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The folder of a control plane on this machine (else $POLYPHONY_DATA_DIR, ~/.polyphony)
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The namespace to work in
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// A server and the namespace to work in.
pub struct Connection {
    pub server: Server,
    pub namespace: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("no cluster to talk to: {} does not exist: start one here with `polyctl up`, or name one with --kubeconfig or $KUBECONFIG", .path.display())]
    NoKubeconfig { path: PathBuf },
    #[error("kubeconfig {origin}: {detail}")]
    Kubeconfig { origin: String, detail: String },
    #[error("there is no home directory: set $HOME, or name a folder with --data-dir")]
    NoHome,
}

// === impl ClusterFlags ===

impl ClusterFlags {
    /// The folder of the control plane on this machine: --data-dir, $POLYPHONY_DATA_DIR, ~/.polyphony.
    ///
    /// # Errors
    /// When none is given and there is no home directory.
    pub fn data_dir(&self) -> Result<PathBuf, ConnectionError> {
        data_dir(self.data_dir.as_deref(), |name| std::env::var(name).ok())
    }

    /// The folder whose control plane these flags talk to: that of the kubeconfig, where it lies in one, else [`Self::data_dir`].
    ///
    /// # Errors
    /// When none is given and there is no home directory.
    pub fn data_dir_of_cluster(&self) -> Result<PathBuf, ConnectionError> {
        let kubeconfig = match source(self, |name| std::env::var(name).ok())? {
            Source::File(path) => path,
            Source::Environment(value) => std::env::split_paths(&value).next().unwrap_or_default(),
        };
        match kubeconfig.parent().filter(|folder| self.data_dir.is_none() && folder.join("processes.json").exists()) {
            Some(folder) => Ok(folder.to_owned()),
            None => self.data_dir(),
        }
    }

    /// Whether flags and environment name the kubeconfig of `folder`, which is an absolute path, and no context but its own.
    ///
    /// # Errors
    /// When none is given and there is no home directory.
    pub fn mean_that_of(&self, folder: &Path) -> Result<bool, ConnectionError> {
        let source = source(self, |name| std::env::var(name).ok())?;
        Ok(self.context.is_none() && source.is_that_of(folder))
    }

    /// Connects to the cluster that flags and environment name. Sends nothing yet.
    ///
    /// # Errors
    /// When the kubeconfig is missing or wrong.
    pub async fn connect(&self) -> Result<Connection, ConnectionError> {
        let (kubeconfig, origin) = match source(self, |name| std::env::var(name).ok())? {
            Source::File(path) => {
                if !path.exists() {
                    return Err(ConnectionError::NoKubeconfig { path });
                }
                let origin = path.display().to_string();
                (Kubeconfig::read_from(&path).map_err(|error| unusable(&origin, &[], error))?, origin)
            }
            Source::Environment(value) => {
                if !std::env::split_paths(&value).any(|path| path.exists()) {
                    return Err(ConnectionError::NoKubeconfig { path: value.into() });
                }
                let kubeconfig = Kubeconfig::from_env().map_err(|error| unusable(&value, &[], error))?;
                let Some(kubeconfig) = kubeconfig else {
                    return Err(ConnectionError::NoKubeconfig { path: value.into() });
                };
                (kubeconfig, value)
            }
        };
        let contexts: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
        let access = Access::of(&kubeconfig, self.context.as_deref());
        let Access { mut config, passed_over } = access.map_err(|error| unusable(&origin, &contexts, error))?;
        for passed_over in passed_over {
            tell!("warning: {passed_over}");
        }
        // Retries would hide for seconds what a person wants to know at once.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = Server::new(config, &origin).map_err(|detail| ConnectionError::Kubeconfig { origin, detail })?;
        Ok(Connection { server, namespace })
    }
}

/// `contexts` are those of the file, as far as it could be read.
fn unusable(origin: &str, contexts: &[String], error: KubeconfigError) -> ConnectionError {
    let there = || match contexts {
        [] => "it has none: look at --kubeconfig".to_owned(),
        contexts => format!("name one that it has with --context: {}", contexts.join(", ")),
    };
    let detail = match error {
        KubeconfigError::LoadContext(name) => format!("there is no context {name:?}: {}", there()),
        KubeconfigError::CurrentContextNotSet => format!("it has no current-context: {}", there()),
        // One of several that $KUBECONFIG lists.
        KubeconfigError::ReadConfig(source, path) if path != Path::new(origin) => {
            format!("{} cannot be read: {source}", path.display())
        }
        KubeconfigError::ReadConfig(source, _) => format!("it cannot be read: {source}"),
        KubeconfigError::ParseProxyUrl(_) => {
            format!("{}: look at $HTTPS_PROXY, and at its `proxy-url`", failure::causes(&error))
        }
        error => error.to_string(),
    };
    ConnectionError::Kubeconfig { origin: origin.to_owned(), detail }
}

/// Where a kubeconfig comes from.
#[derive(Debug, PartialEq)]
enum Source {
    File(PathBuf),
    /// $KUBECONFIG, which may list several files.
    Environment(String),
}

// === impl Source ===

impl Source {
    fn is_that_of(&self, folder: &Path) -> bool {
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Environment(value) => {
                let mut paths = std::env::split_paths(value);
                match (paths.next(), paths.next()) {
                    (Some(path), None) => path,
                    _ => return false,
                }
            }
        };
        std::path::absolute(path).is_ok_and(|path| path == folder.join("kubeconfig"))
    }
}

fn source(flags: &ClusterFlags, variable: impl Fn(&str) -> Option<String>) -> Result<Source, ConnectionError> {
    if let Some(path) = &flags.kubeconfig {
        return Ok(Source::File(path.clone()));
    }
    if let Some(directory) = &flags.data_dir {
        return Ok(Source::File(directory.join("kubeconfig")));
    }
    if let Some(value) = variable("KUBECONFIG").filter(|value| !value.is_empty()) {
        return Ok(Source::Environment(value));
    }
    Ok(Source::File(data_dir(None, variable)?.join("kubeconfig")))
}

fn data_dir(flag: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, ConnectionError> {
    let given = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(directory) = flag {
        return Ok(directory.to_owned());
    }
    if let Some(directory) = given("POLYPHONY_DATA_DIR") {
        return Ok(directory.into());
    }
    given("HOME").map(|home| Path::new(&home).join(".polyphony")).ok_or(ConnectionError::NoHome)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_nearest_kubeconfig_wins() {
        let environment = |name: &str| match name {
            "KUBECONFIG" => Some("a:b".to_owned()),
            "HOME" => Some("/home/ada".to_owned()),
            _ => None,
        };
        let home = |name: &str| (name == "HOME").then(|| "/home/ada".to_owned());
        let elsewhere = |name: &str| Some(format!("/{name}")).filter(|_| name != "KUBECONFIG");
        let flags = |kubeconfig: Option<&str>, data_dir: Option<&str>| ClusterFlags {
            kubeconfig: kubeconfig.map(PathBuf::from),
            data_dir: data_dir.map(PathBuf::from),
            ..ClusterFlags::default()
        };
        assert_eq!(source(&flags(Some("k"), Some("d")), environment).unwrap(), Source::File("k".into()));
        assert_eq!(source(&flags(None, Some("d")), environment).unwrap(), Source::File("d/kubeconfig".into()));
        assert_eq!(source(&flags(None, None), environment).unwrap(), Source::Environment("a:b".into()));
        assert_eq!(source(&flags(None, None), home).unwrap(), Source::File("/home/ada/.polyphony/kubeconfig".into()));
        assert_eq!(
            source(&flags(None, None), elsewhere).unwrap(),
            Source::File("/POLYPHONY_DATA_DIR/kubeconfig".into())
        );
        assert!(matches!(source(&flags(None, None), |_| None), Err(ConnectionError::NoHome)));
    }

    #[test]
    fn a_folders_kubeconfig_is_told_from_others() {
        let of = |source: Source| source.is_that_of(Path::new("/d"));
        assert!(of(Source::File("/d/kubeconfig".into())) && of(Source::Environment("/d/kubeconfig".into())));
        assert!(!of(Source::File("/d/other".into())) && !of(Source::File("/e/kubeconfig".into())));
        // Which of several counts is for who reads them.
        assert!(
            !of(Source::Environment("/d/kubeconfig:/e/kubeconfig".into())) && !of(Source::Environment(String::new()))
        );
    }

    #[test]
    fn what_is_wrong_with_a_kubeconfig_is_said_once_and_with_the_contexts_there_are() {
        let unreadable = |path: &str| KubeconfigError::ReadConfig(std::io::Error::other("no"), path.into());
        let both = ["a".to_owned(), "b".to_owned()];
        for (contexts, error, expected) in [
            (
                &both[..],
                KubeconfigError::LoadContext("c".into()),
                "kubeconfig f: there is no context \"c\": name one that it has with --context: a, b",
            ),
            (
                &both[..1],
                KubeconfigError::CurrentContextNotSet,
                "kubeconfig f: it has no current-context: name one that it has with --context: a",
            ),
            (
                &[],
                KubeconfigError::LoadContext("c".into()),
                "kubeconfig f: there is no context \"c\": it has none: look at --kubeconfig",
            ),
            (&[], unreadable("f"), "kubeconfig f: it cannot be read: no"),
            (&[], unreadable("g"), "kubeconfig f: g cannot be read: no"),
        ] {
            assert_eq!(unusable("f", contexts, error).to_string(), expected);
        }
    }
}
