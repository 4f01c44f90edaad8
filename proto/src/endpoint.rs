//! How a verify endpoint is spelled: `ADDR:PORT[/SNI]`, before it `smtp://` or another word when the server speaks something
//! else before TLS. One spelling for the command line, the dashboard, the audit and the agent's steps. Called by all three
//! programs; resolves nothing.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::types::v1::{Endpoint, VerifyProtocol};

/// Every protocol with its word.
const WORDS: [(VerifyProtocol, &str); 7] = [
    (VerifyProtocol::Tls, "tls"),
    (VerifyProtocol::Smtp, "smtp"),
    (VerifyProtocol::Imap, "imap"),
    (VerifyProtocol::Pop3, "pop3"),
    (VerifyProtocol::Xmpp, "xmpp"),
    (VerifyProtocol::Ldap, "ldap"),
    (VerifyProtocol::Postgres, "postgres"),
];

/// Why a text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(String);

/// Returns the word of a protocol, as it stands before `://`.
#[must_use]
pub fn word(protocol: VerifyProtocol) -> &'static str {
    WORDS.iter().find(|(one, _)| *one == protocol).map_or("tls", |(_, word)| word)
}

/// Returns every word that may stand before `://`, for people.
#[must_use]
pub fn words() -> String {
    WORDS.map(|(_, word)| word).join(", ")
}

/// Writes an endpoint in the spelling that [`Endpoint::from_str`] reads; nothing stands before one that is plain TLS.
///
/// # Errors
/// When `f` refuses.
pub fn write(f: &mut impl fmt::Write, protocol: VerifyProtocol, address: &str, server_name: &str) -> fmt::Result {
    if protocol != VerifyProtocol::Tls {
        write!(f, "{}://", word(protocol))?;
    }
    f.write_str(address)?;
    if server_name.is_empty() { Ok(()) } else { write!(f, "/{server_name}") }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.protocol(), &self.address, &self.server_name)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (protocol, rest) = match text.split_once("://") {
            Some((word, rest)) => (protocol(word)?, rest),
            None => (VerifyProtocol::Tls, text),
        };
        let (address, server_name) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains('/') && server_name.is_empty() {
            return Err(EndpointError("the name after '/' is empty".to_owned()));
        }
        check_address(address)?;
        Ok(Self { address: address.to_owned(), server_name: server_name.to_owned(), protocol: protocol.into() })
    }
}

fn protocol(word: &str) -> Result<VerifyProtocol, EndpointError> {
    let found = WORDS.iter().find(|(_, one)| *one == word).map(|(protocol, _)| *protocol);
    found.ok_or_else(|| {
        EndpointError(format!("'{word}' is no protocol: expected {}, or nothing, which is tls", words()))
    })
}

fn check_address(address: &str) -> Result<(), EndpointError> {
    let wrong = |text: String| Err(EndpointError(text));
    let Some((host, port)) = address.rsplit_once(':') else {
        return wrong("expected ADDR:PORT, for example 127.0.0.1:443 or smtp://127.0.0.1:25".to_owned());
    };
    match port.parse::<u16>() {
        Ok(0) => return wrong("port 0 is none".to_owned()),
        Ok(_) => {}
        Err(error) => return wrong(format!("'{port}' is no port: {error}")),
    }
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::parse::<Ipv6Addr>) {
        Some(Err(error)) => wrong(format!("'{host}' is no IPv6 address: {error}")),
        Some(Ok(_)) => Ok(()),
        None if host.is_empty() => wrong("the address is empty, for example 127.0.0.1:443".to_owned()),
        None if host.contains([':', '[', ']']) => wrong("an IPv6 address stands in brackets: [::1]:443".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_protocol_an_address_a_port_and_maybe_a_name() {
        let check = |text: &str, protocol: VerifyProtocol, address: &str, name: &str| {
            let found: Endpoint = text.parse().unwrap();
            let seen = (found.protocol(), found.address.as_str(), found.server_name.as_str());
            assert_eq!(seen, (protocol, address, name), "{text}");
            assert_eq!(found.to_string(), text.trim_start_matches("tls://"));
        };
        check("127.0.0.1:443", VerifyProtocol::Tls, "127.0.0.1:443", "");
        check("127.0.0.1:443/h1.example.test", VerifyProtocol::Tls, "127.0.0.1:443", "h1.example.test");
        check("tls://[::1]:443/name", VerifyProtocol::Tls, "[::1]:443", "name");
        check("smtp://localhost:25", VerifyProtocol::Smtp, "localhost:25", "");
        check("imap://127.0.0.1:143/mail.example.test", VerifyProtocol::Imap, "127.0.0.1:143", "mail.example.test");
        check("pop3://[::1]:110/m", VerifyProtocol::Pop3, "[::1]:110", "m");
        check("xmpp://127.0.0.1:5222/chat.example.test", VerifyProtocol::Xmpp, "127.0.0.1:5222", "chat.example.test");
        check("ldap://127.0.0.1:389", VerifyProtocol::Ldap, "127.0.0.1:389", "");
        check("postgres://127.0.0.1:5432", VerifyProtocol::Postgres, "127.0.0.1:5432", "");
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        let check = |text: &str, said: &str| {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        };
        check("https://h:443", "expected tls, smtp, imap, pop3, xmpp, ldap, postgres");
        check("://h:443", "no protocol");
        check("SMTP://h:25", "no protocol");
        check("::1:443", "brackets");
        for text in
            ["", ":443", "h", "h:", "h:0", "h:70000", "[::1]", "[x]:1", "h:443/", "[::1:443", "smtp://", "smtp://h"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
