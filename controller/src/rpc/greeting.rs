//! The hello of an agent: what it says of itself is kept, and whether it is the only one that says it is looked at
//! (`lifecycle/holder`). Called by `rpc/agent_service` when a stream begins, and by `rpc/enrollment` for the words.

use proto::agent::v1 as wire;
use proto::text::one_line;
use tonic::Code;
use tracing::{error, warn};

use super::convert;
use super::peer::AgentCaller;
use super::status::Refusal;
use crate::lifecycle::agent::Agent;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::holder::{Holder, Shown, Verdict};
use crate::lifecycle::problem::Problem;
use crate::store::records::{Changes, Versioned};
use crate::tasks::hub::Hub;
use crate::tasks::presence::{Program, Session};

/// Longest id of a program.
const INSTANCE_CHARS_MAX: usize = 64;

/// Stores what the agent says of itself, and opens its presence.
pub(super) async fn greet(hub: &Hub, caller: &AgentCaller, hello: wire::Hello) -> Result<Session, Refusal> {
    let program = Program {
        instance: one_line(&hello.instance, INSTANCE_CHARS_MAX),
        connection: caller.origin().number,
        address: caller.origin().words(),
    };
    hub.presence.arrives(&caller.id, &program);
    let Some(mut agent) = hub.store.load::<Agent>(&caller.id).await? else {
        return Err(Refusal::not_found("agent", ""));
    };
    // From here to the commit nothing waits: whoever came later finds the record changed.
    if !hub.presence.is_newest(&caller.id, &program) {
        return Err(overtaken());
    }
    let known = agent.value.holder.clone();
    let rival = hub.presence.rival(&caller.id, &program, hub.now());
    let verdict = agent.value.meet(&shown(caller, &program.instance, &program.address), rival, hub.now());
    let sign = event(hub, &agent.value, &known, verdict);
    if matches!(verdict, Verdict::Wait | Verdict::Twice { admitted: false }) {
        return Err(turn_away(hub, &agent, &known, sign, verdict).await);
    }
    agent.value.hello = convert::hello_in(hello);
    agent.value.seen_at = Some(hub.now());
    // It is back, with the leaf that the consent was for.
    agent.value.consent = None;
    let message = format!("{} is connected, version {}", caller.name, agent.value.hello.version);
    let connected = hub.event("agent.connected", message).of_agent(&caller.name);
    let changes = Changes::new().update(&agent).event(&connected);
    hub.store.commit(sign.iter().fold(changes, Changes::event)).await?;
    Ok(hub.presence.attach(&caller.id, program, hub.now()))
}

/// What a peer shows of itself.
pub(super) fn shown<'a>(caller: &'a AgentCaller, instance: &'a str, address: &'a str) -> Shown<'a> {
    let leaf = caller.leaf();
    Shown { serial: &leaf.serial, not_after: leaf.not_after, instance, address }
}

/// Returns what operators are told of a verdict, when it is news.
pub(super) fn event(hub: &Hub, agent: &Agent, known: &Holder, verdict: Verdict) -> Option<Event> {
    let name = &agent.name;
    match verdict {
        Verdict::SteppedBack => {
            let message = format!(
                "{name} shows an older identity than it had, from {}: its disk was restored",
                agent.holder.address
            );
            warn!(agent = name, "{message}");
            let mut event = hub.event("agent.older_identity", message).of_agent(name);
            event.severity = Severity::Warn;
            Some(event)
        }
        Verdict::Twice { .. } if agent.holder.is_first_sign(known) => {
            let problem = agent.held_twice(hub.now())?;
            error!(agent = name, cause = problem.cause, hint = problem.hint, "{}", problem.message);
            let event = hub.event("agent.held_twice", &problem.message).of_agent(name);
            Some(event.with_problem(Severity::Error, problem))
        }
        Verdict::Welcome | Verdict::Wait | Verdict::Twice { .. } => None,
    }
}

/// Another program has the stream and keeps it.
async fn turn_away(
    hub: &Hub,
    agent: &Versioned<Agent>,
    known: &Holder,
    sign: Option<Event>,
    verdict: Verdict,
) -> Refusal {
    if agent.value.holder.is_news(known) {
        let changes = Changes::new().update(agent);
        if let Err(error) = hub.store.commit(sign.iter().fold(changes, Changes::event)).await {
            warn!(%error, "cannot record that two programs hold one identity");
        }
    }
    let name = &agent.value.name;
    let (reason, hint) = match verdict {
        Verdict::Twice { .. } => (
            "IDENTITY_TWICE",
            format!(
                "is this a copy of that server? on the controller: certwright agents enroll NEWNAME, and run its command here; \
                 is this the right one? certwright agents enroll {name} --replace, likewise"
            ),
        ),
        Verdict::Welcome | Verdict::SteppedBack | Verdict::Wait => {
            ("IDENTITY_IN_USE", "nothing yet: if that is only an old connection, it ends within a minute".to_owned())
        }
    };
    let message = format!("another program holds the stream of agent {name}, from {}", known.address);
    let cause = "it has the same identity as this one";
    Refusal::new(Code::FailedPrecondition, Problem::new(reason, message, cause, hint))
}

/// What this connection says is from before what a newer one said.
fn overtaken() -> Refusal {
    let hint = "the agent connects again by itself";
    let message = "a newer connection of this agent came meanwhile";
    Refusal::new(Code::Aborted, Problem::new("CONNECTION_OVERTAKEN", message, "", hint))
}
