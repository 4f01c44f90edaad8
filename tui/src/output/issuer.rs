//! Issuers: the list and the record.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Issuer, IssuerProfile, PrivateCa, PrivateRoot};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::time::both;
use super::{each, safe, safe_lines, some};
use crate::client::{key_type, period};

/// An issuer in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct IssuerView {
    id: String,
    revision: u64,
    name: String,
    directory: String,
    own_root: bool,
    contacts: Vec<String>,
    terms_accepted: bool,
    account_status: String,
    account_url: Option<String>,
    certificates: u64,
    limits: Option<String>,
    checking: bool,
    terms_url: Option<String>,
    external_account_required: bool,
    external_kid: Option<String>,
    profiles: Vec<ProfileView>,
    profile: Option<String>,
    preferred_chain: Option<String>,
    staging_directory: Option<String>,
    private_ca: Option<PrivateCaView>,
    error: Option<ProblemView>,
}

/// A CA of the controller's own.
#[derive(Debug, Serialize)]
pub(crate) struct PrivateCaView {
    common_name: String,
    key_type: &'static str,
    names: Vec<String>,
    lifetime_seconds: u64,
    root_lifetime_seconds: u64,
    crl_url: Option<String>,
    roots: Vec<RootView>,
    next_root_at: Option<Timestamp>,
    crl_number: u64,
    crl_made_at: Option<Timestamp>,
    crl_next_at: Option<Timestamp>,
    revoked: u64,
}

/// A root certificate, the one that signs first.
#[derive(Debug, Serialize)]
pub(crate) struct RootView {
    fingerprint_sha256: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    pem: String,
}

/// A profile that the directory lists.
#[derive(Debug, Serialize)]
pub(crate) struct ProfileView {
    name: String,
    description: String,
}

impl From<&Issuer> for IssuerView {
    fn from(issuer: &Issuer) -> Self {
        Self {
            id: safe(&issuer.id),
            revision: issuer.revision,
            name: safe(&issuer.name),
            directory: safe(&issuer.directory),
            own_root: issuer.own_root,
            contacts: each(&issuer.contacts),
            terms_accepted: issuer.terms_accepted,
            account_status: safe(&issuer.account_status),
            account_url: some(&issuer.account_url),
            certificates: issuer.certificates,
            limits: some(&issuer.limits),
            checking: issuer.checking,
            terms_url: some(&issuer.terms_url),
            external_account_required: issuer.external_account_required,
            external_kid: some(&issuer.external_kid),
            profiles: issuer.profiles.iter().map(ProfileView::from).collect(),
            profile: some(&issuer.profile),
            preferred_chain: some(&issuer.preferred_chain),
            staging_directory: some(&issuer.staging_directory),
            private_ca: issuer.private_ca.as_ref().map(PrivateCaView::from),
            error: issuer.problem.as_ref().map(ProblemView::from),
        }
    }
}

impl From<&PrivateCa> for PrivateCaView {
    fn from(ca: &PrivateCa) -> Self {
        Self {
            common_name: safe(&ca.common_name),
            key_type: key_type(ca.key_type),
            names: each(&ca.names),
            lifetime_seconds: ca.leaf_life_seconds,
            root_lifetime_seconds: ca.root_life_seconds,
            crl_url: some(&ca.list_url),
            roots: ca.roots.iter().map(RootView::from).collect(),
            next_root_at: from_wire(ca.next_root_at),
            crl_number: ca.list_number,
            crl_made_at: from_wire(ca.list_made_at),
            crl_next_at: from_wire(ca.list_next_at),
            revoked: ca.revoked,
        }
    }
}

impl From<&PrivateRoot> for RootView {
    fn from(root: &PrivateRoot) -> Self {
        Self {
            fingerprint_sha256: safe(&root.fingerprint_sha256),
            not_before: from_wire(root.not_before),
            not_after: from_wire(root.not_after),
            pem: safe_lines(&root.pem),
        }
    }
}

impl From<&IssuerProfile> for ProfileView {
    fn from(profile: &IssuerProfile) -> Self {
        Self { name: safe(&profile.name), description: safe(&profile.description) }
    }
}

/// Returns one issuer as a JSON document.
pub(crate) fn json(issuer: &Issuer) -> String {
    super::json(Some("Issuer"), IssuerView::from(issuer))
}

/// Returns issuers as a JSON list.
pub(crate) fn json_list(issuers: &[Issuer]) -> String {
    super::json_list("IssuerList", issuers.iter().map(IssuerView::from).collect())
}

/// Returns issuers as a table.
pub(crate) fn table(issuers: &[Issuer], wide: bool) -> Table {
    let mut head = vec!["NAME", "ACCOUNT", "LIMITS", "CERTIFICATES", "DIRECTORY", "ERROR"];
    if wide {
        head.extend(["ROOT", "CONTACTS", "ID"]);
    }
    let mut table = Table::new(&head);
    for issuer in issuers {
        let error = issuer.problem.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
        let account = issuer.account_status.clone();
        let limits = issuer.limits.clone();
        let count = issuer.certificates.to_string();
        let mut row = vec![issuer.name.clone(), account, limits, count, place(issuer), error];
        if wide {
            row.extend([root(issuer).to_owned(), issuer.contacts.join(","), issuer.id.clone()]);
        }
        table.row(row);
    }
    table
}

/// Returns one issuer for people.
pub(crate) fn describe(issuer: &Issuer, now: Timestamp) -> String {
    if let Some(ca) = &issuer.private_ca {
        return describe_private(issuer, ca, now);
    }
    let mut block = Block::titled(&format!("{}: account {}", issuer.name, issuer.account_status));
    block.field("directory", &issuer.directory);
    block.field("roots", root(issuer));
    block.field("contacts", &issuer.contacts.join(", "));
    let terms = if issuer.terms_accepted { "accepted" } else { "not accepted" };
    block.field("terms", format!("{terms} {}", issuer.terms_url).trim_end());
    if issuer.external_account_required || !issuer.external_kid.is_empty() {
        let kid = if issuer.external_kid.is_empty() { "wanted by the CA, none given" } else { &issuer.external_kid };
        block.field("external account", kid);
    }
    let profiles: Vec<&str> = issuer.profiles.iter().map(|profile| profile.name.as_str()).collect();
    block.field("profiles", &profiles.join(", "));
    block.field("profile", &issuer.profile);
    block.field("chain under", &issuer.preferred_chain);
    block.field("rehearsals", &issuer.staging_directory);
    block.field("account", &issuer.account_url);
    block.field("certificates", &issuer.certificates.to_string());
    block.field("id", &issuer.id);
    block.problem(issuer.problem.as_ref());
    block.render()
}

/// Where it issues, for a list.
fn place(issuer: &Issuer) -> String {
    let names = |ca: &PrivateCa| format!("here: {}", ca.names.join(", "));
    issuer.private_ca.as_ref().map_or_else(|| issuer.directory.clone(), names)
}

fn describe_private(issuer: &Issuer, ca: &PrivateCa, now: Timestamp) -> String {
    let standing = if ca.roots.is_empty() { "private CA, without a root yet" } else { "private CA" };
    let mut block = Block::titled(&format!("{}: {standing}", issuer.name));
    block.field("certifies", &ca.names.join(", "));
    block.field("lifetime", &period(u32::try_from(ca.leaf_life_seconds).unwrap_or(u32::MAX)));
    block.field("common name", &ca.common_name);
    block.field("key", key_type(ca.key_type));
    for root in &ca.roots {
        block.field("root", &format!("SHA-256 {}", root.fingerprint_sha256));
        block.field("", &format!("until {}", both(now, root.not_after)));
    }
    block.field("next root", &both(now, ca.next_root_at));
    if ca.list_number != 0 {
        let revoked = ca.revoked;
        block.field("revoked", &format!("{revoked}, on list {} of {}", ca.list_number, both(now, ca.list_made_at)));
        block.field("next list", &both(now, ca.list_next_at));
    }
    block.field("list at", if ca.list_url.is_empty() { "certificates do not say where" } else { &ca.list_url });
    block.field("certificates", &issuer.certificates.to_string());
    block.field("id", &issuer.id);
    block.problem(issuer.problem.as_ref());
    block.render()
}

/// Returns a revocation list as PEM (RFC 7468 §7).
pub(crate) fn list_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}

fn root(issuer: &Issuer) -> &'static str {
    if issuer.private_ca.is_some() {
        return "-";
    }
    if issuer.own_root { "its own" } else { "the system's" }
}
