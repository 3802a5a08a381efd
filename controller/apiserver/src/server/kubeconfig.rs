//! Kubeconfigs: what a client of this server needs, in one file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// What a user shows.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    Token(&'a str),
    /// A certificate with what leads to its root, and its private key, in PEM.
    Certificate {
        chain: &'a str,
        key: &'a str,
    },
    /// The same with the key in a file of the user's own, named from the folder of the kubeconfig.
    CertificateOfFile {
        chain: &'a str,
        key: &'a str,
    },
}

/// A kubeconfig of `user` for the server at `url`, whose certificate `authority` (PEM) leads to. JSON, which is YAML too.
pub fn kubeconfig(url: &str, authority: &str, user: &str, credential: Credential<'_>) -> String {
    let mut cluster = json!({"server": url});
    if url.starts_with("https://") {
        cluster["certificate-authority-data"] = encoded(authority);
    }
    let shown = match credential {
        Credential::Token(token) => json!({"token": token}),
        Credential::Certificate { chain, key } => {
            json!({"client-certificate-data": encoded(chain), "client-key-data": encoded(key)})
        }
        Credential::CertificateOfFile { chain, key } => {
            json!({"client-certificate-data": encoded(chain), "client-key": key})
        }
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "polyphony",
        "clusters": [{"name": "polyphony", "cluster": cluster}],
        "users": [{"name": user, "user": shown}],
        "contexts": [{"name": "polyphony", "context": {
            "cluster": "polyphony", "user": user, "namespace": "default",
        }}],
    });
    format!("{config:#}\n")
}

fn encoded(text: &str) -> Value {
    BASE64_STANDARD.encode(text).into()
}
