//! Looks as the CA would, before and while a challenge is spent. It never decides; `tasks/issuance` does. Only a definite
//! wrong answer is a contradiction: what cannot be seen from here may be plain to the CA.

pub mod probe;
pub mod trail;

use std::net::IpAddr;

use futures_util::future::join_all;

use crate::dns::lookup::{CaaRecord, Lookup, LookupError};
use crate::lifecycle::problem::Problem;
use crate::preflight::probe::Probe;
use crate::preflight::trail::Trail;

/// Most addresses of one name that are asked.
const ADDRESSES_MAX: usize = 16;
/// Most labels climbed for CAA (RFC 8659 §3); a name has at most 127.
const CAA_CLIMB_MAX: usize = 127;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// Definitely wrong: the CA would fail. Spend nothing more.
    Contradicted(Problem),
    /// Cannot be seen from here: go on, with a warning.
    Unknown(Problem),
}

/// Looks up each identifier before any order is made: has it addresses, does a CAA record forbid every CA.
pub async fn names(lookup: &dyn Lookup, identifiers: &[String]) -> Vec<(String, Verdict)> {
    join_all(identifiers.iter().map(|identifier| async move { (identifier.clone(), name(lookup, identifier).await) }))
        .await
}

async fn name(lookup: &dyn Lookup, identifier: &str) -> Verdict {
    if identifier.parse::<IpAddr>().is_ok() {
        return Verdict::Ok;
    }
    let base = identifier.strip_prefix("*.");
    if base.is_none()
        && let Err(error) = lookup.addresses(identifier).await
    {
        return dns_verdict(identifier, &error);
    }
    match relevant_caa(lookup, base.unwrap_or(identifier)).await {
        Some((holder, records)) if forbids_all(&records, base.is_some()) => Verdict::Contradicted(Problem::new(
            "DNS_CAA_FORBIDS",
            format!("No CA may issue for {identifier}"),
            format!("the CAA records of {holder} name no CA"),
            "Add a CAA record with tag issue and the name of your CA, or remove the CAA records",
        )),
        _ => Verdict::Ok,
    }
}

/// Finds the CAA records that count for a name: its own, else those of the nearest parent (RFC 8659 §3). What cannot be
/// looked up is left to the CA.
async fn relevant_caa<'n>(lookup: &dyn Lookup, name: &'n str) -> Option<(&'n str, Vec<CaaRecord>)> {
    let mut holder = name;
    for _label in 0..CAA_CLIMB_MAX {
        match lookup.caa(holder).await {
            Ok(records) => return Some((holder, records)),
            Err(LookupError::NoRecords | LookupError::NoSuchName) => {}
            Err(LookupError::Unreachable(_)) => return None,
        }
        holder = holder.split_once('.')?.1;
    }
    None
}

/// Whether the records let no CA at all issue: there are `issue` records (for a wildcard `issuewild`, if any) and all
/// are empty (RFC 8659 §4.2).
fn forbids_all(records: &[CaaRecord], wildcard: bool) -> bool {
    let values = |tag: &str| -> Vec<&str> {
        records.iter().filter(|record| record.tag == tag).map(|record| record.value.as_str()).collect()
    };
    let wild = if wildcard { values("issuewild") } else { Vec::new() };
    let issue = if wild.is_empty() { values("issue") } else { wild };
    let names_a_ca = |value: &&str| value.split(';').next().is_some_and(|name| !name.trim().is_empty());
    !issue.is_empty() && !issue.iter().any(names_a_ca)
}

/// Looks whether a challenge is served, as the CA will: on port 80 of every address of the identifier.
pub async fn visible(
    lookup: &dyn Lookup,
    probe: &dyn Probe,
    identifier: &str,
    token: &str,
    key_authorization: &str,
) -> Verdict {
    match trails(lookup, probe, identifier, token, key_authorization).await {
        Ok(trails) => worst(&trails),
        Err(verdict) => verdict,
    }
}

/// Returns what the worst of them says.
#[must_use]
pub fn worst(trails: &[Trail]) -> Verdict {
    let rank = |verdict: &&Verdict| match verdict {
        Verdict::Contradicted(_) => 2,
        Verdict::Unknown(_) => 1,
        Verdict::Ok => 0,
    };
    trails.iter().map(|trail| &trail.verdict).max_by_key(rank).cloned().unwrap_or(Verdict::Ok)
}

/// Asks every address of the identifier for a token, and follows the redirects.
///
/// # Errors
/// A verdict on the name: it has no address that could be asked.
pub async fn trails(
    lookup: &dyn Lookup,
    probe: &dyn Probe,
    identifier: &str,
    token: &str,
    key_authorization: &str,
) -> Result<Vec<Trail>, Verdict> {
    let found = addresses(lookup, identifier).await.map_err(|error| dns_verdict(identifier, &error))?;
    let asked = found.into_iter().take(ADDRESSES_MAX);
    let follow = |address| trail::follow(lookup, probe, (identifier, address), token, key_authorization);
    Ok(join_all(asked.map(follow)).await)
}

async fn addresses(lookup: &dyn Lookup, host: &str) -> Result<Vec<IpAddr>, LookupError> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_not_an_address) => lookup.addresses(host).await,
    }
}

fn dns_verdict(name: &str, error: &LookupError) -> Verdict {
    let problem = |reason, hint: &str| Problem::new(reason, format!("{name} has no address"), error.to_string(), hint);
    match error {
        LookupError::NoSuchName => Verdict::Contradicted(problem(
            "DNS_NO_SUCH_NAME",
            "Add an A or AAAA record that points to the responder, and check the spelling; a CNAME that leads nowhere \
             looks the same",
        )),
        LookupError::NoRecords => Verdict::Contradicted(problem(
            "DNS_NO_ADDRESS",
            "The name exists without A and AAAA: add one that points to the responder",
        )),
        LookupError::Unreachable(_) => Verdict::Unknown(Problem::new(
            "DNS_UNREACHABLE",
            format!("{name} cannot be looked up from the controller"),
            error.to_string(),
            "Check the controller's DNS servers and the zone's name servers; the CA may see the name nevertheless",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::probe::{ProbeAnswer, ProbeError, Scheme};
    use super::*;

    const NAME: &str = "h1.example.test";
    const PATH: &str = "/.well-known/acme-challenge/token";
    const CONTENT: &str = "token.thumb";

    /// Names, CAA records and web servers of a small world.
    #[derive(Debug, Default)]
    struct World {
        addresses: BTreeMap<&'static str, Result<Vec<IpAddr>, LookupError>>,
        caa: BTreeMap<&'static str, Result<Vec<CaaRecord>, LookupError>>,
        /// By `address host path`; what is missing cannot be reached.
        pages: BTreeMap<String, ProbeAnswer>,
        asked: Mutex<Vec<String>>,
    }

    impl World {
        fn name(mut self, name: &'static str, addresses: &[&str]) -> Self {
            self.addresses.insert(name, Ok(addresses.iter().map(|address| address.parse().unwrap()).collect()));
            self
        }

        fn lost(mut self, name: &'static str, error: LookupError) -> Self {
            self.addresses.insert(name, Err(error));
            self
        }

        fn caa(mut self, name: &'static str, records: &[(&str, &str)]) -> Self {
            let record = |(tag, value): &(&str, &str)| CaaRecord {
                critical: false,
                tag: (*tag).to_owned(),
                value: (*value).to_owned(),
            };
            self.caa.insert(name, Ok(records.iter().map(record).collect()));
            self
        }

        fn page(mut self, place: &str, status: u16, body: &str) -> Self {
            let answer = ProbeAnswer { status, body: body.as_bytes().to_vec(), ..ProbeAnswer::default() };
            self.pages.insert(place.to_owned(), answer);
            self
        }

        fn redirect(mut self, place: &str, location: &str) -> Self {
            let answer = ProbeAnswer { status: 302, location: Some(location.to_owned()), ..ProbeAnswer::default() };
            self.pages.insert(place.to_owned(), answer);
            self
        }

        async fn visible(&self) -> Verdict {
            visible(self, self, NAME, "token", CONTENT).await
        }
    }

    #[async_trait]
    impl Lookup for World {
        async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
            self.addresses.get(name).cloned().unwrap_or(Err(LookupError::NoSuchName))
        }

        async fn caa(&self, name: &str) -> Result<Vec<CaaRecord>, LookupError> {
            self.caa.get(name).cloned().unwrap_or(Err(LookupError::NoRecords))
        }
    }

    #[async_trait]
    impl Probe for World {
        async fn fetch(
            &self,
            scheme: Scheme,
            address: SocketAddr,
            host: &str,
            path: &str,
        ) -> Result<ProbeAnswer, ProbeError> {
            assert_eq!(address.port(), scheme.port());
            let secure = if scheme == Scheme::Https { "https " } else { "" };
            let place = format!("{secure}{} {host} {path}", address.ip());
            self.asked.lock().unwrap().push(place.clone());
            let refused = || ProbeError::Unreachable(io::ErrorKind::ConnectionRefused.into());
            self.pages.get(&place).cloned().ok_or_else(refused)
        }
    }

    fn at(address: &str) -> String {
        format!("{address} {NAME} {PATH}")
    }

    /// Returns verdict and reason: `contradicted PREFLIGHT_WRONG_STATUS`.
    fn shown(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Ok => "ok".to_owned(),
            Verdict::Contradicted(problem) => format!("contradicted {}", problem.reason),
            Verdict::Unknown(problem) => format!("unknown {}", problem.reason),
        }
    }

    async fn check_name(world: World, identifier: &str, expected: &str) {
        let verdicts = names(&world, &[identifier.to_owned()]).await;
        assert_eq!((verdicts[0].0.as_str(), shown(&verdicts[0].1).as_str()), (identifier, expected), "{world:?}");
    }

    async fn check(world: World, expected: &str) {
        assert_eq!(shown(&world.visible().await), expected, "{world:?}");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_contradicted_before_an_order_is_made() {
        check_name(World::default().name(NAME, &["192.0.2.1"]), NAME, "ok").await;
        check_name(World::default(), NAME, "contradicted DNS_NO_SUCH_NAME").await;
        check_name(World::default().lost(NAME, LookupError::NoRecords), NAME, "contradicted DNS_NO_ADDRESS").await;
        let lost = World::default().lost(NAME, LookupError::Unreachable("SERVFAIL".to_owned()));
        check_name(lost, NAME, "unknown DNS_UNREACHABLE").await;
        check_name(World::default(), "192.0.2.1", "ok").await;
        check_name(World::default(), "*.example.test", "ok").await;
    }

    #[tokio::test]
    async fn a_caa_record_that_names_nobody_forbids_everybody() {
        let world = || World::default().name(NAME, &["192.0.2.1"]);
        let forbidden = "contradicted DNS_CAA_FORBIDS";
        check_name(world().caa(NAME, &[("issue", ";")]), NAME, forbidden).await;
        check_name(world().caa("example.test", &[("issue", " ; x=y")]), NAME, forbidden).await;
        check_name(world().caa("test", &[("issue", "")]), NAME, forbidden).await;
        check_name(world().caa(NAME, &[("issue", ";"), ("issue", "ca.test")]), NAME, "ok").await;
        check_name(world().caa(NAME, &[("iodef", "mailto:x")]).caa("example.test", &[("issue", ";")]), NAME, "ok")
            .await;
        check_name(world().caa(NAME, &[("issuewild", ";")]), NAME, "ok").await;
        let wild = || World::default().caa("example.test", &[("issue", "ca.test"), ("issuewild", ";")]);
        check_name(wild(), "*.example.test", forbidden).await;
        let mut lost = world().caa("example.test", &[("issue", ";")]);
        lost.caa.insert(NAME, Err(LookupError::Unreachable("timeout".to_owned())));
        check_name(lost, NAME, "ok").await;
    }

    #[tokio::test]
    async fn a_challenge_is_visible_when_every_address_serves_it() {
        let world = || World::default().name(NAME, &["192.0.2.1", "2001:db8::1"]).page(&at("192.0.2.1"), 200, CONTENT);
        check(world().page(&at("2001:db8::1"), 200, "token.thumb\r\n \t"), "ok").await;
        check(world(), "unknown PREFLIGHT_UNREACHABLE").await;
        check(world().page(&at("2001:db8::1"), 404, ""), "contradicted PREFLIGHT_WRONG_STATUS").await;
        let half_seen = World::default().name(NAME, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        check(half_seen.page(&at("192.0.2.2"), 404, ""), "contradicted PREFLIGHT_WRONG_STATUS").await;
        check(world().page(&at("2001:db8::1"), 200, "token.other"), "contradicted PREFLIGHT_WRONG_CONTENT").await;
        check(world().page(&at("2001:db8::1"), 200, " token.thumb"), "contradicted PREFLIGHT_WRONG_CONTENT").await;
    }

    #[tokio::test]
    async fn what_cannot_be_looked_up_is_unknown_and_what_is_gone_is_not() {
        check(World::default(), "contradicted DNS_NO_SUCH_NAME").await;
        let lost = World::default().lost(NAME, LookupError::Unreachable("SERVFAIL".to_owned()));
        check(lost, "unknown DNS_UNREACHABLE").await;
    }

    #[tokio::test]
    async fn a_wrong_answer_says_where_and_what_without_escapes() {
        let world =
            World::default().name(NAME, &["192.0.2.1"]).page(&at("192.0.2.1"), 200, "<h1>\u{1b}[31mParked</h1>");
        let Verdict::Contradicted(problem) = world.visible().await else { panic!("a definite wrong answer") };
        assert_eq!(problem.message, format!("The challenge is not served at http://{NAME}{PATH} at 192.0.2.1"));
        assert_eq!(problem.cause, r#"the answer is "<h1><U+001B>[31mParked</h1>""#);
    }

    #[tokio::test]
    async fn redirects_are_followed_as_far_as_the_ca_would() {
        let world = || World::default().name(NAME, &["192.0.2.1"]).name("www.test", &["192.0.2.9"]);
        let first = at("192.0.2.1");
        let elsewhere = world().redirect(&first, "http://WWW.test/acme?x=1");
        check(elsewhere.page("192.0.2.9 www.test /acme?x=1", 200, CONTENT), "ok").await;
        let relative = world().redirect(&first, "/acme");
        check(relative.page(&format!("192.0.2.1 {NAME} /acme"), 200, CONTENT), "ok").await;
        let literal = world().redirect(&first, "http://[2001:db8::9]/acme");
        check(literal.page("2001:db8::9 2001:db8::9 /acme", 200, CONTENT), "ok").await;
        let secure = || world().redirect(&first, "https://www.test/acme");
        check(secure().page("https 192.0.2.9 www.test /acme", 200, CONTENT), "ok").await;
        check(secure(), "unknown PREFLIGHT_UNREACHABLE").await;
        check(world().redirect(&first, "https://www.test:443/acme"), "unknown PREFLIGHT_UNREACHABLE").await;
        check(world().redirect(&first, "https://www.test:80/"), "contradicted PREFLIGHT_REDIRECT_INVALID").await;
        check(world().redirect(&first, "http://www.test:8080/"), "contradicted PREFLIGHT_REDIRECT_INVALID").await;
        check(world().redirect(&first, "ftp://www.test/"), "contradicted PREFLIGHT_REDIRECT_INVALID").await;
        check(world().redirect(&first, "not a url"), "contradicted PREFLIGHT_REDIRECT_INVALID").await;
        check(world().redirect(&first, "http://gone.test/"), "contradicted DNS_NO_SUCH_NAME").await;
    }

    #[tokio::test]
    async fn a_redirect_that_leads_away_from_the_challenge_is_told_from_a_harmless_one() {
        let world = || World::default().name(NAME, &["192.0.2.1"]);
        let first = at("192.0.2.1");
        let whole = || world().redirect(&first, &format!("https://{NAME}{PATH}"));
        let secure = format!("https {first}");
        check(whole().page(&secure, 200, CONTENT), "ok").await;
        check(whole().page(&secure, 404, ""), "contradicted PREFLIGHT_REDIRECT_ASTRAY").await;
        let home = || world().redirect(&first, &format!("https://{NAME}/"));
        let cut = home().page(&format!("https 192.0.2.1 {NAME} /"), 200, "<h1>Welcome</h1>");
        let Verdict::Contradicted(problem) = cut.visible().await else { panic!("a CA would fail") };
        assert_eq!(problem.reason, "PREFLIGHT_REDIRECT_LOSES_PATH");
        assert_eq!(
            problem.message,
            format!("A redirect keeps the CA from the challenge at https://{NAME}/ at 192.0.2.1")
        );
        assert_eq!(
            problem.cause,
            format!(
                "the redirect of http://{NAME}{PATH} at 192.0.2.1 leads to https://{NAME}/ at 192.0.2.1, which is no \
                 challenge's path: the answer is \"<h1>Welcome</h1>\""
            )
        );
    }

    #[tokio::test]
    async fn a_trail_tells_each_request_and_what_came_back() {
        let world = World::default()
            .name(NAME, &["192.0.2.1"])
            .redirect(&at("192.0.2.1"), &format!("https://{NAME}{PATH}"))
            .page(&format!("https {}", at("192.0.2.1")), 200, CONTENT);
        let trails = trails(&world, &world, NAME, "token", CONTENT).await.unwrap();
        let told = |hop: &trail::Hop| format!("{} at {}: {}", hop.url, hop.address, hop.outcome);
        let hops: Vec<_> = trails.iter().flat_map(|trail| trail.hops.iter().map(told)).collect();
        let first = format!("http://{NAME}{PATH} at 192.0.2.1: 302, to https://{NAME}{PATH}");
        assert_eq!(hops, [first, format!("https://{NAME}{PATH} at 192.0.2.1: 200")]);
    }

    #[tokio::test]
    async fn a_redirect_loop_ends() {
        let world = World::default().name(NAME, &["192.0.2.1"]).redirect(&at("192.0.2.1"), PATH);
        assert_eq!(shown(&world.visible().await), "contradicted PREFLIGHT_REDIRECT_LOOP");
        assert_eq!(world.asked.lock().unwrap().len(), trail::REDIRECTS_MAX + 1);
    }

    #[tokio::test]
    async fn a_redirect_does_not_lead_us_to_a_metadata_service() {
        for target in ["http://169.254.169.254/latest/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
            let world = World::default().name(NAME, &["192.0.2.1"]).redirect(&at("192.0.2.1"), target);
            assert_eq!(shown(&world.visible().await), "unknown PREFLIGHT_REDIRECT_LOCAL", "{target}");
            assert_eq!(world.asked.lock().unwrap().len(), 1);
        }
    }
}
