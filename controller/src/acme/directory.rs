//! An ACME directory (RFC 8555 §7.1.1): its URLs and what it says about itself. It asks nobody; `acme/session` reads a
//! directory with it, `acme/account` hands its facts out.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use proto::text::one_line;
use serde::Deserialize;
use thiserror::Error;

use crate::acme::http::TrustRoots;

/// Longest text of a directory that is shown, characters.
const TEXT_CHARS_MAX: usize = 300;
/// Most profiles and CAA identities that are kept.
const ITEMS_MAX: usize = 32;

/// Where an ACME server is, and whom to believe that it is the one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Directory {
    /// The directory's URL, https.
    pub url: String,
    /// Trust in its TLS certificate.
    pub roots: TrustRoots,
}

/// What a directory says about itself, for the operator who adds an issuer. All texts are sanitised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// Terms that must be agreed to before an account is made.
    pub terms_of_service: Option<String>,
    /// The CA's web site.
    pub website: Option<String>,
    /// Whether a new account needs an external account binding (RFC 8555 §7.3.4).
    pub external_account_required: bool,
    /// Names that a CAA record may hold for this CA.
    pub caa_identities: Vec<String>,
    /// Profiles by name, with their descriptions.
    pub profiles: BTreeMap<String, String>,
    /// Whether the server offers renewal information (RFC 9773).
    pub renewal_info: bool,
}

/// Why a document is not an ACME directory.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The configured URL is not an https URL.
    #[error("{url:?} is not an https URL")]
    Url {
        /// The URL, sanitised.
        url: String,
    },
    /// It is not JSON, or lacks newNonce, newAccount or newOrder.
    #[error("the document is not an ACME directory")]
    Document(#[source] serde_json::Error),
    /// A URL in it is not https.
    #[error("the directory names {url}, which is not an https URL")]
    Resource {
        /// The URL, sanitised.
        url: String,
    },
}

/// A directory that was read: what is asked of it, and where requests may go.
#[derive(Debug)]
pub(crate) struct DirectoryDocument {
    pub(crate) uri: Uri,
    pub(crate) new_nonce: Uri,
    pub(crate) new_account: Uri,
    pub(crate) key_change: Option<Uri>,
    pub(crate) renewal_info: Option<Uri>,
    pub(crate) facts: DirectoryFacts,
    origins: BTreeSet<(String, u16)>,
}

impl DirectoryDocument {
    /// Reads the document found at `uri`.
    pub(crate) fn parse(uri: &Uri, body: &[u8]) -> Result<Self, DirectoryError> {
        let wire: WireDirectory = serde_json::from_slice(body).map_err(DirectoryError::Document)?;
        let new_nonce = parse_resource(&wire.new_nonce)?;
        let mut origins: BTreeSet<_> = origin(uri).into_iter().chain(origin(&new_nonce)).collect();
        let new_account = parse_resource(&wire.new_account)?;
        let key_change = wire.key_change.as_deref().map(parse_resource).transpose()?;
        let rest = [wire.new_authz, wire.revoke_cert, wire.key_change, wire.renewal_info.clone()];
        for url in [wire.new_account, wire.new_order].into_iter().chain(rest.into_iter().flatten()) {
            origins.extend(origin(&parse_resource(&url)?));
        }
        let renewal_info = wire.renewal_info.as_deref().map(parse_resource).transpose()?;
        let facts = wire.meta.facts(renewal_info.is_some());
        Ok(Self { uri: uri.clone(), new_nonce, new_account, key_change, renewal_info, facts, origins })
    }

    /// Whether a request may go to `uri`: https, to the directory's own host and port or one that the directory names.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        origin(uri).is_some_and(|origin| self.origins.contains(&origin))
    }
}

/// Reads the URL that an operator configured.
pub(crate) fn parse_url(url: &str) -> Result<Uri, DirectoryError> {
    parse_https(url).ok_or_else(|| DirectoryError::Url { url: one_line(url, TEXT_CHARS_MAX) })
}

fn parse_resource(url: &str) -> Result<Uri, DirectoryError> {
    parse_https(url).ok_or_else(|| DirectoryError::Resource { url: one_line(url, TEXT_CHARS_MAX) })
}

fn parse_https(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    origin(&uri).is_some().then_some(uri)
}

/// Returns host (lower case) and port of an https URL without user information.
fn origin(uri: &Uri) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    (uri.scheme_str() == Some("https") && !authority.as_str().contains('@'))
        .then(|| (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(443)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDirectory {
    new_nonce: String,
    new_account: String,
    new_order: String,
    new_authz: Option<String>,
    revoke_cert: Option<String>,
    key_change: Option<String>,
    renewal_info: Option<String>,
    #[serde(default)]
    meta: WireMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    terms_of_service: Option<String>,
    website: Option<String>,
    caa_identities: Vec<String>,
    external_account_required: bool,
    profiles: BTreeMap<String, String>,
}

impl WireMeta {
    fn facts(self, renewal_info: bool) -> DirectoryFacts {
        let clean = |text: &str| one_line(text, TEXT_CHARS_MAX);
        DirectoryFacts {
            terms_of_service: self.terms_of_service.as_deref().map(clean),
            website: self.website.as_deref().map(clean),
            external_account_required: self.external_account_required,
            caa_identities: self.caa_identities.iter().take(ITEMS_MAX).map(|name| clean(name)).collect(),
            profiles: self.profiles.iter().take(ITEMS_MAX).map(|(name, about)| (clean(name), clean(about))).collect(),
            renewal_info,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wire() -> Value {
        json!({"newNonce": "https://ca.test/n", "newAccount": "https://ca.test/a", "newOrder": "https://api.ca.test/o"})
    }

    fn parse(wire: &Value) -> Result<DirectoryDocument, DirectoryError> {
        DirectoryDocument::parse(&parse_url("https://ca.test/dir").unwrap(), wire.to_string().as_bytes())
    }

    #[test]
    fn requests_may_go_only_where_the_directory_says() {
        let document = parse(&wire()).unwrap();
        let check = |url: &str, expected| assert_eq!(document.allows(&url.parse().unwrap()), expected, "{url}");
        check("https://ca.test/anything", true);
        check("https://CA.test:443/anything", true);
        check("https://api.ca.test/o/1", true);
        check("https://ca.test:8443/", false);
        check("http://ca.test/", false);
        check("https://ca.test@evil.test/", false);
        check("https://user@ca.test/", false);
        check("https://evil.test/", false);
        check("/relative", false);
    }

    #[test]
    fn terms_and_website_name_no_place_to_ask() {
        let mut wire = wire();
        wire["meta"] = json!({"termsOfService": "https://evil.test/t", "website": "https://evil.test/"});
        assert!(!parse(&wire).unwrap().allows(&"https://evil.test/t".parse().unwrap()));
    }

    #[test]
    fn the_facts_are_read_and_sanitised() {
        let mut wire = wire();
        wire["renewalInfo"] = json!("https://ca.test/ari");
        wire["meta"] = json!({"termsOfService": "https://ca.test/t\u{1b}[2J", "caaIdentities": ["ca.test"],
            "externalAccountRequired": true, "profiles": {"short": "six days"}});
        let facts = parse(&wire).unwrap().facts;
        assert_eq!(facts.terms_of_service.as_deref(), Some("https://ca.test/t<U+001B>[2J"));
        assert_eq!(facts.caa_identities, ["ca.test"]);
        assert_eq!(facts.profiles["short"], "six days");
        assert!(facts.external_account_required && facts.renewal_info);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        for missing in ["newNonce", "newAccount", "newOrder"] {
            let mut wire = wire();
            wire.as_object_mut().unwrap().remove(missing);
            assert!(matches!(parse(&wire), Err(DirectoryError::Document(_))), "{missing}");
        }
        for url in ["http://ca.test/o", "file:///etc/passwd", "https://169.254.169.254@ca.test/", "", "/o"] {
            let mut wire = wire();
            wire["newOrder"] = json!(url);
            assert!(matches!(parse(&wire), Err(DirectoryError::Resource { .. })), "{url}");
        }
        let deep = "[".repeat(10_000);
        assert!(DirectoryDocument::parse(&parse_url("https://ca.test/dir").unwrap(), deep.as_bytes()).is_err());
        for url in ["http://ca.test/dir", "ca.test/dir", "ftp://ca.test/", "", "https://"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }
}
