//! `identity-ca`: the CA of agents' and operators' identities, and its rotation step by step.

use clap::{Args, Subcommand};
use proto::operator::v1::{GetIdentityCaRequest, RotateIdentityCaRequest};

use super::confirm::confirm;
use super::session::Session;
use crate::client::{ClientError, retire_effects, retire_name};
use crate::output::{Format, identity_ca, safe};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows the CAs, how far a rotation is, and who is not ready for its next step
    Ls,
    /// Makes the next CA and lets agents and operators learn of it; it does not sign yet
    Prepare,
    /// Lets the next CA sign; the old one stays trusted
    Activate(Anyway),
    /// Drops the old CA for good
    Retire {
        #[command(flatten)]
        anyway: Anyway,
        /// Consent without a question: the first 8 characters of the old CA's fingerprint
        #[arg(long, value_name = "FINGERPRINT", require_equals = true)]
        confirm: Option<String>,
    },
    /// Goes one step back
    Abort(Anyway),
}

#[derive(Args, Debug)]
pub(crate) struct Anyway {
    /// Although so many are not ready for it
    #[arg(long, value_name = "N", require_equals = true, default_value_t = 0, hide_default_value = true)]
    anyway: u64,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    let (step, anyway) = match verb {
        Verb::Ls => ("", 0),
        Verb::Prepare => ("prepare", 0),
        Verb::Activate(Anyway { anyway }) => ("activate", anyway),
        Verb::Abort(Anyway { anyway }) => ("abort", anyway),
        Verb::Retire { anyway: Anyway { anyway }, confirm: given } => {
            agree(given.as_deref(), session).await?;
            ("retire", anyway)
        }
    };
    let found = if step.is_empty() {
        session.client.get_identity_ca(GetIdentityCaRequest {}).await?
    } else {
        session.client.rotate_identity_ca(RotateIdentityCaRequest { step: step.to_owned(), anyway }).await?
    };
    let text = match session.format {
        Format::Json => identity_ca::json(&found),
        Format::Name => found.waiting.iter().map(|peer| format!("{}\n", safe(&peer.name))).collect(),
        Format::Wide | Format::Table => identity_ca::describe(&found, session.now()),
    };
    session.console.print(&text)
}

/// Asks before the one step that cannot be taken back.
async fn agree(given: Option<&str>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let found = session.client.get_identity_ca(GetIdentityCaRequest {}).await?;
    let short = safe(&retire_name(&found));
    let what = retire_effects(&short);
    confirm(session.console, &what, &short, given).await
}
