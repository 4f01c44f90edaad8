//! A backup as it comes from the controller: sealed bytes, part by part. What opens it is made and read here too. Called by
//! `cli/backup` and the dashboard's calls.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use proto::operator::v1::create_backup_request::Recovery;
use proto::operator::v1::{CreateBackupRequest, CreateBackupResponse};
use proto::x509::hex;
use tonic::Streaming;

use super::{CALL_MAX, Client, ClientError, ErrorKind, Line, Place, answer};

/// Bytes of a recovery key.
const KEY_LEN: usize = 32;

/// A backup on its way.
#[derive(Debug)]
pub struct Backup {
    stream: Streaming<CreateBackupResponse>,
    place: Place,
}

impl Client {
    /// Begins a backup.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn create_backup(&self, request: CreateBackupRequest) -> Result<Backup, ClientError> {
        let Line { mut rpc, place } = self.line();
        let stream = answer(place.address(), async move { rpc.create_backup(request).await }).await?;
        Ok(Backup { stream, place })
    }
}

impl Client {
    /// Takes a backup into a file that only this user may read, whole or not at all, and never over a file. `told` hears how
    /// many bytes there are so far. Returns how many there are.
    ///
    /// # Errors
    /// When the file is there or cannot be written; when the controller refuses, fails or cannot be reached.
    pub async fn save_backup(
        &self,
        recovery: Recovery,
        path: &Path,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, ClientError> {
        if path.exists() {
            let message = format!("{} is there already", path.display());
            let hint = "name a file that does not exist yet: an old backup is not written over";
            return Err(ClientError::local(ErrorKind::Invalid, "OPTION_INVALID", &message, "", hint));
        }
        let mut backup = self.create_backup(CreateBackupRequest { recovery: Some(recovery) }).await?;
        let part = Part::of(path);
        let failed = |error: std::io::Error| {
            let message = format!("cannot write {}", path.display());
            let hint = "check the directory and the room on its disk, or name another file";
            ClientError::local(ErrorKind::Failed, "OUTPUT_FAILED", &message, &error.to_string(), hint)
        };
        let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part.0);
        let saved = match open {
            Ok(file) => backup.fill(file, failed, told).await,
            Err(error) => Err(failed(error)),
        };
        saved.and_then(|bytes| std::fs::rename(&part.0, path).map(|()| bytes).map_err(failed))
    }
}

impl Backup {
    /// Returns the next part; `None` behind the last: only then the backup is whole.
    ///
    /// # Errors
    /// When the controller fails, or says nothing for too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        match tokio::time::timeout(CALL_MAX, self.stream.message()).await {
            Ok(Ok(part)) => Ok(part.map(|part| part.part)),
            Ok(Err(status)) => Err(ClientError::from_status(&status, self.place.address())),
            Err(elapsed) => Err(ClientError::silent(self.place.address(), CALL_MAX, &elapsed)),
        }
    }
}

/// The file before it is whole. A part of a backup is worth nothing: it goes, also when nobody waits for the whole any more.
struct Part(PathBuf);

impl Part {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        Self(PathBuf::from(name))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What is whole has its own name by now.
        drop(std::fs::remove_file(&self.0));
    }
}

impl Backup {
    async fn fill(
        &mut self,
        mut file: File,
        failed: impl Fn(std::io::Error) -> ClientError,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, ClientError> {
        let mut bytes: u64 = 0;
        while let Some(part) = self.next().await? {
            file.write_all(&part).map_err(&failed)?;
            bytes = bytes.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
            told(bytes);
        }
        // That may take a while; the dashboard goes on painting.
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await.map_err(std::io::Error::other);
        synced.and_then(|synced| synced).map(|()| bytes).map_err(failed)
    }
}

/// Writes a new recovery key that only this user may read; never over a file.
///
/// # Errors
/// When the file is there, or cannot be written.
///
/// # Panics
/// When the kernel gives no random bytes.
pub fn make_recovery_key(path: &Path) -> Result<(), ClientError> {
    let mut key = [0_u8; KEY_LEN];
    getrandom::fill(&mut key).expect("the kernel gives random bytes");
    let written = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{}\n", hex(&key)).as_bytes())?;
        file.sync_all()
    };
    written().map_err(|error| {
        let message = format!("cannot write the recovery key {}", path.display());
        let hint = "name a file that does not exist yet, in a directory that you may write to";
        ClientError::local(ErrorKind::Failed, "OUTPUT_FAILED", &message, &error.to_string(), hint)
    })
}
