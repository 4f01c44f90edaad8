//! A backup on its way to an owner: sealed here, so that whoever carries it needs to know nothing. The audit's second line
//! about it is written once the last part was taken; without it nobody has a whole file.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use proto::operator::v1 as wire;
use proto::operator::v1::create_backup_request::Recovery as Given;
use secrecy::SecretString;
use tonic::{Code, Status};

use crate::lifecycle::problem::chain;
use crate::rpc::audited::{self, Begun};
use crate::rpc::peer::{OperatorCaller, recheck_operator};
use crate::rpc::serve::Server;
use crate::rpc::status::Refusal;
use crate::store::SCHEMA_VERSION;
use crate::store::backup::{About, BackupError, BackupStream, LastBackup};
use crate::store::records::Changes;
use crate::store::seal::recovery::Recovery;
use crate::tasks::hub::Hub;

/// The parts of a backup.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Result<wire::CreateBackupResponse, Status>> + Send>>;

/// A backup that is being taken.
struct Line {
    hub: Hub,
    caller: OperatorCaller,
    stream: BackupStream,
    begun: Option<Begun>,
}

/// Begins a backup.
pub(crate) async fn create(
    server: &Server,
    caller: &OperatorCaller,
    begun: Begun,
    asked: wire::CreateBackupRequest,
) -> Result<Parts, Refusal> {
    let hub = server.hub.clone();
    match begin(server, asked).await {
        Ok(stream) => {
            let line = Line { hub, caller: caller.clone(), stream, begun: Some(begun) };
            Ok(Box::pin(unfold(line, next)))
        }
        Err(refusal) => {
            let refused: Result<(), Refusal> = Err(refusal);
            audited::end(&hub, begun, &refused).await;
            refused.map(|()| -> Parts { Box::pin(futures_util::stream::empty()) })
        }
    }
}

async fn begin(server: &Server, asked: wire::CreateBackupRequest) -> Result<BackupStream, Refusal> {
    let hub = &server.hub;
    let recovery = match asked.recovery {
        Some(Given::Passphrase(text)) => Recovery::passphrase(SecretString::from(text)),
        Some(Given::Key(text)) => Recovery::key_file(&SecretString::from(text)),
        None => {
            return Err(Refusal::field(
                "passphrase",
                "a backup is sealed by a passphrase or a key file",
                "give --passphrase -|@FILE, or --key-file FILE",
            ));
        }
    };
    let recovery = recovery.map_err(|error| refusal(&error.into(), Code::InvalidArgument))?;
    let about = About {
        made_at: hub.now(),
        controller: server.installation.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA_VERSION,
        revision: 0,
    };
    hub.store.backup(recovery, about).await.map_err(|error| refusal(&error, Code::Unavailable))
}

/// Hands out the next part; `None` ends the stream.
async fn next(mut line: Line) -> Option<(Result<wire::CreateBackupResponse, Status>, Line)> {
    // The stream ended with the last message.
    line.begun.as_ref()?;
    let part = match recheck_operator(&line.hub, &line.caller).await {
        Ok(()) => line.stream.next().await.map_err(|error| refusal(&error, Code::Unavailable)),
        Err(refusal) => Err(refusal),
    };
    match part {
        Ok(Some(part)) => Some((Ok(wire::CreateBackupResponse { part }), line)),
        Ok(None) => {
            let ended = remember(&line).await;
            audited::end(&line.hub, line.begun.take()?, &ended).await;
            ended.err().map(|refusal| (Err(refusal.into()), line))
        }
        Err(failed) => {
            let failed: Result<(), Refusal> = Err(failed);
            audited::end(&line.hub, line.begun.take()?, &failed).await;
            failed.err().map(|refusal| (Err(refusal.into()), line))
        }
    }
}

/// Writes down that there is a backup.
async fn remember(line: &Line) -> Result<(), Refusal> {
    let Line { hub, caller, stream, .. } = line;
    let last = LastBackup { made_at: stream.about.made_at, by: caller.name.clone(), bytes: stream.bytes() };
    let message = format!("a backup of {}, {} bytes", last.made_at.strftime("%F %H:%M:%SZ"), last.bytes);
    let event = hub.event("backup.created", message).by(&caller.name);
    hub.store.commit(Changes::new().upsert(&last).event(&event)).await?;
    Ok(())
}

fn refusal(error: &BackupError, code: Code) -> Refusal {
    tracing::warn!(error = %chain(error), "no backup");
    Refusal::new(code, error.problem())
}
