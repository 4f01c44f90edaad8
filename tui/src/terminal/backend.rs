//! Turns changed cells into the fewest bytes: classic SGR codes, merged; short moves; `ESC[K` for blank tails; cursor
//! visibility only when it changes. It writes to memory only: `FrameWriter` sends a whole frame at once. Called by ratatui.

use std::convert::Infallible;
use std::fmt::Write as _;

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr as _;

/// A blank tail shorter than this is cheaper as spaces than as `ESC[0m ESC[K`.
const BLANK_TAIL_MIN: usize = 5;

/// What the terminal was last told to paint with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paint {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

const PLAIN: Paint = Paint { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() };

/// A ratatui backend that keeps its bytes until they are taken.
#[derive(Debug)]
pub(crate) struct LeanBackend {
    bytes: String,
    size: Size,
    /// Where the terminal's cursor is; `None` when that is not certain.
    at: Option<Position>,
    paint: Option<Paint>,
    cursor_shown: Option<bool>,
    /// Per cell, row by row: whether the terminal shows a plain blank there.
    blank: Vec<bool>,
}

impl LeanBackend {
    /// Returns a backend for a terminal of `size` whose content is unknown.
    pub(crate) fn new(size: Size) -> Self {
        let mut backend =
            Self { bytes: String::new(), size, at: None, paint: None, cursor_shown: None, blank: Vec::new() };
        backend.forget();
        backend
    }

    /// Tells the backend that the window has a new size.
    pub(crate) fn resize(&mut self, size: Size) {
        self.size = size;
        self.forget();
    }

    /// Forgets everything known about the terminal: after a resume, or when someone else wrote to it.
    pub(crate) fn forget(&mut self) {
        self.at = None;
        self.paint = None;
        self.cursor_shown = None;
        self.fill(false);
    }

    /// Takes the bytes written since the last call.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.bytes)
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.bytes.write_fmt(arguments).expect("writing to a String does not fail");
    }

    fn go(&mut self, to: Position) {
        match self.at {
            Some(at) if at == to => {}
            Some(at) if at.y == to.y && at.x < to.x && at.x < self.size.width => match to.x - at.x {
                1 => self.bytes.push_str("\x1b[C"),
                gap => self.put(format_args!("\x1b[{gap}C")),
            },
            Some(at) if to.x == 0 && at.y.checked_add(1) == Some(to.y) => self.bytes.push_str("\r\n"),
            _ => self.put(format_args!("\x1b[{};{}H", to.y.saturating_add(1), to.x.saturating_add(1))),
        }
        self.at = Some(to);
    }

    fn paint(&mut self, to: Paint) {
        if self.paint == Some(to) {
            return;
        }
        let mut codes: Vec<String> = Vec::new();
        let mut from = self.paint.unwrap_or(PLAIN);
        if self.paint.is_none() || !to.modifier.contains(from.modifier) || (to == PLAIN && from != PLAIN) {
            codes.push("0".to_owned());
            from = PLAIN;
        }
        for (modifier, code) in MODIFIERS {
            if to.modifier.contains(modifier) && !from.modifier.contains(modifier) {
                codes.push(code.to_owned());
            }
        }
        if to.fg != from.fg {
            codes.push(color_code(to.fg, 30));
        }
        if to.bg != from.bg {
            codes.push(color_code(to.bg, 40));
        }
        let codes = if codes.len() == 1 && codes.first().is_some_and(|code| code == "0") {
            String::new()
        } else {
            codes.join(";")
        };
        self.put(format_args!("\x1b[{codes}m"));
        self.paint = Some(to);
    }

    fn fill(&mut self, blank: bool) {
        self.blank = vec![blank; usize::from(self.size.width) * usize::from(self.size.height)];
    }

    fn note(&mut self, at: Position, blank: bool) {
        let index = usize::from(at.y) * usize::from(self.size.width) + usize::from(at.x);
        if at.x < self.size.width
            && let Some(known) = self.blank.get_mut(index)
        {
            *known = blank;
        }
    }

    /// Returns how many of the changed cells `cells` are the blank rest of a row, or 0 when something else follows in it.
    fn blank_tail(&self, cells: &[(u16, u16, &Cell)]) -> usize {
        let Some((first, y, _)) = cells.first() else { return 0 };
        let start = usize::from(*y) * usize::from(self.size.width);
        let row = self.blank.get(start..start + usize::from(self.size.width)).unwrap_or(&[]);
        let (mut count, mut next) = (0, usize::from(*first));
        let known_blank =
            |from: usize, to: usize| row.get(from..to).is_some_and(|cells| cells.iter().all(|blank| *blank));
        for (x, _, cell) in cells.iter().take_while(|(_, at_y, _)| at_y == y) {
            let x = usize::from(*x);
            if !is_blank(cell) || !known_blank(next, x) {
                return 0;
            }
            next = x + 1;
            count += 1;
        }
        if known_blank(next, row.len()) { count } else { 0 }
    }

    /// Whether a word goes on from the end of one row at the start of the next: then the terminal itself wraps, and a
    /// selection of both rows copies one word. A join token is longer than 80 columns.
    fn continues(&self, at: Position, cell: &Cell) -> bool {
        let wraps = at.x == 0
            && self.at.is_some_and(|was| was.x == self.size.width && was.y.checked_add(1) == Some(at.y))
            && self.bytes.ends_with(is_of_word);
        wraps && cell.symbol().chars().all(is_of_word) && self.paint == Some(paint_of(cell))
    }

    /// Writes one cell and keeps account of blanks.
    fn cell(&mut self, at: Position, cell: &Cell) {
        if !self.continues(at, cell) {
            self.go(at);
        }
        self.paint(paint_of(cell));
        let symbol = if cell.symbol().is_empty() { " " } else { cell.symbol() };
        self.bytes.push_str(symbol);
        let width = u16::try_from(symbol.width()).unwrap_or(1).max(1);
        let end = at.x.saturating_add(width);
        self.at = Some(Position { x: end, y: at.y });
        for x in at.x..end {
            self.note(Position { x, y: at.y }, is_blank(cell));
        }
    }
}

const MODIFIERS: [(Modifier, &str); 6] = [
    (Modifier::BOLD, "1"),
    (Modifier::DIM, "2"),
    (Modifier::ITALIC, "3"),
    (Modifier::UNDERLINED, "4"),
    (Modifier::REVERSED, "7"),
    (Modifier::CROSSED_OUT, "9"),
];

fn color_code(color: Color, base: u8) -> String {
    let plain = |offset: u8| (base + offset).to_string();
    match color {
        Color::Reset => plain(9),
        Color::Black => plain(0),
        Color::Red => plain(1),
        Color::Green => plain(2),
        Color::Yellow => plain(3),
        Color::Blue => plain(4),
        Color::Magenta => plain(5),
        Color::Cyan => plain(6),
        Color::Gray => plain(7),
        Color::DarkGray => plain(60),
        Color::LightRed => plain(61),
        Color::LightGreen => plain(62),
        Color::LightYellow => plain(63),
        Color::LightBlue => plain(64),
        Color::LightMagenta => plain(65),
        Color::LightCyan => plain(66),
        Color::White => plain(67),
        Color::Indexed(index) => format!("{};5;{index}", base + 8),
        Color::Rgb(red, green, blue) => format!("{};2;{red};{green};{blue}", base + 8),
    }
}

fn is_of_word(ch: char) -> bool {
    ch.is_ascii_alphanumeric() || matches!(ch, '.' | '-' | '_')
}

fn paint_of(cell: &Cell) -> Paint {
    Paint { fg: cell.fg, bg: cell.bg, modifier: cell.modifier }
}

fn is_blank(cell: &Cell) -> bool {
    matches!(cell.symbol(), " " | "") && paint_of(cell) == PLAIN
}

impl Backend for LeanBackend {
    type Error = Infallible;

    fn draw<'a, I>(&mut self, content: I) -> Result<(), Infallible>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let cells: Vec<(u16, u16, &Cell)> = content.collect();
        let mut rest = cells.as_slice();
        while let Some(((x, y, cell), after)) = rest.split_first() {
            let at = Position { x: *x, y: *y };
            let tail = self.blank_tail(rest);
            if tail >= BLANK_TAIL_MIN {
                self.go(at);
                self.paint(PLAIN);
                self.bytes.push_str("\x1b[K");
                for x in at.x..self.size.width {
                    self.note(Position { x, y: at.y }, true);
                }
                rest = rest.get(tail..).unwrap_or(&[]);
            } else {
                self.cell(at, cell);
                rest = after;
            }
        }
        Ok(())
    }

    fn hide_cursor(&mut self) -> Result<(), Infallible> {
        if self.cursor_shown != Some(false) {
            self.bytes.push_str("\x1b[?25l");
            self.cursor_shown = Some(false);
        }
        Ok(())
    }

    fn show_cursor(&mut self) -> Result<(), Infallible> {
        if self.cursor_shown != Some(true) {
            self.bytes.push_str("\x1b[?25h");
            self.cursor_shown = Some(true);
        }
        Ok(())
    }

    fn get_cursor_position(&mut self) -> Result<Position, Infallible> {
        Ok(self.at.unwrap_or_default())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<(), Infallible> {
        self.go(position.into());
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        self.clear_region(ClearType::All)
    }

    /// Clears everything, whatever is asked: the dashboard never needs less.
    fn clear_region(&mut self, _: ClearType) -> Result<(), Infallible> {
        self.paint(PLAIN);
        self.bytes.push_str("\x1b[2J");
        self.fill(true);
        Ok(())
    }

    fn size(&self) -> Result<Size, Infallible> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> Result<WindowSize, Infallible> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::default() })
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::buffer::Buffer;
    use ratatui::style::Style;

    use super::*;

    const WIDTH: u16 = 24;
    const HEIGHT: u16 = 6;

    fn terminal() -> Terminal<LeanBackend> {
        let mut terminal = Terminal::new(LeanBackend::new(Size::new(WIDTH, HEIGHT))).unwrap();
        terminal.clear().unwrap();
        terminal
    }

    fn screen() -> vt100::Parser {
        vt100::Parser::new(NonZeroU16::new(HEIGHT).unwrap(), NonZeroU16::new(WIDTH).unwrap(), 0)
    }

    fn same_as_terminal(buffer: &Buffer, screen: &vt100::Screen) -> Result<(), String> {
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let want = &buffer[(x, y)];
                let have = screen.cell(y, x).ok_or("no cell")?;
                let text = if have.contents().is_empty() { " " } else { have.contents() };
                let fg = match want.fg {
                    Color::Red => vt100::Color::Idx(1),
                    Color::Cyan => vt100::Color::Idx(6),
                    _ => vt100::Color::Default,
                };
                let equal = text == want.symbol()
                    && have.inverse() == want.modifier.contains(Modifier::REVERSED)
                    && have.bold() == want.modifier.contains(Modifier::BOLD)
                    && (text == " " || have.fgcolor() == fg);
                if !equal {
                    return Err(format!("at {x},{y}: terminal {text:?}, buffer {want:?}"));
                }
            }
        }
        Ok(())
    }

    type Write = (u16, u16, String, u8);

    fn paint_frame(terminal: &mut Terminal<LeanBackend>, writes: &[Write]) -> Buffer {
        terminal
            .draw(|frame| {
                for (x, y, text, look) in writes {
                    let style = match look {
                        0 => Style::new(),
                        1 => Style::new().red(),
                        2 => Style::new().reversed(),
                        _ => Style::new().cyan().bold(),
                    };
                    frame.buffer_mut().set_stringn(*x, *y, text, usize::from(WIDTH - *x), style);
                }
            })
            .unwrap()
            .buffer
            .clone()
    }

    fn writes() -> impl Strategy<Value = Vec<Write>> {
        prop::collection::vec((0..WIDTH, 0..HEIGHT, "[a-z ✓─]{0,24}", 0_u8..4), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn what_the_terminal_shows_is_the_buffer(frames in prop::collection::vec(writes(), 1..6)) {
            let mut terminal = terminal();
            let mut parser = screen();
            for frame in frames {
                let buffer = paint_frame(&mut terminal, &frame);
                parser.process(terminal.backend_mut().take().as_bytes());
                prop_assert_eq!(same_as_terminal(&buffer, parser.screen()), Ok(()));
            }
        }
    }

    #[test]
    fn an_unchanged_frame_costs_nothing() {
        let mut terminal = terminal();
        let frame = vec![(0, 0, "hello".to_owned(), 2)];
        paint_frame(&mut terminal, &frame);
        assert!(!terminal.backend_mut().take().is_empty());
        paint_frame(&mut terminal, &frame);
        assert_eq!(terminal.backend_mut().take(), "");
    }

    #[test]
    fn a_word_over_two_rows_is_wrapped_by_the_terminal_itself() {
        let mut terminal = terminal();
        let (first, second) = ("a".repeat(usize::from(WIDTH)), "bcd".to_owned());
        let buffer = paint_frame(&mut terminal, &[(0, 1, first.clone(), 1), (0, 2, second.clone(), 1)]);
        let mut parser = screen();
        parser.process(terminal.backend_mut().take().as_bytes());
        assert_eq!(same_as_terminal(&buffer, parser.screen()), Ok(()));
        assert!(parser.screen().contents().contains(&format!("{first}{second}")), "one word when it is copied");
    }

    #[test]
    fn a_shorter_text_clears_the_rest_with_one_code() {
        let mut terminal = terminal();
        paint_frame(&mut terminal, &[(0, 0, "a long line of text".to_owned(), 0)]);
        terminal.backend_mut().take();
        paint_frame(&mut terminal, &[(0, 0, "a".to_owned(), 0)]);
        let bytes = terminal.backend_mut().take();
        assert!(bytes.contains("\x1b[K") && bytes.len() < 20, "{bytes:?}");
    }

    #[test]
    fn what_the_terminal_shows_is_what_was_painted_and_costs_little() {
        let size = Size::new(80, 24);
        let mut lean = Terminal::new(LeanBackend::new(size)).unwrap();
        lean.clear().unwrap();
        let mut plain = Terminal::new(ratatui::backend::TestBackend::new(80, 24)).unwrap();
        let rows = |number: u16| NonZeroU16::new(number).unwrap();
        let mut parser = vt100::Parser::new(rows(24), rows(80), 0);
        for (name, desk) in crate::app::tests::tours() {
            lean.draw(|frame| crate::view::view(&desk.model, frame)).unwrap();
            plain.draw(|frame| crate::view::view(&desk.model, frame)).unwrap();
            let bytes = lean.backend_mut().take();
            assert!(bytes.len() <= 3_600, "{name}: {} bytes", bytes.len());
            parser.process(bytes.as_bytes());
            for y in 0..24 {
                for x in 0..80 {
                    let (want, have) = (&plain.backend().buffer()[(x, y)], parser.screen().cell(y, x).unwrap());
                    let text = if have.contents().is_empty() { " " } else { have.contents() };
                    assert_eq!(text, want.symbol(), "{name} at {x},{y}");
                    let reversed = want.modifier.contains(Modifier::REVERSED);
                    assert_eq!(have.inverse(), reversed, "{name} at {x},{y}");
                }
            }
            lean.draw(|frame| crate::view::view(&desk.model, frame)).unwrap();
            assert_eq!(lean.backend_mut().take(), "", "{name}: painting the same again is free");
        }
    }
}
