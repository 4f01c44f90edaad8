//! `agents`: the programs on the servers, how they join and how they are cut off.

mod detected;

use clap::{Args, Subcommand};
use proto::clock::from_wire;
use proto::operator::v1::{
    Agent, ConsentAgentRequest, EnrollAgentRequest, EnrollAgentResponse, ForgetAgentRequest, GetAgentRequest,
    ListAgentsRequest, ListEventsRequest, PendingEnrollment, RevokeAgentRequest, SetAgentRequest,
};

use super::certs::activity;
use super::confirm::confirm;
use super::session::{PAGE_SIZE, Session};
use crate::client::ClientError;
use crate::output::{Format, agent, safe, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists agents, and the join tokens not yet used
    Ls {
        /// Only those whose name contains this, or label:KEY=VALUE
        #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// Shows one agent, with the policy of its host
    Get { name: String },
    /// Makes a join token and prints the command to run on the server
    Enroll {
        name: String,
        /// Bind a reinstalled host to the targets of the agent that has this name
        #[arg(long)]
        replace: bool,
    },
    /// Looks at the agent's server: services, sites, certificates and what follows from them
    Detect(detected::Detect),
    /// Makes the certificates and targets that `detect` suggests
    Apply(Box<detected::Apply>),
    /// Lets an agent come back whose identity ended too long ago
    Consent { name: String },
    /// Changes the labels of an agent
    Set {
        name: String,
        /// Gives it a label, for example role=web; `role-` takes it away (repeats)
        #[arg(long = "label", value_name = "KEY=VALUE|KEY-", required = true)]
        labels: Vec<String>,
    },
    /// Cuts an agent off at once; it must be enrolled again
    Revoke(Consent),
    /// Removes the record of an agent
    Forget(Consent),
    /// Shows what happened on an agent, newest first
    Activity {
        name: String,
        /// How many events at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Consent {
    name: String,
    /// Consent without a question: the agent's name once more
    #[arg(long, value_name = "NAME", require_equals = true)]
    confirm: Option<String>,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls { filter } => ls(filter, session).await,
        Verb::Get { name } => {
            let found = session.client.get_agent(GetAgentRequest { name }).await?;
            show(&found, session)
        }
        Verb::Enroll { name, replace } => enroll(name, replace, session).await,
        Verb::Detect(detect) => detected::detect(detect, session).await,
        Verb::Apply(apply) => detected::apply(*apply, session).await,
        Verb::Consent { name } => {
            let found = session.client.consent_agent(ConsentAgentRequest { name }).await?;
            show(&found, session)
        }
        Verb::Set { name, labels } => {
            let gone = |text: &String| text.strip_suffix('-').filter(|key| !key.contains('=')).map(str::to_owned);
            let remove_labels = labels.iter().filter_map(gone).collect();
            let labels = labels.into_iter().filter(|text| gone(text).is_none()).collect();
            let found = session.client.set_agent(SetAgentRequest { name, labels, remove_labels }).await?;
            show(&found, session)
        }
        Verb::Revoke(Consent { name, confirm: given }) => {
            let what = format!("Revoking {} cuts it off; its certificates are not renewed any more.", safe(&name));
            confirm(session.console, &what, &name, given.as_deref()).await?;
            let revoked = session.client.revoke_agent(RevokeAgentRequest { name }).await?;
            show(&revoked, session)
        }
        Verb::Forget(Consent { name, confirm: given }) => {
            let what = format!(
                "Forgetting {} removes its record; to come back, its host must be enrolled again.",
                safe(&name)
            );
            confirm(session.console, &what, &name, given.as_deref()).await?;
            session.client.forget_agent(ForgetAgentRequest { name: name.clone() }).await?;
            session.console.note(&format!("agent {} forgotten", safe(&name)));
            Ok(())
        }
        Verb::Activity { name, limit } => {
            activity(ListEventsRequest { agent: name, ..Default::default() }, limit, session).await
        }
    }
}

fn show(found: &Agent, session: &mut Session<'_>) -> Result<(), ClientError> {
    session.record(&found.name, || agent::json(found), |now| agent::describe(found, now))
}

async fn ls(filter: String, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut pending: Vec<PendingEnrollment> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest { filter: filter.clone(), page_size: PAGE_SIZE, page_token };
        let page = session.client.list_agents(request).await?;
        agents.extend(page.items);
        pending = if pending.is_empty() { page.pending } else { pending };
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    session.list(
        || agents.iter().map(|agent| agent.name.clone()).collect(),
        || agent::json_list(&agents, &pending),
        |now, wide| agent::table(&agents, &pending, now, wide),
    )
}

async fn enroll(name: String, replace: bool, session: &mut Session<'_>) -> Result<(), ClientError> {
    let request = EnrollAgentRequest { name: name.clone(), replace };
    let enrollment = session.client.enroll_agent(request).await?;
    if session.format == Format::Json {
        return session.console.print(&agent::enrollment_json(&name, &enrollment));
    }
    explain(&name, &enrollment, session);
    session.console.print(&format!("{}\n", safe(&enrollment.command)))
}

/// Tells on stderr what the command on stdout is, so that stdout can be piped to the server.
fn explain(name: &str, enrollment: &EnrollAgentResponse, session: &mut Session<'_>) {
    let now = session.now();
    let until = from_wire(enrollment.expires_at)
        .map(|at| format!(" It is valid until {} ({}).", time::absolute(at), time::relative(now, at)))
        .unwrap_or_default();
    session.console.note(&format!("Run this as root on the server that becomes agent {}.", safe(name)));
    session.console.note(&format!("The token works once and is not shown again.{until}"));
    if !enrollment.hint.is_empty() {
        session.console.note(&format!("try: {}", safe(&enrollment.hint)));
    }
    if !enrollment.command.contains(&enrollment.token) {
        session.console.note(&format!("When it asks for the token, paste: {}", safe(&enrollment.token)));
    }
}
