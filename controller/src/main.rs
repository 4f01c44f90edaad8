//! certwright-controller: reads the command line, opens the database and the sockets, runs until a signal.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use controller::acme::transport::HyperTransport;
use controller::app::{self, Parts};
use controller::ca::IdentityCa;
use controller::config::{Backup, Cli, Command, Config, Metrics, Restore, Rotate, Sealed, Serve};
use controller::dns::lookup::Resolver;
use controller::lifecycle::problem::Problem;
use controller::offline;
use controller::preflight::probe::TcpProbe;
use controller::rpc::{ADMIN_GROUP, Door, PeerUser};
use controller::store::Store;
use controller::store::backup::{About, Summary};
use controller::store::engine::Backend;
use controller::store::master_key::MasterKey;
use controller::store::removals::{REMOVALS_FILE, Removals};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::clock::{Clock as _, SystemClock};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Database file inside the state directory.
const DATABASE: &str = "certwright.redb";
/// What the kernel says of a process that nobody logged in for.
const LOGIN_UID_UNSET: u32 = u32::MAX;
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("nothing installed a provider before");
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return refuse(&Problem::new(
                "NO_RUNTIME",
                "cannot start",
                error.to_string(),
                "check the limits of this process",
            ));
        }
    };
    let ended = match command {
        Command::Serve(serve) => runtime.block_on(start(serve)),
        Command::RotateMasterKey(rotate) => runtime.block_on(rotate_master_key(&rotate)),
        Command::Backup(Backup::Verify(sealed)) => verify_backup(&sealed),
        Command::Backup(Backup::Restore(asked)) => restore_backup(&asked),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => refuse(&problem),
    }
}

/// Every agent holds a descriptor, and the usual soft limit is 1,024. Without the right to raise it we go on with what we have:
/// accepting rests when it is used up.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open files");
    }
}

fn refuse(problem: &Problem) -> ExitCode {
    let mut text = format!("error: {}\n", problem.message);
    if !problem.cause.is_empty() {
        text.push_str(&format!("because: {}\n", problem.cause));
    }
    text.push_str(&format!("try: {}\n", problem.hint));
    // Nothing is left to tell if standard error is gone.
    drop(io::stderr().write_all(text.as_bytes()));
    ExitCode::FAILURE
}

async fn start(serve: Serve) -> Result<(), Problem> {
    let config = Config::load(serve.config.as_deref())?;
    let resolver =
        if config.dns.servers.is_empty() { Resolver::system() } else { Resolver::with_servers(&config.dns.servers) };
    let resolver = resolver.map_err(|error| {
        Problem::new(
            "NO_RESOLVER",
            "cannot set up name resolution",
            error.to_string(),
            "check /etc/resolv.conf, or set [dns] servers in the configuration",
        )
    })?;
    let database = Backend::File(serve.state.join(DATABASE));
    let first = !database.exists();
    let key_path = serve.master_key_path();
    let first_key = !key_path.exists();
    let master = MasterKey::load_or_create(&key_path, !first).map_err(|error| error.problem())?;
    let store = Store::open(database, first, master).await.map_err(|error| error.problem())?;
    let agents = TcpListener::bind(serve.listen).await.map_err(|error| {
        Problem::new(
            "PORT_TAKEN",
            format!("cannot listen on {}", serve.listen),
            error.to_string(),
            "choose another --listen address, or stop what holds it (ss -ltnp)",
        )
    })?;
    let socket = bind_socket(&serve.socket).await?;
    let stop = CancellationToken::new();
    let clock = Arc::new(SystemClock);
    // A first start makes it; what fails here fails before anybody is told that the controller is ready.
    IdentityCa::open_or_create(&store, clock.clone()).await.map_err(|error| error.problem())?;
    let advertise = serve.advertised(&config);
    if first {
        info!(state = %serve.state.display(), "made the database and the identity CA");
    }
    if first_key {
        info!(master_key = %key_path.display(), "made the master key: back it up, apart from the state; without it the state is useless");
    }
    announce(&serve, advertise.as_deref());
    let parts = Parts {
        clock: clock.clone(),
        store,
        transport: Arc::new(HyperTransport::new(clock)),
        lookup: Arc::new(resolver),
        probe: Arc::new(TcpProbe),
        name: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
        advertise,
        mail: config.mail,
        monitors: door(&config.metrics).await?,
        lists: list_door(config.crl.listen).await?,
        lock_share: config.renewal.lock_share,
        removals: Removals::at(serve.state.join(REMOVALS_FILE)),
    };
    let agents = TcpListenerStream::new(agents)
        .map(|accepted| accepted.and_then(|stream| stream.set_nodelay(true).map(|()| stream)))
        .map(|accepted| accepted.map(|stream| (stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()), stream)))
        .map(|accepted| accepted.map(|(address, stream)| (stream, address)));
    let socket = UnixListenerStream::new(socket)
        .map(|accepted| accepted.and_then(|stream| peer_user(&stream).map(|user| (stream, user))));
    tokio::select! {
        ended = app::run(parts, agents, socket, stop.clone()) => ended.map_err(|error| error.problem()),
        signal = first_signal(stop.clone()) => signal,
    }?;
    drop(std::fs::remove_file(&serve.socket));
    Ok(())
}

/// Who is at the other end of the operators' socket. The kernel vouches for the uid; the login uid is read from the
/// process as it is now and only tells the audit more.
fn peer_user(stream: &UnixStream) -> io::Result<PeerUser> {
    let peer = stream.peer_cred()?;
    let login = peer.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok());
    let login_uid = login.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != LOGIN_UID_UNSET);
    Ok(PeerUser { uid: peer.uid(), login_uid })
}

/// Wraps the keyring by another key. Both files exist until the operator destroys the old one, so a crash at any moment
/// leaves one that fits.
async fn rotate_master_key(rotate: &Rotate) -> Result<(), Problem> {
    let old = MasterKey::load_or_create(&rotate.master_key_path(), true).map_err(|error| error.problem())?;
    let store =
        Store::open(Backend::File(rotate.state.join(DATABASE)), false, old).await.map_err(|error| error.problem())?;
    let new = MasterKey::load_or_create(&rotate.new, false).map_err(|error| error.problem())?;
    store.rotate_master(&new).await.map_err(|error| error.problem())?;
    info!(
        new = %rotate.new.display(),
        "the new master key opens this database: start with serve --master-key and this file, back it up, then destroy the old one"
    );
    Ok(())
}

/// Says of what a backup is, once it was read to its end.
fn verify_backup(sealed: &Sealed) -> Result<(), Problem> {
    let Summary { about, rows, bytes } = offline::verify(sealed)?;
    let About { made_at, controller, version, .. } = about;
    info!(%made_at, controller, version, rows, bytes, "the backup is whole, and opens");
    Ok(())
}

/// Makes a database from a backup, and says what comes next.
fn restore_backup(asked: &Restore) -> Result<(), Problem> {
    let uid = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let now = SystemClock.now();
    let made = offline::restore(asked, DATABASE, now, format!("local:{user}"), format!("uid {uid}"))?;
    let (Summary { about, rows, .. }, restored) = made;
    info!(made_at = %about.made_at, controller = about.controller, rows, "restored");
    info!(master_key = %asked.master_key_path().display(), "the master key of the new database: back it up, apart from the state");
    match restored.removals {
        Some(count) => info!(count, "revocations and removals since the backup still hold"),
        None => info!(
            "no removals.jsonl: who was revoked or removed since the backup is known to nobody; look at certwright agents ls"
        ),
    }
    info!(
        "start the controller: it orders and publishes nothing until certwright restore accept; certwright restore status says what agents hold"
    );
    Ok(())
}

/// Cancels `stop` at SIGTERM or SIGINT; the second signal ends the wait for a clean end.
async fn first_signal(stop: CancellationToken) -> Result<(), Problem> {
    let no_signals = |error: io::Error| {
        Problem::new("NO_SIGNALS", "cannot wait for signals", error.to_string(), "check the limits of this process")
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("ending");
        stop.cancel();
    }
    Ok(())
}

/// Says how to go on, once everything is open.
fn announce(serve: &Serve, advertise: Option<&str>) {
    info!(command = format!("sudo certwright --socket {}", serve.socket.display()), "operators on this host");
    match advertise {
        Some(address) => info!(address, "agents: certwright agents enroll NAME prints the command for a server"),
        None => {
            info!(listen = %serve.listen, "agents: certwright agents enroll NAME; give --advertise HOST:PORT, or advertise in the configuration, so that its command is complete")
        }
    }
    // Outside systemd there is nobody to tell.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
}

/// Opens the door for monitors, if there is one.
async fn door(metrics: &Metrics) -> Result<Door, Problem> {
    let cannot = |at: String, error: io::Error| {
        let hint = "choose another [metrics] address, or stop what holds it (ss -ltnp)";
        Problem::new("METRICS_FAILED", format!("cannot serve metrics at {at}"), error.to_string(), hint)
    };
    match (&metrics.listen, &metrics.socket) {
        (Some(address), _) => {
            let bound = TcpListener::bind(address).await;
            bound.map(Door::Port).map_err(|error| cannot(address.to_string(), error))
        }
        (None, Some(path)) => bind_unix(path).await.map(Door::Socket),
        (None, None) => Ok(Door::Closed),
    }
}

/// Opens the door for those who fetch revocation lists, if there is one.
async fn list_door(listen: Option<SocketAddr>) -> Result<Option<TcpListener>, Problem> {
    let Some(address) = listen else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|error| {
        let hint = "choose another [crl] address, or stop what holds it (ss -ltnp)";
        Problem::new("CRL_FAILED", format!("cannot serve revocation lists at {address}"), error.to_string(), hint)
    })
}

/// Opens the operators' socket and gives it to their group.
async fn bind_socket(path: &Path) -> Result<UnixListener, Problem> {
    let listener = bind_unix(path).await?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(ADMIN_GROUP) {
        // Only root, or a member of the group, may give the socket to it; without that the owner alone connects.
        if let Err(error) = nix::unistd::chown(path, None, Some(group.gid)) {
            info!(group = ADMIN_GROUP, %error, "the socket stays with its owner's group");
        }
    }
    Ok(listener)
}

/// Opens a socket that owner and group may connect to; a stale one is replaced, a live one is not.
async fn bind_unix(path: &Path) -> Result<UnixListener, Problem> {
    let shown = path.display();
    let cannot = |error: io::Error| {
        Problem::new(
            "SOCKET_FAILED",
            format!("cannot open the socket {shown}"),
            error.to_string(),
            "check that its directory exists and that this user may write there, or choose another --socket",
        )
    };
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(Problem::new(
                "SOCKET_FAILED",
                format!("{shown} exists and is not a socket"),
                "",
                "choose another --socket, or remove it",
            ));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(Problem::new(
                "SOCKET_TAKEN",
                format!("another controller answers at {shown}"),
                "",
                "stop it, or choose another --socket",
            ));
        }
        std::fs::remove_file(path).map_err(cannot)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(cannot)?;
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(cannot)?;
    Ok(listener)
}
