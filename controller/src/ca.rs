//! The identity CA: one leaf for each agent and for the controller itself, identity and role in a SAN URI. It never issues
//! a leaf for a public name, and takes nothing from a CSR but its key. Called by `app`, `rpc` and `tasks/identity`.

mod profile;
mod slots;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use proto::clock::Clock;
use proto::id::Identity;
use proto::tls::Credentials;
use proto::x509::{self, CsrFacts, LeafFacts, X509Error};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use self::profile::Profile;
pub use self::profile::renew_at;
use self::slots::{Slot, Slots};
use crate::lifecycle::event::Event;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rotation::{Made, Phase, Rotation, Step};
use crate::store::batch::CommitError;
use crate::store::records::{Changes, Versioned};
use crate::store::seal::{Keyring, Place, SealError};
use crate::store::{Store, StoreError};

/// Why the identity CA could not start or issue.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The stored CA could not be read.
    #[error("cannot read the identity CA")]
    Read(#[from] StoreError),
    /// A new CA could not be stored.
    #[error("cannot store the identity CA")]
    Write(#[from] CommitError),
    /// The stored key does not open.
    #[error("the key of the identity CA does not open")]
    Seal(#[from] SealError),
    /// The stored CA does not read, or its certificate has another key.
    #[error("the stored identity CA is damaged: {0}")]
    Damaged(&'static str),
    /// The CSR is not acceptable.
    #[error("the CSR for a new identity is refused")]
    Csr(#[source] X509Error),
    /// The CSR's key is of another kind.
    #[error("the CSR for a new identity has a key that is not ECDSA P-256")]
    CsrKey,
    /// A rotation has no such step now.
    #[error("the identity CA is {phase}: it cannot {step} now")]
    Step {
        /// What was asked for.
        step: &'static str,
        /// How far the rotation is.
        phase: &'static str,
    },
    /// Not an id.
    #[error("not an id that an identity can carry")]
    Id,
    /// rcgen failed.
    #[error("cannot make a certificate")]
    Build(#[from] rcgen::Error),
}

impl CaError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (reason, hint) = match self {
            Self::Read(error) => return error.problem(),
            Self::Csr(_) | Self::CsrKey => {
                ("CSR_REFUSED", "the agent makes this request itself: upgrade it, or enroll it again")
            }
            Self::Step { .. } => {
                ("ROTATION_STEP", "certwright identity-ca ls says how far the rotation is, and what comes next")
            }
            Self::Id => ("IDENTITY_REFUSED", "enroll the peer again"),
            Self::Write(error) => return error.problem(),
            Self::Seal(_) | Self::Damaged(_) => ("IDENTITY_CA_DAMAGED", "restore the database from a backup"),
            Self::Build(_) => ("CERTIFICATE_NOT_MADE", "this is a bug: report it with the controller's log"),
        };
        Problem::new(reason, self.to_string(), crate::lifecycle::problem::causes(self), hint)
    }
}

/// A leaf for a peer that holds its key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedIdentity {
    /// The leaf.
    pub leaf_der: Vec<u8>,
    /// Serial, lower-case hex, as `proto::tls::Peer` reads it.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The peer's SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    /// Who signed it, and the CAs to trust with it.
    pub made: Made,
}

/// One CA of the two slots, as people see it.
#[derive(Clone, Debug)]
pub struct SlotView {
    /// Hex SHA-256 of its certificate.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// It signs new leaves.
    pub signs: bool,
    /// It signed the controller's own leaf, and join tokens pin it.
    pub is_anchor: bool,
}

/// The CA with its key in memory.
pub struct IdentityCa {
    controller_id: String,
    signers: ArcSwap<Signers>,
    clock: Arc<dyn Clock>,
}

/// What the slots hold, opened.
struct Signers {
    /// Of the record it was opened from.
    revision: u64,
    active: Signer,
    next: Option<Signer>,
    phase: Phase,
}

impl Signers {
    fn open(stored: &Versioned<Slots>, keyring: &Keyring) -> Result<Self, CaError> {
        let (slots, revision) = (&stored.value, stored.revision);
        let active = Signer::open(&slots.active, Slots::active_key(), keyring)?;
        let next = slots.next.as_ref().map(|slot| Signer::open(slot, Slots::next_key(), keyring)).transpose()?;
        Ok(Self { revision, active, next, phase: slots.phase() })
    }

    fn signing(&self) -> &Signer {
        self.next.as_ref().filter(|_| self.phase == Phase::Activated).unwrap_or(&self.active)
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            phase: self.phase,
            anchor: self.active.fingerprint.clone(),
            next: self.next.as_ref().map(|next| next.fingerprint.clone()),
        }
    }
}

impl fmt::Debug for IdentityCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityCa").field("controller_id", &self.controller_id).finish_non_exhaustive()
    }
}

impl IdentityCa {
    /// Opens the stored CA, or makes and stores one when there is none.
    ///
    /// # Errors
    /// When the store fails, or what it holds is damaged.
    pub async fn open_or_create(store: &Store, clock: Arc<dyn Clock>) -> Result<Self, CaError> {
        if store.load::<Slots>(Slots::KEY).await?.is_none() {
            let slots = Slots::create(&store.keyring, clock.now())?;
            store.commit(Changes::new().insert(&slots)).await?;
        }
        let stored = Self::stored(store).await?;
        let signers = ArcSwap::from_pointee(Signers::open(&stored, &store.keyring)?);
        Ok(Self { controller_id: stored.value.controller_id, signers, clock })
    }

    async fn stored(store: &Store) -> Result<Versioned<Slots>, CaError> {
        store.load::<Slots>(Slots::KEY).await?.ok_or(CaError::Damaged("it is missing"))
    }

    /// Puts in force what the store holds. Whoever took a step may have gone before it was.
    ///
    /// # Errors
    /// When the store fails, or what it holds is damaged.
    pub async fn refresh(&self, store: &Store) -> Result<(), CaError> {
        let stored = Self::stored(store).await?;
        if stored.revision != self.signers.load().revision {
            self.signers.store(Arc::new(Signers::open(&stored, &store.keyring)?));
        }
        Ok(())
    }

    /// Returns the certificates that peers must trust: the active one, and during a rotation the next one.
    #[must_use]
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        let signers = self.signers.load();
        std::iter::once(&signers.active).chain(&signers.next).map(|signer| signer.certificate.clone()).collect()
    }

    /// Returns the SHA-256 of the active CA's SPKI, as join tokens carry it.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.signers.load().active.pin
    }

    /// Returns how far a rotation is.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.signers.load().rotation()
    }

    /// Returns the CAs as people see them.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotView> {
        let signers = self.signers.load();
        let signing = &signers.signing().fingerprint;
        let view = |signer: &Signer| SlotView {
            fingerprint: signer.fingerprint.clone(),
            not_before: signer.not_before,
            not_after: signer.not_after,
            signs: signer.fingerprint == *signing,
            is_anchor: signer.fingerprint == signers.active.fingerprint,
        };
        std::iter::once(&signers.active).chain(&signers.next).map(view).collect()
    }

    /// Takes a step of a rotation: durable first, with its event, then in force.
    ///
    /// # Errors
    /// When the phase does not allow it, or the store fails.
    pub async fn rotate(&self, store: &Store, step: Step, event: &Event) -> Result<(), CaError> {
        let mut stored = Self::stored(store).await?;
        stored.value.take(step, &store.keyring, self.clock.now())?;
        store.commit(Changes::new().update(&stored).event(event)).await?;
        self.refresh(store).await
    }

    /// Returns the id in the controller's own leaf.
    #[must_use]
    pub fn controller_id(&self) -> &str {
        &self.controller_id
    }

    /// Issues the leaf of an agent for the key of its CSR. Everything else that the CSR asks for is ignored.
    ///
    /// # Errors
    /// When the id is none, or the CSR is broken, not signed by its key, or of another kind of key than P-256.
    pub fn issue_agent(&self, agent_id: &str, csr_der: &[u8]) -> Result<IssuedIdentity, CaError> {
        self.issue_peer(&profile::AGENT, agent_id, csr_der)
    }

    /// Issues the leaf of an operator for the key of their CSR, likewise.
    ///
    /// # Errors
    /// As [`Self::issue_agent`].
    pub fn issue_operator(&self, operator_id: &str, csr_der: &[u8]) -> Result<IssuedIdentity, CaError> {
        self.issue_peer(&profile::OPERATOR, operator_id, csr_der)
    }

    fn issue_peer(&self, profile: &Profile, id: &str, csr_der: &[u8]) -> Result<IssuedIdentity, CaError> {
        let csr = CsrFacts::parse(csr_der).map_err(CaError::Csr)?;
        let key = SubjectPublicKeyInfo::from_der(&csr.spki_der).ok().ok_or(CaError::CsrKey)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::CsrKey);
        }
        let signers = self.signers.load();
        let leaf = self.issue(signers.signing(), profile, id, &key)?;
        let facts = LeafFacts::parse(&leaf).or(Err(CaError::Damaged("its new leaf does not parse")))?;
        Ok(IssuedIdentity {
            leaf_der: leaf.to_vec(),
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
            spki_der: facts.spki_der,
            made: signers.rotation().made(),
        })
    }

    /// Issues the controller's own leaf, with a new key that is never stored. The chain is leaf and CA, so that an
    /// enrolling agent can check its pin.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_controller(&self) -> Result<Credentials, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let signers = self.signers.load();
        // Of the CA that everyone trusts, also who was away since before the rotation.
        let leaf = self.issue(&signers.active, &profile::CONTROLLER, &self.controller_id, &key)?;
        Ok(Credentials {
            chain: vec![leaf, signers.active.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    fn issue(
        &self,
        signer: &Signer,
        profile: &Profile,
        id: &str,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        if !proto::id::is_id(id) {
            return Err(CaError::Id);
        }
        let identity = Identity { role: profile.role, id: id.to_owned() };
        let params = profile.leaf(&identity, self.clock.now(), signer.not_after)?;
        Ok(params.signed_by(key, &signer.issuer)?.into())
    }
}

/// A slot whose key is open.
struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pin: [u8; 32],
    /// Hex SHA-256 of the certificate.
    fingerprint: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Signer {
    fn open(slot: &Slot, place: Place<'_>, keyring: &Keyring) -> Result<Self, CaError> {
        let certificate = slot.certificate()?;
        let facts = LeafFacts::parse(&certificate).or(Err(CaError::Damaged("its certificate does not parse")))?;
        let key = keyring.open(place, &slot.key)?;
        let spki = x509::spki_of_key(&key).or(Err(CaError::Damaged("its key does not parse")))?;
        if spki != facts.spki_der {
            return Err(CaError::Damaged("its certificate has another key"));
        }
        let pin = x509::spki_pin(&certificate).or(Err(CaError::Damaged("its certificate does not parse")))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, slots::key_pair(&key)?)?;
        let fingerprint = x509::hex(&facts.fingerprint_sha256);
        Ok(Self { certificate, issuer, pin, fingerprint, not_before: facts.not_before, not_after: facts.not_after })
    }
}

#[cfg(test)]
mod tests;
