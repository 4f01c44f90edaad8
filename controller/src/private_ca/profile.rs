//! What the certificates of a private CA say (RFC 5280): a root constrained to the names of the policy, and leaves for servers
//! that hold names and nothing else. Pure but for the serial's random bits. Called by `private_ca` only.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CrlDistributionPoint, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, PKCS_RSA_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::SignError;
use crate::lifecycle::private_ca::{Allowed, PrivateCa};

/// A client's clock may be this much behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// 128 random bits: no counter to keep, and nobody can guess the next one.
const SERIAL_LEN: usize = 16;

/// The root: signs leaves and lists, and no CA (path length 0).
pub(super) fn root(ca: &PrivateCa, now: Timestamp) -> Result<CertificateParams, SignError> {
    let life = SignedDuration::from_secs(ca.root_life_s);
    let mut params = validity(now, now.checked_add(life).or(Err(SignError::Damaged("its life is too long")))?)?;
    params.distinguished_name.push(DnType::CommonName, &ca.common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(constraints(&ca.names));
    Ok(params)
}

/// A leaf: a server's, by its names alone.
pub(super) fn leaf(
    ca: &PrivateCa,
    identifiers: &[String],
    key: &impl PublicKeyData,
    (now, not_after): (Timestamp, Timestamp),
) -> Result<CertificateParams, SignError> {
    let mut params = validity(now, not_after)?;
    params.subject_alt_names = identifiers.iter().map(|one| name(one)).collect::<Result<_, _>>()?;
    // Written out, with the subject key identifier that comes with it.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if key.algorithm() == &PKCS_RSA_SHA256 {
        // TLS 1.2 may encrypt to an RSA key.
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points =
        ca.list_url.iter().map(|url| CrlDistributionPoint { uris: vec![url.clone()] }).collect();
    Ok(params)
}

fn name(identifier: &str) -> Result<SanType, SignError> {
    Ok(match identifier.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(identifier.try_into()?),
    })
}

/// What the policy permits, as subtrees (RFC 5280 §4.2.1.10): a client refuses the rest, whoever got hold of the CA's key. A
/// subtree holds all names below a host, so it permits more than the policy, never less. A kind of name without a line is
/// excluded as a whole; of a kind without a subtree everything would be permitted.
fn constraints(names: &[Allowed]) -> NameConstraints {
    let permitted_subtrees: Vec<GeneralSubtree> = names.iter().map(subtree).collect();
    let is = |kind: fn(&GeneralSubtree) -> bool| permitted_subtrees.iter().any(kind);
    let mut excluded_subtrees = Vec::new();
    if !is(|one| matches!(one, GeneralSubtree::DnsName(_))) {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    if !is(|one| matches!(one, GeneralSubtree::IpAddress(CidrSubnet::V4(..)))) {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
    }
    if !is(|one| matches!(one, GeneralSubtree::IpAddress(CidrSubnet::V6(..)))) {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    NameConstraints { permitted_subtrees, excluded_subtrees }
}

fn subtree(allowed: &Allowed) -> GeneralSubtree {
    match allowed {
        Allowed::Host(name) | Allowed::Below(name) => GeneralSubtree::DnsName(name.clone()),
        Allowed::Range(IpAddr::V4(network), bits) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(*bits))).unwrap_or(0);
            GeneralSubtree::IpAddress(CidrSubnet::V4(network.octets(), mask.to_be_bytes()))
        }
        Allowed::Range(IpAddr::V6(network), bits) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(*bits))).unwrap_or(0);
            GeneralSubtree::IpAddress(CidrSubnet::V6(network.octets(), mask.to_be_bytes()))
        }
    }
}

fn validity(now: Timestamp, not_after: Timestamp) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = instant(now - BACKDATE)?;
    params.not_after = instant(not_after)?;
    params.serial_number = Some(serial());
    Ok(params)
}

/// An instant as the borders of rcgen want it, in whole seconds.
pub(super) fn instant(at: Timestamp) -> Result<OffsetDateTime, SignError> {
    Ok(OffsetDateTime::from_unix_timestamp(at.as_second()).or(Err(rcgen::Error::Time))?)
}

fn serial() -> SerialNumber {
    let mut bytes = [0_u8; SERIAL_LEN];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let [first, ..] = &mut bytes;
    // Positive and without a leading zero, so that its DER is these 16 octets.
    *first = *first & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
