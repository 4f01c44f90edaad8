//! What keys do: text goes into the field or prompt that has the focus, everything else is looked up in the key table.
//! Nothing that changes anything is sent from here without a question, except from the end of a form. Called by
//! `app::update`.

use std::time::Duration;

use proto::clock::from_wire;
use proto::operator::v1::{
    Certificate, DeleteCertificateRequest, DeployCertificateRequest, RenewCertificateRequest, RevokeCertificateRequest,
    SetOperatorRoleRequest, SetPauseRequest, TestTargetsRequest, Version,
};
use tui_input::Input;

use crate::app::call::Call;
use crate::app::layer::{self, Choice, Confirm, Filter, Layer, Note, PURGES, Palette, REASONS};
use crate::app::many::{self, Marks, are_meant};
use crate::app::{Cmd, Model, Prefix, Timer, off, refuse, trust};
use crate::keys::{self, Action, Context, GO, Key};
use crate::screens::backup::BackupScreen;
use crate::screens::team::{Member, ROLES, member_here};
use crate::screens::{self, Place};
use crate::theme::State;
use crate::widgets::text::instant;

/// Two `Ctrl-c` within this time quit.
const INTERRUPT_WINDOW: Duration = Duration::from_secs(1);

/// Handles a key.
pub(crate) fn key(model: &mut Model, key: Key) -> Vec<Cmd> {
    model.notices.went_on(key == Key::Esc);
    if let Some(prefix) = model.prefix.take() {
        return second_key(model, prefix, key);
    }
    if !model.layers.is_empty() {
        if let Some(cmds) = layer::key(model, key) {
            return cmds;
        }
    } else if let Some(cmds) = screens::form_key(model, key) {
        return cmds;
    }
    match keys::action(model.context(), key) {
        Some(action) => act(model, action),
        None => Vec::new(),
    }
}

/// Handles text that came at once.
pub(crate) fn paste(model: &mut Model, text: &str, bracketed: bool) -> Vec<Cmd> {
    model.prefix = None;
    if let Some(cmds) = layer::insert(model, text, bracketed) {
        return cmds;
    }
    if model.layers.is_empty() {
        if let Some(cmds) = screens::form_insert(model, text) {
            return cmds;
        }
        let context = model.context();
        for (prompt, action) in [(':', Action::Palette), ('/', Action::Filter)] {
            if let Some(rest) = text.strip_prefix(prompt)
                && keys::binding(context, action).is_some()
            {
                let mut cmds = act(model, action);
                cmds.extend(layer::insert(model, rest, bracketed).unwrap_or_default());
                return cmds;
            }
        }
    }
    let count = text.chars().count();
    model.notices.say(model.now, State::Warn, format!("That was a paste ({count} characters). Press / or : first."));
    Vec::new()
}

fn second_key(model: &mut Model, prefix: Prefix, key: Key) -> Vec<Cmd> {
    let Some(typed) = key.typed() else { return Vec::new() };
    match prefix {
        Prefix::Go => match GO.iter().find(|(ch, _, _)| *ch == typed) {
            Some((_, action, _)) => act(model, *action),
            None => Vec::new(),
        },
        Prefix::Sort => {
            let Some((_, sort)) = screens::certificates::SORTS.iter().find(|(ch, _)| *ch == typed) else {
                return Vec::new();
            };
            model.sort = sort;
            model.certificates.refresh();
            model.read()
        }
    }
}

/// Does an action of the key table.
pub(crate) fn act(model: &mut Model, action: Action) -> Vec<Cmd> {
    if let Some(why) = keys::binding(model.context(), action).and_then(|row| off::why(model, row)) {
        refuse(model, action, &why);
        return Vec::new();
    }
    match action {
        Action::MoveDown => step(model, 1),
        Action::MoveUp => step(model, -1),
        Action::PageDown => page(model, 1),
        Action::PageUp => page(model, -1),
        Action::Top => step(model, isize::MIN / 2),
        Action::Bottom => step(model, isize::MAX / 2),
        Action::NextProblem => problem(model, true),
        Action::PrevProblem => problem(model, false),
        Action::Open => open(model),
        Action::Back => back(model),
        Action::TabNext => tab(model, true),
        Action::TabPrev => tab(model, false),
        Action::GoOverview => model.go(Place::Overview, false),
        Action::GoCertificates => model.go(Place::Certificates, false),
        Action::GoAgents => model.go(Place::Agents, false),
        Action::GoJobs => model.go(Place::Jobs, false),
        Action::GoIssuers => model.go(Place::Issuers, false),
        Action::GoTeam => model.go(Place::Team, false),
        Action::GoAudit => model.go(Place::Audit, false),
        Action::GoRestore => model.go(Place::Restore, true),
        Action::GoIdentityCa => model.go(Place::IdentityCa, true),
        Action::GoLast => model.last.clone().map_or_else(Vec::new, |place| model.go(place, false)),
        Action::GoMenu => prefix(model, Prefix::Go),
        Action::Sort => prefix(model, Prefix::Sort),
        Action::Palette => push(model, Layer::Palette(Palette::default())),
        Action::Filter => layer::open_filter(model),
        Action::Help => push(model, Layer::Help(0)),
        Action::Messages => push(model, Layer::Messages(0)),
        Action::Refresh => refresh(model),
        Action::Preview => preview(model),
        Action::New => screens::new_record(model),
        Action::Test => test(model),
        Action::Challenges => check_challenges(model),
        Action::Edit => edit(model),
        Action::Copy => copy(model),
        Action::Backup => screens::backup::open(model),
        Action::Mark => mark(model),
        Action::MarkAll => many::mark_all(model),
        Action::Run if are_meant(model) => many::rehearse(model, "renew"),
        Action::RevokeVersion if are_meant(model) => many::rehearse(model, many::REVOKE),
        Action::Rekey => many::rehearse(model, "rekey"),
        Action::Run if matches!(model.place, Place::Jobs | Place::Job(_)) => retry(model),
        Action::Run
        | Action::Cancel
        | Action::Deploy
        | Action::Delete
        | Action::RevokeVersion
        | Action::Consent
        | Action::Rollover
        | Action::Pause
        | Action::Accept
        | Action::CaPrepare
        | Action::CaActivate
        | Action::CaRetire
        | Action::CaAbort => ask(model, action),
        Action::Yes => layer::yes(model),
        Action::Quit => quit(model),
        Action::Redraw => vec![Cmd::Repaint],
        Action::Suspend => vec![Cmd::Suspend],
        Action::Interrupt => interrupt(model),
        Action::FieldNext | Action::FieldPrev | Action::Toggle | Action::Continue => Vec::new(),
    }
}

fn preview(model: &mut Model) -> Vec<Cmd> {
    model.preview = !model.preview;
    Vec::new()
}

/// `r` on a job.
fn retry(model: &mut Model) -> Vec<Cmd> {
    screens::job_here(model).map_or_else(Vec::new, |job| many::rehearse_retry(model, job.id))
}

fn copy(model: &mut Model) -> Vec<Cmd> {
    let Some(command) = screens::command_here(model) else { return Vec::new() };
    let text = "sent to the terminal's clipboard; if it refuses, select the command";
    model.notices.say(model.now, State::Ok, text);
    vec![Cmd::Copy(command)]
}

fn edit(model: &mut Model) -> Vec<Cmd> {
    if model.context() == Context::Team { ask(model, Action::Edit) } else { screens::sheet::edit(model) }
}

fn push(model: &mut Model, layer: Layer) -> Vec<Cmd> {
    model.layers.push(layer);
    Vec::new()
}

fn prefix(model: &mut Model, prefix: Prefix) -> Vec<Cmd> {
    model.prefix = Some(prefix);
    Vec::new()
}

fn step(model: &mut Model, rows: isize) -> Vec<Cmd> {
    if let Some(scroll) = model.layers.last_mut().and_then(Layer::scroll) {
        *scroll = scroll.saturating_add_signed(rows);
        return Vec::new();
    }
    let now = model.now;
    if let Some(list) = screens::steps(model) {
        list.step(rows, now);
    }
    Vec::new()
}

fn page(model: &mut Model, pages: isize) -> Vec<Cmd> {
    let rows = isize::try_from(screens::page_rows(model)).unwrap_or(1).max(1);
    step(model, rows.saturating_mul(pages))
}

fn problem(model: &mut Model, forward: bool) -> Vec<Cmd> {
    let now = model.now;
    let found = screens::steps(model).is_some_and(|list| list.problem(forward, now));
    if !found {
        let where_ = if forward { "below" } else { "above" };
        model.notices.say(now, State::Ok, format!("nothing {where_} needs anyone"));
    }
    Vec::new()
}

fn open(model: &mut Model) -> Vec<Cmd> {
    if !model.layers.is_empty() {
        return layer::enter(model);
    }
    if let Some(cmds) = screens::open_suggestion(model) {
        return cmds;
    }
    match screens::target(model) {
        Some(place) => model.go(place, true),
        None => Vec::new(),
    }
}

fn back(model: &mut Model) -> Vec<Cmd> {
    if !model.layers.is_empty() {
        return layer::close(model);
    }
    match &model.place {
        Place::Certificates if !model.certificates.filter.is_empty() => layer::set_filter(model, ""),
        Place::Agents if !model.agents.filter.is_empty() => layer::set_filter(model, ""),
        Place::Audit if !model.audit.list.filter.is_empty() => layer::set_filter(model, ""),
        Place::Certificates if !model.marks.is_empty() => {
            model.marks = Marks::default();
            Vec::new()
        }
        Place::Overview => {
            if model.notices.showing().is_none() {
                model.notices.say(model.now, State::Idle, "Q leaves the dashboard");
            }
            Vec::new()
        }
        Place::Enroll => {
            model.enroll = None;
            model.go(Place::Agents, false)
        }
        Place::Invite => {
            model.invite = None;
            model.go(Place::Team, false)
        }
        Place::AddCertificate => screens::wizard_back(model),
        Place::Sheet => screens::sheet::leave(model),
        Place::Certificates
        | Place::Certificate(_)
        | Place::Agents
        | Place::Agent(_)
        | Place::Jobs
        | Place::Job(_)
        | Place::Issuers
        | Place::Issuer(_)
        | Place::Team
        | Place::Audit
        | Place::Act(_)
        | Place::Restore
        | Place::IdentityCa
        | Place::Backup => model.go_back(),
    }
}

fn tab(model: &mut Model, forward: bool) -> Vec<Cmd> {
    match &model.place {
        Place::Certificate(_) => model.certificate.turn(forward),
        Place::Agent(_) => model.agent.turn(forward),
        Place::Issuer(_) => model.issuer.turn(forward),
        Place::Overview
        | Place::Certificates
        | Place::Agents
        | Place::Jobs
        | Place::Job(_)
        | Place::Issuers
        | Place::AddCertificate
        | Place::Sheet
        | Place::Enroll
        | Place::Team
        | Place::Audit
        | Place::Act(_)
        | Place::Restore
        | Place::IdentityCa
        | Place::Backup
        | Place::Invite => {}
    }
    model.read()
}

fn refresh(model: &mut Model) -> Vec<Cmd> {
    if !model.link.is_live() {
        model.notices.say(model.now, State::Idle, "trying to connect now");
        return vec![Cmd::Reconnect];
    }
    model.certificates.refresh();
    model.agents.refresh();
    model.jobs.refresh();
    model.job.subs.refresh();
    model.issuers.refresh();
    model.team.refresh();
    model.audit.refresh();
    model.identity_ca.peers.refresh();
    model.overview.attention.refresh();
    model.read()
}

fn interrupt(model: &mut Model) -> Vec<Cmd> {
    if model.interrupted {
        return vec![Cmd::Quit];
    }
    model.interrupted = true;
    let mut cmds = if model.layers.is_empty() { Vec::new() } else { layer::close(model) };
    model.notices.say(model.now, State::Idle, "Ctrl-c again leaves the dashboard");
    cmds.push(Cmd::After(Timer::Interrupt, INTERRUPT_WINDOW));
    cmds
}

/// A backup on its way ends with the dashboard.
fn quit(model: &mut Model) -> Vec<Cmd> {
    if model.interrupted || !model.backup.as_ref().is_some_and(BackupScreen::runs) {
        return vec![Cmd::Quit];
    }
    model.interrupted = true;
    model.notices.say(model.now, State::Warn, "a backup is on its way: Q again leaves without it");
    vec![Cmd::After(Timer::Interrupt, INTERRUPT_WINDOW)]
}

/// Asks before something is changed; the question names its record for good.
fn ask(model: &mut Model, action: Action) -> Vec<Cmd> {
    let agents = matches!(model.context(), Context::Agents | Context::Agent);
    let issuers = matches!(model.context(), Context::Issuers | Context::Issuer);
    let confirm = if matches!(model.context(), Context::Restore | Context::IdentityCa) {
        trust::ask(model, action)
    } else if action == Action::Run {
        renew(model)
    } else if action == Action::Cancel {
        cancel(model)
    } else if action == Action::Deploy {
        deploy(model)
    } else if action == Action::Pause {
        pause(model)
    } else if action == Action::RevokeVersion {
        revoke_version(model)
    } else if action == Action::Consent {
        consent(model)
    } else if action == Action::Rollover {
        roll_over(model)
    } else if action == Action::Edit {
        set_role(model)
    } else if model.context() == Context::Team {
        remove_operator(model)
    } else if issuers {
        remove_issuer(model)
    } else if agents {
        revoke(model)
    } else {
        delete(model)
    };
    match confirm {
        Some(confirm) => model.layers.push(Layer::Confirm(Box::new(confirm))),
        None => refuse(model, action, "there is no record under the cursor"),
    }
    Vec::new()
}

/// Returns a question that `y` answers.
pub(crate) fn question(title: String, lines: Vec<String>, verb: &'static str, call: Call) -> Confirm {
    let input = Input::default();
    Confirm { title, lines, name: None, note: None, input, choice: None, verb, call, opens_at: None }
}

/// `Space`: the mark of the row under the cursor, and on to the next row.
fn mark(model: &mut Model) -> Vec<Cmd> {
    let Some(name) = model.certificates.current().map(|record| record.name.clone()) else { return Vec::new() };
    model.marks.turn(&name);
    step(model, 1)
}

fn cancel(model: &Model) -> Option<Confirm> {
    let job = screens::job_here(model)?;
    let lines = vec![
        "· what has not begun is taken back".to_owned(),
        "· what has begun goes on to its end".to_owned(),
        "· r does the rest after all, any time".to_owned(),
    ];
    let title = format!("cancel: {} {}", job.kind, screens::job::subject(&job));
    Some(question(title, lines, "cancel the job", Call::CancelJob(job.id)))
}

fn targets_words(count: usize) -> String {
    match count {
        0 => "no target".to_owned(),
        1 => "its target".to_owned(),
        count => format!("its {count} targets"),
    }
}

fn renew(model: &mut Model) -> Option<Confirm> {
    let record = screens::certificate_here(model)?;
    let name = record.name.clone();
    let mut lines = vec![
        format!("One new order for {} name(s) at {}.", record.identifiers.len(), record.issuer),
        format!("The new version then goes to {}.", targets_words(record.targets.len())),
        "The current version keeps serving until then.".to_owned(),
    ];
    let locked = from_wire(record.lock_opens_at).filter(|opens| *opens > model.now);
    if locked.is_some() {
        lines.push(format!("Locked until {}: nothing changed since the", instant(record.lock_opens_at)));
        lines.push("last order. Say why it is needed now.".to_owned());
    }
    let request =
        RenewCertificateRequest { name: name.clone(), request_id: model.wish_id(), override_lock: String::new() };
    let mut confirm = question(format!("renew {name}"), lines, "renew", Call::Renew(request));
    confirm.note = locked.map(|_| Note { needed: true });
    Some(confirm)
}

fn deploy(model: &mut Model) -> Option<Confirm> {
    let record = screens::certificate_here(model)?;
    let name = record.name.clone();
    if let Some(version) = screens::version_to_deploy(model) {
        return Some(deploy_version(model, &record, &version));
    }
    let agent = screens::target_agent(model).unwrap_or_default();
    if agent.is_empty() && record.issues.iter().any(|issue| issue.kind == "rollout_stopped") {
        return Some(go_on(model, &name));
    }
    let to = if agent.is_empty() { targets_words(record.targets.len()) } else { format!("the target on {agent}") };
    let mut lines = vec![
        format!("Writes the current version to {to} again,"),
        "runs the reload commands and proves it by a handshake.".to_owned(),
        "Nothing is ordered at the CA.".to_owned(),
    ];
    if !record.windows.is_empty() && !record.window_open {
        lines.push("It begins at once, whatever its window says.".to_owned());
    }
    let request =
        DeployCertificateRequest { name: name.clone(), agent, request_id: model.wish_id(), ..Default::default() };
    Some(question(format!("deploy {name}"), lines, "deploy", Call::Deploy(request)))
}

/// A rollout that was stopped goes on everywhere.
fn go_on(model: &mut Model, name: &str) -> Confirm {
    let lines = vec![
        "The rollout is stopped: a target did not take the new version.".to_owned(),
        "· it goes to all the others at once, whatever comes of it".to_owned(),
        "· what failed is tried again now".to_owned(),
        "· corrected, it goes on by itself; d on the Targets tab tries one".to_owned(),
    ];
    let request = DeployCertificateRequest {
        name: name.to_owned(),
        request_id: model.wish_id(),
        continue_rollout: true,
        ..Default::default()
    };
    question(format!("go on with {name}"), lines, "let it go on", Call::Deploy(request))
}

/// The version under the cursor of the history instead of the one that the targets hold.
fn deploy_version(model: &mut Model, record: &Certificate, version: &Version) -> Confirm {
    let name = record.name.clone();
    let to = targets_words(record.targets.len());
    let mut lines = vec![format!("serial {}, valid to {}", version.serial, instant(version.not_after))];
    if version.current {
        lines.push(format!("The current version goes to {to} again; the rollback ends."));
    } else {
        lines.push(format!("· this older version goes to {to} instead of the current one"));
        lines.push("· until the next one is issued; renewal goes on as planned".to_owned());
        lines.push("· d on the current one takes it back".to_owned());
    }
    lines.push("Nothing is ordered at the CA.".to_owned());
    let request = DeployCertificateRequest {
        name: name.clone(),
        request_id: model.wish_id(),
        version: version.id.clone(),
        ..Default::default()
    };
    question(format!("deploy a version of {name}"), lines, "deploy it", Call::Deploy(request))
}

/// The kill switch on the overview, else the pause of the certificate; pressed again it is lifted.
fn pause(model: &Model) -> Option<Confirm> {
    let all = model.context() == Context::Overview;
    let record = if all { None } else { Some(screens::certificate_here(model)?) };
    let (name, standing) = match &record {
        Some(record) => (record.name.clone(), record.pause.clone().filter(|pause| !pause.all)),
        None => (String::new(), model.pause.clone()),
    };
    let subject = if all { "everything".to_owned() } else { name.clone() };
    if let Some(standing) = standing {
        let mut lines = vec![format!("Paused by {}.", standing.by)];
        lines.extend(Some(standing.reason).filter(|reason| !reason.is_empty()));
        lines.push("What is due is ordered and deployed at once.".to_owned());
        let request = SetPauseRequest { certificate: name, paused: false, reason: String::new() };
        return Some(question(format!("resume {subject}"), lines, "resume", Call::Pause(request)));
    }
    let lines = vec![
        "· nothing is ordered and nothing is deployed".to_owned(),
        "· what is served goes on being served, until it expires".to_owned(),
        "· an order that is open at the CA goes on when the pause is lifted".to_owned(),
    ];
    let request = SetPauseRequest { certificate: name, paused: true, reason: String::new() };
    let mut confirm = question(format!("pause {subject}"), lines, "pause", Call::Pause(request));
    confirm.note = Some(Note { needed: all });
    Some(confirm)
}

fn delete(model: &Model) -> Option<Confirm> {
    let record = screens::certificate_here(model)?;
    let name = record.name.clone();
    let count = record.targets.len();
    let lines = vec![
        "· it is no longer renewed; its history goes with it".to_owned(),
        "· it is not revoked at the CA".to_owned(),
        format!("· files on {}:", targets_words(count)),
    ];
    let request = DeleteCertificateRequest { name: name.clone(), expected_revision: record.revision, purge: false };
    let mut confirm = question(format!("delete {name}"), lines, "delete", Call::Delete(request));
    confirm.name = Some(name);
    confirm.choice = Some(Choice::of(&PURGES));
    Some(confirm)
}

/// The version under the cursor of the history, else the current one.
fn revoke_version(model: &mut Model) -> Option<Confirm> {
    let record = screens::certificate_here(model)?;
    let version = screens::version_here(model)?;
    let name = record.name.clone();
    let mut lines = vec![
        format!("serial {}, valid to {}", version.serial, instant(version.not_after)),
        "· clients that ask the CA refuse it; it cannot be undone".to_owned(),
    ];
    if !version.current {
        lines.push("· an earlier version: what is served now is not touched".to_owned());
    } else if record.pause.is_some() {
        lines.push("· no replacement is ordered before the pause is lifted".to_owned());
    } else {
        lines.push("· a replacement with a new key is ordered at once".to_owned());
        lines.push(format!("· then it goes to {}; until then this one is served", targets_words(record.targets.len())));
    }
    lines.push("· why, for the CA:".to_owned());
    let request = RevokeCertificateRequest {
        name: name.clone(),
        request_id: model.wish_id(),
        serial: version.serial,
        reason: String::new(),
    };
    let mut confirm = question(format!("revoke {name}"), lines, "revoke", Call::RevokeVersion(request));
    confirm.name = Some(name);
    confirm.choice = Some(Choice::of(&REASONS));
    Some(confirm.read_first(model.now))
}

fn revoke(model: &Model) -> Option<Confirm> {
    let record = screens::agent_here(model)?;
    let name = record.name.clone();
    let revoked = record.status == "revoked";
    let (title, verb, lines, call) = if revoked {
        let lines = vec!["Removes the record of this revoked agent and its targets.".to_owned()];
        (format!("forget agent {name}"), "forget", lines, Call::Forget(name.clone()))
    } else {
        let lines = vec![
            "· its identity stops working at once; its stream is cut".to_owned(),
            format!("· {} certificate(s) there are no longer renewed or repaired", record.targets.len()),
            "· files on the server stay as they are".to_owned(),
            "· to come back it has to be enrolled again".to_owned(),
        ];
        (format!("revoke agent {name}"), "revoke", lines, Call::Revoke(name.clone()))
    };
    let mut confirm = question(title, lines, verb, call);
    confirm.name = Some(name);
    Some(confirm)
}

fn consent(model: &Model) -> Option<Confirm> {
    let record = screens::agent_here(model)?;
    let name = record.name.clone();
    let lines = vec![
        format!("· its identity ended on {}", instant(record.identity_not_after)),
        "· with the key it enrolled with it may come back, once, within a day".to_owned(),
        "· consent only if that server is still the one it was".to_owned(),
    ];
    Some(question(format!("let agent {name} back"), lines, "consent", Call::Consent(name)))
}

/// A test changes nothing that was decided: it is not asked about.
fn test(model: &mut Model) -> Vec<Cmd> {
    if model.place_context() == Context::Certificate {
        return test_targets(model);
    }
    if let Some(agent) = screens::agent_here(model).filter(|_| model.context() == Context::Agent) {
        model.notices.say(model.now, State::Idle, format!("{} looks at its server …", agent.name));
        model.agent.show_detected();
        return vec![model.call(Call::Detect(agent.name))];
    }
    let Some(issuer) = screens::issuer_here(model) else { return Vec::new() };
    vec![model.call(Call::TestIssuer(issuer.name))]
}

/// The target under the cursor while the targets show, else all of the certificate: nothing is changed, so nothing is asked.
fn test_targets(model: &mut Model) -> Vec<Cmd> {
    let Some(record) = screens::certificate_here(model) else { return Vec::new() };
    let target = screens::target_here(model).map(|(_, target)| target);
    let on = target.as_ref().and_then(|target| target.spec.as_ref()).map(|spec| format!(" on {}", spec.agent));
    let text =
        format!("testing {}{} … nothing is changed", targets_words(record.targets.len()), on.unwrap_or_default());
    model.notices.say(model.now, State::Busy, text);
    let target_id = target.map(|target| target.id).unwrap_or_default();
    let request = TestTargetsRequest { certificate: record.name.clone(), target_id, ..Default::default() };
    vec![model.call(Call::TestTargets(Box::new(request)))]
}

/// Tokens of ours are served for half a minute: nothing that was decided changes, so nothing is asked.
fn check_challenges(model: &mut Model) -> Vec<Cmd> {
    let Some(record) = screens::certificate_here(model) else { return Vec::new() };
    let (name, text) = (record.name.clone(), format!("looking at the challenges of {} as a CA would …", record.name));
    model.notices.say(model.now, State::Busy, text);
    vec![model.call(Call::CheckChallenges(name))]
}

fn roll_over(model: &Model) -> Option<Confirm> {
    let name = screens::issuer_here(model)?.name;
    let lines = vec![
        "The account gets a new key; it is sealed before the CA is told.".to_owned(),
        "Orders of this issuer wait meanwhile and go on by themselves.".to_owned(),
        "Certificates and their keys stay as they are.".to_owned(),
    ];
    Some(question(format!("new account key of {name}"), lines, "give it a new key", Call::Rollover(name)))
}

fn remove_issuer(model: &Model) -> Option<Confirm> {
    let issuer = screens::issuer_here(model)?;
    let name = issuer.name;
    let lost = match issuer.private_ca {
        Some(_) => ["· its key is destroyed for good", "· what trusts its root will never see another leaf of it"],
        None => ["· the account's key is forgotten here for good", "· the account itself stays at the CA"],
    };
    let lines = lost.into_iter().chain(["· no certificate uses it"]).map(str::to_owned).collect();
    let mut confirm = question(format!("remove issuer {name}"), lines, "remove", Call::RemoveIssuer(name.clone()));
    confirm.name = Some(name);
    Some(confirm.read_first(model.now))
}

fn is_me(model: &Model, name: &str) -> bool {
    model.who.as_ref().is_some_and(|who| who.operator == name)
}

fn set_role(model: &Model) -> Option<Confirm> {
    let member = member_here(model)?;
    let name = member.name().to_owned();
    let mut lines =
        vec![format!("{name} is {}.", member.role()), "Another role counts from the next message.".to_owned()];
    if is_me(model, &name) {
        lines.push("This is you: a lesser role you cannot take back yourself.".to_owned());
    }
    let request = SetOperatorRoleRequest { name: name.clone(), role: String::new() };
    let mut confirm = question(format!("role of {name}"), lines, "give this role", Call::SetRole(request));
    let at = ROLES.iter().position(|(word, _)| *word == member.role()).unwrap_or(0);
    confirm.choice = Some(Choice { at, ..Choice::of(&ROLES) });
    Some(confirm)
}

fn remove_operator(model: &Model) -> Option<Confirm> {
    let member = member_here(model)?;
    let name = member.name().to_owned();
    let (title, verb, mut lines) = match member {
        Member::Invited(_) => {
            let lines = vec!["· the command that was handed out stops working at once".to_owned()];
            (format!("withdraw the invitation of {name}"), "withdraw", lines)
        }
        Member::Operator(one) => {
            let mut lines = vec![
                "· their next message is refused; an open dashboard is cut".to_owned(),
                "· what they did stays in the audit".to_owned(),
            ];
            if one.kind == "local" {
                lines.push("· the user and their groups on the host stay as they are".to_owned());
            }
            (format!("remove operator {name}"), "remove", lines)
        }
    };
    if is_me(model, &name) {
        lines.push("· this is you: nothing works here afterwards".to_owned());
    }
    let mut confirm = question(title, lines, verb, Call::RemoveOperator(name.clone()));
    confirm.name = Some(name);
    Some(confirm)
}

/// The layers that hold a list are scrolled here; kept for `settle`.
pub(crate) fn clamp_layers(model: &mut Model, lines_max: usize) {
    let entries = match model.layers.last() {
        Some(Layer::Palette(palette)) => layer::entries(model, palette.input.value()).len(),
        Some(
            Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_) | Layer::Filter(Filter { .. }) | Layer::Confirm(_),
        )
        | None => 0,
    };
    match model.layers.last_mut() {
        Some(Layer::Palette(palette)) => palette.at = palette.at.min(entries.saturating_sub(1)),
        Some(layer) => {
            if let Some(scroll) = layer.scroll() {
                *scroll = (*scroll).min(lines_max);
            }
        }
        None => {}
    }
}
