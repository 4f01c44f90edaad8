//! What an agent found on its server, and what is suggested for it.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Detected, Suggestion};
use proto::types::v1::{FoundCertificate, FoundRenewer, FoundService, FoundSite};
use serde::Serialize;

use super::block::Block;
use super::{each, safe, some, time};
use crate::client::{DetectedLine, detected_lines, found_key, http01_words, target_lines};

/// A picture in JSON.
#[derive(Debug, Serialize)]
struct DetectedView {
    agent: String,
    seen_at: Option<Timestamp>,
    agent_version: Option<String>,
    os: Option<String>,
    services: Vec<ServiceView>,
    sites: Vec<SiteView>,
    certificates: Vec<CertificateView>,
    renewers: Vec<RenewerView>,
    notes: Vec<String>,
    suggestions: Vec<SuggestionView>,
}

#[derive(Debug, Serialize)]
struct ServiceView {
    preset: String,
    running: bool,
    unit: Option<String>,
}

#[derive(Debug, Serialize)]
struct SiteView {
    service: String,
    names: Vec<String>,
    listens: Vec<String>,
    certificate: Option<String>,
    key: Option<String>,
    root: Option<String>,
    challenges: Option<String>,
    redirects: bool,
    wordpress: bool,
    source: String,
}

#[derive(Debug, Serialize)]
struct CertificateView {
    path: String,
    leads_to: Option<String>,
    key_path: Option<String>,
    key: &'static str,
    chain_len: u32,
    identifiers: Vec<String>,
    issuer_cn: Option<String>,
    not_after: Option<Timestamp>,
    fingerprint_sha256: Option<String>,
    owner: Option<String>,
    mode: String,
    key_owner: Option<String>,
    key_mode: String,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct RenewerView {
    program: String,
    name: String,
    certificate: Option<String>,
    key: Option<String>,
    webroot: Option<String>,
    active: bool,
}

#[derive(Debug, Serialize)]
struct SuggestionView {
    name: String,
    kind: String,
    certificate: String,
    identifiers: Vec<String>,
    preset: Option<String>,
    target: Vec<String>,
    http01: Option<String>,
    adopts: bool,
    configure: Option<String>,
    source: Option<String>,
    policy: Vec<String>,
    warnings: Vec<String>,
    first: Vec<String>,
}

impl From<&Detected> for DetectedView {
    fn from(found: &Detected) -> Self {
        let picture = found.picture.clone().unwrap_or_default();
        Self {
            agent: safe(&found.agent),
            seen_at: from_wire(found.seen_at),
            agent_version: some(&found.agent_version),
            os: some(&picture.os),
            services: picture.services.iter().map(ServiceView::from).collect(),
            sites: picture.sites.iter().map(SiteView::from).collect(),
            certificates: picture.certificates.iter().map(CertificateView::from).collect(),
            renewers: picture.renewers.iter().map(RenewerView::from).collect(),
            notes: each(&picture.notes),
            suggestions: found.suggestions.iter().map(SuggestionView::from).collect(),
        }
    }
}

impl From<&FoundService> for ServiceView {
    fn from(one: &FoundService) -> Self {
        Self { preset: safe(&one.preset), running: one.is_running, unit: some(&one.unit) }
    }
}

impl From<&FoundSite> for SiteView {
    fn from(one: &FoundSite) -> Self {
        Self {
            service: safe(&one.service),
            names: each(&one.names),
            listens: each(&one.listens),
            certificate: some(&one.certificate),
            key: some(&one.key),
            root: some(&one.root),
            challenges: some(&one.challenges),
            redirects: one.redirects,
            wordpress: one.wordpress,
            source: safe(&one.source),
        }
    }
}

impl From<&FoundCertificate> for CertificateView {
    fn from(one: &FoundCertificate) -> Self {
        Self {
            path: safe(&one.path),
            leads_to: some(&one.leads_to),
            key_path: some(&one.key_path),
            key: found_key(one),
            chain_len: one.chain_len,
            identifiers: each(&one.identifiers),
            issuer_cn: some(&one.issuer_cn),
            not_after: from_wire(one.not_after),
            fingerprint_sha256: some(&one.fingerprint_sha256),
            owner: some(&one.owner),
            mode: format!("{:04o}", one.mode),
            key_owner: some(&one.key_owner),
            key_mode: format!("{:04o}", one.key_mode),
            problem: some(&one.problem),
        }
    }
}

impl From<&FoundRenewer> for RenewerView {
    fn from(one: &FoundRenewer) -> Self {
        Self {
            program: safe(&one.program),
            name: safe(&one.name),
            certificate: some(&one.certificate),
            key: some(&one.key),
            webroot: some(&one.webroot),
            active: one.is_active,
        }
    }
}

impl From<&Suggestion> for SuggestionView {
    fn from(one: &Suggestion) -> Self {
        Self {
            name: safe(&one.name),
            kind: safe(&one.kind),
            certificate: safe(&one.certificate),
            identifiers: each(&one.identifiers),
            preset: some(&one.preset),
            target: one.target.as_ref().map(target_lines).unwrap_or_default(),
            http01: one.http01.as_ref().map(http01_words),
            adopts: one.adopts,
            configure: some(&one.configure),
            source: some(&one.source),
            policy: each(&one.policy),
            warnings: each(&one.warnings),
            first: each(&one.first),
        }
    }
}

/// Returns what was found as a JSON document.
pub(crate) fn json(found: &Detected) -> String {
    super::json(Some("Detected"), DetectedView::from(found))
}

/// Returns what was found, for people.
pub(crate) fn describe(found: &Detected, now: Timestamp) -> String {
    if found.seen_at == 0 {
        return format!("{}: nothing was looked at yet\n", safe(&found.agent));
    }
    let mut block = Block::titled(&format!("{}: looked at {}", found.agent, time::both(now, found.seen_at)));
    for line in detected_lines(found) {
        match line {
            DetectedLine::Section(title) => block.section(&title),
            DetectedLine::Text(text) => block.line(&text),
            DetectedLine::Below(text) => block.below(&text),
        }
    }
    block.render()
}
