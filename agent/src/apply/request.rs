//! What `net` may ask of `apply`, and the answers: one enum each way, because the two may live in two processes. Whatever
//! is asked is checked before anything is done with it, as if a stranger had asked.

use std::collections::BTreeSet;
#[cfg(test)]
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};

use crate::detect::Picture;
use crate::host::CommandOutcome;
use crate::plan::drift::Difference;
use crate::plan::trial::Check;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::target::{KeySlot, Target, check_answer, check_dir, check_file_name, check_item_id};

/// A request and where its answer goes.
pub(super) type Call = (ApplyRequest, oneshot::Sender<Result<ApplyReply, Problem>>);

/// One effect on this server, or one look at it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ApplyRequest {
    Policy,
    /// These are all targets of this server, by id.
    Targets(BTreeSet<String>),
    KeysHeld,
    MakeKey(KeySlot),
    /// Only ids that `plan::slots` calls expendable.
    RemoveKeys(BTreeSet<String>),
    Inspect(Box<Target>),
    /// The leaves that a service may have read from the target's files under these names.
    Leaves {
        target: Box<Target>,
        names: Vec<String>,
    },
    /// The leaf and chain in the target's files.
    ReadHeld(Box<Target>),
    Install(Box<Install>),
    /// The target's files are proven: they stay.
    Confirm(Box<Target>),
    /// Whether the target's files can go back to those that were proven before.
    CanRollBack(Box<Target>),
    RollBack(Box<Target>),
    Run(Vec<String>),
    Purge {
        target: Box<Target>,
        names: Vec<String>,
    },
    ServeToken {
        webroot: String,
        token: String,
        key_authorization: String,
    },
    WithdrawTokens {
        keep: Vec<(String, String)>,
    },
    /// Who holds one of these sockets, by the kernel's numbers.
    SocketHolder(Vec<u64>),
    /// What is different in the target's files from what was written there.
    Differences(Box<Target>),
    /// What a deployment would meet, as far as files, owners and keys go; changes nothing.
    LookOver(Box<LookOver>),
    /// Answered once something changed in these directories, or with nothing when the next request of this kind comes. May take
    /// for ever.
    WaitForChange {
        dirs: Vec<String>,
    },
    /// What is on this server. Changes nothing; what is run for it, the policy allows and this half has compiled in.
    Detect,
}

impl ApplyRequest {
    /// Refuses what could become another path than it seems. What the policy decides comes later.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let names = |names: &[String]| names.iter().try_for_each(|name| check_file_name(name));
        match self {
            Self::Policy
            | Self::KeysHeld
            | Self::Run(_)
            | Self::WithdrawTokens { .. }
            | Self::SocketHolder(_)
            | Self::Detect => Ok(()),
            Self::LookOver(asked) => {
                asked.target.check()?;
                asked.webroot.iter().try_for_each(|webroot| check_dir(webroot))
            }
            Self::WaitForChange { dirs } => dirs.iter().try_for_each(|dir| check_dir(dir)),
            Self::Targets(ids) => ids.iter().try_for_each(|id| check_item_id("a target", id)),
            Self::MakeKey(slot) => slot.check(),
            Self::RemoveKeys(ids) => ids.iter().try_for_each(|id| check_item_id("a key slot", id)),
            Self::Inspect(target)
            | Self::ReadHeld(target)
            | Self::Differences(target)
            | Self::Confirm(target)
            | Self::CanRollBack(target)
            | Self::RollBack(target) => target.check(),
            Self::Leaves { target, names: listed } | Self::Purge { target, names: listed } => {
                target.check()?;
                names(listed)
            }
            Self::Install(install) => {
                install.target.check()?;
                names(&install.dropped)
            }
            Self::ServeToken { webroot, token, key_authorization } => {
                check_dir(webroot)?;
                check_answer(token, key_authorization)
            }
        }
    }
}

/// A target to look over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookOver {
    pub(crate) target: Target,
    /// When the life of its version began.
    pub(crate) not_before: Option<Timestamp>,
    /// Where challenges are answered by files.
    pub(crate) webroot: Option<String>,
}

/// What was found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LookedOver {
    /// In the order of a deployment.
    pub(crate) checks: Vec<Check>,
    /// The leaf in the target's files.
    pub(crate) leaf: Option<[u8; 32]>,
    /// Every file of the target is there.
    pub(crate) is_complete: bool,
}

/// A version to put into a target's directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Install {
    pub(crate) target: Target,
    pub(crate) leaf_pem: String,
    pub(crate) chain_pem: String,
    /// Only in controller custody.
    #[serde(serialize_with = "exposed")]
    pub(crate) key_pem: Option<SecretString>,
    /// Names this target wrote earlier and no longer lists.
    pub(crate) dropped: Vec<String>,
    /// What is there now was proven: it can come back until the new version is confirmed.
    pub(crate) was_proven: bool,
}

/// Only for the private socket, whose frames are wiped.
fn exposed<S: Serializer>(key_pem: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    key_pem.as_ref().map(|key_pem| key_pem.expose_secret()).serialize(serializer)
}

/// A leaf with its chain, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldPem {
    pub(crate) fingerprint_sha256: [u8; 32],
    pub(crate) leaf_pem: String,
    pub(crate) chain_pem: String,
}

/// Answers, by the kind of the request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApplyReply {
    Done,
    Policy(Box<Policy>),
    Slots(Vec<String>),
    Csr(Vec<u8>),
    InPlace(bool),
    Leaves(Vec<[u8; 32]>),
    Held(Option<HeldPem>),
    Installed {
        changed: bool,
    },
    CanRollBack(bool),
    RolledBack(Option<[u8; 32]>),
    Ran(CommandOutcome),
    Holder(Option<String>),
    Differences(Vec<Difference>),
    LookedOver(Box<LookedOver>),
    /// The directories in which something changed.
    Changed(Vec<String>),
    Detected(Box<Picture>),
}

/// The one door to `apply`.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    calls: mpsc::Sender<Call>,
}

impl Handle {
    pub(super) fn new(calls: mpsc::Sender<Call>) -> Self {
        Self { calls }
    }

    pub(crate) async fn policy(&self) -> Result<Policy, Problem> {
        match self.call(ApplyRequest::Policy).await? {
            ApplyReply::Policy(policy) => Ok(*policy),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn keys_held(&self) -> Result<Vec<String>, Problem> {
        match self.call(ApplyRequest::KeysHeld).await? {
            ApplyReply::Slots(slots) => Ok(slots),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes (or finds) the slot's key and returns its CSR, DER; both are on the disk by then.
    pub(crate) async fn make_key(&self, slot: KeySlot) -> Result<Vec<u8>, Problem> {
        match self.call(ApplyRequest::MakeKey(slot)).await? {
            ApplyReply::Csr(csr) => Ok(csr),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns whether the desired version's files are all there, with their links, modes and owners.
    pub(crate) async fn is_in_place(&self, target: &Target) -> Result<bool, Problem> {
        match self.call(ApplyRequest::Inspect(Box::new(target.clone()))).await? {
            ApplyReply::InPlace(in_place) => Ok(in_place),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the fingerprints of the leaves in all generations that are kept.
    pub(crate) async fn leaves(&self, target: &Target, names: Vec<String>) -> Result<Vec<[u8; 32]>, Problem> {
        match self.call(ApplyRequest::Leaves { target: Box::new(target.clone()), names }).await? {
            ApplyReply::Leaves(leaves) => Ok(leaves),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the leaf and chain that are in the target's files; `None` when there is none.
    pub(crate) async fn read_held(&self, target: &Target) -> Result<Option<HeldPem>, Problem> {
        match self.call(ApplyRequest::ReadHeld(Box::new(target.clone()))).await? {
            ApplyReply::Held(held) => Ok(held),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns whether anything had to be written.
    pub(crate) async fn install(&self, install: Install) -> Result<bool, Problem> {
        match self.call(ApplyRequest::Install(Box::new(install))).await? {
            ApplyReply::Installed { changed } => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns whether the target's files can go back to those that were proven before.
    pub(crate) async fn can_roll_back(&self, target: &Target) -> Result<bool, Problem> {
        match self.call(ApplyRequest::CanRollBack(Box::new(target.clone()))).await? {
            ApplyReply::CanRollBack(can) => Ok(can),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts the files back that were proven before; returns their leaf, or `None` when there is nothing to put back.
    pub(crate) async fn roll_back(&self, target: &Target) -> Result<Option<[u8; 32]>, Problem> {
        match self.call(ApplyRequest::RollBack(Box::new(target.clone()))).await? {
            ApplyReply::RolledBack(leaf) => Ok(leaf),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn run(&self, argv: Vec<String>) -> Result<CommandOutcome, Problem> {
        match self.call(ApplyRequest::Run(argv)).await? {
            ApplyReply::Ran(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns who holds one of these sockets, as "nginx (pid 812)".
    pub(crate) async fn socket_holder(&self, sockets: Vec<u64>) -> Result<Option<String>, Problem> {
        match self.call(ApplyRequest::SocketHolder(sockets)).await? {
            ApplyReply::Holder(holder) => Ok(holder),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns what is different in the target's files from what was written there.
    pub(crate) async fn differences(&self, target: Target) -> Result<Vec<Difference>, Problem> {
        match self.call(ApplyRequest::Differences(Box::new(target))).await? {
            ApplyReply::Differences(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns what a deployment would meet, as far as files, owners and keys go.
    pub(crate) async fn look_over(&self, asked: LookOver) -> Result<LookedOver, Problem> {
        match self.call(ApplyRequest::LookOver(Box::new(asked))).await? {
            ApplyReply::LookedOver(found) => Ok(*found),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until something changed in these directories; returns which. One request at a time: a new one ends the one before.
    pub(crate) async fn wait_for_change(&self, dirs: Vec<String>) -> Result<Vec<String>, Problem> {
        match self.call(ApplyRequest::WaitForChange { dirs }).await? {
            ApplyReply::Changed(dirs) => Ok(dirs),
            other => Err(unexpected(&other)),
        }
    }

    /// Looks at this server.
    pub(crate) async fn detect(&self) -> Result<Picture, Problem> {
        match self.call(ApplyRequest::Detect).await? {
            ApplyReply::Detected(picture) => Ok(*picture),
            other => Err(unexpected(&other)),
        }
    }

    /// For requests that answer only with success.
    pub(crate) async fn perform(&self, request: ApplyRequest) -> Result<(), Problem> {
        match self.call(request).await? {
            ApplyReply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    #[cfg(test)]
    pub(crate) async fn ask(&self, request: ApplyRequest) -> Result<ApplyReply, Problem> {
        self.call(request).await
    }

    async fn call(&self, request: ApplyRequest) -> Result<ApplyReply, Problem> {
        let (reply, answer) = oneshot::channel();
        self.calls.send((request, reply)).await.map_err(|error| stopping(&error))?;
        answer.await.unwrap_or_else(|error| Err(stopping(&error)))
    }
}

fn stopping(error: &dyn std::fmt::Display) -> Problem {
    Problem::new("STOPPING", "the agent is stopping", error.to_string(), "it goes on when it is started again")
}

fn unexpected(reply: &ApplyReply) -> Problem {
    // Only the kind: a reply may hold a key's CSR or output.
    Problem::internal(&format!("an answer of the wrong kind: {:?}", std::mem::discriminant(reply)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::host::Host;
    use crate::state::StateDir;

    /// A door behind which nobody is, for a test that asks nothing.
    pub(crate) fn nobody() -> Handle {
        Handle::new(mpsc::channel(1).0)
    }

    /// Serves the real room to a test of `net` for as long as the set lives.
    pub(crate) fn room(state: StateDir, policy: PathBuf, host: Arc<dyn Host>) -> (Handle, tokio::task::JoinSet<()>) {
        let (handle, server) = crate::apply::open(state, policy, host);
        let mut work = tokio::task::JoinSet::new();
        work.spawn(server.serve(tokio_util::sync::CancellationToken::new()));
        (handle, work)
    }
}
