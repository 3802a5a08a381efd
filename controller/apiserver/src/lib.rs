//! An embedded Kubernetes API server, generic over custom resource definitions. It knows no phone and no model.
//!
//! [`ApiServer::open`] reads the store and the definitions; [`ApiServer::router`] is the whole HTTP surface.
//! `registry` says what is served, `schema`, `apply`, `table` and `openapi` are pure functions over JSON values,
//! `store` keeps objects and their history, `server` is the shell between HTTP and those.

pub mod registry;

pub mod apply;
pub mod openapi;
pub mod schema;
pub mod table;

pub mod server;
pub mod store;

pub use server::{
    ApiServer, ApiServerConfig, ApiServerError, BACKUP_PATH, Bearer, ByCertificate, Credential, NobodyKnown, Role,
    User, kubeconfig,
};
