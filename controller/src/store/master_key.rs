//! The master key: 32 random bytes in a file outside the database's directory. It wraps the keyring and nothing else. It
//! is made only when no database exists; with a database, a missing or wrong key is a refusal. Called by `app`.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::lifecycle::problem::Problem;

/// Length of an AES-256 key.
pub(super) const KEY_LEN: usize = 32;
const GROUP_AND_OTHERS: u32 = 0o077;
const PERMISSION_BITS: u32 = 0o777;
/// Separates the check value from every other use of SHA-256 over the key.
const CHECK_CONTEXT: &[u8] = b"certwright master key check v1\0";

/// Why there is no usable master key. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// A database without its key.
    #[error("the master key {path} is missing, and the database exists")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not 32 bytes.
    #[error("the master key {path} is not {KEY_LEN} bytes long")]
    Length {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("the master key {path} can be read by other users: its mode is {mode:04o}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key, but not the one of this database.
    #[error("the master key {path} is not the key of the database {database}")]
    Wrong {
        /// The key's file.
        path: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// The file could not be read or made.
    #[error("cannot {action} the master key {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

impl MasterKeyError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (reason, cause, hint) = match self {
            Self::Missing { path } => (
                "MASTER_KEY_MISSING",
                "a new key could not open the secrets that the database holds, so none was made".to_owned(),
                format!("restore {} from its backup, or name its new place with --master-key FILE", path.display()),
            ),
            Self::Length { path } => (
                "MASTER_KEY_BROKEN",
                "the file was cut, or is not a master key".to_owned(),
                format!("restore {} from its backup, or name the right file with --master-key FILE", path.display()),
            ),
            Self::Exposed { path, .. } => (
                "MASTER_KEY_EXPOSED",
                "whoever reads it and the database has every private key".to_owned(),
                format!("chmod 0600 {}", path.display()),
            ),
            Self::Wrong { .. } => (
                "MASTER_KEY_WRONG",
                "the keyring in the database is wrapped by another key".to_owned(),
                "name the key that belongs to this database with --master-key FILE; nothing was changed".to_owned(),
            ),
            Self::File { path, source, .. } => (
                "MASTER_KEY_UNREADABLE",
                source.to_string(),
                format!("check owner and directory of {}", path.display()),
            ),
        };
        Problem::new(reason, self.to_string(), cause, hint)
    }
}

/// The key and the file it came from.
pub struct MasterKey {
    key: SecretBox<[u8; KEY_LEN]>,
    path: PathBuf,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({}, ..)", self.path.display())
    }
}

impl MasterKey {
    /// Makes a key that is in no file: simulation, and the new key of a rotation before it is written.
    ///
    /// # Panics
    /// When the kernel gives no random bytes.
    #[must_use]
    pub fn random() -> Self {
        Self { key: random_key(), path: PathBuf::from("(memory)") }
    }

    /// Makes a key of these bytes, which is in no file: it wraps the keyring inside a backup.
    pub(super) fn in_memory(key: [u8; KEY_LEN]) -> Self {
        Self { key: SecretBox::new(Box::new(key)), path: PathBuf::from("(memory)") }
    }

    /// Reads the key, or makes it when there is neither a key nor a database.
    /// Blocking and short: called once, before the runtime has work.
    ///
    /// # Errors
    /// When it is missing though a database exists, not 32 bytes, readable by others, or the kernel refuses.
    pub fn load_or_create(path: &Path, database_exists: bool) -> Result<Self, MasterKeyError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("open", path)(error)),
            Err(_) if database_exists => Err(MasterKeyError::Missing { path: path.to_owned() }),
            Err(_) => {
                let key = Self { key: random_key(), path: path.to_owned() };
                key.create().map_err(failed("create", path))?;
                Ok(key)
            }
        }
    }

    pub(super) fn expose(&self) -> &[u8; KEY_LEN] {
        self.key.expose_secret()
    }

    /// Returns what the keyring stores to tell this key from another: not a secret, and no help in finding it.
    pub(super) fn check_value(&self) -> String {
        let digest = Sha256::new().chain_update(CHECK_CONTEXT).chain_update(self.expose()).finalize();
        proto::x509::hex(&digest)
    }

    pub(super) fn wrong_for(&self, database: &Path) -> MasterKeyError {
        MasterKeyError::Wrong { path: self.path.clone(), database: database.to_owned() }
    }

    /// Checks the open file, not the name: what is read is what was checked.
    fn read(path: &Path, file: File) -> Result<Self, MasterKeyError> {
        let metadata = file.metadata().map_err(failed("look at", path))?;
        let mode = metadata.permissions().mode() & PERMISSION_BITS;
        if mode & GROUP_AND_OTHERS != 0 {
            return Err(MasterKeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        let limit = u64::try_from(KEY_LEN + 1).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut bytes).map_err(failed("read", path))?;
        let Ok(key) = <&[u8; KEY_LEN]>::try_from(bytes.as_slice()) else {
            return Err(MasterKeyError::Length { path: path.to_owned() });
        };
        Ok(Self { key: SecretBox::new(Box::new(*key)), path: path.to_owned() })
    }

    /// Writes the key durably under its name, whole or not at all, never over another file.
    fn create(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let fresh = directory.join(format!(".master.{}.new", proto::id::random_id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let linked = file
            .write_all(self.expose())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::hard_link(&fresh, &self.path));
        std::fs::remove_file(&fresh)?;
        linked?;
        File::open(directory)?.sync_all()
    }
}

/// Returns 32 random bytes.
pub(super) fn random_key() -> SecretBox<[u8; KEY_LEN]> {
    SecretBox::init_with_mut(|key: &mut [u8; KEY_LEN]| getrandom::fill(key).expect("the kernel gives random bytes"))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> MasterKeyError + 'a {
    move |source| MasterKeyError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
