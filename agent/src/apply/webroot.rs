//! HTTP-01 by files: `DIR/.well-known/acme-challenge/TOKEN` while the token is desired. The ledger knows of a file
//! before it exists, so that a crash leaves none behind. Only tokens that passed the check become names.

use serde::{Deserialize, Serialize};

use super::files::tree::{Tree, TreeError};
use crate::ledger::{read, write};
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::is_token;

const LEDGER: &str = "webroot.json";
const WELL_KNOWN: &str = ".well-known";
const CHALLENGES: &str = "acme-challenge";
/// What a try writes: an answer is no longer.
const ANSWER_BYTES: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Placed {
    webroot: String,
    token: String,
}

/// Writes the answer to one token; a second time is harmless.
pub(super) fn serve(state: &StateDir, webroot: &str, token: &str, key_authorization: &str) -> Result<(), Problem> {
    if !is_token(token) {
        return Err(Problem::internal("a token that was not checked"));
    }
    let placed = Placed { webroot: webroot.to_owned(), token: token.to_owned() };
    let mut ledger: Vec<Placed> = read(state, LEDGER)?.unwrap_or_default();
    if !ledger.contains(&placed) {
        ledger.push(placed);
        write(state, LEDGER, &ledger)?;
    }
    place(webroot, token, key_authorization).map_err(|error| error.problem())
}

/// Tries whether an answer could be written; nothing stays.
pub(super) fn try_place(webroot: &str) -> Result<(), Problem> {
    let mut dir = Tree::open_existing(webroot).map_err(|error| error.problem())?;
    for part in [format!("{webroot}/{WELL_KNOWN}"), format!("{webroot}/{WELL_KNOWN}/{CHALLENGES}")] {
        match Tree::open_existing(&part) {
            Ok(deeper) => dir = deeper,
            Err(error) if error.is_missing() => break,
            Err(error) => return Err(error.problem()),
        }
    }
    dir.try_write(ANSWER_BYTES, &[]).map(drop).map_err(|error| error.problem())
}

/// Removes every answer but those to `keep`.
pub(super) fn withdraw(state: &StateDir, keep: &[(String, String)]) -> Result<(), Problem> {
    let ledger: Vec<Placed> = read(state, LEDGER)?.unwrap_or_default();
    let kept =
        |placed: &Placed| keep.iter().any(|(webroot, token)| *webroot == placed.webroot && *token == placed.token);
    let (kept, gone): (Vec<Placed>, Vec<Placed>) = ledger.iter().cloned().partition(kept);
    if gone.is_empty() {
        return Ok(());
    }
    let (mut left, mut first) = (kept, None);
    for placed in gone.into_iter().filter(|placed| is_token(&placed.token)) {
        // A webroot that is gone took the file with it; anything else is tried again, and hinders no other webroot.
        let problem = remove(&placed).err().map(|error| error.problem());
        if let Some(problem) = problem.filter(|problem| problem.reason != "PARENT_MISSING") {
            first.get_or_insert(problem);
            left.push(placed);
        }
    }
    write(state, LEDGER, &left)?;
    first.map_or(Ok(()), Err)
}

fn place(webroot: &str, token: &str, key_authorization: &str) -> Result<(), TreeError> {
    let dir = Tree::open_existing(webroot)?.enter(WELL_KNOWN)?.enter(CHALLENGES)?;
    dir.publish(token, key_authorization.as_bytes())
}

fn remove(placed: &Placed) -> Result<(), TreeError> {
    Tree::open_existing(&format!("{}/{WELL_KNOWN}/{CHALLENGES}", placed.webroot))?.withdraw(&placed.token)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_served_while_wanted_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let webroot = dir.path().join("www");
        fs::create_dir(&webroot).unwrap();
        let webroot = webroot.to_str().unwrap();
        serve(&state, webroot, "tok-1", "tok-1.thumb").unwrap();
        serve(&state, webroot, "tok-2", "tok-2.thumb").unwrap();
        let path = |token: &str| format!("{webroot}/.well-known/acme-challenge/{token}");
        assert_eq!(fs::read_to_string(path("tok-1")).unwrap(), "tok-1.thumb");
        assert_eq!(fs::metadata(path("tok-1")).unwrap().permissions().mode() & 0o777, 0o644);
        withdraw(&state, &[(webroot.to_owned(), "tok-2".to_owned())]).unwrap();
        assert!(!fs::exists(path("tok-1")).unwrap() && fs::exists(path("tok-2")).unwrap());
        withdraw(&state, &[]).unwrap();
        assert_eq!(fs::read_dir(format!("{webroot}/.well-known/acme-challenge")).unwrap().count(), 0);
    }

    #[test]
    fn a_symbolic_link_in_the_way_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let (webroot, elsewhere) = (dir.path().join("www"), dir.path().join("elsewhere"));
        fs::create_dir(&webroot).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, webroot.join(".well-known")).unwrap();
        let problem = serve(&state, webroot.to_str().unwrap(), "tok", "tok.thumb").unwrap_err();
        assert_eq!(problem.reason, "SYMLINK");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        let problem = serve(&state, "/no/such/webroot", "tok", "tok.thumb").unwrap_err();
        assert_eq!(problem.reason, "PARENT_MISSING");
    }

    #[test]
    fn a_webroot_that_refuses_keeps_no_other_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let roots = ["bad", "good"].map(|name| dir.path().join(name));
        for root in &roots {
            fs::create_dir(root).unwrap();
            serve(&state, root.to_str().unwrap(), "tok", "tok.thumb").unwrap();
        }
        let [bad, good] = &roots;
        fs::rename(bad, dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("moved"), bad).unwrap();
        assert_eq!(withdraw(&state, &[]).unwrap_err().reason, "SYMLINK");
        assert!(!fs::exists(good.join(".well-known/acme-challenge/tok")).unwrap());
        fs::remove_file(bad).unwrap();
        fs::rename(dir.path().join("moved"), bad).unwrap();
        withdraw(&state, &[]).unwrap();
        assert!(!fs::exists(bad.join(".well-known/acme-challenge/tok")).unwrap(), "it was not forgotten");
    }

    #[test]
    fn a_webroot_that_vanished_does_not_stop_the_withdrawal() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let webroot = dir.path().join("www");
        fs::create_dir(&webroot).unwrap();
        serve(&state, webroot.to_str().unwrap(), "tok", "tok.thumb").unwrap();
        fs::remove_dir_all(&webroot).unwrap();
        withdraw(&state, &[]).unwrap();
    }
}
