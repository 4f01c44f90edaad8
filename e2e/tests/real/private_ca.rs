//! A private CA as others see it: nginx serves its certificate, openssl trusts it by the exported root, refuses what is revoked
//! by the list that the controller serves, and refuses other names under the root.

use controller::lifecycle::certificate::KeyType;
use controller::lifecycle::private_ca::PrivateCa;
use controller::private_ca::{certify_root, new_key, sign};
use e2e::lab::eventually;
use e2e::site::{LISTS, Site};
use proto::clock::{Clock as _, SystemClock};
use rcgen::{CertificateParams, KeyPair};

use crate::{SOON, is_done, says};

#[tokio::test]
async fn openssl_trusts_its_root_and_refuses_what_is_revoked_or_not_its_own() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    let control = &site.control;
    let url = format!("http://{LISTS}/crl/corp.crl");
    let words = ["issuers", "add", "corp", "--private", "--names", "*.example.test", "--names", "10.0.0.0/8"];
    let added = control.ok(&[words.as_slice(), &["--crl-url", &url]].concat(), &[]).await?;
    says(&added, &["private CA", "*.example.test, 10.0.0.0/8", "SHA-256", &url]);
    let refused = control.certwright(&["certs", "create", "x", "--san", "bank.example", "--issuer", "corp"]).await?;
    assert_eq!(refused.status, Some(2));
    says(&refused.stderr, &["bank.example", "issuers set corp --names"]);

    let target = server.target(&name);
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "corp", "--wait"];
    let words: Vec<&str> = words.into_iter().chain(target.iter().map(String::as_str)).collect();
    control.certwright(&words).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;

    let (root, list) = (control.path("corp.crt"), control.path("corp.crl"));
    let told = control.certwright(&["issuers", "root", "corp", "--out", &root]).await?;
    says(&told.stderr, &["SHA-256", "update-ca-certificates", "update-ca-trust"]);
    let connect = format!("{}:443", server.host.address);
    let handshake = ["openssl", "s_client", "-connect", &connect, "-servername", &name, "-CAfile", &root];
    let handshake = [handshake.as_slice(), &["-verify_hostname", &name, "-verify_return_error"]].concat();
    let shown = control.host.run_with(&handshake, "").await?;
    says(&shown.stdout, &["Verify return code: 0 (ok)"]);

    // The list as a client fetches it, and as the command line writes it.
    let leaf = control.path("leaf.pem");
    std::fs::write(&leaf, server.host.read(&format!("{}/cert.pem", server.dir(&name))).await?)?;
    says(&control.host.ok(&["openssl", "x509", "-noout", "-text", "-in", &leaf]).await?, &[&url, "TLS Web Server"]);
    let verify = async || {
        control.host.ok(&["curl", "-sf", "-o", &list, &url]).await?;
        let verify = ["openssl", "verify", "-CAfile", &root, "-crl_check", "-CRLfile", &list, &leaf];
        control.host.run(&verify).await
    };
    assert_eq!(verify().await?.status, Some(0));
    let first = control.certificate("web").await?["current"]["serial"].clone();
    control.ok(&["certs", "revoke", "web", "--reason", "keyCompromise", "--confirm=web"], &[]).await?;
    eventually("the list to hold it", SOON, async || {
        let verified = verify().await?;
        Ok(format!("{}{}", verified.stdout, verified.stderr).contains("certificate revoked").then_some(()))
    })
    .await?;
    let replaced = |record: &serde_json::Value| is_done(record) && record["current"]["serial"] != first;
    drop(control.until("web", "the replacement", SOON, replaced).await?);
    says(&control.ok(&["issuers", "crl", "corp"], &[]).await?, &["BEGIN X509 CRL"]);

    constrained(&site, &root).await
}

/// Whoever got the key signs another name: openssl refuses it by the constraints of the root.
async fn constrained(site: &Site, root: &str) -> anyhow::Result<()> {
    let host = &site.control.host;
    let text = host.ok(&["openssl", "x509", "-noout", "-text", "-in", root]).await?;
    says(&text, &["X509v3 Name Constraints: critical", "DNS:example.test", "IP:10.0.0.0/255.0.0.0", "pathlen:0"]);
    let (own, leaf) = (site.control.path("stolen.crt"), site.control.path("stolen.pem"));
    for (names, name, refused) in [
        (vec!["*.example.test"], "web.example.test", false),
        (vec!["*.example.test"], "bank.example", true),
        (vec!["*.example.test"], "10.0.0.1", true),
        (vec!["10.0.0.0/8"], "10.0.0.1", false),
        (vec!["10.0.0.0/8"], "web.example.test", true),
        (vec!["10.0.0.0/8"], "192.0.2.1", true),
    ] {
        let (root, chain) = signed(&names, name)?;
        std::fs::write(&own, root)?;
        std::fs::write(&leaf, chain)?;
        let verified = host.run(&["openssl", "verify", "-CAfile", &own, &leaf]).await?;
        let said = format!("{}{}", verified.stdout, verified.stderr);
        assert_eq!(verified.status != Some(0), refused, "{name} under {names:?}: {said}");
        assert!(!refused || said.contains("subtree violation"), "{said}");
    }
    Ok(())
}

/// A root for these names, and a leaf of its key for another one: the policy is the controller's, the constraints are not.
fn signed(names: &[&str], name: &str) -> anyhow::Result<(String, String)> {
    let now = SystemClock.now();
    let mut ca = PrivateCa {
        common_name: "Stolen CA".into(),
        key_type: KeyType::P256,
        names: names.iter().filter_map(|name| name.parse().ok()).collect(),
        leaf_life_s: 3_600,
        root_life_s: 36_000,
        list_url: None,
        key: None,
        roots: Vec::new(),
    };
    let key = new_key(ca.key_type)?;
    let root = certify_root(&ca, &key, now)?;
    ca.take_root(root.clone(), now);
    let csr = CertificateParams::new(vec![name.to_owned()])?.serialize_request(&KeyPair::generate()?)?;
    Ok((root.pem, sign(&ca, &key, csr.der(), &[name.to_owned()], now)?))
}
