//! What works without a running controller: a backup is checked, or becomes a database. Needs whoever may write the state
//! directory, and no more. Called by `main`.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::SecretString;

use crate::config::{Restore, Sealed};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore;
use crate::store::backup::{BackupError, Opened, Summary, Terms, open};
use crate::store::engine::Backend;
use crate::store::master_key::MasterKey;
use crate::store::removals::{REMOVALS_FILE, read_removals};
use crate::store::seal::recovery::Recovery;

/// Longest secret that is read.
const SECRET_BYTES_MAX: u64 = 4_096;
/// A database that a restore or a first start was making when it was cut off.
const HALF_MADE: &str = ".new";

/// Reads a backup to its end.
///
/// # Errors
/// When it is not whole, or opens with something else.
pub fn verify(sealed: &Sealed) -> Result<Summary, Problem> {
    opened(sealed)?.verify().map_err(|error| error.problem())
}

/// Makes a database from a backup, with another master key.
///
/// # Errors
/// When a database is there, or the backup is not whole; nothing is left then but a master key that nothing uses yet.
pub fn restore(
    asked: &Restore,
    database: &str,
    now: Timestamp,
    by: String,
    from: String,
) -> Result<(Summary, restore::Restore), Problem> {
    refuse_full(&asked.state, database)?;
    let listed = asked.removals.clone().unwrap_or_else(|| asked.state.join(REMOVALS_FILE));
    let removals = read_removals(&listed)
        .and_then(|found| match (found, &asked.removals) {
            (None, Some(_)) => Err(std::io::ErrorKind::NotFound.into()),
            (found, _) => Ok(found),
        })
        .map_err(|source| BackupError::Removals { path: listed, source }.problem())?;
    let backup = opened(&asked.sealed)?;
    // Only a key that opens the backup is worth a master key.
    let master = MasterKey::load_or_create(&asked.master_key_path(), false).map_err(|error| error.problem())?;
    let terms = Terms { at: now, by, from, removals };
    let made = backup.restore(Backend::File(asked.state.join(database)), &master, &terms);
    let made = made.map_err(|error| error.problem())?;
    give_away(&asked.state, database)?;
    Ok(made)
}

/// What root restores belongs to whom the state directory belongs to: the packaged controller is no root.
fn give_away(state: &Path, database: &str) -> Result<(), Problem> {
    let path = state.join(database);
    let given = std::fs::metadata(state).and_then(|folder| {
        let made = std::fs::metadata(&path)?;
        if folder.uid() == made.uid() { Ok(()) } else { chown(&path, Some(folder.uid()), Some(folder.gid())) }
    });
    given.map_err(|error| {
        let message = format!("{} was restored and belongs to another user than its directory", path.display());
        let hint = format!("chown --reference={} {}, then start the controller", state.display(), path.display());
        Problem::new("RESTORED_OWNER", message, error.to_string(), hint)
    })
}

/// Nothing but what a restore itself leaves may be there.
fn refuse_full(state: &Path, database: &str) -> Result<(), Problem> {
    let Ok(entries) = state.read_dir() else { return Ok(()) };
    for entry in entries {
        let name = entry.map_err(|error| BackupError::Read(error).problem())?.file_name();
        let name = name.to_string_lossy();
        let half_made = name.starts_with(&format!(".{database}.")) && name.ends_with(HALF_MADE);
        if half_made {
            // Nobody opens it any more; that it cannot be removed hinders nothing.
            drop(std::fs::remove_file(state.join(name.as_ref())));
        } else if name != REMOVALS_FILE {
            return Err(BackupError::NotEmpty { path: state.join(name.as_ref()) }.problem());
        }
    }
    Ok(())
}

fn opened(sealed: &Sealed) -> Result<Opened<File>, Problem> {
    let file = File::open(&sealed.from).map_err(|error| BackupError::Read(error).problem())?;
    let recovery = match (&sealed.passphrase, &sealed.key_file) {
        (Some(place), _) => Recovery::passphrase(secret(place)?),
        (None, file) => Recovery::key_file(&secret(&format!("@{}", file.clone().unwrap_or_default().display()))?),
    };
    let recovery = recovery.map_err(|error| BackupError::from(error).problem())?;
    open(file, &recovery).map_err(|error| error.problem())
}

/// Reads a secret from where `place` says: `@FILE`, or `-` for standard input.
fn secret(place: &str) -> Result<SecretString, Problem> {
    let unreadable = |cause: String| {
        let hint = "give --passphrase - and type it, or --passphrase @FILE, or --key-file FILE";
        Problem::new("SECRET_UNREADABLE", "cannot read what opens the backup", cause, hint)
    };
    let mut text = String::new();
    let read = match (place, place.strip_prefix('@').map(PathBuf::from)) {
        ("-", _) => std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text),
        (_, Some(path)) => File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text)),
        (_, None) => return Err(unreadable("it was given as a word, which everyone on this host can read".to_owned())),
    };
    read.map_err(|error| unreadable(error.to_string()))?;
    Ok(SecretString::from(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_takes_a_restore_and_leftovers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        refuse_full(&state.join("absent"), "certwright.redb").unwrap();
        std::fs::write(state.join(".certwright.redb.x.new"), "half").unwrap();
        std::fs::write(state.join(REMOVALS_FILE), "").unwrap();
        refuse_full(state, "certwright.redb").unwrap();
        assert!(!state.join(".certwright.redb.x.new").exists());
        for file in ["certwright.redb", "notes"] {
            std::fs::write(state.join(file), "").unwrap();
            let problem = refuse_full(state, "certwright.redb").unwrap_err();
            assert!(problem.reason == "STATE_NOT_EMPTY" && problem.message.contains(file), "{problem:?}");
            std::fs::remove_file(state.join(file)).unwrap();
        }
    }
}
