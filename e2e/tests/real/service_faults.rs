//! A configuration that is broken, at services other than nginx (reliability.md FS17, FS20): as the service's own test sees it, and
//! where that test is blind and the reload breaks. The certificate of before is served on, the operator reads why, no
//! certificate is ordered anew, and once it is repaired the version is deployed.

use anyhow::ensure;
use e2e::lab::{Process, eventually};
use e2e::site::{Server, Site};
use serde_json::Value;

use crate::services::{Service, apache, dovecot, first, haproxy, postfix, proven, shown};
use crate::{SOON, explains, is_done, target_is};

/// One change of a configuration file, and what the operator reads of it.
#[derive(Default)]
struct Break {
    /// Before it.
    prepare: &'static [&'static [&'static str]],
    path: &'static str,
    from: &'static str,
    to: &'static str,
    says: &'static [&'static str],
}

/// What is broken.
struct Faults {
    /// The service's test says so.
    seen: Break,
    /// The test says nothing; the reload, or what is served after it, does.
    unseen: Break,
}

#[tokio::test]
async fn haproxy_serves_on_over_a_broken_configuration_and_the_operator_reads_why() -> anyhow::Result<()> {
    let service = haproxy();
    let path = "/etc/haproxy/haproxy.cfg";
    let faults = Faults {
        seen: Break {
            path,
            from: "http-request",
            to: "http-reqest",
            says: &["unknown keyword", "http-reqest"],
            ..Break::default()
        },
        // An address that is not here is no matter of its test; its old worker serves on.
        unseen: Break {
            path,
            from: "  bind :443",
            to: "  bind 10.97.9.9:8443\n  bind :443",
            says: &["127.0.0.1:443", "still shows another certificate", "is served again"],
            ..Break::default()
        },
    };
    serves_on(&service, &faults).await
}

#[tokio::test]
async fn apache_serves_on_over_a_broken_configuration_and_the_operator_reads_why() -> anyhow::Result<()> {
    let service = apache();
    let path = "/etc/apache2/apache2.conf";
    let faults = Faults {
        seen: Break {
            path,
            from: "SSLEngine",
            to: "SSLEngin",
            says: &["Invalid command 'SSLEngin'"],
            ..Break::default()
        },
        // Its test does not compare them; a reload with a mismatched pair ends the whole server.
        unseen: Break {
            prepare: &[&["cp", "-L", "/etc/apache2/tls/key.pem", "/run/key-of-before.pem"]],
            path,
            from: "SSLCertificateKeyFile /etc/apache2/tls/key.pem",
            to: "SSLCertificateKeyFile /run/key-of-before.pem",
            says: &["127.0.0.1:443", "refused", "is served again"],
        },
    };
    serves_on(&service, &faults).await
}

#[tokio::test]
async fn postfix_serves_on_over_a_broken_configuration_and_the_operator_reads_why() -> anyhow::Result<()> {
    let service = postfix();
    let path = "/etc/postfix/main.cf";
    let faults = Faults {
        // Without a terminal it says why in its log only.
        seen: Break {
            path,
            from: "inet_protocols = ipv4",
            to: "inet_protocols = ipv5",
            says: &["printed nothing", "log"],
            ..Break::default()
        },
        unseen: Break {
            prepare: &[&["cp", "-L", "/etc/postfix/tls/key.pem", "/run/key-of-before.pem"]],
            path,
            from: "smtpd_tls_key_file = /etc/postfix/tls/key.pem",
            to: "smtpd_tls_key_file = /run/key-of-before.pem",
            says: &["smtp://127.0.0.1:25", "TLS", "is served again"],
        },
    };
    serves_on(&service, &faults).await
}

#[tokio::test]
async fn dovecot_serves_on_over_a_broken_configuration_and_the_operator_reads_why() -> anyhow::Result<()> {
    let service = dovecot();
    let path = "/etc/dovecot/dovecot.conf";
    let faults = Faults {
        seen: Break {
            path,
            from: "listen = *",
            to: "listn = *",
            says: &["Unknown setting: listn"],
            ..Break::default()
        },
        unseen: Break {
            prepare: &[&["cp", "-L", "/etc/dovecot/tls/key.pem", "/run/key-of-before.pem"]],
            path,
            from: "ssl_key = </etc/dovecot/tls/key.pem",
            to: "ssl_key = </run/key-of-before.pem",
            says: &["imap://127.0.0.1:143", "is served again"],
        },
    };
    serves_on(&service, &faults).await
}

/// Brings a certificate, breaks what the test sees and then what it does not see, each before a renewal.
async fn serves_on(service: &Service, faults: &Faults) -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (server, mut running) = first(&site, service).await?;
    let told = breaks((&site, &server, &mut running), service, &faults.seen).await?;
    explains(&told, &[service.validate, "nothing was reloaded"]);

    breaks((&site, &server, &mut running), service, &faults.unseen).await.map(drop)
}

/// Renews over a broken configuration and repairs it; returns what the operator read.
async fn breaks(
    (site, server, running): (&Site, &Server, &mut Process),
    service: &Service,
    broken: &Break,
) -> anyhow::Result<Value> {
    let before = proven(site, server, service).await?;
    let good = server.host.read(broken.path).await?;
    ensure!(good.contains(broken.from), "{} is not in {good}", broken.from);
    for command in broken.prepare {
        server.host.ok(command).await?;
    }
    server.host.write(broken.path, &good.replacen(broken.from, broken.to, 1)).await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let record = eventually("the files of before", SOON, async || {
        // A master that has died is reaped, as an init does it.
        running.runs();
        Ok(Some(site.control.certificate("web").await?).filter(|record| target_is(record, "rolled_back")))
    })
    .await?;
    let told = record["targets"][0]["error"].clone();
    explains(&told, broken.says);
    for verify in service.verify {
        eventually("the certificate of before", SOON, async || {
            Ok((shown(site, server, verify).await? == before).then_some(()))
        })
        .await?;
    }
    let renewed = record["current"]["fingerprint_sha256"].clone();
    assert_ne!(renewed, before.as_str(), "the certificate itself was renewed");

    server.host.write(broken.path, &good).await?;
    site.control.ok(&["targets", "deploy", "web"], &[]).await?;
    let record = site.control.until("web", "the repair", SOON, is_done).await?;
    assert_eq!(record["current"]["fingerprint_sha256"], renewed, "nothing was ordered anew");
    proven(site, server, service).await?;
    Ok(told)
}
