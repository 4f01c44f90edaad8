//! Boxes and lines on a buffer, clipped to their area whatever its size. Pure.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Widget as _};

use crate::theme::Theme;
use crate::widgets::text::cut;

/// Paints a line in row `row` of `area`; rows outside are dropped.
pub(crate) fn put(buf: &mut Buffer, area: Rect, row: u16, line: &Line<'_>) {
    let area = area.intersection(buf.area);
    if row < area.height && area.width > 0 {
        buf.set_line(area.x, area.y.saturating_add(row), line, area.width);
    }
}

/// Paints `text` at the right end of row `row`, if there is room for it.
pub(crate) fn put_right(buf: &mut Buffer, area: Rect, row: u16, line: &Line<'_>) {
    let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
    if width <= area.width {
        let at = Rect { x: area.x.saturating_add(area.width - width), width, ..area };
        put(buf, at, row, line);
    }
}

/// Paints lines from the top of `area`.
pub(crate) fn put_all<'a>(buf: &mut Buffer, area: Rect, lines: impl IntoIterator<Item = Line<'a>>) {
    for (row, line) in (0_u16..).zip(lines) {
        put(buf, area, row, &line);
    }
}

/// Paints a box with a title at the left and a remark at the right; returns the area inside.
pub(crate) fn panel(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, remark: &str) -> Rect {
    let area = area.intersection(buf.area);
    let room = usize::from(area.width.saturating_sub(6));
    let title = cut(title, room, theme.cut());
    let left = room.saturating_sub(unicode_width::UnicodeWidthStr::width(title.as_str()) + 2);
    let mut block = Block::bordered().border_set(theme.border());
    if !title.is_empty() {
        block = block.title(Line::from(format!(" {title} ")));
    }
    let remark = cut(remark, left, theme.cut());
    if !remark.is_empty() && left > 8 {
        block = block.title(Line::from(format!(" {remark} ")).right_aligned());
    }
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// Empties an area and paints a box there: dialogs and menus.
pub(crate) fn layer(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, remark: &str) -> Rect {
    Clear.render(area.intersection(buf.area), buf);
    panel(buf, area, theme, title, remark)
}

/// Returns the rows of `area` from `top` on, at most `height`.
pub(crate) fn rows(area: Rect, top: u16, height: u16) -> Rect {
    let top = top.min(area.height);
    Rect { y: area.y.saturating_add(top), height: height.min(area.height - top), ..area }
}

/// Returns an area of at most this size in the middle of `area`.
pub(crate) fn centered(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect {
        x: area.x.saturating_add((area.width - width) / 2),
        y: area.y.saturating_add((area.height - height) / 2),
        width,
        height,
    }
}

/// Splits `area` into a left part and `right` columns at its right.
pub(crate) fn split_right(area: Rect, right: u16) -> (Rect, Rect) {
    let right = right.min(area.width);
    let left = area.width - right;
    (Rect { width: left, ..area }, Rect { x: area.x.saturating_add(left), width: right, ..area })
}
