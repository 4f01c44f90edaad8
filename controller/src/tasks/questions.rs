//! Questions of operators to agents that are answered now: what a test of a target finds, what runs on a server. An open one
//! lives in memory and as long as its asker waits; nothing is stored, and a broken connection or a restart ends it. Goes down
//! the agent's stream (`presence`), comes back by a call of its own (`rpc/agent_service`). Called by `rpc/operator`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::agent::v1::{AnswerRequest, Question};
use proto::id::random_id;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::hub::Hub;
use super::restore;
use crate::lifecycle::agent::Agent;
use crate::lifecycle::problem::Problem;
use crate::store::StoreError;

/// Open questions of one agent.
pub const OPEN_MAX: usize = 8;
/// Largest question: the stream is for small messages.
const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// Longest wait of an operator's call for its agents.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// How much sooner than its asker gives up an agent answers as far as it came.
const MARGIN: Duration = Duration::from_secs(10);

/// The questions without an answer yet, by their ids.
#[derive(Debug, Default)]
pub struct Questions {
    open: Mutex<HashMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    agent_id: String,
    answer: oneshot::Sender<Answer>,
}

/// Forgets a question when its asker is done, or gone.
struct Asked<'a> {
    questions: &'a Questions,
    id: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.id);
    }
}

impl Questions {
    /// Takes an answer of an agent. One to a question of another agent is dropped like one that nobody waits for.
    pub(crate) fn answer(&self, agent_id: &str, request: AnswerRequest) {
        let mut open = self.lock();
        if open.get(&request.question_id).is_none_or(|open| open.agent_id != agent_id) {
            return;
        }
        let Some(asked) = open.remove(&request.question_id) else { return };
        if let Some(kind) = request.kind {
            // The asker may be gone by now.
            asked.answer.send(kind).ok();
        }
    }

    fn open(&self, agent_id: &str) -> Option<(Asked<'_>, oneshot::Receiver<Answer>)> {
        let mut open = self.lock();
        if open.values().filter(|open| open.agent_id == agent_id).count() >= OPEN_MAX {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let id = random_id();
        open.insert(id.clone(), Open { agent_id: agent_id.to_owned(), answer });
        Some((Asked { questions: self, id }, answered))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks an agent, and waits for its answer until `until`. `feature` is what it must have.
///
/// # Errors
/// When the store fails; within, why there is no answer.
pub(crate) async fn ask(
    hub: &Hub,
    agent: &Agent,
    feature: &str,
    kind: Kind,
    until: Instant,
) -> Result<Result<Answer, Problem>, StoreError> {
    let name = &agent.name;
    let Some(line) = hub.presence.of(&agent.id).map(|connected| connected.questions) else {
        return Ok(Err(away(agent)));
    };
    if !restore::has_shown(hub, &agent.id).await? {
        let message = format!("agent {name} has yet to show what it holds, because the controller was restored");
        return Ok(Err(Problem::new("SHOW_FIRST", message, "", "it does so by itself: ask again")));
    }
    if !agent.hello.features.iter().any(|known| known == feature) {
        let message = format!("agent {name} cannot do this: it is of version {}", agent.hello.version);
        let hint = format!("upgrade agent {name}, then ask again");
        return Ok(Err(Problem::new("AGENT_TOO_OLD", message, format!("it does not know {feature}"), hint)));
    }
    let Some((asked, answered)) = hub.questions.open(&agent.id) else { return Ok(Err(busy(name))) };
    let left = until.saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
    let within_seconds = u32::try_from(left.as_secs()).unwrap_or_default().max(1);
    let question = Question { id: asked.id.clone(), within_seconds, kind: Some(kind) };
    if question.encoded_len() > QUESTION_BYTES_MAX {
        let message = format!("what is to be asked of agent {name} is larger than {} KiB", QUESTION_BYTES_MAX / 1024);
        return Ok(Err(Problem::new("QUESTION_TOO_LARGE", message, "", "give the target shorter commands")));
    }
    if line.try_send(question).is_err() {
        return Ok(Err(if line.is_closed() { lost(name) } else { busy(name) }));
    }
    // Both arms are cancel-safe. An answer that came is taken although the stream ended right after it.
    let waited = async {
        tokio::select! {
            biased;
            answer = answered => answer.map_err(|_dropped| lost(name)),
            () = line.closed() => Err(lost(name)),
        }
    };
    Ok(timeout_at(until, waited).await.unwrap_or_else(|_elapsed| Err(silent(name))))
}

fn away(agent: &Agent) -> Problem {
    let name = &agent.name;
    let message = match agent.seen_at {
        Some(at) => format!("agent {name} is away since {}", at.strftime("%F %T UTC")),
        None => format!("agent {name} was never connected"),
    };
    let hint = "start it on its server (systemctl start certwright-agent), then ask again";
    Problem::new("AGENT_AWAY", message, "", hint)
}

fn busy(name: &str) -> Problem {
    let message = format!("agent {name} has {OPEN_MAX} questions to answer already");
    Problem::new("AGENT_BUSY", message, "", "ask again when they are answered, within a minute")
}

fn lost(name: &str) -> Problem {
    let message = format!("the connection of agent {name} broke before it answered");
    Problem::new("AGENT_LOST", message, "nothing is kept of a question whose connection is gone", "ask again")
}

/// The agent answered, and not what it was asked.
pub(crate) fn another(name: &str) -> Problem {
    let message = format!("agent {name} answered another question than the one it was asked");
    Problem::new("AGENT_ANSWER_INVALID", message, "", "ask again; upgrade the agent if it stays so")
}

fn silent(name: &str) -> Problem {
    let message = format!("agent {name} did not answer in time");
    let hint = format!("ask again; its log says what it does (journalctl -u certwright-agent on {name})");
    Problem::new("AGENT_SILENT", message, "", hint)
}

#[cfg(test)]
mod tests {
    use proto::types::v1 as types;

    use super::*;

    fn answer(id: &str) -> AnswerRequest {
        AnswerRequest { question_id: id.to_owned(), kind: Some(Answer::Refused(types::Problem::default())) }
    }

    #[test]
    fn only_the_agent_that_was_asked_answers_and_only_while_someone_waits() {
        let questions = Questions::default();
        let (asked, mut answered) = questions.open("a1").unwrap();
        questions.answer("a1", answer("another"));
        questions.answer("a2", answer(&asked.id));
        assert!(answered.try_recv().is_err());
        questions.answer("a1", answer(&asked.id));
        assert!(answered.try_recv().is_ok());
        questions.answer("a1", answer(&asked.id));
        drop(asked);
        assert!(questions.lock().is_empty());
    }

    #[test]
    fn an_agent_has_so_many_open_questions_and_no_more() {
        let questions = Questions::default();
        let mut open: Vec<_> = (0..OPEN_MAX).map(|_| questions.open("a1").unwrap()).collect();
        assert!(questions.open("a1").is_none() && questions.open("a2").is_some());
        open.pop();
        assert!(questions.open("a1").is_some(), "an asker that is gone makes room");
    }
}
