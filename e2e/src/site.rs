//! A whole site for the real tests, the demo and the bench: a CA, a controller, and servers with nginx and an agent, each
//! on a host of its own, driven through the programs' command lines only. Knows nothing of their insides.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use nix::sys::signal::Signal;

use crate::fault_ca;
use crate::lab::{Host, Lab, Process, Ran, eventually, program};
use crate::pebble::{Pebble, Settings};

/// Port on which the controller awaits agents.
const AGENTS_PORT: u16 = 7443;
/// Longest wait for a program to be ready or a server to answer.
const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long old workers of nginx may answer beside the new ones: its master lets both accept for 100 ms after a reload, so
/// the agent's proof may be followed by a handshake that an old worker answers.
const OLD_WORKERS_TIME_MAX: Duration = Duration::from_secs(2);
/// Where a monitor on the controller's host may look.
pub const METRICS: &str = "127.0.0.1:9469";
/// Where clients fetch the revocation lists of private CAs.
pub const LISTS: &str = "127.0.0.1:9470";
/// The agent's program, where every user may run it, and the socket between its halves.
const AGENT: &str = "/run/certwright-agent";
const SOCKET: &str = "/run/certwright-agent.sock";
/// Folders that nginx writes to: each server gets its own.
const OWN_FOLDERS: [&str; 4] = ["/etc/nginx", "/run", "/var/log/nginx", "/var/lib/nginx"];

/// The hosts, and what runs on them.
#[derive(Debug)]
pub struct Site<Ca = Pebble> {
    /// Where the hosts are plugged in.
    pub lab: Lab,
    /// The CA and the names; `NoCa` where the controller is its own.
    pub ca: Ca,
    /// The controller's host.
    pub control: Control,
}

/// What lets the names of servers resolve.
pub trait Names {
    /// Lets a name point to addresses; none takes it away.
    fn name(&self, name: &str, addresses: &[&str]) -> impl Future<Output = anyhow::Result<()>>;
}

/// A site without a CA on a host of its own, and so without a DNS server: nothing asks it for a private CA's certificates.
#[derive(Debug)]
pub struct NoCa;

impl Names for NoCa {
    async fn name(&self, _name: &str, _addresses: &[&str]) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Names for Pebble {
    async fn name(&self, name: &str, addresses: &[&str]) -> anyhow::Result<()> {
        // The one that is its own.
        Self::name(self, name, addresses).await
    }
}

/// A CA that does wrong by script.
#[derive(Debug)]
pub struct FaultHost {
    /// Its host.
    pub host: Host,
    /// The running CA.
    pub process: Option<Process>,
}

/// The controller, and the operator's command line beside it.
#[derive(Debug)]
pub struct Control {
    /// Its host.
    pub host: Host,
    /// The running controller.
    pub process: Option<Process>,
}

/// A server that needs certificates: nginx and an agent.
#[derive(Debug)]
pub struct Server {
    /// Its host.
    pub host: Host,
    /// The running agent.
    pub agent: Option<Agent>,
    /// The running nginx.
    pub nginx: Option<Process>,
    controller: String,
}

/// The two halves of an agent, with one log.
#[derive(Debug)]
pub struct Agent {
    /// Writes files and runs commands, as root.
    pub apply: Process,
    /// Talks with the controller, as another user.
    pub net: Process,
}

impl Agent {
    /// Asks both to end and waits.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.net.stop().await?;
        self.apply.stop().await
    }

    /// Kills both at once, as a power cut would.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.net.signal(Signal::SIGKILL)?;
        self.apply.kill().await?;
        self.net.kill().await
    }
}

impl Site {
    /// Starts a CA and a controller that knows it as the issuer `lab`.
    pub async fn start() -> anyhow::Result<Self> {
        let site = Self::start_without_issuer().await?;
        site.add_issuer().await?;
        Ok(site)
    }

    /// The same with a CA whose certificates live so long.
    pub async fn start_with_life(seconds: u32) -> anyhow::Result<Self> {
        let site = Self::start_at(Settings { life_seconds: seconds, ..Settings::default() }).await?;
        site.add_issuer().await?;
        Ok(site)
    }

    async fn add_issuer(&self) -> anyhow::Result<()> {
        self.control
            .ok(
                &["issuers", "add", "lab", "--accept-terms", "--directory", &self.ca.directory()],
                &["--root", &self.ca.root()],
            )
            .await
            .map(drop)
    }

    /// Starts a CA and a controller that does not know it.
    pub async fn start_without_issuer() -> anyhow::Result<Self> {
        Self::start_at(Settings::default()).await
    }

    /// Starts a CA that is like this, and a controller that does not know it.
    pub async fn start_at(settings: Settings) -> anyhow::Result<Self> {
        let lab = Lab::new().await?;
        let ca = Pebble::start(lab.host("ca", 2).await?, settings).await?;
        let dns = format!("[dns]\nservers = [\"{}\"]\n", ca.dns());
        Self::around(lab, ca, &dns).await
    }

    /// Plugs in a fault CA and makes it the issuer `faulty`.
    pub async fn fault_ca(&self) -> anyhow::Result<FaultHost> {
        let mut ca = FaultHost { host: self.lab.host("fault", 5).await?, process: None };
        ca.script(&json!({}))?;
        ca.start().await?;
        let words = ["issuers", "add", "faulty", "--accept-terms", "--directory", &ca.directory()];
        self.control.ok(&words, &["--root", &ca.path("root.pem")]).await?;
        Ok(ca)
    }
}

impl Site<NoCa> {
    /// Starts a controller, and no CA.
    pub async fn start_without_ca() -> anyhow::Result<Self> {
        Self::around(Lab::new().await?, NoCa, "").await
    }
}

impl<Ca: Names> Site<Ca> {
    async fn around(lab: Lab, ca: Ca, config: &str) -> anyhow::Result<Self> {
        let mut control = Control { host: lab.host("ctl", 6).await?, process: None };
        let config = format!("{config}[metrics]\nlisten = \"{METRICS}\"\n[crl]\nlisten = \"{LISTS}\"\n");
        std::fs::write(control.host.folder.join("controller.toml"), config)?;
        control.start().await?;
        Ok(Self { lab, ca, control })
    }

    /// Plugs in server `hN` with nginx for `hN.example.test`, enrols its agent and waits until it is connected.
    pub async fn server(&self, number: u8) -> anyhow::Result<Server> {
        let mut server = self.bare_server(number).await?;
        let name = server.identifier();
        server.serve(&[&name]).await?;
        server.enroll(&self.control).await?;
        server.start_agent()?;
        self.control.connected(&server.host.name).await?;
        Ok(server)
    }

    /// Plugs in server `hN` with its name in DNS and nothing running.
    pub async fn bare_server(&self, number: u8) -> anyhow::Result<Server> {
        let host = self.lab.host(&format!("h{number}"), 10 + number).await?;
        for folder in OWN_FOLDERS {
            host.own_folder(folder, "16m").await?;
        }
        // The other user need not be allowed to where the programs are built.
        host.ok(&["touch", AGENT]).await?;
        host.ok(&["mount", "--bind", &program("certwright-agent")?, AGENT]).await?;
        open_to_others(&host.folder)?;
        let controller = format!("{}:{AGENTS_PORT}", self.control.host.address);
        let server = Server { host, agent: None, nginx: None, controller };
        self.ca.name(&server.identifier(), &[&server.host.address.to_string()]).await?;
        Ok(server)
    }

    /// Runs the one line of the road: a certificate for `identifier`, deployed to `server`'s nginx, proof included.
    pub async fn create(&self, server: &Server, name: &str, identifier: &str, more: &[&str]) -> anyhow::Result<Ran> {
        self.create_at("lab", server, name, identifier, more).await
    }

    /// Does the same at another issuer.
    pub async fn create_at(
        &self,
        issuer: &str,
        server: &Server,
        name: &str,
        identifier: &str,
        more: &[&str],
    ) -> anyhow::Result<Ran> {
        let target = server.target(identifier);
        let words = ["certs", "create", name, "--san", identifier, "--issuer", issuer, "--http01", "standalone:80"];
        let words = words.into_iter().chain(target.iter().map(String::as_str)).chain(more.iter().copied());
        self.control.certwright(&words.collect::<Vec<_>>()).await
    }

    /// Asks for the leaf that `server` shows for `name`, from the controller's host; returns its SHA-256, lower-case hex.
    pub async fn served(&self, server: &Server, name: &str) -> anyhow::Result<String> {
        let address = format!("{}:443", server.host.address);
        let seen = self.control.host.run(&["openssl", "s_client", "-connect", &address, "-servername", name]).await?;
        let leaf = proto::x509::parse_certificates(seen.stdout.as_bytes()).ok();
        let leaf = leaf.and_then(|chain| chain.into_iter().next()).with_context(|| format!("no TLS: {seen}"))?;
        Ok(proto::x509::hex(&proto::x509::fingerprint(&leaf)))
    }

    /// Checks what "done" means: every target applied, and the handshake from outside shows the current version.
    pub async fn proven(&self, server: &Server, certificate: &str, name: &str) -> anyhow::Result<()> {
        let record = self.control.certificate(certificate).await?;
        ensure!(record["status"] == "active" && record["deployment"] == "ok", "not done: {record:#}");
        eventually("the old workers of nginx to leave", OLD_WORKERS_TIME_MAX, async || {
            let served = self.served(server, name).await?;
            ensure!(record["current"]["fingerprint_sha256"] == served.as_str(), "{name} serves {served}: {record:#}");
            Ok(Some(()))
        })
        .await
    }
}

impl FaultHost {
    /// Returns the ACME directory's URL.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}:14000/directory", self.host.address)
    }

    /// Returns a path in the CA's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.host.folder.join(name).to_string_lossy().into_owned()
    }

    /// Gives the CA another script, see `fault_ca::script`. Names of the lab's servers are in every script.
    pub fn script(&self, script: &Value) -> anyhow::Result<()> {
        let mut script = script.clone();
        for number in 1..=3_u8 {
            script["names"][format!("h{number}.example.test")] = format!("10.97.0.{}", 10 + number).into();
        }
        let next = self.path("script.next");
        std::fs::write(&next, script.to_string())?;
        std::fs::rename(next, self.path("script.json")).context("script.json")
    }

    /// Starts the CA on what it kept, and waits until it listens.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let (folder, address) = (self.host.folder.to_string_lossy(), format!("{}:14000", self.host.address));
        self.process = Some(self.host.start("fault-ca", &[&program("fault-ca")?, &folder, &address], &[])?);
        eventually("the fault CA", READY_TIME_MAX, async || {
            let running = self.process.as_mut().context("was started")?;
            ensure!(running.runs(), "the fault CA ended:\n{}", running.output());
            let answer = self.host.run(&["curl", "-sk", "--max-time", "2", &self.directory()]).await?;
            Ok((answer.status == Some(0)).then_some(()))
        })
        .await
    }

    /// Kills the CA.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the fault CA runs")?.kill().await
    }

    /// Returns how many requests of a kind it has answered, in all its lives.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.requests().iter().filter(|line| line.kind == kind).count()
    }

    /// Returns every request it has answered, in all its lives.
    #[must_use]
    pub fn requests(&self) -> Vec<fault_ca::Line> {
        fault_ca::requests(&self.host.folder)
    }
}

impl Control {
    /// Returns the path of the operators' socket.
    #[must_use]
    pub fn socket(&self) -> String {
        self.path("certwright.sock")
    }

    /// Returns a path in the controller's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.host.folder.join(name).to_string_lossy().into_owned()
    }

    /// Starts the controller and waits until it answers.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = Some(self.spawn(&self.path("state"), &self.path("controller.toml"))?);
        eventually("the controller", READY_TIME_MAX, async || {
            let running = self.process.as_mut().context("was started")?;
            ensure!(running.runs(), "the controller ended:\n{}", running.output());
            Ok((self.certwright(&["status"]).await?.status == Some(0)).then_some(()))
        })
        .await
    }

    /// Starts a controller on a state folder and a configuration, and does not wait.
    pub fn spawn(&self, state: &str, config: &str) -> anyhow::Result<Process> {
        let controller = program("certwright-controller")?;
        let listen = format!("{}:{AGENTS_PORT}", self.host.address);
        let socket = self.socket();
        let argv = [&controller, "serve", "--state", state, "--listen", &listen, "--socket", &socket];
        self.host.start("controller", &[argv.as_slice(), &["--config", config]].concat(), &[])
    }

    /// Kills the controller as a power cut would.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the controller runs")?.kill().await
    }

    /// Runs the operator's command line.
    pub async fn certwright(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let (certwright, socket) = (program("certwright")?, self.socket());
        self.host.run(&[[certwright.as_str(), "--socket", &socket].as_slice(), arguments].concat()).await
    }

    /// Runs the operator's command line, which must succeed; returns its standard output.
    pub async fn ok(&self, arguments: &[&str], more: &[&str]) -> anyhow::Result<String> {
        self.certwright(&[arguments, more].concat()).await?.expect_ok()
    }

    /// Runs the operator's command line with `-o json` and reads what it prints.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.ok(arguments, &["-o", "json"]).await?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} prints no JSON: {text}"))
    }

    /// Returns a certificate's record.
    pub async fn certificate(&self, name: &str) -> anyhow::Result<Value> {
        self.json(&["certs", "get", name]).await
    }

    /// Waits until a certificate's record is as `wanted`; returns it.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let seen = eventually(what, within, async || {
            last = self.certificate(name).await?;
            Ok(wanted(&last).then(|| last.clone()))
        })
        .await;
        seen.with_context(|| format!("last seen: {last:#}"))
    }

    /// Waits until an agent is connected.
    pub async fn connected(&self, agent: &str) -> anyhow::Result<()> {
        eventually(&format!("agent {agent}"), READY_TIME_MAX, async || {
            Ok((self.json(&["agents", "get", agent]).await?["status"] == "connected").then_some(()))
        })
        .await
    }

    /// Asks for a join token.
    pub async fn join_token(&self, agent: &str) -> anyhow::Result<String> {
        let answer = self.json(&["agents", "enroll", agent]).await?;
        Ok(answer["token"].as_str().with_context(|| format!("no token in {answer}"))?.to_owned())
    }
}

impl Server {
    /// Returns the name this server has in DNS.
    #[must_use]
    pub fn identifier(&self) -> String {
        format!("{}.example.test", self.host.name)
    }

    /// Returns the folder in which nginx looks for a name's certificate.
    #[must_use]
    pub fn dir(&self, name: &str) -> String {
        format!("/etc/nginx/ssl/{name}")
    }

    /// Returns the path of the agent's policy.
    #[must_use]
    pub fn policy(&self) -> String {
        self.host.folder.join("policy.toml").to_string_lossy().into_owned()
    }

    /// Returns the path of the agent's state.
    #[must_use]
    pub fn state(&self) -> String {
        self.host.folder.join("agent").to_string_lossy().into_owned()
    }

    /// Runs `certwright-agent enroll` with a token on its standard input.
    pub async fn enroll_with(&self, token: &str) -> anyhow::Result<Ran> {
        let (state, policy) = (self.state(), self.policy());
        self.host.ok(&["install", "-d", "-m", "0700", "-o", net_user()?, &state]).await?;
        let argv = [AGENT, "enroll", "--state", &state, "--policy", &policy, "--controller", &self.controller];
        self.host.run_with(&[argv.as_slice(), &["--token", "-"]].concat(), token).await
    }

    /// Enrols this server under its host's name.
    pub async fn enroll(&self, control: &Control) -> anyhow::Result<()> {
        let token = control.join_token(&self.host.name).await?;
        self.enroll_with(&token).await?.expect_ok().map(drop)
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        let (apply, net) = (self.start_apply()?, self.start_net()?);
        self.agent = Some(Agent { apply, net });
        Ok(())
    }

    /// Starts the half that writes files and runs commands.
    pub fn start_apply(&self) -> anyhow::Result<Process> {
        let state = self.host.folder.join("apply").to_string_lossy().into_owned();
        let argv = [AGENT, "apply", "--state", &state, "--policy", &self.policy(), "--socket", SOCKET];
        self.host.start("agent", &[argv.as_slice(), &["--net-user", net_user()?]].concat(), &[])
    }

    /// Starts the half that talks with the controller, as its unit would: as a user that may do nothing but open ports.
    pub fn start_net(&self) -> anyhow::Result<Process> {
        let (user, caps) = (net_user()?, "--inh-caps=-all,+net_bind_service");
        let argv = [
            "setpriv",
            "--reuid",
            user,
            "--clear-groups",
            "--no-new-privs",
            caps,
            "--ambient-caps=-all,+net_bind_service",
        ];
        let net = [AGENT, "net", "--state", &self.state(), "--socket", SOCKET];
        self.host.start("agent", &[argv.as_slice(), &net].concat(), &[])
    }

    /// Starts nginx for these names, see `configure`.
    pub async fn serve(&mut self, names: &[&str]) -> anyhow::Result<()> {
        self.configure(names, "").await?;
        let nginx = self.host.start("nginx", &["/usr/sbin/nginx", "-g", "daemon off;"], &[])?;
        self.nginx = Some(nginx);
        eventually("nginx", READY_TIME_MAX, async || {
            let nginx = self.nginx.as_mut().context("was started")?;
            ensure!(nginx.runs(), "nginx ended:\n{}", nginx.output());
            Ok((self.host.run(&["curl", "-sk", "https://127.0.0.1/"]).await?.status == Some(0)).then_some(()))
        })
        .await
    }

    /// Writes nginx's configuration: port 443 for these names, each with a certificate of its own making until there is
    /// a better one, as an admin would have it. `more` goes into the http block as it is.
    pub async fn configure(&self, names: &[&str], more: &str) -> anyhow::Result<()> {
        let mut servers = more.to_owned();
        for name in names {
            let dir = self.dir(name);
            servers.push_str(&nginx_server(name, &dir));
            let leaf_path = format!("{dir}/fullchain.pem");
            if self.host.run(&["test", "-e", &leaf_path]).await?.status != Some(0) {
                let key = KeyPair::generate()?;
                let leaf = CertificateParams::new(vec![(*name).to_owned()])?.self_signed(&key)?.pem();
                self.host.write(&leaf_path, &leaf).await?;
                self.host.write(&format!("{dir}/key.pem"), &key.serialize_pem()).await?;
            }
        }
        self.host.write("/etc/nginx/nginx.conf", &nginx_conf(&servers)).await
    }

    /// Returns the words of `certs create` that deploy `identifier` to this server's nginx, proof included.
    #[must_use]
    pub fn target(&self, identifier: &str) -> Vec<String> {
        let words = [
            "--agent".to_owned(),
            self.host.name.clone(),
            "--dir".to_owned(),
            self.dir(identifier),
            "--reload".to_owned(),
            "/usr/sbin/nginx -s reload".to_owned(),
            "--verify".to_owned(),
            format!("127.0.0.1:443/{identifier}"),
        ];
        words.to_vec()
    }
}

fn nginx_conf(servers: &str) -> String {
    format!(
        "user root;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /var/log/nginx/error.log;\n\
         events {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n  server_names_hash_bucket_size 128;\n\
         {servers}}}\n"
    )
}

fn nginx_server(name: &str, dir: &str) -> String {
    format!(
        "  server {{ listen 443 ssl; server_name {name}; ssl_certificate {dir}/fullchain.pem; \
         ssl_certificate_key {dir}/key.pem; location / {{ return 200 \"{name}\\n\"; }} }}\n"
    )
}

/// The user of the half that talks with the network: nobody, where this test may be somebody else at all.
fn net_user() -> anyhow::Result<&'static str> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let many = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum::<u64>() > 60_000;
    Ok(if many { "nobody" } else { "root" })
}

/// Lets other users through to a folder, as far as its parents are this test's own.
fn open_to_others(folder: &Path) -> anyhow::Result<()> {
    for folder in folder.ancestors() {
        let mode = folder.metadata()?.permissions().mode();
        if mode & 0o001 == 0 {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode | 0o011))?;
        }
    }
    Ok(())
}
