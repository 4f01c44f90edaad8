//! Reads the policy file, and refuses one that anybody but root (or the agent's own user) could have written.
//! Re-reads it when it changed, so that an edit counts from the next deployment on. Decides nothing else.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Policy;
use crate::problem::Problem;

/// Largest policy file.
const BYTES_MAX: u64 = 1024 * 1024;

/// Reads and parses a policy file.
///
/// # Errors
/// When it is missing, writable by others, or does not parse.
pub fn read(path: &Path) -> Result<Policy, Problem> {
    read_stamped(path).map(|(policy, _)| policy)
}

/// The policy in force; cheap to ask before every effect.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    path: PathBuf,
    held: Mutex<Option<(Stamp, Arc<Policy>)>>,
}

impl PolicyFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::new(None) }
    }

    /// Returns the policy, read again if the file changed.
    pub(crate) fn current(&self) -> Result<Arc<Policy>, Problem> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::metadata(&self.path).ok().as_ref().map(Stamp::of);
        if let (Some((stamp, policy)), Some(now)) = (held.as_ref(), now)
            && *stamp == now
        {
            return Ok(Arc::clone(policy));
        }
        let (policy, stamp) = read_stamped(&self.path)?;
        let policy = Arc::new(policy);
        *held = Some((stamp, Arc::clone(&policy)));
        Ok(policy)
    }
}

/// Tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed_at: (i64, i64),
    mode: u32,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }
}

fn read_stamped(path: &Path) -> Result<(Policy, Stamp), Problem> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    check_owner(path, &metadata)?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok((Policy::parse(&path.display().to_string(), &text)?, Stamp::of(&metadata)))
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    let own = rustix::process::geteuid().as_raw();
    let trusted = metadata.uid() == 0 || metadata.uid() == own;
    if trusted && metadata.mode() & 0o022 == 0 && metadata.is_file() {
        return Ok(());
    }
    Err(Problem::new(
        "POLICY_PERMISSIONS",
        format!("the policy file {} is not trusted", path.display()),
        format!("owner uid {}, mode {:04o}", metadata.uid(), metadata.mode() & 0o7777),
        format!("as root: `chown root {0} && chmod 0644 {0}`, after checking what it allows", path.display()),
    ))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        "POLICY_UNREADABLE",
        format!("cannot read the policy file {}", path.display()),
        error.to_string(),
        format!(
            "write one for the services of this server with `certwright-agent policy install --policy {}`",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_edit_counts_at_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        fs::write(&path, "[http01]\nports = [80]\n").unwrap();
        let policy = PolicyFile::new(path.clone());
        assert_eq!(policy.current().unwrap().http01_ports, [80]);
        fs::write(&path, "[http01]\nports = [80, 8080]\n").unwrap();
        assert_eq!(policy.current().unwrap().http01_ports, [80, 8080]);
        fs::write(&path, "[http01]\nport = 1\n").unwrap();
        assert_eq!(policy.current().unwrap_err().reason, "POLICY_INVALID");
    }

    #[test]
    fn a_policy_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&path).unwrap_err().reason, "POLICY_PERMISSIONS");
        assert_eq!(read(&dir.path().join("none")).unwrap_err().reason, "POLICY_UNREADABLE");
    }
}
