//! Identities and one-time tokens: what controller and peers must write and read in the same way.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};

/// Scheme of the SAN URI that carries an identity: `certwright:agent:01j…`.
const SCHEME: &str = "certwright";
/// Characters of a random id: 130 bits in base32 without look-alikes.
const ID_LEN: usize = 26;
const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a peer of the controller's certificate authority is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The controller itself; the only role that may be a TLS server.
    Controller,
    /// An agent.
    Agent,
    /// An operator away from the controller's host.
    Operator,
}

/// A role and an id, as the SAN URI of an identity leaf carries them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What the peer is.
    pub role: Role,
    /// Random, never reused.
    pub id: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Controller => "controller",
            Role::Agent => "agent",
            Role::Operator => "operator",
        };
        write!(f, "{SCHEME}:{role}:{}", self.id)
    }
}

/// The text is not an identity URI.
#[derive(Debug, thiserror::Error)]
#[error("not a certwright identity URI")]
pub struct NotAnIdentity;

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let mut parts = text.splitn(3, ':');
        let (Some(SCHEME), Some(role), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotAnIdentity);
        };
        let role = match role {
            "controller" => Role::Controller,
            "agent" => Role::Agent,
            "operator" => Role::Operator,
            _ => return Err(NotAnIdentity),
        };
        if !is_id(id) {
            return Err(NotAnIdentity);
        }
        Ok(Self { role, id: id.to_owned() })
    }
}

/// Returns a new random id: 26 characters of lower-case base32, 130 bits.
///
/// # Panics
/// When the kernel gives no random bytes: nothing safe can go on then.
#[must_use]
pub fn random_id() -> String {
    let mut bytes = [0_u8; ID_LEN];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes.iter().map(|byte| char::from(*ID_ALPHABET.get(usize::from(byte & 31)).unwrap_or(&b'0'))).collect()
}

/// Whether `text` has the form of [`random_id`].
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| ID_ALPHABET.contains(&byte))
}

/// A join token as the operator hands it over: `SECRET.PIN`, both base64url of 32 bytes.
/// The pin is the SHA-256 of the identity CA's SubjectPublicKeyInfo, so first contact is authenticated in both directions.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// 256 random bits, base64url.
    pub secret: SecretString,
    /// SHA-256 of the identity CA's SPKI.
    pub pin: [u8; 32],
}

/// The text is not a join token.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a join token: expected two groups of 43 characters joined by a dot, as `certwright agents enroll` prints them"
)]
pub struct NotAJoinToken;

impl JoinToken {
    /// Makes a new token for the identity CA with this pin.
    ///
    /// # Panics
    /// When the kernel gives no random bytes.
    #[must_use]
    pub fn random(pin: [u8; 32]) -> Self {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        Self { secret: URL_SAFE_NO_PAD.encode(bytes).into(), pin }
    }

    /// Reads `SECRET.PIN`, ignoring white space anywhere: a terminal may have wrapped it.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, NotAJoinToken> {
        let text: String = text.split_whitespace().collect();
        let (secret, pin) = text.split_once('.').ok_or(NotAJoinToken)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        decode(secret).ok_or(NotAJoinToken)?;
        Ok(Self { secret: secret.to_owned().into(), pin: decode(pin).ok_or(NotAJoinToken)? })
    }

    /// Returns the text to hand over. It is a secret.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        format!("{}.{}", self.secret.expose_secret(), URL_SAFE_NO_PAD.encode(self.pin)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_what_it_wrote() {
        let identity = Identity { role: Role::Agent, id: random_id() };
        assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
    }

    #[test]
    fn refuses_identities_with_another_scheme_role_or_id() {
        let id = random_id();
        for text in [
            format!("spiffe:agent:{id}"),
            format!("certwright:root:{id}"),
            "certwright:agent:../x".to_owned(),
            String::new(),
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_join_token_survives_the_clipboard_and_hides_its_secret() {
        let token = JoinToken::random([7; 32]);
        let exposed = token.expose();
        let (head, tail) = exposed.expose_secret().split_at(60);
        let text = format!("  {head}\n{tail}\n");
        let read = JoinToken::parse(&text).unwrap();
        assert_eq!(read.secret.expose_secret(), token.secret.expose_secret());
        assert_eq!(read.pin, [7; 32]);
        assert!(!format!("{token:?}").contains(token.secret.expose_secret()));
        assert!(JoinToken::parse("abc.def").is_err());
    }
}
