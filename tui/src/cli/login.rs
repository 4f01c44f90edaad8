//! `login`: from an owner's invitation to a context with a key of its own. Called by `cli`.

use clap::Args;
use proto::id::JoinToken;
use proto::operator::v1::WhoamiRequest;

use super::Session;
use super::context::homeless;
use super::session::invalid;
use crate::client::{Client, ClientError, Contexts, read_secret};
use crate::output::safe;

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// The controller's address, as its agents use it
    #[arg(long, value_name = "HOST:PORT")]
    controller: String,
    /// Where the invitation is: - for standard input, or @FILE; never the invitation itself
    #[arg(long, value_name = "-|@FILE")]
    invite: String,
    /// What to call it here; the controller's host name when absent
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(super) async fn run(
    login: Login,
    contexts: Option<&Contexts>,
    session: &mut Session<'_>,
) -> Result<(), ClientError> {
    let contexts = contexts.ok_or_else(homeless)?;
    let host = login.controller.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Err(invalid("--controller: expected HOST:PORT", "for example certs.example.com:7443"));
    };
    let name = login.name.unwrap_or_else(|| host.replace(':', "-"));
    if login.invite == "-" && session.console.answers.is_some() {
        session.console.note("Paste the invitation, then Enter and Ctrl-D:");
    }
    let text = read_secret("invite", "the invitation", &login.invite)?;
    let invitation = JoinToken::parse(&text).map_err(|_no| {
        let hint = "paste it whole, as certwright operators invite printed it";
        invalid("--invite: this is not an invitation", hint)
    })?;
    let client = Client::login(contexts, &name, &login.controller, &invitation).await?;
    let who = client.whoami(WhoamiRequest {}).await?;
    contexts.set_current(Some(&name))?;
    let (operator, role) = (safe(&who.operator), safe(&who.role));
    session.console.note(&format!("logged in to {} as {operator} ({role})", safe(&who.controller_name)));
    session.console.note(&format!("commands are for context {name} now; certwright context use - goes back"));
    Ok(())
}
