//! `challenges`: whether a CA could see them.

use clap::Subcommand;
use proto::operator::v1::{CheckChallengesRequest, Seen};

use super::session::Session;
use crate::client::{ClientError, ErrorKind};
use crate::output::{Format, challenge};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Has the agents serve a token for each name, and looks at it as a CA would: every address, every redirect
    Check { certificate: String },
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Verb::Check { certificate } = verb;
    let checked = session.client.check_challenges(CheckChallengesRequest { certificate: certificate.clone() }).await?;
    let text = match session.format {
        Format::Json => challenge::json(&checked),
        Format::Name => challenge::names(&checked),
        Format::Table | Format::Wide => challenge::text(&checked),
    };
    session.console.print(&text)?;
    let bad = checked.names.iter().filter(|name| name.seen() != Seen::Ok).count();
    let unserved = checked.responders.iter().filter(|responder| responder.problem.is_some()).count();
    if bad == 0 && unserved == 0 {
        return Ok(());
    }
    let kind = if bad < checked.names.len() { ErrorKind::Partial } else { ErrorKind::Failed };
    let message = if bad > 0 {
        format!("{bad} of {} names of {certificate} were not seen as a CA has to see them", checked.names.len())
    } else {
        format!("{unserved} of {} agents do not serve the challenges of {certificate}", checked.responders.len())
    };
    Err(ClientError::local(kind, "CHALLENGE_NOT_SEEN", &message, "", "what stands with each of them says what to do"))
}
