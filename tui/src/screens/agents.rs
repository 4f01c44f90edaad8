//! The list of agents, and the enrolments that wait for theirs.

use proto::clock::from_wire;
use proto::operator::v1::Agent;
use proto::types::v1::TargetStatus;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::list::Record as _;
use crate::client::agent_status;
use crate::screens::words::agent_state;
use crate::theme::State;
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, names, number, table};
use crate::widgets::text::{ago, safe, until};

const COLUMNS: [Column; 7] = [
    names("NAME", 20),
    fixed("STATUS", 13, 0),
    number("BEHIND", 7, 1),
    fixed("LAST SEEN", 10, 2),
    fixed("VERSION", 9, 3),
    fixed("OS", 22, 4),
    fixed("IDENTITY", 9, 5),
];
const COLUMNS_COMPACT: [Column; 2] = [names("NAME", 14), fixed("STATUS", 13, 0)];
/// At most so many waiting enrolments show below the list.
const PENDING_MAX: usize = 4;

fn pending_lines(model: &Model) -> u16 {
    let waiting = model.pending.iter().filter(|one| is_waiting(model, one.expires_at)).count().min(PENDING_MAX);
    u16::try_from(waiting).unwrap_or(0)
}

fn is_waiting(model: &Model, expires_at: i64) -> bool {
    from_wire(expires_at).is_some_and(|at| at > model.now)
}

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model).saturating_sub(pending_lines(model))).saturating_sub(2)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let list = &model.agents;
    let mut spans = vec![Span::styled(" Agents", model.theme.strong())];
    if !list.filter.is_empty() {
        spans.push(Span::raw(format!("  filter: {}", safe(&list.filter))));
    }
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let pending = pending_lines(model);
    let body = part(area, 1, area.height.saturating_sub(1 + pending));
    pending_enrolments(model, part(area, area.height.saturating_sub(pending), pending), buf);
    if list.rows.is_empty() {
        empty(model, body, buf);
        return None;
    }
    let columns: &[Column] = if view::is_compact(model) { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|record| row(model, record)).collect();
    table(buf, body, model.theme, columns, &shown, list.cursor_in_window())
}

/// Returns how many of an agent's targets are not as they should be, of all.
pub(crate) fn behind(agent: &Agent) -> String {
    let applied = i32::from(TargetStatus::Applied);
    let behind = agent.targets.iter().filter(|target| target.status != applied).count();
    format!("{behind}/{}", agent.targets.len())
}

fn row(model: &Model, agent: &Agent) -> Row {
    let cells = vec![
        agent.name.clone(),
        agent_status(agent),
        behind(agent),
        ago(model.now, agent.last_seen_at),
        agent.version.clone(),
        agent.os.clone(),
        format!("{} {}", agent.identity_ca, until(model.now, agent.identity_not_after)).trim().to_owned(),
    ];
    Row {
        changed: model.agents.is_changed(agent.id(), model.now),
        gone: model.agents.is_gone(agent.id()),
        ..Row::new(agent_state(agent), cells)
    }
}

fn pending_enrolments(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let waiting = model.pending.iter().filter(|one| is_waiting(model, one.expires_at)).take(PENDING_MAX);
    let lines = waiting.map(|one| {
        Line::from(vec![
            Span::raw("  "),
            Span::styled(theme.glyph(State::Idle), theme.dim()),
            Span::styled(
                format!(
                    " {} was invited; its command is valid for {}",
                    safe(&one.agent),
                    until(model.now, one.expires_at)
                ),
                theme.dim(),
            ),
        ])
    });
    put_all(buf, area, lines);
}

fn empty(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let list = &model.agents;
    let lines: Vec<Line<'_>> = if !list.loaded {
        view::nothing_yet(model)
    } else if !list.filter.is_empty() {
        vec![Line::from(format!("  0 match `{}`. Esc clears the filter.", safe(&list.filter)))]
    } else {
        vec![
            Line::styled("  No agents.", theme.strong()),
            Line::default(),
            Line::from(vec![
                Span::styled("  n", theme.strong()),
                Span::raw("  prints one command to run on the server (valid for one hour)"),
            ]),
            Line::default(),
            Line::styled(
                "  The agent dials out to the controller; no port is opened on the server for it.",
                theme.dim(),
            ),
        ]
    };
    put_all(buf, part(area, 1, u16::MAX), lines);
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> String {
    let list = &model.agents;
    match list.index().and_then(|at| list.rows.get(at)) {
        Some(agent) if list.is_gone(agent.id()) => format!("{} was forgotten", safe(&agent.name)),
        Some(agent) => match agent.problems.first() {
            Some(problem) => safe(&problem.message),
            None => format!("{} on {}", safe(&agent.name), safe(&agent.hostname)),
        },
        None => String::new(),
    }
}
