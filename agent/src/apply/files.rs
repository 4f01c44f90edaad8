//! Puts a version's files into a target's directory so that they appear together or not at all (design §4 *Files*).
//! Called by `apply` with a target that the policy permits; never touches anything outside of its directory.

use std::collections::BTreeSet;

use jiff::Timestamp;
use nix::unistd::{Group, User};
use proto::x509::{Chain, LeafFacts, spki_of_key, to_pem};
use rustix::fs::Stat;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::request::HeldPem;
use crate::policy::Dir;
use crate::problem::Problem;
use crate::target::{Content, Owner, Target};

pub(super) mod drift;
pub(super) mod pair;
mod pfx;
mod steps;
pub(crate) mod tree;
pub(super) mod trial;

use drift::{Written, differences, is_of};
use pair::Pair;
use steps::{Live, Step};
use tree::{NewFile, Tree, TreeError};

/// What is visible before a switch, and how to make it visible again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    /// The one that must stay.
    pub(super) generation: u64,
    /// Fingerprint of the leaf.
    pub(super) leaf: [u8; 32],
    /// The target's files of then.
    names: Vec<String>,
    /// Files that were not there.
    added: Vec<String>,
}

/// A version that is about to be written.
#[derive(Debug)]
pub(super) struct Install {
    tree: Tree,
    files: Vec<NewFile>,
    steps: Vec<Step>,
    /// `None` when there was no certificate of this target.
    pub(super) before: Option<Before>,
}

/// What is to be done for a version, and what its files hold then.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) todo: Todo,
    pub(super) written: Written,
}

/// What is to be done for a version.
#[derive(Debug)]
pub(super) enum Todo {
    /// Nothing, or it was done without a switch.
    InPlace {
        changed: bool,
    },
    Install(Install),
}

/// Looks at what has to be written. `pinned` are generations of the directory that may be needed again.
pub(super) fn prepare(
    target: &Target,
    root: &Dir,
    pair: &Pair,
    dropped: &[String],
    pinned: &BTreeSet<u64>,
) -> Result<Prepared, Problem> {
    // Said before a directory is made for nothing.
    target.files.iter().filter_map(|file| file.owner.as_ref()).try_for_each(|owner| ids(owner).map(drop))?;
    let tree = open(target, root, true)?;
    refuse_older(target, &tree, pair)?;
    let files = new_files(target, pair, &tree)?;
    if is_written(&tree, &files).map_err(|error| error.problem())? {
        // An attempt that was cut after the switch had no time for these.
        let changed = unlink(&tree, dropped)?;
        return Ok(Prepared { todo: Todo::InPlace { changed }, written: Written::in_place(target, &tree)? });
    }
    let names = target.names();
    let mut looked_at = names.clone();
    looked_at.extend(dropped.iter().cloned());
    let observed = tree.observe(&looked_at).map_err(|error| error.problem())?;
    let plan = steps::steps(&observed, &target.dir, &names, dropped, pinned)?;
    let (there, missing): (Vec<_>, Vec<_>) =
        looked_at.into_iter().partition(|name| matches!(observed.live.get(name), Some(Live::Ours | Live::Regular)));
    let leaf = current_leaf(target, &tree)?;
    let before = plan.before.zip(leaf).map(|(generation, leaf)| {
        let added = missing.into_iter().filter(|name| names.contains(name)).collect();
        Before { generation, leaf: leaf.fingerprint_sha256, names: there, added }
    });
    let written = Written::of(target, &files);
    Ok(Prepared { todo: Todo::Install(Install { tree, files, steps: plan.steps, before }), written })
}

impl Install {
    /// Writes and switches. Cut at any step, every visible file is as it was or all of them are new.
    pub(super) fn perform(&self) -> Result<(), Problem> {
        perform(&self.tree, &self.steps, &self.files)
    }
}

/// Makes visible again what was there before. May be cut and repeated at any step.
pub(super) fn roll_back(target: &Target, root: &Dir, before: &Before) -> Result<(), Problem> {
    let tree = open(target, root, false)?;
    let Before { generation, names, added, .. } = before;
    let looked_at: Vec<String> = names.iter().chain(added).cloned().collect();
    let observed = tree.observe(&looked_at).map_err(|error| error.problem())?;
    perform(&tree, &steps::steps_back(&observed, &target.dir, names, added, *generation)?, &[])
}

fn perform(tree: &Tree, steps: &[Step], files: &[NewFile]) -> Result<(), Problem> {
    for (done, step) in steps.iter().enumerate() {
        if let Err(error) = tree.perform(step, files) {
            tree.tidy(steps.get(..=done).unwrap_or_default());
            return Err(error.problem());
        }
    }
    Ok(())
}

/// Whether the desired version's files are all there, judged without the version at hand.
pub(super) fn is_in_place(target: &Target, root: &Dir, written: Option<&Written>) -> bool {
    // What cannot be looked at is written again, and that says why it cannot.
    differences(target, root, written).is_ok_and(|found| found.is_empty())
}

/// Returns the leaves that are visible under these names or were in a generation that is kept: a service that was not
/// reloaded may hold any of them.
pub(super) fn leaves(target: &Target, root: &Dir, names: &[String]) -> Result<Vec<[u8; 32]>, Problem> {
    let mut leaves = Vec::new();
    let Some(tree) = open_if_there(target, root)? else { return Ok(leaves) };
    for name in names {
        let visible = tree.read(name).map_err(|error| error.problem())?.map(|(bytes, _)| bytes);
        let kept = tree.read_kept(name).map_err(|error| error.problem())?;
        let found = visible.into_iter().chain(kept).filter_map(|bytes| pair::leaf_of(&bytes));
        leaves.extend(found.map(|leaf| leaf.fingerprint_sha256));
    }
    Ok(leaves)
}

/// Returns the leaf in the target's files, with the chain beside it.
pub(super) fn held(target: &Target, root: &Dir) -> Result<Option<HeldPem>, Problem> {
    let Some(tree) = open_if_there(target, root)? else { return Ok(None) };
    let Some(leaf) = current_leaf(target, &tree)? else { return Ok(None) };
    let mut held =
        HeldPem { fingerprint_sha256: leaf.fingerprint_sha256, leaf_pem: String::new(), chain_pem: String::new() };
    for file in &target.files {
        let Some((bytes, _)) = tree.read(&file.name).map_err(|error| error.problem())? else { continue };
        match file.content {
            // Certificates only: what else stands in the file, a combined one's key, is not taken over.
            Content::Leaf | Content::Fullchain | Content::Combined => {
                let chain = Chain::parse_pem(&bytes).ok();
                let Some(chain) = chain.filter(|chain| chain.leaf.fingerprint_sha256 == leaf.fingerprint_sha256) else {
                    continue;
                };
                let mut certificates = chain.certificates.iter().map(|der| to_pem(der));
                held.leaf_pem = certificates.next().unwrap_or_default();
                let rest: String = certificates.collect();
                if !rest.is_empty() {
                    held.chain_pem = rest;
                }
            }
            Content::Chain if held.chain_pem.is_empty() => {
                held.chain_pem = String::from_utf8(bytes).unwrap_or_default()
            }
            Content::Chain | Content::Key | Content::Pfx | Content::PfxPassword => {}
        }
    }
    Ok(Some(held).filter(|held| !held.leaf_pem.is_empty()))
}

/// Removes the target's links and then its files from every generation. May be cut and repeated at any step.
pub(super) fn purge(target: &Target, root: &Dir, names: &[String]) -> Result<(), Problem> {
    let Some(tree) = open_if_there(target, root)? else { return Ok(()) };
    unlink(&tree, names)?;
    tree.forget(names).map_err(|error| error.problem())
}

fn open_if_there(target: &Target, root: &Dir) -> Result<Option<Tree>, Problem> {
    match Tree::open(&root.path, &target.dir, false) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.problem()),
    }
}

/// Removes the links of ours under these names; returns whether there were any.
fn unlink(tree: &Tree, names: &[String]) -> Result<bool, Problem> {
    let mut changed = false;
    for name in names {
        changed |= tree.unlink_ours(name).map_err(|error| error.problem())?;
    }
    Ok(changed)
}

fn open(target: &Target, root: &Dir, create: bool) -> Result<Tree, Problem> {
    let tree = Tree::open(&root.path, &target.dir, create).map_err(|error| error.problem())?;
    if tree.is_shared {
        return Err(unsafe_dir(target, root));
    }
    Ok(tree)
}

fn unsafe_dir(target: &Target, root: &Dir) -> Problem {
    Problem::new(
        "UNSAFE_DIR",
        format!("{} or {} can be written by others than root and the agent's user", target.dir, root.path),
        "somebody else could swap the files there",
        format!("as root: `chown root {0} {1} && chmod go-w {0} {1}`", target.dir, root.path),
    )
}

fn new_files(target: &Target, pair: &Pair, tree: &Tree) -> Result<Vec<NewFile>, Problem> {
    let password = pfx_password(target, tree)?;
    let mut files = Vec::new();
    for file in &target.files {
        let owner = file.owner.as_ref().map(ids).transpose()?;
        let bytes = pair.bytes(target, file.content, &password)?;
        files.push(NewFile { name: file.name.clone(), mode: file.mode, owner, bytes });
    }
    Ok(files)
}

/// The password of the target's PKCS #12 files: the one that is there or was kept, so that a service that was told it once stays
/// right; empty when nothing needs one.
fn pfx_password(target: &Target, tree: &Tree) -> Result<SecretString, Problem> {
    let Some(file) = target.files.iter().find(|file| file.content == Content::PfxPassword) else {
        return Ok(SecretString::default());
    };
    let there = tree.read(&file.name).map_err(|error| error.problem())?.map(|(bytes, _)| bytes);
    let kept = tree.read_kept(&file.name).map_err(|error| error.problem())?;
    pfx::password(there.into_iter().chain(kept))
}

fn ids(owner: &Owner) -> Result<(u32, u32), Problem> {
    let unknown = |what: &str, name: &str, cause: String| {
        Problem::new(
            "UNKNOWN_OWNER",
            format!("this server has no {what} {name}"),
            cause,
            "choose an owner that exists there, or create it",
        )
    };
    let user = User::from_name(&owner.user).map_err(|error| unknown("user", &owner.user, error.to_string()))?;
    let group = Group::from_name(&owner.group).map_err(|error| unknown("group", &owner.group, error.to_string()))?;
    let user = user.ok_or_else(|| unknown("user", &owner.user, String::new()))?;
    let group = group.ok_or_else(|| unknown("group", &owner.group, String::new()))?;
    Ok((user.uid.as_raw(), group.gid.as_raw()))
}

/// A leaf is never replaced by an older one for the same names, unless an operator wants that: the controller may have been
/// restored from a backup.
fn refuse_older(target: &Target, tree: &Tree, pair: &Pair) -> Result<(), Problem> {
    if target.rollback {
        return Ok(());
    }
    let Some(there) = current_leaf(target, tree)? else { return Ok(()) };
    let shares_a_name = there.identifiers.iter().any(|name| pair.leaf.identifiers.contains(name));
    if !shares_a_name || pair.leaf.not_before >= there.not_before {
        return Ok(());
    }
    Err(older(target, there.not_before, pair.leaf.not_before))
}

fn older(target: &Target, there: Timestamp, offered: Timestamp) -> Problem {
    Problem::new(
        "OLDER_LEAF",
        format!("the certificate in {} is newer than the one to deploy; nothing was changed", target.dir),
        format!("not before {there} there, {offered} offered"),
        "renew the certificate; if the older one is wanted: certwright certs rollback NAME VERSION",
    )
}

fn current_leaf(target: &Target, tree: &Tree) -> Result<Option<LeafFacts>, Problem> {
    for file in target.files.iter().filter(|file| file.content.holds_leaf()) {
        let read = tree.read(&file.name).map_err(|error| error.problem())?;
        if let Some(leaf) = read.and_then(|(bytes, _)| pair::leaf_of(&bytes)) {
            return Ok(Some(leaf));
        }
    }
    Ok(None)
}

fn is_written(tree: &Tree, files: &[NewFile]) -> Result<bool, TreeError> {
    for file in files {
        if tree.live(&file.name)? != Live::Ours {
            return Ok(false);
        }
        match tree.read(&file.name)? {
            Some((bytes, stat)) if bytes == *file.bytes && has(&stat, file.mode, file.owner) => {}
            Some(_) | None => return Ok(false),
        }
    }
    Ok(true)
}

fn has(stat: &Stat, mode: u32, owner: Option<(u32, u32)>) -> bool {
    stat.st_mode & 0o777 == mode && is_of(stat, owner)
}

fn holds_key_of(bytes: Vec<u8>, leaf: &LeafFacts) -> bool {
    String::from_utf8(bytes).is_ok_and(|pem| spki_of_key(&pem.into()).is_ok_and(|spki| spki == leaf.spki_der))
}

#[cfg(test)]
pub(super) mod tests;
