//! Looks at owners, directory and files of a target as a deployment would meet them. Reads, and tries to write into a file
//! without a name; nothing stays. Called by `apply::trial` with a target whose place the policy permits.

use jiff::Timestamp;
use proto::x509::{LeafFacts, hex};

use super::drift::{Written, another_mode_or_owner};
use super::steps::{Live, foreign};
use super::tree::Tree;
use super::{Dir, current_leaf, ids, unsafe_dir};
use crate::plan::trial::{Check, DIRECTORY, FILE, OWNER, There, VERSION, file};
use crate::problem::Problem;
use crate::target::{Owner, Target, TargetFile};

/// What is tried to be written: more than a certificate with its chain and key takes.
const TRY_BYTES: usize = 128 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub(in crate::apply) struct Found {
    pub(in crate::apply) checks: Vec<Check>,
    /// The leaf in the target's files.
    pub(in crate::apply) leaf: Option<LeafFacts>,
    /// Every file is there.
    pub(in crate::apply) is_complete: bool,
}

pub(in crate::apply) fn look(target: &Target, root: &Dir, written: Option<&Written>) -> Found {
    let mut found = Found::default();
    let owners = owners(target, &mut found.checks);
    let dir = &target.dir;
    let (tree, is_missing) = match Tree::open_or_above(&root.path, dir) {
        Ok(opened) => opened,
        Err(error) => {
            found.checks.push(Check::failed(DIRECTORY, dir, error.problem()));
            found.checks.extend(target.files.iter().map(|file| unseen(target, file)));
            return found;
        }
    };
    found.checks.push(directory(target, root, &tree, is_missing, &owners));
    if is_missing {
        found.checks.extend(target.files.iter().map(|file| missing(target, file)));
        return found;
    }
    found.leaf = current_leaf(target, &tree).ok().flatten();
    found.is_complete = true;
    for one in &target.files {
        match there(target, &tree, one, written) {
            Ok((there, rights)) => {
                found.is_complete &= there != There::Missing;
                found.checks.push(file(&path(target, one), there, rights.as_deref()));
            }
            Err(problem) => found.checks.push(Check::failed(FILE, &path(target, one), problem)),
        }
    }
    found
}

/// Says what a deployment does with the version. `not_before` is when its life begins.
pub(in crate::apply) fn version(target: &Target, there: Option<&LeafFacts>, not_before: Option<Timestamp>) -> Check {
    let Some(version) = &target.version else {
        return Check::skipped(VERSION, "", "no version is issued yet: there is nothing to write");
    };
    let subject = hex(&version.fingerprint_sha256);
    let Some(there) = there else { return Check::ok(VERSION, &subject, "its leaf would be written") };
    if there.fingerprint_sha256 == version.fingerprint_sha256 {
        return Check::ok(VERSION, &subject, "its leaf is in the files already");
    }
    let shares_a_name = there.identifiers.iter().any(|name| target.identifiers.contains(name));
    match not_before.filter(|not_before| shares_a_name && !target.rollback && *not_before < there.not_before) {
        Some(not_before) => Check::failed(VERSION, &subject, super::older(target, there.not_before, not_before)),
        None => {
            let old = hex(&there.fingerprint_sha256);
            Check::ok(VERSION, &subject, &format!("its leaf would replace {old}"))
        }
    }
}

/// Returns uid and gid of every owner that exists.
fn owners(target: &Target, checks: &mut Vec<Check>) -> Vec<(u32, u32)> {
    let mut names: Vec<&Owner> = Vec::new();
    for owner in target.files.iter().filter_map(|file| file.owner.as_ref()) {
        if !names.contains(&owner) {
            names.push(owner);
        }
    }
    let mut found = Vec::new();
    for owner in names {
        let subject = owner.to_string();
        match ids(owner) {
            Ok((user, group)) => {
                found.push((user, group));
                checks.push(Check::ok(OWNER, &subject, &format!("uid {user}, gid {group}")));
            }
            Err(problem) => checks.push(Check::failed(OWNER, &subject, problem)),
        }
    }
    found
}

fn directory(target: &Target, root: &Dir, tree: &Tree, is_missing: bool, owners: &[(u32, u32)]) -> Check {
    let dir = &target.dir;
    if tree.is_shared {
        return Check::failed(DIRECTORY, dir, unsafe_dir(target, root));
    }
    let writable = match tree.try_write(TRY_BYTES, owners) {
        Ok(true) => "it can be written",
        Ok(false) => "it can be written, as far as rights and free space tell",
        Err(error) => return Check::failed(DIRECTORY, dir, error.problem()),
    };
    let is_there = if is_missing { "it is not there yet: a deployment makes it; where it comes, " } else { "" };
    Check::ok(DIRECTORY, dir, &format!("{is_there}{writable}"))
}

/// What is in the place of a file, and how owner and mode differ from what is wanted.
fn there(
    target: &Target,
    tree: &Tree,
    file: &TargetFile,
    written: Option<&Written>,
) -> Result<(There, Option<String>), Problem> {
    let live = tree.live(&file.name).map_err(|error| error.problem())?;
    match &live {
        Live::Missing => return Ok((There::Missing, None)),
        Live::Foreign(what) => return Ok((There::InTheWay(foreign(&target.dir, &file.name, what)), None)),
        Live::Ours | Live::Regular => {}
    }
    let Some((bytes, stat)) = tree.read(&file.name).map_err(|error| error.problem())? else {
        return Ok((There::Missing, None));
    };
    // An owner that does not exist is told by its own check.
    let rights = another_mode_or_owner(file, &stat).ok().flatten();
    match live {
        Live::Ours => {
            let as_written = written.and_then(|written| written.is_as_written(&file.name, &bytes));
            Ok((There::Ours { as_written }, rights))
        }
        Live::Regular | Live::Missing | Live::Foreign(_) => Ok((There::Stranger, rights)),
    }
}

fn path(target: &Target, file: &TargetFile) -> String {
    format!("{}/{}", target.dir, file.name)
}

fn missing(target: &Target, one: &TargetFile) -> Check {
    file(&path(target, one), There::Missing, None)
}

fn unseen(target: &Target, file: &TargetFile) -> Check {
    Check::skipped(FILE, &path(target, file), "its directory cannot be opened")
}
