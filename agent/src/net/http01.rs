//! Answers HTTP-01 (RFC 8555 §8.3). A port is open only while a token for it is desired. Serves nothing but the exact
//! path of a live token asked for with a host name of that token; everything else is 404.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::apply::request::Handle;
use crate::host::{Connection, Host, Incoming};
use crate::problem::Problem;
use crate::target::{Challenge, Place};

const PREFIX: &str = "/.well-known/acme-challenge/";
const CONNECTIONS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Whole time of a connection.
const CONNECTION: Duration = Duration::from_secs(5);
/// Rest after a failed accept: no descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Live tokens of one port: token → host names and key authorization.
type Tokens = BTreeMap<String, Answer>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    identifiers: Vec<String>,
    key_authorization: String,
}

/// The listeners that are open now.
#[derive(Debug)]
pub(crate) struct Listeners {
    host: Arc<dyn Host>,
    apply: Handle,
    ports: BTreeMap<u16, Listener>,
    /// Answers that were under way when their port closed; each has its own short limit.
    draining: JoinSet<()>,
}

#[derive(Debug)]
struct Listener {
    tokens: watch::Sender<Arc<Tokens>>,
    /// One task; it ends with the answers still under way.
    tasks: JoinSet<JoinSet<()>>,
}

impl Listeners {
    pub(crate) fn new(host: Arc<dyn Host>, apply: Handle) -> Self {
        Self { host, apply, ports: BTreeMap::new(), draining: JoinSet::new() }
    }

    /// Opens, feeds and closes ports so that exactly these challenges are answered. Returns what failed, by port.
    pub(crate) async fn set(&mut self, challenges: &[Challenge]) -> BTreeMap<u16, Problem> {
        let wanted = by_port(challenges);
        for (port, listener) in std::mem::take(&mut self.ports) {
            if wanted.contains_key(&port) {
                self.ports.insert(port, listener);
            } else {
                self.close(listener).await;
            }
        }
        while self.draining.try_join_next().is_some() {}
        let mut failed = BTreeMap::new();
        for (port, tokens) in wanted {
            if let Some(listener) = self.ports.get(&port) {
                listener.tokens.send_replace(Arc::new(tokens));
                continue;
            }
            match self.host.bind(port).await {
                Ok(incoming) => {
                    self.ports.insert(port, listen(incoming, tokens));
                }
                Err(error) => {
                    let (problem, _) = port_problem(self.host.as_ref(), &self.apply, port, &error).await;
                    failed.insert(port, problem);
                }
            }
        }
        failed
    }

    /// Closes the port before it returns; answers under way may end.
    async fn close(&mut self, listener: Listener) {
        let Listener { tokens, mut tasks } = listener;
        drop(tokens);
        while let Some(ended) = tasks.join_next().await {
            if let Ok(mut answers) = ended {
                self.draining.spawn(async move { while answers.join_next().await.is_some() {} });
            }
        }
    }
}

/// Says why a port cannot be opened, and who has it.
pub(super) async fn port_problem(
    host: &dyn Host,
    apply: &Handle,
    port: u16,
    error: &io::Error,
) -> (Problem, Option<String>) {
    if error.kind() != io::ErrorKind::AddrInUse {
        let hint = "let the agent bind this port (CAP_NET_BIND_SERVICE), or choose another one";
        let message = format!("cannot listen on port {port}");
        return (Problem::new("PORT_UNAVAILABLE", message, error.to_string(), hint), None);
    }
    // Without an answer the message says less.
    let holder = apply.socket_holder(host.listeners(port).await).await.ok().flatten();
    let message = match &holder {
        Some(holder) => format!("port {port} is taken by {holder}"),
        None => format!("port {port} is taken by another process"),
    };
    let hint = "answer by webroot through that server instead (--http01 webroot:DIR), or free the port";
    (Problem::new("PORT_TAKEN", message, error.to_string(), hint), holder)
}

fn by_port(challenges: &[Challenge]) -> BTreeMap<u16, Tokens> {
    let mut ports: BTreeMap<u16, Tokens> = BTreeMap::new();
    for challenge in challenges {
        let Place::Standalone(port) = challenge.place else { continue };
        let answer = ports.entry(port).or_default().entry(challenge.token.clone()).or_default();
        answer.identifiers.push(challenge.identifier.to_ascii_lowercase());
        answer.key_authorization.clone_from(&challenge.key_authorization);
    }
    ports
}

fn listen(incoming: Box<dyn Incoming>, tokens: Tokens) -> Listener {
    let (sender, receiver) = watch::channel(Arc::new(tokens));
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(incoming, receiver));
    Listener { tokens: sender, tasks }
}

/// Accepts until the sender of the tokens is gone; returns the answers still under way.
async fn accept(mut incoming: Box<dyn Incoming>, mut tokens: watch::Receiver<Arc<Tokens>>) -> JoinSet<()> {
    let mut answers = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        // Cancel-safe: `accept`, `join_next` and `changed` lose nothing.
        tokio::select! {
            biased;
            changed = tokens.changed() => if changed.is_err() { break },
            Some(_) = answers.join_next(), if !answers.is_empty() => open.retain(|answer| !answer.is_finished()),
            accepted = incoming.accept() => match accepted {
                Ok(stream) => {
                    // The newest may be the CA: a crowd of silent peers must not keep it out.
                    if open.len() >= CONNECTIONS_MAX && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    let tokens = Arc::clone(&tokens.borrow());
                    open.push_back(answers.spawn(async move {
                        // A peer that is slow or goes away is its own loss.
                        drop(timeout(CONNECTION, answer(stream, &tokens)).await);
                    }));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    answers
}

async fn answer(mut stream: Box<dyn Connection>, tokens: &Tokens) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let body = head.as_deref().and_then(|head| find(head, tokens));
    let (status, body) = body.map_or(("404 Not Found", "not found\n"), |body| ("200 OK", body));
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line; `None` when the head is too long or not text.
async fn read_head(stream: &mut Box<dyn Connection>) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut chunk = [0_u8; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(String::from_utf8(head).ok())
}

/// Returns the key authorization for a request's head, if it asks for a live token with one of its host names.
fn find<'a>(head: &str, tokens: &'a Tokens) -> Option<&'a str> {
    let mut lines = head.split("\r\n");
    let mut request = lines.next()?.split(' ');
    let (method, path, version) = (request.next()?, request.next()?, request.next()?);
    if method != "GET" || !version.starts_with("HTTP/1.") || request.next().is_some() {
        return None;
    }
    let answer = tokens.get(path.strip_prefix(PREFIX)?)?;
    let mut hosts = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then_some(value.trim())
    });
    let (host, None) = (hosts.next()?, hosts.next()) else { return None };
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |split| split.0);
    // RFC 3986 §3.2.2: an IPv6 address stands in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let known = answer.identifiers.iter().any(|identifier| identifier.eq_ignore_ascii_case(host));
    known.then_some(answer.key_authorization.as_str())
}

/// Looks a head up among one live token.
#[cfg(fuzzing)]
pub(crate) fn fuzz(head: &str) {
    let answer = Answer { identifiers: vec!["a.test".to_owned(), "::1".to_owned()], ..Answer::default() };
    drop(find(head, &Tokens::from([("token".to_owned(), answer)])).map(str::to_owned));
}

#[cfg(test)]
mod tests;
