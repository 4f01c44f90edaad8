//! What operators ask of this agent now. Works on a few questions at a time, beside everything else: the same question is worked on
//! once, and one too many is refused as busy. An answer goes to the connection that the question came on, and is lost with it.
//! `net::session` passes the questions on.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::client::{Client, call};
use super::trial::Tester;
use crate::problem::Problem;

/// Questions that wait to be looked at; the controller has fewer open.
pub(crate) const QUEUE_MAX: usize = 16;
/// Questions that are worked on at the same time.
const AT_ONCE: usize = 8;
/// Answers on their way.
const ANSWERS_MAX: usize = 32;
/// Longest work on one question, whatever is asked.
const WITHIN_MAX: Duration = Duration::from_secs(60);

/// A question, and the connection it came on.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: wire::Question,
    pub(crate) client: Client,
}

/// Answers questions.
#[derive(Debug)]
pub(crate) struct Questioned {
    tester: Tester,
    inbox: mpsc::Receiver<Asked>,
    work: JoinSet<(Vec<u8>, Answer)>,
    /// Who waits for what is worked on, by the question without its id.
    waiting: HashMap<Vec<u8>, Vec<(String, Client)>>,
    answers: JoinSet<()>,
}

impl Questioned {
    pub(crate) fn new(tester: Tester, inbox: mpsc::Receiver<Asked>) -> Self {
        Self { tester, inbox, work: JoinSet::new(), waiting: HashMap::new(), answers: JoinSet::new() }
    }

    /// Runs until it is stopped.
    ///
    /// # Errors
    /// When a task panicked: a bug; the whole agent starts anew.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            // Cancel-safe: `recv` and `join_next` lose nothing.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.work.join_next(), if !self.work.is_empty() => {
                    let (key, answer) = done.map_err(|error| Problem::internal(&format!("a question: {error}")))?;
                    for (id, client) in self.waiting.remove(&key).unwrap_or_default() {
                        self.send(id, client, answer.clone());
                    }
                }
                Some(_) = self.answers.join_next(), if !self.answers.is_empty() => {}
                asked = self.inbox.recv() => match asked {
                    Some(asked) => self.take(asked),
                    None => break,
                },
            }
        }
        self.work.shutdown().await;
        self.answers.shutdown().await;
        Ok(())
    }

    fn take(&mut self, asked: Asked) {
        let Asked { question, client } = asked;
        let wire::Question { id, within_seconds, kind } = question;
        let key = wire::Question { kind: kind.clone(), ..Default::default() }.encode_to_vec();
        let Some(kind) = kind else {
            return self.send(id, client, refused(unknown()));
        };
        if let Some(waiting) = self.waiting.get_mut(&key).filter(|waiting| waiting.len() < AT_ONCE) {
            waiting.push((id, client));
            return;
        }
        if self.work.len() >= AT_ONCE || self.waiting.contains_key(&key) {
            return self.send(id, client, refused(busy()));
        }
        self.waiting.insert(key.clone(), vec![(id, client)]);
        let until = Instant::now() + Duration::from_secs(within_seconds.into()).min(WITHIN_MAX);
        let tester = self.tester.clone();
        self.work.spawn(async move { (key, answer(&tester, kind, until).await) });
    }

    fn send(&mut self, id: String, mut client: Client, answer: Answer) {
        if self.answers.len() >= ANSWERS_MAX {
            debug!(question_id = id, "too many answers on their way: one is dropped");
            return;
        }
        self.answers.spawn(async move {
            let request = wire::AnswerRequest { question_id: id, kind: Some(answer) };
            if let Err(status) = call(client.answer(request)).await {
                info!(code = ?status.code(), "an answer was not taken");
            }
        });
    }
}

async fn answer(tester: &Tester, kind: Kind, until: Instant) -> Answer {
    match kind {
        Kind::TestTarget(asked) => match tester.test(&asked, until).await {
            Ok(checks) => {
                Answer::TestTarget(wire::TargetTested { steps: checks.into_iter().map(Into::into).collect() })
            }
            Err(problem) => refused(problem),
        },
    }
}

fn refused(problem: Problem) -> Answer {
    Answer::Refused(problem.into())
}

fn unknown() -> Problem {
    let cause = format!("agent version {}", env!("CARGO_PKG_VERSION"));
    Problem::new(
        "UPGRADE_AGENT",
        "this agent does not know what it is asked",
        cause,
        "upgrade the agent on this server",
    )
}

fn busy() -> Problem {
    let message = format!("the agent works on {AT_ONCE} questions already");
    Problem::new("AGENT_BUSY", message, "", "ask again when they are answered, within a minute")
}
