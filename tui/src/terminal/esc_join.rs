//! Rejoins escape sequences that the network split: crossterm hands `ESC` + pause + `[A` over as three keys.
//! A state machine without I/O; the caller brings keys and the time. Called by `terminal::input`.

use std::time::Duration;

use tokio::time::Instant;

use crate::keys::Key;

/// How long a lone `Esc` waits for the rest of its sequence.
const JOIN_MAX: Duration = Duration::from_millis(30);
/// A paste whose start was split ends when the keys pause for this long.
const PASTE_PAUSE: Duration = Duration::from_millis(60);
/// More than any field takes; the rest of such a paste is dropped.
const PASTE_CHARS_MAX: usize = 262_144;

/// What comes out: a key, or the text of a paste whose start was split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// A key, as typed.
    Key(Key),
    /// Pasted text.
    Paste(String),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    After {
        held: String,
        until: Instant,
    },
    Paste {
        text: String,
        until: Instant,
    },
}

/// Holds a lone `Esc` for a moment to see whether it begins a sequence.
#[derive(Debug, Default)]
pub(crate) struct EscJoin {
    state: State,
}

const SEQUENCES: [(&str, Key); 22] = [
    ("[A", Key::Up),
    ("[B", Key::Down),
    ("[C", Key::Right),
    ("[D", Key::Left),
    ("[H", Key::Home),
    ("[F", Key::End),
    ("[Z", Key::BackTab),
    ("[1~", Key::Home),
    ("[3~", Key::Delete),
    ("[4~", Key::End),
    ("[5~", Key::PageUp),
    ("[6~", Key::PageDown),
    ("[7~", Key::Home),
    ("[8~", Key::End),
    ("OA", Key::Up),
    ("OB", Key::Down),
    ("OC", Key::Right),
    ("OD", Key::Left),
    ("OH", Key::Home),
    ("OF", Key::End),
    ("OP", Key::F(1)),
    ("[11~", Key::F(1)),
];
const PASTE_START: &str = "[200~";

impl EscJoin {
    /// Takes the next key, read at `now`; returns what is certain by now.
    pub(crate) fn feed(&mut self, key: Key, now: Instant) -> Vec<Joined> {
        match std::mem::take(&mut self.state) {
            State::Idle if key == Key::Esc => {
                self.hold(String::new(), now);
                Vec::new()
            }
            State::Idle => vec![Joined::Key(key)],
            State::After { held, .. } => self.continue_sequence(held, key, now),
            State::Paste { mut text, .. } => {
                if text.len() < PASTE_CHARS_MAX {
                    match key {
                        Key::Char(ch) => text.push(ch),
                        Key::Enter => text.push('\n'),
                        Key::Tab => text.push('\t'),
                        _ => {}
                    }
                }
                self.state = State::Paste { text, until: now + PASTE_PAUSE };
                Vec::new()
            }
        }
    }

    fn continue_sequence(&mut self, mut held: String, key: Key, now: Instant) -> Vec<Joined> {
        let Key::Char(ch) = key else {
            let mut out = spelled(&held);
            out.extend(self.feed(key, now));
            return out;
        };
        held.push(ch);
        if held == PASTE_START {
            self.state = State::Paste { text: String::new(), until: now + PASTE_PAUSE };
            return Vec::new();
        }
        if let Some((_, key)) = SEQUENCES.iter().find(|(sequence, _)| *sequence == held) {
            return vec![Joined::Key(*key)];
        }
        if PASTE_START.starts_with(&held) || SEQUENCES.iter().any(|(sequence, _)| sequence.starts_with(&held)) {
            self.hold(held, now);
            return Vec::new();
        }
        spelled(&held)
    }

    fn hold(&mut self, held: String, now: Instant) {
        self.state = State::After { held, until: now + JOIN_MAX };
    }

    /// Returns when `expire` must be called, if anything is held.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::After { until, .. } | State::Paste { until, .. } => Some(until),
        }
    }

    /// Gives up waiting: what was held comes out as it was typed.
    pub(crate) fn expire(&mut self) -> Vec<Joined> {
        match std::mem::take(&mut self.state) {
            State::Idle => Vec::new(),
            State::After { held, .. } => spelled(&held),
            State::Paste { text, .. } => vec![Joined::Paste(text)],
        }
    }
}

fn spelled(held: &str) -> Vec<Joined> {
    std::iter::once(Key::Esc).chain(held.chars().map(Key::Char)).map(Joined::Key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &[(u64, Key)], expected: &[Joined]) {
        let start = Instant::now();
        let mut join = EscJoin::default();
        let mut out = Vec::new();
        let mut now = start;
        for (gap_ms, key) in typed {
            now += Duration::from_millis(*gap_ms);
            if join.deadline().is_some_and(|deadline| deadline <= now) {
                out.extend(join.expire());
            }
            out.extend(join.feed(*key, now));
        }
        out.extend(join.expire());
        assert_eq!(out, expected);
    }

    #[test]
    fn a_split_arrow_is_one_key() {
        for gap in [1, 5, 20] {
            check(&[(0, Key::Esc), (gap, Key::Char('[')), (gap, Key::Char('A'))], &[Joined::Key(Key::Up)]);
        }
    }

    #[test]
    fn a_page_down_in_parts_is_one_key() {
        let typed = [(0, Key::Esc), (5, Key::Char('[')), (5, Key::Char('6')), (5, Key::Char('~'))];
        check(&typed, &[Joined::Key(Key::PageDown)]);
    }

    #[test]
    fn escape_and_then_a_letter_are_two_keys() {
        let two = [Joined::Key(Key::Esc), Joined::Key(Key::Char('j'))];
        check(&[(0, Key::Esc), (5, Key::Char('j'))], &two);
        check(&[(0, Key::Esc), (500, Key::Char('j'))], &two);
        check(&[(0, Key::Esc), (5, Key::Esc)], &[Joined::Key(Key::Esc), Joined::Key(Key::Esc)]);
    }

    #[test]
    fn a_split_paste_start_is_still_a_paste() {
        let mut typed = vec![(0, Key::Esc)];
        typed.extend("[200~Dx".chars().map(|ch| (1, Key::Char(ch))));
        check(&typed, &[Joined::Paste("Dx".to_owned())]);
    }
}
