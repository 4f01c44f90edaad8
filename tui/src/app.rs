//! The dashboard as a state machine: `update` takes a message and returns what to do next. Total and pure: no input makes
//! it panic, and it does no I/O, reads no clock and draws no randomness. Called by `run`; read by `view`.
//!
//! ```text
//!  keys, replies, revisions, timers ──▶ Msg ──▶ update(&mut Model) ──▶ [Cmd] ──▶ run
//!                                                     │
//!                                                     └──▶ view(&Model)
//! ```
#![deny(clippy::wildcard_enum_match_arm)]

pub(crate) mod act;
pub(crate) mod call;
pub(crate) mod layer;
pub(crate) mod link;
pub(crate) mod list;
pub(crate) mod many;
pub(crate) mod notice;
pub(crate) mod off;
pub(crate) mod reply;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod trust;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proto::operator::v1::{Agent, Certificate, Issuer, Job, Pause, PendingEnrollment, WhoamiResponse};
use proto::types::v1::Problem;

use crate::app::call::{Call, Reply};
use crate::app::layer::Layer;
use crate::app::link::Link;
use crate::app::list::List;
use crate::app::many::Marks;
use crate::app::notice::Notices;
use crate::client::ClientError;
use crate::keys::{Action, Context, Key};
use crate::screens::add_certificate::Wizard;
use crate::screens::agent::AgentScreen;
use crate::screens::audit::AuditScreen;
use crate::screens::backup::BackupScreen;
use crate::screens::certificate::CertificateScreen;
use crate::screens::enroll::Enroll;
use crate::screens::identity_ca::IdentityCaScreen;
use crate::screens::invite::Invite;
use crate::screens::issuer::IssuerScreen;
use crate::screens::job::JobScreen;
use crate::screens::overview::OverviewScreen;
use crate::screens::restore::RestoreScreen;
use crate::screens::sheet::Sheet;
use crate::screens::team::Member;
use crate::screens::{self, Place};
use crate::theme::{State, Theme};

/// A screen is read again at most this often while the controller's records change.
const REREAD_GAP: Duration = Duration::from_millis(250);
/// Seconds are counted only while something that shows counts them.
const TICK: Duration = Duration::from_secs(1);
/// Places remembered for `back`.
const BACK_MAX: usize = 16;

/// Everything that can happen.
#[derive(Debug)]
pub(crate) enum Msg {
    /// A key.
    Key(Key),
    /// Text that was pasted, or typed too fast for fingers.
    Paste {
        /// The text.
        text: String,
        /// Whether the terminal said that it is a paste.
        bracketed: bool,
    },
    /// The window's size.
    Resize(u16, u16),
    /// The wall time.
    Now(Timestamp),
    /// The controller said who we are: the connection stands.
    Connected {
        /// Its answer.
        who: Box<WhoamiResponse>,
        /// How long that took.
        took: Duration,
    },
    /// The controller cannot be reached.
    Lost {
        /// Why and what to do.
        problem: Problem,
        /// How often it was tried since it was lost.
        attempt: u32,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The controller's revision; larger means that something changed.
    Watched(u64),
    /// Whether everything is paused, and by whom.
    Paused(Option<Pause>),
    /// An answer.
    Reply {
        /// The request's number.
        id: u64,
        /// How long it took.
        took: Duration,
        /// The answer, or why there is none.
        result: Result<Reply, ClientError>,
    },
    /// A long answer is on its way.
    Progress {
        /// The request's number.
        id: u64,
        /// How much of it there is.
        bytes: u64,
    },
    /// A timer went off.
    Timer(Timer),
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The screen may be read again.
    Reread,
    /// A second passed.
    Tick,
    /// The filter has rested; the number tells which typing.
    Filter(u64),
    /// `Ctrl-c` no longer counts as the first of two.
    Interrupt,
}

/// What `run` shall do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cmd {
    /// Ask the controller.
    Call(u64, Call),
    /// Send `Msg::Timer` later.
    After(Timer, Duration),
    /// Try to connect now.
    Reconnect,
    /// Paint everything again.
    Repaint,
    /// Stop until the shell continues.
    Suspend,
    /// Leave.
    Quit,
    /// Give a text to the terminal's clipboard; never a secret.
    Copy(String),
}

/// A first key that waits for its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// `g`: go to.
    Go,
    /// `s`: sort by.
    Sort,
}

/// Everything the dashboard knows.
#[derive(Debug)]
pub(crate) struct Model {
    /// Columns and rows of the window.
    pub(crate) size: (u16, u16),
    /// What to paint with.
    pub(crate) theme: Theme,
    /// The wall time, as far as it was told.
    pub(crate) now: Timestamp,
    /// Who we are to the controller.
    pub(crate) who: Option<WhoamiResponse>,
    /// The connection.
    pub(crate) link: Link,
    /// When the controller was last heard.
    pub(crate) heard_at: Option<Timestamp>,
    /// The controller's revision.
    pub(crate) revision: u64,
    /// The kill switch, while it is pulled.
    pub(crate) pause: Option<Pause>,
    /// Keys handled, for tests.
    pub(crate) keys_handled: u64,
    /// What shows.
    pub(crate) place: Place,
    /// Where `back` leads.
    pub(crate) back: Vec<Place>,
    /// Where `-` leads.
    pub(crate) last: Option<Place>,
    /// The overview.
    pub(crate) overview: OverviewScreen,
    /// The certificates.
    pub(crate) certificates: List<Certificate>,
    /// Their order.
    pub(crate) sort: &'static str,
    /// Whether the side preview is wanted.
    pub(crate) preview: bool,
    /// The open certificate.
    pub(crate) certificate: CertificateScreen,
    /// The agents.
    pub(crate) agents: List<Agent>,
    /// Join tokens that wait.
    pub(crate) pending: Vec<PendingEnrollment>,
    /// The open agent.
    pub(crate) agent: AgentScreen,
    /// The jobs.
    pub(crate) jobs: List<Job>,
    /// The open act on many.
    pub(crate) job: JobScreen,
    /// Which certificates are marked.
    pub(crate) marks: Marks,
    /// The issuers.
    pub(crate) issuers: List<Issuer>,
    /// The open issuer.
    pub(crate) issuer: IssuerScreen,
    /// The issuer that is tried because the operator asked; how that ended is told once.
    pub(crate) trying: Option<String>,
    /// The add-certificate wizard, also while it is left.
    pub(crate) wizard: Option<Wizard>,
    /// The open sheet, or the draft of a new issuer.
    pub(crate) sheet: Option<Sheet>,
    /// The enrolment.
    pub(crate) enroll: Option<Enroll>,
    /// Who did what.
    pub(crate) audit: AuditScreen,
    /// Operators and open invitations.
    pub(crate) team: List<Member>,
    /// The operator to be.
    pub(crate) invite: Option<Invite>,
    /// The backup that is asked for, runs or is done.
    pub(crate) backup: Option<BackupScreen>,
    /// The restore.
    pub(crate) restore: RestoreScreen,
    /// The identity CA.
    pub(crate) identity_ca: IdentityCaScreen,
    /// What floats above the place, topmost last.
    pub(crate) layers: Vec<Layer>,
    /// A first key that waits for its second.
    pub(crate) prefix: Option<Prefix>,
    /// What was said.
    pub(crate) notices: Notices,
    /// Whether one more `Ctrl-c` quits.
    pub(crate) interrupted: bool,
    running: BTreeMap<u64, Call>,
    calls: u64,
    cooling: bool,
    again: bool,
    ticking: bool,
    session: String,
    wishes: u32,
}

impl Model {
    /// Returns the dashboard as it starts. `session` is random: it makes the ids of this session's wishes.
    pub(crate) fn new(theme: Theme, size: (u16, u16), now: Timestamp, session: String) -> Self {
        Self {
            size,
            theme,
            now,
            who: None,
            link: Link::default(),
            heard_at: None,
            revision: 0,
            pause: None,
            keys_handled: 0,
            place: Place::Overview,
            back: Vec::new(),
            last: None,
            overview: OverviewScreen::default(),
            certificates: List::default(),
            sort: "urgency",
            preview: true,
            certificate: CertificateScreen::default(),
            agents: List::default(),
            pending: Vec::new(),
            agent: AgentScreen::default(),
            jobs: List::default(),
            job: JobScreen::default(),
            marks: Marks::default(),
            issuers: List::default(),
            issuer: IssuerScreen::default(),
            trying: None,
            wizard: None,
            sheet: None,
            enroll: None,
            audit: AuditScreen::default(),
            team: List::default(),
            invite: None,
            backup: None,
            restore: RestoreScreen::default(),
            identity_ca: IdentityCaScreen::default(),
            layers: Vec::new(),
            prefix: None,
            notices: Notices::default(),
            interrupted: false,
            running: BTreeMap::new(),
            calls: 0,
            cooling: false,
            again: false,
            ticking: false,
            session,
            wishes: 0,
        }
    }

    /// Returns the context that keys are read in.
    pub(crate) fn context(&self) -> Context {
        match self.layers.last() {
            Some(Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_)) => Context::Reading,
            Some(Layer::Palette(_) | Layer::Filter(_)) => Context::Prompt,
            Some(Layer::Confirm(_)) => Context::Dialog,
            None => self.place_context(),
        }
    }

    /// Returns the context of the place, whatever floats above it.
    pub(crate) fn place_context(&self) -> Context {
        match &self.place {
            Place::Overview => Context::Overview,
            Place::Certificates => Context::Certificates,
            Place::Certificate(_) => Context::Certificate,
            Place::Agents => Context::Agents,
            Place::Agent(_) => Context::Agent,
            Place::Jobs => Context::Jobs,
            Place::Job(_) => Context::Job,
            Place::Issuers => Context::Issuers,
            Place::Issuer(_) => Context::Issuer,
            Place::Team => Context::Team,
            Place::Audit => Context::Audit,
            Place::Act(_) => Context::Act,
            Place::Restore => Context::Restore,
            Place::IdentityCa => Context::IdentityCa,
            Place::Invite if self.invite.as_ref().is_some_and(|invite| invite.answer.is_some()) => Context::Waiting,
            Place::Backup if self.backup.as_ref().is_some_and(|backup| !backup.is_asked()) => Context::Waiting,
            Place::AddCertificate | Place::Sheet | Place::Invite | Place::Backup => Context::Form,
            Place::Enroll if self.enroll.as_ref().is_some_and(|enroll| enroll.token.is_some()) => Context::Waiting,
            Place::Enroll => Context::Form,
        }
    }

    /// Returns why nothing can be changed now, if so.
    pub(crate) fn read_only(&self) -> Option<String> {
        if !self.link.is_live() {
            return Some("the controller cannot be reached".to_owned());
        }
        let role = self.who.as_ref().map_or("", |who| who.role.as_str());
        matches!(role, "viewer" | "auditor").then(|| format!("role {role} may only read"))
    }

    /// Returns a new id for a wish; the same wish keeps its id when it is sent again.
    pub(crate) fn wish_id(&mut self) -> String {
        self.wishes = self.wishes.wrapping_add(1);
        let stem: String = self.session.chars().take(20).collect();
        format!("{stem}{:06}", self.wishes % 1_000_000)
    }

    /// Sends a request.
    pub(crate) fn call(&mut self, call: Call) -> Cmd {
        self.calls = self.calls.wrapping_add(1);
        self.running.insert(self.calls, call.clone());
        Cmd::Call(self.calls, call)
    }

    /// Whether everything that was asked is answered and shown.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.again
    }

    /// Reads what the place shows, now.
    pub(crate) fn read(&mut self) -> Vec<Cmd> {
        if !self.link.is_live() {
            return Vec::new();
        }
        let wanted = screens::reads(self);
        let missing: Vec<Call> =
            wanted.into_iter().filter(|call| !self.running.values().any(|own| own == call)).collect();
        missing.into_iter().map(|call| self.call(call)).collect()
    }

    /// Reads what the place shows as soon as it may be read again.
    fn read_soon(&mut self) -> Vec<Cmd> {
        if self.cooling || self.running.values().any(Call::reads) {
            self.again = true;
            return Vec::new();
        }
        self.cooling = true;
        let mut cmds = self.read();
        cmds.push(Cmd::After(Timer::Reread, REREAD_GAP));
        cmds
    }

    /// Goes to a place and reads it. `remember`: `back` returns to where we were.
    pub(crate) fn go(&mut self, place: Place, remember: bool) -> Vec<Cmd> {
        if self.place == place {
            return self.read();
        }
        let before = std::mem::replace(&mut self.place, place);
        if remember {
            if self.back.len() == BACK_MAX {
                self.back.remove(0);
            }
            self.back.push(before.clone());
        } else {
            self.back.clear();
        }
        self.last = Some(before);
        self.prefix = None;
        screens::entered(self);
        self.read()
    }

    /// Returns to the place before this one.
    pub(crate) fn go_back(&mut self) -> Vec<Cmd> {
        let to = self.back.pop().unwrap_or_else(|| self.place.parent());
        let rest = std::mem::take(&mut self.back);
        let cmds = self.go(to, false);
        self.back = rest;
        cmds
    }

    fn wants_tick(&self) -> bool {
        matches!(self.link, Link::Offline { .. })
            || self.certificates.has_changes()
            || self.agents.has_changes()
            || self.jobs.has_changes()
            || self.job.subs.has_changes()
            || self.issuers.has_changes()
            || self.team.has_changes()
            || self.audit.list.has_changes()
            || self.identity_ca.peers.has_changes()
            || (matches!(self.place, Place::Certificate(_)) && self.certificate.is_counting())
            || matches!(self.layers.last(), Some(Layer::Confirm(confirm)) if confirm.opens_in(self.now) > 0)
    }
}

/// Takes one message; returns what to do.
pub(crate) fn update(model: &mut Model, msg: Msg) -> Vec<Cmd> {
    let mut cmds = match msg {
        Msg::Key(key) => {
            model.keys_handled = model.keys_handled.wrapping_add(1);
            act::key(model, key)
        }
        Msg::Paste { text, bracketed } => {
            model.keys_handled = model.keys_handled.wrapping_add(text.chars().count().try_into().unwrap_or(u64::MAX));
            act::paste(model, &text, bracketed)
        }
        Msg::Resize(width, height) => {
            model.size = (width, height);
            Vec::new()
        }
        Msg::Now(now) => {
            model.now = now;
            Vec::new()
        }
        Msg::Connected { who, took } => connected(model, *who, took),
        Msg::Lost { problem, attempt, retry_in } => {
            lost(model, problem, attempt, retry_in);
            Vec::new()
        }
        Msg::Watched(revision) => {
            model.heard_at = Some(model.now);
            if revision == model.revision {
                Vec::new()
            } else {
                model.revision = revision;
                model.read_soon()
            }
        }
        Msg::Paused(pause) => {
            model.pause = pause;
            Vec::new()
        }
        Msg::Reply { id, took, result } => match model.running.remove(&id) {
            Some(call) => reply::take(model, call, took, result),
            None => Vec::new(),
        },
        Msg::Progress { id, bytes } => {
            if let (Some(Call::Backup(_)), Some(screen)) = (model.running.get(&id), &mut model.backup) {
                screen.wrote(bytes);
            }
            Vec::new()
        }
        Msg::Timer(timer) => timed(model, timer),
    };
    settle(model, &mut cmds);
    cmds
}

fn timed(model: &mut Model, timer: Timer) -> Vec<Cmd> {
    match timer {
        Timer::Reread => {
            model.cooling = false;
            if std::mem::take(&mut model.again) { model.read_soon() } else { Vec::new() }
        }
        Timer::Tick => {
            model.ticking = false;
            model.certificates.expire(model.now);
            model.agents.expire(model.now);
            model.jobs.expire(model.now);
            model.job.subs.expire(model.now);
            model.issuers.expire(model.now);
            model.team.expire(model.now);
            model.audit.list.expire(model.now);
            model.identity_ca.peers.expire(model.now);
            Vec::new()
        }
        Timer::Filter(typed) => layer::filter_rested(model, typed),
        Timer::Interrupt => {
            model.interrupted = false;
            Vec::new()
        }
    }
}

fn connected(model: &mut Model, who: WhoamiResponse, took: Duration) -> Vec<Cmd> {
    if matches!(model.link, Link::Offline { .. }) {
        model.notices.say(model.now, State::Ok, "connected again");
    }
    model.link = Link::Live { took };
    model.heard_at = Some(model.now);
    model.who = Some(who);
    model.running.retain(|_, call| !call.reads());
    model.cooling = false;
    model.again = false;
    model.read()
}

fn lost(model: &mut Model, problem: Problem, attempt: u32, retry_in: Duration) {
    let since = match &model.link {
        Link::Offline { since, .. } => *since,
        Link::Connecting | Link::Live { .. } => {
            model.notices.fail(model.now, "", &problem);
            model.notices.went_on(true);
            model.now
        }
    };
    let before = model.layers.len();
    model.layers.retain(|layer| !matches!(layer, Layer::Confirm(_)));
    if model.layers.len() < before {
        model.notices.say(model.now, State::Warn, "the question was closed: the connection was lost, nothing was done");
    }
    let retry_at = model.now.checked_add(retry_in).unwrap_or(model.now);
    let (why, hint) = (problem.message, problem.hint);
    model.link = Link::Offline { since, heard_at: model.heard_at, why, hint, retry_at, attempt };
}

/// Keeps what follows from the state true: windows hold their cursors, enough rows are read, seconds are counted.
fn settle(model: &mut Model, cmds: &mut Vec<Cmd>) {
    screens::settle(model);
    if model.link.is_live() && screens::wants_more(model) && !model.running.values().any(Call::reads) && !model.cooling
    {
        cmds.extend(model.read_soon());
    }
    if !model.running.values().any(Call::reads) && !model.cooling && std::mem::take(&mut model.again) {
        cmds.extend(model.read_soon());
    }
    if model.wants_tick() && !model.ticking {
        model.ticking = true;
        cmds.push(Cmd::After(Timer::Tick, TICK));
    }
}

/// Says why an action cannot be taken now.
pub(crate) fn refuse(model: &mut Model, action: Action, why: &str) {
    let what = crate::keys::binding(model.context(), action);
    let what = what.map_or("", |row| if row.hint.is_empty() { row.help } else { row.hint });
    model.notices.say(model.now, State::Warn, format!("{what}: not now, {why}"));
}
