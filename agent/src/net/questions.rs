//! What operators ask of this agent now. Works on a few questions at a time, beside everything else: the same question is worked on
//! once, and one too many is refused as busy. An answer goes to the connection that the question came on, and is lost with it.
//! `net::session` passes the questions on.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::text::one_line;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::client::{Client, call};
use super::reconcile::rehearsal::{self, Rehearsal};
use super::trial::Tester;
use crate::problem::Problem;
use crate::target::challenge;

/// Questions that wait to be looked at; the controller has fewer open.
pub(crate) const QUEUE_MAX: usize = 16;
/// Questions that are worked on at the same time.
const AT_ONCE: usize = 8;
/// Answers on their way.
const ANSWERS_MAX: usize = 32;
/// Longest work on one question, whatever is asked.
const WITHIN_MAX: Duration = Duration::from_secs(60);

/// Challenges of one rehearsal: names of one certificate.
const CHALLENGES_MAX: usize = 128;
/// As much of a token that is none as is told.
const TOKEN_CHARS_MAX: usize = 128;

/// A question, and the connection it came on.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: wire::Question,
    pub(crate) client: Client,
}

/// What works on a question.
#[derive(Clone, Debug)]
pub(crate) struct Answerer {
    pub(crate) tester: Tester,
    /// Who serves challenges.
    pub(crate) rehearsals: mpsc::Sender<Rehearsal>,
}

/// Answers questions.
#[derive(Debug)]
pub(crate) struct Questioned {
    answerer: Answerer,
    inbox: mpsc::Receiver<Asked>,
    work: JoinSet<(Vec<u8>, Answer)>,
    /// Who waits for what is worked on, by the question without its id.
    waiting: HashMap<Vec<u8>, Vec<(String, Client)>>,
    answers: JoinSet<()>,
}

impl Questioned {
    pub(crate) fn new(answerer: Answerer, inbox: mpsc::Receiver<Asked>) -> Self {
        Self { answerer, inbox, work: JoinSet::new(), waiting: HashMap::new(), answers: JoinSet::new() }
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
        let answerer = self.answerer.clone();
        self.work.spawn(async move { (key, answerer.answer(kind, until).await) });
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

impl Answerer {
    async fn answer(&self, kind: Kind, until: Instant) -> Answer {
        let answered = match kind {
            Kind::TestTarget(asked) => self.tester.test(&asked, until).await.map(|checks| {
                Answer::TestTarget(wire::TargetTested { steps: checks.into_iter().map(Into::into).collect() })
            }),
            Kind::RehearseChallenges(asked) => self.rehearse(&asked, until).await,
            Kind::Detect(wire::DetectServer {}) => {
                let looked = timeout_at(until, self.tester.apply.detect()).await;
                looked.unwrap_or_else(|_elapsed| Err(slow())).map(|picture| Answer::Detect(picture.into()))
            }
        };
        answered.unwrap_or_else(refused)
    }

    /// Has challenges served until then. Those that make no sense are reported and not served.
    async fn rehearse(&self, asked: &wire::RehearseChallenges, until: Instant) -> Result<Answer, Problem> {
        if asked.challenges.len() > CHALLENGES_MAX {
            let message = format!("more than {CHALLENGES_MAX} challenges at once");
            return Err(Problem::new("QUESTION_TOO_LARGE", message, "", "ask for fewer names"));
        }
        let (served, told) = oneshot::channel();
        let mut outcomes = BTreeMap::new();
        let mut challenges = Vec::new();
        for item in &asked.challenges {
            match challenge(item) {
                Ok(challenge) => challenges.push(challenge),
                Err(problem) => {
                    outcomes.insert(one_line(&item.token, TOKEN_CHARS_MAX), Err(problem));
                }
            }
        }
        self.rehearsals.try_send(Rehearsal { challenges, until, served }).map_err(|_full| full())?;
        let came = timeout_at(until, told).await.map_err(|_elapsed| late())?;
        outcomes.extend(came.map_err(|_dropped| full())?);
        let report = |(token, served): (String, Result<(), Problem>)| wire::ChallengeReport {
            token,
            serving: served.is_ok(),
            problem: served.err().map(Into::into),
        };
        let challenges = outcomes.into_iter().map(report).collect();
        Ok(Answer::RehearseChallenges(wire::ChallengesRehearsed { challenges }))
    }
}

/// Each is served until its time is over, also when its asker has the answer.
fn full() -> Problem {
    let message = format!("the agent serves the challenges of {} such checks already", rehearsal::AT_ONCE);
    Problem::new("AGENT_BUSY", message, "", "ask again in half a minute: each ends by itself")
}

fn late() -> Problem {
    let message = "the challenges were not served in time";
    Problem::new("AGENT_BUSY", message, "", "ask again; the agent's log says what it does")
}

fn slow() -> Problem {
    let message = "this server could not be looked at in time";
    Problem::new("DETECT_SLOW", message, "", "ask again; a disk or a program there may hang")
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
