//! The dashboard without terminal and controller: messages in, commands and pictures out. Records come from the same
//! fixtures as the command line's tests.

#[path = "../../tests/support/fixtures.rs"]
mod fixtures;
mod many;

mod audit;
mod backup;
mod changes;
mod detected;
mod lives;
mod team;
mod trust;

use std::time::Duration;

use fixtures::{StoppedClock, agent, certificate, event, fresh_certificate, overview, troubled_certificate};
use proptest::prelude::*;
use proto::clock::Clock as _;
use proto::operator::v1::{
    Certificate, CertificateAccepted, EnrollAgentResponse, Issuer, ListOperatorsResponse, Pause, PendingEnrollment,
    WhoamiResponse,
};
use proto::types::v1::{Command, FieldError, Policy, PolicyDir, Problem};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use trust::{ready_ca, steady_ca};

use crate::app::call::{AuditPage, Call, Page, Reply, Token};
use crate::app::layer::Layer;
use crate::app::{Cmd, Model, Msg, Timer, update};
use crate::client::{AuditFilter, ClientError, ErrorKind};
use crate::keys::Key;
use crate::screens::Place;
use crate::theme::Theme;
use crate::view::paint;

const TOOK: Duration = Duration::from_millis(2);

/// A dashboard with a controller that answers at once from fixed records.
pub(crate) struct Desk {
    pub(crate) model: Model,
    certificates: Vec<Certificate>,
    /// Wishes that were sent, with the name they are about.
    sent: Vec<Call>,
    /// Whether wishes are answered.
    refusal: Option<ClientError>,
    quit: bool,
    /// Operators and open invitations.
    team: ListOperatorsResponse,
    issuers: Vec<Issuer>,
    /// The whole audit.
    audit: AuditPage,
    /// What reading the audit is answered instead.
    reading: Option<ClientError>,
    /// What went to the clipboard.
    copied: Vec<String>,
    agent: proto::operator::v1::Agent,
    restore: proto::operator::v1::GetRestoreResponse,
    identity_ca: proto::operator::v1::IdentityCa,
}

fn many_certificates() -> Vec<Certificate> {
    let mut all = vec![troubled_certificate("shop.example.test"), fresh_certificate("api.example.test")];
    all.extend((0..40).map(|number| {
        let name = format!("host-{number:02}.example.test");
        Certificate { id: format!("id-{number}"), ..certificate(&name) }
    }));
    for (number, record) in all.iter_mut().enumerate() {
        record.id = format!("id-{number}");
    }
    all
}

fn agent_with_policy() -> proto::operator::v1::Agent {
    let policy = Policy {
        dirs: vec![PolicyDir {
            path: "/etc/nginx/ssl".into(),
            owners: vec!["root:root".into()],
            key_mode_max: 0o640,
            ..PolicyDir::default()
        }],
        commands: vec![
            Command { argv: vec!["/usr/bin/systemctl".into(), "reload".into(), "nginx".into()] },
            Command { argv: vec!["/usr/sbin/nginx".into(), "-s".into(), "reload".into()] },
        ],
        http01_ports: vec![80],
        webroots: vec!["/var/www/html".into()],
        custody: vec![1, 2],
    };
    proto::operator::v1::Agent { policy: Some(policy), ..agent("h1") }
}

impl Desk {
    fn new(width: u16, height: u16) -> Self {
        let theme = Theme { color: true, ascii: false };
        let session = "0123456789abcdefghjkmnpqrs".to_owned();
        let model = Model::new(theme, (width, height), StoppedClock.now(), session);
        let (certificates, team) = (many_certificates(), fixtures::team());
        let audit = audit::page();
        let (sent, copied) = (Vec::new(), Vec::new());
        let (agent, issuers) = (agent_with_policy(), fixtures::issuers());
        let (refusal, quit, reading) = (None, false, None);
        let (restore, identity_ca) = (fixtures::restore(), fixtures::identity_ca());
        Self {
            model,
            certificates,
            sent,
            refusal,
            quit,
            team,
            issuers,
            audit,
            reading,
            copied,
            agent,
            restore,
            identity_ca,
        }
    }

    fn connected(width: u16, height: u16) -> Self {
        let mut desk = Self::new(width, height);
        desk.connect();
        desk
    }

    fn connect(&mut self) {
        let who = WhoamiResponse {
            operator: "local:root".into(),
            role: "owner".into(),
            controller_name: "ctl-1".into(),
            ..WhoamiResponse::default()
        };
        self.send(Msg::Connected { who: Box::new(who), took: TOOK });
    }

    fn lose(&mut self) {
        let problem = Problem {
            reason: "SOCKET_REFUSED".into(),
            message: "nothing listens on the controller's socket /run/c.sock".into(),
            cause: "Connection refused (os error 111)".into(),
            hint: "start it".into(),
        };
        self.send(Msg::Lost { problem, attempt: 1, retry_in: Duration::from_secs(4) });
    }

    fn send(&mut self, msg: Msg) {
        let cmds = update(&mut self.model, msg);
        self.perform(cmds);
    }

    fn perform(&mut self, cmds: Vec<Cmd>) {
        for cmd in cmds {
            match cmd {
                Cmd::Call(id, call) => {
                    if !call.reads() {
                        self.sent.push(call.clone());
                    }
                    let result = self.answer(&call);
                    self.send(Msg::Reply { id, took: TOOK, result });
                }
                Cmd::After(Timer::Reread, _) => self.send(Msg::Timer(Timer::Reread)),
                Cmd::Quit => self.quit = true,
                Cmd::Copy(text) => self.copied.push(text),
                Cmd::After(..) | Cmd::Reconnect | Cmd::Repaint | Cmd::Suspend => {}
            }
        }
    }

    fn answer(&self, call: &Call) -> Result<Reply, ClientError> {
        if let Some(error) = self.refusal.clone().filter(|_| !call.reads()) {
            return Err(error);
        }
        let find = |name: &str| self.certificates.iter().find(|record| record.name == name).cloned();
        let accepted = |name: &str| {
            let certificate = Some(find(name).unwrap_or_else(|| fresh_certificate(name)));
            Reply::Accepted(Box::new(CertificateAccepted { certificate, job_id: "j1".into(), warnings: Vec::new() }))
        };
        Ok(match call {
            Call::Overview => Reply::Overview(Box::new(overview())),
            Call::Certificates { filter, .. } => {
                let items: Vec<_> =
                    self.certificates.iter().filter(|record| record.name.contains(filter)).cloned().collect();
                Reply::Certificates(Page { total: items.len().try_into().unwrap(), items, more: false })
            }
            Call::Certificate(name) => Reply::Certificate(Box::new(find(name).ok_or_else(missing)?)),
            Call::Versions(_) => {
                Reply::Versions(vec![fixtures::version(), fixtures::earlier_version(), fixtures::revoked_version()])
            }
            Call::Events { .. } => {
                Reply::Events(vec![event(2, "target.applied", "deployed to h1"), event(1, "order.started", "ordering")])
            }
            Call::Agents { filter, .. } => {
                let items: Vec<_> = [self.agent.clone()].into_iter().filter(|one| one.name.contains(filter)).collect();
                let pending = vec![PendingEnrollment { agent: "h2".into(), expires_at: fixtures::at(1_800) }];
                Reply::Agents(Page { total: items.len().try_into().unwrap(), items, more: false }, pending)
            }
            Call::Agent(name) if name == "h1" => Reply::Agent(Box::new(self.agent.clone())),
            Call::Agent(_) => return Err(missing()),
            Call::Detected(_) | Call::Detect(_) => Reply::Detected(Box::new(fixtures::detected())),
            Call::AddTarget(request) => accepted(&request.certificate),
            Call::Jobs => Reply::Jobs(many::jobs()),
            Call::Job(_) | Call::CancelJob(_) => Reply::Job(Box::new(many::parent())),
            Call::SubJobs(_) => Reply::SubJobs(many::subs()),
            Call::Act(request) => Reply::Acted(Box::new(many::plan(request, &self.certificates))),
            Call::Issuers => Reply::Issuers(self.issuers.clone()),
            Call::Issuer(name) | Call::TestIssuer(name) | Call::Rollover(name) => {
                let found = self.issuers.iter().find(|one| one.name == *name).cloned();
                Reply::Issuer(Box::new(found.ok_or_else(missing)?))
            }
            Call::Limits(name) => Reply::Limits(Box::new(fixtures::limits(name))),
            Call::RemoveIssuer(_) => Reply::IssuerRemoved,
            Call::AddIssuer(wish) => Reply::Issuer(Box::new(fixtures::issuer(&wish.request.name))),
            Call::SetIssuer(wish) => Reply::Issuer(Box::new(fixtures::issuer(&wish.request.name))),
            Call::SetLimits(request) => Reply::Limits(Box::new(fixtures::limits(&request.issuer))),
            Call::Update(request) => accepted(&request.name),
            Call::SetTarget(request) => accepted(&request.certificate),
            Call::TestTargets(_) => Reply::Tested(fixtures::tests()),
            Call::CheckChallenges(_) => Reply::ChallengesChecked(Box::new(fixtures::checked())),
            Call::Create(request) => accepted(&request.name),
            Call::Renew(request) => accepted(&request.name),
            Call::RevokeVersion(request) => accepted(&request.name),
            Call::Deploy(request) => accepted(&request.name),
            Call::Delete(_) => Reply::Deleted(false),
            Call::Pause(_) => Reply::Paused(Box::default()),
            Call::Enroll(request) => Reply::Enrolled(Box::new(Token { response: token_for(&request.name) })),
            Call::Revoke(_) | Call::Consent(_) => Reply::Agent(Box::new(self.agent.clone())),
            Call::Forget(_) => Reply::Forgotten,
            Call::Audit { filter, rows } => self.audited(filter, *rows)?,
            Call::Operators | Call::AddOperator(_) | Call::Invite(_) | Call::SetRole(_) | Call::RemoveOperator(_) => {
                team::answer(&self.team, call)
            }
            Call::Backup(_) => Reply::BackedUp(2_345_678),
            Call::Trust(asked) => trust::answer(&self.restore, &self.identity_ca, *asked),
        })
    }

    fn audited(&self, filter: &AuditFilter, rows: usize) -> Result<Reply, ClientError> {
        let page = || Reply::Audit(Box::new(audit::answer(&self.audit, filter, rows)));
        self.reading.clone().map_or_else(|| Ok(page()), Err)
    }

    fn key(&mut self, key: Key) -> &mut Self {
        self.send(Msg::Key(key));
        self
    }

    fn keys(&mut self, keys: &str) -> &mut Self {
        for ch in keys.chars() {
            self.key(if ch == '\n' { Key::Enter } else { Key::Char(ch) });
        }
        self
    }

    /// So many seconds go by.
    fn later(&mut self, seconds: u64) -> &mut Self {
        let now = self.model.now.checked_add(Duration::from_secs(seconds)).unwrap();
        self.send(Msg::Now(now));
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.send(Msg::Paste { text: text.to_owned(), bracketed: false });
        self
    }

    fn picture(&self) -> String {
        let (width, height) = self.model.size;
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        paint(&self.model, area, &mut buf);
        let lines = buf.content.chunks(usize::from(width)).map(|row| {
            let line: String = row.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn shows(&self, text: &str) -> &Self {
        let picture = self.picture();
        assert!(picture.contains(text), "{text:?} is not on the screen:\n{picture}");
        self
    }
}

fn missing() -> ClientError {
    ClientError::local(ErrorKind::NotFound, "NOT_FOUND", "there is no such record", "", "")
}

fn token_for(agent: &str) -> EnrollAgentResponse {
    EnrollAgentResponse {
        token: "SECRET-TOKEN.PIN".into(),
        command: format!("certwright-agent enroll --controller ctl-1:8443 --token - # {agent}"),
        expires_at: fixtures::at(3_600),
        hint: String::new(),
    }
}

#[test]
fn renewing_asks_first_and_names_the_record_under_the_cursor() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jjr");
    let name = desk.model.certificates.current().unwrap().name.clone();
    desk.shows(&format!("renew {name}"));
    desk.key(Key::Enter);
    assert!(desk.sent.is_empty(), "Enter is Cancel");
    desk.keys("ry");
    assert!(
        matches!(desk.sent.as_slice(), [Call::Renew(request)] if request.name == name && !request.request_id.is_empty())
    );
}

#[test]
fn deleting_wants_the_name_typed_and_carries_the_choice_of_files() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2D\n");
    assert!(desk.sent.is_empty());
    desk.keys("shop.example.tes\n");
    assert!(desk.sent.is_empty(), "not the whole name");
    desk.key(Key::Tab).keys("t\n");
    assert!(
        matches!(desk.sent.as_slice(), [Call::Delete(request)] if request.name == "shop.example.test" && request.purge && request.expected_revision > 0)
    );
}

#[test]
fn the_kill_switch_wants_a_reason_and_then_stands_on_every_screen() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("P\n");
    assert!(desk.sent.is_empty(), "not without a reason");
    desk.shows("type a reason first");
    desk.keys("why y\n");
    assert!(
        matches!(desk.sent.as_slice(), [Call::Pause(request)] if request.paused && request.certificate.is_empty() && request.reason == "why y")
    );
    let pause = Pause { by: "local:ann".into(), reason: "why y".into(), all: true, ..Pause::default() };
    desk.send(Msg::Paused(Some(pause)));
    for place in ["1", "2", "3", "4"] {
        desk.keys(place).shows("PAUSED by local:ann: why y");
    }
    desk.keys("1P").shows("resume everything");
    desk.keys("y");
    assert!(matches!(desk.sent.as_slice(), [_, Call::Pause(request)] if !request.paused));
    desk.keys("2P");
    let name = desk.model.certificates.current().unwrap().name.clone();
    desk.keys("\n");
    assert!(
        matches!(desk.sent.as_slice(), [_, _, Call::Pause(request)] if request.paused && request.certificate == name)
    );
}

#[test]
fn a_paste_cannot_confirm_a_deletion() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2D");
    desk.send(Msg::Paste { text: "shop.example.test".into(), bracketed: true });
    desk.shows("typed, not pasted");
    desk.key(Key::Enter);
    assert!(desk.sent.is_empty());
}

#[test]
fn a_paste_outside_a_field_is_refused_and_a_command_line_is_taken() {
    let mut desk = Desk::connected(80, 24);
    desk.text("rm -rf");
    desk.shows("That was a paste (6 characters)");
    desk.text(":agents h").key(Key::Enter);
    assert_eq!(desk.model.place, Place::Agents);
    assert_eq!(desk.model.agents.filter, "h");
}

#[test]
fn losing_the_connection_keeps_the_screen_and_takes_nothing() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2D");
    desk.lose();
    assert!(desk.model.layers.is_empty(), "the question is closed");
    desk.shows("the question was closed");
    desk.keys("1");
    desk.shows("READ ONLY: the copy from 21:30:00Z");
    desk.keys("2");
    desk.shows("OFFLINE");
    desk.shows("READ ONLY: the copy from 21:30:00Z");
    desk.shows("shop.example.test");
    desk.keys("r");
    desk.shows("not now, the controller cannot be reached");
    desk.connect();
    desk.shows("connected again");
    desk.keys("ry");
    assert_eq!(desk.sent.len(), 1);
}

#[test]
fn a_viewer_changes_nothing() {
    let mut desk = Desk::new(80, 24);
    let who = WhoamiResponse { role: "viewer".into(), ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
    desk.keys("2rdDn");
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty() && desk.model.place == Place::Certificates);
    desk.shows("role viewer may only read");
}

#[test]
fn a_failed_wish_says_what_and_why_and_stays_in_the_messages() {
    let mut desk = Desk::connected(80, 24);
    desk.refusal = Some(ClientError::local(
        ErrorKind::Guarded,
        "RATE_LIMITED",
        "the CA's limit is used up",
        "50 of 50",
        "wait until 18:41Z",
    ));
    desk.keys("2ry");
    desk.shows("renew shop.example.test: the CA's limit is used up");
    desk.keys("jjM");
    desk.shows("50 of 50");
    desk.shows("wait until 18:41Z");
}

#[test]
fn the_filter_asks_when_typing_rests_and_escape_restores() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2/api");
    desk.send(Msg::Timer(Timer::Filter(2)));
    assert_eq!(desk.model.certificates.total, 42, "an older rest does not count");
    desk.send(Msg::Timer(Timer::Filter(3)));
    assert_eq!(desk.model.certificates.total, 1);
    desk.key(Key::Esc);
    assert_eq!(desk.model.certificates.total, 42);
    desk.keys("/zzz\n");
    desk.shows("0 match `zzz`");
    desk.keys("q");
    assert_eq!(desk.model.certificates.total, 42, "q clears the filter first");
}

#[test]
fn the_wizard_creates_what_it_shows() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2n").text("www.example.test, example.test").keys("\n\n\n");
    desk.shows("[2 Challenge]");
    desk.keys("\n\n\n\n");
    desk.shows("[3 Key & issuer]");
    desk.keys("\n\n\n\n\n\n\n");
    desk.shows("[4 Target]");
    desk.shows("/etc/nginx/ssl/www.example.test");
    desk.keys("\n\n\n\n\n\n\n");
    desk.keys(" \n \n\n\n\n");
    desk.shows("[5 Review]");
    desk.shows("on h1 in /etc/nginx/ssl/www.example.test/");
    desk.shows("fullchain.pem  0644  the agent's user  leaf and chain");
    desk.shows("certwright certs create www.example.test");
    desk.shows("the controller finds nothing wrong");
    assert!(matches!(desk.sent.as_slice(), [Call::Create(request)] if request.dry_run));
    desk.shows("t tests it first");
    desk.keys("t").shows("agent h2 is away");
    let Some(Call::TestTargets(tested)) = desk.sent.last().cloned() else { panic!("nothing was tested") };
    assert!(tested.create.is_some_and(|create| create.target.is_some() && create.dry_run));
    desk.key(Key::Esc).keys("\n");
    let Some(Call::Create(request)) = desk.sent.last().cloned() else { panic!("nothing was created") };
    assert!(!request.dry_run);
    assert_eq!(request.identifiers, ["www.example.test", "example.test"]);
    assert_eq!(request.issuer, "lab");
    let target = request.target.unwrap();
    assert_eq!((target.agent.as_str(), target.dir.as_str()), ("h1", "/etc/nginx/ssl/www.example.test"));
    assert_eq!(target.validate.first().unwrap().argv, ["/usr/bin/systemctl", "reload", "nginx"]);
    assert_eq!(target.reload.first().unwrap().argv, ["/usr/bin/systemctl", "reload", "nginx"]);
    assert_eq!(target.verify.first().unwrap().address, "127.0.0.1:443");
    assert_eq!(desk.model.place, Place::Certificate("www.example.test".into()));
}

#[test]
fn what_the_controller_refuses_stands_at_its_field() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2n").text("www.example.test").keys(&"\n".repeat(14));
    let mut error = ClientError::local(ErrorKind::Invalid, "INVALID", "1 field is wrong", "", "");
    error.fields = vec![FieldError {
        field: "target.dir".into(),
        message: "outside the policy of h1".into(),
        hint: "use /etc/nginx/ssl".into(),
    }];
    desk.refusal = Some(error);
    desk.keys("\n\n\n\n\n\n\n\n\n\n\n\n");
    desk.shows("[4 Target]");
    desk.shows("outside the policy of h1 (use /etc/nginx/ssl)");
}

#[test]
fn a_proposed_directory_follows_the_name_until_the_operator_writes_another() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2n").text("www.example.test").keys(&"\n".repeat(16));
    desk.shows("/etc/nginx/ssl/www.example.test");
    desk.key(Key::Ctrl('u')).text("/srv/tls");
    desk.shows("Directory     /srv/tls ");
    desk.send(Msg::Watched(9));
    desk.shows("Directory     /srv/tls ");
}

#[test]
fn a_draft_survives_leaving_the_wizard() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2n").text("www.example.test").key(Key::Esc);
    assert_eq!(desk.model.place, Place::Certificates);
    desk.keys("n");
    desk.shows("www.example.test");
}

#[test]
fn the_token_shows_once_and_the_screen_turns_into_the_agent() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("3n").text("web-07").keys("\n\n\n");
    desk.shows("SECRET-TOKEN.PIN");
    desk.shows("waiting for web-07");
    assert!(!format!("{:?}", desk.model).contains("SECRET-TOKEN"), "the token stays out of Debug");
    let appeared = proto::operator::v1::Agent { id: "new".into(), ..agent("web-07") };
    let cmds = update(&mut desk.model, Msg::Watched(77));
    let id = cmds.iter().find_map(|cmd| {
        if let Cmd::Call(id, Call::Agent(name)) = cmd { (name == "web-07").then_some(*id) } else { None }
    });
    desk.send(Msg::Reply { id: id.unwrap(), took: TOOK, result: Ok(Reply::Agent(Box::new(appeared))) });
    assert_eq!(desk.model.place, Place::Agent("web-07".into()));
    assert!(!desk.picture().contains("SECRET-TOKEN"));
    desk.shows("agent web-07 has enrolled");
}

#[test]
fn a_burst_of_changes_is_read_once_and_then_once_more() {
    let mut desk = Desk::connected(80, 24);
    let cmds = update(&mut desk.model, Msg::Watched(2));
    assert_eq!(cmds.iter().filter(|cmd| matches!(cmd, Cmd::Call(..))).count(), 1);
    for revision in 3..50 {
        assert!(update(&mut desk.model, Msg::Watched(revision)).is_empty());
    }
    let id = cmds.iter().find_map(|cmd| if let Cmd::Call(id, _) = cmd { Some(*id) } else { None });
    let reply = Msg::Reply { id: id.unwrap(), took: TOOK, result: Ok(Reply::Overview(Box::new(overview()))) };
    assert!(update(&mut desk.model, reply).is_empty(), "not before the gap is over");
    let cmds = update(&mut desk.model, Msg::Timer(Timer::Reread));
    assert_eq!(cmds.iter().filter(|cmd| matches!(cmd, Cmd::Call(..))).count(), 1);
}

#[test]
fn two_interrupts_quit_and_one_closes_the_layer() {
    let mut desk = Desk::connected(80, 24);
    desk.keys(":");
    desk.key(Key::Ctrl('c'));
    assert!(desk.model.layers.is_empty() && !desk.quit);
    desk.key(Key::Ctrl('c'));
    assert!(desk.quit);
}

#[test]
fn back_returns_to_where_the_record_was_opened_from_and_never_quits() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("3\n");
    assert_eq!(desk.model.place, Place::Agent("h1".into()));
    desk.keys("q");
    assert_eq!(desk.model.place, Place::Agents);
    desk.keys("qqqqqq");
    assert_eq!(desk.model.place, Place::Overview);
    assert!(!desk.quit);
    desk.keys("Q");
    assert!(desk.quit);
}

/// The places, each with the keys that lead there.
pub(crate) fn tours() -> Vec<(&'static str, Desk)> {
    let at = |keys: &str, text: &str, more: &str| {
        let mut desk = Desk::connected(80, 24);
        desk.keys(keys);
        if !text.is_empty() {
            desk.text(text);
        }
        desk.keys(more);
        desk
    };
    let mut tours = vec![
        ("overview", at("", "", "")),
        ("certificates", at("2", "", "")),
        ("certificate", at("2\n", "", "")),
        ("certificate_issuing", at("2j\n", "", "")),
        ("certificate_targets", at("2\nl", "", "")),
        ("certificate_activity", at("2\nll", "", "")),
        ("certificate_history", at("2\nlll", "", "")),
        ("certificate_settings", at("2\nllll", "", "")),
        ("agents", at("3", "", "")),
        ("agent", at("3\n", "", "")),
        ("agent_policy", at("3\nll", "", "")),
        ("jobs", at("4", "", "")),
        ("job", at("4jj\n", "", "")),
        ("dialog_cancel_job", at("4jj\nc", "", "")),
        ("dialog_renew_marked", at("2   r", "", "")),
        ("dialog_rekey_all", at("2*K", "", "")),
        ("dialog_revoke_marked", at("2   V", "", "")),
        ("issuers", at("0", "", "")),
        ("issuer_account", at("0j\n", "", "")),
        ("issuer_directory", at("0j\nl", "", "")),
        ("issuer_limits", at("0\nll", "", "")),
        ("sheet_issuer_new", at("0n", "", "")),
        ("sheet_issuer", at("0je", "", "")),
        ("sheet_limits", at("0\nlle", "", "")),
        ("sheet_certificate", at("2\ne", "", "\n\n ")),
        ("dialog_rollover", at("0K", "", "")),
        ("dialog_remove_issuer", at("0jD", "", "")),
        ("wizard_names", at("2n", "www.example.test", "")),
        ("wizard_challenge", at("2n", "www.example.test", "\n\n\n")),
        ("wizard_key", at("2n", "www.example.test", "\n\n\n\n\n\n\n")),
        ("wizard_target", at("2n", "www.example.test", &"\n".repeat(14))),
        ("wizard_review", at("2n", "www.example.test", &"\n".repeat(26))),
        ("enroll", at("3n", "web-07", "")),
        ("enroll_command", at("3n", "web-07", "\n\n\n")),
        ("team", at("9", "", "")),
        ("restore", at("gr", "", "")),
        ("dialog_accept", at("grA", "", "ctl-")),
        ("identity_ca", at("gk", "", "")),
        ("dialog_prepare", steady_ca()),
        ("dialog_retire", ready_ca()),
        ("audit", at("8", "", "")),
        ("audit_act", at("8jj\n", "", "")),
        ("audit_filter", at("8/", "since:2026-11-21 web", "")),
        ("dialog_role", at("9je", "", "")),
        ("dialog_remove_operator", at("9jD", "", "")),
        ("invite", at("9n", "", "\ndave")),
        ("invite_here", at("9n", "", " \ndave\n  ")),
        ("invite_command", at("9n", "", "\ndave\n\n\n")),
        ("invite_added", at("9n", "", " \ndave\n\n\n")),
        ("dialog_renew", at("2r", "", "")),
        ("dialog_delete", at("2D", "", "shop")),
        ("dialog_revoke", at("3D", "", "")),
        ("dialog_revoke_version", at("2V", "", "shop")),
        ("palette", at("2:", "", "re")),
        ("filter", at("2/", "", "api")),
        ("help", at("2?", "", "")),
        ("go", at("2g", "", "")),
    ];
    tours.extend(backup::tour());
    tours
}

#[test]
fn every_screen_looks_as_reviewed() {
    for (name, mut desk) in tours() {
        for (width, height) in [(80, 24), (140, 40)] {
            desk.send(Msg::Resize(width, height));
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), desk.picture());
        }
    }
}

#[test]
fn empty_offline_and_ascii_look_as_reviewed() {
    let mut desk = Desk::connected(80, 24);
    desk.model.overview.counts = Some(proto::operator::v1::GetOverviewResponse::default());
    desk.model.overview.attention = crate::app::list::List::default();
    insta::assert_snapshot!("empty_overview", desk.picture());
    desk.certificates.clear();
    desk.keys("2");
    insta::assert_snapshot!("empty_certificates", desk.picture());
    let mut desk = Desk::connected(80, 24);
    desk.keys("2");
    desk.lose();
    insta::assert_snapshot!("offline_certificates", desk.picture());
    let mut desk = Desk::connected(80, 24);
    desk.model.theme = Theme { color: false, ascii: true };
    desk.keys("2");
    insta::assert_snapshot!("ascii_certificates", desk.picture());
    assert!(desk.picture().is_ascii());
    desk.keys("\n");
    assert!(desk.picture().is_ascii(), "{}", desk.picture());
    desk.send(Msg::Resize(60, 16));
    insta::assert_snapshot!("compact_certificate", desk.picture());
    desk.send(Msg::Resize(59, 16));
    desk.shows("certwright needs 60x16, this is 59x16");
}

#[test]
fn every_screen_paints_at_every_size() {
    for (_, mut desk) in tours() {
        for width in [1, 59, 60, 79, 80, 119, 140] {
            for height in [1, 15, 16, 17, 20, 24, 33, 40] {
                desk.send(Msg::Resize(width, height));
                desk.picture();
            }
        }
    }
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        8 => prop::sample::select("jkGgocartnDdrqsR:/?M-.,012345689hl[]py <>bVKeu".chars().map(Key::Char).collect::<Vec<_>>()),
        2 => prop::sample::select(vec![
            Key::Enter, Key::Esc, Key::Tab, Key::BackTab, Key::Up, Key::Down, Key::Left, Key::Right, Key::Home, Key::End,
            Key::PageUp, Key::PageDown, Key::Backspace, Key::Delete, Key::Ctrl('c'), Key::Ctrl('u'), Key::F(1),
        ]),
        1 => any::<char>().prop_map(Key::Char),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Key(Key),
    Paste(String, bool),
    Resize(u16, u16),
    Watched(u64),
    Lost,
    Connected,
    Shuffle(usize),
    Vanish(usize),
    Tick,
    Later(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_key().prop_map(Step::Key),
        1 => (".{0,20}", any::<bool>()).prop_map(|(text, bracketed)| Step::Paste(text, bracketed)),
        1 => (1_u16..160, 1_u16..50).prop_map(|(width, height)| Step::Resize(width, height)),
        2 => (1_u64..1_000).prop_map(Step::Watched),
        1 => Just(Step::Lost),
        2 => Just(Step::Connected),
        1 => (0_usize..42).prop_map(Step::Shuffle),
        1 => (0_usize..42).prop_map(Step::Vanish),
        1 => Just(Step::Tick),
        1 => (0_i64..60).prop_map(Step::Later),
    ]
}

fn take(desk: &mut Desk, step: Step) {
    match step {
        Step::Key(key) => drop(desk.key(key)),
        Step::Paste(text, bracketed) => desk.send(Msg::Paste { text, bracketed }),
        Step::Resize(width, height) => desk.send(Msg::Resize(width, height)),
        Step::Watched(revision) => desk.send(Msg::Watched(revision)),
        Step::Lost => desk.lose(),
        Step::Connected => desk.connect(),
        Step::Shuffle(by) => {
            let by = by.min(desk.certificates.len());
            desk.certificates.rotate_left(by);
        }
        Step::Vanish(at) => {
            if at < desk.certificates.len() {
                desk.certificates.remove(at);
            }
        }
        Step::Tick => desk.send(Msg::Timer(Timer::Tick)),
        Step::Later(seconds) => {
            desk.later(seconds.unsigned_abs());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_sequence_of_events_panics(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut desk = Desk::connected(80, 24);
        for step in steps {
            take(&mut desk, step);
            desk.picture();
        }
    }

    #[test]
    fn what_is_acted_on_is_what_stands_under_the_cursor(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut desk = Desk::connected(100, 30);
        for step in steps {
            take(&mut desk, step);
        }
        desk.model.layers.clear();
        desk.model.prefix = None;
        // With marks it is they that are acted on: `tests/many`.
        desk.model.marks = crate::app::many::Marks::default();
        desk.connect();
        desk.send(Msg::Resize(100, 30));
        desk.keys("2");
        let picture = desk.picture();
        let row = picture.lines().find(|line| line.starts_with('>')).map(str::to_owned);
        desk.keys("r");
        if let Some(Layer::Confirm(confirm)) = desk.model.layers.last() {
            let row = row.unwrap_or_default();
            let Call::Renew(request) = &confirm.call else { panic!("r asks for {:?}", confirm.call) };
            prop_assert!(row.contains(&request.name), "acts on {} but shows {row}", request.name);
        }
    }
}
