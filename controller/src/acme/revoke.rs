//! Revocation (RFC 8555 §7.6), signed by the account that ordered the certificate. Safe to repeat: what is revoked already
//! counts as done. Called by `tasks/revocation`.

use instant_acme::{RevocationReason as Reason, RevocationRequest};
use rustls::pki_types::CertificateDer;

use crate::acme::account::Account;
use crate::acme::problem::{AcmeError, Step};
use crate::acme::session::NonceTurns;
use crate::lifecycle::revocation::RevocationReason;

impl Account {
    /// Revokes a certificate of this account; `leaf` is its DER.
    ///
    /// # Errors
    /// When the server refuses; not when it is revoked already.
    pub async fn revoke(&self, leaf: &[u8], reason: RevocationReason) -> Result<(), AcmeError> {
        let (line, guarded) = self.line().await?;
        let certificate = CertificateDer::from(leaf);
        let mut turns = NonceTurns::default();
        let revoked = loop {
            let request = RevocationRequest { certificate: &certificate, reason: code(reason) };
            let result = line.revoke(&request).await;
            if !turns.again(&result) {
                break result;
            }
        };
        match revoked.map_err(|error| self.explain(&guarded, Step::Revoke, error)) {
            Err(error) if error.is_already_revoked() => Ok(()),
            other => other,
        }
    }
}

/// No reason is sent for `unspecified` (RFC 5280 §5.3.1 wants it absent).
fn code(reason: RevocationReason) -> Option<Reason> {
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(Reason::KeyCompromise),
        RevocationReason::AffiliationChanged => Some(Reason::AffiliationChanged),
        RevocationReason::Superseded => Some(Reason::Superseded),
        RevocationReason::CessationOfOperation => Some(Reason::CessationOfOperation),
    }
}
