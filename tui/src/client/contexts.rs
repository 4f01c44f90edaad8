//! Contexts: the controllers that this user works with, each a directory of mode 0700 below `~/.config/certwright/contexts`
//! with `context.json` and, for a login, `key.pem`. Files appear whole or not at all. Called by `main` and `cli/context`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::error::{ClientError, ErrorKind};
use super::login::{Login, StoredLogin, broken, make_key};
use super::place::Place;

const CONTEXT: &str = "context.json";
const KEY: &str = "key.pem";
/// Names the context that is used when none is asked for.
const CURRENT: &str = "current";
/// Larger files are not ours.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Longest name.
const NAME_CHARS_MAX: usize = 64;

/// Where a context leads, on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stored {
    Socket(PathBuf),
    Login(StoredLogin),
}

/// The contexts of this user.
#[derive(Clone, Debug)]
pub struct Contexts {
    dir: PathBuf,
}

impl Contexts {
    /// Uses `dir`, most often `~/.config/certwright`. Does no I/O.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the names of all contexts, in their order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ClientError> {
        let entries = match std::fs::read_dir(self.dir.join("contexts")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("read", &self.dir, &error))?,
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| self.path(name).is_ok_and(|path| path.join(CONTEXT).exists()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Returns the name of the context that is used when none is asked for.
    #[must_use]
    pub fn current(&self) -> Option<String> {
        let text = read(&self.dir.join(CURRENT)).ok().flatten()?;
        Some(text.trim().to_owned()).filter(|name| is_name(name))
    }

    /// Makes a context the current one; `None` goes back to the socket of this host.
    ///
    /// # Errors
    /// When there is no such context, or it cannot be written.
    pub fn set_current(&self, name: Option<&str>) -> Result<(), ClientError> {
        let path = self.dir.join(CURRENT);
        let Some(name) = name else { return remove(&path) };
        self.place(name)?;
        write(&path, name.as_bytes())
    }

    /// Returns where a context leads.
    ///
    /// # Errors
    /// When there is none, or it does not read.
    pub fn place(&self, name: &str) -> Result<Place, ClientError> {
        let dir = self.path(name)?;
        let Some(text) = read(&dir.join(CONTEXT))? else { return Err(missing(name)) };
        let stored = serde_json::from_str(&text).map_err(|error| broken(name, &error.to_string()))?;
        match stored {
            Stored::Socket(path) => Ok(Place::Socket(path)),
            Stored::Login(stored) => {
                let key = read_key(&dir)?.ok_or_else(|| broken(name, "its key.pem is missing"))?;
                Ok(Place::Remote(Arc::new(Login::open(name, stored, key)?)))
            }
        }
    }

    /// Adds a context for a socket.
    ///
    /// # Errors
    /// When the name is none or taken, or it cannot be written.
    pub fn add_socket(&self, name: &str, socket: &Path) -> Result<(), ClientError> {
        self.refuse_taken(name)?;
        self.save(name, &Stored::Socket(socket.to_owned()))
    }

    /// Returns the key for a login that begins, durably; that of an earlier try whose answer was lost.
    ///
    /// # Errors
    /// When the name is none or taken, or the key cannot be written.
    pub(super) fn begin(&self, name: &str) -> Result<SecretString, ClientError> {
        self.refuse_taken(name)?;
        let dir = self.path(name)?;
        if let Some(key) = read_key(&dir)? {
            return Ok(key);
        }
        let key = make_key()?;
        make_dir(&dir)?;
        write(&dir.join(KEY), key.expose_secret().as_bytes())?;
        Ok(key)
    }

    /// Keeps what a login's answer said.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep(&self, name: &str, login: StoredLogin) -> Result<Place, ClientError> {
        self.save(name, &Stored::Login(login))?;
        self.place(name)
    }

    /// Removes a context, its key too.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), ClientError> {
        let dir = self.path(name)?;
        if !dir.exists() {
            return Err(missing(name));
        }
        if self.current().as_deref() == Some(name) {
            self.set_current(None)?;
        }
        std::fs::remove_dir_all(&dir).map_err(|error| failed("remove", &dir, &error))
    }

    fn save(&self, name: &str, stored: &Stored) -> Result<(), ClientError> {
        let dir = self.path(name)?;
        make_dir(&dir)?;
        let text = serde_json::to_vec_pretty(stored).map_err(|error| broken(name, &error.to_string()))?;
        write(&dir.join(CONTEXT), &text)
    }

    fn refuse_taken(&self, name: &str) -> Result<(), ClientError> {
        if self.path(name)?.join(CONTEXT).exists() {
            let message = format!("there is a context named {name}");
            let hint = format!("choose another name, or remove it first: certwright context rm {name}");
            return Err(ClientError::local(ErrorKind::Invalid, "CONTEXT_EXISTS", &message, "", &hint));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<PathBuf, ClientError> {
        if is_name(name) {
            return Ok(self.dir.join("contexts").join(name));
        }
        let hint = "use letters, digits, dots, hyphens and underscores, at most 64, a letter or digit first";
        Err(ClientError::local(ErrorKind::Invalid, "CONTEXT_NAME", "this is not a name for a context", "", hint))
    }
}

fn is_name(name: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let first = name.bytes().next();
    name.len() <= NAME_CHARS_MAX && first.is_some_and(|byte| byte.is_ascii_alphanumeric()) && name.bytes().all(sign)
}

fn missing(name: &str) -> ClientError {
    let message = format!("there is no context named {name}");
    let hint = "certwright context ls shows them; certwright login makes one from an invitation";
    ClientError::local(ErrorKind::NotFound, "CONTEXT_MISSING", &message, "", hint)
}

/// Reads the key of a login; one that others may read is refused, as by ssh.
fn read_key(dir: &Path) -> Result<Option<SecretString>, ClientError> {
    let path = dir.join(KEY);
    let Ok(meta) = path.metadata() else { return Ok(None) };
    if meta.mode() & 0o077 != 0 {
        let message = format!("others may read the key {}", path.display());
        let hint = format!("chmod 0600 {}; if someone may have read it, ask for a new invitation", path.display());
        return Err(ClientError::local(ErrorKind::NotAllowed, "KEY_EXPOSED", &message, "", &hint));
    }
    Ok(read(&path)?.map(SecretString::from))
}

fn read(path: &Path) -> Result<Option<String>, ClientError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

fn make_dir(dir: &Path) -> Result<(), ClientError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("make", dir, &error))
}

/// Writes a file that only this user may read, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    written().map_err(|error| {
        // What is half-written is worth nothing; that it could not be written is told.
        drop(std::fs::remove_file(&fresh));
        failed("write", path, &error)
    })
}

fn remove(path: &Path) -> Result<(), ClientError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> ClientError {
    let message = format!("cannot {verb} {}", path.display());
    let hint = "check the owner and mode of that path, and the room on its disk";
    ClientError::local(ErrorKind::Failed, "CONTEXT_UNUSABLE", &message, &error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_context_is_added_used_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(home.path().join("certwright"));
        assert_eq!((contexts.names().unwrap(), contexts.current()), (vec![], None));
        contexts.add_socket("lab", Path::new("/run/lab.sock")).unwrap();
        assert_eq!(contexts.add_socket("lab", Path::new("/x")).unwrap_err().problem.reason, "CONTEXT_EXISTS");
        contexts.set_current(Some("lab")).unwrap();
        assert_eq!(contexts.current().as_deref(), Some("lab"));
        assert_eq!(contexts.place("lab").unwrap().to_string(), "/run/lab.sock");
        assert_eq!(contexts.names().unwrap(), ["lab"]);
        contexts.remove("lab").unwrap();
        assert_eq!((contexts.names().unwrap(), contexts.current()), (vec![], None));
        assert_eq!(contexts.remove("lab").unwrap_err().problem.reason, "CONTEXT_MISSING");
        assert_eq!(contexts.set_current(Some("lab")).unwrap_err().problem.reason, "CONTEXT_MISSING");
    }

    #[test]
    fn a_name_is_never_a_path() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(home.path().to_owned());
        for name in ["", "..", "../x", "a/b", ".hidden", "-o", "a b", &"x".repeat(65)] {
            assert_eq!(contexts.place(name).unwrap_err().problem.reason, "CONTEXT_NAME", "{name}");
            assert_eq!(contexts.remove(name).unwrap_err().problem.reason, "CONTEXT_NAME", "{name}");
        }
    }

    #[test]
    fn a_key_is_for_its_user_alone_and_survives_a_lost_answer() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(home.path().to_owned());
        let first = contexts.begin("lab").unwrap();
        assert_eq!(contexts.begin("lab").unwrap().expose_secret(), first.expose_secret());
        let path = home.path().join("contexts/lab/key.pem");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        assert!(contexts.names().unwrap().is_empty(), "a login that was not answered is no context");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(contexts.begin("lab").unwrap_err().problem.reason, "KEY_EXPOSED");
    }
}
