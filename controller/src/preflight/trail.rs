//! Follows one request for a challenge as a CA does (RFC 8555 §8.3; Let's Encrypt's challenge types): 10 redirects, ports 80 and
//! 443, certificates not looked at. Only what a CA would refuse is a fault: most redirects are harmless. Called by `preflight`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use proto::text::one_line;

use super::probe::{Probe, ProbeAnswer, ProbeError, Scheme};
use super::{Verdict, addresses, dns_verdict};
use crate::dns::lookup::{Lookup, LookupError};
use crate::lifecycle::problem::Problem;

/// Most redirects followed; Let's Encrypt follows 10.
pub(super) const REDIRECTS_MAX: usize = 10;
/// How much of a wrong body is shown, characters.
const EXCERPT_CHARS_MAX: usize = 80;
/// Where the CA looks (RFC 8555 §8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// What the challenge needs of a server that redirects.
const EXEMPT: &str = "exempt /.well-known/acme-challenge/ from the redirect (nginx: a location ^~ of its own; Apache: a RewriteCond \
     before the RewriteRule), or keep the whole path in it (nginx: return 301 https://$host$request_uri)";

/// What a request met on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// Where it began.
    pub address: IpAddr,
    /// Every request that was made, in order; at least one.
    pub hops: Vec<Hop>,
    /// What a CA would make of it.
    pub verdict: Verdict,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What was asked for; sanitised.
    pub url: String,
    /// Who was asked.
    pub address: IpAddr,
    /// What came back, for people; sanitised.
    pub outcome: String,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: Scheme,
    host: String,
    address: IpAddr,
    path: String,
}

impl Place {
    fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{}://{host}{}", self.scheme.word(), one_line(&self.path, 400))
    }

    fn is_of_a_challenge(&self) -> bool {
        self.path.starts_with(CHALLENGES)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.url(), self.address)
    }
}

/// Asks one address for a token and follows its redirects.
pub(super) async fn follow(
    lookup: &dyn Lookup,
    probe: &dyn Probe,
    (identifier, address): (&str, IpAddr),
    token: &str,
    key_authorization: &str,
) -> Trail {
    let path = format!("{CHALLENGES}{token}");
    let mut place = Place { scheme: Scheme::Http, host: identifier.to_owned(), address, path };
    let (mut hops, mut from) = (Vec::new(), None);
    for _redirect in 0..=REDIRECTS_MAX {
        let to = SocketAddr::new(place.address, place.scheme.port());
        let came = probe.fetch(place.scheme, to, &place.host, &place.path).await;
        hops.push(Hop { url: place.url(), address: place.address, outcome: outcome(&came) });
        let answer = match came {
            Ok(answer) => answer,
            Err(error) => return Trail { address, hops, verdict: unanswered(&place, from.as_ref(), &error) },
        };
        let Some(location) = answer.location.as_deref().filter(|_| (300..400).contains(&answer.status)) else {
            return Trail { address, hops, verdict: judge(&place, from.as_ref(), &answer, key_authorization) };
        };
        match next(lookup, &place, location).await {
            Ok(next) => from = Some(std::mem::replace(&mut place, next)),
            Err(verdict) => return Trail { address, hops, verdict },
        }
    }
    let verdict = blocker(&place, "PREFLIGHT_REDIRECT_LOOP", &format!("more than {REDIRECTS_MAX} redirects"));
    Trail { address, hops, verdict }
}

/// What came back, in a few words.
fn outcome(came: &Result<ProbeAnswer, ProbeError>) -> String {
    match came {
        Err(error) => one_line(&error.to_string(), 200),
        Ok(ProbeAnswer { status, location: Some(location), .. }) if (300..400).contains(status) => {
            format!("{status}, to {}", one_line(location, 200))
        }
        Ok(ProbeAnswer { status, .. }) => status.to_string(),
    }
}

/// Returns where a redirect leads, or why it cannot be followed.
async fn next(lookup: &dyn Lookup, from: &Place, location: &str) -> Result<Place, Verdict> {
    let bad = |why: &str| {
        blocker(from, "PREFLIGHT_REDIRECT_INVALID", &format!("a redirect to {:?}: {why}", one_line(location, 200)))
    };
    let uri: Uri = location.parse().map_err(|_not_a_uri: http::uri::InvalidUri| bad("that is no URL"))?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let Some(authority) = uri.authority() else {
        let is_absolute = path.starts_with('/');
        return if is_absolute { Ok(Place { path, ..from.clone() }) } else { Err(bad("that is no URL")) };
    };
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(bad("a CA follows http and https only")),
    };
    // Boulder compares the port with 80 and 443 whatever the scheme; another pair than the usual one serves nobody.
    if authority.port_u16().is_some_and(|port| port != scheme.port()) {
        return Err(bad("a CA follows to port 80 and 443 only"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let found = addresses(lookup, &host).await.map_err(|error| dns_verdict(&host, &error))?;
    let Some(address) = found.into_iter().next() else { return Err(dns_verdict(&host, &LookupError::NoRecords)) };
    if address != from.address && is_link_local(address) {
        let cause = format!("a redirect to {host} at {address}");
        return Err(unseen(from, "PREFLIGHT_REDIRECT_LOCAL", &cause));
    }
    Ok(Place { scheme, host, address, path })
}

/// Link-local addresses hold cloud metadata services: a stranger's redirect must not make us ask them.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn judge(place: &Place, from: Option<&Place>, answer: &ProbeAnswer, key_authorization: &str) -> Verdict {
    // RFC 8555 §8.3: trailing whitespace is ignored.
    let body = answer.body.trim_ascii_end();
    if answer.status == 200 && body == key_authorization.as_bytes() {
        return Verdict::Ok;
    }
    let (reason, what) = if answer.status == 200 {
        let shown = one_line(&String::from_utf8_lossy(body), EXCERPT_CHARS_MAX);
        ("PREFLIGHT_WRONG_CONTENT", format!("the answer is {shown:?}"))
    } else {
        ("PREFLIGHT_WRONG_STATUS", format!("status {}", answer.status))
    };
    match from {
        None => unserved(place, reason, &what),
        Some(from) if from.is_of_a_challenge() && !place.is_of_a_challenge() => {
            let cause = format!("the redirect of {from} leads to {place}, which is no challenge's path: {what}");
            blocker(place, "PREFLIGHT_REDIRECT_LOSES_PATH", &cause)
        }
        Some(from) => {
            let cause = format!("the redirect of {from} leads to {place}, which does not serve it: {what}");
            blocker(place, "PREFLIGHT_REDIRECT_ASTRAY", &cause)
        }
    }
}

fn unanswered(place: &Place, from: Option<&Place>, error: &ProbeError) -> Verdict {
    let by = from.map_or_else(String::new, |from| format!(", after a redirect of {from}"));
    let cause = format!("{error}{by}");
    match error {
        ProbeError::NotHttp(_) => unserved(place, "PREFLIGHT_NOT_HTTP", &cause),
        ProbeError::Timeout => unseen(place, "PREFLIGHT_TIMEOUT", &cause),
        ProbeError::Unreachable(_) => unseen(place, "PREFLIGHT_UNREACHABLE", &cause),
        ProbeError::Tls(_) => unseen(place, "PREFLIGHT_TLS", &cause),
    }
}

fn unserved(place: &Place, reason: &str, cause: &str) -> Verdict {
    Verdict::Contradicted(Problem::new(
        reason,
        format!("The challenge is not served at {place}"),
        cause,
        "Something else than the responder answers there: check A/AAAA, the web server's rules for \
         /.well-known/acme-challenge/, and the port or webroot of --http01",
    ))
}

/// A redirect that a CA does not follow, or that leads away from the challenge.
fn blocker(place: &Place, reason: &str, cause: &str) -> Verdict {
    Verdict::Contradicted(Problem::new(
        reason,
        format!("A redirect keeps the CA from the challenge at {place}"),
        cause,
        EXEMPT,
    ))
}

fn unseen(place: &Place, reason: &str, cause: &str) -> Verdict {
    Verdict::Unknown(Problem::new(
        reason,
        format!("The challenge at {place} cannot be seen from the controller"),
        cause,
        "The CA may see it nevertheless; the order goes on. If it fails, check firewall and port 80 at that address",
    ))
}
