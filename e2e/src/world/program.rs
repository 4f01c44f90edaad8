//! The programs of the world and their lives: start, orderly stop, kill. A kill drops the program's future and cuts its
//! power, so that nothing it left running can touch the world; what it had synced stays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use controller::lifecycle::restore::Restore;
use controller::store::Store;
use controller::store::backup::{Terms, open};
use controller::store::engine::Backend;
use controller::store::master_key::MasterKey;
use controller::store::removals::{Removals, read_removals};
use controller::store::seal::recovery::Recovery;
use futures_util::stream;
use jiff::SignedDuration;
use proto::clock::Clock as _;
use proto::operator::v1 as api;
use proto::types::v1 as types;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::operator::{RELOAD, USERS, socket};
use crate::fake_ca::FakeCa;
use crate::fake_dns::FakeDns;
use crate::fake_host::{Machine, Script};
use crate::power::disk::{self, Disk, Unsynced};
use crate::power::{KillPoint, PowerSwitch};
use crate::sim_clock::SimClock;
use crate::sim_net::{CONTROLLER_HOST, Listener, SimNet, SimProbe};

/// Where agents find the controller.
pub const CONTROLLER: &str = "controller.test:8443";
/// Where agents connect to the controller.
pub const LISTEN: SocketAddr = SocketAddr::new(CONTROLLER_HOST, 8443);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// One life of one program.
#[derive(Debug)]
struct Life {
    switch: PowerSwitch,
    stop: CancellationToken,
    run: JoinSet<anyhow::Result<()>>,
}

impl Life {
    fn begin(
        switch: PowerSwitch,
        stop: CancellationToken,
        run: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        let off = switch.off();
        let mut set = JoinSet::new();
        set.spawn(async move {
            tokio::select! {
                biased;
                () = off.cancelled() => Ok(()),
                ended = run => ended,
            }
        });
        Self { switch, stop, run: set }
    }

    /// Whether it was killed, or ended by itself: a service manager starts it again.
    fn is_down(&mut self) -> bool {
        match self.run.try_join_next() {
            Some(Err(panic)) => panic!("a program ended by a bug: {panic}"),
            Some(Ok(ended)) => tracing::info!(?ended, "a program ended"),
            None => {}
        }
        self.switch.is_off() || self.run.is_empty()
    }

    /// Cuts the power and waits until nothing of the program runs any more, blocking threads included: paused time does
    /// not advance while one of them works.
    async fn kill(&mut self) {
        self.switch.cut();
        while self.run.join_next().await.is_some() {}
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(STOP_LIMIT, self.run.join_next()).await;
        ended.expect("an orderly stop ends in time").expect("one task").expect("no panic").expect("no error");
        self.kill().await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.switch.cut();
    }
}

/// The controller's host: what survives the controller.
#[derive(Debug)]
pub struct ControllerSite {
    /// The disk with its database.
    pub disk: Disk,
    folder: TempDir,
    /// Its own wall clock, which may be set wrong.
    pub clock: Arc<SimClock>,
    net: SimNet,
    dns: FakeDns,
    ca: FakeCa,
    life: Option<Life>,
    deaths: u64,
}

impl ControllerSite {
    pub(super) fn new(unsynced: Unsynced, clock: Arc<SimClock>, net: &SimNet, dns: &FakeDns, ca: &FakeCa) -> Self {
        dns.set("controller.test", &[LISTEN.ip()]);
        Self {
            disk: Disk::new(unsynced),
            folder: disk::folder("certwright-sim-controller-"),
            clock: Arc::new(clock.skewed(SignedDuration::ZERO)),
            net: net.clone(),
            dns: dns.clone(),
            ca: ca.clone(),
            life: None,
            deaths: 0,
        }
    }

    /// Starts the controller on what its disk holds.
    pub fn start(&mut self) {
        assert!(self.life.is_none(), "one controller at a time");
        let (switch, stop) = (PowerSwitch::new(), CancellationToken::new());
        let backend = Backend::Custom(Box::new(self.disk.mount(switch.clone())));
        let key_path = self.folder.path().join("master.key");
        let agents = self.net.bind(LISTEN, "certwright-controller", &switch).expect("the port is free");
        let bind = |uid| self.net.bind(socket(uid), "certwright-controller", &switch).expect("the socket is free");
        let sockets = USERS.map(|(_, uid)| (bind(uid), uid));
        let parts = Outside {
            clock: self.clock.clone(),
            transport: self.ca.transport(switch.clone()),
            lookup: self.dns.lookup(switch.clone()),
            probe: Arc::new(SimProbe { net: self.net.clone(), switch: switch.clone() }),
        };
        let removals = Removals::at(self.removals_path());
        let run = Box::pin(serve(parts, backend, key_path, removals, agents, sockets, stop.clone()));
        self.life = Some(Life::begin(switch, stop, run));
    }

    /// Where revocations and removals are written beside the database.
    #[must_use]
    pub fn removals_path(&self) -> PathBuf {
        self.folder.path().join("removals.jsonl")
    }

    /// Makes the database of this host anew from a backup, as `certwright-controller backup restore` does; the controller must
    /// not run. `switch` may cut the power meanwhile.
    ///
    /// # Errors
    /// As the program says.
    pub fn restore(&mut self, file: &[u8], key: &str, switch: &PowerSwitch) -> anyhow::Result<Restore> {
        self.disk = Disk::new(Unsynced::Lost);
        // Another machine has no master key; after a crash the first one made is used.
        let master = MasterKey::load_or_create(&self.folder.path().join("master.key"), false)?;
        let recovery = Recovery::key_file(&key.to_owned().into())?;
        let terms = Terms {
            at: self.clock.now(),
            by: "local:root".to_owned(),
            from: "uid 0".to_owned(),
            removals: read_removals(&self.removals_path())?,
        };
        let backend = Backend::Custom(Box::new(self.disk.mount(switch.clone())));
        Ok(open(std::io::Cursor::new(file), &recovery)?.restore(backend, &master, &terms)?.1)
    }

    /// Opens the database of this host as the next start does; the controller must not run.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn open_copy(&self) -> anyhow::Result<Store> {
        let master = MasterKey::load_or_create(&self.folder.path().join("master.key"), true)?;
        let disk = self.disk.copy();
        Ok(Store::open(Backend::Custom(Box::new(disk.mount(PowerSwitch::new()))), false, master).await?)
    }

    /// Forgets the master key, and what was written down beside the database: the machine is lost.
    pub fn lose_folder(&mut self) {
        self.folder = disk::folder("certwright-sim-controller-");
    }

    /// Plans a kill of the running controller; `None` plans none.
    pub fn plan(&self, kill: Option<KillPoint>) {
        self.switch().plan(kill);
    }

    /// Returns the power switch of the running controller.
    #[must_use]
    pub fn switch(&self) -> &PowerSwitch {
        &self.life.as_ref().expect("the controller runs").switch
    }

    /// Whether it was killed by plan or has ended by itself.
    pub fn is_down(&mut self) -> bool {
        self.life.as_mut().is_some_and(Life::is_down)
    }

    /// Returns how often it was killed.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Kills the controller.
    pub async fn kill(&mut self) {
        self.deaths += 1;
        self.life.take().expect("the controller runs").kill().await;
    }

    /// Stops the controller in order.
    pub async fn stop(&mut self) {
        self.life.take().expect("the controller runs").stop().await;
    }
}

/// Copies a directory with all below it and its modes, in place of what was there.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, from.metadata()?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

struct Outside {
    clock: Arc<SimClock>,
    transport: Arc<dyn controller::acme::http::Transport>,
    lookup: Arc<dyn controller::dns::lookup::Lookup>,
    probe: Arc<dyn controller::preflight::probe::Probe>,
}

async fn serve(
    outside: Outside,
    backend: Backend,
    key_path: PathBuf,
    removals: Removals,
    agents: Listener,
    sockets: [(Listener, u32); USERS.len()],
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let exists = backend.exists();
    let master = MasterKey::load_or_create(&key_path, exists)?;
    let store = Store::open(backend, true, master).await?;
    let parts = controller::app::Parts {
        clock: outside.clock,
        store,
        transport: outside.transport,
        lookup: outside.lookup,
        probe: outside.probe,
        name: "controller".to_owned(),
        advertise: Some(CONTROLLER.to_owned()),
        // Processes are of the real world.
        mail: controller::config::Mail { to: String::new(), ..controller::config::Mail::default() },
        monitors: controller::rpc::Door::Closed,
        lists: None,
        lock_share: controller::lifecycle::lock::LockShare::default(),
        removals,
    };
    let agents = stream::unfold(agents, |mut listener| async move {
        let (pipe, from) = listener.accept_from().await?;
        Some((Ok::<_, std::io::Error>((pipe, Some(from))), listener))
    });
    let socket = stream::select_all(sockets.map(|(listener, uid)| {
        let user = controller::rpc::PeerUser { uid, login_uid: None };
        Box::pin(stream::unfold(listener, move |mut listener| async move {
            listener.accept().await.map(|pipe| (Ok::<_, std::io::Error>((pipe, user)), listener))
        }))
    }));
    Ok(controller::app::run(parts, agents, socket, stop).await?)
}

/// An agent's host: what survives the agent.
#[derive(Debug)]
pub struct AgentSite {
    /// The machine.
    pub machine: Machine,
    clock: Arc<SimClock>,
    life: Option<Life>,
    deaths: u64,
}

impl AgentSite {
    pub(super) fn new(machine: Machine, clock: Arc<SimClock>) -> Self {
        for folder in ["etc/nginx/ssl", "var/www/html", "etc/certwright", "var/lib"] {
            std::fs::create_dir_all(machine.path(folder)).unwrap();
        }
        let root = machine.root().display();
        let policy = format!(
            "[[dir]]\npath = \"{root}/etc/nginx/ssl\"\nfiles = [\"*.pem\", \"*.crt\", \"*.key\"]\n\
             [[command]]\nargv = [\"{}\", \"{}\", \"{}\"]\ntimeout = \"30s\"\n\
             [http01]\nports = [80, 8080]\nwebroots = [\"{root}/var/www/html\"]\n\
             [key]\ncustody = [\"agent\", \"controller\"]\n",
            RELOAD[0], RELOAD[1], RELOAD[2]
        );
        std::fs::write(machine.path("etc/certwright/policy.toml"), policy).unwrap();
        machine.script(&RELOAD, Script::Reload);
        machine.start_service(443).unwrap();
        Self { machine, clock, life: None, deaths: 0 }
    }

    fn parts(&self, switch: &PowerSwitch) -> agent::app::Parts {
        agent::app::Parts {
            clock: self.clock.clone(),
            host: self.machine.host(switch.clone()),
            state_dir: self.state_dir(),
            policy_path: self.machine.path("etc/certwright/policy.toml"),
        }
    }

    /// Returns the agent's own directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.machine.path("var/lib/certwright-agent")
    }

    /// Copies the agent's own directory, as a snapshot of the disk would; what is there is replaced.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy_state(&self, to: &Path) {
        copy_dir(&self.state_dir(), to).expect("the state is copied");
    }

    /// Puts a copy of the agent's directory back.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn restore_state(&self, from: &Path) {
        copy_dir(from, &self.state_dir()).expect("the state is restored");
    }

    /// Runs `certwright-agent enroll` until it is killed at this step, or ends.
    ///
    /// # Errors
    /// As the agent says; nothing when it was killed.
    pub async fn enroll_until(&self, token: &SecretString, kill: KillPoint) -> anyhow::Result<bool> {
        let switch = PowerSwitch::new();
        switch.plan(Some(kill));
        let parts = self.parts(&switch);
        let off = switch.off();
        tokio::select! {
            biased;
            () = off.cancelled() => Ok(false),
            ended = agent::app::enroll(&parts, CONTROLLER, token) => match ended {
                Err(_) if switch.is_off() => Ok(false),
                ended => ended.map(|_| true),
            },
        }
    }

    /// Runs `certwright-agent enroll`.
    ///
    /// # Errors
    /// As the agent says.
    pub async fn enroll(&self, token: &SecretString) -> anyhow::Result<()> {
        let parts = self.parts(&PowerSwitch::new());
        agent::app::enroll(&parts, CONTROLLER, token).await.map(drop)
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        assert!(self.life.is_none(), "one agent per machine");
        let (switch, stop) = (PowerSwitch::new(), CancellationToken::new());
        let run = Box::pin(agent::app::run(self.parts(&switch), stop.clone()));
        self.life = Some(Life::begin(switch, stop, run));
    }

    /// Plans a kill of the running agent; `None` plans none.
    pub fn plan(&self, kill: Option<KillPoint>) {
        self.switch().plan(kill);
    }

    /// Returns the power switch of the running agent.
    #[must_use]
    pub fn switch(&self) -> &PowerSwitch {
        &self.life.as_ref().expect("the agent runs").switch
    }

    /// Whether it was killed by plan or has ended by itself.
    pub fn is_down(&mut self) -> bool {
        self.life.as_mut().is_some_and(Life::is_down)
    }

    /// Returns how often it was killed.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Kills the agent.
    pub async fn kill(&mut self) {
        self.deaths += 1;
        self.life.take().expect("the agent runs").kill().await;
    }

    /// Stops the agent in order.
    pub async fn stop(&mut self) {
        self.life.take().expect("the agent runs").stop().await;
    }

    /// Stops the agent in order, if it has not ended by itself.
    pub async fn stop_if_running(&mut self) {
        if self.is_down() {
            self.life = None;
        } else if self.life.is_some() {
            self.stop().await;
        }
    }

    /// Starts the agent, if it does not run.
    pub fn start_if_stopped(&mut self) {
        if self.life.is_none() {
            self.start();
        }
    }

    /// Returns the directory of a certificate on this machine.
    #[must_use]
    pub fn dir(&self, name: &str) -> PathBuf {
        self.machine.path(&format!("etc/nginx/ssl/{name}"))
    }

    /// Configures the TLS service for a certificate and returns the target that fits.
    #[must_use]
    pub fn target(&self, name: &str, server_name: &str) -> api::TargetSpec {
        let dir = self.dir(name);
        self.machine.service().add_site(server_name, dir.join("fullchain.pem"), dir.join("key.pem"));
        api::TargetSpec {
            agent: self.machine.name().to_owned(),
            dir: dir.display().to_string(),
            files: Vec::new(),
            validate: vec![],
            reload: vec![types::Command { argv: RELOAD.map(str::to_owned).to_vec() }],
            verify: vec![types::Endpoint {
                address: "127.0.0.1:443".to_owned(),
                server_name: server_name.to_owned(),
                protocol: 0,
            }],
            on_drift: 0,
        }
    }
}
