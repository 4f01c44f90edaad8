//! `backup`: the controller's database as one sealed file. What opens such a file, and writes a database from it, works without
//! a controller: `certwright-controller backup`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::operator::v1::CreateBackupRequest;
use proto::operator::v1::create_backup_request::Recovery;

use super::session::{Session, invalid};
use crate::client::{Backup, ClientError, ErrorKind, make_recovery_key, read_secret};
use crate::output::safe;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Takes a backup of the whole controller as it is now, sealed; it goes on working meanwhile
    Create(Create),
    /// Makes a recovery key, for a backup that no person's memory opens
    Keygen {
        /// File to write; keep it apart from the backups
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// File to write, or - for standard output
    #[arg(long, value_name = "FILE|-")]
    to: String,
    /// Seal it with the passphrase that is there: - for standard input, or @FILE
    #[arg(long, value_name = "-|@FILE", required_unless_present = "key_file", conflicts_with = "key_file")]
    passphrase: Option<String>,
    /// Seal it with this recovery key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Create(create) => self::create(create, session).await,
        Verb::Keygen { file } => {
            make_recovery_key(&file)?;
            let shown = safe(&file.display().to_string());
            session
                .console
                .note(&format!("{shown} opens every backup made with it: keep it apart from them, and safe"));
            Ok(())
        }
    }
}

async fn create(create: Create, session: &mut Session<'_>) -> Result<(), ClientError> {
    if create.to == "-" && session.console.width.is_some() {
        return Err(invalid("a backup is not for the terminal", "name a file: --to certwright.backup"));
    }
    let recovery = match (&create.passphrase, &create.key_file) {
        (Some(place), _) => {
            if place == "-" && session.console.answers.is_some() {
                session.console.note("Type the passphrase, then Enter and Ctrl-D:");
            }
            Recovery::Passphrase(read_secret("passphrase", "the passphrase", place)?)
        }
        (None, file) => {
            let file = file.clone().unwrap_or_default();
            Recovery::Key(read_secret("key-file", "the recovery key", &format!("@{}", file.display()))?)
        }
    };
    if create.to != "-" && Path::new(&create.to).exists() {
        let hint = "name a file that does not exist yet: an old backup is not written over";
        return Err(invalid(&format!("{} is there already", safe(&create.to)), hint));
    }
    let mut backup = session.client.create_backup(CreateBackupRequest { recovery: Some(recovery) }).await?;
    if create.to == "-" {
        while let Some(part) = backup.next().await? {
            session.console.print_bytes(&part)?;
        }
        return Ok(());
    }
    let bytes = save(&mut backup, Path::new(&create.to)).await?;
    session.console.note(&format!("{bytes} bytes written to {}", safe(&create.to)));
    session.console.note(&format!("check it: certwright-controller backup verify --from {}", safe(&create.to)));
    Ok(())
}

/// Writes a file that only this user may read, whole or not at all.
async fn save(backup: &mut Backup, path: &Path) -> Result<usize, ClientError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".part");
    let fresh = PathBuf::from(fresh);
    let failed = |error: std::io::Error| {
        let message = format!("cannot write {}", path.display());
        let hint = "check the directory and the room on its disk, or name another file";
        ClientError::local(ErrorKind::Failed, "OUTPUT_FAILED", &message, &error.to_string(), hint)
    };
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let saved = match open {
        Ok(file) => fill(backup, file, failed).await,
        Err(error) => Err(failed(error)),
    };
    let saved = saved.and_then(|bytes| std::fs::rename(&fresh, path).map(|()| bytes).map_err(failed));
    if saved.is_err() {
        // A part of a backup is worth nothing; that there is no backup is told.
        drop(std::fs::remove_file(&fresh));
    }
    saved
}

async fn fill(
    backup: &mut Backup,
    mut file: File,
    failed: impl Fn(std::io::Error) -> ClientError,
) -> Result<usize, ClientError> {
    let mut bytes = 0;
    while let Some(part) = backup.next().await? {
        file.write_all(&part).map_err(&failed)?;
        bytes += part.len();
    }
    file.sync_all().map(|()| bytes).map_err(failed)
}
