//! Operators elsewhere: invited on the controller's host, logged in on another host, over TCP and mTLS.

use e2e::lab::program;
use e2e::site::Site;

use crate::says;

#[tokio::test]
async fn an_operator_elsewhere_logs_in_works_by_their_role_and_is_removed() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let desk = site.bare_server(1).await?.host;
    let invited = site.control.json(&["operators", "invite", "alice", "--role", "viewer"]).await?;
    let token = invited["token"].as_str().unwrap_or_default().to_owned();
    let command = invited["command"].as_str().unwrap_or_default();
    assert!(command.starts_with("certwright login --controller ") && !command.contains(&token), "{command}");
    let certwright = program("certwright")?;
    let home = format!("HOME={}", desk.folder.display());
    let as_alice = |words: &[&str]| -> Vec<String> {
        ["env", "-u", "XDG_CONFIG_HOME", home.as_str(), certwright.as_str()]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let run = async |words: &[&str], input: &str| {
        let argv = as_alice(words);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        desk.run_with(&argv, input).await
    };
    // The printed command, as it is.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let login = run(&words, &token).await?;
    says(&login.text(), &["logged in to", "alice", "viewer"]);
    login.expect_ok()?;
    assert_eq!(run(&["whoami"], "").await?.expect_ok()?, "alice (viewer)\n");
    run(&["status"], "").await?.expect_ok()?;
    let refused = run(&["agents", "enroll", "h9"], "").await?;
    says(&refused.text(), &["alice has the role viewer", "maintainer", "certwright operators role alice maintainer"]);
    assert_eq!(refused.status, Some(4));
    site.control.ok(&["operators", "role", "alice", "maintainer"], &[]).await?;
    run(&["agents", "enroll", "h9"], "").await?.expect_ok()?;
    let audit = site.control.json(&["audit", "ls"]).await?.to_string();
    says(&audit, &[&format!("\"from\":\"{}, key ", desk.address)]);
    let again = run(&[words.as_slice(), &["--name", "again"]].concat(), &token).await?;
    says(&again.text(), &["already used by another key", "certwright operators invite"]);
    site.control.ok(&["operators", "rm", "alice", "--confirm=alice"], &[]).await?;
    let gone = run(&["whoami"], "").await?;
    says(&gone.text(), &["not accepted", "invitation"]);
    assert_eq!(gone.status, Some(4));
    Ok(())
}
