//! `certs revoke`: one certificate by name, or all that a filter finds. Each is a job of its own; one that is refused never
//! stops the others.

use clap::Args;
use proto::operator::v1::RevokeCertificateRequest;

use crate::cli::confirm::confirm;
use crate::cli::session::{Session, WaitOptions};
use crate::cli::wait;
use crate::client::{ClientError, ErrorKind};
use crate::output::safe;

/// Why: the words of RFC 5280.
const REASONS: [&str; 5] = ["unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"];

#[derive(Args, Debug)]
pub(crate) struct Revoke {
    #[arg(required_unless_present = "filter", conflicts_with = "filter")]
    name: Option<String>,
    /// Every certificate whose name or identifiers contain this
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["serial", "wait"])]
    filter: Option<String>,
    /// Why
    #[arg(long, value_parser = REASONS)]
    reason: String,
    /// An earlier version instead of the current one
    #[arg(long, value_name = "SERIAL", default_value = "", hide_default_value = true)]
    serial: String,
    /// Consent without a question: the certificate's name once more, or how many the filter finds
    #[arg(long, value_name = "NAME|COUNT", require_equals = true)]
    confirm: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

pub(super) async fn run(revoke: Revoke, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Revoke { name, filter, reason, serial, confirm: given, wait } = revoke;
    if let Some(filter) = filter {
        return many(&filter, &reason, given.as_deref(), session).await;
    }
    let name = name.unwrap_or_default();
    let what = if serial.is_empty() {
        format!("Revoking {} cannot be undone; it is replaced at once, with a new key.", safe(&name))
    } else {
        format!("Revoking serial {} of {} cannot be undone.", safe(&serial), safe(&name))
    };
    confirm(session.console, &what, &name, given.as_deref()).await?;
    let request = RevokeCertificateRequest { name, request_id: proto::id::random_id(), serial, reason };
    let accepted = session.client.revoke_certificate(request).await?;
    wait::finish(session, accepted, &wait).await
}

async fn many(filter: &str, reason: &str, given: Option<&str>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let found = super::all(filter, "name", session).await?;
    let names: Vec<String> = found.into_iter().filter(|one| one.current.is_some()).map(|one| one.name).collect();
    if names.is_empty() {
        let hint = "certwright certs ls --filter TEXT shows what a filter finds";
        let message = format!("no certificate with a version matches `{}`", safe(filter));
        return Err(ClientError::local(ErrorKind::NotFound, "NOT_FOUND", &message, "", hint));
    }
    for name in &names {
        session.console.note(&format!("  {}", safe(name)));
    }
    let count = names.len().to_string();
    let what = format!("Revoking these {count} cannot be undone; each is replaced at once, with a new key.");
    confirm(session.console, &what, &count, given).await?;
    let mut refused = 0_usize;
    for name in &names {
        let request = RevokeCertificateRequest {
            name: name.clone(),
            request_id: proto::id::random_id(),
            serial: String::new(),
            reason: reason.to_owned(),
        };
        match session.client.revoke_certificate(request).await {
            Ok(accepted) => session.console.print(&format!("{}\t{}\n", safe(name), safe(&accepted.job_id)))?,
            Err(error) if error.kind == ErrorKind::Unreachable => return Err(error),
            Err(error) => {
                refused += 1;
                session.console.note(&format!("{}: {}", safe(name), error.problem.message));
            }
        }
    }
    if refused == 0 {
        return Ok(());
    }
    let message = format!("{refused} of {count} were refused");
    Err(ClientError::local(ErrorKind::Partial, "PARTLY_REFUSED", &message, "", "the lines above say which and why"))
}
