//! A certificate is asked for: every field is parsed before anything is written, and everything is written in one batch.

use jiff::Timestamp;
use proto::id::random_id;
use proto::operator::v1 as wire;
use proto::types::v1 as types;

use super::private_ca;
use super::targets;
use crate::lifecycle::certificate::{Certificate, Custody, Http01, KeyType, Specification, is_name};
use crate::lifecycle::fallback::FALLBACKS_MAX;
use crate::lifecycle::identifier;
use crate::lifecycle::issuer::{Facts, Issuer};
use crate::lifecycle::job::Kind;
use crate::lifecycle::policy::refuse_http01;
use crate::lifecycle::rollout::Delivery;
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views::{self, Names};
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

use super::wishes::{self, Wish};

/// The port of HTTP-01 (RFC 8555 §8.3) when none is named.
const HTTP_PORT: u16 = 80;
/// Longest name of a profile; CAs use up to 20 characters.
pub(crate) const PROFILE_CHARS_MAX: usize = 100;
/// Most agents named as responders.
const RESPONDERS_MAX: usize = 50;
const NAME_HINT: &str =
    "use letters, digits, dots, hyphens and underscores, at most 64, starting with a letter or digit";

/// Creates a certificate, or only says whether it could be.
pub(crate) async fn create(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::CreateCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let (certificate, target) = parse(hub, &request).await?;
    let bundle = Bundle {
        certificate: Versioned { revision: 0, value: certificate },
        renewal_info: None,
        order: None,
        slots: Vec::new(),
        targets: target.into_iter().map(|target| (Versioned { revision: 0, value: target }, None)).collect(),
    };
    let issuer = hub.store.load::<Issuer>(&bundle.certificate.value.specification.issuer_id).await?;
    let is_private = issuer.as_ref().is_some_and(|issuer| issuer.value.private.is_some());
    let mut warnings = warnings(hub, &bundle, is_private);
    if let Some(problem) = issuer.and_then(|issuer| issuer.value.waits(&request.name)) {
        warnings.push(format!("{}: {}; {}", problem.message, problem.cause, problem.hint));
    }
    if request.dry_run {
        let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
        return Ok(wire::CertificateAccepted { certificate: Some(certificate), job_id: String::new(), warnings });
    }
    let record = &bundle.certificate.value;
    let names = record.specification.identifiers.join(", ");
    let event = hub
        .event("certificate.created", format!("{names} from issuer {}", request.issuer))
        .of_certificate(&record.name)
        .by(&caller.name);
    let mut changes =
        Changes::new().insert(record).claim_name(Table::CertificateName, &record.name, &record.id).event(&event);
    for (target, _) in &bundle.targets {
        changes = changes.insert(&target.value);
    }
    for agent_id in bundle.responder_ids().into_iter().chain(bundle.target_agent_ids()) {
        changes = changes.link_agent(&agent_id, &record.id);
    }
    let wish = Wish { kind: Kind::Issue, agent_id: None, request_id: &request.request_id };
    wishes::commit(hub, caller, &bundle, wish, changes, warnings).await
}

/// Parses what is asked for, or refuses it with every field at fault.
pub(super) async fn parse(
    hub: &Hub,
    request: &wire::CreateCertificateRequest,
) -> Result<(Certificate, Option<crate::lifecycle::target::Target>), Refusal> {
    let mut errors = Vec::new();
    if !is_name(&request.name) {
        errors.push(field_error(
            "name",
            format!("\"{}\" is not a name", proto::text::one_line(&request.name, 80)),
            NAME_HINT,
        ));
    } else if hub.store.bundle_by_name(&request.name).await?.is_some() {
        errors.push(field_error(
            "name",
            format!("a certificate named {} exists", request.name),
            format!("choose another name, or change it: certwright certs set {}", request.name),
        ));
    }
    let issuer = issuer(hub, &request.issuer, &mut errors).await?;
    let identifiers = identifiers(&request.identifiers, issuer.as_ref(), &mut errors);
    let fallback_ids = fallbacks(hub, issuer.as_ref(), &request.fallbacks, &mut errors).await?;
    let profile = profile(issuer.as_ref(), &request.profile, &mut errors);
    let is_private = issuer.as_ref().is_some_and(|issuer| issuer.private.is_some());
    let issuer_id = issuer.map(|issuer| issuer.id).unwrap_or_default();
    let http01 = http01(request.http01.as_ref(), &mut errors).unwrap_or(Http01::Standalone(HTTP_PORT));
    let responders = responders(hub, &request.responders, &http01, &mut errors).await?;
    let default = if request.target.is_some() { Custody::Agent } else { Custody::Controller };
    let custody = convert::custody_in(request.custody()).unwrap_or(default);
    if custody == Custody::Agent && request.target.is_none() {
        errors.push(field_error(
            "custody",
            "agent custody needs the one target that holds the key",
            "name it with --agent and --dir, or use --custody controller",
        ));
    }
    let id = random_id();
    let mut target = None;
    if let Some(spec) = &request.target {
        let context = targets::Context { certificate_id: &id, identifiers: &identifiers, custody };
        target = targets::parse(hub, spec, &context, &mut errors).await?;
        if let Some(target) = target.as_ref().filter(|_| responders.is_empty() && !is_private) {
            targets::check_responder(hub, &target.agent_id, &http01, &mut errors).await?;
        }
    }
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    let specification = Specification {
        identifiers,
        issuer_id,
        fallback_ids,
        profile,
        reuse_key: request.reuse_key,
        key_type: convert::key_type_in(request.key_type()).unwrap_or(KeyType::P256),
        custody,
        http01,
        responders,
    };
    Ok((record(id, request.name.clone(), specification, hub.now()), target))
}

/// A certificate that has nothing yet.
fn record(id: String, name: String, specification: Specification, now: Timestamp) -> Certificate {
    Certificate {
        id,
        name,
        specification,
        auto_renew: true,
        created_at: now,
        current: None,
        renew_asked_at: None,
        rekey_asked: false,
        purging: false,
        paused: None,
        rollback: None,
        delivery: Delivery::default(),
    }
}

/// Parses the names; refusals become field errors, and what the issuer's own policy does not allow.
pub(crate) fn identifiers(
    names: &[String],
    issuer: Option<&Issuer>,
    errors: &mut Vec<types::FieldError>,
) -> Vec<String> {
    let is_private = issuer.is_some_and(|issuer| issuer.private.is_some());
    let parsed = if is_private { identifier::parse_unproven(names) } else { identifier::parse_http01(names) };
    match parsed {
        Ok(names) => {
            issuer.iter().for_each(|issuer| private_ca::check_names(issuer, &names, errors));
            names
        }
        Err(refusals) => {
            errors.extend(refusals.iter().map(|refusal| field_error("san", refusal.to_string(), refusal.hint())));
            Vec::new()
        }
    }
}

/// Returns an issuer by its name.
pub(crate) async fn issuer(
    hub: &Hub,
    name: &str,
    errors: &mut Vec<types::FieldError>,
) -> Result<Option<Issuer>, Refusal> {
    match hub.store.issuer_by_name(name).await? {
        Some(issuer) => Ok(Some(issuer.value)),
        None => {
            let shown = proto::text::one_line(name, 80);
            errors.push(field_error(
                "issuer",
                format!("there is no issuer named \"{shown}\""),
                "certwright issuers ls shows them; certwright issuers add NAME --directory URL adds one",
            ));
            Ok(None)
        }
    }
}

/// Returns the ids of the issuers that are asked after the first.
pub(crate) async fn fallbacks(
    hub: &Hub,
    first: Option<&Issuer>,
    names: &[String],
    errors: &mut Vec<types::FieldError>,
) -> Result<Vec<String>, Refusal> {
    let mut ids = Vec::new();
    for name in names.iter().take(FALLBACKS_MAX) {
        match hub.store.issuer_by_name(name).await? {
            Some(issuer) => {
                refuse_private_fallback(first, &issuer.value, errors);
                ids.push(issuer.value.id);
            }
            None => {
                let message = format!("there is no issuer named \"{}\"", proto::text::one_line(name, 80));
                errors.push(field_error("fallback", message, "certwright issuers ls shows them"));
            }
        }
    }
    if names.len() > FALLBACKS_MAX {
        let message = format!("{} fallbacks; at most {FALLBACKS_MAX}", names.len());
        errors.push(field_error("fallback", message, "name fewer"));
    }
    Ok(ids)
}

/// Checks the fallbacks that a certificate keeps under another first issuer.
pub(crate) async fn kept_fallbacks(
    hub: &Hub,
    first: Option<&Issuer>,
    ids: &[String],
    errors: &mut Vec<types::FieldError>,
) -> Result<(), Refusal> {
    for id in ids {
        if let Some(issuer) = hub.store.load::<Issuer>(id).await? {
            refuse_private_fallback(first, &issuer.value, errors);
        }
    }
    Ok(())
}

/// A private CA neither is a fallback nor has one: other clients trust its certificates, and a renewal that nobody trusts is
/// worse than one that is late.
fn refuse_private_fallback(first: Option<&Issuer>, fallback: &Issuer, errors: &mut Vec<types::FieldError>) {
    let private = first.into_iter().chain([fallback]).find(|issuer| issuer.private.is_some());
    if let Some(private) = private {
        let message = format!("issuer {} is a private CA, which is no fallback and has none", private.name);
        let hint = "clients that trust the one do not trust the other: leave --fallback out";
        errors.push(field_error("fallback", message, hint));
    }
}

/// Checks a profile against what the issuer's directory listed last; the order checks once more.
pub(crate) fn profile(issuer: Option<&Issuer>, name: &str, errors: &mut Vec<types::FieldError>) -> Option<String> {
    if matches!(name, "" | "default") {
        return None;
    }
    // A private CA has none.
    let none = issuer.filter(|issuer| issuer.private.is_some()).map(|_| Facts::default());
    let facts = none.or_else(|| issuer.and_then(|issuer| issuer.facts.clone()));
    let offered = facts.as_ref().map(|facts| facts.profiles.keys().map(String::as_str).collect::<Vec<_>>());
    if let Some(offered) = offered.filter(|offered| !offered.contains(&name)) {
        let shown = proto::text::one_line(name, 80);
        let hint = match offered.as_slice() {
            [] => "leave it out: the issuer's directory lists no profiles".to_owned(),
            offered => format!("it offers {}; or leave it out", offered.join(", ")),
        };
        errors.push(field_error("profile", format!("the issuer offers no profile \"{shown}\""), hint));
    }
    Some(proto::text::one_line(name, PROFILE_CHARS_MAX))
}

/// Parses how challenges are answered; `None` when the request leaves it open or is wrong.
pub(crate) fn http01(http01: Option<&types::Http01>, errors: &mut Vec<types::FieldError>) -> Option<Http01> {
    match http01.and_then(|http01| http01.mode.as_ref())? {
        types::http01::Mode::StandalonePort(port) => match u16::try_from(*port) {
            Ok(port) if port > 0 => Some(Http01::Standalone(port)),
            Ok(_) | Err(_) => {
                errors.push(field_error(
                    "http01",
                    format!("{port} is not a port"),
                    "use 1 to 65535; a CA connects to port 80",
                ));
                None
            }
        },
        types::http01::Mode::Webroot(dir) => match targets::absolute(dir) {
            Ok(dir) => Some(Http01::Webroot(dir)),
            Err(message) => {
                errors.push(field_error("http01", message, "write webroot:/absolute/directory"));
                None
            }
        },
    }
}

/// Returns the ids of responders by their names, each checked against its agent's policy.
pub(crate) async fn responders(
    hub: &Hub,
    names: &[String],
    http01: &Http01,
    errors: &mut Vec<types::FieldError>,
) -> Result<Vec<String>, Refusal> {
    let mut ids = Vec::new();
    for name in names.iter().take(RESPONDERS_MAX) {
        match hub.store.agent_by_name(name).await? {
            None => errors.push(targets::no_agent("responder", name)),
            Some(agent) => {
                targets::check_responder(hub, &agent.value.id, http01, errors).await?;
                ids.push(agent.value.id);
            }
        }
    }
    if names.len() > RESPONDERS_MAX {
        errors.push(field_error(
            "responder",
            format!("{} responders; at most {RESPONDERS_MAX}", names.len()),
            "name fewer",
        ));
    }
    ids.dedup();
    Ok(ids)
}

/// What will not stop the road, but the operator should know now.
fn warnings(hub: &Hub, bundle: &Bundle, is_private: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_private {
        // Nobody has to answer for it.
    } else if bundle.responder_ids().is_empty() {
        warnings.push(
            "no agent answers HTTP-01 yet: add a target or a responder; until then nothing is ordered".to_owned(),
        );
    } else if !bundle.responder_ids().iter().any(|id| hub.presence.is_connected(id)) {
        warnings.push("no agent that answers HTTP-01 is connected: the order begins when one returns".to_owned());
    }
    if bundle.targets.iter().any(|(target, _)| target.value.verify.is_empty()) {
        warnings.push("no --verify endpoint: the target can never be proven and is shown as unproven".to_owned());
    }
    if let Http01::Standalone(port) = bundle.certificate.value.specification.http01
        && port != HTTP_PORT
        && !is_private
    {
        warnings.push(format!("CAs connect to port 80: port {port} works only if something forwards port 80 to it"));
    }
    warnings
}

/// Refuses what an agent's policy refuses of answering challenges.
pub(super) fn responder_errors(agent: &crate::lifecycle::agent::Agent, http01: &Http01) -> Option<types::FieldError> {
    // An agent that never said hello has told no policy.
    agent.seen_at?;
    refuse_http01(&agent.hello.policy, http01).map(|refusal| targets::policy_error(&agent.name, &refusal))
}
