//! What `apply` found on this server, as the controller is told it. Only words are exchanged here.

use proto::types::v1 as wire;

use crate::detect::{Certificate, KeyState, Picture, Renewer, Service, Site};

impl From<Picture> for wire::Picture {
    fn from(picture: Picture) -> Self {
        Self {
            os: picture.os,
            services: picture.services.into_iter().map(Into::into).collect(),
            sites: picture.sites.into_iter().map(Into::into).collect(),
            certificates: picture.certificates.into_iter().map(Into::into).collect(),
            renewers: picture.renewers.into_iter().map(Into::into).collect(),
            notes: picture.notes,
        }
    }
}

impl From<Service> for wire::FoundService {
    fn from(Service { preset, unit, is_running }: Service) -> Self {
        Self { preset, unit, is_running }
    }
}

impl From<Site> for wire::FoundSite {
    fn from(site: Site) -> Self {
        let Site { service, names, listens, certificate, key, root, challenges, redirects, wordpress, source } = site;
        Self { service, names, listens, certificate, key, root, challenges, redirects, wordpress, source }
    }
}

impl From<Certificate> for wire::FoundCertificate {
    fn from(found: Certificate) -> Self {
        let key = match found.key {
            KeyState::Missing => wire::FoundKey::Missing,
            KeyState::Matches => wire::FoundKey::Matches,
            KeyState::Combined => wire::FoundKey::Combined,
            KeyState::Differs => wire::FoundKey::Differs,
            KeyState::Unreadable => wire::FoundKey::Unreadable,
        };
        Self {
            path: found.path,
            leads_to: found.leads_to,
            key_path: found.key_path,
            key_leads_to: found.key_leads_to,
            key: key.into(),
            chain_len: found.chain_len,
            identifiers: found.identifiers,
            issuer_cn: found.issuer_cn,
            not_after: found.not_after,
            fingerprint_sha256: found.fingerprint_sha256,
            owner: found.owner,
            mode: found.mode,
            key_owner: found.key_owner,
            key_mode: found.key_mode,
            problem: found.problem,
        }
    }
}

impl From<Renewer> for wire::FoundRenewer {
    fn from(Renewer { program, name, certificate, key, webroot, is_active }: Renewer) -> Self {
        Self { program, name, certificate, key, webroot, is_active }
    }
}
