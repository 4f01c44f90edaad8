//! The same over a connection, up to a real handshake.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use proto::clock::{Clock, SystemClock};
use proto::x509::fingerprint;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::host::{CommandOutcome, Connection, Host, Incoming};
use crate::net::verify::served;
use crate::target::Endpoint;

/// Lines of a server that expects these of a client.
const SMTP: &[(&str, &str)] = &[
    ("", "220 mail.a.test ESMTP\r\n"),
    ("EHLO [127.0.0.1]\r\n", "250-mail.a.test\r\n250 STARTTLS\r\n"),
    ("STARTTLS\r\n", "220 Ready\r\n"),
];

/// Speaks the server's part: waits for each text and answers it, in pieces.
async fn play(stream: &mut DuplexStream, part: &[(&str, &str)], piece: usize) {
    for (expected, answer) in part {
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), *expected);
        for bytes in answer.as_bytes().chunks(piece) {
            stream.write_all(bytes).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}

async fn against(part: &'static [(&'static str, &'static str)], piece: usize) -> Result<(), String> {
    let (mut ours, mut theirs) = tokio::io::duplex(256);
    let name = ServerName::try_from("a.test").unwrap();
    let server = async {
        play(&mut theirs, part, piece).await;
        // It stays silent then, with the connection open.
        std::future::pending::<()>().await;
    };
    let client = negotiate(&mut ours, Protocol::Smtp, &name);
    tokio::select! {
        done = client => done.map_err(|refusal| refusal.to_string()),
        () = server => unreachable!("it never ends"),
    }
}

#[tokio::test(start_paused = true)]
async fn comes_to_tls_whether_answers_come_whole_or_in_single_bytes() {
    for piece in [1, 3, 4096] {
        assert_eq!(against(SMTP, piece).await, Ok(()), "in pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let error = against(&[("", "220-a\r\n")], 1).await.unwrap_err();
    assert_eq!(error, "the server did not come to TLS within 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_on_in_plain_text_is_refused() {
    const INJECTING: &[(&str, &str)] = &[SMTP[0], SMTP[1], ("STARTTLS\r\n", "220 Ready\r\n250 injected\r\n")];
    assert!(against(INJECTING, 4096).await.unwrap_err().contains("goes on in plain text"));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told() {
    let (mut ours, mut theirs) = tokio::io::duplex(256);
    theirs.write_all(b"421 busy").await.unwrap();
    drop(theirs);
    let name = ServerName::try_from("a.test").unwrap();
    let error = negotiate(&mut ours, Protocol::Pop3, &name).await.unwrap_err().to_string();
    assert!(error.contains("closed") || error.contains("broke"), "{error}");
}

/// A host whose only service plays a part before TLS.
#[derive(Debug)]
struct OneService {
    config: Arc<ServerConfig>,
    part: &'static [(&'static str, &'static str)],
    running: std::sync::Mutex<JoinSet<()>>,
}

#[async_trait]
impl Host for OneService {
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
        let (config, part) = (Arc::clone(&self.config), self.part);
        self.running.lock().unwrap().spawn(async move {
            play(&mut theirs, part, 4096).await;
            // A client that expected something else hangs up.
            drop(TlsAcceptor::from(config).accept(theirs).await);
        });
        Ok(Box::new(ours))
    }

    async fn bind(&self, _port: u16) -> io::Result<Box<dyn Incoming>> {
        unreachable!("nothing listens")
    }

    async fn run(&self, _argv: &[String], _timeout: Duration) -> CommandOutcome {
        unreachable!("nothing runs")
    }

    async fn listeners(&self, _port: u16) -> Vec<u64> {
        Vec::new()
    }

    async fn socket_holder(&self, _sockets: Vec<u64>) -> Option<String> {
        None
    }
}

fn service(part: &'static [(&'static str, &'static str)]) -> (OneService, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.clone()], key)
        .unwrap();
    (OneService { config: Arc::new(config), part, running: std::sync::Mutex::default() }, leaf)
}

#[tokio::test]
async fn the_leaf_behind_starttls_is_seen_and_a_wrong_protocol_is_told() {
    let (host, leaf) = service(SMTP);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let at = |protocol| Endpoint { address: "127.0.0.1:25".into(), server_name: "a.test".into(), protocol };
    assert_eq!(served(&host, &at(Protocol::Smtp), &clock).await.unwrap(), fingerprint(&leaf));
    let error = served(&host, &at(Protocol::Imap), &clock).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("does not speak IMAP: 220 mail.a.test"), "{why}");
    let error = served(&host, &at(Protocol::Tls), &clock).await.unwrap_err().to_string();
    assert!(error.contains("does not begin with TLS") && error.contains("smtp"), "{error}");
}
