//! Identity: who is who on the links of one installation. Authority, names, certificates, join tokens and clocks; opens no socket.
//!
//! One [`Authority`] an installation signs certificates of a day. Each carries one [`Name`]: a role and a name in it, as a SPIFFE URI and as a
//! DNS name, so that stock verifiers check both. Keys are made where they are used: what travels is a request that the key has signed.

mod authority;
mod certificate;
mod clock;
mod credentials;
mod digest;
mod join_link;
mod key;
mod name;
mod private_file;
mod request;
mod sessions;
mod tls;
mod token;
mod verifiers;

pub use authority::{Authority, AuthorityError, Lifetimes, Sealed};
pub use certificate::{CertificateError, Proven, read};
pub use clock::Clock;
pub use credentials::{Credentials, CredentialsError, Papers};
pub use digest::{CaHashError, Digest};
pub use join_link::{JoinLink, JoinLinkError};
pub use key::{Key, KeyError};
pub use name::{DEFAULT_DOMAIN, Name, Role, is_dns_label};
pub use private_file::write_private;
pub use request::{RequestError, Signed};
pub use tls::{Audience, Whom, explain};
pub use token::{JoinToken, TokenError, random_word};
