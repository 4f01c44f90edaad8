//! Reads the terminal: crossterm's events, rejoined and guarded against pastes that come as keys. It knows no screens.
//! Called by `run`, in one task that is dropped and made anew around a suspend.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use super::esc_join::{EscJoin, Joined};
use crate::keys::Key;

/// So many different characters that arrive at once were pasted, not typed; a held `j` is one character.
const PASTE_DIFFERENT_MIN: usize = 3;
/// Events taken in one go.
const BATCH_MAX: usize = 4_096;
/// Wake-up when nothing is held: far away, so that the select has a deadline to wait for.
const NEVER: Duration = Duration::from_secs(86_400);

/// Something the operator or the window did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A key.
    Key(Key),
    /// Bracketed paste.
    Paste(String),
    /// Characters that came too fast for fingers, from a terminal without bracketed paste.
    Burst(String),
    /// The window's new size.
    Resize(u16, u16),
    /// The window got or lost the focus.
    Focus(bool),
}

/// The terminal's input, as a stream of batches.
#[derive(Debug)]
pub(crate) struct Reader {
    events: EventStream,
    join: EscJoin,
}

impl Reader {
    /// Starts reading.
    pub(crate) fn new() -> Self {
        Self { events: EventStream::new(), join: EscJoin::default() }
    }

    /// Waits for input and returns everything that is there; `None` when the terminal is gone. Cancel-safe: what is
    /// held stays in `self`.
    pub(crate) async fn next(&mut self) -> Option<Vec<Input>> {
        loop {
            let deadline = self.join.deadline().unwrap_or_else(|| Instant::now() + NEVER);
            let mut batch = Vec::new();
            tokio::select! {
                event = self.events.next() => {
                    let Ok(event) = event? else { return None };
                    self.take(event, &mut batch);
                    while batch.len() < BATCH_MAX {
                        match self.ready().await {
                            Some(event) => self.take(event, &mut batch),
                            None => break,
                        }
                    }
                }
                () = sleep_until(deadline) => batch.extend(self.join.expire().into_iter().map(input_of)),
            }
            if !batch.is_empty() {
                return Some(guard_pastes(batch));
            }
        }
    }

    /// Returns an event that is there already. It polls with the task's own waker: crossterm keeps the waker of the poll
    /// that found nothing, so one without effect (`now_or_never`) would lose the next key.
    async fn ready(&mut self) -> Option<Event> {
        let polled = poll_fn(|context| Poll::Ready(self.events.poll_next_unpin(context))).await;
        match polled {
            Poll::Ready(Some(Ok(event))) => Some(event),
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => None,
        }
    }

    fn take(&mut self, event: Event, batch: &mut Vec<Input>) {
        match event {
            Event::Key(event) => {
                if let Some(key) = key_of(event) {
                    batch.extend(self.join.feed(key, Instant::now()).into_iter().map(input_of));
                }
            }
            Event::Paste(text) => batch.push(Input::Paste(text)),
            Event::Resize(width, height) => batch.push(Input::Resize(width, height)),
            Event::FocusGained => batch.push(Input::Focus(true)),
            Event::FocusLost => batch.push(Input::Focus(false)),
            Event::Mouse(_) => {}
        }
    }
}

fn input_of(joined: Joined) -> Input {
    match joined {
        Joined::Key(key) => Input::Key(key),
        Joined::Paste(text) => Input::Paste(text),
    }
}

/// Returns our key for crossterm's; `None` for keys that nothing is bound to, such as Alt with a letter.
fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    let alt = event.modifiers.contains(KeyModifiers::ALT);
    Some(match event.code {
        KeyCode::Char('h') if control => Key::Backspace,
        KeyCode::Char(ch) if control => Key::Ctrl(ch.to_ascii_lowercase()),
        KeyCode::Char(ch) if !alt => Key::Char(ch),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Delete => Key::Delete,
        KeyCode::F(number) => Key::F(number),
        _ => return None,
    })
}

/// Joins runs of characters that arrived at once into bursts.
fn guard_pastes(batch: Vec<Input>) -> Vec<Input> {
    let mut out = Vec::with_capacity(batch.len());
    let mut run: Vec<Key> = Vec::new();
    for input in batch {
        match input {
            Input::Key(key @ (Key::Char(_) | Key::Enter | Key::Tab)) => run.push(key),
            other => {
                end_run(&mut run, &mut out);
                out.push(other);
            }
        }
    }
    end_run(&mut run, &mut out);
    out
}

fn end_run(run: &mut Vec<Key>, out: &mut Vec<Input>) {
    let keys = std::mem::take(run);
    let mut different: Vec<char> = keys.iter().filter_map(|key| key.typed()).collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < PASTE_DIFFERENT_MIN {
        out.extend(keys.into_iter().map(Input::Key));
        return;
    }
    let text = keys.iter().map(|key| match key {
        Key::Char(ch) => *ch,
        Key::Tab => '\t',
        _ => '\n',
    });
    out.push(Input::Burst(text.collect()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<Input> {
        text.chars().map(|ch| Input::Key(if ch == '\n' { Key::Enter } else { Key::Char(ch) })).collect()
    }

    #[test]
    fn many_different_characters_at_once_are_a_paste() {
        assert_eq!(guard_pastes(keys("rm -rf\n")), [Input::Burst("rm -rf\n".to_owned())]);
    }

    #[test]
    fn a_held_key_and_two_fast_keys_stay_keys() {
        assert_eq!(guard_pastes(keys("jjjjjj")), keys("jjjjjj"));
        assert_eq!(guard_pastes(keys("2j")), keys("2j"));
    }

    #[test]
    fn control_h_is_backspace_and_alt_letters_are_nothing() {
        let control = KeyEvent::new(KeyCode::Char('h'), KeyModifiers::CONTROL);
        assert_eq!(key_of(control), Some(Key::Backspace));
        assert_eq!(key_of(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::ALT)), None);
    }
}
