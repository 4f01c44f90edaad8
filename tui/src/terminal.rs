//! The terminal: raw mode and back, frames out in one write each, input in. It knows nothing of certificates.
//! Called by `run`.

mod backend;
mod esc_join;
mod input;
mod profile;
mod restore;
mod signals;

use std::fs::File;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ratatui::Frame;
use ratatui::layout::Size;
use rustix::process::{Signal, kill_current_process_group};

pub(crate) use input::{Input, Reader};
pub(crate) use profile::{Link, Profile};

use backend::LeanBackend;

/// A frame of at least this many bytes is marked so that the terminal shows it at once.
const SYNCHRONIZED_MIN: usize = 200;
/// A window whose size nobody knows.
const SIZE_DEFAULT: Size = Size { width: 80, height: 24 };

/// The operator's terminal while the dashboard owns it.
#[derive(Debug)]
pub(crate) struct Terminal {
    screen: ratatui::Terminal<LeanBackend>,
    out: FrameWriter,
}

impl Terminal {
    /// Takes the terminal over. From here on every end of the process puts it back.
    ///
    /// # Errors
    /// When standard output is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        signals::guard()?;
        restore::enter()?;
        let out = FrameWriter { tty: restore::tty()? };
        let Ok(mut screen) = ratatui::Terminal::new(LeanBackend::new(window_size()));
        let Ok(()) = screen.clear();
        Ok(Self { screen, out })
    }

    /// Returns the window's size.
    pub(crate) fn size(&self) -> Size {
        let Ok(size) = self.screen.size();
        size
    }

    /// Paints one frame with one write; returns how many bytes it took, 0 when nothing changed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn paint(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<usize> {
        let Ok(_) = self.screen.draw(view);
        let bytes = self.screen.backend_mut().take();
        self.out.commit(&bytes)
    }

    /// Follows the window's new size; the next frame is painted whole.
    pub(crate) fn resize(&mut self, width: u16, height: u16) {
        self.screen.backend_mut().resize(Size { width, height });
        self.repaint();
    }

    /// Paints the next frame whole.
    pub(crate) fn repaint(&mut self) {
        self.screen.backend_mut().forget();
        let Ok(()) = self.screen.clear();
    }

    /// Sets the window's title: the signal that tests wait for.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        self.out.commit(&format!("\x1b]2;{text}\x1b\\")).map(drop)
    }

    /// Gives `text` to the terminal's clipboard (OSC 52). Whether it takes it cannot be known.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn copy(&mut self, text: &str) -> io::Result<()> {
        self.out.commit(&format!("\x1b]52;c;{}\x1b\\", STANDARD.encode(text))).map(drop)
    }

    /// Gives the terminal back, stops until the shell continues the process, and takes the terminal again.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        restore::leave();
        kill_current_process_group(Signal::TSTP)?;
        restore::enter()?;
        let size = window_size();
        self.resize(size.width, size.height);
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore::leave();
    }
}

fn window_size() -> Size {
    match crossterm::terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => Size { width, height },
        Ok(_) | Err(_) => SIZE_DEFAULT,
    }
}

/// Sends a frame with one write.
#[derive(Debug)]
struct FrameWriter {
    tty: File,
}

impl FrameWriter {
    fn commit(&mut self, bytes: &str) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if bytes.len() < SYNCHRONIZED_MIN {
            self.tty.write_all(bytes.as_bytes())?;
            return Ok(bytes.len());
        }
        let frame = format!("\x1b[?2026h{bytes}\x1b[?2026l");
        self.tty.write_all(frame.as_bytes())?;
        Ok(frame.len())
    }
}
