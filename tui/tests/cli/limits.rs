//! The limits of a CA, as people and programs read them, and as they are set.

use insta::assert_snapshot;
use proto::operator::v1::{LimitLine, ListLimitsResponse};

use crate::controller::{FakeController, World};
use crate::fixtures::at;
use crate::{run, session, world};

fn line(kind: &str, name: &str, count: u32, period_seconds: u32) -> LimitLine {
    LimitLine {
        kind: kind.into(),
        name: name.into(),
        count,
        period_seconds,
        left: count,
        source: "published".into(),
        ..LimitLine::default()
    }
}

fn limited() -> World {
    let items = vec![
        LimitLine { used: 300, left: 0, refills_at: at(12), waiting: 1_700, ..line("orders", "", 300, 10_800) },
        LimitLine {
            used: 7,
            left: 43,
            refills_at: at(9_000),
            closed_until: at(90 * 60),
            cause: "too many certificates\u{1b}[31m".into(),
            ..line("registered-domain", "example.com", 50, 604_800)
        },
        line("exact-set", "", 5, 604_800),
        LimitLine { source: "default".into(), ..line("requests", "", 100, 1) },
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
