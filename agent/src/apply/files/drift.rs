//! Tells what is different in a target's files from what was written there: missing, changed, another mode or owner, replaced. Reads
//! only. Called by `apply` for a look, and by `files` before an attempt writes.

use std::collections::BTreeMap;

use proto::x509::hex;
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::steps::Live;
use super::tree::{NewFile, Tree};
use super::{Dir, current_leaf, holds_key_of, ids, pair};
use crate::plan::drift::Difference;
use crate::problem::Problem;
use crate::target::{Content, Target, TargetFile};

/// Longest line about one file, characters.
const LINE_CHARS_MAX: usize = 300;

/// What was written for a version: SHA-256 of every file by its name, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::apply) struct Written {
    version_id: String,
    digests: BTreeMap<String, String>,
}

impl Written {
    pub(super) fn of(target: &Target, files: &[NewFile]) -> Self {
        let digest = |file: &NewFile| (file.name.clone(), digest(&file.bytes));
        Self {
            version_id: target.version.as_ref().map(|version| version.id.clone()).unwrap_or_default(),
            digests: files.iter().map(digest).collect(),
        }
    }

    /// The same, of files that were found to be right.
    pub(super) fn in_place(target: &Target, tree: &Tree) -> Result<Self, Problem> {
        let mut written = Self::of(target, &[]);
        for file in &target.files {
            if let Some((bytes, _)) = tree.read(&file.name).map_err(|error| error.problem())? {
                written.digests.insert(file.name.clone(), digest(&bytes));
            }
        }
        Ok(written)
    }

    /// Whether a file holds what was written there last, of whichever version; `None` when nobody noted that.
    pub(super) fn is_as_written(&self, name: &str, bytes: &[u8]) -> Option<bool> {
        self.digests.get(name).map(|written| *written == digest(bytes))
    }

    /// What a file must hold; `None` when it was not written for the desired version, or by an agent that kept no digests.
    fn digest_of(&self, target: &Target, name: &str) -> Option<&String> {
        let version = target.version.as_ref()?;
        Some(&self.digests).filter(|_| version.id == self.version_id)?.get(name)
    }
}

/// Compares what is there with what the desired version's files must be; none means that all of it is right.
pub(in crate::apply) fn differences(
    target: &Target,
    root: &Dir,
    written: Option<&Written>,
) -> Result<Vec<Difference>, Problem> {
    let tree = match Tree::open(&root.path, &target.dir, false) {
        Ok(tree) => tree,
        Err(error) if error.is_missing() => return Ok(vec![plain(format!("{} is missing", target.dir))]),
        Err(error) if error.is_another_kind() => {
            return Ok(vec![in_the_way(format!("{} is no directory any more, or below a link", target.dir))]);
        }
        Err(error) => return Err(error.problem()),
    };
    let mut found = Vec::new();
    for file in &target.files {
        found.extend(difference(target, &tree, file, written)?);
    }
    Ok(found)
}

fn difference(
    target: &Target,
    tree: &Tree,
    file: &TargetFile,
    written: Option<&Written>,
) -> Result<Option<Difference>, Problem> {
    let name = &file.name;
    match tree.live(name).map_err(|error| error.problem())? {
        Live::Ours => {}
        Live::Missing => return Ok(Some(plain(format!("{name} is missing")))),
        Live::Regular => return Ok(Some(plain(format!("{name} was replaced by another file")))),
        Live::Foreign(what) => return Ok(Some(in_the_way(format!("{name} was replaced by {what}")))),
    }
    let (bytes, stat) = match tree.read(name) {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(Some(plain(format!("{name} leads to no file")))),
        Err(error) if error.is_missing() => return Ok(Some(plain(format!("{name} leads to no file")))),
        Err(error) => return Err(error.problem()),
    };
    if let Some(line) = another_mode_or_owner(file, &stat)? {
        return Ok(Some(plain(line)));
    }
    let is_right = match written.and_then(|written| written.digest_of(target, name)) {
        Some(wanted) => digest(&bytes) == *wanted,
        None => fits(target, tree, file, bytes)?,
    };
    Ok((!is_right).then(|| plain(format!("{name} was changed"))))
}

pub(super) fn another_mode_or_owner(file: &TargetFile, stat: &Stat) -> Result<Option<String>, Problem> {
    let mode = stat.st_mode & 0o777;
    if mode != file.mode {
        return Ok(Some(format!("{} has mode {mode:04o}, not {:04o}", file.name, file.mode)));
    }
    let wanted = file.owner.as_ref().map(ids).transpose()?;
    if is_of(stat, wanted) {
        return Ok(None);
    }
    let owner = file.owner.as_ref().map_or_else(|| "the agent's user".to_owned(), ToString::to_string);
    Ok(Some(format!("{} belongs to uid {}, gid {}, not to {owner}", file.name, stat.st_uid, stat.st_gid)))
}

/// Whether a file has the owner that is wanted; without one it must be the agent's own.
pub(super) fn is_of(stat: &Stat, wanted: Option<(u32, u32)>) -> bool {
    match wanted {
        Some(owner) => owner == (stat.st_uid, stat.st_gid),
        None => stat.st_uid == rustix::process::geteuid().as_raw(),
    }
}

/// What can be told without digests: the leaf is the desired one, and the key belongs to it.
fn fits(target: &Target, tree: &Tree, file: &TargetFile, bytes: Vec<u8>) -> Result<bool, Problem> {
    let wanted = target.version.as_ref().map(|version| version.fingerprint_sha256);
    let Some(leaf) = current_leaf(target, tree)?.filter(|leaf| Some(leaf.fingerprint_sha256) == wanted) else {
        return Ok(false);
    };
    // Nothing can be told of these.
    if matches!(file.content, Content::Pfx | Content::PfxPassword) {
        return Ok(true);
    }
    let shows_leaf = || pair::leaf_of(&bytes).map(|leaf| leaf.fingerprint_sha256) == wanted;
    Ok((!file.content.holds_leaf() || shows_leaf()) && (!file.content.holds_key() || holds_key_of(bytes, &leaf)))
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn plain(line: String) -> Difference {
    Difference { line: proto::text::one_line(&line, LINE_CHARS_MAX), in_the_way: false }
}

fn in_the_way(line: String) -> Difference {
    Difference { in_the_way: true, ..plain(line) }
}
