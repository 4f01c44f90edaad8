//! The identity CA as it is stored: two slots, so that a rotation can announce the next CA before it signs. Keys are
//! sealed. Called by `ca` only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{CaError, profile};
use crate::lifecycle::rotation::{Phase, Step};
use crate::lifecycle::sealed::Sealed;
use crate::store::records::Record;
use crate::store::seal::{Keyring, Place};
use crate::store::tables::Table;

/// The stored CA, under `slots`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slots {
    /// The id in the controller's leaf; it survives a rotation.
    pub(super) controller_id: String,
    /// Signs.
    pub(super) active: Slot,
    /// Trusted, in a rotation.
    pub(super) next: Option<Slot>,
    /// The next one signs already.
    #[serde(default)]
    pub(super) next_signs: bool,
}

/// One CA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slot {
    /// DER, base64.
    certificate: String,
    /// PKCS #8 PEM, sealed.
    pub(super) key: Sealed,
}

impl Record for Slots {
    const TABLE: Table = Table::IdentityCa;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

impl Slots {
    pub(super) const KEY: &'static str = "slots";

    /// Where the next key is sealed.
    pub(super) const fn next_key() -> Place<'static> {
        Place { table: Self::TABLE, key: Self::KEY, field: "next.key" }
    }

    /// Where the active key is sealed.
    pub(super) const fn active_key() -> Place<'static> {
        Place { table: Self::TABLE, key: Self::KEY, field: "active.key" }
    }

    /// Makes a new CA in the active slot.
    pub(super) fn create(keyring: &Keyring, now: Timestamp) -> Result<Self, CaError> {
        let controller_id = proto::id::random_id();
        let active = Slot::create(&controller_id, keyring, Self::active_key(), now)?;
        Ok(Self { controller_id, active, next: None, next_signs: false })
    }

    /// How far a rotation is.
    pub(super) fn phase(&self) -> Phase {
        match (&self.next, self.next_signs) {
            (None, _) => Phase::Steady,
            (Some(_), false) => Phase::Prepared,
            (Some(_), true) => Phase::Activated,
        }
    }

    /// Takes a step of a rotation, which the phase must allow.
    pub(super) fn take(&mut self, step: Step, keyring: &Keyring, now: Timestamp) -> Result<(), CaError> {
        match (step, self.phase()) {
            (Step::Prepare, Phase::Steady) => {
                self.next = Some(Slot::create(&self.controller_id, keyring, Self::next_key(), now)?);
                self.next_signs = false;
            }
            (Step::Activate, Phase::Prepared) => self.next_signs = true,
            (Step::Retire, Phase::Activated) => {
                let Some(next) = self.next.take() else { return Err(CaError::Damaged("its next slot is empty")) };
                let key = keyring.open(Self::next_key(), &next.key)?;
                self.active = Slot { key: keyring.seal(Self::active_key(), &key), ..next };
                self.next_signs = false;
            }
            (Step::Abort, Phase::Activated) => self.next_signs = false,
            (Step::Abort, Phase::Prepared) => self.next = None,
            (step, phase) => return Err(CaError::Step { step: step.word(), phase: phase.word() }),
        }
        Ok(())
    }
}

impl Slot {
    fn create(controller_id: &str, keyring: &Keyring, place: Place<'_>, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = profile::ca(controller_id, now)?.self_signed(&key)?;
        Ok(Self {
            certificate: STANDARD.encode(certificate.der()),
            key: keyring.seal(place, &key.serialize_pem().into()),
        })
    }

    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, CaError> {
        let der = STANDARD.decode(&self.certificate).or(Err(CaError::Damaged("its certificate is not base64")))?;
        Ok(der.into())
    }
}

/// Reads the opened key of a slot.
pub(super) fn key_pair(key_pem: &SecretString) -> Result<KeyPair, CaError> {
    Ok(KeyPair::from_pkcs8_pem_and_sign_algo(key_pem.expose_secret(), &PKCS_ECDSA_P256_SHA256)?)
}
