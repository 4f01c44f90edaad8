//! What a CA offers beside the common road (features.md A13, A14), as Pebble has it: external accounts, alternate chains,
//! addresses, other keys, another account key, revocation.

use anyhow::Context;
use e2e::lab::eventually;
use e2e::pebble::{CUSTOMER, Settings};
use e2e::site::{Server, Site};
use serde_json::Value;

use crate::{SOON, explains, is_done, says};

/// The leaf that a server shows, as `openssl x509 -text` prints it.
async fn leaf(server: &Server, name: &str) -> anyhow::Result<String> {
    let path = format!("{}/cert.pem", server.dir(name));
    server.host.ok(&["openssl", "x509", "-noout", "-text", "-in", &path]).await
}

#[tokio::test]
async fn a_ca_for_customers_wants_a_binding_refuses_a_wrong_one_and_takes_the_right_one() -> anyhow::Result<()> {
    let site = Site::start_at(Settings { customers_only: true, ..Settings::default() }).await?;
    let server = site.server(1).await?;
    let (directory, root) = (site.ca.directory(), site.ca.root());
    let account = async |words: &[&str], status: &str, reason: &str| {
        let tried = site.control.certwright(words).await?;
        assert_ne!(tried.status, Some(0), "{tried}");
        says(&tried.text(), &["external account", "--eab-kid"]);
        let issuer = site.control.json(&["issuers", "get", "lab"]).await?;
        assert_eq!(issuer["account_status"], status, "{issuer:#}");
        assert_eq!(issuer["external_account_required"], true);
        assert_eq!(issuer["error"]["reason"], reason);
        explains(&issuer["error"], &[]);
        anyhow::Ok(())
    };
    let add = ["issuers", "add", "lab", "--accept-terms", "--directory", &directory, "--root", &root];
    account(&add, "external", "ACME_EXTERNAL_ACCOUNT").await?;
    let key = site.control.path("mac.key");
    let place = format!("@{key}");
    let bind = |kid| ["issuers", "set", "lab", "--eab-kid", kid, "--eab-key", &place];
    std::fs::write(&key, "AAAAAM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")?;
    account(&bind(CUSTOMER.0), "external", "ACME_EXTERNAL_REFUSED").await?;
    std::fs::write(&key, CUSTOMER.1)?;
    account(&bind("customer-8"), "external", "ACME_EXTERNAL_REFUSED").await?;
    site.control.ok(&bind(CUSTOMER.0), &[]).await?;
    let issuer = site.control.json(&["issuers", "get", "lab"]).await?;
    assert_eq!((&issuer["account_status"], &issuer["external_kid"]), (&"valid".into(), &CUSTOMER.0.into()));
    assert!(!issuer.to_string().contains(CUSTOMER.1), "the MAC key is shown to nobody");
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await
}

#[tokio::test]
async fn an_address_gets_a_certificate_and_the_preferred_chain_is_taken() -> anyhow::Result<()> {
    let site = Site::start_at(Settings { alternate_chains: 1, ..Settings::default() }).await?;
    let mut server = site.server(1).await?;
    let other = site.control.path("other-root.pem");
    std::fs::write(&other, site.ca.root_of_chain(1).await?)?;
    let first = site.control.path("first-root.pem");
    std::fs::write(&first, site.ca.root_of_chain(0).await?)?;
    let names = ["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline,-align", "-in", &other];
    let common_name = site.control.host.ok(&names).await?;
    let common_name = common_name.split_once("commonName = ").context("the root has a CN")?.1.trim().to_owned();
    let (directory, root) = (site.ca.directory(), site.ca.root());
    let add = ["issuers", "add", "lab", "--accept-terms", "--directory", &directory, "--root", &root];
    site.control.ok(&add, &["--preferred-chain", &common_name]).await?;

    // Who asks for an address says no name: the first server of nginx answers.
    let address = server.host.address.to_string();
    server.nginx.take().context("nginx runs")?.stop().await?;
    server.serve(&[&address]).await?;
    site.create(&server, "box", &address, &["--wait"]).await?.expect_ok()?;
    let record = site.control.certificate("box").await?;
    assert!(is_done(&record), "the agent has seen it served: {record:#}");
    says(&leaf(&server, &address).await?, &[&format!("IP Address:{address}")]);
    let url = format!("https://{address}/");
    let trusting = async |root: &str| site.control.host.run(&["curl", "-sf", "--cacert", root, &url]).await;
    // For 100 ms after a reload an old worker of nginx may still answer.
    let accepted = async |what: &str, root: &str| {
        let told = async || Ok(Some(trusting(root).await?).filter(|ran| ran.status == Some(0)));
        anyhow::Ok(eventually(what, SOON, told).await?.stdout.trim().to_owned())
    };
    assert_eq!(accepted("a client that trusts the other root", &other).await?, address);
    assert_ne!(trusting(&first).await?.status, Some(0), "the CA's first choice would have been another chain");
    let history = site.control.json(&["certs", "activity", "box"]).await?;
    assert!(!history.to_string().contains("version.chain"), "nothing was missed: {history:#}");

    // A chain that the CA does not offer hinders nothing, and is said.
    site.control.ok(&["issuers", "set", "lab", "--preferred-chain", "No Such Root"], &[]).await?;
    let current = record["current"]["fingerprint_sha256"].clone();
    site.control.ok(&["certs", "renew", "box", "--override-lock", "drill"], &[]).await?;
    let renewed = |record: &Value| is_done(record) && record["current"]["fingerprint_sha256"] != current;
    site.control.until("box", "the renewed version", SOON, renewed).await?;
    assert_eq!(accepted("the new chain", &first).await?, address);
    says(&site.control.ok(&["certs", "activity", "box"], &[]).await?, &["No Such Root", &common_name]);
    Ok(())
}

#[tokio::test]
async fn every_usual_key_is_made_in_both_custodies_and_served() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut server = site.server(1).await?;
    let cases = [
        ("p384", "agent", "ASN1 OID: secp384r1"),
        ("p384", "controller", "ASN1 OID: secp384r1"),
        ("rsa2048", "agent", "Public-Key: (2048 bit)"),
        ("rsa2048", "controller", "Public-Key: (2048 bit)"),
    ];
    let name = |key: &str, custody: &str| format!("{key}-{custody}.example.test");
    let names: Vec<String> = cases.iter().map(|(key, custody, _)| name(key, custody)).collect();
    server.nginx.take().context("nginx runs")?.stop().await?;
    server.serve(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for (key, custody, words) in cases {
        let name = name(key, custody);
        site.ca.name(&name, &[&server.host.address.to_string()]).await?;
        site.create(&server, &name, &name, &["--key", key, "--custody", custody, "--wait"]).await?.expect_ok()?;
        site.proven(&server, &name, &name).await?;
        says(&leaf(&server, &name).await?, &[words, "DNS:"]);
    }
    Ok(())
}

#[tokio::test]
async fn another_account_key_orders_and_revokes_what_the_first_one_got() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    let first = site.control.certificate("web").await?["current"].clone();
    let serial = first["serial"].as_str().context("a serial is text")?;
    assert_eq!(site.ca.status_of(serial).await?["Status"], "Valid");
    let account = site.control.json(&["issuers", "get", "lab"]).await?["account_url"].clone();

    site.control.ok(&["issuers", "rollover", "lab"], &[]).await?;
    let issuer = site.control.json(&["issuers", "get", "lab"]).await?;
    assert_eq!((&issuer["account_status"], &issuer["account_url"]), (&"valid".into(), &account), "the same account");
    let renewed = |serial: &Value| {
        let serial = serial.clone();
        move |record: &Value| is_done(record) && record["current"]["serial"] != serial
    };
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let record = site.control.until("web", "an order under the new key", SOON, renewed(&first["serial"])).await?;
    let second = &record["current"]["serial"];
    let rolled = site.control.json(&["issuers", "get", "lab"]).await?;
    assert_eq!(rolled["account_url"], account, "it was not registered again");

    let serial = second.as_str().context("a serial is text")?;
    let revoke = ["certs", "revoke", "web", "--reason", "keyCompromise", "--confirm=web"];
    site.control.ok(&revoke, &["--wait"]).await?;
    let status = site.ca.status_of(serial).await?;
    assert_eq!((&status["Status"], &status["Reason"]), (&"Revoked".into(), &1.into()), "{status:#}");
    site.control.until("web", "the replacement", SOON, renewed(second)).await?;
    site.proven(&server, "web", &name).await
}
