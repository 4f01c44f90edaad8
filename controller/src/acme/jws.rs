//! Signs the requests that instant-acme has no call for (RFC 8555 §6.2: flattened JWS, ES256): an external account
//! binding, the search for an account, a change of its key or its facts, a download with its links. It sends nothing;
//! `acme/session` does. Called by `acme/account` and `acme/order`.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use crate::acme::problem::AcmeError;

/// Octets of one coordinate of a P-256 point.
const COORDINATE_OCTETS: usize = 32;

/// What a CA gives its customers, to bind a new account to them (RFC 8555 §7.3.4).
#[derive(Clone, Debug)]
pub struct ExternalAccount {
    /// The key identifier.
    pub kid: String,
    /// The MAC key, base64url or base64.
    pub key: SecretString,
}

/// Who signs: a key that the server learns now, or an account that it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signer<'a> {
    /// `jwk`: newAccount, and the inner part of a key change.
    Key,
    /// `kid`: the account's URL.
    Account(&'a str),
}

/// A P-256 key that signs.
pub(crate) struct SigningKey(EcdsaKeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    pub(crate) fn read(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, AcmeError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
        Ok(Self(pair.map_err(|source| AcmeError::AccountKey { source: Box::new(source) })?))
    }

    /// The public key (RFC 7517).
    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(COORDINATE_OCTETS).unwrap_or_default();
        json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    /// Returns a signed request. No payload is a POST-as-GET; no nonce is the inner part of a key change.
    pub(crate) fn sign(
        &self,
        signer: Signer<'_>,
        url: &str,
        nonce: Option<&str>,
        payload: Option<&Value>,
    ) -> Result<Value, AcmeError> {
        let (who, value) = match signer {
            Signer::Key => ("jwk", self.jwk()),
            Signer::Account(kid) => ("kid", kid.into()),
        };
        let mut header = Map::from_iter([("alg".to_owned(), "ES256".into()), ("url".to_owned(), url.into())]);
        header.insert(who.to_owned(), value);
        header.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        let (protected, payload, signed) = parts(&header.into(), payload);
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|source| AcmeError::AccountKey { source: Box::new(source) })?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Ok(json!({"protected": protected, "payload": payload, "signature": signature}))
    }

    /// Returns the binding of this key to a customer's account (RFC 8555 §7.3.4): HS256 over the public key.
    pub(crate) fn bind(&self, external: &ExternalAccount, new_account_url: &str) -> Result<Value, AcmeError> {
        let key = decode(&external.key).map_err(|source| AcmeError::ExternalKey { source: source.into() })?;
        let header = json!({"alg": "HS256", "kid": external.kid, "url": new_account_url});
        let (protected, payload, signed) = parts(&header, Some(&self.jwk()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(tag.as_ref());
        Ok(json!({"protected": protected, "payload": payload, "signature": signature}))
    }

    /// Returns what the account signs to take `self` as its key instead of `old` (RFC 8555 §7.3.5).
    pub(crate) fn succeed(&self, old: &Self, account_url: &str, key_change_url: &str) -> Result<Value, AcmeError> {
        let payload = json!({"account": account_url, "oldKey": old.jwk()});
        self.sign(Signer::Key, key_change_url, None, Some(&payload))
    }
}

fn parts(header: &Value, payload: Option<&Value>) -> (String, String, String) {
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = payload.map(|payload| URL_SAFE_NO_PAD.encode(payload.to_string())).unwrap_or_default();
    let signed = format!("{protected}.{payload}");
    (protected, payload, signed)
}

/// CAs print MAC keys as base64url without padding; some with it, some as plain base64.
fn decode(text: &SecretString) -> Result<Vec<u8>, base64::DecodeError> {
    let text = text.expose_secret().trim().replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).or_else(|_unpadded| URL_SAFE.decode(&text))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;
    use crate::acme::account::AccountKey;

    fn key() -> SigningKey {
        SigningKey::read(&AccountKey::generate().unwrap().read().unwrap()).unwrap()
    }

    fn text(jws: &Value, field: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(jws[field].as_str().unwrap()).unwrap()
    }

    #[test]
    fn a_signature_verifies_and_the_header_names_who_signs() {
        let key = key();
        let jws = key.sign(Signer::Account("https://ca.test/a/1"), "https://ca.test/x", Some("n"), None).unwrap();
        let header: Value = serde_json::from_slice(&text(&jws, "protected")).unwrap();
        let wanted = json!({"alg": "ES256", "kid": "https://ca.test/a/1", "nonce": "n", "url": "https://ca.test/x"});
        assert_eq!((header, jws["payload"].as_str()), (wanted, Some("")));
        let signed = format!("{}.", jws["protected"].as_str().unwrap());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.0.public_key().as_ref());
        public.verify(signed.as_bytes(), &text(&jws, "signature")).unwrap();
    }

    #[test]
    fn a_binding_is_a_mac_over_the_public_key() {
        let (key, mac) = (key(), [7_u8; 32]);
        let external = ExternalAccount { kid: "customer".into(), key: URL_SAFE_NO_PAD.encode(mac).into() };
        let jws = key.bind(&external, "https://ca.test/new").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text(&jws, "payload")).unwrap(), key.jwk());
        let signed = format!("{}.{}", jws["protected"].as_str().unwrap(), jws["payload"].as_str().unwrap());
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &mac);
        hmac::verify(&mac, signed.as_bytes(), &text(&jws, "signature")).unwrap();
    }

    #[test]
    fn mac_keys_come_in_three_spellings() {
        for text in ["--__AA", "++//AA==", "--__AA=="] {
            assert_eq!(decode(&text.to_owned().into()).unwrap(), [251, 239, 255, 0], "{text}");
        }
        assert!(decode(&"a b".to_owned().into()).is_err());
    }
}
