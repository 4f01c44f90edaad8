//! `restore`: what a restored controller would take over from its agents, and the owner's consent to it.

use clap::{Args, Subcommand};
use proto::operator::v1::{AcceptRestoreRequest, GetRestoreRequest};

use super::confirm::confirm;
use super::session::{Session, invalid};
use crate::client::{ClientError, restore_name};
use crate::output::{restore, safe};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows which agents have shown what they hold, and what would be taken over
    Status,
    /// Takes over what agents hold, and lets the controller order and publish again
    Accept(Accept),
}

#[derive(Args, Debug)]
pub(crate) struct Accept {
    /// Keep the operators of the backup; otherwise all but root are removed
    #[arg(long)]
    keep_operators: bool,
    /// Consent without a question: the name of the controller that the backup is of
    #[arg(long, value_name = "NAME", require_equals = true)]
    confirm: Option<String>,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    let status = session.client.get_restore(GetRestoreRequest {}).await?;
    let shown = match verb {
        Verb::Status => status,
        Verb::Accept(_) if status.state != "waiting" => {
            let message = format!("there is no restore that waits: {}", safe(&status.state));
            return Err(invalid(&message, "certwright restore status tells more"));
        }
        Verb::Accept(accept) => {
            let name = restore_name(&status);
            let what = restore::question(&status, accept.keep_operators);
            confirm(session.console, &what, name, accept.confirm.as_deref()).await?;
            let request = AcceptRestoreRequest { keep_operators: accept.keep_operators };
            session.client.accept_restore(request).await?
        }
    };
    session.record(&shown.state, || restore::json(&shown), |now| restore::describe(&shown, now))
}
