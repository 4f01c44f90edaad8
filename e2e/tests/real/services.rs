//! Services other than nginx, as Debian ships them: each takes a new certificate and then a renewed one over the whole road,
//! and shows them, where its protocol has it behind STARTTLS. For those that an agent knows, the policy is the one that its
//! enrolment wrote.

use anyhow::{Context, ensure};
use e2e::lab::{Process, eventually};
use e2e::site::{Server, Site};
use rcgen::{CertificateParams, KeyPair};

use crate::{SOON, explains, is_done};

/// A service, and how an operator names it.
#[derive(Default)]
pub(crate) struct Service {
    /// Folders that it writes to: each server gets its own, with what the packages put there.
    folders: &'static [&'static str],
    pub(crate) files: Vec<(&'static str, String)>,
    /// Before its first start.
    prepare: &'static [&'static [&'static str]],
    /// Runs in the foreground.
    pub(crate) start: &'static [&'static str],
    /// Where its certificate lies.
    dir: &'static str,
    /// Reads the key too; empty where root reads it.
    group: &'static str,
    /// Its own test of its configuration; empty where the road goes without.
    pub(crate) validate: &'static str,
    reload: &'static str,
    /// As `--verify` has it, without a name.
    pub(crate) verify: &'static [&'static str],
    /// Whether leaf, chain and key lie in one file, `site.pem`.
    is_combined: bool,
    /// Whether an agent's own policy does not know it as it is here.
    is_strange: bool,
}

#[tokio::test]
async fn postfix_takes_a_renewed_certificate_and_shows_it_behind_starttls() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let service = postfix();
    let (server, _postfix) = road(&site, &service).await?;

    // Without TLS it says so in its own words, and so does the target.
    server.host.ok(&["postconf", "-e", "smtpd_tls_security_level=none"]).await?;
    server.host.ok(&["/usr/sbin/postfix", "reload"]).await?;
    site.control.ok(&["targets", "deploy", "web"], &[]).await?;
    let failed = |record: &serde_json::Value| record["targets"][0]["error"].is_object();
    let record = site.control.until("web", "an error at the target", SOON, failed).await?;
    explains(&record["targets"][0]["error"], &["smtp://127.0.0.1:25/h1.example.test", "offers no STARTTLS: 250-"]);
    Ok(())
}

#[tokio::test]
async fn dovecot_takes_a_renewed_certificate_and_shows_it_behind_starttls() -> anyhow::Result<()> {
    let site = Site::start().await?;
    road(&site, &dovecot()).await.map(drop)
}

#[tokio::test]
async fn apache_takes_a_renewed_certificate_and_shows_it() -> anyhow::Result<()> {
    let site = Site::start().await?;
    road(&site, &apache()).await.map(drop)
}

#[tokio::test]
async fn prosody_takes_a_renewed_certificate_and_shows_it_behind_starttls() -> anyhow::Result<()> {
    let site = Site::start().await?;
    road(&site, &prosody()).await.map(drop)
}

#[tokio::test]
async fn slapd_takes_a_renewed_certificate_and_shows_it_behind_starttls() -> anyhow::Result<()> {
    let site = Site::start().await?;
    road(&site, &slapd()).await.map(drop)
}

#[tokio::test]
async fn postgresql_takes_a_renewed_certificate_and_shows_it_behind_starttls() -> anyhow::Result<()> {
    let site = Site::start().await?;
    road(&site, &postgresql()).await.map(drop)
}

pub(crate) fn postfix() -> Service {
    let main = "compatibility_level = 3.6\nmyhostname = h1.example.test\nmydestination =\nlocal_transport = error:no local mail\n\
                inet_interfaces = all\ninet_protocols = ipv4\nmaillog_file = /dev/stdout\nsmtpd_tls_security_level = may\n\
                smtpd_tls_cert_file = /etc/postfix/tls/fullchain.pem\nsmtpd_tls_key_file = /etc/postfix/tls/key.pem\n";
    let master = "smtp inet n - n - - smtpd\ntlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n\
                  proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\npostlog unix-dgram n - n - 1 postlogd\n\
                  pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                  error unix - - n - - error\nbounce unix - - n - 0 bounce\n";
    Service {
        folders: &["/etc/postfix", "/var/spool/postfix", "/var/lib/postfix"],
        files: vec![("/etc/postfix/main.cf", main.to_owned()), ("/etc/postfix/master.cf", master.to_owned())],
        start: &["/usr/sbin/postfix", "start-fg"],
        dir: "/etc/postfix/tls",
        validate: "/usr/sbin/postfix check",
        reload: "/usr/sbin/postfix reload",
        verify: &["smtp://127.0.0.1:25"],
        ..Service::default()
    }
}

pub(crate) fn dovecot() -> Service {
    let conf = "protocols = imap pop3\nlisten = *\nlog_path = /dev/stderr\nssl = yes\nssl_cert = </etc/dovecot/tls/fullchain.pem\n\
                ssl_key = </etc/dovecot/tls/key.pem\nservice imap-login {\n  inet_listener imaps {\n    port = 0\n  }\n}\n\
                service pop3-login {\n  inet_listener pop3s {\n    port = 0\n  }\n}\npassdb {\n  driver = static\n  args = nopassword=y\n}\n\
                userdb {\n  driver = static\n  args = uid=nobody gid=nogroup home=/tmp\n}\n";
    Service {
        folders: &["/etc/dovecot", "/var/lib/dovecot"],
        files: vec![("/etc/dovecot/dovecot.conf", conf.to_owned())],
        start: &["/usr/sbin/dovecot", "-F"],
        dir: "/etc/dovecot/tls",
        validate: "/usr/bin/doveconf -n",
        reload: "/usr/bin/doveadm reload",
        verify: &["imap://127.0.0.1:143", "pop3://127.0.0.1:110"],
        ..Service::default()
    }
}

pub(crate) fn apache() -> Service {
    let modules = ["mpm_event", "authz_core", "socache_shmcb", "ssl"].map(|name| {
        let module = format!("/usr/lib/apache2/modules/mod_{name}.so");
        format!("LoadModule {name}_module {module}\n")
    });
    let conf = format!(
        "ServerRoot /etc/apache2\nPidFile /run/apache2.pid\nServerName h1.example.test\n{}User www-data\nGroup www-data\n\
         ErrorLog /var/log/apache2/error.log\nMutex file:/run default\nListen 443\n<VirtualHost *:443>\n  SSLEngine on\n  \
         SSLCertificateFile /etc/apache2/tls/fullchain.pem\n  SSLCertificateKeyFile /etc/apache2/tls/key.pem\n\
         </VirtualHost>\n",
        modules.concat()
    );
    Service {
        folders: &["/etc/apache2", "/var/log/apache2"],
        files: vec![("/etc/apache2/apache2.conf", conf)],
        start: &["/usr/sbin/apache2", "-DFOREGROUND"],
        dir: "/etc/apache2/tls",
        validate: "/usr/sbin/apache2ctl configtest",
        reload: "/usr/sbin/apache2ctl graceful",
        verify: &["127.0.0.1:443"],
        ..Service::default()
    }
}

pub(crate) fn haproxy() -> Service {
    let conf = "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nfrontend web\n  \
                bind :443 ssl crt /etc/haproxy/tls/site.pem\n  http-request return status 200\n";
    // Without systemd: the master's pid is in a file, and no shell would read it.
    let reload = "#!/bin/sh\nexec kill -USR2 \"$(cat /run/haproxy.pid)\"\n";
    Service {
        folders: &["/etc/haproxy"],
        files: vec![("/etc/haproxy/haproxy.cfg", conf.to_owned()), ("/etc/haproxy/reload", reload.to_owned())],
        prepare: &[&["chmod", "0755", "/etc/haproxy/reload"]],
        start: &["/usr/sbin/haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg", "-p", "/run/haproxy.pid"],
        dir: "/etc/haproxy/tls",
        validate: "/usr/sbin/haproxy -c -f /etc/haproxy/haproxy.cfg",
        reload: "/etc/haproxy/reload",
        verify: &["127.0.0.1:443"],
        is_combined: true,
        is_strange: true,
        ..Service::default()
    }
}

fn prosody() -> Service {
    let conf = "pidfile = \"/run/prosody/prosody.pid\"\nmodules_enabled = { \"tls\", \"saslauth\" }\nmodules_disabled = { \"s2s\" }\n\
                log = { info = \"*console\" }\nVirtualHost \"h1.example.test\"\n  ssl = { key = \"/etc/prosody/tls/key.pem\"; \
                certificate = \"/etc/prosody/tls/fullchain.pem\" }\n";
    Service {
        folders: &["/etc/prosody", "/var/lib/prosody"],
        files: vec![("/etc/prosody/prosody.cfg.lua", conf.to_owned())],
        prepare: &[&["install", "-d", "-o", "prosody", "/run/prosody"]],
        start: &["/usr/sbin/runuser", "-u", "prosody", "--", "/usr/bin/prosody", "-F"],
        dir: "/etc/prosody/tls",
        group: "prosody",
        reload: "/usr/bin/prosodyctl reload",
        verify: &["xmpp://127.0.0.1:5222"],
        is_strange: true,
        ..Service::default()
    }
}

/// Reads its certificate when its configuration changes, if only to the same.
fn slapd() -> Service {
    let config = "dn: cn=config\nobjectClass: olcGlobal\ncn: config\nolcTLSCertificateFile: /etc/ldap/tls/fullchain.pem\n\
                  olcTLSCertificateKeyFile: /etc/ldap/tls/key.pem\n\ndn: cn=schema,cn=config\nobjectClass: olcSchemaConfig\n\
                  cn: schema\n\ndn: olcDatabase={0}config,cn=config\nobjectClass: olcDatabaseConfig\nolcDatabase: {0}config\n\
                  olcAccess: to * by dn.exact=gidNumber=0+uidNumber=0,cn=peercred,cn=external,cn=auth manage by * none\n";
    let again = "dn: cn=config\nchangetype: modify\nreplace: olcTLSCertificateFile\n\
                 olcTLSCertificateFile: /etc/ldap/tls/fullchain.pem\n-\nreplace: olcTLSCertificateKeyFile\n\
                 olcTLSCertificateKeyFile: /etc/ldap/tls/key.pem\n";
    Service {
        folders: &["/etc/ldap"],
        files: vec![("/etc/ldap/config.ldif", config.to_owned()), ("/etc/ldap/again.ldif", again.to_owned())],
        prepare: &[
            &["install", "-d", "-o", "openldap", "/run/slapd", "/etc/ldap/own.d"],
            &["/usr/sbin/slapadd", "-n", "0", "-F", "/etc/ldap/own.d", "-l", "/etc/ldap/config.ldif"],
            &["chown", "-R", "openldap", "/etc/ldap/own.d"],
        ],
        start: &[
            "/usr/sbin/slapd",
            "-d",
            "0",
            "-F",
            "/etc/ldap/own.d",
            "-u",
            "openldap",
            "-g",
            "openldap",
            "-h",
            "ldap:/// ldapi:///",
        ],
        dir: "/etc/ldap/tls",
        group: "openldap",
        reload: "/usr/bin/ldapmodify -Q -Y EXTERNAL -H ldapi:/// -f /etc/ldap/again.ldif",
        verify: &["ldap://127.0.0.1:389"],
        is_strange: true,
        ..Service::default()
    }
}

fn postgresql() -> Service {
    Service {
        folders: &["/etc/postgresql"],
        prepare: &[
            &["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", "/srv"],
            &["install", "-d", "-o", "postgres", "/run/postgresql", "/srv/postgresql"],
            // Whatever its version is.
            &["sh", "-c", "ln -s /usr/lib/postgresql/*/bin /etc/postgresql/bin"],
            &[
                "/usr/sbin/runuser",
                "-u",
                "postgres",
                "--",
                "/etc/postgresql/bin/initdb",
                "--no-sync",
                "-A",
                "trust",
                "-D",
                "/srv/postgresql",
            ],
        ],
        start: &[
            "/usr/sbin/runuser",
            "-u",
            "postgres",
            "--",
            "/etc/postgresql/bin/postgres",
            "-D",
            "/srv/postgresql",
            "-c",
            "listen_addresses=*",
            "-c",
            "unix_socket_directories=/run/postgresql",
            "-c",
            "ssl=on",
            "-c",
            "ssl_cert_file=/etc/postgresql/tls/fullchain.pem",
            "-c",
            "ssl_key_file=/etc/postgresql/tls/key.pem",
        ],
        dir: "/etc/postgresql/tls",
        group: "postgres",
        reload: "/usr/sbin/runuser -u postgres -- /etc/postgresql/bin/pg_ctl -D /srv/postgresql reload",
        verify: &["postgres://127.0.0.1:5432"],
        is_strange: true,
        ..Service::default()
    }
}

/// Runs the service on a server of its own, brings a certificate there and renews it; returns both.
async fn road(site: &Site, service: &Service) -> anyhow::Result<(Server, Process)> {
    let (server, running) = first(site, service).await?;
    let first = proven(site, &server, service).await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let renewed =
        |record: &serde_json::Value| is_done(record) && record["current"]["fingerprint_sha256"] != first.as_str();
    site.control.until("web", "the renewed version", SOON, renewed).await?;
    proven(site, &server, service).await?;
    Ok((server, running))
}

/// Runs the service on a server of its own and brings a certificate there; returns both.
pub(crate) async fn first(site: &Site, service: &Service) -> anyhow::Result<(Server, Process)> {
    let mut server = site.bare_server(1).await?;
    let name = server.identifier();
    let mut running = start(&server, service).await?;
    let before = eventually("the service", SOON, async || {
        ensure!(running.runs(), "the service ended:\n{}", running.output());
        for verify in service.verify.iter().skip(1) {
            shown(site, &server, verify).await?;
        }
        shown(site, &server, service.verify[0]).await.map(Some)
    })
    .await?;
    server.enroll(&site.control).await?;
    if service.is_strange {
        allow(&server, service)?;
    }
    server.start_agent()?;
    site.control.connected("h1").await?;

    let verify = service.verify.iter().map(|endpoint| format!("{endpoint}/{name}")).collect::<Vec<_>>();
    let owner = format!("root:{}", service.group);
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "lab", "--http01", "standalone:80", "--wait"];
    let target = ["--agent", "h1", "--dir", service.dir, "--reload", service.reload];
    let mut words = [words.as_slice(), &target].concat();
    if service.is_combined {
        words.extend(["--file", "combined=site.pem"]);
    }
    if !service.validate.is_empty() {
        words.extend(["--validate", service.validate]);
    }
    words.extend(verify.iter().flat_map(|endpoint| ["--verify", endpoint]));
    if !service.group.is_empty() {
        words.extend(["--owner", &owner, "--mode", "key=0640"]);
    }
    let created = site.control.certwright(&words).await?;
    if created.status != Some(0) {
        anyhow::bail!("{created}\n{:#}\n{}", site.control.certificate("web").await?, running.output());
    }
    let first = proven(site, &server, service).await?;
    assert_ne!(first, before, "it showed its own certificate before");
    let record = site.control.certificate("web").await?;
    let steps = record["targets"][0]["steps"].to_string();
    assert!(verify.iter().all(|endpoint| steps.contains(endpoint)), "{steps}");
    Ok((server, running))
}

/// Starts the service with a certificate of its own making, as an administrator would have it.
async fn start(server: &Server, service: &Service) -> anyhow::Result<Process> {
    for folder in service.folders {
        server.host.ok(&["cp", "-a", folder, "/run/as-installed"]).await?;
        server.host.own_folder(folder, "16m").await?;
        server.host.ok(&["cp", "-a", "/run/as-installed/.", folder]).await?;
        server.host.ok(&["rm", "-r", "/run/as-installed"]).await?;
    }
    // What an init makes in an empty /run.
    server.host.ok(&["mkdir", "-p", "/run/lock"]).await?;
    for (path, text) in &service.files {
        server.host.write(path, text).await?;
    }
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![server.identifier()])?.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    if service.is_combined {
        server.host.write(&format!("{}/site.pem", service.dir), &format!("{leaf}{key}")).await?;
    } else {
        server.host.write(&format!("{}/fullchain.pem", service.dir), &leaf).await?;
        server.host.write(&format!("{}/key.pem", service.dir), &key).await?;
    }
    if !service.group.is_empty() {
        server.host.ok(&["chgrp", "-R", service.group, service.dir]).await?;
        server.host.ok(&["chmod", "0640", &format!("{}/key.pem", service.dir)]).await?;
    }
    for command in service.prepare {
        server.host.ok(command).await?;
    }
    server.host.start("service", service.start, &[])
}

/// Allows what a service needs, as its administrator would.
fn allow(server: &Server, service: &Service) -> anyhow::Result<()> {
    let Service { dir, group, reload, .. } = service;
    let argv = reload.split(' ').map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let mut more = format!("\n[[command]]\nargv = [{argv}]\ntimeout = \"30s\"\n");
    if !group.is_empty() {
        more.push_str(&format!(
            "\n[[dir]]\npath = \"{dir}\"\nfiles = [\"*.pem\"]\nowners = [\"root:{group}\"]\nkey_mode_max = \"0640\"\n"
        ));
    }
    let policy = std::fs::read_to_string(server.policy())?;
    Ok(std::fs::write(server.policy(), format!("{policy}{more}"))?)
}

/// Returns the SHA-256 of the leaf that openssl sees from another host.
pub(crate) async fn shown(site: &Site, server: &Server, verify: &str) -> anyhow::Result<String> {
    let (word, address) = verify.split_once("://").unwrap_or(("", verify));
    let (_, port) = address.rsplit_once(':').context("an address has a port")?;
    let (connect, name) = (format!("{}:{port}", server.host.address), server.identifier());
    let starttls: &[&str] = if word.is_empty() { &[] } else { &["-starttls", word, "-xmpphost", &name] };
    let words = ["openssl", "s_client", "-connect", &connect, "-servername", &name];
    let seen = site.control.host.run(&[words.as_slice(), starttls].concat()).await?;
    let leaf = proto::x509::parse_certificates(seen.stdout.as_bytes()).ok();
    let leaf = leaf.and_then(|chain| chain.into_iter().next()).with_context(|| format!("no TLS: {seen}"))?;
    Ok(proto::x509::hex(&proto::x509::fingerprint(&leaf)))
}

/// Checks that the current version is what is shown; returns its fingerprint.
pub(crate) async fn proven(site: &Site, server: &Server, service: &Service) -> anyhow::Result<String> {
    let record = site.control.certificate("web").await?;
    ensure!(is_done(&record), "not done: {record:#}");
    let wanted = record["current"]["fingerprint_sha256"].as_str().context("a fingerprint is text")?.to_owned();
    // Old processes may answer beside the new ones for a moment.
    eventually("the new certificate from outside", SOON, async || {
        for verify in service.verify {
            let seen = shown(site, server, verify).await?;
            ensure!(seen == wanted, "{verify} shows {seen}: {record:#}");
        }
        Ok(Some(()))
    })
    .await?;
    Ok(wanted)
}
