//! A table of the rows in the window: columns are dropped by rank when there is no room for them, names are cut at the end
//! that says less. The row under the cursor is reverse video and starts with `>`, so it shows without colour. Pure.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use crate::theme::{State, Theme};
use crate::widgets::panel::put;
use crate::widgets::text::{cut, cut_start, narrow};

/// Cells before the first column: cursor, mark, state, gap.
const LEAD: usize = 4;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Heading.
    pub(crate) title: &'static str,
    /// Cells it needs.
    pub(crate) width: usize,
    /// Whether it takes what is left over.
    pub(crate) grows: bool,
    /// Numbers stand at the right.
    pub(crate) right: bool,
    /// Long texts lose their start, not their end.
    pub(crate) keep_end: bool,
    /// The highest rank is dropped first; 0 stays.
    pub(crate) rank: u8,
}

/// A column of fixed width.
pub(crate) const fn fixed(title: &'static str, width: usize, rank: u8) -> Column {
    Column { title, width, grows: false, right: false, keep_end: false, rank }
}

/// A column that takes the room that is left.
pub(crate) const fn growing(title: &'static str, width: usize) -> Column {
    Column { title, width, grows: true, right: false, keep_end: false, rank: 0 }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str, width: usize, rank: u8) -> Column {
    Column { title, width, grows: false, right: true, keep_end: false, rank }
}

/// A column of host names that takes the room that is left.
pub(crate) const fn names(title: &'static str, width: usize) -> Column {
    Column { title, width, grows: true, right: false, keep_end: true, rank: 0 }
}

/// One row: as many cells as the table has columns.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// How the record stands.
    pub(crate) state: State,
    /// Texts, not yet made safe.
    pub(crate) cells: Vec<String>,
    /// Changed a moment ago.
    pub(crate) changed: bool,
    /// No longer there.
    pub(crate) gone: bool,
    /// Marked by the operator.
    pub(crate) marked: bool,
}

impl Row {
    /// Returns a row that stands as `state`.
    pub(crate) fn new(state: State, cells: Vec<String>) -> Self {
        Self { state, cells, changed: false, gone: false, marked: false }
    }
}

/// Paints headings and rows; `selected` counts within `rows`. Returns where the cursor belongs.
pub(crate) fn table(
    buf: &mut Buffer,
    area: Rect,
    theme: Theme,
    columns: &[Column],
    rows: &[Row],
    selected: Option<usize>,
) -> Option<Position> {
    let widths = fit(columns, usize::from(area.width).saturating_sub(LEAD));
    put(buf, area, 0, &Line::styled(format!("  S {}", headings(columns, &widths)), theme.dim()));
    let mut cursor = None;
    for (index, row) in rows.iter().enumerate() {
        let Ok(line) = u16::try_from(index + 1) else { break };
        if line >= area.height {
            break;
        }
        let at_cursor = selected == Some(index);
        put(buf, area, line, &paint(theme, columns, &widths, row, at_cursor));
        if at_cursor {
            let at = Rect { y: area.y.saturating_add(line), height: 1, ..area };
            buf.set_style(at, theme.reverse());
            cursor = Some(Position { x: area.x, y: at.y });
        }
    }
    cursor
}

fn paint(theme: Theme, columns: &[Column], widths: &[usize], row: &Row, at_cursor: bool) -> Line<'static> {
    let base = if row.gone { theme.gone() } else { Style::new() };
    let lead = if at_cursor { ">" } else { " " };
    let mark = match (row.marked, row.changed) {
        (true, _) => "*",
        (false, true) => "~",
        (false, false) => " ",
    };
    let state = if at_cursor { theme.state(row.state).remove_modifier(Modifier::DIM) } else { theme.state(row.state) };
    let mut spans =
        vec![Span::raw(format!("{lead}{mark}")), Span::styled(theme.glyph(row.state), state), Span::raw(" ")];
    let mut first = true;
    for ((column, width), cell) in columns.iter().zip(widths).zip(&row.cells) {
        if *width == 0 {
            continue;
        }
        if !first {
            spans.push(Span::raw(" "));
        }
        first = false;
        spans.push(Span::styled(aligned(*column, *width, cell, theme), base));
    }
    Line::from(spans)
}

fn aligned(column: Column, width: usize, cell: &str, theme: Theme) -> String {
    let text = narrow(cell);
    let text = if column.keep_end { cut_start(&text, width, theme.cut()) } else { cut(&text, width, theme.cut()) };
    let gap = " ".repeat(width.saturating_sub(text.width()));
    if column.right { format!("{gap}{text}") } else { format!("{text}{gap}") }
}

fn headings(columns: &[Column], widths: &[usize]) -> String {
    let shown = columns.iter().zip(widths).filter(|(_, width)| **width > 0);
    let titles =
        shown.map(
            |(column, width)| {
                if column.right { format!("{:>width$}", column.title) } else { format!("{:<width$}", column.title) }
            },
        );
    titles.collect::<Vec<_>>().join(" ")
}

/// Returns each column's width; 0 for a column that has no room.
fn fit(columns: &[Column], room: usize) -> Vec<usize> {
    let mut kept: Vec<bool> = vec![true; columns.len()];
    loop {
        let need = needed(columns, &kept);
        if need <= room {
            break;
        }
        let worst = columns.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(column, _)| column.rank).max();
        match worst {
            Some(rank) if rank > 0 => {
                let last =
                    columns.iter().zip(kept.iter_mut()).rev().find(|(column, kept)| **kept && column.rank == rank);
                if let Some((_, kept)) = last {
                    *kept = false;
                }
            }
            _ => break,
        }
    }
    let spare = room.saturating_sub(needed(columns, &kept));
    let growers = columns.iter().zip(&kept).filter(|(column, kept)| column.grows && **kept).count().max(1);
    let each = spare / growers;
    let widths = columns.iter().zip(&kept).map(|(column, kept)| match (kept, column.grows) {
        (false, _) => 0,
        (true, true) => (column.width + each).min(room),
        (true, false) => column.width.min(room),
    });
    widths.collect()
}

fn needed(columns: &[Column], kept: &[bool]) -> usize {
    let widths = columns.iter().zip(kept).filter(|(_, kept)| **kept).map(|(column, _)| column.width + 1);
    widths.sum::<usize>().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [names("NAME", 10), fixed("STATUS", 8, 0), number("EXPIRES", 7, 1), fixed("ISSUER", 9, 2)];

    #[test]
    fn columns_go_by_rank_and_the_name_takes_the_rest() {
        assert_eq!(fit(&COLUMNS, 60), [33, 8, 7, 9]);
        assert_eq!(fit(&COLUMNS, 30), [13, 8, 7, 0]);
        assert_eq!(fit(&COLUMNS, 19), [10, 8, 0, 0]);
    }

    #[test]
    fn no_size_panics() {
        let theme = Theme { color: true, ascii: false };
        let row = Row::new(State::Ok, vec!["api.example.com".into(), "active".into(), "67d".into(), "LE".into()]);
        for width in 0..70 {
            for height in 0..4 {
                let area = Rect::new(0, 0, width, height);
                let mut buf = Buffer::empty(area);
                table(&mut buf, area, theme, &COLUMNS, &[row.clone(), row.clone()], Some(1));
            }
        }
    }
}
