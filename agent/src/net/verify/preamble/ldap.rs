//! PURE: LDAP's StartTLS, an extended operation (RFC 4511 §4.12, §4.14), in as much BER as it needs (RFC 4511 §5.1: lengths
//! are definite).

use super::{Refusal, TOKEN_BYTES_MAX, Turn, words};

/// An LDAPMessage: number 1, ExtendedRequest with the name 1.3.6.1.4.1.1466.20037.
pub(super) const REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OCTET_STRING: u8 = 0x04;
const EXTENDED_RESPONSE: u8 = 0x78;
/// resultCode protocolError: the operation is not known (RFC 4511 §4.14.2).
const PROTOCOL_ERROR: u8 = 2;

/// Takes all that the server said so far.
pub(super) fn answer(token: &[u8]) -> Result<Turn, Refusal> {
    let foreign = || Refusal::Foreign("LDAP", format!("it sent {}", words(token)));
    if token.first().is_some_and(|tag| *tag != SEQUENCE) {
        return Err(foreign());
    }
    let (header, content) = match length(token) {
        Length::Unknown => return Ok(Turn::Wait),
        Length::Wrong => return Err(foreign()),
        Length::Of { header, content } => (header, content),
    };
    let whole = header.saturating_add(content);
    if whole > TOKEN_BYTES_MAX {
        return Err(Refusal::LongToken);
    }
    if token.len() < whole {
        return Ok(Turn::Wait);
    }
    let (number, code, said) = response(token).ok_or_else(foreign)?;
    match (number, code) {
        // Number 0 is no answer but a notice of disconnection (RFC 4511 §4.4.1).
        (&[1], 0) => Ok(Turn::Ready),
        (&[1], PROTOCOL_ERROR) => Err(Refusal::NotOffered(format!("result 2 {}", words(said)))),
        (_, code) => Err(Refusal::Refused(format!("result {code} {}", words(said)))),
    }
}

/// Returns number, resultCode and diagnosticMessage of an ExtendedResponse.
fn response(token: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (message, _) = element(token, SEQUENCE)?;
    let (number, rest) = element(message, INTEGER)?;
    let (result, _) = element(rest, EXTENDED_RESPONSE)?;
    let (code, rest) = element(result, ENUMERATED)?;
    let (_matched, rest) = element(rest, OCTET_STRING)?;
    let (said, _) = element(rest, OCTET_STRING)?;
    let [code] = code else { return None };
    Some((number, *code, said))
}

/// Returns the content of the element that stands first, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let Length::Of { header, content } = length(bytes) else { return None };
    if *bytes.first()? != tag {
        return None;
    }
    bytes.get(header..)?.split_at_checked(content)
}

#[derive(Debug)]
enum Length {
    /// More bytes are needed.
    Unknown,
    /// None that LDAP allows, or more than memory has.
    Wrong,
    Of {
        header: usize,
        content: usize,
    },
}

/// Reads the length after a tag (X.690 §8.1.3).
fn length(bytes: &[u8]) -> Length {
    let Some(first) = bytes.get(1) else { return Length::Unknown };
    if *first < 0x80 {
        return Length::Of { header: 2, content: usize::from(*first) };
    }
    // Four bytes are more than is ever read.
    let count = usize::from(*first & 0x7f);
    if !(1..=4).contains(&count) {
        return Length::Wrong;
    }
    let header = count + 2;
    let Some(digits) = bytes.get(2..header) else { return Length::Unknown };
    let content = digits
        .iter()
        .try_fold(0_usize, |sum, digit| sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(*digit))));
    content.map_or(Length::Wrong, |content| Length::Of { header, content })
}
