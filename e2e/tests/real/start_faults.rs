//! What goes wrong before anything runs: databases, keys, configuration, permissions, join tokens. Each refusal says
//! which file and what to do, and changes nothing.

use std::time::Duration;

use anyhow::Context;
use e2e::lab::program;
use e2e::site::{Agent, Site};

use crate::{SOON, is_done, says};

/// Longest wait for a program that must refuse to start.
const REFUSAL: Duration = Duration::from_secs(20);

/// Stops the controller, starts it again and returns what it says while it refuses.
async fn refusal(site: &mut Site, config: &str) -> anyhow::Result<String> {
    if let Some(running) = site.control.process.take() {
        running.stop().await?;
    }
    let before = std::fs::read_to_string(site.control.path("controller.log")).unwrap_or_default().len();
    let mut process = site.control.spawn(&site.control.path("state"), config)?;
    let status = process.ended(REFUSAL).await?;
    let said = process.output().split_off(before);
    assert!(status.is_some_and(|status| status != 0), "it ended with {status:?}: {said}");
    Ok(said)
}

#[tokio::test]
async fn a_second_controller_on_the_database_is_refused_and_the_first_goes_on() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut second = site.control.spawn(&site.control.path("state"), &site.control.path("controller.toml"))?;
    let status = second.ended(REFUSAL).await?;
    assert!(status.is_some_and(|status| status != 0), "{}", second.output());
    says(&second.output(), &["state", "another"]);
    site.control.ok(&["status"], &[]).await?;
    Ok(())
}

#[tokio::test]
async fn without_its_master_key_it_refuses_and_initialises_nothing() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let (key, config) = (site.control.path("state.key/master.key"), site.control.path("controller.toml"));
    let kept = std::fs::read(&key).with_context(|| key.clone())?;
    std::fs::remove_file(&key)?;
    says(&refusal(&mut site, &config).await?, &["master.key"]);
    assert!(!std::path::Path::new(&key).exists(), "no new key was made for an old database");

    site.control.host.run_with(&["dd", "status=none", &format!("of={key}")], &"x".repeat(32)).await?.expect_ok()?;
    site.control.host.ok(&["chmod", "600", &key]).await?;
    says(&refusal(&mut site, &config).await?, &["master.key"]);

    std::fs::write(&key, &kept)?;
    site.control.host.ok(&["chmod", "644", &key]).await?;
    says(&refusal(&mut site, &config).await?, &["master.key", "600"]);

    site.control.host.ok(&["chmod", "600", &key]).await?;
    site.control.start().await?;
    says(&site.control.ok(&["issuers", "ls"], &[]).await?, &["lab"]);
    Ok(())
}

#[tokio::test]
async fn a_rotated_master_key_opens_the_database_and_the_old_one_no_longer_does() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let (state, key, config) =
        (site.control.path("state"), site.control.path("state.key/master.key"), site.control.path("controller.toml"));
    let new = site.control.path("new.key");
    let controller = program("certwright-controller")?;
    let rotate = [controller.as_str(), "rotate-master-key", "--state", &state, "--new", &new];
    says(&site.control.host.run(&rotate).await?.text(), &["another controller"]);

    if let Some(running) = site.control.process.take() {
        running.stop().await?;
    }
    site.control.host.ok(&rotate).await?;
    says(&refusal(&mut site, &config).await?, &["master.key", "not the key"]);
    std::fs::rename(&new, &key)?;
    site.control.start().await?;
    says(&site.control.ok(&["issuers", "ls"], &[]).await?, &["lab"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_configuration_key_is_named() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let config = site.control.path("wrong.toml");
    std::fs::write(&config, "[dns]\nserverz = []\n")?;
    says(&refusal(&mut site, &config).await?, &["serverz", "wrong.toml"]);
    site.control.start().await
}

#[tokio::test]
async fn an_agent_refuses_a_policy_that_is_wrong_or_that_others_may_write() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut server = site.server(1).await?;
    server.agent.take().context("it runs")?.stop().await?;
    let policy = server.policy();
    let good = std::fs::read_to_string(&policy)?;
    let tries = [("[[dirz]]\npath = \"/etc/nginx/ssl\"\n", "600", "dirz"), (good.as_str(), "666", "0666")];
    for (text, mode, word) in tries {
        std::fs::write(&policy, text)?;
        server.host.ok(&["chmod", mode, &policy]).await?;
        let before = std::fs::read_to_string(server.host.folder.join("agent.log")).unwrap_or_default().len();
        server.start_agent()?;
        let Agent { mut apply, mut net } = server.agent.take().context("was started")?;
        let status = apply.ended(REFUSAL).await?;
        assert!(status.is_some_and(|status| status != 0), "{}", apply.output());
        assert!(
            net.ended(REFUSAL).await?.is_some_and(|status| status != 0),
            "without the other half: {}",
            net.output()
        );
        says(&apply.output().split_off(before), &["policy.toml", word]);
    }
    server.host.ok(&["chmod", "644", &policy]).await?;
    server.start_agent()?;
    site.control.connected("h1").await
}

#[tokio::test]
async fn a_join_token_works_once() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let first = site.bare_server(1).await?;
    let second = site.bare_server(2).await?;
    let token = site.control.join_token("h1").await?;
    first.enroll_with(&token).await?.expect_ok()?;
    let again = second.enroll_with(&token).await?;
    assert_ne!(again.status, Some(0), "{again}");
    says(&again.text(), &["token", "used", "agents enroll"]);
    let (secret, pin) = token.split_once('.').context("TOKEN.PIN")?;
    let forged = format!("{}.{pin}", secret.chars().rev().collect::<String>());
    let ran = second.enroll_with(&forged).await?;
    assert_ne!(ran.status, Some(0), "{ran}");
    says(&ran.text(), &["token"]);
    let other_pin = format!("{secret}.{}", pin.chars().rev().collect::<String>());
    assert_ne!(second.enroll_with(&other_pin).await?.status, Some(0), "a controller with another CA is not believed");
    second.enroll(&site.control).await
}

#[tokio::test]
async fn the_agent_serves_from_disk_while_the_controller_is_away() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let mut server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.control.kill().await?;
    server.agent.take().context("it runs")?.stop().await?;
    server.start_agent()?;
    assert_eq!(site.served(&server, &name).await?.len(), 64, "nginx goes on");
    site.control.start().await?;
    site.control.connected("h1").await?;
    site.control.until("web", "the target still applied", SOON, is_done).await?;
    site.proven(&server, "web", &name).await
}
