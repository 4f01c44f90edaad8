//! A server as its administrator left it, with two virtual hosts and a certificate: found by an agent with the policy of its
//! enrolment, and taken over at the same paths by what it suggests.

use anyhow::{Context, ensure};
use e2e::lab::eventually;
use e2e::site::{Server, Site};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::services::{apache, shown};
use crate::{SOON, is_done};

/// A certificate of the administrator's own, in a directory that the agent's policy allows.
async fn own_certificate(server: &Server, dir: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![server.identifier()])?.self_signed(&key)?.pem();
    server.host.write(&format!("{dir}/site.crt"), &leaf).await?;
    server.host.write(&format!("{dir}/site.key"), &key.serialize_pem()).await
}

/// Adds the lines that a suggestion says the policy lacks.
fn allow(server: &Server, suggestion: &Value) -> anyhow::Result<()> {
    let lines = suggestion["policy"].as_array().context("lines")?;
    let more: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    if more.is_empty() {
        return Ok(());
    }
    let mut policy = std::fs::read_to_string(server.policy())?;
    if more.contains(&"[http01]") {
        // Its lines take the place of those that are there.
        let kept: Vec<&str> =
            policy.lines().filter(|line| !["[http01]", "ports = [80]", "webroots = []"].contains(line)).collect();
        policy = kept.join("\n");
    }
    Ok(std::fs::write(server.policy(), format!("{policy}\n{}\n", more.join("\n")))?)
}

async fn detect(site: &Site) -> anyhow::Result<Value> {
    site.control.json(&["agents", "detect", "h1"]).await
}

fn each<'a>(found: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    found[list].as_array().into_iter().flatten()
}

fn suggested<'a>(found: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    each(found, "suggestions").find(|one| one["name"] == name).with_context(|| format!("{found:#}"))
}

#[tokio::test]
async fn what_apache_serves_is_found_and_taken_over_at_its_paths() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut server = site.bare_server(1).await?;
    let name = server.identifier();
    for folder in ["/etc/apache2", "/var/log/apache2"] {
        server.host.own_folder(folder, "1m").await?;
    }
    server.host.ok(&["mkdir", "-p", "/run/lock", "/run/www"]).await?;
    let conf = apache().files.remove(0).1;
    let head = conf.split("<VirtualHost").next().context("a head")?;
    let vhosts = format!(
        "<VirtualHost *:443>\n  ServerName {name}\n  DocumentRoot /run/www\n  SSLEngine on\n  SSLCertificateFile \
         /etc/apache2/tls/site.crt\n  SSLCertificateKeyFile \"/etc/apache2/tls/site.key\"\n</VirtualHost>\n\
         <VirtualHost *:443>\n  ServerName other.example.test\n  SSLEngine on\n  SSLCertificateFile \
         /etc/apache2/tls/site.crt\n  SSLCertificateKeyFile /etc/apache2/tls/site.key\n</VirtualHost>\n"
    );
    own_certificate(&server, "/etc/apache2/tls").await?;
    server.host.write("/etc/apache2/sites-enabled/www.conf", &vhosts).await?;
    server.host.write("/etc/apache2/apache2.conf", &format!("{head}Include sites-enabled/*.conf\n")).await?;
    let mut running = server.host.start("apache", apache().start, &[])?;
    let before = eventually("apache", SOON, async || {
        ensure!(running.runs(), "it ended:\n{}", running.output());
        shown(&site, &server, "127.0.0.1:443").await.map(Some)
    })
    .await?;
    server.enroll(&site.control).await?;
    server.start_agent()?;
    site.control.connected("h1").await?;

    let found = detect(&site).await?;
    ensure!(found["os"].as_str().is_some_and(|os| !os.is_empty()), "{found:#}");
    // What else is installed here is found too.
    let sites: Vec<&Value> = each(&found, "sites").filter(|one| one["service"] == "apache").collect();
    ensure!(
        sites.len() == 2 && sites.iter().all(|one| one["source"] == "/etc/apache2/sites-enabled/www.conf"),
        "{found:#}"
    );
    let certificate =
        each(&found, "certificates").find(|one| one["path"] == "/etc/apache2/tls/site.crt").context("a certificate")?;
    ensure!(certificate["key"] == "matches" && certificate["fingerprint_sha256"] == before.as_str(), "{found:#}");
    let suggestion = suggested(&found, &name)?;
    ensure!(suggestion["adopts"] == true, "{found:#}");
    ensure!(suggestion["identifiers"][1] == "other.example.test", "{found:#}");
    adopt_with_one_name(&site, &server, &vhosts).await?;
    site.control.until("h1.example.test", "it is live", SOON, is_done).await?;
    let live = async || {
        let record = site.control.certificate("h1.example.test").await?;
        let seen = shown(&site, &server, "127.0.0.1:443").await?;
        Ok((record["current"]["fingerprint_sha256"] == seen.as_str()).then_some(()))
    };
    eventually("the new certificate from outside", SOON, live).await?;
    ensure!(shown(&site, &server, "127.0.0.1:443").await? != before, "the old one is gone");
    let path = server.host.ok(&["readlink", "/etc/apache2/tls/site.key"]).await?;
    ensure!(path.starts_with(".certwright/"), "{path}");
    let again = detect(&site).await?;
    ensure!(suggested(&again, &name)?["kind"] == "present", "{again:#}");
    Ok(())
}

/// The CA of the lab knows no other name: the second virtual host goes, and the rest is applied as it is suggested.
async fn adopt_with_one_name(site: &Site, server: &Server, vhosts: &str) -> anyhow::Result<()> {
    let one = vhosts.split("</VirtualHost>").next().context("a virtual host")?;
    server.host.write("/etc/apache2/sites-enabled/www.conf", &format!("{one}</VirtualHost>\n")).await?;
    server.host.ok(&["/usr/sbin/apache2ctl", "graceful"]).await?;
    let found = detect(site).await?;
    allow(server, suggested(&found, &server.identifier())?)?;
    // The agent tells a changed policy when it connects.
    let words = ["agents", "apply", "h1", "h1.example.test", "--wait"];
    let ran = site.control.certwright(&words).await?;
    ensure!(ran.status == Some(0), "{ran}\n{found:#}");
    Ok(())
}
