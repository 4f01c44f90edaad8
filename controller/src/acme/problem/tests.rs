//! Which error becomes which words, and when it is tried again.

use std::collections::BTreeSet;

use super::*;

fn refused(wire: &str, retry_after: Option<Duration>) -> AcmeError {
    let problem = AcmeProblem::read(&serde_json::from_str(wire).unwrap(), Some(403));
    AcmeError::Refused { attempt: Attempt { ca: "ca.test".to_owned(), step: Step::NewOrder }, problem, retry_after }
}

#[test]
fn every_type_of_rfc_8555_has_a_row_with_a_hint() {
    let rfc = "accountDoesNotExist alreadyRevoked badCSR badNonce badPublicKey badRevocationReason \
        badSignatureAlgorithm caa compound connection dns externalAccountRequired incorrectResponse invalidContact \
        malformed orderNotReady rateLimited rejectedIdentifier serverInternal tls unauthorized unsupportedContact \
        unsupportedIdentifier userActionRequired";
    for kind in rfc.split_whitespace() {
        let error = refused(&format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}"}}"#), None);
        assert_ne!(error.problem().reason, "ACME_REFUSED", "{kind}");
    }
    let reasons: BTreeSet<_> = KNOWN.iter().map(|known| known.reason).collect();
    assert_eq!(reasons.len(), KNOWN.len(), "each its own reason");
    assert!(KNOWN.is_sorted_by_key(|known| known.kind));
    assert!(KNOWN.iter().all(|known| known.hint.chars().count() <= 400), "none is cut");
}

#[test]
fn several_refused_names_are_all_named_and_the_first_decides() {
    let error = refused(
        r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "Some were rejected", "subproblems": [
        {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "on a list",
         "identifier": {"type": "dns", "value": "bad.example.test"}},
        {"type": "urn:ietf:params:acme:error:caa", "detail": "forbidden"}]}"#,
        None,
    );
    let problem = error.problem();
    assert_eq!((problem.reason.as_str(), error.retry()), ("ACME_REJECTED_IDENTIFIER", Retry::Daily(None)));
    assert_eq!(problem.message, "ca.test refused the new order");
    let cause = "Some were rejected (malformed); bad.example.test: on a list (rejectedIdentifier); ?: forbidden (caa)";
    assert_eq!(problem.cause, cause);
}

#[test]
fn a_servers_words_cannot_reach_a_terminal() {
    let error = refused(r#"{"type": "evil:\u001b]0;x", "detail": "a\u001b[31m\nb\u202e"}"#, None);
    let shown = format!("{:?} {error} {error:?}", error.problem());
    assert!(!shown.chars().any(|ch| ch.is_control() || ch == '\u{202e}'), "{shown}");
}

#[test]
fn a_certificate_of_another_time_may_mean_our_clock_and_the_operator_hears_both() {
    use rustls::CertificateError::{Expired, NotValidYetContext, UnknownIssuer};
    use rustls::pki_types::UnixTime;
    let second = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
    let early = NotValidYetContext { time: second(1_700_000_000), not_before: second(1_800_000_000) };
    for (source, reason) in
        [(Expired, "CA_NOT_VALID_NOW"), (early, "CA_NOT_VALID_NOW"), (UnknownIssuer, "CA_UNTRUSTED")]
    {
        let host = "ca.test".to_owned();
        let source = HttpError::Untrusted { host: host.clone(), source: rustls::Error::InvalidCertificate(source) };
        let attempt = Attempt { ca: host, step: Step::Directory };
        let problem = AcmeError::Http { attempt, retry_after: None, source }.problem();
        assert_eq!(problem.reason, reason, "{problem:?}");
        if reason == "CA_NOT_VALID_NOW" {
            assert!(problem.hint.contains("set the clock") && problem.hint.contains("renew its certificate"));
            assert!(problem.cause.contains("valid") || problem.cause.contains("expired"), "{problem:?}");
        }
    }
}

#[test]
fn a_wait_does_not_heal_what_only_a_person_can() {
    let wait = Some(Duration::from_secs(5));
    let check = |kind: &str, expected| {
        let wire = format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}"}}"#);
        assert_eq!(refused(&wire, wait).retry(), expected, "{kind}");
    };
    check("userActionRequired", Retry::Never);
    check("rejectedIdentifier", Retry::Daily(Some(Duration::from_secs(5))));
    check("rateLimited", Retry::After(Duration::from_secs(5)));
    check("serverInternal", Retry::After(Duration::from_secs(5)));
}
