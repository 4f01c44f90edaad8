//! Issuers: added, listed, removed. Whether a directory works is found out by `tasks/accounts` and shown on the issuer.

use proto::id::random_id;
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::types::v1::FieldError;
use proto::x509::parse_certificates;
use tonic::Code;

use crate::lifecycle::certificate::is_name;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::Problem;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

/// Longest directory URL.
const URL_BYTES_MAX: usize = 2_048;

/// Adds an issuer; its account is made right after.
pub(crate) async fn add(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::AddIssuerRequest,
) -> Result<wire::Issuer, Refusal> {
    let errors = check(hub, &request).await?;
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    let issuer = Issuer {
        id: random_id(),
        name: request.name.clone(),
        directory: request.directory,
        root_pem: Some(request.root_pem).filter(|pem| !pem.is_empty()),
        email: Some(request.email).filter(|email| !email.is_empty()),
        terms_accepted: request.accept_terms,
        account_key: None,
        account_url: None,
        problem: None,
        created_at: hub.now(),
    };
    let event = hub.event("issuer.added", format!("{} at {}", issuer.name, issuer.directory)).by(&caller.name);
    let changes = Changes::new().insert(&issuer).claim_name(Table::IssuerName, &issuer.name, &issuer.id).event(&event);
    let revision = hub.store.commit(changes).await?;
    hub.wake.issuers.ring(&issuer.id);
    Ok(views::issuer(&Versioned { revision, value: issuer }, 0))
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
        errors.push(field_error("name", format!("an issuer named {} exists", request.name), "choose another name"));
    }
    let url = request
        .directory
        .parse::<http::Uri>()
        .ok()
        .filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    if url.is_none() || request.directory.len() > URL_BYTES_MAX {
        errors.push(field_error(
            "directory",
            format!("\"{}\" is not an https URL", shown(&request.directory)),
            "give the CA's ACME directory, for example https://acme-v02.api.letsencrypt.org/directory",
        ));
    }
    if !request.root_pem.is_empty()
        && let Err(error) = parse_certificates(request.root_pem.as_bytes())
    {
        errors.push(field_error(
            "root",
            format!("the root file holds {error}"),
            "give a PEM file with the CA certificate that signed the directory's TLS certificate",
        ));
    }
    let mail = request.email.is_empty()
        || (request.email.len() <= 254
            && request.email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
            && request.email.bytes().all(|byte| byte.is_ascii_graphic()));
    if !mail {
        errors.push(field_error(
            "email",
            format!("\"{}\" is not a mail address", shown(&request.email)),
            "write name@example.com, or leave it out",
        ));
    }
    Ok(errors)
}

/// Lists all issuers.
pub(crate) async fn list(hub: &Hub) -> Result<wire::ListIssuersResponse, Refusal> {
    let bundles = hub.store.bundles().await?;
    let items = hub.store.issuers().await?;
    let used =
        |id: &str| bundles.iter().filter(|bundle| bundle.certificate.value.specification.issuer_id == id).count();
    let items =
        items.iter().map(|issuer| views::issuer(issuer, u64::try_from(used(&issuer.value.id)).unwrap_or(u64::MAX)));
    Ok(wire::ListIssuersResponse { items: items.collect() })
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
    let issuer =
        hub.store.issuer_by_name(name).await?.ok_or_else(|| Refusal::not_found("issuer", &one_line(name, 80)))?;
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
    let event = hub.event("issuer.removed", format!("{name} at {}", issuer.value.directory)).by(&caller.name);
    hub.store.commit(Changes::new().remove(&issuer).delete_raw(Table::IssuerName, name).event(&event)).await?;
    Ok(wire::RemoveIssuerResponse {})
}
