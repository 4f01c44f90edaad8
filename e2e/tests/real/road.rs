//! The road of one certificate (design §4), end to end, and the ways off its middle: renewal, several servers, custody at
//! the controller, webroot.

use anyhow::Context;
use e2e::lab::{Host, eventually};
use e2e::site::{Server, Site};

use crate::{SOON, is_done, says};

#[tokio::test]
async fn one_line_takes_a_certificate_from_nothing_to_served() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    let before = site.served(&server, &name).await?;
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    assert_ne!(site.served(&server, &name).await?, before, "nginx showed its own certificate before");
    let requests = site.ca.requests();
    assert!(requests <= 14, "{requests} ACME requests for one certificate and a new account");
    files_are_as_promised(&server.host, &server.dir(&name)).await?;
    chain_leads_to_the_root(&site, &server, &name).await?;
    port_is_closed(&server.host, 80).await
}

/// features.md D2 and design §4 *Files*: four files, modes, one switch, and what was there before kept.
async fn files_are_as_promised(host: &Host, dir: &str) -> anyhow::Result<()> {
    for (file, mode) in [("cert.pem", "644"), ("key.pem", "600"), ("chain.pem", "644"), ("fullchain.pem", "644")] {
        let path = format!("{dir}/{file}");
        assert_eq!(host.ok(&["stat", "-L", "-c", "%a", &path]).await?.trim(), mode, "{file}");
        let link = host.ok(&["readlink", &path]).await?;
        assert_eq!(link.trim(), format!(".certwright/current/{file}"));
    }
    let first = format!("{dir}/.certwright/0/fullchain.pem");
    assert!(host.read(&first).await?.contains("BEGIN CERTIFICATE"), "generation 0 is what the admin had");
    let key = host.ok(&["openssl", "pkey", "-pubout", "-in", &format!("{dir}/key.pem")]).await?;
    let leaf = host.ok(&["openssl", "x509", "-noout", "-pubkey", "-in", &format!("{dir}/fullchain.pem")]).await?;
    assert_eq!(key, leaf, "the key belongs to the leaf");
    Ok(())
}

/// A client that trusts only the CA's root accepts what nginx shows.
async fn chain_leads_to_the_root(site: &Site, server: &Server, name: &str) -> anyhow::Result<()> {
    let root = site.control.path("issuing-root.pem");
    std::fs::write(&root, site.ca.issuing_root().await?)?;
    let resolve = format!("{name}:443:{}", server.host.address);
    let url = format!("https://{name}/");
    let argv = ["curl", "-sf", "--cacert", &root, "--resolve", &resolve, &url];
    assert_eq!(site.control.host.ok(&argv).await?.trim(), name);
    Ok(())
}

async fn port_is_closed(host: &Host, port: u16) -> anyhow::Result<()> {
    eventually("the listener to be closed again", SOON, async || {
        let listening = host.ok(&["ss", "-Hltn", &format!("sport = :{port}")]).await?;
        Ok(listening.trim().is_empty().then_some(()))
    })
    .await
}

#[tokio::test]
async fn renews_at_once_when_asked_and_keeps_serving_meanwhile() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    let first = site.control.certificate("web").await?["current"]["fingerprint_sha256"].clone();
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let renewed = |record: &serde_json::Value| {
        assert_eq!(record["status"], "active", "a renewal never hides a valid version");
        is_done(record) && record["current"]["fingerprint_sha256"] != first
    };
    site.control.until("web", "the renewed version", SOON, renewed).await?;
    site.proven(&server, "web", &name).await?;
    let history = site.control.json(&["certs", "history", "web"]).await?;
    says(&history.to_string(), &[first.as_str().context("a fingerprint is text")?]);
    Ok(())
}

#[tokio::test]
async fn two_servers_share_a_certificate_in_the_controllers_custody() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (first, mut second) = (site.server(1).await?, site.server(2).await?);
    let name = first.identifier();
    second.nginx.take().context("nginx runs")?.stop().await?;
    second.serve(&[&name]).await?;
    site.create(&first, "web", &name, &["--custody", "controller", "--wait"]).await?.expect_ok()?;
    let target = second.target(&name);
    let words = ["targets", "add", "web"].into_iter().chain(target.iter().map(String::as_str));
    site.control.certwright(&words.collect::<Vec<_>>()).await?.expect_ok()?;
    let both = |record: &serde_json::Value| {
        is_done(record) && record["targets"].as_array().is_some_and(|targets| targets.len() == 2)
    };
    site.control.until("web", "both targets", SOON, both).await?;
    site.proven(&first, "web", &name).await?;
    site.proven(&second, "web", &name).await
}

#[tokio::test]
async fn answers_below_a_web_root_that_nginx_serves() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.bare_server(1).await?;
    server.host.own_folder("/var/www", "1m").await?;
    server.host.ok(&["mkdir", "-p", "/var/www/html"]).await?;
    let mut server = server;
    let name = server.identifier();
    server.serve(&[&name]).await?;
    server.configure(&[&name], "  server { listen 80; root /var/www/html; }\n").await?;
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await?;
    server.enroll(&site.control).await?;
    let policy = std::fs::read_to_string(server.policy())?;
    std::fs::write(server.policy(), policy.replace("webroots = []", "webroots = [\"/var/www/html\"]"))?;
    server.start_agent()?;
    site.control.connected("h1").await?;
    let target = server.target(&name);
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "lab", "--http01", "webroot:/var/www/html"];
    let words = words.into_iter().chain(target.iter().map(String::as_str)).chain(["--wait"]);
    site.control.certwright(&words.collect::<Vec<_>>()).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    eventually("the tokens to be withdrawn", SOON, async || {
        let left = server.host.ok(&["find", "/var/www/html", "-type", "f"]).await?;
        Ok(left.trim().is_empty().then_some(()))
    })
    .await
}

#[tokio::test]
async fn delete_leaves_the_files_and_purge_removes_them_once_no_longer_served() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let (name, dir) = (server.identifier(), server.dir(&server.identifier()));
    let key = format!("{dir}/key.pem");
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    let served = site.served(&server, &name).await?;
    site.control.ok(&["certs", "delete", "web", "--confirm=web"], &[]).await?;
    assert_ne!(site.control.certwright(&["certs", "get", "web"]).await?.status, Some(0), "it is no longer managed");
    assert!(server.host.read(&key).await?.contains("PRIVATE KEY"), "its files stay");
    assert_eq!(site.served(&server, &name).await?, served, "and are served");

    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.control.ok(&["certs", "delete", "web", "--purge", "--confirm=web"], &[]).await?;
    let deleting = site.control.certificate("web").await?;
    assert_eq!(deleting["deleting"], true, "it waits while nginx serves it: {deleting:#}");
    assert!(server.host.read(&key).await?.contains("PRIVATE KEY"), "nothing is taken from under nginx");
    server.host.ok(&["cp", "-rL", &dir, "/etc/nginx/kept"]).await?;
    let conf = server.host.read("/etc/nginx/nginx.conf").await?.replace(&dir, "/etc/nginx/kept");
    let other = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec![name.clone()])?.self_signed(&other)?.pem();
    server.host.write("/etc/nginx/kept/fullchain.pem", &leaf).await?;
    server.host.write("/etc/nginx/kept/key.pem", &other.serialize_pem()).await?;
    server.host.write("/etc/nginx/nginx.conf", &conf).await?;
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await?;
    // The agent looks again after a minute.
    eventually("the purge", SOON * 3, async || {
        Ok((server.host.run(&["test", "-e", &key]).await?.status != Some(0)).then_some(()))
    })
    .await?;
    eventually("the record to go", SOON, async || {
        Ok((site.control.certwright(&["certs", "get", "web"]).await?.status != Some(0)).then_some(()))
    })
    .await
}
