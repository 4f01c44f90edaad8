//! Everything that touches keys, files and commands, and nothing that touches the network. `net` talks to it through
//! `request::Handle` only: in the same process, or through the private socket from another. The policy is enforced here,
//! always.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::policy::file::PolicyFile;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::Target;

mod command;
mod deadline;
mod detect;
mod files;
pub(crate) mod keys;
pub(crate) mod request;
pub(crate) mod socket;
mod switches;
mod trial;
mod watch;
mod webroot;
mod written;

use deadline::Deadlines;
use files::Todo;
use request::{ApplyReply, ApplyRequest, Call, Handle};
use socket::Door;
use switches::Switches;
use watch::Watch;

/// Requests that may wait; each is one small effect of this server.
const QUEUE_MAX: usize = 64;

/// The room: owns the policy, the keys and every descriptor below a target's directory.
#[derive(Debug)]
pub(crate) struct Room {
    state: StateDir,
    policy: PolicyFile,
    host: Arc<dyn Host>,
    /// One writer at a time: two targets may share a directory.
    writing: Mutex<()>,
    /// One run at a time of the same command.
    running: Mutex<HashMap<Vec<String>, Arc<tokio::sync::Mutex<()>>>>,
    /// One look at the whole server at a time.
    detecting: tokio::sync::Mutex<()>,
    deadlines: Deadlines,
    watch: Arc<Watch>,
}

/// Opens the room; `serve` must be awaited for its handle to get answers.
pub(crate) fn open(state: StateDir, policy: PathBuf, host: Arc<dyn Host>) -> (Handle, Server) {
    let (calls, inbox) = mpsc::channel(QUEUE_MAX);
    (Handle::new(calls), Server { room: Arc::new(Room::new(state, policy, host)), inbox })
}

/// Opens the room for another process, and answers there until it is stopped.
pub(crate) async fn serve_at(
    door: Door,
    state: StateDir,
    policy: PathBuf,
    host: Arc<dyn Host>,
    stop: CancellationToken,
) {
    let room = Arc::new(Room::new(state, policy, host));
    let mut keeping = JoinSet::new();
    keeping.spawn(Arc::clone(&room).keep_deadlines());
    door.serve(room, stop).await;
    keeping.shutdown().await;
}

/// Answers requests until it is stopped or every handle is gone.
#[derive(Debug)]
pub(crate) struct Server {
    room: Arc<Room>,
    inbox: mpsc::Receiver<Call>,
}

impl Server {
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        let (mut work, mut keeping) = (JoinSet::new(), JoinSet::new());
        keeping.spawn(Arc::clone(&self.room).keep_deadlines());
        loop {
            // Cancel-safe: `recv` and `join_next` lose nothing.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = work.join_next(), if !work.is_empty() => {}
                call = self.inbox.recv(), if work.len() < QUEUE_MAX => {
                    let Some((request, reply)) = call else { break };
                    let room = Arc::clone(&self.room);
                    work.spawn(async move {
                        // The asker may be gone: then nobody needs the answer.
                        drop(reply.send(room.perform(request).await));
                    });
                }
            }
        }
        // A file write that has begun goes on in its blocking thread; it is safe to be cut at any step.
        work.shutdown().await;
        keeping.shutdown().await;
    }
}

impl Room {
    fn new(state: StateDir, policy: PathBuf, host: Arc<dyn Host>) -> Self {
        let watch = Arc::new(Watch::new(host.tells_changes()));
        Self {
            state,
            policy: PolicyFile::new(policy),
            host,
            writing: Mutex::new(()),
            running: Mutex::new(HashMap::new()),
            detecting: tokio::sync::Mutex::default(),
            deadlines: Deadlines::default(),
            watch,
        }
    }

    async fn perform(self: Arc<Self>, request: ApplyRequest) -> Result<ApplyReply, Problem> {
        request.check()?;
        match request {
            ApplyRequest::Run(argv) => return self.run(&argv).await.map(ApplyReply::Ran),
            ApplyRequest::SocketHolder(sockets) => {
                return Ok(ApplyReply::Holder(self.host.socket_holder(sockets).await));
            }
            ApplyRequest::LookOver(asked) => {
                return self.look_over(*asked).await.map(|found| ApplyReply::LookedOver(Box::new(found)));
            }
            ApplyRequest::Detect => return self.detect().await.map(|found| ApplyReply::Detected(Box::new(found))),
            ApplyRequest::WaitForChange { dirs } => return self.wait_for_change(dirs).await.map(ApplyReply::Changed),
            _ => {}
        }
        spawn_blocking(move || self.perform_blocking(request))
            .await
            .unwrap_or_else(|error| Err(Problem::internal(&format!("a file operation: {error}"))))
    }

    fn perform_blocking(&self, request: ApplyRequest) -> Result<ApplyReply, Problem> {
        let done = |()| ApplyReply::Done;
        match request {
            ApplyRequest::Policy => {
                self.policy.current().map(|policy| ApplyReply::Policy(Box::new(policy.as_ref().clone())))
            }
            ApplyRequest::Targets(ids) => {
                let _writing = self.turn();
                Switches::load(&self.state)?.retain(&ids)?;
                written::retain(&self.state, &ids).map(done)
            }
            ApplyRequest::KeysHeld => keys::held(&self.state).map(ApplyReply::Slots),
            ApplyRequest::MakeKey(slot) => {
                let _writing = self.turn();
                self.policy.current()?.permit_agent_keys()?;
                keys::make(&self.state, &slot).map(ApplyReply::Csr)
            }
            ApplyRequest::RemoveKeys(ids) => {
                let _writing = self.turn();
                keys::remove(&self.state, &ids).map(done)
            }
            ApplyRequest::Inspect(target) => self.is_in_place(&target).map(ApplyReply::InPlace),
            ApplyRequest::Differences(target) => {
                let policy = self.policy.current()?;
                let root = policy.permit(&target)?;
                // Never in the middle of a switch of ours.
                let _writing = self.turn();
                let written = written::load(&self.state, &target.id)?;
                files::drift::differences(&target, root, written.as_ref()).map(ApplyReply::Differences)
            }
            ApplyRequest::Leaves { target, names } => {
                let policy = self.policy.current()?;
                files::leaves(&target, policy.permit(&target)?, &names).map(ApplyReply::Leaves)
            }
            ApplyRequest::ReadHeld(target) => {
                let policy = self.policy.current()?;
                files::held(&target, policy.permit(&target)?).map(ApplyReply::Held)
            }
            ApplyRequest::Install(install) => self.install(*install).map(|changed| ApplyReply::Installed { changed }),
            ApplyRequest::Confirm(target) => {
                let _writing = self.turn();
                self.deadlines.check(&target.id)?;
                self.close(&mut Switches::load(&self.state)?, &target.id).map(done)
            }
            ApplyRequest::CanRollBack(target) => {
                Switches::load(&self.state).map(|switches| ApplyReply::CanRollBack(switches.before(&target).is_some()))
            }
            ApplyRequest::RollBack(target) => self.roll_back(&target).map(ApplyReply::RolledBack),
            ApplyRequest::Purge { target, names } => {
                let _writing = self.turn();
                let policy = self.policy.current()?;
                files::purge(&target, policy.permit(&target)?, &names)?;
                self.close(&mut Switches::load(&self.state)?, &target.id).map(done)
            }
            ApplyRequest::ServeToken { webroot, token, key_authorization } => {
                let _writing = self.turn();
                self.policy.current()?.permit_webroot(&webroot)?;
                webroot::serve(&self.state, &webroot, &token, &key_authorization).map(done)
            }
            ApplyRequest::WithdrawTokens { keep } => {
                let _writing = self.turn();
                webroot::withdraw(&self.state, &keep).map(done)
            }
            ApplyRequest::Run(_)
            | ApplyRequest::SocketHolder(_)
            | ApplyRequest::LookOver(_)
            | ApplyRequest::Detect
            | ApplyRequest::WaitForChange { .. } => Err(Problem::internal("a request in the wrong place")),
        }
    }

    /// Of directories that the policy does not allow nothing is told.
    async fn wait_for_change(&self, dirs: Vec<String>) -> Result<Vec<String>, Problem> {
        let policy = self.policy.current()?;
        let allowed = dirs.into_iter().filter(|dir| policy.allows_dir(dir)).collect();
        Arc::clone(&self.watch).wait(allowed).await
    }

    fn close(&self, switches: &mut Switches<'_>, target_id: &str) -> Result<(), Problem> {
        switches.close(target_id)?;
        self.deadlines.end(target_id);
        Ok(())
    }

    fn is_in_place(&self, target: &Target) -> Result<bool, Problem> {
        let policy = self.policy.current()?;
        let written = written::load(&self.state, &target.id)?;
        Ok(files::is_in_place(target, policy.permit(target)?, written.as_ref()))
    }

    fn install(&self, install: request::Install) -> Result<bool, Problem> {
        let policy = self.policy.current()?;
        let root = policy.permit(&install.target)?;
        let key = match (&install.target.key_slot_id, install.key_pem) {
            (Some(slot), _) => Some(keys::read(&self.state, slot)?),
            (None, key) => key,
        };
        let pair = files::pair::check(&install.target, &install.leaf_pem, &install.chain_pem, key)?;
        policy.permit_leaf(root, &install.target, &pair.leaf)?;
        let _writing = self.turn();
        let mut switches = Switches::load(&self.state)?;
        let pinned = switches.pinned(&install.target.dir);
        let prepared = files::prepare(&install.target, root, &pair, &install.dropped, &pinned)?;
        written::note(&self.state, &install.target.id, &prepared.written)?;
        let prepared = match prepared.todo {
            Todo::InPlace { changed } => {
                self.deadlines.written(&install.target.id);
                return Ok(changed);
            }
            Todo::Install(prepared) => prepared,
        };
        if let Some(before) = &prepared.before {
            switches.open(&install.target, before, install.was_proven)?;
            if switches.before(&install.target).is_some() {
                self.deadlines.begin(&install.target.id, self.confirm_within(&install.target));
            }
        }
        prepared.perform()?;
        self.deadlines.written(&install.target.id);
        Ok(true)
    }

    /// Puts the files back that were proven before; `None` when there is nothing to put back.
    fn roll_back(&self, target: &Target) -> Result<Option<[u8; 32]>, Problem> {
        let policy = self.policy.current()?;
        let root = policy.permit(target)?;
        let _writing = self.turn();
        let mut switches = Switches::load(&self.state)?;
        let Some(before) = switches.before(target).cloned() else { return Ok(None) };
        files::roll_back(target, root, &before)?;
        self.close(&mut switches, &target.id)?;
        Ok(Some(before.leaf))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
