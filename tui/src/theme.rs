//! Colours and glyphs. A state is a glyph and a word; colour only repeats it (tui.md §2.15). No background is ever
//! painted, and without colour bold, dim, reverse and underline remain. Used by `view`, `screens` and `widgets`.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing to do.
    Ok,
    /// Someone should look.
    Warn,
    /// Failed.
    Bad,
    /// Being worked on.
    Busy,
    /// Waiting, or not there yet.
    Idle,
    /// Switched off.
    Off,
}

impl State {
    /// Whether someone has to do something.
    pub(crate) fn needs_someone(self) -> bool {
        matches!(self, Self::Warn | Self::Bad)
    }
}

/// What to paint with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Theme {
    /// False: modifiers only.
    pub(crate) color: bool,
    /// Only ASCII glyphs.
    pub(crate) ascii: bool,
}

const BORDER_ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};
const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const BARS_ASCII: [&str; 9] = [" ", "_", "_", ".", ".", "-", "=", "#", "#"];

impl Theme {
    fn fg(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Returns the style of a state.
    pub(crate) fn state(self, state: State) -> Style {
        match state {
            State::Ok => self.fg(Color::Green),
            State::Warn => self.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            State::Bad => self.fg(Color::Red).add_modifier(Modifier::BOLD),
            State::Busy => self.fg(Color::Cyan),
            State::Idle | State::Off => self.dim(),
        }
    }

    /// Returns the glyph of a state; one cell wide.
    pub(crate) fn glyph(self, state: State) -> &'static str {
        match (state, self.ascii) {
            (State::Ok, false) => "✓",
            (State::Ok, true) => "+",
            (State::Warn, _) => "!",
            (State::Bad, false) => "✗",
            (State::Bad, true) => "x",
            (State::Busy, false) => "⠹",
            (State::Busy, true) => "~",
            (State::Idle, false) => "·",
            (State::Idle, true) => ".",
            (State::Off, false) => "–",
            (State::Off, true) => "-",
        }
    }

    /// Returns the mark of a text that was cut.
    pub(crate) fn cut(self) -> &'static str {
        if self.ascii { "~" } else { "…" }
    }

    /// Returns the border of boxes.
    pub(crate) fn border(self) -> border::Set<'static> {
        if self.ascii { BORDER_ASCII } else { border::PLAIN }
    }

    /// Returns a bar of `eighths` eighths of a cell.
    pub(crate) fn bar(self, eighths: usize) -> &'static str {
        let bars = if self.ascii { &BARS_ASCII } else { &BARS };
        bars.get(eighths).copied().unwrap_or(if self.ascii { "#" } else { "█" })
    }

    /// Returns the style of what matters less.
    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Returns the style of headings and keys.
    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Returns the style of the row under the cursor and of the title line.
    pub(crate) fn reverse(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Returns the style of something to read first in a text: a command, a path.
    pub(crate) fn accent(self) -> Style {
        self.fg(Color::Cyan)
    }

    /// Returns the style of a record that is no longer there.
    pub(crate) fn gone(self) -> Style {
        Style::new().add_modifier(Modifier::CROSSED_OUT | Modifier::DIM)
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::*;

    #[test]
    fn every_glyph_is_one_cell_and_ascii_is_ascii() {
        for ascii in [false, true] {
            let theme = Theme { color: true, ascii };
            for state in [State::Ok, State::Warn, State::Bad, State::Busy, State::Idle, State::Off] {
                let glyph = theme.glyph(state);
                assert_eq!(glyph.width(), 1, "{glyph}");
                assert!(!ascii || glyph.is_ascii());
            }
            assert!((0..9).all(|eighths| theme.bar(eighths).width() == 1));
        }
    }

    #[test]
    fn without_colour_no_colour_is_set() {
        let theme = Theme { color: false, ascii: true };
        for state in [State::Ok, State::Warn, State::Bad, State::Busy, State::Idle, State::Off] {
            assert_eq!(theme.state(state).fg, None);
            assert_eq!(theme.state(state).bg, None);
        }
    }
}
