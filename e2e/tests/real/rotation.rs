//! A rotation of the identity CA with the programs as they are installed: agents come along within seconds, deployments go on, who restarts in the
//! middle of it comes back, and an operator elsewhere who does not follow is told by name.

use e2e::lab::{eventually, program};
use e2e::site::{Control, Server, Site};

use crate::{SOON, is_done, says};

/// Waits until nobody but `waiting` is not ready for the next step.
async fn ready(control: &Control, phase: &str, waiting: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("all to be ready for what follows {phase}"), SOON, async || {
        let found = control.json(&["identity-ca", "ls"]).await?;
        let names = found["waiting"].as_array().into_iter().flatten().filter_map(|peer| peer["name"].as_str());
        Ok((found["phase"] == phase && names.eq(waiting.iter().copied())).then_some(()))
    })
    .await
}

async fn restart(control: &Control, server: &mut Server) -> anyhow::Result<()> {
    server.agent.take().expect("it runs").kill().await?;
    server.start_agent()?;
    control.connected(&server.host.name).await
}

/// A new version goes to both servers, and nginx serves it.
async fn renew(site: &Site<e2e::site::NoCa>, servers: &[Server]) -> anyhow::Result<()> {
    for server in servers {
        let (name, host) = (server.identifier(), server.host.name.as_str());
        let before = site.control.certificate(host).await?["current"]["serial"].clone();
        site.control.ok(&["certs", "renew", host, "--wait"], &[]).await?;
        let renewed = |record: &serde_json::Value| is_done(record) && record["current"]["serial"] != before;
        drop(site.control.until(host, "the next version", SOON, renewed).await?);
        site.proven(server, host, &name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rotation_takes_all_agents_along_within_seconds_while_deployments_go_on() -> anyhow::Result<()> {
    let mut site = Site::start_without_ca().await?;
    let mut servers = vec![site.server(1).await?, site.server(2).await?];
    let add = ["issuers", "add", "corp", "--private", "--names", "*.example.test"];
    site.control.ok(&add, &[]).await?;
    for server in &servers {
        site.create_at("corp", server, &server.host.name, &server.identifier(), &["--wait"]).await?.expect_ok()?;
    }
    let desk = site.bare_server(3).await?.host;
    let invited = site.control.json(&["operators", "invite", "alice", "--role", "viewer"]).await?;
    let command = invited["command"].as_str().unwrap_or_default().to_owned();
    let (home, certwright) = (format!("HOME={}", desk.folder.display()), program("certwright")?);
    let alice = async |words: &[&str], input: &str| {
        let argv = [["env", "-u", "XDG_CONFIG_HOME", home.as_str(), certwright.as_str()].as_slice(), words].concat();
        desk.run_with(&argv, input).await
    };
    let login: Vec<&str> = command.split(' ').skip(1).collect();
    alice(&login, invited["token"].as_str().unwrap_or_default()).await?.expect_ok()?;
    let old = site.control.json(&["identity-ca", "ls"]).await?["slots"][0]["fingerprint_sha256"].clone();
    let confirm: String = old.as_str().unwrap_or_default().chars().take(8).collect();

    site.control.ok(&["identity-ca", "prepare"], &[]).await?;
    ready(&site.control, "prepared", &["alice"]).await?;
    says(&site.control.certwright(&["identity-ca", "activate"]).await?.text(), &["alice", "--anyway=1"]);
    renew(&site, &servers).await?;
    alice(&["whoami"], "").await?.expect_ok()?;
    site.control.kill().await?;
    site.control.start().await?;
    restart(&site.control, &mut servers[0]).await?;

    site.control.ok(&["identity-ca", "activate", "--anyway=1"], &[]).await?;
    ready(&site.control, "activated", &["alice"]).await?;
    renew(&site, &servers).await?;

    alice(&["whoami"], "").await?.expect_ok()?;
    // Her login learns of it with its daily renewal, which is not due yet: she is told by name, and has to be invited again.
    site.control.ok(&["identity-ca", "retire", "--anyway=1", &format!("--confirm={confirm}")], &[]).await?;
    assert_ne!(alice(&["whoami"], "").await?.status, Some(0));
    let after = site.control.json(&["identity-ca", "ls"]).await?;
    assert!(after["phase"] == "steady" && after["slots"].as_array().is_some_and(|slots| slots.len() == 1), "{after}");
    assert_ne!(after["slots"][0]["fingerprint_sha256"], old);
    site.control.kill().await?;
    site.control.start().await?;
    for server in &mut servers {
        restart(&site.control, server).await?;
    }
    renew(&site, &servers).await
}
