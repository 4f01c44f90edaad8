//! HTTP-01 over in-memory pipes: what a CA, a stranger and a slow peer get.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::apply::request::tests::{nobody, room};
use crate::host::CommandOutcome;
use crate::state::StateDir;

/// A host with one port that may be taken; connections come through a channel.
#[derive(Debug, Default)]
struct PipeHost {
    taken: bool,
    incoming: Mutex<VecDeque<mpsc::Receiver<DuplexStream>>>,
}

struct Pipes(mpsc::Receiver<DuplexStream>);

#[async_trait]
impl Incoming for Pipes {
    async fn accept(&mut self) -> io::Result<Box<dyn Connection>> {
        match self.0.recv().await {
            Some(stream) => Ok(Box::new(stream)),
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Host for PipeHost {
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    async fn bind(&self, _port: u16) -> io::Result<Box<dyn Incoming>> {
        match self.incoming.lock().unwrap().pop_front() {
            Some(pipes) if !self.taken => Ok(Box::new(Pipes(pipes))),
            _ => Err(io::ErrorKind::AddrInUse.into()),
        }
    }

    async fn run(&self, _argv: &[String], _timeout: Duration) -> CommandOutcome {
        unreachable!("http01 runs nothing")
    }

    async fn listeners(&self, _port: u16) -> Vec<u64> {
        vec![4711]
    }

    async fn socket_holder(&self, sockets: Vec<u64>) -> Option<String> {
        (sockets == [4711]).then(|| "nginx (pid 812)".to_owned())
    }
}

fn challenge(token: &str, identifier: &str) -> Challenge {
    Challenge {
        token: token.to_owned(),
        key_authorization: format!("{token}.thumb"),
        identifier: identifier.to_owned(),
        place: Place::Standalone(80),
    }
}

async fn ask(port: &mpsc::Sender<DuplexStream>, request: &str) -> String {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    port.send(server).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn open() -> (Listeners, mpsc::Sender<DuplexStream>) {
    let (port, pipes) = mpsc::channel(8);
    let host = PipeHost { taken: false, incoming: Mutex::new(VecDeque::from([pipes])) };
    let mut listeners = Listeners::new(Arc::new(host), nobody());
    let failed = listeners.set(&[challenge("tok-1", "h1.test"), challenge("tok-1", "h2.test")]).await;
    assert!(failed.is_empty());
    (listeners, port)
}

#[tokio::test(start_paused = true)]
async fn answers_a_live_token_for_each_of_its_names() {
    let (_listeners, port) = open().await;
    for host in ["h1.test", "H2.TEST:80"] {
        let request = format!("GET /.well-known/acme-challenge/tok-1 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = ask(&port, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ntok-1.thumb"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_else_is_404() {
    let (_listeners, port) = open().await;
    let path = "/.well-known/acme-challenge/tok-1";
    for request in [
        "GET / HTTP/1.1\r\nHost: h1.test\r\n\r\n".to_owned(),
        "GET /.well-known/acme-challenge/ HTTP/1.1\r\nHost: h1.test\r\n\r\n".to_owned(),
        "GET /.well-known/acme-challenge/tok HTTP/1.1\r\nHost: h1.test\r\n\r\n".to_owned(),
        "GET /.well-known/acme-challenge/../../etc/x HTTP/1.1\r\nHost: h1.test\r\n\r\n".to_owned(),
        format!("GET {path}?x HTTP/1.1\r\nHost: h1.test\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: other.test\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: h1.test\r\nHost: h2.test\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: h1.test\r\n\r\n"),
        format!("GET {path}\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: h1.test\r\nX: {}\r\n\r\n", "a".repeat(9_000)),
    ] {
        let answer = ask(&port, &request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_is_cut_and_does_not_block_others() {
    let (_listeners, port) = open().await;
    let (mut slow, server) = tokio::io::duplex(1024);
    port.send(server).await.unwrap();
    slow.write_all(b"GET /").await.unwrap();
    let answer = ask(&port, "GET /.well-known/acme-challenge/tok-1 HTTP/1.1\r\nHost: h1.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    let mut rest = Vec::new();
    let started = Instant::now();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() && started.elapsed() <= CONNECTION);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_silent_peers_does_not_keep_the_ca_out() {
    let (_listeners, port) = open().await;
    let started = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        let (client, server) = tokio::io::duplex(1024);
        port.send(server).await.unwrap();
        crowd.push(client);
    }
    let request = "GET /.well-known/acme-challenge/tok-1 HTTP/1.1\r\nHost: h1.test\r\n\r\n";
    assert!(ask(&port, request).await.ends_with("tok-1.thumb"));
    assert!(started.elapsed() < Duration::from_secs(1), "it waited for none of them");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_token_closes_the_port() {
    let (mut listeners, port) = open().await;
    listeners.set(&[]).await;
    assert!(listeners.ports.is_empty());
    assert!(port.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_says_by_whom() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Arc::new(PipeHost { taken: true, ..PipeHost::default() }));
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    let (apply, _room) = room(state, dir.path().join("policy.toml"), Arc::<PipeHost>::clone(&host));
    let mut listeners = Listeners::new(host, apply);
    let failed = listeners.set(&[challenge("tok-1", "h1.test")]).await;
    assert_eq!(failed[&80].reason, "PORT_TAKEN");
    assert!(failed[&80].message.contains("nginx (pid 812)"));
}

proptest::proptest! {
    /// Whatever a stranger sends, only the exact request gets the answer, and nothing panics.
    #[test]
    fn no_request_but_the_exact_one_is_answered(head in "(GET|get|POST) [/.%a-z0-9-]{0,60} HTTP/1.[01]\r\n([Hh]ost: [ -~]{0,12}\r\n){0,3}\r\n") {
        let tokens = by_port(&[challenge("tok-1", "h1.test")]).remove(&80).unwrap();
        proptest::prop_assert_eq!(find(&head, &tokens), None);
    }

    #[test]
    fn no_head_makes_it_panic(head in "\\PC*") {
        let tokens = by_port(&[challenge("tok-1", "h1.test")]).remove(&80).unwrap();
        proptest::prop_assert!(find(&head, &tokens).is_none());
    }
}
