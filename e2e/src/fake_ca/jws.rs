//! Checks the signed requests of ACME (RFC 8555 §6, flattened JWS of RFC 7515 §7.2.2, ES256): signature, url, nonce
//! and the rule "jwk only for a new account". It does not know what is being asked.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// A key in the request itself: a new account.
    Key(PublicKey),
    /// The URL of an account.
    Account(String),
}

/// A P-256 key of an account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct PublicKey {
    point: Vec<u8>,
    /// RFC 7638, base64url.
    pub(super) thumbprint: String,
}

/// A request as it came, not yet verified.
#[derive(Debug)]
pub(super) struct Jws {
    pub(super) signer: Signer,
    pub(super) nonce: String,
    pub(super) url: String,
    /// Empty for POST-as-GET.
    pub(super) payload: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Jws {
    /// Parses a body; the error says what a strict server would say.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        Self::parse_with(body, true)
    }

    /// Parses the inner part of a key change, which has no nonce (RFC 8555 §7.3.5).
    pub(super) fn parse_inner(body: &[u8]) -> Result<Self, String> {
        Self::parse_with(body, false)
    }

    fn parse_with(body: &[u8], with_nonce: bool) -> Result<Self, String> {
        let outer: Value = serde_json::from_slice(body).map_err(|error| format!("body is not JSON: {error}"))?;
        let protected = text(&outer, "protected")?;
        let payload = text(&outer, "payload")?;
        if outer.as_object().is_some_and(|fields| fields.len() != 3) {
            return Err("body must hold protected, payload and signature only".to_owned());
        }
        let header: Value = serde_json::from_slice(&decode(protected, "protected")?)
            .map_err(|error| format!("protected header is not JSON: {error}"))?;
        if text(&header, "alg")? != "ES256" {
            return Err("alg must be ES256".to_owned());
        }
        let signer = match (header.get("jwk"), header.get("kid")) {
            (Some(jwk), None) => Signer::Key(PublicKey::parse(jwk)?),
            (None, Some(_)) => Signer::Account(text(&header, "kid")?.to_owned()),
            _ => return Err("exactly one of jwk and kid is needed".to_owned()),
        };
        Ok(Self {
            signer,
            nonce: if with_nonce { text(&header, "nonce")?.to_owned() } else { String::new() },
            url: text(&header, "url")?.to_owned(),
            payload: decode(payload, "payload")?,
            signed: format!("{protected}.{payload}").into_bytes(),
            signature: decode(text(&outer, "signature")?, "signature")?,
        })
    }

    /// Whether `key` made the signature.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point).verify(&self.signed, &self.signature).is_ok()
    }
}

impl PublicKey {
    pub(super) fn parse(jwk: &Value) -> Result<Self, String> {
        if text(jwk, "kty")? != "EC" || text(jwk, "crv")? != "P-256" {
            return Err("only P-256 keys are accepted".to_owned());
        }
        let (x, y) = (text(jwk, "x")?, text(jwk, "y")?);
        let mut point = vec![4];
        point.extend(decode(x, "x")?);
        point.extend(decode(y, "y")?);
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Ok(Self { point, thumbprint: URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)) })
    }
}

/// Checks an external account binding (RFC 8555 §7.3.4): the customer's MAC over the account's key.
pub(super) fn check_binding(binding: &Value, kid: &str, mac: &[u8], key: &PublicKey) -> Result<(), String> {
    let (protected, payload) = (text(binding, "protected")?, text(binding, "payload")?);
    let header: Value = serde_json::from_slice(&decode(protected, "protected")?).map_err(|error| error.to_string())?;
    let bound: Value = serde_json::from_slice(&decode(payload, "payload")?).map_err(|error| error.to_string())?;
    if text(&header, "alg")? != "HS256" || text(&header, "kid")? != kid || PublicKey::parse(&bound)? != *key {
        return Err("the binding is for another customer or key".to_owned());
    }
    let signed = format!("{protected}.{payload}");
    let tag = decode(text(binding, "signature")?, "signature")?;
    let mac = hmac::Key::new(hmac::HMAC_SHA256, mac);
    hmac::verify(&mac, signed.as_bytes(), &tag).map_err(|_unspecified| "the binding's MAC is wrong".to_owned())
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| format!("field {field} is missing"))
}

fn decode(text: &str, field: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| format!("{field} is not base64url: {error}"))
}
