//! The places of the dashboard: what each reads, what `Enter` opens, and how it is painted. One file per screen.
//! Nothing here sends anything or asks the time. Called by `app` and `view`.

pub(crate) mod add_certificate;
pub(crate) mod agent;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod certificate;
pub(crate) mod certificates;
pub(crate) mod enroll;
pub(crate) mod identity_ca;
pub(crate) mod invite;
pub(crate) mod issuer;
pub(crate) mod issuers;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod layers;
pub(crate) mod overview;
pub(crate) mod restore;
pub(crate) mod sheet;
pub(crate) mod team;
pub(crate) mod words;

use jiff::Timestamp;
use proto::operator::v1::{AddTargetRequest, Agent, Certificate, Issuer, Job, Target, Version};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use crate::app::call::{Call, Trust};
use crate::app::layer::Layer;
use crate::app::list::{List, Record};
use crate::app::{Cmd, Model, act};
use crate::client::suggestion_lines;
use crate::keys::{Context, Key};
use crate::screens::add_certificate::Wizard;
use crate::screens::enroll::Enroll;
use crate::screens::invite::Invite;
use crate::theme::State;
use crate::view;

/// Where the operator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Counts and what needs attention.
    Overview,
    /// All certificates.
    Certificates,
    /// One certificate, by name.
    Certificate(String),
    /// All agents.
    Agents,
    /// One agent, by name.
    Agent(String),
    /// Running and last jobs.
    Jobs,
    /// One act on many, by id.
    Job(String),
    /// All issuers.
    Issuers,
    /// One issuer, by name.
    Issuer(String),
    /// The wizard.
    AddCertificate,
    /// A new agent.
    Enroll,
    /// The form that is open.
    Sheet,
    /// Operators and invitations.
    Team,
    /// A new operator.
    Invite,
    /// Who did what.
    Audit,
    /// One act, by the number of the line that asked for it.
    Act(u64),
    /// How a restore stands.
    Restore,
    /// The identity CA.
    IdentityCa,
    /// A backup.
    Backup,
}

impl Place {
    /// Returns where `back` leads when nothing else is known.
    pub(crate) fn parent(&self) -> Self {
        match self {
            Self::Certificate(_) | Self::AddCertificate => Self::Certificates,
            Self::Agent(_) | Self::Enroll | Self::IdentityCa => Self::Agents,
            Self::Issuer(_) | Self::Sheet => Self::Issuers,
            Self::Job(_) => Self::Jobs,
            Self::Invite => Self::Team,
            Self::Act(_) => Self::Audit,
            Self::Overview
            | Self::Certificates
            | Self::Agents
            | Self::Jobs
            | Self::Issuers
            | Self::Team
            | Self::Audit
            | Self::Restore
            | Self::Backup => Self::Overview,
        }
    }
}

/// Something with a cursor that steps.
pub(crate) trait Steps {
    /// Moves by so many rows, as far as there are rows.
    fn step(&mut self, rows: isize, now: Timestamp);
    /// Moves to the next or previous row that needs someone.
    fn problem(&mut self, forward: bool, now: Timestamp) -> bool;
}

impl<T: Record> Steps for List<T> {
    fn step(&mut self, rows: isize, now: Timestamp) {
        self.move_by(rows, now);
    }

    fn problem(&mut self, forward: bool, now: Timestamp) -> bool {
        self.move_to_problem(forward, now)
    }
}

impl Steps for usize {
    fn step(&mut self, rows: isize, _: Timestamp) {
        *self = self.saturating_add_signed(rows);
    }

    fn problem(&mut self, _: bool, _: Timestamp) -> bool {
        false
    }
}

/// Returns what the place's keys for rows move.
pub(crate) fn steps(model: &mut Model) -> Option<&mut dyn Steps> {
    Some(match &model.place {
        Place::Overview => &mut model.overview.attention,
        Place::Certificates => &mut model.certificates,
        Place::Certificate(_) => &mut model.certificate.cursor,
        Place::Agents => &mut model.agents,
        Place::Agent(_) => &mut model.agent.cursor,
        Place::Jobs => &mut model.jobs,
        Place::Job(_) => &mut model.job.subs,
        Place::Issuers => &mut model.issuers,
        Place::Issuer(_) => &mut model.issuer.cursor,
        Place::Team => &mut model.team,
        Place::Audit => &mut model.audit.list,
        Place::Act(_) => &mut model.audit.scroll,
        Place::Restore => &mut model.restore.scroll,
        Place::IdentityCa => &mut model.identity_ca.peers,
        Place::AddCertificate | Place::Enroll | Place::Sheet | Place::Invite | Place::Backup => return None,
    })
}

/// Returns how many rows one page is.
pub(crate) fn page_rows(model: &Model) -> usize {
    match &model.place {
        Place::Overview => overview::rows(model),
        Place::Certificates => certificates::rows(model),
        Place::Agents => agents::rows(model),
        Place::Jobs => jobs::rows(model),
        Place::Job(_) => job::rows(model),
        Place::Issuers => issuers::rows(model),
        Place::Team => team::rows(model),
        Place::Audit => audit::rows(model),
        Place::IdentityCa => identity_ca::rows(model),
        Place::Certificate(_)
        | Place::Agent(_)
        | Place::Issuer(_)
        | Place::AddCertificate
        | Place::Enroll
        | Place::Invite
        | Place::Act(_)
        | Place::Restore
        | Place::Backup
        | Place::Sheet => usize::from(view::body_height(model)).saturating_sub(4),
    }
}

/// Returns what the place has to read.
pub(crate) fn reads(model: &Model) -> Vec<Call> {
    match &model.place {
        Place::Overview | Place::Backup => vec![Call::Overview],
        Place::Certificates => vec![Call::Certificates {
            filter: model.certificates.filter.clone(),
            sort: model.sort,
            rows: model.certificates.rows_wanted(),
        }],
        Place::Certificate(name) => model.certificate.reads(name),
        Place::Agents => {
            vec![Call::Agents { filter: model.agents.filter.clone(), rows: model.agents.rows_wanted() }]
        }
        Place::Agent(name) => {
            let events = Call::Events { certificate: String::new(), agent: name.clone() };
            let detected = model.agent.shows_detected().then(|| Call::Detected(name.clone()));
            [Call::Agent(name.clone()), events].into_iter().chain(detected).collect()
        }
        Place::Jobs => vec![Call::Jobs],
        Place::Job(id) => vec![Call::Job(id.clone()), Call::SubJobs(id.clone())],
        Place::Issuers => vec![Call::Issuers],
        Place::Issuer(name) => vec![Call::Issuer(name.clone()), Call::Limits(name.clone())],
        Place::AddCertificate => {
            vec![Call::Issuers, Call::Agents { filter: String::new(), rows: crate::app::list::ROWS_MAX }]
        }
        Place::Sheet => vec![Call::Issuers],
        Place::Audit | Place::Act(_) => audit::reads(model),
        Place::Team => vec![Call::Operators],
        Place::Restore => vec![Call::Trust(Trust::Restore)],
        Place::IdentityCa => {
            vec![
                Call::Trust(Trust::IdentityCa),
                Call::Agents { filter: String::new(), rows: crate::app::list::PAGE_ROWS },
            ]
        }
        Place::Invite if model.invite.as_ref().is_some_and(|invite| invite.answer.is_some()) => vec![Call::Operators],
        Place::Invite => Vec::new(),
        Place::Enroll => model.enroll.iter().filter_map(Enroll::awaits).map(Call::Agent).collect(),
    }
}

/// Prepares a place that was just entered: nothing of another record may show.
pub(crate) fn entered(model: &mut Model) {
    // What is shown once is forgotten wherever one goes, and `-` does not bring it back.
    if model.place != Place::Enroll {
        model.enroll = None;
    } else if model.enroll.is_none() {
        model.place = Place::Agents;
    }
    if model.place != Place::Invite {
        model.invite = None;
    } else if model.invite.is_none() {
        model.place = Place::Team;
    }
    forget_backup(model);
    match &model.place {
        Place::Certificate(name) => model.certificate.open(name),
        Place::Agent(name) => model.agent.open(name),
        Place::Certificates => model.certificates.refresh(),
        Place::Agents => model.agents.refresh(),
        Place::Jobs => model.jobs.refresh(),
        Place::Job(id) => model.job.open(id),
        Place::Issuers => model.issuers.refresh(),
        Place::Issuer(name) => model.issuer.open(name),
        Place::Overview => model.overview.attention.refresh(),
        Place::Audit => model.audit.refresh(),
        Place::Act(seq) => model.audit.open(*seq),
        Place::Team => model.team.refresh(),
        Place::Restore => model.restore = restore::RestoreScreen::default(),
        Place::IdentityCa => model.identity_ca.peers.refresh(),
        Place::AddCertificate | Place::Enroll | Place::Sheet | Place::Invite | Place::Backup => {}
    }
}

/// A passphrase that was typed is forgotten wherever one goes; a backup on its way goes on.
pub(crate) fn forget_backup(model: &mut Model) {
    if model.place != Place::Backup {
        model.backup.take_if(|backup| !backup.runs());
    } else if model.backup.is_none() {
        model.place = Place::Overview;
    }
}

/// Keeps cursors inside their windows.
pub(crate) fn settle(model: &mut Model) {
    let heights = (overview::rows(model), certificates::rows(model), agents::rows(model), jobs::rows(model));
    model.overview.attention.settle(heights.0);
    model.certificates.settle(heights.1);
    model.agents.settle(heights.2);
    model.jobs.settle(heights.3);
    let job_height = job::rows(model);
    model.job.subs.settle(job_height);
    let issuers_height = issuers::rows(model);
    model.issuers.settle(issuers_height);
    let audit_height = audit::rows(model);
    model.audit.list.settle(audit_height);
    model.audit.scroll = model.audit.scroll.min(audit::act_lines(model).len().saturating_sub(1));
    let team_height = team::rows(model);
    model.team.settle(team_height);
    model.restore.scroll = model.restore.scroll.min(restore::lines(model).len().saturating_sub(1));
    let peers_height = identity_ca::rows(model);
    model.identity_ca.peers.settle(peers_height);
    let issuer_max = issuer::cursor_max(model);
    model.issuer.cursor = model.issuer.cursor.min(issuer_max);
    let certificate_max = certificate::cursor_max(model);
    model.certificate.cursor = model.certificate.cursor.min(certificate_max);
    let agent_max = agent::cursor_max(model);
    model.agent.cursor = model.agent.cursor.min(agent_max);
    let lines_max = layers::lines(model).saturating_sub(1);
    act::clamp_layers(model, lines_max);
}

/// Whether the list that shows needs rows that were not read.
pub(crate) fn wants_more(model: &Model) -> bool {
    match &model.place {
        Place::Certificates => model.certificates.wants_more(),
        Place::Agents => model.agents.wants_more(),
        Place::Audit => model.audit.list.wants_more() && !audit::reads(model).is_empty(),
        _ => false,
    }
}

/// Returns the place that `Enter` opens.
pub(crate) fn target(model: &Model) -> Option<Place> {
    match &model.place {
        Place::Overview => model.overview.attention.current().and_then(overview::AttentionRow::place),
        Place::Certificates => model.certificates.current().map(|record| Place::Certificate(record.name.clone())),
        Place::Agents => model.agents.current().map(|record| Place::Agent(record.name.clone())),
        Place::Agent(_) => model.agent.target(),
        Place::Jobs => model.jobs.current().map(|job| match &job.batch {
            Some(_) => Place::Job(job.id.clone()),
            None => Place::Certificate(job.certificate.clone()),
        }),
        Place::Job(_) => model.job.subs.current().map(|job| Place::Certificate(job.certificate.clone())),
        Place::Issuers => model.issuers.current().map(|record| Place::Issuer(record.name.clone())),
        Place::Audit => audit::seq_here(model).map(Place::Act),
        Place::IdentityCa => model.identity_ca.target(),
        Place::Certificate(_)
        | Place::Issuer(_)
        | Place::AddCertificate
        | Place::Enroll
        | Place::Sheet
        | Place::Team
        | Place::Act(_)
        | Place::Restore
        | Place::Backup
        | Place::Invite => None,
    }
}

/// Returns the certificate that actions are about.
pub(crate) fn certificate_here(model: &Model) -> Option<Certificate> {
    match &model.place {
        Place::Certificates => model.certificates.current().cloned(),
        Place::Certificate(_) => model.certificate.record.clone().filter(|_| !model.certificate.missing),
        _ => None,
    }
}

/// Returns the version under the cursor of the history, when deploying it is another thing than deploying what the targets
/// hold.
pub(crate) fn version_to_deploy(model: &Model) -> Option<Version> {
    let record = certificate_here(model)?;
    let version = matches!(model.place, Place::Certificate(_)).then(|| model.certificate.version_listed()).flatten()?;
    (!version.current || record.rollback.is_some()).then_some(version)
}

/// Returns the target under the cursor with its certificate, while targets show.
pub(crate) fn target_here(model: &Model) -> Option<(Certificate, Target)> {
    matches!(model.place, Place::Certificate(_)).then(|| model.certificate.target_here()).flatten()
}

/// Returns the version that a revocation is about: the one under the cursor of the history, else the current one.
pub(crate) fn version_here(model: &Model) -> Option<Version> {
    match &model.place {
        Place::Certificate(_) if !model.certificate.missing => model.certificate.version(),
        _ => certificate_here(model)?.current,
    }
}

/// Returns the agent of the target that actions are about, on a certificate's targets tab.
pub(crate) fn target_agent(model: &Model) -> Option<String> {
    matches!(model.place, Place::Certificate(_)).then(|| model.certificate.target_agent()).flatten()
}

/// Returns the agent that actions are about.
pub(crate) fn agent_here(model: &Model) -> Option<Agent> {
    match &model.place {
        Place::Agents => model.agents.current().cloned(),
        Place::Agent(_) => model.agent.record.clone().filter(|_| !model.agent.missing),
        _ => None,
    }
}

/// Returns the job that actions are about.
pub(crate) fn job_here(model: &Model) -> Option<Job> {
    match &model.place {
        Place::Jobs => model.jobs.current().cloned(),
        Place::Job(_) => model.job.record.clone().filter(|_| !model.job.missing),
        _ => None,
    }
}

/// Returns the issuer that actions are about.
pub(crate) fn issuer_here(model: &Model) -> Option<Issuer> {
    match &model.place {
        Place::Issuers => model.issuers.current().cloned(),
        Place::Issuer(_) => model.issuer.record.clone().filter(|_| !model.issuer.missing),
        _ => None,
    }
}

/// Returns the command that stands on the screen to be run elsewhere. It never holds a secret.
pub(crate) fn command_here(model: &Model) -> Option<String> {
    match &model.place {
        Place::Audit => Some(audit::export_command(model)),
        Place::Enroll => Some(model.enroll.as_ref()?.token.as_ref()?.response.command.clone()),
        Place::Invite => model.invite.as_ref()?.command_to_hand_over(),
        Place::Backup => model.backup.as_ref()?.check_command(),
        _ => None,
    }
}

/// `n`: a new record of the kind that shows.
pub(crate) fn new_record(model: &mut Model) -> Vec<Cmd> {
    if matches!(model.place, Place::Agents) {
        model.enroll = Some(Enroll::new());
        return model.go(Place::Enroll, false);
    }
    if matches!(model.place, Place::Team) {
        model.invite = Some(Invite::new());
        return model.go(Place::Invite, false);
    }
    if matches!(model.place, Place::Issuers) {
        return sheet::new_issuer(model);
    }
    if let Some(wizard) = &mut model.wizard {
        wizard.resume();
        model.notices.say(model.now, State::Idle, "your draft is back; Ctrl-u clears a field");
    } else {
        model.wizard = Some(Wizard::new());
    }
    model.go(Place::AddCertificate, true)
}

/// `Enter` on a suggestion: a draft of what it would make, or a question for what it would add.
pub(crate) fn open_suggestion(model: &mut Model) -> Option<Vec<Cmd>> {
    if !matches!(model.place, Place::Agent(_)) {
        return None;
    }
    let (one, record) = (model.agent.suggestion()?.clone(), model.agent.record.clone()?);
    Some(match one.kind.as_str() {
        "present" => model.go(Place::Certificate(one.certificate), true),
        "target" => {
            let lines = suggestion_lines(&one).iter().map(|line| line.text().to_owned()).collect();
            let request = AddTargetRequest {
                certificate: one.certificate.clone(),
                target: one.target,
                request_id: model.wish_id(),
                dry_run: false,
                ..Default::default()
            };
            let title = format!("add a target to {}", one.certificate);
            let confirm = act::question(title, lines, "add it", Call::AddTarget(Box::new(request)));
            model.layers.push(Layer::Confirm(Box::new(confirm)));
            Vec::new()
        }
        _ => {
            model.wizard = Some(Wizard::suggested(&one, &record));
            model.go(Place::AddCertificate, true)
        }
    })
}

/// `Esc` in the wizard: one step back, and from the first step out; the draft is kept.
pub(crate) fn wizard_back(model: &mut Model) -> Vec<Cmd> {
    if model.wizard.as_mut().is_some_and(Wizard::step_back) {
        return Vec::new();
    }
    if model.wizard.as_ref().is_some_and(Wizard::is_untouched) {
        model.wizard = None;
    } else {
        model.notices.say(model.now, State::Idle, "the draft is kept: n brings it back");
    }
    model.go_back()
}

/// Gives a key to the form that shows; `None` when it is not for forms.
pub(crate) fn form_key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    if model.context() != Context::Form {
        return None;
    }
    match model.place {
        Place::AddCertificate => add_certificate::key(model, key),
        Place::Enroll => enroll::key(model, key),
        Place::Invite => invite::key(model, key),
        Place::Backup => backup::key(model, key),
        Place::Sheet => sheet::key(model, key),
        _ => None,
    }
}

/// Gives text to the form that shows; `None` when no form shows.
pub(crate) fn form_insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    if model.context() != Context::Form {
        return None;
    }
    match model.place {
        Place::AddCertificate => add_certificate::insert(model, text),
        Place::Enroll => enroll::insert(model, text),
        Place::Invite => invite::insert(model, text),
        Place::Backup => backup::insert(model, text),
        Place::Sheet => sheet::insert(model, text),
        _ => None,
    }
}

/// Paints the place; returns where the cursor belongs.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    match &model.place {
        Place::Overview => overview::paint(model, area, buf),
        Place::Certificates => certificates::paint(model, area, buf),
        Place::Certificate(_) => certificate::paint(model, area, buf),
        Place::Agents => agents::paint(model, area, buf),
        Place::Agent(_) => agent::paint(model, area, buf),
        Place::Jobs => jobs::paint(model, area, buf),
        Place::Job(_) => job::paint(model, area, buf),
        Place::Issuers => issuers::paint(model, area, buf),
        Place::Issuer(_) => issuer::paint(model, area, buf),
        Place::AddCertificate => add_certificate::paint(model, area, buf),
        Place::Enroll => enroll::paint(model, area, buf),
        Place::Team => team::paint(model, area, buf),
        Place::Audit => audit::paint(model, area, buf),
        Place::Act(seq) => {
            audit::paint_act(model, *seq, area, buf);
            None
        }
        Place::Restore => {
            restore::paint(model, area, buf);
            None
        }
        Place::IdentityCa => identity_ca::paint(model, area, buf),
        Place::Invite => invite::paint(model, area, buf),
        Place::Backup => backup::paint(model, area, buf),
        Place::Sheet => sheet::paint(model, area, buf),
    }
}

/// Returns what the status line says at its left when there is no message, and at its right.
pub(crate) fn status(model: &Model) -> (String, String) {
    match &model.place {
        Place::Overview => overview::status(model),
        Place::Certificates => (certificates::status(model), model.certificates.position()),
        Place::Certificate(_) => certificate::status(model),
        Place::Agents => (agents::status(model), model.agents.position()),
        Place::Agent(_) => agent::status(model),
        Place::Issuers => (issuers::status(model), model.issuers.position()),
        Place::Issuer(_) => issuer::status(model),
        Place::Jobs => (jobs::status(model), model.jobs.position()),
        Place::Job(_) => job::status(model),
        Place::AddCertificate => add_certificate::status(model),
        Place::Enroll => enroll::status(model),
        Place::Audit => audit::status(model),
        Place::Act(_) => ("everything that was written of it".to_owned(), String::new()),
        Place::Team => (team::status(model), model.team.position()),
        Place::Restore => restore::status(model),
        Place::IdentityCa => identity_ca::status(model),
        Place::Invite => invite::status(model),
        Place::Backup => backup::status(model),
        Place::Sheet => sheet::status(model),
    }
}
