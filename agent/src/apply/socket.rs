//! The private socket between the halves of the agent. A message is its length (u32, big-endian) and JSON, and has a number,
//! so that answers may come in any order. Lengths are capped, the peer is known by its uid, and what it asks is checked in
//! this room: `net` talks with strangers and may be theirs one day. Messages may hold a key: their buffers are wiped, which
//! is why no codec of a library copies them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use zeroize::Zeroizing;

use super::request::{ApplyReply, ApplyRequest, Call, Handle};
use super::{QUEUE_MAX, Room};
use crate::problem::Problem;

/// Largest message; a version with its chain and key is below 256 KiB, the output of a command below 400 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// `net` keeps one connection; a second one may be there while the first one ends.
const CONNECTIONS_MAX: usize = 4;
/// How long `net` waits for a peer that is starting.
const CONNECT: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How often the same is asked: a request that ends its peer must not do so for ever.
const ASKED_MAX: u8 = 2;
/// How long a peer may take to take a message.
const SEND: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Asked {
    id: u64,
    request: ApplyRequest,
}

#[derive(Serialize)]
struct Asking<'a> {
    id: u64,
    request: &'a ApplyRequest,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: u64,
    reply: Result<ApplyReply, Problem>,
}

/// A message; wiped when it is dropped.
type Message = Zeroizing<Vec<u8>>;

fn encode(message: &impl Serialize) -> Option<Message> {
    let bytes = serde_json::to_vec(message).map(Zeroizing::new).ok()?;
    (bytes.len() <= MESSAGE_BYTES_MAX).then_some(bytes)
}

async fn send(out: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let whole = async {
        out.write_u32(length).await?;
        out.write_all(message).await
    };
    timeout(SEND, whole).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let length = from.read_u32().await?;
    let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    let mut message = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Where `apply` listens.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    peer_uid: u32,
}

impl Door {
    /// Opens the socket for one user, in the place of one that a dead process left.
    pub(crate) fn open(path: &Path, peer: (u32, u32)) -> Result<Self, Problem> {
        Self::bind(path, peer).map_err(|error| {
            Problem::new(
                "SOCKET_UNAVAILABLE",
                format!("cannot listen on the socket {}", path.display()),
                error.to_string(),
                "its directory must exist and belong to this user; a file of another kind in its place is not removed",
            )
        })
    }

    fn bind(path: &Path, (uid, gid): (u32, u32)) -> io::Result<Self> {
        // Whoever holds the lock of the state directory is the only one that listens here.
        if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        Ok(Self { listener, peer_uid: uid })
    }

    /// Answers the peer until it is stopped.
    pub(crate) async fn serve(self, room: Arc<Room>, stop: CancellationToken) {
        let mut peers = JoinSet::new();
        loop {
            // Cancel-safe: `accept` and `join_next` lose nothing.
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = peers.join_next(), if !peers.is_empty() => continue,
                accepted = self.listener.accept(), if peers.len() < CONNECTIONS_MAX => accepted,
            };
            match accepted {
                Ok((stream, _)) if self.knows(&stream) => {
                    peers.spawn(answer(stream, Arc::clone(&room)));
                }
                Ok(_) => warn!("a process of another user at the private socket was sent away"),
                // No descriptor is left.
                Err(_) => sleep(CONNECT_PAUSE).await,
            }
        }
        peers.shutdown().await;
    }

    /// The mode of the socket says so already; it may have been widened.
    fn knows(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.peer_uid)
    }
}

async fn answer(stream: UnixStream, room: Arc<Room>) {
    let (mut read, write) = stream.into_split();
    let (answers, outbox) = mpsc::channel(QUEUE_MAX);
    let room_for = Arc::new(Semaphore::new(QUEUE_MAX));
    let mut work = JoinSet::new();
    work.spawn(send_all(write, outbox));
    while let Ok(message) = receive(&mut read).await {
        let Ok(Asked { id, request }) = serde_json::from_slice(&message) else {
            warn!(
                "a message at the private socket was not understood: both halves of the agent must be of one version"
            );
            break;
        };
        while work.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&room_for).acquire_owned().await else { break };
        let (room, answers) = (Arc::clone(&room), answers.clone());
        work.spawn(async move {
            let reply = room.perform(request).await;
            // The peer may be gone: then nobody needs the answer.
            drop(answers.send(Answer { id, reply }).await);
            drop(turn);
        });
    }
    // A file write that has begun goes on in its blocking thread, and a switch is in the journal.
    work.shutdown().await;
}

async fn send_all(mut out: OwnedWriteHalf, mut outbox: mpsc::Receiver<Answer>) {
    while let Some(answer) = outbox.recv().await {
        let message = encode(&answer).or_else(|| {
            let reply = Err(Problem::internal("an answer that is too large for the private socket"));
            encode(&Answer { id: answer.id, reply })
        });
        let Some(message) = message else { return };
        if send(&mut out, &message).await.is_err() {
            return;
        }
    }
}

type Reply = oneshot::Sender<Result<ApplyReply, Problem>>;

/// A call without an answer yet.
struct Waiting {
    message: Message,
    reply: Reply,
    /// How often a peer was asked. One that ended meanwhile is no reason to give up: every request may be repeated.
    asked: u8,
}

/// Calls without an answer, by number.
type Calls = Arc<Mutex<BTreeMap<u64, Waiting>>>;

/// The other end: passes the calls of a handle on.
#[derive(Debug)]
pub(crate) struct Remote {
    path: PathBuf,
    inbox: mpsc::Receiver<Call>,
    /// The journal says once that nobody answers.
    is_away: bool,
}

/// Returns the door to an `apply` in another process; `Remote::serve` must be awaited for it to get answers.
pub(crate) fn remote(path: PathBuf) -> (Handle, Remote) {
    let (calls, inbox) = mpsc::channel(QUEUE_MAX);
    (Handle::new(calls), Remote { path, inbox, is_away: false })
}

impl Remote {
    /// Passes calls on until it is stopped or every handle is gone. Connects when there is something to say.
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        let calls = Calls::default();
        let (mut out, mut reading, mut last) = (None, JoinSet::new(), 0_u64);
        loop {
            // Cancel-safe: `recv` and `join_next` lose nothing.
            let call = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = reading.join_next(), if !reading.is_empty() => None,
                call = self.inbox.recv() => match call {
                    Some(call) => Some(call),
                    None => break,
                },
            };
            let message = match call {
                Some((request, reply)) => {
                    last += 1;
                    let Some(message) = encode(&Asking { id: last, request: &request }) else {
                        drop(reply.send(Err(Problem::internal("a request that is too large for the private socket"))));
                        continue;
                    };
                    lock(&calls)
                        .insert(last, Waiting { message: message.clone(), reply, asked: u8::from(out.is_some()) });
                    Some(message)
                }
                None => None,
            };
            let sent = match (&mut out, message) {
                (Some(out), Some(message)) => send(out, &message).await.is_ok(),
                (_, _) => false,
            };
            if !sent {
                reading.shutdown().await;
                out = self.connect_again(&calls, &mut reading).await;
            }
        }
    }

    /// Connects, and asks once more what the last peer left without an answer; tells the callers where that fails.
    async fn connect_again(&mut self, calls: &Calls, reading: &mut JoinSet<()>) -> Option<OwnedWriteHalf> {
        let again: Vec<Message> = {
            let mut calls = lock(calls);
            let given_up: Vec<u64> =
                calls.iter().filter(|(_, waiting)| waiting.asked >= ASKED_MAX).map(|(id, _)| *id).collect();
            for waiting in given_up.iter().filter_map(|id| calls.remove(id)) {
                drop(waiting.reply.send(Err(away(&self.path, "it ended while it was asked"))));
            }
            calls.values_mut().for_each(|waiting| waiting.asked += 1);
            calls.values().map(|waiting| waiting.message.clone()).collect()
        };
        if again.is_empty() {
            return None;
        }
        let (read, mut out) = match self.connect().await {
            Ok(stream) => stream.into_split(),
            Err(error) => {
                let problem = away(&self.path, &error.to_string());
                if !std::mem::replace(&mut self.is_away, true) {
                    warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
                }
                for waiting in std::mem::take(&mut *lock(calls)).into_values() {
                    drop(waiting.reply.send(Err(problem.clone())));
                }
                return None;
            }
        };
        self.is_away = false;
        reading.spawn(hand_out(read, Arc::clone(calls)));
        for message in again {
            // The end of the reading says it again.
            if send(&mut out, &message).await.is_err() {
                break;
            }
        }
        Some(out)
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        let until = Instant::now() + CONNECT;
        loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => sleep(CONNECT_PAUSE).await,
            }
        }
    }
}

/// Hands answers to those who wait, until the peer hangs up.
async fn hand_out(mut read: OwnedReadHalf, calls: Calls) {
    while let Ok(message) = receive(&mut read).await {
        let Ok(Answer { id, reply }) = serde_json::from_slice(&message) else { return };
        if let Some(waiting) = lock(&calls).remove(&id) {
            drop(waiting.reply.send(reply));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn away(path: &Path, cause: &str) -> Problem {
    Problem::new(
        "APPLY_AWAY",
        format!("the half of the agent that writes files does not answer at {}", path.display()),
        cause,
        "see `systemctl status certwright-agent-apply`; it goes on by itself once that half runs",
    )
}
