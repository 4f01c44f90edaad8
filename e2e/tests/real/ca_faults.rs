//! What goes wrong on the way to the CA. (What a CA can do wrong itself is scripted in the simulated tests.)

use e2e::site::Site;
use serde_json::Value;

use crate::{SOON, explains, is_done, says};

/// The order failed or waits, and says why.
fn order_is_held(record: &Value) -> bool {
    matches!(record["order"]["phase"].as_str(), Some("waiting" | "failed"))
        && record["order"]["error"]["message"].is_string()
}

#[tokio::test]
async fn an_unreachable_ca_is_waited_for_with_a_stated_time() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    let wall = "table inet wall {\n chain in {\n type filter hook input priority 0;\n tcp dport 14000 reject with tcp reset\n }\n}\n";
    site.ca.host.run_with(&["nft", "-f", "-"], wall).await?.expect_ok()?;
    site.create(&server, "web", &name, &[]).await?.expect_ok()?;
    let record = site.control.until("web", "the order to be held", SOON, order_is_held).await?;
    explains(&record["order"]["error"], &["14000", "CA_UNREACHABLE"]);
    assert!(!record["order"]["retry_at"].is_null(), "the next try has a time: {record:#}");
    site.ca.host.ok(&["nft", "delete", "table", "inet", "wall"]).await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    site.control.until("web", "the certificate", SOON, is_done).await?;
    site.proven(&server, "web", &name).await
}

#[tokio::test]
async fn a_ca_that_forgot_our_account_gets_a_new_one() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.ca.stop_server().await?;
    site.ca.start_server().await?;
    let first = site.control.certificate("web").await?["current"]["fingerprint_sha256"].clone();
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let renewed = |record: &Value| is_done(record) && record["current"]["fingerprint_sha256"] != first;
    site.control.until("web", "a version from the CA that forgot us", SOON, renewed).await?;
    site.proven(&server, "web", &name).await
}

#[tokio::test]
async fn a_wrong_root_is_told_from_an_unreachable_ca() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    let key = rcgen::KeyPair::generate()?;
    let other = rcgen::CertificateParams::new(vec!["other.example.test".to_owned()])?.self_signed(&key)?.pem();
    let path = site.control.path("other-root.pem");
    std::fs::write(&path, other)?;
    let words = ["issuers", "add", "lab", "--accept-terms", "--directory", &site.ca.directory(), "--root", &path];
    let added = site.control.certwright(&words).await?;
    if added.status == Some(0) {
        site.create(&server, "web", &name, &[]).await?.expect_ok()?;
        let record = site.control.until("web", "the order to be held", SOON, order_is_held).await?;
        explains(&record["order"]["error"], &["root"]);
    } else {
        says(&added.text(), &["root"]);
    }
    let words =
        ["issuers", "add", "lab2", "--accept-terms", "--directory", &site.ca.directory(), "--root", &site.ca.root()];
    site.control.certwright(&words).await?.expect_ok()?;
    Ok(())
}
