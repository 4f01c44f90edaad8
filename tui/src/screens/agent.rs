//! One agent: who it is, which certificates it holds, what its policy allows, what it did.

mod detected;

use proto::operator::v1::{Agent, Detected, Event, Suggestion};
use proto::types::v1::Policy;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::Model;
use crate::client::{agent_status, custody, target_status};
use crate::screens::Place;
use crate::screens::agents::behind;
use crate::screens::words::{agent_state, badge, event_lines, pair, target_state};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{panel, put, put_all, rows as part, split_right};
use crate::widgets::table::{Row, fixed, growing, names, table};
use crate::widgets::text::{ago, instant, safe, until, wrap};

const IDENTITY_HEIGHT: u16 = 8;
const LOG_MIN: u16 = 34;
const LOG_HEIGHT: u16 = 11;
/// A clock that is off by more makes trouble with short-lived certificates.
const SKEW_MAX_MS: i64 = 5_000;

/// The tabs, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    /// What it holds.
    #[default]
    Certificates,
    /// What it found on its server.
    Detected,
    /// What its policy allows.
    Policy,
    /// Events.
    Activity,
}

const TABS: [Tab; 4] = [Tab::Certificates, Tab::Detected, Tab::Policy, Tab::Activity];

/// The open agent.
#[derive(Debug, Default)]
pub(crate) struct AgentScreen {
    /// Its name.
    pub(crate) name: String,
    /// The record, once it was read.
    pub(crate) record: Option<Agent>,
    /// What it found on its server, once that was read.
    pub(crate) detected: Option<Detected>,
    /// Its events, newest first.
    pub(crate) events: Vec<Event>,
    /// The controller no longer has it.
    pub(crate) missing: bool,
    /// Row or line of the tab.
    pub(crate) cursor: usize,
    /// What shows.
    pub(crate) tab: Tab,
}

impl AgentScreen {
    /// Prepares for the agent `name`.
    pub(crate) fn open(&mut self, name: &str) {
        if self.name != name || self.missing {
            *self = Self { name: name.to_owned(), ..Self::default() };
        }
    }

    /// Takes the record, if it is the open one's.
    pub(crate) fn take(&mut self, record: Agent) {
        if record.name == self.name {
            self.missing = false;
            self.record = Some(record);
        }
    }

    /// Takes what was found, if it is the open one's.
    pub(crate) fn take_detected(&mut self, found: Detected) {
        if found.agent == self.name {
            self.detected = Some(found);
        }
    }

    /// Turns to what was found.
    pub(crate) fn show_detected(&mut self) {
        if self.tab != Tab::Detected {
            (self.tab, self.cursor) = (Tab::Detected, 0);
        }
    }

    /// Whether what was found shows.
    pub(crate) fn shows_detected(&self) -> bool {
        self.tab == Tab::Detected
    }

    /// Returns the suggestion under the cursor.
    pub(crate) fn suggestion(&self) -> Option<&Suggestion> {
        if self.tab != Tab::Detected {
            return None;
        }
        detected::under(self.detected.as_ref(), self.cursor)
    }

    /// The controller has no such agent.
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

    /// Returns the certificate under the cursor.
    pub(crate) fn target(&self) -> Option<Place> {
        if self.tab != Tab::Certificates {
            return None;
        }
        let target = self.record.as_ref().and_then(|record| record.targets.get(self.cursor))?;
        Some(Place::Certificate(target.certificate.clone()))
    }
}

/// Returns the largest cursor of the tab that shows.
pub(crate) fn cursor_max(model: &Model) -> usize {
    let screen = &model.agent;
    let width = usize::from(model.size.0);
    let lines = match (screen.tab, &screen.record) {
        (_, None) => 0,
        (Tab::Certificates, Some(record)) => record.targets.len(),
        (Tab::Detected, Some(_)) => detected::lines(screen.detected.as_ref()),
        (Tab::Policy, Some(record)) => policy_lines(record.policy.as_ref(), model.theme, width).len(),
        (Tab::Activity, Some(_)) => activity_lines(model, width).len(),
    };
    lines.saturating_sub(1)
}

/// Paints the record.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (screen, theme) = (&model.agent, model.theme);
    let right = screen.record.as_ref().map_or_else(Line::default, |record| {
        let word = format!("{}  last seen {} ", agent_status(record), ago(model.now, record.last_seen_at));
        badge(agent_state(record), &word, theme)
    });
    view::record_heading(model, "Agents", &screen.name, &right, area, buf);
    let Some(record) = &screen.record else {
        let gone = vec![Line::styled("  There is no such agent; q goes back.", model.theme.dim())];
        put_all(buf, part(area, 2, u16::MAX), if screen.missing { gone } else { view::nothing_yet(model) });
        return None;
    };
    let labels = [
        format!("Certificates {}", record.targets.len()),
        "Detected".to_owned(),
        "Policy".to_owned(),
        "Activity".to_owned(),
    ];
    put(buf, area, 1, &view::tabs_line(TABS.into_iter().zip(labels), screen.tab, theme));
    let body = part(area, 2, u16::MAX);
    let top = if body.height >= IDENTITY_HEIGHT + 5 { IDENTITY_HEIGHT } else { 0 };
    identity(model, record, part(body, 0, top), buf);
    let log =
        if area.height >= LOG_MIN && !matches!(screen.tab, Tab::Activity | Tab::Detected) { LOG_HEIGHT } else { 0 };
    let middle = part(body, top, body.height.saturating_sub(top + log));
    let cursor = match screen.tab {
        Tab::Certificates => certificates(model, record, middle, buf),
        Tab::Detected => detected::paint(model, middle, buf),
        Tab::Policy => {
            let lines = policy_lines(record.policy.as_ref(), theme, usize::from(middle.width));
            put_all(buf, middle, lines.into_iter().skip(screen.cursor));
            None
        }
        Tab::Activity => {
            put_all(buf, middle, activity_lines(model, usize::from(middle.width)).into_iter().skip(screen.cursor));
            None
        }
    };
    if log > 0 {
        let inner = panel(buf, part(body, body.height.saturating_sub(log), log), theme, "Activity", "newest first");
        put_all(buf, inner, activity_lines(model, usize::from(inner.width)));
    }
    cursor
}

fn identity(model: &Model, record: &Agent, area: Rect, buf: &mut Buffer) {
    if area.height < 3 {
        return;
    }
    let theme = model.theme;
    let (left, right) = split_right(area, area.width / 2);
    let inner = panel(buf, left, theme, "Identity", "");
    let lines = [
        pair("host", &format!("{} {}", record.hostname, record.address), theme),
        pair("agent", &format!("{}  {}", record.version, record.os), theme),
        pair("labels", &record.labels.join(" "), theme),
        pair("enrolled", &instant(record.enrolled_at), theme),
        pair("serial", &record.identity_serial, theme),
        pair(
            "mTLS",
            &format!("to {} ({})", instant(record.identity_not_after), until(model.now, record.identity_not_after)),
            theme,
        ),
    ];
    put_all(buf, inner, lines);
    let inner = panel(buf, right, theme, "Health", "");
    let skew = record.clock_skew_ms;
    let sign = if skew <= -100 { "-" } else { "+" };
    let clock = format!("{sign}{}.{}s", skew.abs() / 1_000, skew.abs() % 1_000 / 100);
    let clock_word = if skew.abs() > SKEW_MAX_MS { format!("{clock}  ! set the clock") } else { format!("{clock} ok") };
    let state = if record.generation == record.generation_reported { "reported" } else { "not yet reported" };
    let mut lines = vec![
        pair("clock", &clock_word, theme),
        pair("wanted", &format!("generation {}, {state}", record.generation), theme),
        pair("behind", &behind(record), theme),
    ];
    let width = usize::from(inner.width);
    if !record.identity_ca.is_empty() {
        let word =
            if record.identity_ca == "ready" { "ready for the next one" } else { "does not have the next one yet" };
        lines.push(pair("CA", word, theme));
    }
    if record.consent_until > 0 {
        lines.push(pair("consent", &format!("may return until {}", instant(record.consent_until)), theme));
    }
    if let Some(problem) = record.problems.first() {
        let message = [&problem.message, &problem.cause].into_iter().flat_map(|text| wrap(text, width));
        lines.extend(message.map(|text| Line::styled(text, theme.state(State::Bad))));
        lines.extend(wrap(&problem.hint, width).into_iter().map(|text| Line::styled(text, theme.accent())));
    } else if record.status == "offline" {
        lines.push(Line::styled("On the server:", theme.dim()));
        lines.push(Line::styled("  systemctl status certwright-agent", theme.accent()));
        lines.push(Line::styled("  journalctl -u certwright-agent -n 50", theme.accent()));
    }
    put_all(buf, inner, lines);
}

fn certificates(model: &Model, record: &Agent, area: Rect, buf: &mut Buffer) -> Option<Position> {
    if record.targets.is_empty() {
        let lines = [
            Line::from("  Nothing is deployed here yet."),
            Line::styled("  2, then n: add a certificate and choose this agent as its target", model.theme.dim()),
        ];
        put_all(buf, part(area, 1, u16::MAX), lines);
        return None;
    }
    let columns = [names("CERTIFICATE", 16), fixed("STATUS", 16, 0), growing("DIRECTORY", 20)];
    let room = usize::from(area.height).saturating_sub(1).max(1);
    let first = (model.agent.cursor + 1).saturating_sub(room);
    let rows: Vec<Row> = record
        .targets
        .iter()
        .skip(first)
        .take(room)
        .map(|target| {
            let word = target_status(target.status).replace('_', " ");
            Row::new(target_state(target.status), vec![target.certificate.clone(), word, target.dir.clone()])
        })
        .collect();
    table(buf, area, model.theme, &columns, &rows, model.agent.cursor.checked_sub(first))
}

fn policy_lines(policy: Option<&Policy>, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Some(policy) = policy else {
        return vec![Line::styled("  The agent has not told its policy yet: it does when it connects.", theme.dim())];
    };
    let mut lines = vec![Line::styled(" May write to", theme.strong())];
    for dir in &policy.dirs {
        let any = |list: &[String], none: &str| if list.is_empty() { none.to_owned() } else { safe(&list.join(" ")) };
        lines.push(Line::from(format!("   {}", safe(&dir.path))));
        let rule = format!(
            "names {}, files {}, owners {}, key mode at most {:04o}",
            any(&dir.names, "any"),
            any(&dir.files, "any"),
            any(&dir.owners, "the agent's own"),
            dir.key_mode_max
        );
        lines.extend(
            wrap(&rule, width.saturating_sub(6))
                .into_iter()
                .map(|part| Line::styled(format!("     {part}"), theme.dim())),
        );
    }
    lines.push(Line::styled(" May run", theme.strong()));
    lines.extend(policy.commands.iter().map(|command| Line::from(format!("   {}", safe(&command.argv.join(" "))))));
    lines.push(Line::styled(" May answer HTTP-01 on", theme.strong()));
    lines.extend(policy.http01_ports.iter().map(|port| Line::from(format!("   port {port}"))));
    lines.extend(policy.webroots.iter().map(|dir| Line::from(format!("   files below {}", safe(dir)))));
    lines.push(Line::styled(" Keys may be kept by", theme.strong()));
    lines.extend(policy.custody.iter().map(|one| Line::from(format!("   {}", custody(*one)))));
    lines.push(Line::styled(
        " The policy file on the server decides; change it there: certwright-agent policy explain",
        theme.dim(),
    ));
    lines
}

fn activity_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    if model.agent.events.is_empty() {
        return vec![Line::styled("  nothing yet", model.theme.dim())];
    }
    model.agent.events.iter().flat_map(|event| event_lines(event, model.theme, width)).collect()
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let Some(record) = &model.agent.record else { return (String::new(), String::new()) };
    let behind = record.targets.iter().filter(|target| target_state(target.status) != State::Ok).count();
    let left = match (record.status.as_str(), behind) {
        _ if !record.problems.is_empty() => format!("{}; Health says more", agent_status(record)),
        ("offline", count) => format!("offline; {count} target(s) wait for it"),
        ("revoked", _) => "revoked: D forgets it, n in Agents enrols it again".to_owned(),
        (_, 0) => "everything on it is as it should be".to_owned(),
        (_, count) => format!("{count} target(s) are not as they should be"),
    };
    (left, format!("agent {}", safe(&record.id).chars().take(8).collect::<String>()))
}
