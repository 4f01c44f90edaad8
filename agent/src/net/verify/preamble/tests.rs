//! What servers say before TLS, and what is made of it.

use super::*;

const SMTP: &str = "220 mail.a.test ESMTP Postfix\r\n250-mail.a.test\r\n250-SIZE 10240000\r\n250-starttls\r\n250 SMTPUTF8\r\n220 2.0.0 Ready\r\n";
const IMAP: &str =
    "* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n* 0 EXISTS\r\nc1 OK Begin TLS negotiation now.\r\n";
const POP3: &str = "+OK Dovecot ready.\r\n+OK Begin TLS negotiation now.\r\n";
const XMPP: &str = "<?xml version='1.0'?><stream:stream id='1' from='a.test' note='a > b' xmlns='jabber:client'>\
    <stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>\
    <proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const LDAP: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";

/// Returns what we said and how it ended, which must be the same however the network cuts what the server says.
fn ends(protocol: Protocol, said: impl AsRef<[u8]>) -> (String, Result<(), String>) {
    let said = said.as_ref();
    let (heard, ended) = converse(protocol, said.len().max(1), said);
    for chunk in [1, 2, 7] {
        assert_eq!(converse(protocol, chunk, said), (heard.clone(), ended.clone()), "in pieces of {chunk}");
    }
    (String::from_utf8_lossy(&heard).into_owned(), ended)
}

fn agrees(protocol: Protocol, said: impl AsRef<[u8]>, heard: &str) {
    assert_eq!(ends(protocol, said), (heard.to_owned(), Ok(())), "{protocol:?}");
}

fn refuses(protocol: Protocol, said: impl AsRef<[u8]>, why: &str) {
    let error = ends(protocol, said.as_ref()).1.unwrap_err();
    assert!(error.contains(why), "{:?}: {error}", String::from_utf8_lossy(said.as_ref()));
}

#[test]
fn every_protocol_comes_to_tls() {
    agrees(Protocol::Smtp, SMTP, "EHLO [127.0.0.1]\r\nSTARTTLS\r\n");
    agrees(Protocol::Imap, IMAP, "c1 STARTTLS\r\n");
    agrees(Protocol::Pop3, POP3, "STLS\r\n");
    let opening = "<?xml version='1.0'?><stream:stream to='a.test' xmlns='jabber:client' \
                   xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
                   <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    agrees(Protocol::Xmpp, XMPP, opening);
    agrees(Protocol::Xmpp, XMPP.replace("xmpp-tls'/>", "xmpp-tls'></proceed>"), opening);
    agrees(Protocol::Ldap, LDAP, &String::from_utf8_lossy(ldap::REQUEST));
    // Lengths in four bytes, as Active Directory writes them.
    let long = b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00";
    agrees(Protocol::Ldap, long, &String::from_utf8_lossy(ldap::REQUEST));
    agrees(Protocol::Postgres, "S", &String::from_utf8_lossy(&SSL_REQUEST));
    assert!(Preamble::begin(Protocol::Tls, &ServerName::try_from("a.test").unwrap()).is_none());
}

#[test]
fn a_banner_of_several_lines_is_one_greeting() {
    agrees(Protocol::Smtp, format!("220-wait\r\n220-\r\n{SMTP}"), "EHLO [127.0.0.1]\r\nSTARTTLS\r\n");
}

#[test]
fn a_server_that_offers_no_tls_is_quoted() {
    let none = "the server offers no STARTTLS: ";
    refuses(Protocol::Smtp, "220 a\r\n502 5.5.2 Error: not known\r\n", &format!("{none}502 5.5.2 Error: not known"));
    refuses(
        Protocol::Smtp,
        "220 a\r\n250-a\r\n250-SIZE 1\r\n250 X STARTTLS\r\n",
        &format!("{none}250-a, SIZE 1, X STARTTLS"),
    );
    // The name in a greeting is no offer.
    refuses(Protocol::Smtp, "220 a\r\n250 STARTTLS\r\n", none);
    refuses(Protocol::Imap, "* OK a\r\nc1 BAD Unknown command\r\n", &format!("{none}c1 BAD Unknown command"));
    refuses(Protocol::Pop3, "+OK a\r\n-ERR what\r\n", &format!("{none}-ERR what"));
    let bare = "<stream:stream id='1'><stream:features><auth/></stream:features>";
    refuses(Protocol::Xmpp, bare, none);
    refuses(Protocol::Xmpp, "<stream:stream id='1'><stream:features/>", none);
    let unknown = b"\x30\x10\x02\x01\x01\x78\x0b\x0a\x01\x02\x04\x00\x04\x04what";
    refuses(Protocol::Ldap, unknown, &format!("{none}result 2 what"));
    refuses(Protocol::Postgres, "N", &format!("{none}it answered N"));
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let not = "the server does not go on to TLS: ";
    refuses(Protocol::Smtp, "554 go away\r\n", &format!("{not}554 go away"));
    let temporary = SMTP.replace("220 2.0.0 Ready", "454 4.7.0 TLS not available");
    refuses(Protocol::Smtp, temporary, &format!("{not}454 4.7.0 TLS not available"));
    refuses(Protocol::Imap, "* BYE full\r\n", &format!("{not}* BYE full"));
    refuses(Protocol::Imap, "* PREAUTH hello\r\n", &format!("{not}* PREAUTH hello"));
    refuses(Protocol::Imap, "* OK a\r\nc1 NO not now\r\n", &format!("{not}c1 NO not now"));
    refuses(Protocol::Pop3, "-ERR full\r\n", &format!("{not}-ERR full"));
    let error = "<stream:stream id='1'><stream:error><host-unknown xmlns='x'/></stream:error>";
    refuses(Protocol::Xmpp, error, &format!("{not}host-unknown"));
    let failure = XMPP.replace("<proceed", "<failure");
    refuses(Protocol::Xmpp, failure, &format!("{not}it answered failure"));
    let notice = b"\x30\x10\x02\x01\x00\x78\x0b\x0a\x01\x34\x04\x00\x04\x04stop";
    refuses(Protocol::Ldap, notice, &format!("{not}result 52 stop"));
    refuses(Protocol::Postgres, "E", not);
}

#[test]
fn a_server_of_another_protocol_is_named() {
    refuses(Protocol::Smtp, "+OK POP3\r\n", "does not speak SMTP: +OK POP3");
    refuses(Protocol::Smtp, "220-a\r\n221 b\r\n", "does not speak SMTP");
    refuses(Protocol::Smtp, "220?a\r\n", "does not speak SMTP");
    refuses(Protocol::Smtp, "22\u{e9}\r\n", "does not speak SMTP");
    refuses(Protocol::Imap, "220 a ESMTP\r\n", "does not speak IMAP: 220 a ESMTP");
    refuses(Protocol::Pop3, "* OK a\r\n", "does not speak POP3");
    refuses(Protocol::Xmpp, "HTTP/1.1 400 Bad Request\r\n\r\n<html>", "does not speak XMPP: HTTP/1.1 400");
    refuses(Protocol::Ldap, "SSH-2.0-OpenSSH", "does not speak LDAP");
    refuses(Protocol::Ldap, b"\x30\x80\x02", "does not speak LDAP");
    refuses(Protocol::Ldap, b"\x30\x03\x02\x01\x01", "does not speak LDAP");
    refuses(Protocol::Postgres, "H", "does not speak PostgreSQL");
}

#[test]
fn what_follows_the_agreement_is_an_injection() {
    for (protocol, said) in [
        (Protocol::Smtp, SMTP.as_bytes()),
        (Protocol::Imap, IMAP.as_bytes()),
        (Protocol::Pop3, POP3.as_bytes()),
        (Protocol::Xmpp, XMPP.as_bytes()),
        (Protocol::Ldap, LDAP),
        (Protocol::Postgres, b"S"),
    ] {
        let said = [said, b"250 smuggled\r\n"].concat();
        let (_, ended) = converse(protocol, said.len(), &said);
        assert!(ended.unwrap_err().contains("goes on in plain text"), "{protocol:?}");
    }
}

#[test]
fn an_endless_server_is_cut_off() {
    refuses(Protocol::Smtp, "220 a".repeat(2000), "does not end within 4096 bytes");
    refuses(Protocol::Smtp, "220-a\r\n".repeat(20_000), "said more than 65536 bytes");
    refuses(Protocol::Imap, format!("* OK a\r\n{}", "* 1 EXISTS\r\n".repeat(20_000)), "said more than 65536 bytes");
    refuses(Protocol::Pop3, "+".repeat(5000), "does not end within 4096 bytes");
    refuses(Protocol::Xmpp, format!("<stream:stream a='{}", ">".repeat(5000)), "does not end within 4096 bytes");
    refuses(Protocol::Xmpp, format!("<stream:stream>{}", "<a/>".repeat(20_000)), "said more than 65536 bytes");
    refuses(Protocol::Ldap, b"\x30\x84\xff\xff\xff\xff", "does not end within 4096 bytes");
}

#[test]
fn a_server_that_hangs_up_is_told_with_its_last_words_and_without_escapes() {
    refuses(Protocol::Smtp, "", "closed the connection before TLS");
    refuses(Protocol::Smtp, "421 \u{1b}]0;x\u{7} busy", "its last words: 421 <U+001B>]0;x<U+0007> busy");
    refuses(Protocol::Imap, "* BYE \u{202e}x\r\n", "* BYE <U+202E>x");
}

proptest::proptest! {
    /// Whatever a server says, the answer does not hang on how the network cut it, and no escape reaches a person.
    #[test]
    fn hostile_servers_are_refused_in_plain_words(
        choice in 0_u8..6,
        begin in 0_usize..400,
        junk in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let (protocol, good) = [
            (Protocol::Smtp, SMTP.as_bytes()),
            (Protocol::Imap, IMAP.as_bytes()),
            (Protocol::Pop3, POP3.as_bytes()),
            (Protocol::Xmpp, XMPP.as_bytes()),
            (Protocol::Ldap, LDAP),
            (Protocol::Postgres, b""),
        ][usize::from(choice)];
        let said = [&good[..begin.min(good.len())], &junk].concat();
        fuzz(&[&[choice], said.as_slice()].concat());
        let text = converse(protocol, 1, &said).1.err().unwrap_or_default();
        proptest::prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
    }
}
