//! The ledger against the limits that Let's Encrypt publishes.

use std::time::Duration;

use super::*;

const LE: &str = "https://acme-v02.api.letsencrypt.org/directory";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn issuer(directory: &str) -> Issuer {
    Issuer { name: "le".into(), directory: directory.into(), ..super::super::issuer::tests::issuer("i1") }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ask<'a>(issuer: &'a Issuer, certificate_id: &'a str, identifiers: &'a [String]) -> Ask<'a> {
    Ask { certificate_id, issuer, identifiers, exemption: Exemption::None, urgency: 500 }
}

/// How long the order has to wait, in seconds; 0 when it may be sent.
fn wait(ledger: &mut Ledger, ask: Ask<'_>, now: Timestamp) -> i64 {
    match ledger.decide(ask, now, 0.0) {
        Decision::Go(_) => 0,
        Decision::Wait(wait) => wait.until.duration_since(now).as_secs(),
    }
}

#[test]
fn the_sixth_certificate_of_one_set_waits_34_hours_and_nothing_is_sent() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let set = names(&["a.example.com", "b.example.com"]);
    let other_order = names(&["b.example.com", "a.example.com"]);
    for turn in 0..5 {
        let set = if turn % 2 == 0 { &set } else { &other_order };
        assert_eq!(wait(&mut ledger, ask(&issuer, "c1", set), at(turn)), 0);
    }
    let Decision::Wait(sixth) = ledger.decide(ask(&issuer, "c1", &set), at(5), 0.0) else { panic!("it is full") };
    assert_eq!((sixth.key.kind, sixth.until), (Kind::ExactSet, at(604_800 / 5)));
    let problem = sixth.problem("web", &issuer);
    assert_eq!(problem.reason, PREDICTED);
    assert_eq!(problem.message, "web waits for a limit of le: certificates for exactly these names");
    assert_eq!(
        problem.cause,
        "le allows 5 in 7 d: all are used or booked by orders before it; one is free again every 33 h"
    );
    assert!(problem.hint.contains("nothing was sent"), "{problem:?}");
    assert_eq!(wait(&mut ledger, ask(&issuer, "c1", &set), at(604_800 / 5)), 0, "its own place");
    assert!(wait(&mut ledger, ask(&issuer, "c1", &set), at(604_800 / 5)) > 100_000);
}

#[test]
fn who_has_least_of_its_life_left_goes_first_whoever_asked_first() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let set = names(&["a.example.com"]);
    for turn in 0..5 {
        assert_eq!(wait(&mut ledger, ask(&issuer, "done", &set), at(turn)), 0);
    }
    let asks =
        |ledger: &mut Ledger, id, urgency| wait(ledger, Ask { urgency, ..ask(&issuer, id, &set) }, at(5)) / 120_960;
    let places = |ledger: &mut Ledger| {
        ["calm", "late", "half", "expired"].map(|id| wait(ledger, ask(&issuer, id, &set), at(5)) / 120_960)
    };
    assert_eq!((asks(&mut ledger, "calm", 900), asks(&mut ledger, "late", 100)), (0, 0));
    assert_eq!(asks(&mut ledger, "half", 500), 1, "before the one that asked first, behind the urgent one");
    assert_eq!(asks(&mut ledger, "expired", 0), 0);
    assert_eq!(places(&mut ledger), [3, 1, 2, 0], "each its own place, the least urgent the last one");
    let turn = at(5 + 2 * 120_960);
    assert_eq!(wait(&mut ledger, ask(&issuer, "late", &set), turn), 0, "its own place");
    assert_eq!(places(&mut ledger)[0], 3, "who was overtaken still has its place");
}

#[test]
fn what_limits_one_order_is_told_and_nothing_else() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let set = names(&["www.example.com", "b.example.org"]);
    let told = |ledger: &Ledger, exemption| -> Vec<(&str, String, u32)> {
        let lines = ledger.lines_of(Ask { exemption, ..ask(&issuer, "c1", &set) }, at(1));
        lines.iter().map(|line| (line.key.kind.word(), line.key.name.clone(), line.used)).collect()
    };
    assert_eq!(wait(&mut ledger, ask(&issuer, "c2", &names(&["other.example.com"])), at(0)), 0);
    ledger.failed(&issuer, "b.example.org", at(0));
    let all = told(&ledger, Exemption::None);
    let shown: Vec<_> = all.iter().map(|(kind, name, used)| (*kind, name.as_str(), *used)).collect();
    assert_eq!(
        shown,
        [
            ("orders", "", 1),
            ("exact-set", exact_set(&set).as_str(), 0),
            ("registered-domain", "example.com", 1),
            ("registered-domain", "example.org", 0),
            ("failed-authorizations", "b.example.org", 1),
        ]
    );
    assert_eq!(told(&ledger, Exemption::SameSet).len(), 2, "the set, and what failed");
    assert!(told(&ledger, Exemption::Replaces).is_empty());
}

#[test]
fn how_limits_stand_is_one_word() {
    let (le, mut ledger) = (issuer(LE), Ledger::default());
    let word = |ledger: &Ledger, issuer: &Issuer| standing(&ledger.lines(issuer, at(0)));
    assert_eq!(word(&ledger, &le), "free");
    assert_eq!(word(&ledger, &issuer("https://ca.example.test/dir")), "none");
    let set = names(&["www.example.com"]);
    for _ in 0..5 {
        assert_eq!(wait(&mut ledger, ask(&le, "c1", &set), at(0)), 0);
    }
    assert_eq!(word(&ledger, &le), "low", "nothing of one set is left");
    assert!(wait(&mut ledger, ask(&le, "c2", &set), at(0)) > 0);
    assert_eq!(word(&ledger, &le), "waiting");
    let key = Key { kind: Kind::Orders, owner: le.id.clone(), name: String::new() };
    ledger.close(Closed { key, until: at(60), cause: "busy".into() }, None);
    assert_eq!(word(&ledger, &le), "closed");
}

#[test]
fn a_first_import_of_2000_names_is_paced_at_the_accounts_limit() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let mut first_waits = Vec::new();
    let sets: Vec<_> = (0..2_000).map(|number| names(&[&format!("www.site{number}.com")])).collect();
    let ids: Vec<_> = (0..2_000).map(|number| format!("c{number}")).collect();
    for (id, set) in ids.iter().zip(&sets) {
        first_waits.push(wait(&mut ledger, ask(&issuer, id, set), at(0)));
    }
    assert_eq!(first_waits.iter().filter(|wait| **wait == 0).count(), 300);
    assert_eq!(first_waits[300..303], [36, 72, 108]);
    assert_eq!(first_waits[1_999], 1_700 * 36, "each has a time of its own: nobody asks in vain");
    for index in [300, 301, 1_999] {
        let time = at(first_waits[index]);
        assert_eq!(wait(&mut ledger, ask(&issuer, &ids[index], &sets[index]), time), 0, "at its time it goes");
    }
    ledger.sweep(at(first_waits[1_999] + 3_601));
    assert!(ledger.booked.is_empty(), "places that nobody took up went to others");
}

#[test]
fn what_waits_for_its_domain_takes_no_place_of_the_account() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let sets: Vec<_> = (0..60).map(|number| names(&[&format!("h{number}.example.co.uk")])).collect();
    let ids: Vec<_> = (0..60).map(|number| format!("c{number}")).collect();
    let waits: Vec<_> =
        ids.iter().zip(&sets).map(|(id, set)| wait(&mut ledger, ask(&issuer, id, set), at(0))).collect();
    assert_eq!(waits.iter().filter(|wait| **wait == 0).count(), 50);
    assert_eq!(waits[50..52], [12_096, 24_192], "one every 202 minutes");
    assert_eq!(wait(&mut ledger, ask(&issuer, "other", &names(&["other.com"])), at(0)), 0, "others go on");
    let lines = ledger.lines(&issuer, at(0));
    let of = |kind| lines.iter().find(|line| line.key.kind == kind).unwrap();
    assert_eq!(of(Kind::Orders).used, 51);
    let domain = of(Kind::RegisteredDomain);
    assert_eq!(
        (domain.key.name.as_str(), domain.used, domain.left(), domain.waiting),
        ("example.co.uk", 50, Some(0), 10)
    );
}

#[test]
fn renewals_are_exempt_as_published_and_nowhere_else() {
    let (le, mut own) = (issuer(LE), issuer("https://ca.corp.test/dir"));
    assert_eq!(exemption(&le, true, true), Exemption::Replaces);
    assert_eq!(exemption(&le, false, true), Exemption::SameSet);
    assert_eq!(exemption(&le, false, false), Exemption::None);
    assert_eq!(exemption(&own, true, true), Exemption::None);
    let spent = |issuer: &Issuer, exemption| {
        let set = names(&["a.example.com"]);
        let ask = Ask { certificate_id: "c", issuer, identifiers: &set, exemption, urgency: 500 };
        match Ledger::default().decide(ask, at(0), 0.0) {
            Decision::Go(keys) => keys.into_iter().map(|key| key.kind).collect::<Vec<_>>(),
            Decision::Wait(_) => panic!("an empty ledger"),
        }
    };
    assert_eq!(spent(&le, Exemption::None), [Kind::Orders, Kind::ExactSet, Kind::RegisteredDomain]);
    assert_eq!(spent(&le, Exemption::SameSet), [Kind::ExactSet]);
    assert_eq!(spent(&le, Exemption::Replaces), []);
    assert_eq!(spent(&own, Exemption::None), [], "nothing is known of this CA");
    own.limits.insert(Kind::Orders, Limit { count: 10, period_s: 60 });
    assert_eq!(spent(&own, Exemption::None), [Kind::Orders]);
}

#[test]
fn failures_are_counted_when_they_happen() {
    let (issuer, mut ledger) = (issuer(LE), Ledger::default());
    let set = names(&["a.example.com"]);
    for second in 0..5 {
        assert_eq!(wait(&mut ledger, ask(&issuer, "c", &set), at(second)), 0);
        assert!(ledger.failed(&issuer, "a.example.com", at(second)).is_some());
        let unused = Key { kind: Kind::ExactSet, owner: issuer.ca_host(), name: exact_set(&set) };
        ledger.give_back(&unused, &issuer);
    }
    assert_eq!(wait(&mut ledger, ask(&issuer, "c", &set), at(10)), 710, "one failure is forgiven every 12 minutes");
    assert_eq!(wait(&mut ledger, ask(&issuer, "c", &set), at(720)), 0);
}

#[test]
fn what_a_ca_says_closes_what_it_names() {
    let issuer = issuer(LE);
    let set = names(&["a.example.com", "b.example.org"]);
    let check = |status, detail: &str, retry_after: Option<u64>, expected: &[(Kind, &str, i64)]| {
        let said = Refusal { status, detail, retry_after: retry_after.map(Duration::from_secs) };
        let closed = refusal(ask(&issuer, "c", &set), said, at(0));
        let told: Vec<_> = closed
            .iter()
            .map(|closed| (closed.key.kind, closed.key.name.as_str(), closed.until.duration_since(at(0)).as_secs()))
            .collect();
        assert_eq!(told, expected, "{detail}");
    };
    let new_orders =
        "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-22 10:00:00 UTC";
    check(429, new_orders, Some(90), &[(Kind::Orders, "", 90)]);
    let domain =
        "too many certificates (50) already issued for \"example.org\" in the last 168h0m0s, retry after later";
    check(429, domain, Some(9_000), &[(Kind::RegisteredDomain, "example.org", 9_000)]);
    let set_name = exact_set(&set);
    let exact = "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s";
    check(429, exact, None, &[(Kind::ExactSet, &set_name, 3_600)]);
    let failed = "too many failed authorizations (5) for \"a.example.com\" in the last 1h0m0s";
    check(429, failed, Some(700), &[(Kind::FailedAuthorizations, "a.example.com", 700)]);
    check(503, "Service busy; retry later.", Some(120), &[(Kind::Requests, "", 120)]);
    check(429, "slow down", Some(86_400), &[(Kind::Orders, "", 3_600)]);
}

#[test]
fn a_closed_scope_holds_its_orders_and_no_others_and_survives_a_restart() {
    let issuer = issuer(LE);
    let (mine, other) = (names(&["a.example.com"]), names(&["a.example.org"]));
    let key = Key { kind: Kind::RegisteredDomain, owner: issuer.ca_host(), name: "example.com".into() };
    let closed = Closed { key, until: at(600), cause: "too many".into() };
    let entry = Entry { id: "1".into(), at: at(0), spent: Vec::new(), closed: Some(closed) };
    let mut ledger = Ledger::default();
    ledger.replay(&entry, at(0), |key| limit_of(&issuer, key.kind));
    assert_eq!(wait(&mut ledger, ask(&issuer, "c1", &mine), at(1)), 599);
    let Decision::Wait(jittered) = ledger.decide(ask(&issuer, "c1", &mine), at(1), 1.0) else { panic!("closed") };
    assert!(jittered.until > at(600) && jittered.until <= at(660), "{jittered:?}");
    assert!(jittered.problem("web", &issuer).cause.contains("too many"));
    assert_eq!(wait(&mut ledger, ask(&issuer, "c2", &other), at(1)), 0);
    assert_eq!(wait(&mut ledger, ask(&issuer, "c1", &mine), at(600)), 0);
    assert_eq!(wait(&mut ledger, ask(&issuer, "c3", &mine), at(600)), 12_096, "then one by one, as the CA counts");
}

#[test]
fn what_was_spent_is_known_again_after_a_restart() {
    let issuer = issuer(LE);
    let set = names(&["a.example.com"]);
    let mut ledger = Ledger::default();
    let mut entries = Vec::new();
    for second in 0..5 {
        let Decision::Go(spent) = ledger.decide(ask(&issuer, "c", &set), at(second), 0.0) else {
            panic!("room for five")
        };
        entries.push(Entry { id: format!("{second}"), at: at(second), spent, closed: None });
    }
    let mut again = Ledger::default();
    entries.iter().for_each(|entry| again.replay(entry, at(9), |key| limit_of(&issuer, key.kind)));
    let key = |ledger: &Ledger| ledger.lines(&issuer, at(9)).into_iter().find(|line| line.key.kind == Kind::ExactSet);
    assert_eq!(key(&again), key(&ledger));
    assert_eq!(key(&again).map(|line| (line.used, line.refills_at)), Some((5, Some(at(604_800 / 5)))));
    again.sweep(at(8 * 86_400));
    assert!(again.buckets.is_empty(), "nothing is kept for ever");
}

#[test]
fn a_leap_of_the_clock_never_waits_longer_than_a_period() {
    let issuer = issuer(LE);
    let set = names(&["a.example.com"]);
    let mut ledger = Ledger::default();
    let leapt = at(400 * 86_400);
    let key = Key { kind: Kind::Requests, owner: issuer.ca_host(), name: String::new() };
    for turn in 0..5 {
        let Decision::Go(spent) = ledger.decide(ask(&issuer, "c", &set), leapt, 0.0) else { panic!("room for five") };
        let closed = Closed { key: key.clone(), until: leapt + SignedDuration::from_mins(2), cause: String::new() };
        let entry = Entry { id: format!("{turn}"), at: leapt, spent, closed: Some(closed) };
        let mut back = Ledger::default();
        (0..=turn).for_each(|_| back.replay(&entry, at(0), |key| limit_of(&issuer, key.kind)));
        assert!(wait(&mut back, ask(&issuer, "c2", &set), at(0)) <= 120);
        assert!(wait(&mut back, ask(&issuer, "c2", &set), at(120)) <= 604_800);
    }
}

#[test]
fn registered_domains_follow_the_public_suffix_list() {
    for (identifier, expected) in [
        ("www.example.com", "example.com"),
        ("*.example.co.uk", "example.co.uk"),
        ("a.b.c.example.github.io", "example.github.io"),
        ("web.example.test", "example.test"),
        ("localhost", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
    ] {
        assert_eq!(registered_domain(identifier), expected);
    }
}

#[test]
fn the_pace_is_below_200_requests_in_any_second() {
    let default = limits("ca.test")[&Kind::Requests];
    let pace = pace(default);
    assert!(u64::from(pace.burst) + 1_000_000 / pace.step_us <= 200, "{pace:?}");
}

#[test]
fn a_host_is_read_from_the_directory() {
    for (url, host) in [
        (LE, "acme-v02.api.letsencrypt.org"),
        ("https://CA.test:443/dir", "ca.test"),
        ("https://ca.test:14000/dir", "ca.test:14000"),
        ("https://ca.test?x", "ca.test"),
    ] {
        assert_eq!(issuer(url).ca_host(), host);
    }
}
