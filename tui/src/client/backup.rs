//! A backup as it comes from the controller: sealed bytes, part by part. What opens it is made and read here too. Called by
//! `cli/backup`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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
