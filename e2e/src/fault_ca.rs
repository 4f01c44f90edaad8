//! The fault CA: the fake CA behind a real HTTPS listener, with a script of misbehaviour, its state on disk, and a line for
//! every request. A host of the lab runs it (`src/bin/fault_ca.rs`); tests write its script and read its log. Everything
//! is in one folder: `script.json` (read for every request), `state.json`, `requests.log`, `root.pem`.

mod http;
pub mod script;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use proto::clock::{Clock, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::http::{Asked, Reply};
use self::script::{Act, Script};
use crate::fake_ca::{FakeCa, Options, Validator};
use crate::power::disk::split_mix;

/// How long the CA waits for a host.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);
/// Most of an answer of a host that is read.
const LOOK_BYTES_MAX: u64 = 16 * 1024;

/// The server.
#[derive(Debug)]
pub struct FaultCa {
    folder: PathBuf,
    base: String,
    ca: FakeCa,
    /// What each rule of the script has seen, by its place; counted anew in each life of the CA.
    tallies: Mutex<Vec<Tally>>,
}

/// What a rule of the script has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Requests that it is about.
    seen: u64,
    /// How often it struck.
    struck: u64,
}

impl FaultCa {
    /// Opens the CA in a folder, with whatever an earlier life kept there. `base` is what its URLs start with.
    ///
    /// # Errors
    /// When the folder or the state in it cannot be used.
    pub fn open(folder: &Path, base: &str) -> anyhow::Result<Self> {
        let validator = Arc::new(PublicView { folder: folder.to_owned() });
        // One vantage point: the lab has one network.
        let options = Options { vantage_points: 1, ..Options::default() };
        let ca = FakeCa::at(base, options, Arc::new(SystemClock), validator);
        if let Ok(kept) = fs::read(folder.join("state.json")) {
            ca.take_up(&serde_json::from_slice(&kept)?).context("state.json")?;
        }
        Ok(Self { folder: folder.to_owned(), base: base.to_owned(), ca, tallies: Mutex::default() })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let acceptor = TlsAcceptor::from(Arc::new(identity(&self.folder, address.ip())?));
        let listener = TcpListener::bind(address).await?;
        let ca = Arc::new(self);
        let mut visitors = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            let (ca, acceptor) = (ca.clone(), acceptor.clone());
            visitors.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    // A client that goes away, or is made to, is no failure.
                    drop(ca.talk(stream).await);
                }
            });
            while visitors.try_join_next().is_some() {}
        }
    }

    async fn talk(&self, stream: tokio_rustls::server::TlsStream<TcpStream>) -> std::io::Result<()> {
        let mut stream = tokio::io::BufStream::new(stream);
        while let Some(asked) = http::read(&mut stream).await? {
            let line =
                |status| format!("{} {} {} {status}\n", SystemClock.now().as_millisecond(), asked.method, asked.path);
            let (script, now) = (Script::read(&self.folder), SystemClock.now());
            script.apply(&self.ca, now);
            let mut reply = match self.rule(&script, &asked) {
                None => self.honest(&asked).await,
                Some(Act::Delay { milliseconds }) => {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                    self.honest(&asked).await
                }
                Some(act) => act.reply(&self.ca.nonce(), SystemClock.now()),
            };
            reply.headers.extend(script.retry_after(asked.kind(), now));
            self.save()?;
            http::append(&self.folder.join("requests.log"), &line(reply.status))?;
            http::write(&mut stream, &asked, reply).await?;
        }
        stream.shutdown().await
    }

    async fn honest(&self, asked: &Asked) -> Reply {
        let Ok(answer) = self.ca.answer_to(asked.request(&self.base)).await else { return Reply::silent() };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_or_else(|_endless| Bytes::new(), |body| body.to_bytes());
        let header = |(name, value): (&::http::HeaderName, &::http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Reply { status: parts.status.as_u16(), headers: parts.headers.iter().map(header).collect(), body: body.into() }
    }

    /// Returns what the first rule that strikes does.
    fn rule(&self, script: &Script, asked: &Asked) -> Option<Act> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = script.rules.len().max(tallies.len());
        tallies.resize(rules, Tally::default());
        for (rule, tally) in script.rules.iter().zip(tallies.iter_mut()) {
            if !rule.is_about(&asked.method, asked.kind()) || rule.times.is_some_and(|times| tally.struck >= times) {
                continue;
            }
            tally.seen += 1;
            if rule.percent.is_none_or(|percent| split_mix(tally.seen) % 100 < percent) {
                tally.struck += 1;
                return Some(rule.act.clone());
            }
        }
        None
    }

    /// Writes the books down, before the answer leaves.
    fn save(&self) -> std::io::Result<()> {
        let (path, next) = (self.folder.join("state.json"), self.folder.join("state.next"));
        fs::write(&next, self.ca.kept().to_string())?;
        fs::write(self.folder.join("issuing-root.pem"), self.ca.root_pem())?;
        fs::rename(next, path)
    }
}

/// Makes the certificate of the listener and the root that a client must be told, or takes those of an earlier life.
fn identity(folder: &Path, address: IpAddr) -> anyhow::Result<ServerConfig> {
    let path = folder.join("listener.json");
    if !path.exists() {
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.distinguished_name.push(DnType::CommonName, "fault CA listener root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key)?.pem();
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.subject_alt_names.push(SanType::IpAddress(address));
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key))?;
        fs::write(&path, serde_json::json!({ "leaf": leaf.pem(), "key": key.serialize_pem() }).to_string())?;
        fs::write(folder.join("root.pem"), root_pem)?;
    }
    let kept: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let text = |name: &str| kept[name].as_str().context("listener.json");
    let chain = proto::x509::parse_certificates(text("leaf")?.as_bytes())?;
    let key = KeyPair::from_pem(text("key")?)?.serialize_der();
    let key = PrivateKeyDer::try_from(key).ok().context("rcgen writes PKCS #8")?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    Ok(config.with_single_cert(chain, key)?)
}

/// Looks at port 80 of the hosts that the script names.
#[derive(Debug)]
struct PublicView {
    folder: PathBuf,
}

#[async_trait]
impl Validator for PublicView {
    async fn get(&self, _vantage: usize, host: &str, path: &str) -> Result<String, (String, String)> {
        let refusal = |why: &str| ("connection".to_owned(), format!("Fetching http://{host}{path}: {why}"));
        let script = Script::read(&self.folder);
        let address = script.names.get(host).ok_or_else(|| ("dns".to_owned(), format!("{host}: no such name")))?;
        let look = async {
            let mut stream = TcpStream::connect((*address, 80)).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.take(LOOK_BYTES_MAX).read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        match timeout(LOOK_TIME_MAX, look).await {
            Err(_elapsed) => Err(refusal("Timeout during connect (likely firewall problem)")),
            Ok(Err(error)) => Err(refusal(&error.to_string())),
            Ok(Ok(answer)) => match answer.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
                _ => Err(("unauthorized".to_owned(), format!("{host}: invalid response"))),
            },
        }
    }
}

/// One line of `requests.log`, for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was answered.
    pub at: Timestamp,
    /// First part of the path: `new-order`, `order`, …
    pub kind: String,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
}

/// Reads the log of a CA.
#[must_use]
pub fn requests(folder: &Path) -> Vec<Line> {
    let text = fs::read_to_string(folder.join("requests.log")).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let at = Timestamp::from_millisecond(words.next()?.parse().ok()?).ok()?;
        let kind = words.nth(1)?.split('/').nth(1)?.to_owned();
        Some(Line { at, kind, status: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}
