//! Issuers: the list and the record.

use proto::operator::v1::{Issuer, IssuerProfile};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::{each, safe, some};

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
    error: Option<ProblemView>,
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
            error: issuer.problem.as_ref().map(ProblemView::from),
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
        let mut row = vec![issuer.name.clone(), account, limits, count, issuer.directory.clone(), error];
        if wide {
            row.extend([root(issuer).to_owned(), issuer.contacts.join(","), issuer.id.clone()]);
        }
        table.row(row);
    }
    table
}

/// Returns one issuer for people.
pub(crate) fn describe(issuer: &Issuer) -> String {
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

fn root(issuer: &Issuer) -> &'static str {
    if issuer.own_root { "its own" } else { "the system's" }
}
