//! The limits of a CA, as people and programs read them, and as they are set.

use insta::assert_snapshot;
use proto::operator::v1::{Certificate, LimitLine, ListLimitsResponse, OrderLimits, Pause};

use crate::controller::{FakeController, World};
use crate::fixtures::{at, limit, troubled_certificate};
use crate::{run, session, world};

fn limited() -> World {
    let items = vec![
        LimitLine { used: 300, left: 0, refills_at: at(12), waiting: 1_700, ..limit("orders", "", 300, 10_800) },
        LimitLine {
            used: 7,
            left: 43,
            refills_at: at(9_000),
            closed_until: at(90 * 60),
            cause: "too many certificates\u{1b}[31m".into(),
            ..limit("registered-domain", "example.com", 50, 604_800)
        },
        limit("exact-set", "", 5, 604_800),
        LimitLine { source: "default".into(), ..limit("requests", "", 100, 1) },
    ];
    let limits = ListLimitsResponse { issuer: "lab".into(), host: "ca.example.test".into(), published: true, items };
    World { limits, ..world() }
}

#[tokio::test]
async fn limits_show_what_is_used_left_and_when_it_refills() {
    let fake = FakeController::start(limited());
    let commands: &[&[&str]] = &[
        &["issuers", "limits", "lab"],
        &["issuers", "limits", "lab", "-o", "wide"],
        &["issuers", "limits", "lab", "-o", "json"],
    ];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn explain_says_what_limits_the_next_order_and_that_a_pause_stands_above_every_reason() {
    let items = limited().limits.items.into_iter().take(3).collect();
    let limits = OrderLimits { issuer: "lab".into(), exemption: String::new(), items };
    let pause = Pause { since_at: at(-60), by: "local:ann".into(), reason: "move".into(), all: true };
    let web = Certificate { limits: Some(limits), pause: Some(pause), ..troubled_certificate("web") };
    let exempt = OrderLimits { issuer: "le".into(), exemption: "replaces".into(), items: Vec::new() };
    let shop = Certificate { limits: Some(exempt), ..troubled_certificate("shop") };
    let fake = FakeController::start(World { certificates: vec![web, shop], ..world() });
    let told = run(&fake, &["certs", "explain", "web"]).await.out;
    for part in [
        "no: paused by local:ann (all)",
        "limits of lab for its next order:",
        "orders: 300 of 300 in 3h used, refills 2026-11-21 21:30:12Z (in 12s), 1700 waiting",
        "registered domain example.com: 7 of 50 in 7d used, closed by the CA until 2026-11-21 23:00:00Z (in 1h30m): too",
        "exact set: 0 of 5 in 7d used",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    assert!(!told.contains("yes, now") && !told.contains('\u{1b}'), "{told}");
    let told = run(&fake, &["certs", "explain", "shop"]).await.out;
    assert!(told.contains("yes, now") && told.contains("the CA counts nothing: the order says"), "{told}");
}

#[tokio::test]
async fn limits_are_set_one_by_one_or_reset() {
    let fake = FakeController::start(limited());
    let words = ["issuers", "limits", "lab", "--set", "orders=100/1d", "--set", "exact-set=none"];
    assert_eq!(run(&fake, &words).await.code, 0);
    assert_eq!(run(&fake, &["issuers", "limits", "lab", "--reset"]).await.code, 0);
    let asked = fake.requests().join("\n");
    for part in ["\"orders\"", "count: 100", "period_seconds: 86400", "\"exact-set\"", "reset: true"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let refused = run(&fake, &["issuers", "limits", "lab", "--set", "orders=many"]).await;
    assert!(refused.code == 2 && refused.err.contains("orders=300/3h"), "{}", refused.err);
}
