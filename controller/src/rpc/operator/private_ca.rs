//! Private CAs as operators see and set them (features.md C1). Its key and root are made by `tasks/private_ca`; here is only
//! what it shall be, and what it may certify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::clock::to_wire;
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::types::v1::FieldError;
use tonic::Code;

use crate::lifecycle::certificate::KeyType;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::private_ca::{Allowed, LEAF_SHARE_MAX, NAMES_MAX, PrivateCa, RevocationList};
use crate::lifecycle::problem::Problem;
use crate::rpc::convert;
use crate::rpc::status::{Refusal, field_error};
use crate::tasks::hub::Hub;

/// RFC 5280 appendix A.1: ub-common-name.
const COMMON_NAME_CHARS_MAX: usize = 64;
/// Longest URL of a revocation list.
const URL_BYTES_MAX: usize = 1_024;
/// What Let's Encrypt's leaves live, so that moving to or from it changes no habits.
const LEAF_LIFE_S: i64 = 90 * 24 * 3_600;
/// Ten years; it is certified again at half of it.
const ROOT_LIFE_S: i64 = 3_650 * 24 * 3_600;
/// Below this a leaf would be renewed all the time.
const LEAF_LIFE_S_MIN: i64 = 600;
/// Fifty years: beyond it clients disagree about dates.
const ROOT_LIFE_S_MAX: i64 = 50 * 365 * 24 * 3_600;
const NAMES_HINT: &str =
    "write what it may certify: --names '*.corp.example' --names db.example --names 10.0.0.0/8 (repeats)";

/// Parses a new CA; what is wrong becomes field errors.
pub(super) fn parse(name: &str, spec: &wire::PrivateCaSpec, errors: &mut Vec<FieldError>) -> Option<PrivateCa> {
    let before = errors.len();
    if spec.names.is_empty() {
        errors.push(field_error("names", "a private CA certifies nothing unless it is said what", NAMES_HINT));
    }
    let names = names(&spec.names, errors);
    let common_name = match spec.common_name.trim() {
        "" => format!("{name} private CA"),
        given => given.to_owned(),
    };
    if common_name.chars().count() > COMMON_NAME_CHARS_MAX || one_line(&common_name, usize::MAX) != common_name {
        let hint = format!("plain text of at most {COMMON_NAME_CHARS_MAX} characters");
        errors.push(field_error("common-name", "the common name is too long, or not one line", hint));
    }
    let key_type = match convert::key_type_in(spec.key_type()) {
        None | Some(KeyType::P256) => KeyType::P256,
        Some(KeyType::P384) => KeyType::P384,
        Some(KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096) => {
            errors.push(field_error("key", "the key of a private CA is ECDSA", "use p256 or p384"));
            KeyType::P256
        }
    };
    let leaf_life_s = seconds(spec.leaf_life_seconds, LEAF_LIFE_S);
    let root_life_s = seconds(spec.root_life_seconds, ROOT_LIFE_S);
    if root_life_s > ROOT_LIFE_S_MAX {
        errors.push(field_error("root-lifetime", "a root may live 50 years at most", "for example 3650d"));
    }
    check_leaf_life(leaf_life_s, root_life_s, errors);
    let list_url = list_url(spec.list_url.as_deref().unwrap_or_default(), errors);
    let ca = PrivateCa { common_name, key_type, names, leaf_life_s, root_life_s, list_url, key: None, roots: vec![] };
    (errors.len() == before).then_some(ca)
}

/// Changes what may be changed; returns what was said. What is wrong becomes field errors.
pub(super) fn change(
    ca: &mut PrivateCa,
    spec: &wire::PrivateCaSpec,
    errors: &mut Vec<FieldError>,
) -> Vec<&'static str> {
    let mut said = Vec::new();
    let fixed = [
        ("common-name", !spec.common_name.is_empty()),
        ("key", spec.key_type() != proto::types::v1::KeyType::Unspecified),
        ("root-lifetime", spec.root_life_seconds != 0),
    ];
    for (field, _) in fixed.into_iter().filter(|(_, set)| *set) {
        let hint =
            "add another private CA, and give certificates that issuer: certwright certs set NAME --issuer OTHER";
        errors.push(field_error(field, "it cannot be changed: it is in certificates that clients trust", hint));
    }
    if !spec.names.is_empty() {
        let names = names(&spec.names, errors);
        if names != ca.names {
            ca.names = names;
            said.push("names: a new root certificate of the same key");
        }
    }
    if spec.leaf_life_seconds != 0 {
        let life = seconds(spec.leaf_life_seconds, LEAF_LIFE_S);
        check_leaf_life(life, ca.root_life_s, errors);
        ca.leaf_life_s = life;
        said.push("lifetime");
    }
    if let Some(url) = &spec.list_url {
        ca.list_url = list_url(url, errors);
        said.push("address of the revocation list, from the next leaf on");
    }
    said
}

fn names(texts: &[String], errors: &mut Vec<FieldError>) -> Vec<Allowed> {
    let mut names: Vec<Allowed> = Vec::new();
    for text in texts.iter().take(NAMES_MAX) {
        match text.parse::<Allowed>() {
            Ok(allowed) if names.contains(&allowed) => {}
            Ok(allowed) => names.push(allowed),
            Err(message) => errors.push(field_error("names", message, NAMES_HINT)),
        }
    }
    if texts.len() > NAMES_MAX {
        let message = format!("{} names; at most {NAMES_MAX}", texts.len());
        errors.push(field_error("names", message, "name a domain as *.NAME rather than each host"));
    }
    names
}

fn seconds(given: u64, default: i64) -> i64 {
    if given == 0 { default } else { i64::try_from(given).unwrap_or(i64::MAX) }
}

fn check_leaf_life(leaf_s: i64, root_s: i64, errors: &mut Vec<FieldError>) {
    if leaf_s < LEAF_LIFE_S_MIN {
        errors.push(field_error("lifetime", "a certificate lives ten minutes at least", "for example 90d"));
    } else if leaf_s > root_s / LEAF_SHARE_MAX {
        let message = format!("a certificate may live a {LEAF_SHARE_MAX}th of its root's life at most");
        errors.push(field_error("lifetime", message, "a shorter --lifetime, or a longer --root-lifetime"));
    }
}

fn list_url(url: &str, errors: &mut Vec<FieldError>) -> Option<String> {
    if url.is_empty() {
        return None;
    }
    let uri = url.parse::<http::Uri>().ok().filter(|_| url.len() <= URL_BYTES_MAX);
    let is_web = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if !is_web {
        let message = format!("\"{}\" is not an http URL", one_line(url, 120));
        let hint = "the address that clients ask, for example http://crl.corp.example/crl/NAME.crl";
        errors.push(field_error("crl-url", message, hint));
    }
    Some(url.to_owned())
}

/// Complains about names that a private CA may not certify.
pub(super) fn check_names(issuer: &Issuer, identifiers: &[String], errors: &mut Vec<FieldError>) {
    let Some(ca) = &issuer.private else { return };
    for refused in ca.refused(identifiers) {
        let (name, said) = (&issuer.name, ca.names_said());
        let message = format!("issuer {name} may not certify {refused}; its names are {said}");
        let hint = format!("certwright issuers set {name} --names … with all that it may certify, or another --issuer");
        errors.push(field_error("san", message, hint));
    }
}

/// Returns the revocation list.
pub(crate) async fn list(hub: &Hub, name: &str) -> Result<wire::RevocationList, Refusal> {
    let shown = one_line(name, 80);
    let issuer = hub.store.issuer_by_name(name).await?.ok_or_else(|| Refusal::not_found("issuer", &shown))?;
    let none = |message: String, hint: String| {
        Refusal::new(Code::FailedPrecondition, Problem::new("NO_REVOCATION_LIST", message, "", hint))
    };
    if issuer.value.private.is_none() {
        let message = format!("issuer {shown} is not a CA of this controller: it has its own list");
        return Err(none(message, "its certificates say where that is".to_owned()));
    }
    let list = hub.store.load::<RevocationList>(&issuer.value.id).await?;
    let list = list.filter(|list| hub.gate.stands(list.value.this_update));
    let der = list.as_ref().and_then(|list| STANDARD.decode(&list.value.der).ok());
    let Some((list, der)) = list.zip(der) else {
        let hint = if hub.gate.is_closed() {
            "it is made right after certwright restore accept: the one of the backup may lack what was revoked since"
                .to_owned()
        } else {
            format!("it is made right after the root: certwright issuers get {shown}")
        };
        return Err(none(format!("issuer {shown} has no revocation list yet"), hint));
    };
    Ok(wire::RevocationList {
        der,
        number: list.value.number,
        made_at: to_wire(Some(list.value.this_update)),
        next_at: to_wire(Some(list.value.next_at())),
        revoked: list.value.count,
    })
}
