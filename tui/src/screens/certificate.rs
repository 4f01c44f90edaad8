//! One certificate: its phases live, then tabs for names, targets, activity, history, settings.
//!
//! ```text
//!  Certificates > api.example.com              ✓ active  expires in 67d
//!  [Names 2]  Targets 1  Activity  History  Settings
//! ┌─ Issuance ─ attempt 1 ──────────────────┐┌─ Certificate in use (wide) ─┐
//! └─────────────────────────────────────────┘└─────────────────────────────┘
//!  the tab
//! ┌─ Log (40 rows and more) ──────────────────────────────────────────────┐
//! ```

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Certificate, Event, Order, OrderLimits, Target, Version};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::call::Call;
use crate::client::{custody, file_content, key_type, limit_exemption, limit_subject, limit_used, reason};
use crate::screens::words::{
    badge, certificate_state, certificate_word, event_lines, is_running, pair, phase_state, problem_lines, renews,
    target_state, target_word, title,
};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{panel, put, put_all, rows as part, split_right};
use crate::widgets::table::{Row, fixed, names, number, table};
use crate::widgets::text::{ago, clock, cut, instant, safe, short_fingerprint, span, took, until, wrap};

/// From this width on the version in use stands beside the phases.
const WIDE_MIN: u16 = 120;
const IN_USE_WIDTH: u16 = 48;
/// From this height on the log stands below the tab.
const LOG_MIN: u16 = 34;
const LOG_HEIGHT: u16 = 11;

/// The tabs, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    /// Identifiers and the order's authorizations.
    #[default]
    Names,
    /// Where it is deployed.
    Targets,
    /// Events.
    Activity,
    /// Versions.
    History,
    /// What was asked for.
    Settings,
}

const TABS: [Tab; 5] = [Tab::Names, Tab::Targets, Tab::Activity, Tab::History, Tab::Settings];

/// The open certificate.
#[derive(Debug, Default)]
pub(crate) struct CertificateScreen {
    /// Its name.
    pub(crate) name: String,
    /// The record, once it was read.
    pub(crate) record: Option<Certificate>,
    /// Its versions, once they were read.
    pub(crate) versions: Option<Vec<Version>>,
    /// Its events, newest first.
    pub(crate) events: Vec<Event>,
    /// The controller no longer has it.
    pub(crate) missing: bool,
    /// Row or line of the tab.
    pub(crate) cursor: usize,
    /// What shows.
    pub(crate) tab: Tab,
}

impl CertificateScreen {
    /// Prepares for the certificate `name`.
    pub(crate) fn open(&mut self, name: &str) {
        if self.name != name || self.missing {
            *self = Self { name: name.to_owned(), ..Self::default() };
        }
    }

    /// Takes the record, if it is the open one's.
    pub(crate) fn take(&mut self, record: Certificate, _: Timestamp) {
        if record.name == self.name {
            self.missing = false;
            self.record = Some(record);
        }
    }

    /// The controller has no such certificate.
    pub(crate) fn vanished(&mut self, name: &str) {
        if self.name == name {
            self.missing = true;
        }
    }

    /// Turns to the next or previous tab.
    pub(crate) fn turn(&mut self, forward: bool) {
        self.tab = view::next_tab(&TABS, self.tab, forward);
        self.cursor = 0;
    }

    /// Returns what has to be read.
    pub(crate) fn reads(&self, name: &str) -> Vec<Call> {
        let events = Call::Events { certificate: name.to_owned(), agent: String::new() };
        let mut calls = vec![Call::Certificate(name.to_owned()), events];
        if self.tab == Tab::History {
            calls.push(Call::Versions(name.to_owned()));
        }
        calls
    }

    /// Whether a phase runs whose seconds show.
    pub(crate) fn is_counting(&self) -> bool {
        let phases = self.record.as_ref().and_then(|record| record.order.as_ref()).map(|order| &order.phases);
        phases.is_some_and(|phases| phases.iter().any(|step| step.state == "running"))
    }

    /// Returns the target under the cursor.
    fn target(&self) -> Option<&Target> {
        self.record.as_ref().and_then(|record| record.targets.get(self.cursor))
    }

    /// Returns the target under the cursor while the targets show.
    pub(crate) fn target_here(&self) -> Option<(Certificate, Target)> {
        let target = self.target().filter(|_| self.tab == Tab::Targets && !self.missing)?;
        Some((self.record.clone()?, target.clone()))
    }

    /// Returns the version under the cursor while the history shows.
    pub(crate) fn version_listed(&self) -> Option<Version> {
        let versions = self.versions.as_ref().filter(|_| self.tab == Tab::History);
        versions.and_then(|versions| versions.get(self.cursor)).cloned()
    }

    /// Returns the version under the cursor while the history shows, else the current one.
    pub(crate) fn version(&self) -> Option<Version> {
        if self.tab == Tab::History {
            return self.version_listed();
        }
        self.record.as_ref().and_then(|record| record.current.clone())
    }

    /// Returns the agent of the target under the cursor, while the targets show.
    pub(crate) fn target_agent(&self) -> Option<String> {
        if self.tab != Tab::Targets {
            return None;
        }
        self.target().and_then(|target| target.spec.as_ref()).map(|spec| spec.agent.clone())
    }
}

/// Returns the largest cursor of the tab that shows.
pub(crate) fn cursor_max(model: &Model) -> usize {
    let screen = &model.certificate;
    let Some(record) = &screen.record else { return 0 };
    match screen.tab {
        Tab::Targets => record.targets.len().saturating_sub(1),
        Tab::Names => record.identifiers.len().saturating_sub(1),
        Tab::History => screen.versions.as_ref().map_or(0, |versions| versions.len().saturating_sub(1)),
        Tab::Activity => activity_lines(model, usize::from(model.size.0)).len().saturating_sub(1),
        Tab::Settings => 0,
    }
}

/// Paints the record.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let screen = &model.certificate;
    heading(model, part(area, 0, 1), buf);
    let Some(record) = &screen.record else {
        let gone = vec![Line::styled("  There is no such certificate; q goes back.", model.theme.dim())];
        put_all(buf, part(area, 2, u16::MAX), if screen.missing { gone } else { view::nothing_yet(model) });
        return None;
    };
    tabs(model, record, part(area, 1, 1), buf);
    let body = part(area, 2, u16::MAX);
    let log = if area.height >= LOG_MIN && screen.tab != Tab::Activity { LOG_HEIGHT } else { 0 };
    let top = upper_height(record, area, screen.tab);
    upper(model, record, part(body, 0, top), buf);
    let middle = part(body, top, body.height.saturating_sub(top + log));
    let cursor = match screen.tab {
        Tab::Names => paint_names(model, record, middle, buf),
        Tab::Targets => paint_targets(model, record, middle, buf),
        Tab::Activity => {
            let lines = activity_lines(model, usize::from(middle.width));
            put_all(buf, middle, lines.into_iter().skip(screen.cursor));
            None
        }
        Tab::History => paint_history(model, middle, buf),
        Tab::Settings => {
            put_all(buf, middle, settings_lines(record, model.now, model.theme, usize::from(middle.width)));
            None
        }
    };
    if log > 0 {
        let inner =
            panel(buf, part(body, body.height.saturating_sub(log), log), model.theme, "Activity", "newest first");
        put_all(buf, inner, activity_lines(model, usize::from(inner.width)));
    }
    cursor
}

fn heading(model: &Model, area: Rect, buf: &mut Buffer) {
    let (screen, theme) = (&model.certificate, model.theme);
    let right = match &screen.record {
        _ if screen.missing => badge(State::Off, "deleted ", theme),
        None => Line::default(),
        Some(record) => {
            let expires = record.current.as_ref();
            let expires = expires.map(|version| format!("  expires in {}", until(model.now, version.not_after)));
            let word = format!("{}{} ", certificate_word(record), expires.unwrap_or_default());
            badge(certificate_state(record), &word, theme)
        }
    };
    view::record_heading(model, "Certificates", &screen.name, &right, area, buf);
}

fn tabs(model: &Model, record: &Certificate, area: Rect, buf: &mut Buffer) {
    let label = |tab: Tab| match tab {
        Tab::Names => format!("Names {}", record.identifiers.len()),
        Tab::Targets => format!("Targets {}", record.targets.len()),
        Tab::Activity => "Activity".to_owned(),
        Tab::History => "History".to_owned(),
        Tab::Settings => "Settings".to_owned(),
    };
    let labels = TABS.into_iter().map(|tab| (tab, label(tab)));
    put(buf, area, 0, &view::tabs_line(labels, model.certificate.tab, model.theme));
}

/// The phases keep their height over all tabs, so that turning does not make them jump; small windows give it to the tab.
fn upper_height(record: &Certificate, area: Rect, tab: Tab) -> u16 {
    let Some(order) = &record.order else {
        return if area.width >= WIDE_MIN && area.height >= 24 { 9 } else { 0 };
    };
    let phases = u16::try_from(order.phases.len()).unwrap_or(u16::MAX);
    let error = if order.error.is_some() { 2 } else { 0 };
    let full = phases.saturating_add(2 + error);
    let room = area.height.saturating_sub(2);
    let small = matches!(tab, Tab::Activity | Tab::History | Tab::Settings) && area.height < 24;
    if small || full > room.saturating_sub(5) {
        return full.min(room.saturating_sub(6)).min(3);
    }
    if area.width >= WIDE_MIN { full.max(9).min(room) } else { full }
}

fn upper(model: &Model, record: &Certificate, area: Rect, buf: &mut Buffer) {
    if area.height < 3 {
        return;
    }
    let (left, right) =
        if area.width >= WIDE_MIN { split_right(area, IN_USE_WIDTH) } else { (area, Rect { width: 0, ..area }) };
    match &record.order {
        Some(order) => issuance(model, order, left, buf),
        None => {
            let inner = panel(buf, left, model.theme, "Issuance", "");
            put(buf, inner, 0, &Line::styled(" Nothing is being issued.", model.theme.dim()));
            put(buf, inner, 1, &pair(" Renews", &renews(record, model.now), model.theme));
        }
    }
    if right.width > 0 {
        let inner = panel(buf, right, model.theme, "Certificate in use", "");
        put_all(buf, inner, in_use_lines(record, model));
    }
}

fn issuance(model: &Model, order: &Order, area: Rect, buf: &mut Buffer) {
    let retry = if order.retry_at > 0 {
        format!(", tries again in {}", until(model.now, order.retry_at))
    } else {
        String::new()
    };
    let remark = format!("attempt {}, started {}Z{retry}", order.attempt, clock(order.started_at));
    let heading = if order.reason.is_empty() {
        "Issuance".to_owned()
    } else {
        format!("Issuance: {}", title(reason(&order.reason)))
    };
    let inner = panel(buf, area, model.theme, &heading, &remark);
    let width = usize::from(inner.width);
    let mut lines = phase_lines(order, model, width);
    if let Some(problem) = &order.error {
        let glyph = model.theme.glyph(State::Bad);
        lines.push(Line::styled(
            cut(&format!("{glyph} {}", problem.message), width, model.theme.cut()),
            model.theme.state(State::Bad),
        ));
        lines.extend(problem_lines(problem, model.theme, width, 2));
    }
    // In a low window the phases that are over make room for the ones that are not.
    let room = usize::from(inner.height);
    let skip = if lines.len() > room {
        let busy = order.phases.iter().position(|step| step.state != "done").unwrap_or(0);
        busy.min(lines.len().saturating_sub(room))
    } else {
        0
    };
    put_all(buf, inner, lines.into_iter().skip(skip));
}

/// Returns the phases, one line each: glyph, number, name, time, duration, detail.
pub(crate) fn phase_lines(order: &Order, model: &Model, width: usize) -> Vec<Line<'static>> {
    let theme = model.theme;
    let line = |(number, step): (usize, &proto::operator::v1::PhaseStep)| {
        let state = phase_state(step);
        let running = from_wire(step.started_at).filter(|_| step.state == "running");
        let taken = running.map_or_else(|| took(step.took_ms), |at| span(model.now.as_second() - at.as_second()));
        let text = format!(" {number} {:<12} {:<8} {taken:>6}  ", title(&step.name), clock(step.started_at));
        let detail = cut(&step.detail, width.saturating_sub(text.chars().count() + 1), theme.cut());
        Line::from(vec![
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::styled(text, if state == State::Idle { theme.dim() } else { ratatui::style::Style::new() }),
            Span::raw(detail),
        ])
    };
    (1..).zip(&order.phases).map(line).collect()
}

fn in_use_lines(record: &Certificate, model: &Model) -> Vec<Line<'static>> {
    let Some(version) = &record.current else {
        return vec![Line::styled("none yet", model.theme.dim())];
    };
    let theme = model.theme;
    vec![
        pair("Issuer", &version.issuer_cn, theme),
        pair("Serial", &version.serial, theme),
        pair("From", &instant(version.not_before), theme),
        pair("To", &format!("{} ({})", instant(version.not_after), until(model.now, version.not_after)), theme),
        pair("SHA-256", &version.fingerprint_sha256, theme),
        pair("Key", &format!("{}, custody {}", key_type(record.key_type), custody(version.custody)), theme),
        pair("Renews", &renews(record, model.now), theme),
    ]
}

fn paint_names(model: &Model, record: &Certificate, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    let covered = |name: &String| record.current.as_ref().is_some_and(|version| version.identifiers.contains(name));
    let authorization = |name: &String| {
        let found =
            record.order.as_ref().and_then(|order| order.authorizations.iter().find(|one| one.identifier == *name));
        found.map_or_else(String::new, |one| {
            let serving = if one.responders_total > 0 {
                format!(" {}/{}", one.responders_serving, one.responders_total)
            } else {
                String::new()
            };
            format!("{}{serving}", one.state)
        })
    };
    let running = record.order.as_ref().is_some_and(is_running);
    let rows: Vec<Row> = record
        .identifiers
        .iter()
        .map(|name| {
            let covered = covered(name);
            let state = if covered {
                State::Ok
            } else if running {
                State::Busy
            } else {
                State::Idle
            };
            let word = if covered { "covered" } else { "not covered" };
            Row::new(state, vec![name.clone(), word.to_owned(), authorization(name)])
        })
        .collect();
    let columns = [names("NAME", 20), fixed("SSL STATUS", 12, 0), fixed("CHALLENGE, RESPONDERS", 22, 1)];
    let issues = issue_lines(record, theme, usize::from(area.width));
    let below = u16::try_from(issues.len()).unwrap_or(u16::MAX).min(area.height / 2);
    let upper = part(area, 0, area.height.saturating_sub(below));
    let room = usize::from(upper.height).saturating_sub(1).max(1);
    let first = (model.certificate.cursor + 1).saturating_sub(room);
    let shown: Vec<Row> = rows.into_iter().skip(first).take(room).collect();
    let selected = model.certificate.cursor.checked_sub(first);
    let cursor = table(buf, upper, theme, &columns, &shown, selected);
    put_all(buf, part(area, area.height.saturating_sub(below), below), issues);
    cursor
}

fn issue_lines(record: &Certificate, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for issue in &record.issues {
        let text = format!("{}: {}", title(&issue.kind), safe(&issue.cause));
        for (index, part) in wrap(&text, width.saturating_sub(3)).into_iter().enumerate() {
            let lead = if index == 0 { " ! " } else { "   " };
            lines.push(Line::from(vec![Span::styled(lead, theme.state(State::Warn)), Span::raw(part)]));
        }
        if !issue.action.is_empty() {
            lines.extend(
                wrap(&issue.action, width.saturating_sub(8))
                    .into_iter()
                    .map(|part| Line::from(format!("   do   {part}"))),
            );
        }
    }
    lines
}

fn paint_targets(model: &Model, record: &Certificate, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    if record.targets.is_empty() {
        let lines = [
            Line::from("  No target yet: the certificate is issued but nothing uses it."),
            Line::styled(format!("  certwright targets add {} --agent A --dir D", safe(&record.name)), theme.accent()),
        ];
        put_all(buf, part(area, 1, u16::MAX), lines);
        return None;
    }
    let columns = [
        names("AGENT", 12),
        fixed("STATUS", 16, 0),
        fixed("SERVED", 9, 2),
        fixed("DIRECTORY", 30, 1),
        number("TRIED", 10, 3),
    ];
    let rows: Vec<Row> = record
        .targets
        .iter()
        .map(|target| {
            let spec = target.spec.clone().unwrap_or_default();
            let cells = vec![
                spec.agent,
                target_word(target),
                short_fingerprint(&target.served_fingerprint_sha256),
                spec.dir,
                ago(model.now, target.finished_at.max(target.started_at)),
            ];
            Row::new(target_state(target.status), cells)
        })
        .collect();
    let height = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX).min(area.height / 2).max(2);
    let room = usize::from(height).saturating_sub(1).max(1);
    let first = (model.certificate.cursor + 1).saturating_sub(room);
    let shown: Vec<Row> = rows.into_iter().skip(first).take(room).collect();
    let cursor =
        table(buf, part(area, 0, height), theme, &columns, &shown, model.certificate.cursor.checked_sub(first));
    if let Some(target) = model.certificate.target() {
        let agent = target.spec.as_ref().map_or("", |spec| spec.agent.as_str());
        let remark = if target.retry_at > 0 {
            format!("tries again in {}", until(model.now, target.retry_at))
        } else {
            String::new()
        };
        let inner = panel(buf, part(area, height, u16::MAX), theme, &format!("On {}", safe(agent)), &remark);
        put_all(buf, inner, target_lines(target, model.now, theme, usize::from(inner.width)));
    }
    cursor
}

/// What happened on the target: the problem first, then each step with its output.
fn target_lines(target: &Target, now: Timestamp, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if target.agent_status == "offline" {
        lines.push(Line::styled("the agent is offline: it pulls when it returns", theme.state(State::Warn)));
    }
    if !target.waits.is_empty() {
        let until = from_wire(target.waits_until).map(|_| format!(", at most until {}", instant(target.waits_until)));
        let text = format!("keeps the version before and waits {}{}", safe(&target.waits), until.unwrap_or_default());
        lines.extend(wrap(&text, width).into_iter().map(|part| Line::styled(part, theme.state(State::Warn))));
    }
    if let Some(problem) = &target.problem {
        let text = format!("{} {}", theme.glyph(State::Bad), problem.message);
        lines.extend(wrap(&text, width).into_iter().map(|part| Line::styled(part, theme.state(State::Bad))));
        lines.extend(problem_lines(problem, theme, width, 2));
    }
    if let Some(drift) = target.drift.as_ref().filter(|drift| drift.ended_at != 0) {
        let what: Vec<String> = drift.differences.iter().map(|line| safe(line)).collect();
        let text = format!("drifted {} and right again: {}", ago(now, drift.seen_at), what.join("; "));
        lines.extend(wrap(&text, width).into_iter().map(|part| Line::styled(part, theme.dim())));
    }
    for step in &target.steps {
        let state = if step.ok { State::Ok } else { State::Bad };
        let status = step.exit_status.map_or_else(String::new, |status| format!("  exit {status}"));
        lines.push(Line::from(vec![
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::raw(format!(" {:<8} {}", safe(&step.name), safe(&step.subject))),
            Span::styled(format!("{status}  {}", took(step.took_ms)), theme.dim()),
        ]));
        if !step.ok || !step.output.is_empty() {
            let output =
                wrap(&step.output, width.saturating_sub(4)).into_iter().filter(|part| !part.is_empty()).take(6);
            lines.extend(output.map(|part| Line::styled(format!("    {part}"), theme.dim())));
        }
    }
    if let Some(spec) = &target.spec {
        lines.extend(spec.files.iter().map(|file| {
            let path = format!("{}/{}", spec.dir, file.name);
            Line::styled(
                format!("  {:<10} {} {:04o} {}", file_content(file.content), safe(&path), file.mode, safe(&file.owner)),
                theme.dim(),
            )
        }));
    }
    lines
}

fn activity_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    if model.certificate.events.is_empty() {
        return vec![Line::styled("  nothing yet", model.theme.dim())];
    }
    model.certificate.events.iter().flat_map(|event| event_lines(event, model.theme, width)).collect()
}

fn paint_history(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let Some(versions) = &model.certificate.versions else {
        put(buf, area, 1, &Line::styled("  reading …", model.theme.dim()));
        return None;
    };
    if versions.is_empty() {
        put(buf, area, 1, &Line::styled("  No version yet: nothing was issued so far.", model.theme.dim()));
        return None;
    }
    let columns =
        [fixed("ISSUED", 17, 0), fixed("TO", 17, 0), fixed("SERIAL", 16, 1), fixed("SHA-256", 9, 2), growing_reason()];
    let room = usize::from(area.height).saturating_sub(1).max(1);
    let first = (model.certificate.cursor + 1).saturating_sub(room);
    let rows: Vec<Row> = versions.iter().skip(first).take(room).map(version_row).collect();
    table(buf, area, model.theme, &columns, &rows, model.certificate.cursor.checked_sub(first))
}

const fn growing_reason() -> crate::widgets::table::Column {
    crate::widgets::table::growing("WHY", 22)
}

fn version_row(version: &Version) -> Row {
    let state = match (version.current, version.deployable) {
        _ if version.revoked_at != 0 => State::Bad,
        (true, _) => State::Ok,
        _ if version.deployed => State::Warn,
        (false, true) => State::Idle,
        (false, false) => State::Off,
    };
    let key = if version.deployable { "" } else { " (key gone)" };
    let why = match version.reason.as_str() {
        _ if version.deployed && !version.current => "ON THE TARGETS".to_owned(),
        _ if version.revoked_at != 0 => format!("REVOKED {}", version.revoked_reason),
        "revoked" => format!("Replaces a revoked one{key}"),
        word => format!("{}{key}", title(word)),
    };
    let cells = vec![
        instant(version.issued_at),
        instant(version.not_after),
        version.serial.clone(),
        short_fingerprint(&version.fingerprint_sha256),
        why,
    ];
    Row::new(state, cells)
}

fn settings_lines(record: &Certificate, now: Timestamp, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let http01 = record.http01.as_ref().and_then(|http01| http01.mode.as_ref()).map_or_else(
        || "http-01".to_owned(),
        |mode| match mode {
            proto::types::v1::http01::Mode::StandalonePort(port) => {
                format!("http-01, the agent listens on port {port} while needed")
            }
            proto::types::v1::http01::Mode::Webroot(dir) => format!("http-01, files below {dir}"),
        },
    );
    let responders =
        if record.responders.is_empty() { "the targets' agents".to_owned() } else { record.responders.join(", ") };
    let renewal = if record.auto_renew { "by itself" } else { "only when asked" };
    let kept = if record.reuse_key { "kept over renewals" } else { "a new one each time" };
    let issuer = match record.fallbacks.as_slice() {
        [] => record.issuer.clone(),
        others => format!("{}, then {}", record.issuer, others.join(", ")),
    };
    let profile = if record.profile.is_empty() { "the issuer's default" } else { record.profile.as_str() };
    let mut lines = vec![
        pair("Issuer", &issuer, theme),
        pair("Profile", profile, theme),
        pair("Challenge", &http01, theme),
        pair("Answered by", &format!(" {responders}"), theme),
        pair("Key", &format!("{}, {kept}, by the {}", key_type(record.key_type), custody(record.custody)), theme),
        pair("Renewal", &format!("{renewal} {}", safe(&record.renew_reason).replace('_', " ")), theme),
    ];
    if let Some(info) = record.renewal_info.as_ref().filter(|info| info.window_end > 0) {
        lines.push(pair(
            "CA window",
            &format!("{} to {}", instant(info.window_start), instant(info.window_end)),
            theme,
        ));
        if !info.explanation_url.is_empty() {
            lines.push(pair("CA why", &safe(&info.explanation_url), theme));
        }
    }
    if record.lock_opens_at > 0 {
        lines.push(pair(
            "New order",
            &format!("locked until {}; r asks for a reason", instant(record.lock_opens_at)),
            theme,
        ));
    }
    if let Some(limits) = &record.limits {
        lines.extend(limit_lines(limits, now, theme));
    }
    lines.push(pair("Created", &instant(record.created_at), theme));
    lines.push(Line::default());
    let twin = format!("e changes them; or: certwright certs set {} …", safe(&record.name));
    lines.extend(wrap(&twin, width).into_iter().map(|part| Line::styled(part, theme.dim())));
    lines
}

/// What limits the next order, a line each; the issuer's screen has the rest.
fn limit_lines(limits: &OrderLimits, now: Timestamp, theme: Theme) -> Vec<Line<'static>> {
    let exemption = limit_exemption(&limits.exemption);
    let mut said: Vec<String> = Some(exemption.to_owned()).filter(|text| !text.is_empty()).into_iter().collect();
    said.extend(limits.items.iter().map(|line| {
        let then = match (line.closed_until, line.refills_at) {
            (0, 0) => String::new(),
            (0, at) => format!(", refills in {}", until(now, at)),
            (at, _) => format!(" closed by the CA for {}: {}", until(now, at), line.cause),
        };
        let waiting = if line.waiting > 0 { format!(", {} waiting", line.waiting) } else { String::new() };
        format!("{}: {}{waiting}{then}", limit_subject(line), limit_used(line))
    }));
    if said.is_empty() {
        said.push(format!("none known of {}", limits.issuer));
    }
    let labels = std::iter::once("Limits").chain(std::iter::repeat(""));
    labels.zip(&said).map(|(label, text)| pair(label, text, theme)).collect()
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let screen = &model.certificate;
    let Some(record) = &screen.record else { return (String::new(), String::new()) };
    let left = match &record.order {
        Some(order) if is_running(order) => {
            let step = order.phases.iter().find(|step| step.state == "running");
            step.map_or_else(|| "issuing".to_owned(), |step| format!("Issuing: {}", title(&step.name)))
        }
        Some(order) if order.error.is_some() => {
            let problem = order.error.clone().unwrap_or_default();
            format!("{}. {}", safe(&problem.message), safe(&problem.hint))
        }
        _ if record.current.is_none() => "nothing was issued yet".to_owned(),
        _ => format!("renews in {}", renews(record, model.now)),
    };
    (left, format!("revision {}", record.revision))
}
