//! `backup`: the controller's database as one sealed file. What opens such a file, and writes a database from it, works without
//! a controller: `certwright-controller backup`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::operator::v1::CreateBackupRequest;
use proto::operator::v1::create_backup_request::Recovery;

use super::session::{Session, invalid};
use crate::client::{ClientError, make_recovery_key, read_secret};
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
    if create.to == "-" {
        let mut backup = session.client.create_backup(CreateBackupRequest { recovery: Some(recovery) }).await?;
        while let Some(part) = backup.next().await? {
            session.console.print_bytes(&part)?;
        }
        return Ok(());
    }
    let bytes = session.client.save_backup(recovery, Path::new(&create.to), &|_| {}).await?;
    session.console.note(&format!("{bytes} bytes written to {}", safe(&create.to)));
    session.console.note(&format!("check it: certwright-controller backup verify --from {}", safe(&create.to)));
    Ok(())
}
