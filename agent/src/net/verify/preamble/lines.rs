//! PURE: the protocols of lines: SMTP (RFC 3207), IMAP (RFC 9051 §6.2.1), POP3 (RFC 2595 §4).

use super::{Refusal, Turn};

/// An address literal (RFC 5321 §4.1.3): a client without a name of its own, on the server's host.
const EHLO: &[u8] = b"EHLO [127.0.0.1]\r\n";
const TAG: &str = "c1";

/// Where a conversation of lines stands.
#[derive(Debug)]
pub(super) enum Lines {
    Smtp(Asked, Reply),
    Imap(Asked),
    Pop3(Asked),
}

/// What the next answer is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// Nothing yet: the server greets.
    Nothing,
    /// EHLO.
    Features,
    /// STARTTLS.
    Tls,
}

/// An SMTP reply of several lines (RFC 5321 §4.2.1) so far.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: String,
    code: String,
    offers_tls: bool,
}

impl Lines {
    pub(super) fn smtp() -> Self {
        Self::Smtp(Asked::Nothing, Reply::default())
    }

    pub(super) fn imap() -> Self {
        Self::Imap(Asked::Nothing)
    }

    pub(super) fn pop3() -> Self {
        Self::Pop3(Asked::Nothing)
    }

    /// Takes one line, without its end.
    pub(super) fn line(&mut self, line: &str) -> Result<Turn, Refusal> {
        match self {
            Self::Smtp(asked, reply) => {
                if reply.goes_on(line)? {
                    return Ok(Turn::Wait);
                }
                smtp(asked, &std::mem::take(reply))
            }
            Self::Imap(asked) => imap(asked, line),
            Self::Pop3(asked) => pop3(asked, line),
        }
    }
}

impl Reply {
    /// Adds a line; returns whether another one follows.
    fn goes_on(&mut self, line: &str) -> Result<bool, Refusal> {
        let (code, rest) = line.split_at_checked(3).unwrap_or((line, ""));
        let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let is_same = self.code.is_empty() || self.code == code;
        let goes_on = rest.starts_with('-');
        if !is_code || !is_same || !(goes_on || rest.is_empty() || rest.starts_with(' ')) {
            return Err(Refusal::Foreign("SMTP", line.to_owned()));
        }
        let text = rest.get(1..).unwrap_or_default();
        // The first line of the answer to EHLO is a greeting (RFC 5321 §4.1.1.1).
        let is_first = self.code.is_empty();
        self.offers_tls |= !is_first && is_first_word(text, "STARTTLS");
        if is_first {
            line.clone_into(&mut self.said);
            code.clone_into(&mut self.code);
        } else if self.said.len() < super::WORDS_MAX {
            self.said = format!("{}, {text}", self.said);
        }
        Ok(goes_on)
    }
}

fn smtp(asked: &mut Asked, reply: &Reply) -> Result<Turn, Refusal> {
    match (*asked, reply.code.as_str()) {
        (Asked::Nothing, "220") => {
            *asked = Asked::Features;
            Ok(Turn::Send(EHLO.to_vec()))
        }
        (Asked::Features, "250") if reply.offers_tls => {
            *asked = Asked::Tls;
            Ok(Turn::Send(b"STARTTLS\r\n".to_vec()))
        }
        (Asked::Tls, "220") => Ok(Turn::Ready),
        (Asked::Features, _) => Err(Refusal::NotOffered(reply.said.clone())),
        (Asked::Nothing | Asked::Tls, _) => Err(Refusal::Refused(reply.said.clone())),
    }
}

fn imap(asked: &mut Asked, line: &str) -> Result<Turn, Refusal> {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is = |word| is_first_word(rest, word);
    match (*asked, first) {
        (Asked::Nothing, "*") if is("OK") => {
            *asked = Asked::Tls;
            Ok(Turn::Send(format!("{TAG} STARTTLS\r\n").into_bytes()))
        }
        // Who is known already cannot ask for TLS any more (RFC 9051 §7.1.4).
        (_, "*") if is("PREAUTH") || is("BYE") => Err(Refusal::Refused(line.to_owned())),
        (Asked::Features | Asked::Tls, TAG) if is("OK") => Ok(Turn::Ready),
        (Asked::Features | Asked::Tls, TAG) if is("BAD") => Err(Refusal::NotOffered(line.to_owned())),
        (Asked::Features | Asked::Tls, TAG) => Err(Refusal::Refused(line.to_owned())),
        // What nobody asked for may stand before an answer (RFC 9051 §2.2.2).
        (Asked::Features | Asked::Tls, "*") => Ok(Turn::Wait),
        (Asked::Nothing | Asked::Features | Asked::Tls, _) => Err(Refusal::Foreign("IMAP", line.to_owned())),
    }
}

fn pop3(asked: &mut Asked, line: &str) -> Result<Turn, Refusal> {
    let first = line.split_once(' ').map_or(line, |(first, _)| first);
    match (*asked, first) {
        (Asked::Nothing, "+OK") => {
            *asked = Asked::Tls;
            Ok(Turn::Send(b"STLS\r\n".to_vec()))
        }
        (Asked::Features | Asked::Tls, "+OK") => Ok(Turn::Ready),
        (Asked::Nothing, "-ERR") => Err(Refusal::Refused(line.to_owned())),
        (Asked::Features | Asked::Tls, "-ERR") => Err(Refusal::NotOffered(line.to_owned())),
        (Asked::Nothing | Asked::Features | Asked::Tls, _) => Err(Refusal::Foreign("POP3", line.to_owned())),
    }
}

fn is_first_word(text: &str, word: &str) -> bool {
    text.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}
