//! PURE: XMPP between a client and its server (RFC 6120 §5). Reads tags only: text, comments and declarations have no place
//! before TLS, and whose namespace a tag is in decides nothing here.

use rustls::pki_types::ServerName;

use super::{Refusal, Turn, words};

/// RFC 6120 §5.4.2.1.
const STARTTLS: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// Where a stream stands.
#[derive(Debug, Default)]
pub(super) struct Xmpp {
    place: Place,
    /// A server has refused; the next tag says why.
    refuses: bool,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Text,
    Tag,
    /// Inside an attribute's value, which may hold `>`.
    Quoted(u8),
}

#[derive(Clone, Copy, Debug, Default)]
enum Step {
    /// The server's own header is awaited.
    #[default]
    Header,
    Features {
        offers_tls: bool,
    },
    /// TLS was asked for.
    Answer,
}

/// Returns what opens a stream (RFC 6120 §4.7). A server name is made of letters, digits and a few signs: none is XML's.
pub(super) fn opening(name: &ServerName<'_>) -> Vec<u8> {
    format!(
        "<?xml version='1.0'?><stream:stream to='{}' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
        name.to_str()
    )
    .into_bytes()
}

impl Xmpp {
    /// Takes a byte; returns whether a tag ends with it.
    pub(super) fn byte(&mut self, byte: u8) -> bool {
        let (place, ends) = match (self.place, byte) {
            (Place::Text, b'<') => (Place::Tag, false),
            (Place::Tag, b'>') => (Place::Text, true),
            (Place::Tag, b'\'' | b'"') => (Place::Quoted(byte), false),
            (Place::Quoted(quote), _) if byte == quote => (Place::Tag, false),
            (place @ (Place::Text | Place::Tag | Place::Quoted(_)), _) => (place, false),
        };
        self.place = place;
        ends
    }

    /// Takes a tag, with the text before it.
    pub(super) fn tag(&mut self, token: &[u8]) -> Result<Turn, Refusal> {
        let text = String::from_utf8_lossy(token);
        let (before, tag) = text.split_once('<').unwrap_or((&text, ""));
        let tag = tag.strip_suffix('>').unwrap_or(tag);
        let (name, is_end, is_whole) = local_name(tag);
        if self.refuses {
            return Err(Refusal::Refused(words(name.as_bytes())));
        }
        match self.step {
            Step::Header if name == "stream" && !is_end => self.step = Step::Features { offers_tls: false },
            Step::Header if tag.starts_with('?') && before.trim().is_empty() => {}
            Step::Header => return Err(Refusal::Foreign("XMPP", words(token))),
            _ if name == "error" => self.refuses = true,
            _ if name == "stream" && is_end => return Err(Refusal::Refused("it ended the stream".to_owned())),
            Step::Features { .. } if name == "starttls" => self.step = Step::Features { offers_tls: true },
            Step::Features { offers_tls } if name == "features" && (is_end || is_whole) => {
                if !offers_tls {
                    return Err(Refusal::NotOffered("its stream features do not name it".to_owned()));
                }
                self.step = Step::Answer;
                return Ok(Turn::Send(STARTTLS.to_vec()));
            }
            Step::Answer if name == "proceed" && (is_end || is_whole) => return Ok(Turn::Ready),
            Step::Answer if name == "failure" => return Err(Refusal::Refused("it answered failure".to_owned())),
            Step::Features { .. } | Step::Answer => {}
        }
        Ok(Turn::Wait)
    }
}

/// Returns the name of a tag without its prefix, whether it ends an element, and whether it is a whole one.
fn local_name(tag: &str) -> (&str, bool, bool) {
    let is_end = tag.starts_with('/');
    let name = tag.trim_start_matches('/').split(|ch: char| ch.is_whitespace() || ch == '/').next().unwrap_or_default();
    (name.rsplit_once(':').map_or(name, |(_, local)| local), is_end, tag.ends_with('/'))
}
