//! A TLS server as nginx is one: it reads its PEM pairs when told to, keeps the old ones when the new do not fit, and
//! chooses by SNI. Real rustls, so that a handshake proves what it proves on a real host.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::sim_net::Listener;

/// The server.
#[derive(Debug)]
pub struct TlsService {
    sites: Arc<Sites>,
    /// Whether TLS is offered where mail is spoken first.
    offers_starttls: Arc<AtomicBool>,
    running: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Sites {
    /// What a server shows for a name that it does not know.
    default: Arc<CertifiedKey>,
    files: Mutex<BTreeMap<String, (PathBuf, PathBuf)>>,
    loaded: RwLock<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl TlsService {
    pub(super) fn new() -> Self {
        let sites = Sites { default: Arc::new(snakeoil()), files: Mutex::default(), loaded: RwLock::default() };
        Self { sites: Arc::new(sites), offers_starttls: Arc::new(AtomicBool::new(true)), running: Mutex::default() }
    }

    /// Configures a server name with the paths of its chain and key; effective at the next reload.
    pub fn add_site(&self, server_name: &str, chain: PathBuf, key: PathBuf) {
        let mut files = self.sites.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(server_name.to_owned(), (chain, key));
    }

    /// Removes a server name from the configuration; effective at the next reload.
    pub fn remove_site(&self, server_name: &str) {
        self.sites.files.lock().unwrap_or_else(PoisonError::into_inner).remove(server_name);
    }

    /// Returns the leaf now served for a server name, DER.
    #[must_use]
    pub fn served(&self, server_name: &str) -> Option<Vec<u8>> {
        let loaded = self.sites.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(server_name).map(|pair| pair.cert[0].to_vec())
    }

    /// Reads all pairs; when one does not fit, everything stays as it was. A site without files is left out.
    pub(super) fn reload(&self) -> Result<(), String> {
        let files = self.sites.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut loaded = BTreeMap::new();
        for (name, (chain, key)) in files.iter().filter(|(_, (chain, _))| chain.exists()) {
            loaded.insert(name.clone(), Arc::new(load(chain, key)?));
        }
        *self.sites.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Offers STARTTLS where mail is spoken first, or does not.
    pub fn offer_starttls(&self, offers: bool) {
        self.offers_starttls.store(offers, Ordering::Relaxed);
    }

    /// Serves connections; `is_mail` where SMTP stands before TLS.
    pub(super) fn start(&self, mut listener: Listener, is_mail: bool) {
        let sites: Arc<dyn ResolvesServerCert> = self.sites.clone();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(sites);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let offers_starttls = self.offers_starttls.clone();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.spawn(async move {
            let mut visitors = JoinSet::new();
            while let Some(pipe) = listener.accept().await {
                let acceptor = acceptor.clone();
                let offers = offers_starttls.clone();
                visitors.spawn(async move {
                    let mut pipe = pipe;
                    if is_mail && !speak_smtp(&mut pipe, offers.load(Ordering::Relaxed)).await.unwrap_or(false) {
                        return;
                    }
                    if let Ok(mut stream) = acceptor.accept(pipe).await {
                        drop(stream.read_u8().await);
                    }
                });
                while visitors.try_join_next().is_some() {}
            }
        });
    }
}

/// Speaks SMTP as far as TLS (RFC 3207); returns whether it begins.
async fn speak_smtp(pipe: &mut (impl AsyncRead + AsyncWrite + Unpin), offers: bool) -> std::io::Result<bool> {
    let mut pipe = BufReader::new(pipe);
    pipe.write_all(b"220 mail.example.test ESMTP\r\n").await?;
    loop {
        let mut line = String::new();
        let answer = match pipe.read_line(&mut line).await? {
            0 => return Ok(false),
            _ if line.starts_with("EHLO ") && offers => "250-mail.example.test\r\n250 STARTTLS\r\n",
            _ if line.starts_with("EHLO ") => "250-mail.example.test\r\n250 PIPELINING\r\n",
            _ if line == "STARTTLS\r\n" && offers => "220 go ahead\r\n",
            _ => "502 not known\r\n",
        };
        pipe.write_all(answer.as_bytes()).await?;
        if answer.starts_with("220") {
            return Ok(true);
        }
    }
}

impl fmt::Display for TlsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TLS service")
    }
}

impl ResolvesServerCert for Sites {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let found = loaded.get(client_hello.server_name().unwrap_or_default());
        Some(found.unwrap_or(&self.default).clone())
    }
}

fn snakeoil() -> CertifiedKey {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8");
    CertifiedKey::from_der(vec![certificate.der().clone()], key, &aws_lc_rs::default_provider()).unwrap()
}

fn load(chain: &PathBuf, key: &PathBuf) -> Result<CertifiedKey, String> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(chain).map_err(|error| format!("{}: {error}", chain.display()))?.collect();
    let certificates = certificates.map_err(|error| format!("{}: {error}", chain.display()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
        .map_err(|error| format!("SSL_CTX_use_PrivateKey({}) failed: {error}", key.display()))
}
