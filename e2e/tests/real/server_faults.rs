//! What goes wrong on a server: each is told with its cause and what to do, nothing is lost, and the next try heals.

use e2e::lab::{Ran, eventually};
use e2e::site::{Server, Site};
use serde_json::Value;

use crate::{SOON, explains, is_done, says, target_is};

/// A site with one server, and a certificate's words with one of them changed.
async fn site_with_server() -> anyhow::Result<(Site, Server)> {
    let site = Site::start().await?;
    let server = site.server(1).await?;
    Ok((site, server))
}

/// Waits until the target has this status, and returns the record.
async fn until_target(site: &Site, status: &str) -> anyhow::Result<Value> {
    site.control.until("web", &format!("target {status}"), SOON, |record| target_is(record, status)).await
}

/// Asks for another deployment, as an operator does after a repair, and waits until the proof is there.
async fn heals_by_deploy(site: &Site, server: &Server) -> anyhow::Result<()> {
    site.control.ok(&["targets", "deploy", "web"], &[]).await?;
    site.control.until("web", "the healed target", SOON, is_done).await?;
    site.proven(server, "web", &server.identifier()).await
}

#[tokio::test]
async fn says_who_holds_port_80_and_goes_on_once_it_is_free() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let name = server.identifier();
    let conf = "user root; pid /run/other.pid; events {} http { access_log off; server { listen 80; return 404; } }\n";
    server.host.write("/etc/nginx/other.conf", conf).await?;
    let argv = ["/usr/sbin/nginx", "-c", "/etc/nginx/other.conf", "-g", "daemon off;"];
    let other = server.host.start("other", &argv, &[])?;
    eventually("port 80 to be taken", SOON, async || {
        Ok((server.host.run(&["curl", "-s", "http://127.0.0.1/"]).await?.status == Some(0)).then_some(()))
    })
    .await?;
    site.create(&server, "web", &name, &[]).await?.expect_ok()?;
    let stuck = |record: &Value| record.to_string().contains("nginx (pid");
    let record = site.control.until("web", "the holder of port 80 to be named", SOON, stuck).await?;
    says(&record.to_string(), &["80", "h1"]);
    other.stop().await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    site.control.until("web", "the certificate", SOON, is_done).await?;
    site.proven(&server, "web", &name).await
}

#[tokio::test]
async fn a_broken_nginx_configuration_is_shown_in_nginxs_words() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let name = server.identifier();
    let good = server.host.read("/etc/nginx/nginx.conf").await?;
    server.host.write("/etc/nginx/nginx.conf", &good.replace("worker_processes 1;", "wrker_processes 1;")).await?;
    let ran = site.create(&server, "web", &name, &["--wait=60s"]).await?;
    assert_eq!(ran.status, Some(1), "no target was applied: {ran}");
    let record = until_target(&site, "rolled_back").await?;
    assert_eq!(record["status"], "active", "the certificate itself is there");
    explains(&record["targets"][0]["error"], &["nginx", "wrker_processes", "is served again"]);
    says(&ran.text(), &["wrker_processes"]);
    server.host.write("/etc/nginx/nginx.conf", &good).await?;
    heals_by_deploy(&site, &server).await
}

#[tokio::test]
async fn a_configuration_that_fails_its_test_is_not_reloaded_and_the_old_certificate_stays() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let name = server.identifier();
    let policy = std::fs::read_to_string(server.policy())?;
    let test = "[[command]]\nargv = [\"/usr/sbin/nginx\", \"-t\"]\ntimeout = \"30s\"\n";
    std::fs::write(server.policy(), format!("{policy}\n{test}"))?;
    let told = async || {
        let ran = site.create(&server, "web", &name, &["--validate", "/usr/sbin/nginx -t", "--wait=60s"]).await?;
        Ok((ran.status == Some(0)).then_some(()))
    };
    eventually("the policy to be known and the certificate to be served", SOON, told).await?;
    site.proven(&server, "web", &name).await?;
    let before = site.served(&server, &name).await?;

    let good = server.host.read("/etc/nginx/nginx.conf").await?;
    server.host.write("/etc/nginx/nginx.conf", &good.replace("worker_processes 1;", "wrker_processes 1;")).await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let record = until_target(&site, "rolled_back").await?;
    explains(&record["targets"][0]["error"], &["nginx -t", "nothing was reloaded", "wrker_processes"]);
    assert_eq!(site.served(&server, &name).await?, before);
    let file = server.host.read(&format!("{}/fullchain.pem", server.dir(&name))).await?;
    let leaf = proto::x509::Chain::parse_pem(file.as_bytes())?.leaf;
    assert_eq!(proto::x509::hex(&leaf.fingerprint_sha256), before, "the files are those that are served");
    server.host.write("/etc/nginx/nginx.conf", &good).await?;
    heals_by_deploy(&site, &server).await
}

#[tokio::test]
async fn a_leaf_that_is_not_served_takes_its_files_back() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let name = server.identifier();
    let good = server.host.read("/etc/nginx/nginx.conf").await?;
    let elsewhere = "/etc/nginx/other";
    server.host.ok(&["cp", "-r", &server.dir(&name), elsewhere]).await?;
    server.host.write("/etc/nginx/nginx.conf", &good.replace(&server.dir(&name), elsewhere)).await?;
    let ran = site.create(&server, "web", &name, &["--wait=60s"]).await?;
    assert_eq!(ran.status, Some(1), "{ran}");
    let record = until_target(&site, "rolled_back").await?;
    explains(&record["targets"][0]["error"], &["127.0.0.1:443"]);
    server.host.write("/etc/nginx/nginx.conf", &good).await?;
    heals_by_deploy(&site, &server).await
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_pair_in_place() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let name = server.identifier();
    let dir = server.dir(&name);
    let files =
        [server.host.read(&format!("{dir}/fullchain.pem")).await?, server.host.read(&format!("{dir}/key.pem")).await?];
    server.host.own_folder(&dir, "64k").await?;
    for (file, text) in ["fullchain.pem", "key.pem"].iter().zip(&files) {
        server.host.write(&format!("{dir}/{file}"), text).await?;
    }
    let filler = format!("{dir}/filler");
    // Fills what is left: dd ends with "no space", which is what we want.
    server.host.run(&["dd", "if=/dev/zero", &format!("of={filler}"), "bs=4k"]).await?;
    site.create(&server, "web", &name, &["--wait=60s"]).await?;
    let record = until_target(&site, "failed").await?;
    explains(&record["targets"][0]["error"], &["no space", &dir]);
    assert_eq!(server.host.read(&format!("{dir}/fullchain.pem")).await?, files[0], "the old pair still stands");
    server.host.ok(&["rm", &filler]).await?;
    heals_by_deploy(&site, &server).await
}

/// Runs the one line with another directory.
async fn create_into(site: &Site, server: &Server, dir: &str) -> anyhow::Result<Ran> {
    let name = server.identifier();
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "lab", "--http01", "standalone:80"];
    let target = ["--agent", "h1", "--dir", dir, "--verify", "127.0.0.1:443", "--wait=60s"];
    site.control.certwright(&[words.as_slice(), &target].concat()).await
}

#[tokio::test]
async fn a_directory_outside_the_policy_is_refused_with_the_policys_words() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let ran = create_into(&site, &server, "/srv/elsewhere").await?;
    assert_ne!(ran.status, Some(0), "{ran}");
    says(&ran.text(), &["/srv/elsewhere", "policy"]);
    assert_ne!(server.host.run(&["test", "-e", "/srv/elsewhere"]).await?.status, Some(0), "nothing was made");
    Ok(())
}

#[tokio::test]
async fn a_relative_directory_is_refused_before_anything_happens() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let ran = create_into(&site, &server, "nginx/ssl").await?;
    assert_ne!(ran.status, Some(0), "{ran}");
    says(&ran.text(), &["nginx/ssl", "absolute"]);
    assert_ne!(site.control.certwright(&["certs", "get", "web"]).await?.status, Some(0), "nothing was stored");
    Ok(())
}

#[tokio::test]
async fn a_symlinked_directory_is_not_followed() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    server.host.ok(&["mkdir", "-p", "/run/elsewhere"]).await?;
    server.host.ok(&["ln", "-s", "/run/elsewhere", "/etc/nginx/ssl/link"]).await?;
    let ran = create_into(&site, &server, "/etc/nginx/ssl/link").await?;
    assert_eq!(ran.status, Some(1), "{ran}");
    let record = until_target(&site, "failed").await?;
    explains(&record["targets"][0]["error"], &["/etc/nginx/ssl/link", "symlink"]);
    assert_eq!(server.host.ok(&["ls", "-A", "/run/elsewhere"]).await?, "", "nothing went through the link");
    Ok(())
}

#[tokio::test]
async fn a_missing_parent_is_asked_for_and_then_used() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let dir = "/etc/nginx/ssl/teams/web";
    let ran = create_into(&site, &server, dir).await?;
    assert_eq!(ran.status, Some(1), "{ran}");
    let record = until_target(&site, "failed").await?;
    explains(&record["targets"][0]["error"], &[dir, "parent"]);
    server.host.ok(&["mkdir", "/etc/nginx/ssl/teams"]).await?;
    site.control.ok(&["targets", "deploy", "web"], &[]).await?;
    until_target(&site, "not_live").await?;
    assert!(server.host.read(&format!("{dir}/fullchain.pem")).await?.contains("BEGIN CERTIFICATE"));
    Ok(())
}

#[tokio::test]
async fn an_unwritable_directory_is_named_and_heals() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let (name, dir) = (server.identifier(), server.dir(&server.identifier()));
    let files =
        [server.host.read(&format!("{dir}/fullchain.pem")).await?, server.host.read(&format!("{dir}/key.pem")).await?];
    server.host.own_folder(&dir, "1m").await?;
    for (file, text) in ["fullchain.pem", "key.pem"].iter().zip(&files) {
        server.host.write(&format!("{dir}/{file}"), text).await?;
    }
    server.host.ok(&["mount", "-o", "remount,bind,ro", &dir]).await?;
    site.create(&server, "web", &name, &["--wait=60s"]).await?;
    let record = until_target(&site, "failed").await?;
    explains(&record["targets"][0]["error"], &[&dir, "read-only"]);
    server.host.ok(&["mount", "-o", "remount,bind,rw", &dir]).await?;
    heals_by_deploy(&site, &server).await
}

#[tokio::test]
async fn an_offline_agent_is_waited_for_and_said_so() -> anyhow::Result<()> {
    let (site, mut server) = site_with_server().await?;
    let name = server.identifier();
    server.agent.take().unwrap().stop().await?;
    site.create(&server, "web", &name, &[]).await?.expect_ok()?;
    let waits = |record: &Value| record["issues"].to_string().contains("responder_offline");
    let record = site.control.until("web", "the issue responder_offline", SOON, waits).await?;
    says(&record["issues"].to_string(), &["h1"]);
    let spent = site.ca.requests();
    server.start_agent()?;
    site.control.until("web", "the certificate", SOON, is_done).await?;
    site.proven(&server, "web", &name).await?;
    assert!(spent <= 12, "{spent} ACME requests were spent while nobody could answer");
    Ok(())
}

#[tokio::test]
async fn files_that_drift_are_told_and_repaired_and_nginx_serves_ours() -> anyhow::Result<()> {
    let (site, server) = site_with_server().await?;
    let (name, dir) = (server.identifier(), server.dir(&server.identifier()));
    site.create(&server, "web", &name, &["--wait=60s"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    let right = server.host.read(&format!("{dir}/fullchain.pem")).await?;
    let before = site.served(&server, &name).await?;
    let act = format!("echo >> {dir}/fullchain.pem; rm {dir}/key.pem; chmod 666 {dir}/.certwright/current/cert.pem");
    server.host.ok(&["sh", "-c", &act]).await?;
    let record = until_target(&site, "drifted").await?;
    let lines = ["fullchain.pem was changed", "key.pem is missing", "cert.pem has mode 0666, not 0644"];
    explains(&record["targets"][0]["error"], &lines);
    let record = site.control.until("web", "the repair", SOON, is_done).await?;
    assert_eq!(record["targets"][0]["drift"]["repairs"], 1, "{record}");
    assert_eq!(server.host.read(&format!("{dir}/fullchain.pem")).await?, right);
    assert_eq!(server.host.ok(&["stat", "-L", "-c", "%a", &format!("{dir}/cert.pem")]).await?.trim(), "644");
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await?;
    let serves = async || Ok((site.served(&server, &name).await? == before).then_some(()));
    eventually("nginx to serve ours from the repaired files", SOON, serves).await?;
    let told = site.control.ok(&["certs", "get", "web"], &[]).await?;
    says(&told, &["repaired once", "key.pem is missing"]);
    Ok(())
}
