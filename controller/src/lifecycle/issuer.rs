//! An ACME issuer: a directory, its roots, our account there (features.md A14). Called by `rpc` and `tasks`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::sealed::Sealed;

/// An issuer. Key in the store: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// Random, never reused.
    pub id: String,
    /// Unique, chosen by the operator.
    pub name: String,
    /// RFC 8555 §7.1.1 directory URL, https.
    pub directory: String,
    /// PEM roots to trust for it instead of the system's.
    pub root_pem: Option<String>,
    /// Mail address of the account's contact.
    pub email: Option<String>,
    /// The operator accepted the CA's terms of service.
    pub terms_accepted: bool,
    /// Our account's key, sealed before the account is made: a crash in between finds the same account again.
    pub account_key: Option<Sealed>,
    /// The account's URL, once it exists.
    pub account_url: Option<String>,
    /// Why the account does not work.
    pub problem: Option<Problem>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Issuer {
    /// The snake-case account status of the wire.
    #[must_use]
    pub fn account_status(&self) -> &'static str {
        if self.account_url.is_some() { "valid" } else { "none" }
    }
}
