//! Which agents are connected at this moment and what they say that is not worth a commit: last seen, clock skew, tokens
//! served, what they are doing. Lives in memory; a restart learns it again from the agents. Likewise when operators called.
//! Called by `rpc` and tasks.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use proto::agent::v1::Question;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::questions::OPEN_MAX;
use crate::lifecycle::desired::Name;
use crate::lifecycle::holder::Rival;
use crate::lifecycle::problem::Problem;

/// The agents with an open stream.
#[derive(Debug)]
pub struct Presence {
    agents: Mutex<HashMap<String, Connected>>,
    sessions: Mutex<u64>,
    /// Agents that were told to wait for consent: as many as are enrolled at most.
    knocked: Mutex<HashSet<String>>,
    /// By agent: its newest connection. As many as are enrolled at most.
    newest: Mutex<HashMap<String, u64>>,
    /// By agent: a program that came while another one had the stream, and when. Likewise.
    rivals: Mutex<HashMap<String, (String, Timestamp)>>,
    touched: watch::Sender<u64>,
}

/// What an open stream told.
#[derive(Clone, Debug)]
pub struct Connected {
    session: u64,
    program: Program,
    hint: watch::Sender<Option<Name>>,
    /// Where `questions` puts what the agent is asked; closed when the stream ends.
    pub questions: mpsc::Sender<Question>,
    cut: CancellationToken,
    /// When its last message came.
    pub seen_at: Timestamp,
    /// Its wall clock minus ours.
    pub clock_skew_ms: i64,
    /// The challenge tokens it serves.
    pub serving: Vec<String>,
    /// Why it cannot serve a token, by token.
    pub challenge_problems: HashMap<String, Problem>,
    /// What it does at a target: writing, reloading, verifying.
    pub doing: HashMap<String, String>,
    /// The generation its last report answers.
    pub generation_reported: u64,
    /// The keys on its disk, by slot.
    pub keys_held: Vec<String>,
}

/// Who speaks on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Random, made when it started; empty when it told none.
    pub instance: String,
    /// Connections are numbered as they come.
    pub connection: u64,
    /// Where it connects from.
    pub address: String,
}

/// One stream, from hello to its end.
#[derive(Debug)]
pub struct Session {
    /// Distinguishes this stream from an earlier one of the same agent.
    pub number: u64,
    /// The state to announce.
    pub hints: watch::Receiver<Option<Name>>,
    /// The questions to pass on.
    pub questions: mpsc::Receiver<Question>,
    /// Ends the stream.
    pub cut: CancellationToken,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            agents: Mutex::default(),
            sessions: Mutex::default(),
            knocked: Mutex::default(),
            newest: Mutex::default(),
            rivals: Mutex::default(),
            touched: watch::Sender::new(0),
        }
    }
}

impl Presence {
    /// Records a new stream; an older one of the same agent is cut.
    pub fn attach(&self, agent_id: &str, program: Program, now: Timestamp) -> Session {
        let number = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            *sessions += 1;
            *sessions
        };
        let (hint, hints) = watch::channel(None);
        let (asked, questions) = mpsc::channel(OPEN_MAX);
        let cut = CancellationToken::new();
        let connected = Connected {
            session: number,
            program,
            hint,
            questions: asked,
            cut: cut.clone(),
            seen_at: now,
            clock_skew_ms: 0,
            serving: Vec::new(),
            challenge_problems: HashMap::new(),
            doing: HashMap::new(),
            generation_reported: 0,
            keys_held: Vec::new(),
        };
        if let Some(older) = self.lock().insert(agent_id.to_owned(), connected) {
            older.cut.cancel();
        }
        self.knocked.lock().unwrap_or_else(PoisonError::into_inner).remove(agent_id);
        self.rivals.lock().unwrap_or_else(PoisonError::into_inner).remove(agent_id);
        self.touch();
        Session { number, hints, questions, cut }
    }

    /// Forgets a stream. Returns whether it was the agent's newest, so that the agent is offline now.
    pub fn detach(&self, agent_id: &str, number: u64) -> bool {
        let mut agents = self.lock();
        let newest = agents.get(agent_id).is_some_and(|connected| connected.session == number);
        if newest {
            agents.remove(agent_id);
        }
        drop(agents);
        self.touch();
        newest
    }

    /// Ends the agent's stream, if one is open: from this moment the agent does not count as connected.
    pub fn cut(&self, agent_id: &str) {
        let cut = self.lock().remove(agent_id);
        if let Some(connected) = cut {
            connected.cut.cancel();
            self.touch();
        }
    }

    /// Notes that a program says hello.
    pub fn arrives(&self, agent_id: &str, program: &Program) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let number = newest.entry(agent_id.to_owned()).or_default();
        *number = program.connection.max(*number);
    }

    /// Whether no newer connection of the agent has come.
    #[must_use]
    pub fn is_newest(&self, agent_id: &str, program: &Program) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(agent_id).is_none_or(|number| *number <= program.connection)
    }

    /// Returns what is known of another program that has the agent's stream.
    #[must_use]
    pub fn rival(&self, agent_id: &str, program: &Program, now: Timestamp) -> Option<Rival> {
        let other = self.of(agent_id)?;
        let are_two = ![&other.program.instance, &program.instance].contains(&&String::new())
            && other.program.instance != program.instance;
        if !are_two {
            return None;
        }
        let mut rivals = self.rivals.lock().unwrap_or_else(PoisonError::into_inner);
        match rivals.get(agent_id) {
            Some((instance, since)) if *instance == program.instance => {
                Some(Rival { is_alive: other.seen_at > *since })
            }
            Some(_) | None => {
                rivals.insert(agent_id.to_owned(), (program.instance.clone(), now));
                Some(Rival { is_alive: false })
            }
        }
    }

    /// Notes that an agent waits for consent. Returns whether that is news since it last had a stream.
    pub fn knocks_first(&self, agent_id: &str) -> bool {
        self.knocked.lock().unwrap_or_else(PoisonError::into_inner).insert(agent_id.to_owned())
    }

    /// Announces a desired state to the agent, if it is connected.
    pub fn hint(&self, name: &Name) {
        if let Some(connected) = self.lock().get(&name.agent_id) {
            connected.hint.send_replace(Some(name.clone()));
        }
    }

    /// Notes a heartbeat. Views do not look again for it.
    pub fn heard(&self, agent_id: &str, now: Timestamp, clock_skew_ms: i64) {
        if let Some(connected) = self.lock().get_mut(agent_id) {
            connected.seen_at = now;
            connected.clock_skew_ms = clock_skew_ms;
        }
    }

    /// Changes what is known of a connected agent; nothing happens when it is not connected. Views look again only when
    /// the change is worth it.
    pub fn update(&self, agent_id: &str, change: impl FnOnce(&mut Connected)) {
        let mut agents = self.lock();
        let Some(connected) = agents.get_mut(agent_id) else { return };
        let before = (connected.serving.clone(), connected.doing.clone(), connected.generation_reported);
        change(connected);
        let news =
            (&before.0, &before.1, before.2) != (&connected.serving, &connected.doing, connected.generation_reported);
        drop(agents);
        if news {
            self.touch();
        }
    }

    /// Returns what is known of a connected agent.
    #[must_use]
    pub fn of(&self, agent_id: &str) -> Option<Connected> {
        self.lock().get(agent_id).cloned()
    }

    /// Returns whether a connected agent has the key of a slot; `None` while it is away or said nothing yet.
    #[must_use]
    pub fn holds_key(&self, agent_id: &str, slot_id: &str) -> Option<bool> {
        let agents = self.lock();
        let connected = agents.get(agent_id).filter(|connected| connected.generation_reported > 0)?;
        Some(connected.keys_held.iter().any(|held| held == slot_id))
    }

    /// Returns the clock of every connected agent that said something: theirs minus ours.
    #[must_use]
    pub fn clock_skews(&self) -> Vec<SignedDuration> {
        self.lock().values().map(|agent| SignedDuration::from_millis(agent.clock_skew_ms)).collect()
    }

    /// Returns how many agents are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether the agent's stream is open.
    #[must_use]
    pub fn is_connected(&self, agent_id: &str) -> bool {
        self.lock().contains_key(agent_id)
    }

    /// Grows whenever something here changed: views look again.
    #[must_use]
    pub fn touched(&self) -> watch::Receiver<u64> {
        self.touched.subscribe()
    }

    fn touch(&self) {
        self.touched.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Connected>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When operators were last heard of, by name. Only who was authorised is noted, so there are as many as there are operators.
#[derive(Debug, Default)]
pub struct OperatorsSeen {
    at: Mutex<HashMap<String, Timestamp>>,
}

impl OperatorsSeen {
    /// Notes that `name` called.
    pub(crate) fn note(&self, name: &str, now: Timestamp) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match at.get_mut(name) {
            Some(seen) => *seen = now,
            None => drop(at.insert(name.to_owned(), now)),
        }
    }

    /// Returns when `name` last called; `None` means not since the controller started.
    pub(crate) fn at(&self, name: &str) -> Option<Timestamp> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_look_again_at_news_and_not_at_heartbeats() {
        let presence = Presence::default();
        let now = Timestamp::UNIX_EPOCH;
        drop(presence.attach("a1", Program::default(), now));
        let mut touched = presence.touched();
        let mut news = |agent_id: &str, change: &dyn Fn(&mut Connected)| {
            presence.update(agent_id, change);
            let changed = touched.has_changed().unwrap();
            touched.borrow_and_update();
            changed
        };
        assert!(!news("a1", &|connected| connected.clock_skew_ms = 7));
        assert!(news("a1", &|connected| connected.serving = vec!["token".into()]));
        assert!(!news("a1", &|connected| connected.serving = vec!["token".into()]));
        assert!(news("a1", &|connected| drop(connected.doing.insert("t1".into(), "writing".into()))));
        assert!(news("a1", &|connected| connected.generation_reported = 3));
        assert!(!news("a2", &|connected| connected.generation_reported = 3));
        assert_eq!(presence.of("a1").unwrap().clock_skew_ms, 7);
    }

    #[test]
    fn an_older_connection_and_another_program_are_told_apart() {
        let presence = Presence::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let program =
            |instance: &str, connection| Program { instance: instance.into(), connection, ..Program::default() };
        presence.arrives("a1", &program("p2", 2));
        presence.arrives("a1", &program("p1", 1));
        assert!(!presence.is_newest("a1", &program("p1", 1)) && presence.is_newest("a1", &program("p2", 2)));
        let rival = |instance: &str, second| {
            let rival = presence.rival("a1", &program(instance, 3), at(second));
            rival.map(|rival| rival.is_alive)
        };
        assert_eq!(rival("p3", 5), None, "nobody has the stream");
        drop(presence.attach("a1", program("p2", 2), at(10)));
        assert_eq!(rival("p2", 11), None, "the same program");
        assert_eq!(rival("", 11), None, "one that tells nothing");
        assert_eq!(rival("p3", 20), Some(false));
        assert_eq!(rival("p3", 40), Some(false), "nothing was heard since");
        presence.update("a1", |connected| connected.seen_at = at(41));
        assert_eq!(rival("p3", 42), Some(true));
        assert_eq!(rival("p4", 43), Some(false), "another one again");
    }
}
