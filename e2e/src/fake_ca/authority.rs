//! The certificates of the fake CA: a root, an intermediate and leaves, really signed.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Ten years, in seconds: the life of root and intermediate.
const AUTHORITY_SECONDS: i64 = 10 * 365 * 86_400;

/// A two-level CA.
pub(super) struct Authority {
    root_pem: String,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    /// The intermediate once more, signed by another root.
    cross_signed_pem: String,
    kept: Kept,
}

/// All that another life needs to be the same CA.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Kept {
    since: Timestamp,
    root_key: String,
    intermediate_key: String,
    issued: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("issued", &self.kept.issued).finish_non_exhaustive()
    }
}

/// What a leaf shall say.
pub(super) struct LeafPlan<'a> {
    pub(super) csr_der: &'a [u8],
    pub(super) identifiers: &'a [String],
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Issue for a key that nobody asked about.
    pub(super) other_key: bool,
}

impl Authority {
    pub(super) fn new(now: Timestamp) -> Self {
        let key = || KeyPair::generate().unwrap().serialize_pem();
        Self::again(Kept { since: now, root_key: key(), intermediate_key: key(), issued: 0 })
    }

    /// The same keys and names make the same CA, though its certificates are signed anew.
    pub(super) fn again(kept: Kept) -> Self {
        let key = |pem: &str| KeyPair::from_pem(pem).unwrap();
        let root = |name, key| CertifiedIssuer::self_signed(authority(name, kept.since), key).unwrap();
        let root_key = key(&kept.root_key);
        let (root, other) = (root("Fake Root", root_key), root("Other Root", KeyPair::generate().unwrap()));
        let name = "Fake Intermediate";
        let intermediate =
            CertifiedIssuer::signed_by(authority(name, kept.since), key(&kept.intermediate_key), &root).unwrap();
        let cross_signed = authority(name, kept.since).signed_by(intermediate.key(), &other).unwrap();
        Self { root_pem: root.pem(), intermediate, cross_signed_pem: cross_signed.pem(), kept }
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Returns the chain with the intermediate that another root signed: "Other Root".
    pub(super) fn under_the_other_root(&self, chain: &str) -> String {
        chain.replace(&self.intermediate.pem(), &self.cross_signed_pem)
    }

    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Returns leaf and intermediate as PEM.
    pub(super) fn issue(&mut self, plan: &LeafPlan<'_>) -> Result<String, String> {
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(plan.csr_der))
            .map_err(|error| error.to_string())?;
        self.kept.issued += 1;
        let mut params = CertificateParams::new(plan.identifiers).map_err(|error| error.to_string())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = offset(plan.not_before);
        params.not_after = offset(plan.not_after);
        params.serial_number =
            Some(SerialNumber::from((0x0f00_0000_0000_0000 + self.kept.issued).to_be_bytes().to_vec()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = if plan.other_key {
            params.signed_by(&KeyPair::generate().unwrap(), &self.intermediate)
        } else {
            params.signed_by(&csr.public_key, &self.intermediate)
        };
        Ok(format!("{}{}", leaf.map_err(|error| error.to_string())?.pem(), self.intermediate.pem()))
    }
}

fn authority(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = offset(now);
    params.not_after = OffsetDateTime::from_unix_timestamp(now.as_second() + AUTHORITY_SECONDS).unwrap();
    params
}

fn offset(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap()
}
