//! A test of a target on a server with nginx: what would go well, what nginx refuses in its own words, what the policy lacks.

use std::collections::BTreeMap;

use e2e::lab::{Ran, eventually};
use e2e::site::{Server, Site};
use serde_json::Value;

use crate::{SOON, is_done, says};

/// Everything below the server's certificates and nginx's configuration: path, mode, owner, size, inode and when it changed.
async fn tree(server: &Server) -> anyhow::Result<String> {
    let argv = ["find", "/etc/nginx", "-printf", "%p %m %u:%g %s %i %C@ %l\n"];
    let mut lines: Vec<String> = server.host.ok(&argv).await?.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// The steps of the one target, by their names: how each went, and what is wrong.
fn steps(ran: &Ran) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let json: Value = serde_json::from_str(&ran.stdout)?;
    let steps = json["items"][0]["steps"].as_array().cloned().unwrap_or_default();
    let line = |step: &Value| {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&step["name"]), (word(&step["result"]), step["error"].to_string()))
    };
    Ok(steps.iter().map(line).collect())
}

#[tokio::test]
async fn a_test_says_what_a_deployment_would_meet_at_nginx_and_changes_nothing() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    let policy = std::fs::read_to_string(server.policy())?;
    let test = "[[command]]\nargv = [\"/usr/sbin/nginx\", \"-t\"]\ntimeout = \"30s\"\n";
    std::fs::write(server.policy(), format!("{policy}\n{test}"))?;
    eventually("the policy to be known and the certificate to be served", SOON, async || {
        let ran = site.create(&server, "web", &name, &["--validate", "/usr/sbin/nginx -t", "--wait=60s"]).await?;
        Ok((ran.status == Some(0)).then_some(()))
    })
    .await?;
    site.control.until("web", "the certificate", SOON, is_done).await?;
    let before = tree(&server).await?;
    let test = ["targets", "test", "web", "--agent", "h1", "-o", "json"];

    // The old workers of nginx answer for a moment beside the new ones.
    let ran = eventually("the new leaf alone to be shown", SOON, async || {
        let ran = site.control.certwright(&test).await?;
        Ok((ran.stdout.contains("it shows the version to deploy")).then_some(ran))
    })
    .await?;
    assert_eq!(ran.status, Some(0), "{ran}");
    let found = steps(&ran)?;
    for step in ["policy", "version", "key", "directory", "file", "validate", "reload", "verify"] {
        assert_eq!(found.get(step).map(|(result, _)| result.as_str()), Some("ok"), "{step}: {ran}");
    }
    assert_eq!(tree(&server).await?, before);

    let good = server.host.read("/etc/nginx/nginx.conf").await?;
    server.host.write("/etc/nginx/nginx.conf", &good.replace("worker_processes 1;", "wrker_processes 1;")).await?;
    let broken = tree(&server).await?;
    let ran = site.control.certwright(&test).await?;
    assert_eq!(ran.status, Some(1), "{ran}");
    let (result, error) = steps(&ran)?.remove("validate").unwrap_or_default();
    assert_eq!(result, "failed", "{ran}");
    says(&error, &["wrker_processes", "nginx -t"]);
    assert_eq!(tree(&server).await?, broken);
    server.host.write("/etc/nginx/nginx.conf", &good).await?;
    site.proven(&server, "web", &name).await?;

    // The policy becomes narrower behind the controller's back: the agent says which lines it lacks.
    let narrow = std::fs::read_to_string(server.policy())?
        .replace("[[dir]]\npath = \"/etc/nginx/", "[[dir]]\npath = \"/etc/other/");
    std::fs::write(server.policy(), narrow)?;
    let ran = site.control.certwright(&test).await?;
    assert_eq!(ran.status, Some(1), "{ran}");
    let found = steps(&ran)?;
    says(&found["policy"].1, &["[[dir]]", &format!("path = \\\"{}\\\"", server.dir(&name))]);
    assert_eq!(found["directory"].0, "skipped", "{ran}");

    let text = site.control.certwright(&["targets", "test", "web"]).await?;
    says(&text.text(), &["failed", "try: as root, in"]);
    Ok(())
}
