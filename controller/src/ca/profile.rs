//! What each certificate of the identity CA says, and how long it lives. Pure. Called by `ca` only.

use jiff::{SignedDuration, Timestamp};
use proto::id::{Identity, Role};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::CaError;

/// A peer's clock may be this much behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const AGENT_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Renewed while it is used: who stays away for so long is invited again.
const OPERATOR_LIFE: SignedDuration = SignedDuration::from_hours(14 * 24);
const CONTROLLER_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Identities are renewed when this part of their life is over: one half.
const RENEW_AT_PART: i32 = 2;
/// RFC 5280 §4.1.2.2 allows 20 octets; 16 random ones never repeat.
const SERIAL_LEN: usize = 16;

/// Returns when an identity is due for renewal: at half its life, so that short lives in tests work alike.
#[must_use]
pub fn renew_at(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    not_before + not_before.duration_until(not_after) / RENEW_AT_PART
}

/// The form of one role's leaf.
pub(super) struct Profile {
    pub(super) role: Role,
    life: SignedDuration,
    usage: ExtendedKeyUsagePurpose,
}

/// An agent is a TLS client and never a server.
pub(super) const AGENT: Profile =
    Profile { role: Role::Agent, life: AGENT_LIFE, usage: ExtendedKeyUsagePurpose::ClientAuth };
/// An operator away from the controller's host likewise.
pub(super) const OPERATOR: Profile =
    Profile { role: Role::Operator, life: OPERATOR_LIFE, usage: ExtendedKeyUsagePurpose::ClientAuth };
/// The controller is a TLS server and never a client.
pub(super) const CONTROLLER: Profile =
    Profile { role: Role::Controller, life: CONTROLLER_LIFE, usage: ExtendedKeyUsagePurpose::ServerAuth };

impl Profile {
    /// Returns the parameters of a leaf; it never outlives its CA.
    pub(super) fn leaf(
        &self,
        identity: &Identity,
        now: Timestamp,
        ca_not_after: Timestamp,
    ) -> Result<CertificateParams, CaError> {
        let uri = Ia5String::try_from(identity.to_string())?;
        let mut params = validity(now - BACKDATE, (now + self.life).min(ca_not_after))?;
        params.distinguished_name = name(&identity.id);
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// Returns the parameters of a CA, whose name holds the controller's id.
pub(super) fn ca(controller_id: &str, now: Timestamp) -> Result<CertificateParams, CaError> {
    let mut params = validity(now - BACKDATE, now + CA_LIFE)?;
    params.distinguished_name = name(&format!("certwright identity CA {controller_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn validity(not_before: Timestamp, not_after: Timestamp) -> Result<CertificateParams, CaError> {
    let at = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second());
    let mut params = CertificateParams::default();
    params.not_before = at(not_before).or(Err(rcgen::Error::Time))?;
    params.not_after = at(not_after).or(Err(rcgen::Error::Time))?;
    params.serial_number = Some(serial());
    Ok(params)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// rcgen's own serial is the hash of the key: the same at every renewal.
fn serial() -> SerialNumber {
    let mut bytes = [0_u8; SERIAL_LEN];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let [first, ..] = &mut bytes;
    // Positive and without a leading zero, so that its DER is these 16 octets.
    *first = *first & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
