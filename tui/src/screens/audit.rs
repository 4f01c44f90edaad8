//! The audit: who did what and what came of it, newest first, and whether agents as witnesses agree. It is never changed
//! here, and taken away by the command line, whose command shows.
//!
//! ```text
//!  Audit  filter: since:2026-11-21
//!   S WHEN     WHO          ACT               SUBJECT      RESULT  DETAIL
//!   the acts
//!  ✓ 12 agents agree, up to line 4,711 of 4,713
//!  certwright audit export --out audit.jsonl
//! ```

use proto::clock::to_wire;
use proto::operator::v1::AuditWitness;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::call::{AuditPage, Call, Page};
use crate::app::list::{List, Record};
use crate::client::{AuditAct, AuditFilter};
use crate::screens::words::badge;
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, growing, names, number, table};
use crate::widgets::text::{ago, count, instant, safe, wrap};

/// The witnesses, and the command that takes it away.
const FOOTER_HEIGHT: u16 = 2;
/// From this width on instants stand there in full.
const WIDTH_WIDE: u16 = 120;
/// Cells of a label.
const LABEL_WIDTH: usize = 10;

const COLUMNS: [Column; 6] = [
    fixed("WHEN", 8, 0),
    name("WHO", 12),
    fixed("ACT", 17, 0),
    name("SUBJECT", 12),
    fixed("RESULT", 7, 0),
    growing("DETAIL", 8),
];
const COLUMNS_WIDE: [Column; 7] = [
    number("LINE", 9, 1),
    fixed("WHEN", 17, 0),
    name("WHO", 18),
    fixed("ACT", 18, 0),
    name("SUBJECT", 24),
    fixed("RESULT", 7, 0),
    growing("DETAIL", 20),
];
const COLUMNS_COMPACT: [Column; 3] = [names("WHO", 12), fixed("ACT", 17, 0), fixed("RESULT", 7, 0)];

/// A column of names that leaves the room to the detail.
const fn name(title: &'static str, width: usize) -> Column {
    Column { grows: false, ..names(title, width) }
}

/// An act in the list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActRow {
    id: String,
    act: AuditAct,
}

impl From<AuditAct> for ActRow {
    fn from(act: AuditAct) -> Self {
        Self { id: act.line.seq.to_string(), act }
    }
}

impl Record for ActRow {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        match self.act.result() {
            "done" => State::Ok,
            "refused" => State::Warn,
            "failed" => State::Bad,
            _ => State::Idle,
        }
    }
}

/// The audit as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct AuditScreen {
    /// The acts, newest first.
    pub(crate) list: List<ActRow>,
    /// The last line there is.
    head_seq: u64,
    witnesses: Vec<AuditWitness>,
    unreadable: usize,
    searched_to: u64,
    /// It was refused: it is not asked for again before the operator does. Every refusal is a line of the audit itself.
    refused: bool,
    open: Option<ActRow>,
    /// First line that shows of the open act.
    pub(crate) scroll: usize,
}

impl AuditScreen {
    /// Takes what was read for `filter`, if that is still looked for.
    pub(crate) fn take(&mut self, filter: &AuditFilter, page: AuditPage, now: jiff::Timestamp) {
        if AuditFilter::parse(&self.list.filter).as_ref() != Ok(filter) {
            return;
        }
        let items: Vec<ActRow> = page.acts.into_iter().map(ActRow::from).collect();
        self.open = self.open.take().map(|open| items.iter().find(|row| row.id == open.id).cloned().unwrap_or(open));
        let total = items.len().try_into().unwrap_or(u64::MAX);
        self.list.take(Page { items, total, more: page.more }, now);
        (self.head_seq, self.witnesses) = (page.head_seq, page.witnesses);
        (self.unreadable, self.searched_to) = (page.unreadable, page.searched_to);
    }

    /// Opens the act that the line `seq` asked for.
    pub(crate) fn open(&mut self, seq: u64) {
        let id = seq.to_string();
        if self.open.as_ref().is_none_or(|open| open.id != id) {
            self.open = self.list.rows.iter().find(|row| row.id == id).cloned();
            self.scroll = 0;
        }
    }

    /// It may be asked for again.
    pub(crate) fn refresh(&mut self) {
        self.refused = false;
        self.list.refresh();
    }

    /// The controller did not give it out.
    pub(crate) fn was_refused(&mut self) {
        self.refused = true;
    }
}

/// Returns the role that is missing to see the audit.
pub(crate) fn denied(model: &Model) -> Option<String> {
    let denied = model.who.as_ref()?.denied.iter().find(|denied| denied.rpc == "ListAudit")?;
    Some(format!("needs {}", denied.needs))
}

/// Returns what is to be read: nothing while it would be refused, or while the filter cannot be read.
pub(crate) fn reads(model: &Model) -> Vec<Call> {
    if model.audit.refused || denied(model).is_some() {
        return Vec::new();
    }
    let rows = model.audit.list.rows_wanted();
    AuditFilter::parse(&model.audit.list.filter).map(|filter| Call::Audit { filter, rows }).into_iter().collect()
}

/// Returns the number of the act under the cursor.
pub(crate) fn seq_here(model: &Model) -> Option<u64> {
    model.audit.list.current().map(|row| row.act.line.seq)
}

/// Returns the command that takes away what the filter shows.
pub(crate) fn export_command(model: &Model) -> String {
    AuditFilter::parse(&model.audit.list.filter).unwrap_or_default().export_command()
}

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model).saturating_sub(FOOTER_HEIGHT)).saturating_sub(2)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (theme, screen) = (model.theme, &model.audit);
    let list = &screen.list;
    put(buf, area, 0, &heading(model));
    if let Some(needs) = denied(model) {
        let text = format!("  Who did what is not for every role: it {needs}.");
        put(buf, area, 2, &Line::styled(text, theme.dim()));
        return None;
    }
    let footer = part(area, area.height.saturating_sub(FOOTER_HEIGHT), FOOTER_HEIGHT);
    if list.loaded {
        put(buf, footer, 0, &witness_line(screen, theme));
        put(buf, footer, 1, &Line::styled(format!(" {}", safe(&export_command(model))), theme.accent()));
    }
    let body = part(area, 1, area.height.saturating_sub(1 + FOOTER_HEIGHT));
    if list.rows.is_empty() {
        let lines = match (list.loaded, screen.refused) {
            (true, _) if list.filter.is_empty() => vec![Line::styled("  Nothing was done so far.", theme.dim())],
            (true, _) => vec![Line::from(format!("  0 match `{}`. Esc clears the filter.", safe(&list.filter)))],
            (false, true) => vec![Line::styled("  It could not be read; M says why, R tries again.", theme.dim())],
            (false, false) => view::nothing_yet(model),
        };
        put_all(buf, part(body, 1, u16::MAX), lines);
        return None;
    }
    let wide = model.size.0 >= WIDTH_WIDE;
    let columns: &[Column] = match (view::is_compact(model), wide) {
        (true, _) => &COLUMNS_COMPACT,
        (false, true) => &COLUMNS_WIDE,
        (false, false) => &COLUMNS,
    };
    let shown: Vec<Row> = list.window(rows(model)).map(|one| row(model, one)).collect();
    table(buf, body, theme, columns, &shown, list.cursor_in_window())
}

fn heading(model: &Model) -> Line<'static> {
    let (theme, screen) = (model.theme, &model.audit);
    let filter = &screen.list.filter;
    let mut spans = vec![Span::styled(" Audit", theme.strong())];
    if !filter.is_empty() {
        spans.push(Span::raw(format!("  filter: {}", safe(filter))));
    }
    if let Err(expected) = AuditFilter::parse(filter) {
        spans.push(Span::styled(format!("  ! {expected}"), theme.state(State::Warn)));
    } else if screen.searched_to > 0 {
        let text = format!("  searched down to line {}; until: goes further back", count(screen.searched_to));
        spans.push(Span::styled(text, theme.state(State::Warn)));
    }
    spans.extend(view::read_only_mark(model));
    Line::from(spans)
}

/// What speaks against the audit, else who keeps it besides the controller.
fn witness_line(screen: &AuditScreen, theme: Theme) -> Line<'static> {
    let disagrees = screen.witnesses.iter().find(|witness| !witness.agrees);
    let (state, text) = match disagrees {
        Some(witness) => {
            let (agent, seq) = (safe(&witness.agent), count(witness.seq));
            (State::Bad, format!("agent {agent} keeps another line {seq}: rewritten, or an older database restored"))
        }
        None if screen.unreadable > 0 => {
            (State::Bad, format!("{} line(s) cannot be read: certwright audit verify", screen.unreadable))
        }
        None => match screen.witnesses.iter().map(|witness| witness.seq).max() {
            None => (State::Idle, "no agent keeps its end yet".to_owned()),
            Some(seq) => {
                let agents = screen.witnesses.len();
                let agree = if agents == 1 { "1 agent agrees".to_owned() } else { format!("{agents} agents agree") };
                (State::Ok, format!("{agree}, up to line {} of {}", count(seq), count(screen.head_seq)))
            }
        },
    };
    let mut spans = vec![Span::raw(" ")];
    spans.extend(badge(state, &text, theme).spans);
    Line::from(spans)
}

fn row(model: &Model, one: &ActRow) -> Row {
    let (act, line) = (&one.act, &one.act.line);
    let at = to_wire(Some(line.at));
    let detail: Vec<&str> = [act.why(), act.detail()].into_iter().filter(|part| !part.is_empty()).collect();
    let (who, what, result) = (line.actor.clone(), line.act.clone(), act.result().to_owned());
    let cells = if view::is_compact(model) {
        vec![who, what, result]
    } else if model.size.0 >= WIDTH_WIDE {
        vec![count(line.seq), instant(at), who, what, line.subject.clone(), result, detail.join("; ")]
    } else {
        vec![ago(model.now, at), who, what, line.subject.clone(), result, detail.join("; ")]
    };
    Row {
        changed: model.audit.list.is_changed(one.id(), model.now),
        gone: model.audit.list.is_gone(one.id()),
        ..Row::new(one.state(), cells)
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let list = &model.audit.list;
    let more = if list.more { "+" } else { "" };
    let left = list.index().and_then(|at| list.rows.get(at)).map_or_else(String::new, |row| {
        let line = &row.act.line;
        format!("line {}  {}  from {}", count(line.seq), instant(to_wire(Some(line.at))), safe(&line.from))
    });
    (left, format!("{}{more}", list.position()))
}

/// Paints the open act.
pub(crate) fn paint_act(model: &Model, seq: u64, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let open = model.audit.open.as_ref();
    let right = open.map_or_else(Line::default, |row| badge(row.state(), &format!("{} ", row.act.result()), theme));
    view::record_heading(model, "Audit", &format!("line {}", count(seq)), &right, area, buf);
    let lines = act_lines(model);
    put_all(buf, part(area, 2, u16::MAX), lines.into_iter().skip(model.audit.scroll));
}

/// Returns the lines of the open act: everything that was written of it.
pub(crate) fn act_lines(model: &Model) -> Vec<Line<'static>> {
    let theme = model.theme;
    let Some(ActRow { act, .. }) = &model.audit.open else {
        return vec![Line::styled("  It was not read yet; q goes back to the list.", theme.dim())];
    };
    let line = &act.line;
    let width = usize::from(model.size.0).saturating_sub(LABEL_WIDTH + 2).max(1);
    let ended = act.end.as_ref().map_or_else(
        || if line.result == "refused" { String::new() } else { "nothing is known of it yet".to_owned() },
        |end| format!("{} (line {})", end.at, count(end.seq)),
    );
    let fields = [
        ("at", line.at.to_string()),
        ("who", line.actor.clone()),
        ("from", line.from.clone()),
        ("act", line.act.clone()),
        ("subject", line.subject.clone()),
        ("asked", act.detail().to_owned()),
        ("result", act.result().to_owned()),
        ("why", act.why().to_owned()),
        ("ended", ended),
        ("line", count(line.seq)),
        ("follows", line.previous.clone()),
    ];
    let mut lines = Vec::new();
    for (label, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        for (index, text) in wrap(&value, width).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let label = Span::styled(format!(" {label:<LABEL_WIDTH$}"), theme.dim());
            lines.push(Line::from(vec![label, Span::raw(text)]));
        }
    }
    lines
}
