//! The certificates that sites and renewers name: what they say, who owns their files, and whether the key beside is theirs.
//! The key is compared here; only the answer leaves this file.

use std::collections::BTreeMap;

use proto::x509::{self, LeafFacts, X509Error};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::files::{Files, Standing};
use crate::detect::{Certificate, KeyState, Picture};

/// Most certificates that are looked at.
const CERTIFICATES_MAX: usize = 400;
const PEM_BYTES_MAX: u64 = 64 * 1024;

/// Fills the picture's certificates, and the names of sites that have them only from there.
pub(super) fn look(picture: &mut Picture, files: &mut Files) {
    let named = picture.sites.iter().map(|site| (site.certificate.clone(), site.key.clone()));
    let kept = picture.renewers.iter().map(|renewer| (renewer.certificate.clone(), renewer.key.clone()));
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    for (certificate, key) in named.chain(kept).filter(|(certificate, _)| !certificate.is_empty()) {
        let known = pairs.entry(certificate).or_default();
        if known.is_empty() {
            *known = key;
        }
    }
    let accounts = Accounts::read(files);
    let found = pairs.into_iter().take(CERTIFICATES_MAX).map(|(path, key)| one(path, key, files, &accounts));
    picture.certificates = found.collect();
    for site in picture.sites.iter_mut().filter(|site| site.names.is_empty() && !site.certificate.is_empty()) {
        let certificate = picture.certificates.iter().find(|found| found.path == site.certificate);
        for name in certificate.map_or(&[][..], |found| &found.identifiers) {
            site.add_name(name);
        }
    }
}

fn one(path: String, key_path: String, files: &mut Files, accounts: &Accounts) -> Certificate {
    let mut found = Certificate { leads_to: files.leads_to(&path).unwrap_or_default(), ..Certificate::default() };
    if !is_one_file_of(&path, &key_path) {
        found.key_leads_to = files.leads_to(&key_path).unwrap_or_default();
    }
    if let Some(standing) = files.standing(&path) {
        (found.owner, found.mode) = (accounts.owner(&standing), standing.mode);
    }
    let is_one_file = is_one_file_of(&path, &key_path);
    let pem = files.bytes(&path, PEM_BYTES_MAX).map(Zeroizing::new);
    let read = pem.as_deref().map_err(ToString::to_string).and_then(|pem| leaf(pem).map_err(|error| error.to_string()));
    match read {
        Ok((leaf, chain_len)) => {
            let key =
                if is_one_file { pem.ok() } else { files.bytes(&key_path, PEM_BYTES_MAX).ok().map(Zeroizing::new) };
            found.key = key.map_or(KeyState::Missing, |key| compare(key, &leaf.spki_der, is_one_file));
            found.chain_len = chain_len;
            found.issuer_cn = leaf.issuer_cn;
            found.not_after = leaf.not_after.as_millisecond();
            found.fingerprint_sha256 = x509::hex(&leaf.fingerprint_sha256);
            found.identifiers = leaf.identifiers;
        }
        Err(problem) => found.problem = problem,
    }
    if found.key != KeyState::Missing
        && let Some(standing) = files.standing(if is_one_file { &path } else { &key_path })
    {
        (found.key_owner, found.key_mode) = (accounts.owner(&standing), standing.mode);
    }
    Certificate { path, key_path, ..found }
}

fn is_one_file_of(path: &str, key_path: &str) -> bool {
    key_path.is_empty() || key_path == path
}

fn leaf(pem: &[u8]) -> Result<(LeafFacts, u32), X509Error> {
    let certificates = x509::parse_certificates(pem)?;
    let first = certificates.first().ok_or(X509Error::NotPem)?;
    Ok((LeafFacts::parse(first)?, u32::try_from(certificates.len()).unwrap_or(u32::MAX)))
}

fn compare(key: Zeroizing<Vec<u8>>, spki_der: &[u8], is_one_file: bool) -> KeyState {
    let Ok(text) = std::str::from_utf8(&key) else { return KeyState::Unreadable };
    let pem = SecretString::from(text.to_owned());
    if !pem.expose_secret().contains("PRIVATE KEY-----") {
        return KeyState::Missing;
    }
    match x509::spki_of_key(&pem) {
        Ok(spki) if spki != spki_der => KeyState::Differs,
        Ok(_) if is_one_file => KeyState::Combined,
        Ok(_) => KeyState::Matches,
        Err(_) => KeyState::Unreadable,
    }
}

/// Names of users and groups, as this server's own files have them.
struct Accounts {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Accounts {
    fn read(files: &mut Files) -> Self {
        let mut names = |path: &str| -> BTreeMap<u32, String> {
            let text = files.text(path).unwrap_or_default();
            let lines = text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
            });
            // The first name of a number is its name.
            lines.rev().collect()
        };
        Self { users: names("/etc/passwd"), groups: names("/etc/group") }
    }

    fn owner(&self, standing: &Standing) -> String {
        let name = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        format!("{}:{}", name(&self.users, standing.uid), name(&self.groups, standing.gid))
    }
}
