//! The audit as people read it, take it away and check it.

use insta::assert_snapshot;
use proto::audit::{BEGINNING, Head, Line, hash};
use proto::operator::v1::ListAuditResponse;
use proto::types::v1::AuditHead;
use proto::x509::hex;
use rcgen::{KeyPair, PublicKeyData as _};

use crate::controller::{FakeController, World};
use crate::{run, session, world};

/// Five lines, their head, and the key that signed it.
fn audited() -> (World, KeyPair) {
    let mut previous = BEGINNING.to_owned();
    let mut lines = Vec::new();
    let mut add = |act: &str, subject: &str, detail: &str, result: &str, answers| {
        let line = Line {
            seq: u64::try_from(lines.len()).unwrap() + 1,
            at: "2026-11-21T21:00:00Z".parse().unwrap(),
            actor: "local:alice".into(),
            from: "uid 1000, login uid 1000".into(),
            act: act.into(),
            subject: subject.into(),
            detail: detail.into(),
            result: result.into(),
            answers,
            previous: previous.clone(),
        };
        let text = serde_json::to_string(&line).unwrap();
        previous = hash(&text);
        lines.push(text);
    };
    add("RenewCertificate", "web", "override-lock=key leaked", "asked", None);
    add("RenewCertificate", "web", "", "done", Some(1));
    add("AddIssuer", "", "ROLE_TOO_LOW: alice has the role viewer", "refused", None);
    add("DeleteCertificate", "shop\u{1b}[31m", "purge", "asked", None);
    add("DeleteCertificate", "shop", "NOT_FOUND: certificate shop does not exist", "failed", Some(4));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let head = Head::sign(1, 5, &previous, &key).unwrap();
    let head = Some(AuditHead::from(head));
    let audit = ListAuditResponse { lines, head, public_key: key.der_bytes().to_vec(), ..Default::default() };
    (World { audit, ..world() }, key)
}

/// What `certwright-agent status -o json` says of these heads.
fn witness(fake: &FakeController, key: &KeyPair, heads: &[Head]) -> String {
    let path = fake.folder().join("witness.json");
    let kept = serde_json::json!({ "name": "h1", "witness": { "key": hex(key.der_bytes()), "heads": heads } });
    std::fs::write(&path, kept.to_string()).unwrap();
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn the_audit_shows_each_act_with_what_came_of_it() {
    let fake = FakeController::start(audited().0);
    let commands: &[&[&str]] = &[
        &["audit", "ls"],
        &["audit", "ls", "-o", "wide"],
        &["audit", "ls", "-o", "json", "--limit", "1"],
        &["audit", "ls", "--start", "yesterday"],
        &["audit", "export", "--format", "csv"],
        &["audit", "verify"],
    ];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn an_export_is_checked_without_the_controller() {
    let fake = FakeController::start(audited().0);
    let path = fake.folder().join("audit.jsonl").to_string_lossy().into_owned();
    assert_eq!(run(&fake, &["audit", "export", "--out", &path]).await.code, 0);
    assert_eq!(run(&fake, &["audit", "verify", "--file", &path]).await.code, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("key leaked", "no reason")).unwrap();
    let broken = run(&fake, &["audit", "verify", "--file", &path]).await;
    assert!(broken.code == 1 && broken.err.contains("line 2 does not follow"), "{}", broken.err);
    let pdf = fake.folder().join("audit.pdf").to_string_lossy().into_owned();
    assert_eq!(run(&fake, &["audit", "export", "--format", "pdf", "--out", &pdf]).await.code, 0);
    assert!(std::fs::read(&pdf).unwrap().starts_with(b"%PDF-1.7"));
    let nowhere = run(&fake, &["audit", "export", "--out", "/nonexistent/audit"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("/nonexistent/audit"), "{}", nowhere.err);
}

#[tokio::test]
async fn a_witness_tells_a_rewritten_or_cut_audit() {
    let (world, key) = audited();
    let lines = world.audit.lines.clone();
    let fake = FakeController::start(world);
    let sign = |seq, hash: &str| Head::sign(1, seq, hash, &key).unwrap();
    let agrees = [sign(2, &hash(&lines[1])), sign(5, &hash(&lines[4]))];
    let file = witness(&fake, &key, &agrees);
    let ran = run(&fake, &["audit", "verify", "--witness", &file]).await;
    assert!(ran.code == 0 && ran.out.contains("2 heads of 1 witnesses agree"), "{}{}", ran.out, ran.err);
    let rewritten = witness(&fake, &key, &[sign(2, &"ab".repeat(32))]);
    let ran = run(&fake, &["audit", "verify", "--witness", &rewritten]).await;
    assert!(ran.code == 1 && ran.err.contains("agent h1 kept another line 2"), "{}", ran.err);
    let cut = witness(&fake, &key, &[sign(9, &"ab".repeat(32))]);
    let ran = run(&fake, &["audit", "verify", "--witness", &cut]).await;
    assert!(ran.code == 1 && ran.err.contains("saw line 9, and the last one here is 5"), "{}", ran.err);
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let forged = witness(&fake, &other, &agrees);
    let ran = run(&fake, &["audit", "verify", "--witness", &forged]).await;
    assert!(ran.code == 2 && ran.err.contains("not signed by the key beside it"), "{}", ran.err);
    fake.change(|world| world.audit.lines[2] = world.audit.lines[2].replace("viewer", "owner"));
    let ran = run(&fake, &["audit", "verify"]).await;
    assert!(ran.code == 1 && ran.err.contains("line 4 does not follow"), "{}", ran.err);
    fake.change(|world| drop(world.audit.lines.split_off(2)));
    let ran = run(&fake, &["audit", "verify"]).await;
    assert!(ran.code == 1 && ran.err.contains("the signed head is not of this chain"), "{}", ran.err);
}
