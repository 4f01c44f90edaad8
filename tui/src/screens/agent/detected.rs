//! What an agent found on its server: the suggestions as rows, the one under the cursor as a difference, and below them all
//! that was found.
//!
//! ```text
//!    SUGGESTION         DOES           DIRECTORY
//!  > www.example.com    certificate    /etc/nginx/ssl/www
//!      + certificate www.example.com for www.example.com …
//!  services
//!    nginx  runs as nginx.service
//! ```

use proto::operator::v1::{Detected, Suggestion};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::Model;
use crate::client::{DetectedLine, detected_lines, suggestion_lines};
use crate::theme::{State, Theme};
use crate::widgets::panel::{put_all, rows as part};
use crate::widgets::table::{Row, fixed, growing, names, table};
use crate::widgets::text::{ago, safe};

/// Rows of suggestions that show at once.
const ROWS_MAX: usize = 8;

/// Returns how many rows and lines the cursor may go through.
pub(super) fn lines(found: Option<&Detected>) -> usize {
    found.map_or(0, |found| found.suggestions.len() + found_lines(found).len())
}

/// Returns the suggestion under the cursor.
pub(super) fn under(found: Option<&Detected>, cursor: usize) -> Option<&Suggestion> {
    found?.suggestions.get(cursor)
}

/// All but the suggestions.
fn found_lines(found: &Detected) -> Vec<DetectedLine> {
    let is_other = |line: &DetectedLine| !matches!(line, DetectedLine::Section(title) if title == "suggestions");
    detected_lines(found).into_iter().take_while(is_other).collect()
}

pub(super) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    let found = model.agent.detected.as_ref().filter(|found| found.seen_at > 0);
    let Some(found) = found else {
        let lines = [
            Line::from("  Nothing was looked at yet."),
            Line::styled("  t: the agent looks at its server now; it changes nothing", theme.dim()),
        ];
        put_all(buf, part(area, 1, u16::MAX), lines);
        return None;
    };
    let cursor = model.agent.cursor;
    let count = found.suggestions.len();
    let room = count.min(ROWS_MAX);
    let at = cursor.min(count.saturating_sub(1));
    let first = (at + 1).saturating_sub(room.max(1));
    let rows: Vec<Row> = found.suggestions.iter().skip(first).take(room).map(row).collect();
    let height = u16::try_from(room + 1).unwrap_or(u16::MAX);
    let columns = [names("SUGGESTION", 16), fixed("DOES", 16, 0), growing("DIRECTORY", 20)];
    let marked = (cursor < count).then(|| cursor - first);
    let place = match count {
        0 => {
            put_all(buf, part(area, 0, 1), [Line::styled("  Nothing is suggested.", theme.dim())]);
            None
        }
        _ => table(buf, part(area, 0, height), theme, &columns, &rows, marked),
    };
    let mut lines = vec![Line::styled(format!("  looked at {}", ago(model.now, found.seen_at)), theme.dim())];
    if let Some(one) = under(Some(found), cursor) {
        lines.extend(suggestion_lines(one).iter().skip(1).map(|line| styled(line, theme)));
    }
    lines.extend(found_lines(found).iter().skip(cursor.saturating_sub(count)).map(|line| styled(line, theme)));
    put_all(buf, part(area, height, u16::MAX), lines);
    place
}

fn row(one: &Suggestion) -> Row {
    let (state, does) = match one.kind.as_str() {
        "present" => (State::Ok, "is there"),
        "target" => (State::Idle, "adds a target"),
        _ if one.adopts => (State::Idle, "takes over"),
        _ => (State::Idle, "new certificate"),
    };
    let state = if one.policy.is_empty() { state } else { State::Warn };
    let dir = one.target.as_ref().map(|target| target.dir.clone()).unwrap_or_default();
    Row::new(state, vec![one.name.clone(), does.to_owned(), dir])
}

fn styled(line: &DetectedLine, theme: Theme) -> Line<'static> {
    match line {
        DetectedLine::Section(text) => Line::styled(format!(" {}", safe(text)), theme.strong()),
        DetectedLine::Text(text) => Line::from(format!("   {}", safe(text))),
        DetectedLine::Below(text) => Line::styled(format!("     {}", safe(text)), theme.dim()),
    }
}
