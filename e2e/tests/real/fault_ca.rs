//! What a CA does wrong over the wire, against the real client: each case is a script of the fault CA. Asserted is what the
//! operator sees, and what the CA was asked.

use e2e::lab::eventually;
use e2e::site::{Server, Site};
use jiff::{SignedDuration, Timestamp};
use proto::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::{SOON, explains, is_done, says};

/// Beyond it a client must stop reading (reliability.md T8): 1 MiB, and the head of the answer.
const BODY: u64 = 4 * 1024 * 1024;

fn order_is_held(record: &Value) -> bool {
    matches!(record["order"]["phase"].as_str(), Some("waiting" | "failed"))
        && record["order"]["error"]["message"].is_string()
}

/// Returns a name of its own that points to the server.
async fn named(site: &Site, server: &Server, case: &str) -> anyhow::Result<String> {
    let name = format!("{case}.example.test");
    site.ca.name(&name, &[&server.host.address.to_string()]).await?;
    Ok(name)
}

fn rule(kind: &str, act: Value) -> Value {
    json!({ "rules": [{ "kind": kind, "act": act }] })
}

fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<&str>) -> Value {
    json!({ "problem": { "status": status, "type": kind, "detail": detail, "retry_after": retry_after } })
}

#[tokio::test]
async fn what_a_ca_must_not_send_ends_the_attempt_and_is_told_in_plain_words() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let ca = site.fault_ca().await?;
    let deep = "[".repeat(10_000);
    let hostile = "\u{1b}[31mroot\u{1b}[0m <b>owned</b>\r\nSet-Cookie: x\u{202e}";
    let cases = [
        ("long", rule("new-order", json!({ "long": BODY })), vec!["large"]),
        ("garbage", rule("new-order", json!({ "body": { "status": 201, "text": "{\"status\": \"pen" } })), vec![]),
        ("deep", rule("new-order", json!({ "body": { "status": 201, "text": deep } })), vec![]),
        ("types", rule("new-order", json!({ "body": { "status": 201, "text": "{\"status\": 7}" } })), vec![]),
        ("page", rule("new-order", json!({ "body": { "status": 502, "text": "<h1>Bad Gateway</h1>" } })), vec!["502"]),
        ("closed", rule("new-order", json!("close")), vec!["CA_UNREACHABLE"]),
        ("escape", rule("new-order", problem(400, "malformed", hostile, None)), vec!["owned"]),
        ("token", json!({ "token": "../../etc/cron.d/x" }), vec!["token"]),
    ];
    for (case, script, words) in cases {
        ca.script(&script)?;
        let before = ca.count("new-order");
        let name = named(&site, &server, case).await?;
        site.create_at("faulty", &server, case, &name, &[]).await?.expect_ok()?;
        let record = site.control.until(case, "the order to be held", SOON, order_is_held).await?;
        let error = &record["order"]["error"];
        explains(error, &words);
        let text = error.to_string();
        assert!(!text.contains("u001b") && !text.contains('\u{1b}') && !text.contains('\u{202e}'), "{case}: {text}");
        let shown = site.control.ok(&["certs", "get", case], &[]).await?;
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{case}: {shown:?}");
        assert!(ca.count("new-order") - before <= 2, "{case}: {} requests", ca.count("new-order") - before);
        ca.script(&json!({}))?;
        site.control.ok(&["certs", "delete", case], &[&format!("--confirm={case}")]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_ca_that_asks_for_patience_in_either_form_is_left_alone_until_then() -> anyhow::Result<()> {
    const WAIT: i64 = 3_600;
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let ca = site.fault_ca().await?;
    for (case, script) in [
        ("date", rule("new-order", problem(429, "rateLimited", "too many orders", Some("date+3600")))),
        ("seconds", rule("new-order", problem(503, "serverInternal", "the service is down", Some("3600")))),
    ] {
        let (before, asked_at) = (ca.count("new-order"), SystemClock.now());
        ca.script(&script)?;
        let name = named(&site, &server, case).await?;
        site.create_at("faulty", &server, case, &name, &[]).await?.expect_ok()?;
        let record = site.control.until(case, "the order to be held", SOON, order_is_held).await?;
        explains(&record["order"]["error"], &[]);
        let retry_at: Timestamp = record["order"]["retry_at"].as_str().unwrap_or_default().parse()?;
        let wait = retry_at.duration_since(asked_at);
        // The second certificate may wait for what the CA said of the account when the first one asked.
        let least = SignedDuration::from_secs(WAIT - 300);
        assert!(wait >= least && wait < least + SignedDuration::from_secs(WAIT / 4), "{case}: {wait} {record:#}");
        let asked = ca.count("new-order") - before;
        assert!(asked == 1 || (asked == 0 && before > 0), "{case}: asked {asked} times");
        site.control.ok(&["certs", "delete", case], &[&format!("--confirm={case}")]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_ca_that_dies_and_refuses_nonces_still_issues_one_order_once() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let mut ca = site.fault_ca().await?;
    let name = server.identifier();
    let nonce = problem(400, "badNonce", "the nonce was used", None);
    ca.script(&json!({
        "processing_polls": 4, "poll_after": "date+3",
        "rules": [{ "kind": "new-order", "times": 2, "act": nonce }],
    }))?;
    site.create_at("faulty", &server, "web", &name, &[]).await?.expect_ok()?;
    let finalizing = |record: &Value| record["order"]["phase"] == "finalizing";
    site.control.until("web", "the order to be processed", SOON, finalizing).await?;
    ca.kill().await?;
    ca.start().await?;
    // A poll that met nobody costs the attempt, and the next one begins a minute later.
    let two_tries = SOON * 3;
    site.control.until("web", "the certificate", two_tries, is_done).await?;
    site.proven(&server, "web", &name).await?;
    assert_eq!(ca.count("new-order"), 3, "two refused nonces and the order");
    assert_eq!(ca.count("challenge"), 1);
    assert!(ca.count("order") <= 30, "{} polls", ca.count("order"));
    Ok(())
}

#[tokio::test]
async fn with_three_of_ten_nonces_refused_each_request_is_sent_again_and_no_order_twice() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let ca = site.fault_ca().await?;
    let name = server.identifier();
    let nonce = problem(400, "badNonce", "the nonce was used", None);
    ca.script(&json!({ "rules": [{ "kind": "signed", "percent": 30, "act": nonce }], "poll_after": "1" }))?;
    site.create_at("faulty", &server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    let refused = ca.requests().iter().filter(|line| line.status == 400).count();
    assert!(refused > 0, "the script struck");
    for kind in ["new-order", "challenge", "finalize", "certificate"] {
        let honest = ca.requests().iter().filter(|line| line.kind == kind && line.status < 300).count();
        assert_eq!(honest, 1, "{kind}: {:#?}", ca.requests());
    }
    let requests = ca.requests().len();
    assert!(requests <= 20 + refused, "{requests} requests, {refused} of them refused");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_never_ends_ends_one_attempt_and_a_moved_window_is_met_meanwhile() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let ca = site.fault_ca().await?;
    let at = |seconds| (SystemClock.now() + SignedDuration::from_secs(seconds)).to_string();
    let renewals = json!({ "retry_after": "date+1", "explanation_url": "https://ca.test/incident" });
    ca.script(&json!({ "renewals": renewals }))?;
    // Its directory offers it since the script does.
    site.control.ok(&["issuers", "test", "faulty"], &[]).await?;
    let name = server.identifier();
    site.create_at("faulty", &server, "web", &name, &["--wait"]).await?.expect_ok()?;
    let first = site.control.certificate("web").await?["current"].clone();
    eventually("the first question", SOON, async || Ok((ca.count("renewal-info") > 0).then_some(()))).await?;

    // Asked again after a minute at the earliest; half a minute later the window is over.
    let (start, end) = (at(70), at(95));
    let mut moved = renewals;
    moved["windows"] = json!([
        { "under": "other.test", "start": at(-60), "end": at(-30) },
        { "under": name, "from": at(5), "start": start, "end": end },
    ]);
    let drip = json!([{ "kind": "new-order", "times": 1, "act": "drip" }]);
    ca.script(&json!({ "renewals": moved, "rules": drip }))?;
    let other = named(&site, &server, "drip").await?;
    let asked_at = SystemClock.now();
    site.create_at("faulty", &server, "drip", &other, &[]).await?.expect_ok()?;
    let record = site.control.until("drip", "the attempt to end", SOON + SOON / 4, order_is_held).await?;
    explains(&record["order"]["error"], &["CA_TIMEOUT", "60 s"]);
    let waited = SystemClock.now().duration_since(asked_at);
    assert!(waited >= SignedDuration::from_secs(55) && waited <= SignedDuration::from_secs(75), "{waited}");

    let renewed = |record: &Value| is_done(record) && record["current"]["serial"] != first["serial"];
    let record = site.control.until("web", "the renewal in the window", SOON, renewed).await?;
    let history = site.control.json(&["certs", "activity", "web"]).await?;
    says(&history.to_string(), &["begins: renewal_info", "the CA moved the renewal", "https://ca.test/incident"]);
    let orders = ca.requests().into_iter().filter(|line| line.kind == "new-order" && line.at.to_string() >= start);
    let orders: Vec<_> = orders.collect();
    assert!(orders.first().is_some_and(|order| order.at.to_string() <= end), "{start}..{end}: {orders:?} {record:#}");
    site.proven(&server, "web", &name).await
}
