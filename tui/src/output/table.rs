//! Columns for people: padded, headed, and cut to the terminal when there is one. Cells are made safe here.

use proto::text;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Longest cell, terminal or not.
const CELL_CHARS_MAX: usize = 200;
/// A column is not cut below this.
const COLUMN_WIDTH_MIN: usize = 6;
const GAP: &str = "  ";

/// A head and rows of the same length.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |cell: String| if cell.is_empty() { "-".to_owned() } else { text::one_line(&cell, CELL_CHARS_MAX) };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// Returns the lines, cut to `width` columns if there is one.
    pub(crate) fn render(&self, width: Option<u16>) -> String {
        let widths = self.widths(width.map(usize::from));
        let mut out = String::new();
        let head: Vec<String> = self.head.iter().map(|&title| title.to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let cell = cut(cell, *width);
                line.push_str(&cell);
                line.push_str(&" ".repeat(width.saturating_sub(cell.width())));
                line.push_str(GAP);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len().saturating_mul(widths.len().saturating_sub(1));
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        // The widest column gives way first, so that names stay whole as long as possible.
        while excess > 0 {
            match widths.iter_mut().max() {
                Some(widest) if *widest > COLUMN_WIDTH_MIN => *widest -= 1,
                _ => break,
            }
            excess -= 1;
        }
        widths
    }
}

/// Returns `text` in at most `width` columns, with `…` where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for ch in text.chars() {
        used += ch.width().unwrap_or(0);
        if used >= width {
            break;
        }
        out.push(ch);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "WHY"]);
        table.row(["web".to_owned(), "the CA could not reach port 80".to_owned()]);
        table.row(["日本".to_owned(), String::new()]);
        table
    }

    #[test]
    fn columns_line_up_and_are_whole_without_a_terminal() {
        assert_eq!(table().render(None), "NAME  WHY\nweb   the CA could not reach port 80\n日本  -\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_column() {
        assert_eq!(table().render(Some(20)), "NAME  WHY\nweb   the CA could …\n日本  -\n");
        assert!(table().render(Some(1)).lines().all(|line| line.width() <= 12));
    }

    #[test]
    fn a_cell_cannot_command_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\u{1b}[2J\nb".to_owned()]);
        assert_eq!(table.render(None), "NAME\na<U+001B>[2J b\n");
    }
}
