//! Issuers: added, changed, listed, removed. Whether one works is found out by `tasks/accounts` and shown on the issuer.

use std::collections::HashMap;

use proto::id::random_id;
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::types::v1::FieldError;
use proto::x509::parse_certificates;
use secrecy::SecretString;
use tonic::Code;

use super::create::PROFILE_CHARS_MAX;
use super::private_ca;
use crate::lifecycle::certificate::is_name;
use crate::lifecycle::fallback::candidates;
use crate::lifecycle::issuer::{CONTACTS_MAX, External, Issuer};
use crate::lifecycle::private_ca::{PrivateCa, RevocationList};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rate_limit::standing;
use crate::lifecycle::restore::Removed;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views;
use crate::store::certificate::Bundle;
use crate::store::issuer::external_key_place;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::hub::Hub;
use crate::tasks::limits;

/// Rows removed in one commit.
const ROWS_AT_ONCE: usize = 50;
/// Longest directory URL.
const URL_BYTES_MAX: usize = 2_048;
/// Longest key identifier of an external account; CAs use up to about 100 characters.
const KID_BYTES_MAX: usize = 512;
/// Longest common name of a chain's issuer (RFC 5280 allows 64).
const CHAIN_CHARS_MAX: usize = 100;
/// Shortest and longest MAC key, base64: 16 to 384 octets.
const MAC_CHARS_MIN: usize = 22;
const MAC_CHARS_MAX: usize = 512;

/// Adds an issuer; its account is made right after.
pub(crate) async fn add(
    hub: &Hub,
    caller: &OperatorCaller,
    mut request: wire::AddIssuerRequest,
) -> Result<wire::Issuer, Refusal> {
    let email = Some(std::mem::take(&mut request.email)).filter(|email| !email.is_empty());
    request.contacts.extend(email);
    let mut errors = check(hub, &request).await?;
    let private = request.private_ca.as_ref().and_then(|spec| private_ca::parse(&request.name, spec, &mut errors));
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    let id = random_id();
    let issuer = Issuer {
        name: request.name.clone(),
        directory: request.directory,
        root_pem: Some(request.root_pem).filter(|pem| !pem.is_empty()),
        contacts: request.contacts,
        terms_accepted: request.accept_terms,
        external: external(hub, &id, request.external_kid, request.external_key),
        account_key: None,
        next_key: None,
        rolling: false,
        key_epoch: 0,
        account_url: None,
        problem: None,
        halt: None,
        retry_at: None,
        checking: true,
        unsent: false,
        facts: None,
        profile: text(&request.profile, PROFILE_CHARS_MAX),
        preferred_chain: text(&request.preferred_chain, CHAIN_CHARS_MAX),
        staging_directory: text(&request.staging_directory, URL_BYTES_MAX),
        staging_key: None,
        staging_account_url: None,
        created_at: hub.now(),
        limits: Default::default(),
        private,
        id,
    };
    let event = hub.event("issuer.added", format!("{} at {}", issuer.name, place(&issuer))).by(&caller.name);
    let changes = Changes::new().insert(&issuer).claim_name(Table::IssuerName, &issuer.name, &issuer.id).event(&event);
    let revision = hub.store.commit(changes).await?;
    ring(hub, &issuer);
    let limits = standing(&limits::lines(hub, &issuer).await?);
    Ok(views::issuer(&Versioned { revision, value: issuer }, None, 0, limits))
}

/// Where it issues.
fn place(issuer: &Issuer) -> String {
    let names = |ca: &PrivateCa| format!("this controller, for {}", ca.names_said());
    issuer.private.as_ref().map_or_else(|| issuer.directory.clone(), names)
}

/// Has it looked at.
fn ring(hub: &Hub, issuer: &Issuer) {
    let bell = if issuer.private.is_some() { &hub.wake.private_cas } else { &hub.wake.issuers };
    bell.ring(&issuer.id);
}

async fn check(hub: &Hub, request: &wire::AddIssuerRequest) -> Result<Vec<FieldError>, Refusal> {
    let mut errors = Vec::new();
    let shown = |text: &str| one_line(text, 120);
    if !is_name(&request.name) {
        errors.push(field_error(
            "name",
            format!("\"{}\" is not a name", shown(&request.name)),
            "use letters, digits, dots, hyphens and underscores, at most 64",
        ));
    } else if hub.store.issuer_by_name(&request.name).await?.is_some() {
        errors.push(field_error(
            "name",
            format!("an issuer named {} exists", request.name),
            format!("choose another name, or change it: certwright issuers set {}", request.name),
        ));
    }
    if request.private_ca.is_some() {
        let alone = wire::AddIssuerRequest {
            name: request.name.clone(),
            private_ca: request.private_ca.clone(),
            ..Default::default()
        };
        if *request != alone {
            errors.push(not_of_private());
        }
        return Ok(errors);
    }
    if !is_https(&request.directory) {
        errors.push(field_error(
            "directory",
            format!("\"{}\" is not an https URL", shown(&request.directory)),
            "give the CA's ACME directory, for example https://acme-v02.api.letsencrypt.org/directory",
        ));
    }
    check_staging(&request.staging_directory, &mut errors);
    check_roots(&request.root_pem, &mut errors);
    check_contacts(&request.contacts, &mut errors);
    check_external(&request.external_kid, &request.external_key, &mut errors);
    Ok(errors)
}

fn not_of_private() -> FieldError {
    let hint = "say only --names, --lifetime, --crl-url; for a new one also --common-name, --key, --root-lifetime";
    field_error("private", "a private CA has no directory, account, profile or chain", hint)
}

/// An optional word of an operator: "default" and nothing mean that the CA chooses.
fn text(word: &str, chars_max: usize) -> Option<String> {
    Some(one_line(word.trim(), chars_max)).filter(|word| !matches!(word.as_str(), "" | "default"))
}

fn is_https(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok().filter(|_| url.len() <= URL_BYTES_MAX);
    uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

fn check_staging(url: &str, errors: &mut Vec<FieldError>) {
    if !matches!(url, "" | "default") && !is_https(url) {
        let message = format!("\"{}\" is not an https URL", one_line(url, 120));
        let hint =
            "give the CA's staging directory, for example https://acme-staging-v02.api.letsencrypt.org/directory";
        errors.push(field_error("staging", message, hint));
    }
}

fn check_roots(pem: &str, errors: &mut Vec<FieldError>) {
    if !pem.is_empty()
        && let Err(error) = parse_certificates(pem.as_bytes())
    {
        errors.push(field_error(
            "root",
            format!("the root file holds {error}"),
            "give a PEM file with the CA certificate that signed the directory's TLS certificate",
        ));
    }
}

fn check_contacts(contacts: &[String], errors: &mut Vec<FieldError>) {
    let is_mail = |text: &str| {
        text.len() <= 254
            && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    for contact in contacts.iter().filter(|contact| !is_mail(contact)) {
        errors.push(field_error(
            "contact",
            format!("\"{}\" is not a mail address", one_line(contact, 120)),
            "write name@example.com, or leave it out",
        ));
    }
    if contacts.len() > CONTACTS_MAX {
        let message = format!("{} contacts; at most {CONTACTS_MAX}", contacts.len());
        errors.push(field_error("contact", message, "name fewer"));
    }
}

/// Both parts of an external account, or none.
fn check_external(kid: &str, key: &str, errors: &mut Vec<FieldError>) {
    if kid.is_empty() && key.is_empty() {
        return;
    }
    if kid.is_empty() || kid.len() > KID_BYTES_MAX || !kid.bytes().all(|byte| byte.is_ascii_graphic()) {
        errors.push(field_error(
            "eab-kid",
            "the key identifier is empty, too long, or not plain text",
            "copy it from the CA's customer pages; it goes with --eab-key",
        ));
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=');
    if key.len() < MAC_CHARS_MIN || key.len() > MAC_CHARS_MAX || !key.bytes().all(is_base64) {
        errors.push(field_error(
            "eab-key",
            "the MAC key is not base64url of a usual length",
            "copy it from the CA's customer pages, into a file: --eab-key @FILE",
        ));
    }
}

fn external(hub: &Hub, issuer_id: &str, kid: String, key: String) -> Option<External> {
    let key = (!key.is_empty()).then(|| SecretString::from(key))?;
    Some(External { kid, key: hub.store.keyring.seal(external_key_place(issuer_id), &key) })
}

/// Changes an issuer; it is tried right after, also when nothing was named but what it already is.
pub(crate) async fn set(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetIssuerRequest,
) -> Result<wire::Issuer, Refusal> {
    let mut errors = Vec::new();
    check_staging(request.staging_directory.as_deref().unwrap_or_default(), &mut errors);
    check_roots(request.root_pem.as_deref().unwrap_or_default(), &mut errors);
    check_contacts(&request.contacts, &mut errors);
    check_external(&request.external_kid, &request.external_key, &mut errors);
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    let mut issuer = named(hub, &request.name).await?;
    if issuer.value.private.is_some() || request.private_ca.is_some() {
        return set_private(hub, caller, issuer, request).await;
    }
    let record = &mut issuer.value;
    let mut said = Vec::new();
    if request.set_contacts {
        record.contacts = request.contacts;
        said.push("contacts");
    }
    if let Some(pem) = request.root_pem {
        record.root_pem = Some(pem).filter(|pem| !pem.is_empty());
        said.push("roots");
    }
    if request.accept_terms {
        record.terms_accepted = true;
        said.push("terms accepted");
    }
    let id = record.id.clone();
    if let Some(external) = external(hub, &id, request.external_kid, request.external_key) {
        record.external = Some(external);
        said.push("external account");
    }
    if let Some(profile) = &request.profile {
        record.profile = text(profile, PROFILE_CHARS_MAX);
        said.push("profile");
    }
    if let Some(chain) = &request.preferred_chain {
        record.preferred_chain = text(chain, CHAIN_CHARS_MAX);
        said.push("preferred chain");
    }
    if let Some(staging) = &request.staging_directory {
        let staging = text(staging, URL_BYTES_MAX);
        if staging != record.staging_directory {
            record.staging_account_url = None;
        }
        record.staging_directory = staging;
        said.push("staging directory");
    }
    if request.new_account {
        record.account_key = None;
        record.next_key = None;
        record.rolling = false;
        record.key_epoch = record.key_epoch.saturating_add(1);
        record.account_url = None;
        said.push("a new account with a new key");
    }
    record.unsent |= request.set_contacts || request.accept_terms;
    let event = hub.event("issuer.changed", format!("{}: {}", record.name, said.join(", "))).by(&caller.name);
    try_now(hub, issuer, Changes::new().event(&event)).await
}

/// Changes a private CA.
async fn set_private(
    hub: &Hub,
    caller: &OperatorCaller,
    mut issuer: Versioned<Issuer>,
    request: wire::SetIssuerRequest,
) -> Result<wire::Issuer, Refusal> {
    let spec = request.private_ca.clone().unwrap_or_default();
    let alone = wire::SetIssuerRequest {
        name: request.name.clone(),
        private_ca: request.private_ca.clone(),
        ..Default::default()
    };
    let mut errors = Vec::new();
    if request != alone {
        errors.push(not_of_private());
    }
    let Some(ca) = issuer.value.private.as_mut() else {
        let hint = "certwright issuers add OTHER --private --names … makes a private CA";
        return Err(Refusal::field("names", format!("issuer {} is no private CA", request.name), hint));
    };
    let said = private_ca::change(ca, &spec, &mut errors);
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    let event = hub.event("issuer.changed", format!("{}: {}", request.name, said.join(", "))).by(&caller.name);
    try_now(hub, issuer, Changes::new().event(&event)).await
}

/// Tries an issuer now.
pub(crate) async fn test(hub: &Hub, caller: &OperatorCaller, name: &str) -> Result<wire::Issuer, Refusal> {
    let issuer = named(hub, name).await?;
    let event = hub.event("issuer.test_asked", &issuer.value.name).by(&caller.name);
    try_now(hub, issuer, Changes::new().event(&event)).await
}

/// Gives the account another key.
pub(crate) async fn roll_over(hub: &Hub, caller: &OperatorCaller, name: &str) -> Result<wire::Issuer, Refusal> {
    let mut issuer = named(hub, name).await?;
    if issuer.value.private.is_some() {
        let message = format!("issuer {name} is a private CA: it has no account");
        let hint = "for another key of the CA add another private CA: certwright issuers add OTHER --private --names …";
        return Err(Refusal::new(Code::FailedPrecondition, Problem::new("PRIVATE_CA", message, "", hint)));
    }
    if issuer.value.account_url.is_none() || issuer.value.halt.is_some() {
        let cause = match issuer.value.account_url {
            Some(_) => format!("the account is {}", issuer.value.account_status()),
            None => "it has no account yet".to_owned(),
        };
        let hint = format!("certwright issuers get {name} says what is missing");
        let message = format!("the account of issuer {name} cannot get another key now");
        return Err(Refusal::new(Code::FailedPrecondition, Problem::new("ISSUER_HALTED", message, cause, hint)));
    }
    issuer.value.rolling = true;
    let event = hub.event("issuer.rollover_asked", name).by(&caller.name);
    try_now(hub, issuer, Changes::new().event(&event)).await
}

async fn try_now(hub: &Hub, mut issuer: Versioned<Issuer>, changes: Changes) -> Result<wire::Issuer, Refusal> {
    if let Some(problem) = issuer.value.refuses_use() {
        return Err(Refusal::new(Code::FailedPrecondition, problem.clone()));
    }
    issuer.value.checking = true;
    hub.store.commit(changes.update(&issuer)).await?;
    ring(hub, &issuer.value);
    one(hub, &issuer.value.name).await
}

async fn named(hub: &Hub, name: &str) -> Result<Versioned<Issuer>, Refusal> {
    hub.store.issuer_by_name(name).await?.ok_or_else(|| Refusal::not_found("issuer", &one_line(name, 80)))
}

/// Lists all issuers.
pub(crate) async fn list(hub: &Hub) -> Result<wire::ListIssuersResponse, Refusal> {
    let count = |uses: &mut HashMap<String, u64>, bundle: Bundle| {
        for id in candidates(&bundle.certificate.value.specification) {
            *uses.entry(id).or_default() += 1;
        }
    };
    let uses = hub.store.fold_bundles(HashMap::new(), count).await?;
    let items = hub.store.issuers().await?;
    let mut shown = Vec::with_capacity(items.len());
    for issuer in &items {
        let limits = standing(&limits::lines(hub, &issuer.value).await?);
        let used: u64 = uses.get(&issuer.value.id).copied().unwrap_or_default();
        let list = match &issuer.value.private {
            Some(_) => hub.store.load::<RevocationList>(&issuer.value.id).await?.map(|list| list.value),
            None => None,
        };
        shown.push(views::issuer(issuer, list.as_ref(), used, limits));
    }
    Ok(wire::ListIssuersResponse { items: shown })
}

/// Returns one issuer.
pub(crate) async fn one(hub: &Hub, name: &str) -> Result<wire::Issuer, Refusal> {
    let found = list(hub).await?.items.into_iter().find(|issuer| issuer.name == name);
    found.ok_or_else(|| Refusal::not_found("issuer", &one_line(name, 80)))
}

/// Removes an issuer that no certificate uses.
pub(crate) async fn remove(
    hub: &Hub,
    caller: &OperatorCaller,
    name: &str,
) -> Result<wire::RemoveIssuerResponse, Refusal> {
    let issuer = named(hub, name).await?;
    let uses = one(hub, name).await?.certificates;
    if uses > 0 {
        let problem = Problem::new(
            "ISSUER_IN_USE",
            format!("issuer {name} is used by {uses} certificates"),
            "",
            "give them another issuer first: certwright certs set NAME --issuer OTHER",
        );
        return Err(Refusal::new(Code::FailedPrecondition, problem));
    }
    hub.removed(Removed::IssuerRemoved, &issuer.value.id, name).await;
    let event = hub.event("issuer.removed", format!("{name} at {}", place(&issuer.value))).by(&caller.name);
    let changes = Changes::new().remove(&issuer).delete_raw(Table::IssuerName, name).event(&event);
    if let Err(error) = hub.store.commit(changes.delete_raw(Table::RevocationList, &issuer.value.id)).await {
        hub.removed(Removed::IssuerKept, &issuer.value.id, name).await;
        return Err(error.into());
    }
    // Rows that a crash leaves here do no harm: ids are never used again.
    for rows in hub.store.revoked_leaves(&issuer.value.id).await?.chunks(ROWS_AT_ONCE) {
        hub.store.commit(rows.iter().fold(Changes::new(), Changes::remove)).await?;
    }
    Ok(wire::RemoveIssuerResponse {})
}
