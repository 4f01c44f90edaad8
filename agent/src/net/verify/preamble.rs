//! PURE: the plain text before TLS in each protocol, byte by byte, so that it makes no difference how the network cut it.
//! Whatever the server says is bounded, and nothing it says before TLS is kept: a byte that follows its agreement is
//! refused, because it could only be meant to be taken for a part of what is protected (RFC 3207 §6, CVE-2011-0411).
//!
//! ```text
//! begin ──opening──▶ feed ─▶ Wait …
//!                       ├──▶ Send (what we say next) ─▶ feed …
//!                       ├──▶ Ready: the next byte belongs to TLS
//!                       └──▶ Refusal
//! ```

use std::io;

use proto::text::one_line;
use rustls::pki_types::ServerName;

use self::lines::Lines;
use self::xmpp::Xmpp;
use crate::target::Protocol;

mod ldap;
mod lines;
mod xmpp;

/// One line, one tag, one message. RFC 5321 §4.5.3.1.5 has 512 for a reply; servers' features and banners are longer.
pub(super) const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// All that a server may say before TLS.
pub(super) const SAID_BYTES_MAX: usize = 64 * 1024;
/// Of a server's words in a message for people.
const WORDS_MAX: usize = 200;
/// `SSLRequest`: its length, then 80877103 (PostgreSQL: Frontend/Backend Protocol, Message Formats).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Why there will be no TLS. The server's words are sanitised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the server offers no STARTTLS: {0}")]
    NotOffered(String),
    #[error("the server does not go on to TLS: {0}")]
    Refused(String),
    #[error("the server does not speak {0}: {1}")]
    Foreign(&'static str, String),
    #[error(
        "the server goes on in plain text after it agreed to TLS: somebody may be putting words into the connection"
    )]
    Injected,
    #[error("the server's answer does not end within {TOKEN_BYTES_MAX} bytes")]
    LongToken,
    #[error("the server said more than {SAID_BYTES_MAX} bytes before TLS")]
    TooMuch,
    #[error("the server closed the connection before TLS{0}")]
    Closed(String),
    #[error("the server did not come to TLS within {} s", super::starttls::PREAMBLE.as_secs())]
    Late,
    #[error("the connection broke before TLS: {0}")]
    Broken(io::Error),
}

/// What follows from what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// More must be read.
    Wait,
    /// This is to be said.
    Send(Vec<u8>),
    /// The handshake begins.
    Ready,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Preamble {
    dialect: Dialect,
    /// What is read of the line, tag or message that has not ended.
    token: Vec<u8>,
    said: usize,
}

#[derive(Debug)]
enum Dialect {
    Lines(Lines),
    Xmpp(Xmpp),
    Ldap,
    Postgres,
}

impl Preamble {
    /// Returns a conversation and what we say first; `None` where TLS comes first.
    pub(super) fn begin(protocol: Protocol, name: &ServerName<'_>) -> Option<(Self, Vec<u8>)> {
        let (dialect, opening) = match protocol {
            Protocol::Tls => return None,
            Protocol::Smtp => (Dialect::Lines(Lines::smtp()), Vec::new()),
            Protocol::Imap => (Dialect::Lines(Lines::imap()), Vec::new()),
            Protocol::Pop3 => (Dialect::Lines(Lines::pop3()), Vec::new()),
            Protocol::Xmpp => (Dialect::Xmpp(Xmpp::default()), xmpp::opening(name)),
            Protocol::Ldap => (Dialect::Ldap, ldap::REQUEST.to_vec()),
            Protocol::Postgres => (Dialect::Postgres, SSL_REQUEST.to_vec()),
        };
        Some((Self { dialect, token: Vec::new(), said: 0 }, opening))
    }

    /// Takes what the server sent up to where something is to be done; returns that, and what is left to feed.
    ///
    /// # Errors
    /// When the server does not go along, or says too much.
    pub(super) fn feed<'a>(&mut self, bytes: &'a [u8]) -> Result<(Turn, &'a [u8]), Refusal> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let turn = self.byte(*byte)?;
            match turn {
                Turn::Wait => {}
                Turn::Ready if !rest.is_empty() => return Err(Refusal::Injected),
                Turn::Ready | Turn::Send(_) => return Ok((turn, rest)),
            }
        }
        Ok((Turn::Wait, rest))
    }

    /// Returns what to say of a server that hung up.
    pub(super) fn closed(&self) -> Refusal {
        let said = words(&self.token);
        Refusal::Closed(if said.is_empty() { String::new() } else { format!(", its last words: {said}") })
    }

    fn byte(&mut self, byte: u8) -> Result<Turn, Refusal> {
        self.said += 1;
        if self.said > SAID_BYTES_MAX {
            return Err(Refusal::TooMuch);
        }
        if self.token.len() >= TOKEN_BYTES_MAX {
            return Err(Refusal::LongToken);
        }
        self.token.push(byte);
        match &mut self.dialect {
            Dialect::Lines(lines) if byte == b'\n' => lines.line(&words(&std::mem::take(&mut self.token))),
            Dialect::Lines(_) => Ok(Turn::Wait),
            Dialect::Xmpp(xmpp) => match xmpp.byte(byte) {
                true => xmpp.tag(&std::mem::take(&mut self.token)),
                false => Ok(Turn::Wait),
            },
            Dialect::Ldap => ldap::answer(&self.token),
            Dialect::Postgres => postgres(byte),
        }
    }
}

/// One byte answers an `SSLRequest` (PostgreSQL: Frontend/Backend Protocol, SSL Session Encryption). The text of an error
/// message is not shown: nobody has authenticated whoever sends it (CVE-2024-10977).
fn postgres(byte: u8) -> Result<Turn, Refusal> {
    match byte {
        b'S' => Ok(Turn::Ready),
        b'N' => {
            Err(Refusal::NotOffered("it answered N to an SSLRequest (ssl is off, or not for this address)".to_owned()))
        }
        b'E' => Err(Refusal::Refused("it answered an SSLRequest with an error".to_owned())),
        other => Err(Refusal::Foreign("PostgreSQL", format!("it answered {} to an SSLRequest", words(&[other])))),
    }
}

/// Returns a server's words as one line for people.
fn words(bytes: &[u8]) -> String {
    one_line(String::from_utf8_lossy(bytes).trim(), WORDS_MAX)
}

/// Carries a whole conversation with a server that says these bytes, whatever it hears; the first byte picks the protocol.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((first, said)) = bytes.split_first() else { return };
    let protocols =
        [Protocol::Smtp, Protocol::Imap, Protocol::Pop3, Protocol::Xmpp, Protocol::Ldap, Protocol::Postgres];
    let Some(protocol) = protocols.get(usize::from(*first) % protocols.len()) else { return };
    let (heard, ended) = converse(*protocol, said.len().max(1), said);
    let (heard_slowly, ended_slowly) = converse(*protocol, 1, said);
    // What follows an agreement is seen here if it came with it, else by TLS.
    let injected = ended.as_ref().is_err_and(|text| *text == Refusal::Injected.to_string());
    assert!(heard == heard_slowly && (ended == ended_slowly || injected && ended_slowly.is_ok()));
}

/// Returns what we said, and how it ended, to a server that says `said` in chunks.
#[cfg(any(test, fuzzing))]
fn converse(protocol: Protocol, chunk: usize, said: &[u8]) -> (Vec<u8>, Result<(), String>) {
    let name = ServerName::try_from("a.test").expect("it is a name");
    let Some((mut preamble, mut heard)) = Preamble::begin(protocol, &name) else { return (Vec::new(), Ok(())) };
    for mut unread in said.chunks(chunk) {
        while !unread.is_empty() {
            match preamble.feed(unread) {
                Ok((Turn::Wait, _)) => break,
                Ok((Turn::Send(bytes), rest)) => {
                    heard.extend(bytes);
                    unread = rest;
                }
                Ok((Turn::Ready, _)) => return (heard, Ok(())),
                Err(refusal) => return (heard, Err(refusal.to_string())),
            }
        }
    }
    (heard, Err(preamble.closed().to_string()))
}

#[cfg(test)]
mod tests;
