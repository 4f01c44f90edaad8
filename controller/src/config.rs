//! The configuration file and the command line, parsed into values that cannot be wrong. Called by `main`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::lifecycle::lock::LockShare;
use crate::lifecycle::problem::Problem;

/// Larger configuration files are refused.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// Longest address (RFC 5321 §4.5.3.1.3).
const MAIL_TO_MAX: usize = 254;

/// certwright-controller: obtains certificates, decides when to renew, tells agents what to hold
#[derive(Debug, Parser)]
#[command(name = "certwright-controller", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the controller can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller; the first start makes state, master key and identity CA
    Serve(Serve),
    /// Wrap the keyring by another master key; the controller must not run
    RotateMasterKey(Rotate),
    /// Check a backup, or make a database from it; needs no controller
    #[command(subcommand)]
    Backup(Backup),
}

/// What is done with a backup.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Read a backup to its end and say of what it is
    Verify(Sealed),
    /// Make the database of a new controller from a backup; it waits for `certwright restore accept`
    Restore(Restore),
}

/// A backup, and what opens it.
#[derive(Debug, Args)]
pub struct Sealed {
    /// The file that `certwright backup create` wrote
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// It opens with the passphrase that is there: - for standard input, or @FILE
    #[arg(long, value_name = "-|@FILE", required_unless_present = "key_file", conflicts_with = "key_file")]
    pub passphrase: Option<String>,
    /// It opens with this recovery key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Where a backup becomes a database.
#[derive(Debug, Args)]
pub struct Restore {
    /// Directory of the new database: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The backup.
    #[command(flatten)]
    pub sealed: Sealed,
    /// File of the master key, made when it does not exist; a sibling of the state directory when absent (DIR.key/master.key)
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,
    /// What was revoked and removed since the backup: removals.jsonl of the old state directory [default: the one in DIR]
    #[arg(long, value_name = "FILE")]
    pub removals: Option<PathBuf>,
}

impl Restore {
    /// Returns the file of the new master key.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        master_key_path(&self.state, self.master_key.as_deref())
    }
}

/// Which key takes the place of which.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// File of the present master key; a sibling of the state directory when absent (DIR.key/master.key)
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,
    /// File of the new master key; made when it does not exist
    #[arg(long, value_name = "FILE")]
    pub new: PathBuf,
}

impl Rotate {
    /// Returns the file of the present master key.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        master_key_path(&self.state, self.master_key.as_deref())
    }
}

/// How to run.
#[derive(Debug, Args)]
pub struct Serve {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where agents connect
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// Unix socket for operators on this host
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// File of the master key; a sibling of the state directory when absent (DIR.key/master.key)
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,
    /// Address that agents are told, as they see it; wins over the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub advertise: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Serve {
    /// Returns the file of the master key: beside the state directory, never below it.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        master_key_path(&self.state, self.master_key.as_deref())
    }

    /// Returns the address that agents are told: `--advertise`, the configuration's, or the listen address when it is a
    /// real one.
    #[must_use]
    pub fn advertised(&self, config: &Config) -> Option<String> {
        let listen =
            Some(self.listen).filter(|address| !address.ip().is_unspecified()).map(|address| address.to_string());
        self.advertise.clone().or_else(|| config.advertise.clone()).or(listen)
    }
}

/// What agents are told must be something they can connect to.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(1..) if is_plain => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT as agents see it, for example certs.example.com:7443".to_owned()),
    }
}

fn master_key_path(state: &Path, named: Option<&Path>) -> PathBuf {
    named.map(Path::to_owned).unwrap_or_else(|| {
        let mut name = state.file_name().unwrap_or_default().to_owned();
        name.push(".key");
        state.with_file_name(name).join("master.key")
    })
}

/// The configuration file. Unknown keys are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// HOST:PORT that agents are told, as they see it.
    pub advertise: Option<String>,
    /// How the controller looks names up.
    #[serde(default)]
    pub dns: Dns,
    /// Whom to tell how attempts ended.
    #[serde(default)]
    pub mail: Mail,
    /// When certificates are renewed.
    #[serde(default)]
    pub renewal: Renewal,
    /// Where a monitor may look.
    #[serde(default)]
    pub metrics: Metrics,
    /// Where clients fetch the revocation lists of private CAs.
    #[serde(default)]
    pub crl: Crl,
}

/// `[crl]`: off unless it is set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crl {
    /// Any address: a list is public, and says nothing else.
    pub listen: Option<SocketAddr>,
}

/// `[metrics]`: off unless one is set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// A loopback address.
    pub listen: Option<SocketAddr>,
    /// A Unix socket.
    pub socket: Option<PathBuf>,
}

impl Metrics {
    /// Metrics name issuers and count everything: they are for this host only.
    fn check(&self) -> Result<(), String> {
        match (&self.listen, &self.socket) {
            (Some(_), Some(_)) => Err("[metrics]: listen or socket, not both".to_owned()),
            (Some(address), None) if !address.ip().is_loopback() => {
                Err(format!("[metrics] listen: {address} is not a loopback address"))
            }
            (None, Some(path)) if !path.is_absolute() => Err("[metrics] socket: an absolute path".to_owned()),
            _ => Ok(()),
        }
    }
}

/// `[renewal]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// An operator's new order needs a reason while more than this share of the lifetime is left: 0 to 1, 1 never locks.
    #[serde(default)]
    pub lock_share: LockShare,
}

/// `[dns]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Resolvers to ask instead of the system's, as `IP:PORT`.
    #[serde(default)]
    pub servers: Vec<SocketAddr>,
}

/// `[mail]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Whom: a local user or an address; empty means nobody.
    pub to: String,
    /// The local mailer, called as `SENDMAIL -i TO`.
    pub sendmail: PathBuf,
}

impl Default for Mail {
    fn default() -> Self {
        Self { to: "root".to_owned(), sendmail: PathBuf::from("/usr/sbin/sendmail") }
    }
}

impl Mail {
    /// Returns the mailer if it is there and someone is to be told.
    #[must_use]
    pub fn sendmail_there(&self) -> Option<PathBuf> {
        (!self.to.is_empty() && self.sendmail.is_file()).then(|| self.sendmail.clone())
    }

    /// Returns whom it tells and how; empty when it tells nobody.
    #[must_use]
    pub fn words(&self) -> String {
        let there = self.sendmail_there();
        there.map(|sendmail| format!("{} by {}", self.to, sendmail.display())).unwrap_or_default()
    }

    /// Refuses what could be taken for an option or a header.
    fn check(&self) -> Result<(), String> {
        let sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-' | b'@');
        if self.to.len() > MAIL_TO_MAX || self.to.starts_with('-') || !self.to.bytes().all(sign) {
            return Err("[mail] to: one user or address: letters, digits and . _ + - @".to_owned());
        }
        if self.sendmail.is_absolute() { Ok(()) } else { Err("[mail] sendmail: an absolute path".to_owned()) }
    }
}

impl Config {
    /// Reads the file; none is the default.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or has a key we do not know.
    pub fn load(path: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = path else { return Ok(Self::default()) };
        let shown = path.display();
        let unreadable = |cause: String| {
            Problem::new(
                "CONFIG_UNREADABLE",
                format!("cannot read the configuration {shown}"),
                cause,
                format!("check that {shown} exists and that this user may read it"),
            )
        };
        let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if meta.len() > CONFIG_BYTES_MAX {
            return Err(unreadable(format!("it is larger than {CONFIG_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let parsed: Result<Self, String> = toml::from_str(&text).map_err(|error| error.to_string());
        parsed.and_then(|config| config.check().map(|()| config)).map_err(|cause| {
            Problem::new(
                "CONFIG_WRONG",
                format!("the configuration {shown} is wrong"),
                cause,
                "remove or correct the key it names; there is advertise = \"ctl.example.com:7443\", [dns] servers = [\"192.0.2.53:53\"], [mail] to and sendmail, [renewal] lock_share = 0.33, [metrics] listen = \"127.0.0.1:9469\" or socket, and [crl] listen = \"0.0.0.0:9470\"",
            )
        })
    }

    /// Refuses what has the right form and no sense.
    fn check(&self) -> Result<(), String> {
        if let Some(advertise) = &self.advertise {
            host_and_port(advertise).map_err(|error| format!("advertise: {error}"))?;
        }
        self.mail.check()?;
        self.metrics.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> Serve {
        let base = ["certwright-controller", "serve", "--state", "/var/lib/certwright", "--socket", "/run/s"];
        match Cli::try_parse_from(base.iter().chain(args)).unwrap().command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_master_key_is_beside_the_state_never_below() {
        assert_eq!(
            serve(&["--listen", "[::]:7443"]).master_key_path(),
            Path::new("/var/lib/certwright.key/master.key")
        );
        assert_eq!(serve(&["--listen", "[::]:7443", "--master-key", "/k"]).master_key_path(), Path::new("/k"));
    }

    #[test]
    fn a_wildcard_listen_address_is_not_advertised() {
        let (none, some) = (Config::default(), Config { advertise: Some("conf:7443".to_owned()), ..Config::default() });
        assert_eq!(serve(&["--listen", "[::]:7443"]).advertised(&none), None);
        assert_eq!(serve(&["--listen", "192.0.2.1:7443"]).advertised(&none).unwrap(), "192.0.2.1:7443");
        assert_eq!(serve(&["--listen", "192.0.2.1:7443"]).advertised(&some).unwrap(), "conf:7443");
        assert_eq!(serve(&["--listen", "[::]:7443", "--advertise", "ctl:7443"]).advertised(&some).unwrap(), "ctl:7443");
    }

    #[test]
    fn what_agents_are_told_has_a_host_and_a_port() {
        for text in ["foo", "foo:", ":7443", "foo:0", "foo:99999", "http://foo:7443", "foo bar:1"] {
            let error = host_and_port(text).unwrap_err();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
        for text in ["certs.example.com:7443", "[2001:db8::1]:7443", "192.0.2.1:1"] {
            assert_eq!(host_and_port(text).unwrap(), text);
        }
    }

    #[test]
    fn the_packaged_configuration_is_right_as_it_is_and_with_every_example() {
        let packaged = include_str!("../../packaging/config/controller.toml");
        toml::from_str::<Config>(packaged).unwrap();
        let is_key = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let example = |line: &str| {
            let rest = line.strip_prefix("# ")?;
            rest.split_once(" = ").filter(|(key, _)| is_key(key)).map(|_| rest.to_owned())
        };
        let whole: Vec<String> =
            packaged.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
        let config: Config = toml::from_str(&whole.join("\n")).unwrap();
        assert!(config.metrics.listen.is_some() && !config.dns.servers.is_empty());
        config.check().unwrap();
    }

    #[test]
    fn an_unknown_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "[dns]\nserver = [\"1.1.1.1:53\"]\n").unwrap();
        let problem = Config::load(Some(&path)).unwrap_err();
        assert!(problem.cause.contains("server"), "{problem:?}");
        for to in ["-oQ/tmp", "a b", "root\\nBcc: x@y"] {
            std::fs::write(&path, format!("[mail]\nto = \"{to}\"\n")).unwrap();
            assert!(Config::load(Some(&path)).unwrap_err().cause.contains("[mail] to"), "{to}");
        }
        std::fs::write(&path, "advertise = \"https://ctl\"\n").unwrap();
        assert!(Config::load(Some(&path)).unwrap_err().cause.contains("advertise: expected HOST:PORT"));
        std::fs::write(&path, "[dns]\nservers = [\"192.0.2.53:53\"]\n").unwrap();
        assert_eq!(Config::load(Some(&path)).unwrap().dns.servers.len(), 1);
        std::fs::write(&path, "[renewal]\nlock_share = 0.5\n").unwrap();
        assert_eq!(Config::load(Some(&path)).unwrap().renewal.lock_share, LockShare::try_from(0.5).unwrap());
        for (wrong, said) in [
            ("listen = \"0.0.0.0:9469\"", "not a loopback address"),
            ("socket = \"metrics.sock\"", "absolute path"),
            ("listen = \"[::1]:9469\"\nsocket = \"/run/m\"", "not both"),
        ] {
            std::fs::write(&path, format!("[metrics]\n{wrong}\n")).unwrap();
            assert!(Config::load(Some(&path)).unwrap_err().cause.contains(said), "{wrong}");
        }
        std::fs::write(&path, "[metrics]\nlisten = \"[::1]:9469\"\n").unwrap();
        assert!(Config::load(Some(&path)).unwrap().metrics.listen.is_some());
        std::fs::write(&path, "[renewal]\nlock_share = 30.0\n").unwrap();
        assert!(Config::load(Some(&path)).unwrap_err().cause.contains("between 0 and 1"));
    }
}
