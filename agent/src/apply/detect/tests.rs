//! A made-up server: what is found on it, that nothing changes, and that nothing of a key is told.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::apply::request::Handle;
use crate::detect::KeyState;
use crate::host::{CommandOutcome, Connection, Host, Incoming};
use crate::state::StateDir;

#[derive(Debug)]
struct MadeUp {
    root: PathBuf,
    dumps: BTreeMap<&'static str, String>,
    ran: Mutex<Vec<String>>,
}

#[async_trait]
impl Host for MadeUp {
    async fn connect(&self, _address: &str) -> std::io::Result<Box<dyn Connection>> {
        unreachable!("this half has no network")
    }

    async fn bind(&self, _port: u16) -> std::io::Result<Box<dyn Incoming>> {
        unreachable!("this half has no network")
    }

    async fn run(&self, argv: &[String], _timeout: Duration) -> CommandOutcome {
        self.ran.lock().unwrap().push(argv.join(" "));
        let output = self.dumps.get(argv[0].as_str()).cloned();
        let exit = CommandExit::Status(i32::from(output.is_none()));
        tokio::time::sleep(Duration::from_millis(10)).await;
        CommandOutcome { exit, output: output.unwrap_or_default(), took: Duration::ZERO }
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    async fn listeners(&self, _port: u16) -> Vec<u64> {
        unreachable!("this half has no network")
    }

    async fn socket_holder(&self, _sockets: Vec<u64>) -> Option<String> {
        None
    }
}

struct Server {
    dir: tempfile::TempDir,
    dumps: BTreeMap<&'static str, String>,
}

impl Server {
    fn new(policy: &str) -> Self {
        let server = Self { dir: tempfile::tempdir().unwrap(), dumps: BTreeMap::new() };
        server.write("policy.toml", policy);
        server.write("etc/passwd", "root:x:0:0::/root:/bin/x\nwww-data:x:33:33::/:/x\n");
        server.write("etc/group", "root:x:0:\nssl-cert:x:101:\n");
        server.write("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12\"\n");
        std::fs::create_dir_all(server.at("state")).unwrap();
        std::fs::set_permissions(server.at("state"), PermissionsExt::from_mode(0o700)).unwrap();
        server
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    /// A certificate and its key; returns the key.
    fn issue(&self, certificate: &str, key: &str, name: &str) -> String {
        let pair = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&pair).unwrap();
        self.write(certificate, &leaf.pem());
        let pem = pair.serialize_pem();
        if certificate == key {
            self.write(certificate, &format!("{}{pem}", leaf.pem()));
        } else {
            self.write(key, &pem);
        }
        pem
    }

    fn open(&self) -> (Handle, Arc<MadeUp>, tokio::task::JoinSet<()>) {
        let host = MadeUp { root: self.dir.path().to_owned(), dumps: self.dumps.clone(), ran: Mutex::default() };
        let host = Arc::new(host);
        let state = StateDir::open(&self.at("state")).unwrap();
        let (handle, work) =
            crate::apply::request::tests::room(state, self.at("policy.toml"), Arc::<MadeUp>::clone(&host));
        (handle, host, work)
    }

    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut left) = (BTreeMap::new(), vec![self.dir.path().to_owned()]);
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(path).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => left.push(entry.path()),
                    false => drop(found.insert(entry.path(), std::fs::read(entry.path()).unwrap_or_default())),
                }
            }
        }
        found
    }
}

const SITE: &str = "server { listen 443 ssl; server_name www.example.test; root /var/www/shop;\n\
                    ssl_certificate /etc/nginx/ssl/www.pem; ssl_certificate_key /etc/nginx/ssl/www.key; }\n";

fn nginx(server: &Server) -> String {
    server.write("etc/nginx/nginx.conf", "http { include sites-enabled/*; }");
    server.write("etc/nginx/sites-enabled/www", SITE);
    server.write("var/www/shop/wp-config.php", "<?php secret");
    server.write("proc/812/comm", "nginx\n");
    server.write("proc/812/cgroup", "0::/system.slice/nginx.service\n");
    server.issue("etc/nginx/ssl/www.pem", "etc/nginx/ssl/www.key", "www.example.test")
}

#[tokio::test]
async fn tells_services_sites_certificates_and_other_renewers() {
    let mut server = Server::new("[detect]\ncommands = true\nhomes = true\n");
    nginx(&server);
    server.write("etc/haproxy/haproxy.cfg", "frontend a\n bind :8443 ssl crt /etc/haproxy/certs\n");
    server.issue("etc/haproxy/certs/one.pem", "etc/haproxy/certs/one.pem", "one.example.test");
    server.issue(
        "etc/letsencrypt/archive/le/fullchain1.pem",
        "etc/letsencrypt/archive/le/privkey1.pem",
        "le.example.test",
    );
    std::fs::create_dir_all(server.at("etc/letsencrypt/live/le")).unwrap();
    for name in ["fullchain", "privkey"] {
        symlink(format!("../../archive/le/{name}1.pem"), server.at(&format!("etc/letsencrypt/live/le/{name}.pem")))
            .unwrap();
    }
    server.write(
        "etc/letsencrypt/renewal/le.conf",
        "fullchain = /etc/letsencrypt/live/le/fullchain.pem\nprivkey = /etc/letsencrypt/live/le/privkey.pem\n",
    );
    server.write("var/spool/cron/crontabs/root", "0 3 * * * certbot renew\n");
    server.write(
        "root/.acme.sh/a.example.test_ecc/a.example.test.conf",
        "Le_Domain='a.example.test'\nLe_RealFullChainPath='/etc/a.pem'\n",
    );
    server.dumps.insert("/usr/sbin/nginx", format!("# configuration file /etc/nginx/nginx.conf:\nhttp {{ {SITE} }}\n"));
    let before = server.all();
    let (apply, host, _work) = server.open();
    let found = apply.detect().await.unwrap();
    assert_eq!(*host.ran.lock().unwrap(), ["/usr/sbin/nginx -T"]);
    assert_eq!(found.os, "Debian GNU/Linux 12");
    let services: Vec<_> =
        found.services.iter().map(|one| (one.preset.as_str(), one.unit.as_str(), one.is_running)).collect();
    assert_eq!(services, [("nginx", "nginx", true), ("haproxy", "", false)]);
    let sites: Vec<_> =
        found.sites.iter().map(|site| (site.names.join(","), site.certificate.as_str(), site.wordpress)).collect();
    assert_eq!(
        sites,
        [
            ("one.example.test".to_owned(), "/etc/haproxy/certs/one.pem", false),
            ("www.example.test".to_owned(), "/etc/nginx/ssl/www.pem", true),
        ]
    );
    let certificates: Vec<_> = found
        .certificates
        .iter()
        .map(|one| (one.path.as_str(), one.key, one.leads_to.as_str(), one.identifiers.join(",")))
        .collect();
    assert_eq!(
        certificates,
        [
            ("/etc/a.pem", KeyState::Missing, "", String::new()),
            ("/etc/haproxy/certs/one.pem", KeyState::Combined, "", "one.example.test".to_owned()),
            (
                "/etc/letsencrypt/live/le/fullchain.pem",
                KeyState::Matches,
                "/etc/letsencrypt/archive/le/fullchain1.pem",
                "le.example.test".to_owned()
            ),
            ("/etc/nginx/ssl/www.pem", KeyState::Matches, "", "www.example.test".to_owned()),
        ]
    );
    let renewers: Vec<_> =
        found.renewers.iter().map(|one| (one.program.as_str(), one.name.as_str(), one.is_active)).collect();
    assert_eq!(renewers, [("certbot", "le", true), ("acme.sh", "a.example.test", false)]);
    assert_eq!(found.notes, Vec::<String>::new());
    assert_eq!(server.all(), before, "a look changes nothing");
}

#[tokio::test]
async fn without_a_word_in_the_policy_nothing_is_run_and_the_line_is_told() {
    let server = Server::new("");
    nginx(&server);
    let (apply, host, _work) = server.open();
    let found = apply.detect().await.unwrap();
    assert!(host.ran.lock().unwrap().is_empty());
    assert_eq!(found.sites.len(), 1, "read from the files");
    assert!(
        found.notes[0].contains("[detect] commands = true") && found.notes[1].contains("homes = true"),
        "{:?}",
        found.notes
    );
}

#[tokio::test]
async fn nothing_of_a_key_is_told_and_a_hostile_file_hurts_nobody() {
    let server = Server::new("[detect]\ncommands = true\n");
    let key = nginx(&server);
    // A site may name whatever its owner likes.
    server.write("etc/shadow", "root:secret-hash:1:\n");
    for (number, path) in ["/etc/shadow", "/proc/self/mem", "/", "/etc/none", "/fifo", "/huge"].into_iter().enumerate()
    {
        let site = format!(
            "server {{ listen 443 ssl; server_name n{number}.example.test; ssl_certificate {path}; ssl_certificate_key {path}; }}"
        );
        server.write(&format!("etc/nginx/sites-enabled/{number}"), &site);
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, server.at("fifo"), 0o600.into()).unwrap();
    std::fs::File::create(server.at("huge")).unwrap().set_len(1 << 40).unwrap();
    server.issue("other.pem", "etc/nginx/ssl/www.key", "other.example.test");
    let (apply, _host, _work) = server.open();
    let found = apply.detect().await.unwrap();
    let www = found.certificates.iter().find(|one| one.path == "/etc/nginx/ssl/www.pem").unwrap();
    assert_eq!(www.key, KeyState::Differs);
    let told = serde_json::to_string(&found).unwrap();
    for secret in ["secret-hash", "PRIVATE KEY", key.lines().nth(1).unwrap(), "<?php"] {
        assert!(!told.contains(secret), "{secret}");
    }
    assert!(found.certificates.iter().filter(|one| one.path != www.path).all(|one| !one.problem.is_empty()));
    assert!(found.notes.iter().any(|note| note.contains("/usr/sbin/nginx -T` failed")), "{:?}", found.notes);
}

#[tokio::test]
async fn a_flood_of_questions_is_one_look() {
    let server = Server::new("[detect]\ncommands = true\n");
    nginx(&server);
    let (apply, host, _work) = server.open();
    let asked = (0..50).map(|_| apply.detect());
    let answers = futures_util::future::join_all(asked).await;
    let looked = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..50).contains(&looked), "{looked}");
    let refused = answers.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|problem| problem.reason == "DETECT_BUSY"));
    assert_eq!(host.ran.lock().unwrap().len(), looked);
}
