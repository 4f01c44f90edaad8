//! DNS and IP identifiers (RFC 8555 §7.1.3, RFC 8738, RFC 1035 §2.3.4): text from an operator becomes an A-label name that cannot be wrong.
//! Called by `rpc` when a certificate is created or changed.

use std::collections::HashSet;
use std::net::IpAddr;

/// Most identifiers of one certificate (the limit of Let's Encrypt).
pub const IDENTIFIERS_MAX: usize = 100;
/// RFC 1035 §2.3.4, without the final dot.
const NAME_OCTETS_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_OCTETS_MAX: usize = 63;

/// Why a text is not an identifier we can order; `Display` says what is wrong, [`Refusal::hint`] what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing but white space.
    #[error("the name is empty")]
    Empty,
    /// A final dot.
    #[error("\"{0}\" ends with a dot")]
    TrailingDot(String),
    /// An address that nobody outside a host or link can reach.
    #[error("\"{0}\" is an address that no CA can reach")]
    IpAddress(String),
    /// One label only.
    #[error("\"{0}\" has no dot: a public CA issues only for names below a public suffix")]
    OneLabel(String),
    /// A label longer than 63 octets, as an A-label.
    #[error("a label of \"{0}\" has {1} octets; DNS allows 63")]
    LongLabel(String, usize),
    /// The whole name is too long.
    #[error("\"{0}\" has {1} octets; DNS allows 253")]
    LongName(String, usize),
    /// A character that no host name has, or an internationalised name that does not convert.
    #[error("\"{0}\" is not a DNS name")]
    NotDns(String),
    /// A wildcard other than as the whole first label.
    #[error("\"{0}\": a wildcard must be the whole first label, as in *.example.com")]
    WildcardPlace(String),
    /// A wildcard with HTTP-01 (RFC 8555 §7.1.3: only DNS-01 validates it).
    #[error("\"{0}\" is a wildcard, and HTTP-01 cannot prove a wildcard")]
    WildcardHttp01(String),
    /// The same name twice.
    #[error("\"{0}\" is named twice")]
    Duplicate(String),
    /// More than [`IDENTIFIERS_MAX`].
    #[error("{0} names; one certificate holds at most 100")]
    TooMany(usize),
    /// No name at all.
    #[error("no name is given")]
    None,
}

impl Refusal {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::None => "give at least one host name, for example --san www.example.com",
            Self::TrailingDot(_) => "write it without the final dot",
            Self::IpAddress(_) => "use the address under which others reach the server",
            Self::OneLabel(_) => "write the full name, for example web.example.com",
            Self::LongLabel(..) | Self::LongName(..) => "use a shorter name",
            Self::NotDns(_) => {
                "use letters, digits, hyphens and dots; internationalised names are converted by themselves"
            }
            Self::WildcardPlace(_) => "write *.example.com, or name each host",
            Self::WildcardHttp01(_) => {
                "name each host instead of the wildcard: HTTP-01 proves one host at a time (RFC 8555 §7.1.3)"
            }
            Self::Duplicate(_) => "name it once",
            Self::TooMany(_) => "split the names over several certificates",
        }
    }
}

/// Parses the identifiers of a certificate proved by HTTP-01: A-labels, lower case, in the given order.
///
/// # Errors
/// Every refusal with the index of its name.
pub fn parse_http01(texts: &[String]) -> Result<Vec<String>, Vec<Refusal>> {
    parse_all(texts, false)
}

/// Parses the identifiers of a certificate that nobody has to prove: also wildcards.
///
/// # Errors
/// As [`parse_http01`].
pub fn parse_unproven(texts: &[String]) -> Result<Vec<String>, Vec<Refusal>> {
    parse_all(texts, true)
}

fn parse_all(texts: &[String], wildcards: bool) -> Result<Vec<String>, Vec<Refusal>> {
    if texts.is_empty() {
        return Err(vec![Refusal::None]);
    }
    if texts.len() > IDENTIFIERS_MAX {
        return Err(vec![Refusal::TooMany(texts.len())]);
    }
    let mut seen = HashSet::new();
    let (mut names, mut refusals) = (Vec::new(), Vec::new());
    for text in texts {
        match parse(text) {
            Ok(name) if name.starts_with("*.") && !wildcards => refusals.push(Refusal::WildcardHttp01(name)),
            Ok(name) if !seen.insert(name.clone()) => refusals.push(Refusal::Duplicate(name)),
            Ok(name) => names.push(name),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() { Ok(names) } else { Err(refusals) }
}

/// Parses one name, which may start with `*.`, into its lower-case A-label form.
///
/// # Errors
/// The first reason why it is not a name to order.
pub fn parse(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let shown = || proto::text::one_line(text, 80);
    if text.is_empty() {
        return Err(Refusal::Empty);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        // RFC 8738 §3, in the form of RFC 5952 §4. An address of one's own (RFC 1918) may have a CA of one's own.
        let lonely = match address {
            IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => {
                address.is_loopback() || address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
            }
        };
        let unusable = lonely || address.is_unspecified() || address.is_multicast();
        return if unusable { Err(Refusal::IpAddress(shown())) } else { Ok(address.to_string()) };
    }
    if text.ends_with('.') {
        return Err(Refusal::TrailingDot(shown()));
    }
    let (wildcard, host) = match text.strip_prefix("*.") {
        Some(host) => (true, host),
        None => (false, text),
    };
    if host.contains('*') {
        return Err(Refusal::WildcardPlace(shown()));
    }
    if let Some(label) = host.split('.').find(|label| label.is_ascii() && label.len() > LABEL_OCTETS_MAX) {
        return Err(Refusal::LongLabel(shown(), label.len()));
    }
    if host.is_ascii() && host.len() > NAME_OCTETS_MAX {
        return Err(Refusal::LongName(shown(), host.len()));
    }
    let name = idna::domain_to_ascii_strict(host).ok().ok_or_else(|| Refusal::NotDns(shown()))?;
    if name.len() > NAME_OCTETS_MAX {
        return Err(Refusal::LongName(shown(), name.len()));
    }
    if !name.split('.').all(is_host_label) {
        return Err(Refusal::NotDns(shown()));
    }
    if !name.contains('.') {
        return Err(Refusal::OneLabel(shown()));
    }
    Ok(if wildcard { format!("*.{name}") } else { name })
}

/// A label of a host name: letters, digits, hyphens inside (RFC 1123 §2.1).
fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_OCTETS_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Refusal>) {
        assert_eq!(parse(text), expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn names_become_lower_case_a_labels() {
        check(" WWW.Example.COM ", Ok("www.example.com"));
        check("bücher.example", Ok("xn--bcher-kva.example"));
        check("*.example.com", Ok("*.example.com"));
    }

    #[test]
    fn what_is_not_a_name_says_why() {
        check("", Err(Refusal::Empty));
        check("a.example.", Err(Refusal::TrailingDot("a.example.".into())));
        check("192.0.2.1", Ok("192.0.2.1"));
        check("10.1.2.3", Ok("10.1.2.3"));
        check("[2001:DB8:0::1]", Ok("2001:db8::1"));
        for lonely in ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "::ffff:192.0.2.1"] {
            check(lonely, Err(Refusal::IpAddress(lonely.into())));
        }
        check("localhost", Err(Refusal::OneLabel("localhost".into())));
        check("a.*.example", Err(Refusal::WildcardPlace("a.*.example".into())));
        check("under_score.example", Err(Refusal::NotDns("under_score.example".into())));
        check("-a.example", Err(Refusal::NotDns("-a.example".into())));
        check("a..example", Err(Refusal::NotDns("a..example".into())));
        let long = format!("{}.example", "a".repeat(64));
        check(&long, Err(Refusal::LongLabel(long.clone(), 64)));
        let long = format!("{}example", "abcdefghi.".repeat(26));
        check(&long, Err(Refusal::LongName(proto::text::one_line(&long, 80), long.len())));
    }

    #[test]
    fn a_set_for_http01_has_no_wildcard_no_duplicate_and_at_most_100_names() {
        let names = |count: usize| (0..count).map(|n| format!("h{n}.example.test")).collect::<Vec<_>>();
        assert_eq!(parse_http01(&names(100)).unwrap().len(), 100);
        assert_eq!(parse_http01(&names(101)), Err(vec![Refusal::TooMany(101)]));
        assert_eq!(parse_http01(&[]), Err(vec![Refusal::None]));
        let mixed = vec!["*.a.test".to_owned(), "b.test".to_owned(), "B.test".to_owned()];
        assert_eq!(
            parse_http01(&mixed),
            Err(vec![Refusal::WildcardHttp01("*.a.test".into()), Refusal::Duplicate("b.test".into())])
        );
    }
}
