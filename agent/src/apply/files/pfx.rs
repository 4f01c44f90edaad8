//! A PKCS #12 file (RFC 7292) of a leaf, its issuers and its key: for services that read no PEM (Java, .NET). AES-256 and
//! HMAC-SHA-256 only, as OpenSSL 3 and Java 8u301 and later read it. The same content under the same password has the same bytes,
//! because salts follow from what they protect: so a look tells that nothing changed. Pure but for the new password. Decision 0009.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::problem::Problem;

/// What OpenSSL writes. More protect a password that people chose; ours is random.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2_048).expect("not zero");
/// Bytes of a new password, written as twice as many hexadecimal digits.
const PASSWORD_BYTES: usize = 20;
/// Characters of a password that is kept: one that an operator put there before the first deployment is, too.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// Longest name in the file, characters.
const NAME_CHARS_MAX: usize = 64;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const BMP_STRING: u8 = 0x1e;
/// `[0]`, explicit; and implicit around octets.
const EXPLICIT: u8 = 0xa0;
const IMPLICIT: u8 = 0x80;

// Object identifiers and NULL, whole.
const NULL: &[u8] = &[5, 0];
const DATA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
const SHROUDED_KEY_BAG: &[u8] = &[6, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 2];
const CERTIFICATE_BAG: &[u8] = &[6, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u8] = &[6, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
const LOCAL_KEY_ID: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
const PBES2: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
const PBKDF2: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
const HMAC_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];
const AES256_CBC: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a];
const SHA256: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// Returns the file. `certificates` are DER, the leaf first; `key` is the leaf's, PKCS #8.
pub(super) fn encode(
    name: &str,
    certificates: &[Vec<u8>],
    key: &[u8],
    password: &SecretString,
) -> Result<Vec<u8>, Problem> {
    let password = password.expose_secret();
    let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
    let attributes = attributes(name, &Sha256::digest(leaf));
    let bag = |(index, certificate): (usize, &Vec<u8>)| {
        let certificate = der(EXPLICIT, &[&der(OCTETS, &[certificate])]);
        let value = der(EXPLICIT, &[&der(SEQUENCE, &[X509_CERTIFICATE, &certificate])]);
        // What belongs to the key has its marks; an issuer has none.
        let attributes = if index == 0 { attributes.as_slice() } else { &[] };
        der(SEQUENCE, &[CERTIFICATE_BAG, &value, attributes])
    };
    let bags: Vec<u8> = certificates.iter().enumerate().flat_map(bag).collect();
    let (algorithm, sealed) = seal(password, &der(SEQUENCE, &[&bags]))?;
    let content = der(SEQUENCE, &[DATA, &algorithm, &der(IMPLICIT, &[&sealed])]);
    let content = der(EXPLICIT, &[&der(SEQUENCE, &[&integer(0), &content])]);
    let certificates = der(SEQUENCE, &[ENCRYPTED_DATA, &content]);

    let (algorithm, sealed) = seal(password, key)?;
    let shrouded = der(EXPLICIT, &[&der(SEQUENCE, &[&algorithm, &der(OCTETS, &[&sealed])])]);
    let bag = der(SEQUENCE, &[SHROUDED_KEY_BAG, &shrouded, &attributes]);
    let key = data(&der(SEQUENCE, &[&bag]));

    let safe = der(SEQUENCE, &[&certificates, &key]);
    Ok(der(SEQUENCE, &[&integer(3), &data(&safe), &mac(password, &safe)]))
}

/// Returns the password to go on with: the first that is fit of those that were there, else a new one.
pub(super) fn password(found: impl IntoIterator<Item = Vec<u8>>) -> Result<SecretString, Problem> {
    let fit = |bytes: Vec<u8>| {
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).ok()?.trim_end_matches(['\r', '\n']);
        let is_fit = PASSWORD_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_fit.then(|| SecretString::from(text))
    };
    if let Some(kept) = found.into_iter().find_map(fit) {
        return Ok(kept);
    }
    let mut random = Zeroizing::new([0; PASSWORD_BYTES]);
    getrandom::fill(random.as_mut()).map_err(|error| failed("no random numbers", error.to_string()))?;
    Ok(proto::x509::hex(random.as_ref()).into())
}

/// Encrypts by PBES2 (RFC 8018 §6.2); returns the algorithm with its parameters, and the octets.
fn seal(password: &str, plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let (salt, iv) = (derived(b"salt", plain), derived(b"iv", plain));
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), key.as_mut());
    let refused = |error: aws_lc_rs::error::Unspecified| failed("the cipher refuses", error.to_string());
    let cipher = UnboundCipherKey::new(&AES_256, key.as_ref()).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    // Room for the padding: the plain text is nowhere but where it is encrypted.
    let mut sealed = Vec::with_capacity(plain.len() + iv.len());
    sealed.extend_from_slice(plain);
    let context = EncryptionContext::Iv128(FixedLength::from(&iv));
    let encrypted = cipher.map_err(refused)?.less_safe_encrypt(&mut sealed, context);
    drop(encrypted.map_err(refused)?);
    let prf = der(SEQUENCE, &[HMAC_SHA256, NULL]);
    let parameters = der(SEQUENCE, &[&der(OCTETS, &[&salt]), &integer(ITERATIONS.get()), &prf]);
    let derivation = der(SEQUENCE, &[PBKDF2, &parameters]);
    let encryption = der(SEQUENCE, &[AES256_CBC, &der(OCTETS, &[&iv])]);
    let algorithm = der(SEQUENCE, &[PBES2, &der(SEQUENCE, &[&derivation, &encryption])]);
    Ok((algorithm, sealed))
}

/// Salt and vector from what they are for: another plain text has others. The password is not in them: a guess at one that people
/// chose would be checked by them without the work of the derivation.
fn derived(purpose: &[u8], plain: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(purpose).chain_update(plain).finalize();
    let mut out = [0; 16];
    out.iter_mut().zip(digest).for_each(|(out, byte)| *out = byte);
    out
}

/// The file's own seal, RFC 7292 §4: its key is derived as in appendix B, of which one block of SHA-256 is enough.
fn mac(password: &str, safe: &[u8]) -> Vec<u8> {
    let salt = derived(b"mac", safe);
    let bmp: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect::<Vec<u8>>());
    let whole =
        |bytes: &[u8]| bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(64)).collect::<Vec<u8>>();
    let mut hash =
        Sha256::new().chain_update([3; 64]).chain_update(whole(&salt)).chain_update(Zeroizing::new(whole(&bmp)));
    let mut key = hash.finalize();
    for _ in 1..ITERATIONS.get() {
        hash = Sha256::new().chain_update(key);
        key = hash.finalize();
    }
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), safe);
    let digest = der(SEQUENCE, &[&der(SEQUENCE, &[SHA256, NULL]), &der(OCTETS, &[tag.as_ref()])]);
    der(SEQUENCE, &[&digest, &der(OCTETS, &[&salt]), &integer(ITERATIONS.get())])
}

/// What joins the key with its leaf, and what Java calls both.
fn attributes(name: &str, id: &[u8]) -> Vec<u8> {
    let name: Vec<u16> =
        name.chars().take(NAME_CHARS_MAX).filter_map(|char| u16::try_from(u32::from(char)).ok()).collect();
    let name: Vec<u8> = name.into_iter().flat_map(u16::to_be_bytes).collect();
    let attribute = |oid, value: Vec<u8>| der(SEQUENCE, &[oid, &der(SET, &[&value])]);
    let mut both = [attribute(FRIENDLY_NAME, der(BMP_STRING, &[&name])), attribute(LOCAL_KEY_ID, der(OCTETS, &[id]))];
    // DER orders what is in a set.
    both.sort();
    der(SET, &[&both.concat()])
}

fn data(content: &[u8]) -> Vec<u8> {
    der(SEQUENCE, &[DATA, &der(EXPLICIT, &[&der(OCTETS, &[content])])])
}

fn integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take(3).take_while(|byte| **byte == 0).count();
    let short = bytes.get(zeros..).unwrap_or(&bytes);
    // A number that begins with a bit would be negative.
    let sign: &[u8] = if short.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    der(INTEGER, &[sign, short])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(u8::MAX));
            out.extend(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn failed(message: &str, cause: String) -> Problem {
    Problem::new(
        "PFX_FAILED",
        format!("the PKCS #12 file was not made: {message}"),
        cause,
        "the files on this server are unchanged; report a bug if it happens again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(password: &SecretString) -> String {
        password.expose_secret().to_owned()
    }

    #[test]
    fn a_password_that_is_there_is_kept_and_another_is_made_anew() {
        let kept = |found: &[&[u8]]| text(&password(found.iter().map(|bytes| bytes.to_vec())).unwrap());
        assert_eq!(kept(&[b"correct-horse\n", b"another-one"]), "correct-horse");
        assert_eq!(
            kept(&[b"short", b"", b"two words here", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"the-fifth"]),
            "the-fifth"
        );
        let (one, two) = (kept(&[]), kept(&[b"short"]));
        assert!(one.len() == 40 && two.len() == 40 && one != two, "{one} {two}");
        assert_eq!(kept(&[one.as_bytes()]), one);
        assert_eq!(kept(&[&[b'x'; 257]]).len(), 40);
    }

    #[test]
    fn the_same_content_under_the_same_password_has_the_same_bytes() {
        let of = |name: &str, chain: u8, key: u8, password: &str| {
            encode(name, &[vec![1; 300], vec![chain; 70_000]], &[key; 138], &password.into()).unwrap()
        };
        let one = of("web", 2, 3, "a password");
        assert_eq!(one, of("web", 2, 3, "a password"));
        for other in [of("api", 2, 3, "a password"), of("web", 9, 3, "a password"), of("web", 2, 9, "a password")] {
            assert_ne!(one, other);
        }
        assert_ne!(one, of("web", 2, 3, "another one"));
        assert!(!one.windows(20).any(|window| window == [3; 20] || window == [2; 20]), "nothing lies there in clear");
    }

    #[test]
    fn lengths_and_numbers_are_der() {
        assert_eq!(der(OCTETS, &[&[7; 3]]), [4, 3, 7, 7, 7]);
        assert_eq!(der(OCTETS, &[&[7; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(der(OCTETS, &[&[7; 200], &[7; 100]])[..4], [4, 0x82, 1, 44]);
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(2_048), [2, 2, 8, 0]);
    }
}
