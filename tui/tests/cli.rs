//! Whole commands against a controller that is only its API: what they print, where, and how they exit.
//! `INSTA_UPDATE=always cargo test -p tui --test cli` writes the snapshots anew; read the difference.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends by panicking")]

#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/changing.rs"]
mod changing;
#[path = "support/controller.rs"]
mod controller;
#[path = "cli/detected.rs"]
mod detected;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/operators.rs"]
mod operators;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/reading.rs"]
mod reading;
#[path = "cli/waiting.rs"]
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proto::types::v1::TargetStatus;
use tui::cli::{Console, Outcome};

use controller::{FakeController, World};
use fixtures::{StoppedClock, agent, at, certificate, event, fresh_certificate, issuer, job, overview, whoami};

/// What a command printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Where a command runs: away from a terminal unless the test says otherwise.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) width: Option<u16>,
    /// What the operator types; `None` is no terminal.
    pub(crate) answers: Option<&'static str>,
    pub(crate) variables: BTreeMap<String, String>,
}

impl Place {
    /// Runs one command line against the controller on `socket`.
    pub(crate) async fn run(self, socket: &Path, words: &[&str]) -> Ran {
        let socket = socket.to_string_lossy().into_owned();
        self.bare(&[&["--socket", &socket], words].concat()).await
    }

    /// Runs one command line as it is.
    pub(crate) async fn bare(self, words: &[&str]) -> Ran {
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut console = Console {
            clock: Arc::new(StoppedClock),
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            answers: self
                .answers
                .map(|text| -> Box<dyn tokio::io::AsyncBufRead + Send + Unpin> { Box::new(text.as_bytes()) }),
            width: self.width,
            variables: self.variables,
        };
        let args = std::iter::once("certwright").chain(words.iter().copied());
        let Outcome::Exit(code) = tui::cli::run(args.map(Into::into), &mut console).await else {
            panic!("{words:?} starts the dashboard");
        };
        Ran { code, out: out.text(), err: err.text() }
    }
}

/// Runs one command line away from a terminal.
pub(crate) async fn run(fake: &FakeController, words: &[&str]) -> Ran {
    Place::default().run(&fake.socket(), words).await
}

/// Runs commands one after another and returns them as a session would show them.
pub(crate) async fn session(fake: &FakeController, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for words in commands {
        text.push_str(&transcript(fake, words, &run(fake, words).await));
    }
    text
}

/// Returns one command as a session would show it; stderr is marked, the socket's path is not shown.
pub(crate) fn transcript(fake: &FakeController, words: &[&str], ran: &Ran) -> String {
    let err: String = ran.err.lines().map(|line| format!("2> {line}\n")).collect();
    let text = format!("$ certwright {}\n{err}{}[exit {}]\n\n", words.join(" "), ran.out, ran.code);
    text.replace(&*fake.folder().to_string_lossy(), "DIR")
}

/// Returns a small fleet.
pub(crate) fn world() -> World {
    World {
        whoami: whoami(),
        overview: overview(),
        certificates: vec![certificate("web"), fixtures::troubled_certificate("shop"), fresh_certificate("new")],
        versions: vec![fixtures::version()],
        agents: vec![
            agent("h1"),
            proto::operator::v1::Agent { status: "offline".into(), ..agent("front") },
            agent("h3"),
        ],
        pending: vec![proto::operator::v1::PendingEnrollment { agent: "h4".into(), expires_at: at(53 * 60) }],
        issuers: vec![issuer("lab")],
        jobs: vec![job("running", "ordering")],
        events: (1..=5).rev().map(|seq| event(seq, "target.applied", &format!("event {seq}"))).collect(),
        job_id: "J1".into(),
        ..World::default()
    }
}

/// Returns a world in which `web` was just accepted as job J1, and what happens to it then.
pub(crate) fn accepted(script: Vec<controller::Step>) -> World {
    World {
        certificates: vec![fresh_certificate("web")],
        jobs: vec![job("running", "pending")],
        script: VecDeque::from(script),
        ..world()
    }
}

/// Returns a step that sets the job's state and the target's status.
pub(crate) fn target_step(state: &'static str, status: TargetStatus) -> controller::Step {
    Box::new(move |world| {
        world.jobs[0].state = state.into();
        for target in &mut world.certificates[0].targets {
            target.set_status(status);
            target.started_at = at(1);
        }
    })
}
