//! A restore: what the backup was, which agents have shown what they hold, what becomes of that, and how to accept it. Until
//! then nothing acts, and every screen says so.
//!
//! ```text
//!  Overview > Restore                                        ✗ waiting
//!  restored  2h ago by local:root
//!  …
//!  2 of 3 agents have shown what they hold
//!    h3: not connected
//!  What agents hold and the database does not know
//!    web on h1: serial …, is taken over
//! ```

use proto::operator::v1::GetRestoreResponse;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::client::{restore_audit, restore_effects, restore_finding, restore_removals, restore_shown};
use crate::screens::words::badge;
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{put_all, rows as part};
use crate::widgets::text::{ago, instant, safe, until, wrap};

/// Who holds everything still until a restore is accepted, as the controller's pause says it.
const RESTORE: &str = "restore";
/// A restore that is not accepted yet.
pub(crate) const WAITING: &str = "waiting";
/// Cells for what stands before a value.
const LABEL_WIDTH: usize = 11;

/// What is known of the restore.
#[derive(Debug, Default)]
pub(crate) struct RestoreScreen {
    /// The last answer.
    pub(crate) record: Option<GetRestoreResponse>,
    /// First line that shows.
    pub(crate) scroll: usize,
}

/// Whether the controller was restored and nothing acts before that is accepted.
pub(crate) fn waits(model: &Model) -> bool {
    model.pause.as_ref().is_some_and(|pause| pause.by == RESTORE)
}

/// Paints how it stands.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) {
    let right = model.restore.record.as_ref().map_or_else(Line::default, |restore| match restore.state.as_str() {
        WAITING => badge(State::Bad, "waiting: nothing acts ", model.theme),
        "accepted" => badge(State::Ok, "accepted ", model.theme),
        state => badge(State::Idle, &format!("{state} "), model.theme),
    });
    view::record_heading(model, "Overview", "Restore", &right, area, buf);
    put_all(buf, part(area, 2, u16::MAX), lines(model).into_iter().skip(model.restore.scroll));
}

/// Returns everything that is told.
pub(crate) fn lines(model: &Model) -> Vec<Line<'static>> {
    let theme = model.theme;
    let Some(restore) = &model.restore.record else { return view::nothing_yet(model) };
    if restore.restored_at == 0 {
        return vec![Line::from("  This database was never restored.")];
    }
    let width = usize::from(model.size.0).saturating_sub(2);
    let mut told = Told { theme, width, lines: Vec::new() };
    let when = |at: i64| format!("{} ({})", instant(at), ago(model.now, at));
    told.field("restored", &format!("{} by {}", when(restore.restored_at), restore.restored_by));
    let backup = match restore.backup_at {
        0 => "none: the database was put back by other means".to_owned(),
        at => format!("of {}, {}", restore.controller, when(at)),
    };
    told.field("backup", &backup);
    if restore.accepted_at > 0 {
        told.field("accepted", &format!("{} by {}", when(restore.accepted_at), restore.accepted_by));
    }
    told.field("removals", &restore_removals(restore));
    told.field("audit", &restore_audit(restore));
    let waiting = restore.state == WAITING;
    if waiting && !restore.operators.is_empty() {
        told.field("operators", &restore.operators.join(", "));
    }
    told.section(&restore_shown(restore));
    for agent in &restore.agents {
        match (agent.shown, agent.connected) {
            (true, _) => told.item(State::Ok, &agent.name),
            (false, true) => {
                told.item(State::Busy, &format!("{}: connected, has not shown what it holds yet", agent.name));
            }
            (false, false) => told.item(State::Warn, &format!("{}: not connected", agent.name)),
        }
    }
    if !restore.findings.is_empty() {
        told.section("what agents hold and the database does not know");
    }
    for finding in &restore.findings {
        let state = match finding.outcome.as_str() {
            "import" => State::Ok,
            "unknown" => State::Idle,
            _ => State::Warn,
        };
        let valid = format!("{} ({})", instant(finding.not_after), until(model.now, finding.not_after));
        told.item(state, &restore_finding(finding, &valid));
    }
    if waiting {
        told.section("nothing is ordered or published before it is accepted: A, or certwright restore accept");
        restore_effects(restore).iter().for_each(|text| told.text(text));
    }
    told.lines
}

struct Told {
    theme: Theme,
    width: usize,
    lines: Vec<Line<'static>>,
}

impl Told {
    fn field(&mut self, label: &str, value: &str) {
        for (index, text) in wrap(&safe(value), self.width.saturating_sub(LABEL_WIDTH + 1)).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let lead = Span::styled(format!(" {label:<LABEL_WIDTH$}"), self.theme.dim());
            self.lines.push(Line::from(vec![lead, Span::raw(text)]));
        }
    }

    fn section(&mut self, text: &str) {
        self.lines.push(Line::default());
        let parts = wrap(text, self.width).into_iter();
        self.lines.extend(parts.map(|part| Line::styled(format!(" {part}"), self.theme.strong())));
    }

    fn item(&mut self, state: State, text: &str) {
        for (index, part) in wrap(&safe(text), self.width.saturating_sub(4)).into_iter().enumerate() {
            let glyph = if index == 0 { self.theme.glyph(state) } else { " " };
            let glyph = Span::styled(format!("   {glyph} "), self.theme.state(state));
            self.lines.push(Line::from(vec![glyph, Span::raw(part)]));
        }
    }

    fn text(&mut self, text: &str) {
        let parts = wrap(text, self.width.saturating_sub(2)).into_iter();
        self.lines.extend(parts.map(|part| Line::from(format!("   {part}"))));
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let Some(restore) = &model.restore.record else { return (String::new(), String::new()) };
    let left = if restore.state == WAITING { restore_shown(restore) } else { String::new() };
    (left, format!("restore {}", safe(&restore.state)))
}
