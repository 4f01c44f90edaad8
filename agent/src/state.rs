//! The agent's own directory: one lock, and small files written so that a crash leaves the old or the new one.
//! Knows no content; `net::identity` and `apply` keep theirs here. Never writes outside of the directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::problem::Problem;

/// Largest file read back: desired state and outcomes of a thousand targets.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The directory given by `--state`.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// Held by the one process that may write the state directory; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl StateDir {
    /// Makes the directory with mode 0700, or takes an existing one that nobody else may read.
    pub(crate) fn create(path: &Path) -> Result<Self, Problem> {
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(path) {
            return Err(problem(path, "make", &error));
        }
        Self::open(path)
    }

    /// Takes an existing directory that nobody else may read.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        Self::of(path, rustix::process::geteuid().as_raw())
    }

    /// Takes an existing directory to look into: root may look into that of the half which is not root.
    pub(crate) fn look(path: &Path) -> Result<Self, Problem> {
        let own = rustix::process::geteuid();
        let owner = fs::metadata(path).map_or(own.as_raw(), |metadata| metadata.uid());
        Self::of(path, if own.is_root() { owner } else { own.as_raw() })
    }

    fn of(path: &Path, own: u32) -> Result<Self, Problem> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_enrolled(path)),
            Err(error) => return Err(problem(path, "read", &error)),
        };
        if !metadata.is_dir() || metadata.mode() & 0o077 != 0 || metadata.uid() != own {
            return Err(Problem::new(
                "STATE_PERMISSIONS",
                format!("the state directory {} is not private", path.display()),
                format!("mode {:04o}, owner uid {}", metadata.mode() & 0o7777, metadata.uid()),
                format!("make it a directory of uid {own} with `chmod 0700 {}`", path.display()),
            ));
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock of the one running agent.
    pub(crate) fn lock(&self) -> Result<Lock, Problem> {
        let path = self.path.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| problem(&path, "open", &error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            Problem::new(
                "ALREADY_RUNNING",
                format!("another agent works with the state directory {}", self.path.display()),
                error.to_string(),
                "stop it first, or give this one a state directory of its own",
            )
        })?;
        Ok(Lock { _file: file })
    }

    /// Whether a running agent holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Reads a file; `None` when it does not exist.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(problem(&path, "open", &error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| problem(&path, "read", &error))?;
        Ok(Some(bytes))
    }

    /// Replaces a file: temporary file, fsync, rename, fsync of the directory. Mode 0600 before content.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let path = self.path.join(name);
        replace(&path, bytes, 0o600).map_err(|error| problem(&path, "write", &error))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Problem> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.path).map_err(|error| problem(&self.path, "sync", &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(problem(&path, "remove", &error)),
        }
    }

    /// Renames a file to `NAME.broken`, in place of an earlier one.
    pub(crate) fn set_aside(&self, name: &str) -> Result<(), Problem> {
        let path = self.path.join(name);
        let aside = self.path.join(format!("{name}.broken"));
        let renamed = fs::rename(&path, aside).and_then(|()| sync_dir(&self.path));
        renamed.map_err(|error| problem(&path, "rename", &error))
    }

    /// Makes a private directory below, if it is not there yet.
    pub(crate) fn make_dir(&self, name: &str) -> Result<PathBuf, Problem> {
        let path = self.path.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => sync_dir(&self.path).map_err(|error| problem(&self.path, "sync", &error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(problem(&path, "make", &error)),
        }
        Ok(path)
    }
}

/// As root, becomes the user to whom an existing directory belongs, for good: the half of the agent that talks with the
/// network may have a user of its own. Anybody else stays who they are.
pub(crate) fn become_owner(path: &Path) -> Result<(), Problem> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (metadata.uid().into(), metadata.gid().into());
    let become_them =
        nix::unistd::setgroups(&[gid]).and_then(|()| nix::unistd::setgid(gid)).and_then(|()| nix::unistd::setuid(uid));
    become_them.map_err(|error| problem(path, "become the owner of", &error.into()))
}

/// Replaces a file so that a crash leaves the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = write_with(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Writes a file that must not exist yet, mode 0600, and fsyncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, 0o600)
}

fn write_with(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames and new names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Says which of the agent's own files failed.
pub(crate) fn problem(path: &Path, verb: &str, error: &io::Error) -> Problem {
    Problem::new(
        "STATE_IO",
        format!("cannot {verb} {}", path.display()),
        error.to_string(),
        "check that the disk has space and that the directory belongs to the agent's user",
    )
}

/// Says that enrolment comes first.
pub(crate) fn not_enrolled(path: &Path) -> Problem {
    Problem::new(
        "NOT_ENROLLED",
        format!("no agent is enrolled in {}", path.display()),
        "",
        "ask the controller for a join command with `certwright agents enroll NAME` and run it here",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_refused() {
        let (_dir, state) = state();
        assert!(!state.is_locked());
        let lock = state.lock().unwrap();
        assert!(state.is_locked());
        assert_eq!(state.lock().unwrap_err().reason, "ALREADY_RUNNING");
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let (_dir, state) = state();
        assert_eq!(state.read("x.json").unwrap(), None);
        state.write("x.json", b"one").unwrap();
        state.write("x.json", b"two").unwrap();
        assert_eq!(state.read("x.json").unwrap().unwrap(), b"two");
        let mode = fs::metadata(state.path().join("x.json")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(!state.path().join("x.new").exists());
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(StateDir::open(dir.path()).unwrap_err().reason, "STATE_PERMISSIONS");
    }

    #[test]
    fn a_missing_directory_means_enrol_first() {
        assert_eq!(StateDir::open(Path::new("/no/such/dir")).unwrap_err().reason, "NOT_ENROLLED");
    }
}
