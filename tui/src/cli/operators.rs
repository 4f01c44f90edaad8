//! `operators`: people, how they come in, and what they may do.

use clap::{Args, Subcommand, ValueEnum};
use proto::clock::from_wire;
use proto::operator::v1::{
    AddOperatorRequest, InviteOperatorRequest, ListOperatorsRequest, RemoveOperatorRequest, SetOperatorRoleRequest,
};

use super::confirm::confirm;
use super::session::Session;
use crate::client::ClientError;
use crate::output::{Format, operator, safe, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists operators, and the invitations not yet used
    Ls,
    /// Gives a user of the controller's host a role
    Add {
        /// The user
        #[arg(long, value_name = "USER")]
        local: String,
        #[arg(long, value_enum, value_name = "ROLE")]
        role: Role,
    },
    /// Makes an invitation for someone who works elsewhere, and prints the command to run there
    Invite {
        name: String,
        #[arg(long, value_enum, value_name = "ROLE", default_value_t = Role::Viewer)]
        role: Role,
    },
    /// Gives an operator another role; it counts from their next message
    Role {
        name: String,
        #[arg(value_enum)]
        role: Role,
    },
    /// Refuses an operator everything from now on, or withdraws an invitation
    Rm(Consent),
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Sees everything but the audit
    Viewer,
    /// Sees everything, the audit too
    Auditor,
    /// Runs certificates and agents
    Maintainer,
    /// Everything: issuers, operators and trust too
    Owner,
}

#[derive(Args, Debug)]
pub(crate) struct Consent {
    name: String,
    /// Consent without a question: the operator's name once more
    #[arg(long, value_name = "NAME", require_equals = true)]
    confirm: Option<String>,
}

impl Role {
    fn word(self) -> String {
        let word = match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
        };
        word.to_owned()
    }
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls => {
            let found = session.client.list_operators(ListOperatorsRequest {}).await?;
            session.list(
                || found.items.iter().map(|operator| operator.name.clone()).collect(),
                || operator::json_list(&found),
                |now, wide| operator::table(&found, now, wide),
            )
        }
        Verb::Add { local, role } => {
            let request = AddOperatorRequest { user: local, role: role.word() };
            let added = session.client.add_operator(request).await?;
            if !added.hint.is_empty() {
                session.console.note(&format!("try: {}", safe(&added.hint)));
            }
            let operator = added.operator.unwrap_or_default();
            session.record(&operator.name, || operator::json(&operator), |now| operator::describe(&operator, now))
        }
        Verb::Invite { name, role } => invite(name, role, session).await,
        Verb::Role { name, role } => {
            let request = SetOperatorRoleRequest { name, role: role.word() };
            let operator = session.client.set_operator_role(request).await?;
            session.record(&operator.name, || operator::json(&operator), |now| operator::describe(&operator, now))
        }
        Verb::Rm(Consent { name, confirm: given }) => {
            let what = format!("Removing {} refuses them everything from now on.", safe(&name));
            confirm(session.console, &what, &name, given.as_deref()).await?;
            session.client.remove_operator(RemoveOperatorRequest { name: name.clone() }).await?;
            session.console.note(&format!("operator {} removed", safe(&name)));
            Ok(())
        }
    }
}

async fn invite(name: String, role: Role, session: &mut Session<'_>) -> Result<(), ClientError> {
    let request = InviteOperatorRequest { name: name.clone(), role: role.word() };
    let invitation = session.client.invite_operator(request).await?;
    if session.format == Format::Json {
        return session.console.print(&operator::invitation_json(&name, &invitation));
    }
    let now = session.now();
    let until = from_wire(invitation.expires_at)
        .map(|at| format!(" It is valid until {} ({}).", time::absolute(at), time::relative(now, at)))
        .unwrap_or_default();
    session.console.note(&format!("{} runs this on their own machine:", safe(&name)));
    session.console.note(&format!("The invitation works once and is not shown again.{until}"));
    if !invitation.hint.is_empty() {
        session.console.note(&format!("try: {}", safe(&invitation.hint)));
    }
    session.console.note(&format!("When it asks for the invitation, paste: {}", safe(&invitation.token)));
    session.console.print(&format!("{}\n", safe(&invitation.command)))
}
