//! A look at challenges through a real web server (features.md A17): the redirect that a CA fails at is told from the harmless one.

use e2e::lab::eventually;
use e2e::site::{Server, Site};
use serde_json::Value;

use crate::SOON;

const PASSES: &str = "server { listen 80; root /var/www/html; }";
/// To another path of the same port, which serves the token all the same.
const HARMLESS: &str = "server { listen 80; location / { return 301 http://$host/moved$request_uri; } \
                        location /moved/ { alias /var/www/html/; } }";
/// Over TLS with a certificate that nobody trusts, and without the path.
const LOSES_PATH: &str = "server { listen 80; return 301 https://$host/; }";
/// To a port that no CA follows to.
const OTHER_PORT: &str = "server { listen 80; return 301 https://$host:8443$request_uri; }";

#[tokio::test]
async fn a_redirect_that_a_ca_fails_at_is_told_from_a_harmless_one() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut server = site.bare_server(1).await?;
    server.host.own_folder("/var/www", "1m").await?;
    server.host.ok(&["mkdir", "-p", "/var/www/html"]).await?;
    let name = server.identifier();
    server.serve(&[&name]).await?;
    answer_with(&server, &name, PASSES).await?;
    server.enroll(&site.control).await?;
    let policy = std::fs::read_to_string(server.policy())?;
    std::fs::write(server.policy(), policy.replace("webroots = []", "webroots = [\"/var/www/html\"]"))?;
    server.start_agent()?;
    site.control.connected("h1").await?;
    let target = server.target(&name);
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "lab", "--http01", "webroot:/var/www/html"];
    let words = words.into_iter().chain(target.iter().map(String::as_str)).chain(["--wait"]);
    site.control.certwright(&words.collect::<Vec<_>>()).await?.expect_ok()?;

    for (rules, seen, reason, hops) in [
        (PASSES, "ok", Value::Null, 1),
        (HARMLESS, "ok", Value::Null, 2),
        (LOSES_PATH, "blocked", "PREFLIGHT_REDIRECT_LOSES_PATH".into(), 2),
        (OTHER_PORT, "blocked", "PREFLIGHT_REDIRECT_INVALID".into(), 1),
    ] {
        answer_with(&server, &name, rules).await?;
        // For 100 ms after a reload an old worker of nginx may still answer.
        eventually("the check to see it", SOON, async || {
            let ran = site.control.certwright(&["challenges", "check", "web", "-o", "json"]).await?;
            let told: Value = serde_json::from_str(&ran.stdout)?;
            let way = &told["names"][0]["trails"][0];
            let is_so = way["seen"] == seen
                && way["error"]["reason"] == reason
                && way["hops"].as_array().map(Vec::len) == Some(hops)
                && told["responders"][0]["serves"] == true
                && ran.status == Some(if seen == "ok" { 0 } else { 1 });
            anyhow::ensure!(is_so, "{rules}: {told:#}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

async fn answer_with(server: &Server, name: &str, rules: &str) -> anyhow::Result<()> {
    server.configure(&[name], rules).await?;
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await.map(drop)
}
