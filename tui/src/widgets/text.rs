//! Text for the terminal: made safe, cut to a width in cells, wrapped; times as people say them. Pure.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::text;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// No text on a screen is longer.
const CHARS_MAX: usize = 4_096;

/// Returns `raw` as one line that is safe to paint.
pub(crate) fn safe(raw: &str) -> String {
    text::one_line(raw, CHARS_MAX)
}

/// Returns `raw` safe and cut at the end to at most `width` cells, marked with `mark`.
pub(crate) fn cut(raw: &str, width: usize, mark: &str) -> String {
    let clean = safe(raw);
    if clean.width() <= width {
        return clean;
    }
    let room = width.saturating_sub(mark.width());
    let mut out = fitting(clean.chars(), room);
    if width >= mark.width() {
        out.push_str(mark);
    }
    out
}

/// Like [`cut`], but at the start: the end of a host name says more.
pub(crate) fn cut_start(raw: &str, width: usize, mark: &str) -> String {
    let clean = safe(raw);
    if clean.width() <= width {
        return clean;
    }
    let room = width.saturating_sub(mark.width());
    let tail: String = fitting(clean.chars().rev(), room).chars().rev().collect();
    if width >= mark.width() { format!("{mark}{tail}") } else { tail }
}

fn fitting(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|ch| {
            used += ch.width().unwrap_or(0);
            used <= room
        })
        .collect()
}

/// Returns `raw` for a table cell: besides `safe`, everything that is not exactly one cell wide is made visible.
pub(crate) fn narrow(raw: &str) -> String {
    let clean = safe(raw);
    if clean.is_ascii() {
        return clean;
    }
    let mut out = String::with_capacity(clean.len());
    for ch in clean.chars() {
        if ch.width() == Some(1) {
            out.push(ch);
        } else {
            out.push_str(&format!("<U+{:04X}>", u32::from(ch)));
        }
    }
    out
}

/// Returns the lines of `raw`, each at most `width` cells, broken at spaces where possible.
pub(crate) fn wrap(raw: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for paragraph in text::many_lines(raw, CHARS_MAX).lines() {
        wrap_line(paragraph, width, &mut lines);
    }
    lines
}

fn wrap_line(paragraph: &str, width: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    for word in paragraph.split(' ') {
        let gap = usize::from(!line.is_empty());
        if line.width() + gap + word.width() <= width {
            if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for ch in word.chars() {
            if line.width() + ch.width().unwrap_or(0) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(ch);
        }
    }
    lines.push(line);
}

/// Returns a command as lines that can be copied and run as they stand: broken between words, with `\` at the end.
pub(crate) fn command_lines(command: &str, width: usize) -> Vec<String> {
    let words = shlex::split(command).unwrap_or_else(|| command.split_whitespace().map(str::to_owned).collect());
    let mut lines: Vec<String> = Vec::new();
    for word in &words {
        let word = safe(&shlex::try_quote(word).unwrap_or_default());
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() + 2 <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(line) => {
                line.push_str(" \\");
                lines.push(word);
            }
            None => lines.push(word),
        }
    }
    lines
}

/// Returns a span of time in one unit: `12s`, `34m`, `5h`, `67d`.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Returns a span of milliseconds as work takes it: `0.2s`, `14s`, `3m`.
pub(crate) fn took(millis: u64) -> String {
    match millis {
        0 => String::new(),
        millis @ 1..10_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        millis => span(i64::try_from(millis / 1_000).unwrap_or(i64::MAX)),
    }
}

/// Returns the time from `at` until `now` in minutes or more, so that an idle screen stays still: `now`, `34m ago`.
pub(crate) fn ago(now: Timestamp, at: i64) -> String {
    match from_wire(at) {
        None => "never".to_owned(),
        Some(at) => match now.as_second() - at.as_second() {
            seconds if seconds < 60 => "just now".to_owned(),
            seconds => format!("{} ago", span(seconds)),
        },
    }
}

/// Returns the time from `now` until `at`: `67d`, `now`, `-` when there is none.
pub(crate) fn until(now: Timestamp, at: i64) -> String {
    match from_wire(at) {
        None => "-".to_owned(),
        Some(at) => match at.as_second() - now.as_second() {
            seconds if seconds <= 0 => "now".to_owned(),
            seconds if seconds < 60 => "<1m".to_owned(),
            seconds => span(seconds),
        },
    }
}

/// Returns an instant as a day and time of day, UTC: `2026-11-21 18:07Z`; `-` when there is none.
pub(crate) fn instant(at: i64) -> String {
    from_wire(at).map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%MZ").to_string())
}

/// Returns the time of day with seconds, UTC: `18:07:31`.
pub(crate) fn clock(at: i64) -> String {
    from_wire(at).map_or_else(String::new, |at| at.strftime("%H:%M:%S").to_string())
}

/// Returns the number in a width that people read: `1,284`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns the start of a fingerprint: enough to compare by eye.
pub(crate) fn short_fingerprint(hex: &str) -> String {
    if hex.is_empty() { "-".to_owned() } else { hex.chars().take(8).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_in_cells_and_marked() {
        assert_eq!(cut("api.example.com", 15, "…"), "api.example.com");
        assert_eq!(cut("api.example.com", 8, "…"), "api.exa…");
        assert_eq!(cut_start("api.example.com", 8, "…"), "…ple.com");
        assert_eq!(cut("日本語", 4, "…"), "日…");
        assert_eq!(cut("abc", 0, "…"), "");
        assert_eq!(cut("a\u{1b}[31m", 40, "…"), "a<U+001B>[31m");
    }

    #[test]
    fn table_cells_hold_narrow_characters_only() {
        assert_eq!(narrow("a日b"), "a<U+65E5>b");
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("a\nb", 9), ["a", "b"]);
    }

    #[test]
    fn a_command_can_be_copied_over_its_lines() {
        let lines = command_lines("agent enroll --dir '/etc/a b' --token -", 22);
        assert_eq!(lines, ["agent enroll --dir \\", "'/etc/a b' --token -"]);
        assert_eq!(shlex::split(&lines.join("\n").replace("\\\n", "")).unwrap().len(), 6);
    }

    #[test]
    fn times_are_said_in_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |seconds: i64| (1_000_000 + seconds) * 1_000;
        assert_eq!(ago(now, at(-30)), "just now");
        assert_eq!(ago(now, at(-840)), "14m ago");
        assert_eq!(until(now, at(5_788_800)), "67d");
        assert_eq!(until(now, at(-1)), "now");
        assert_eq!(until(now, 0), "-");
        assert_eq!((took(230), took(14_000), count(1_284)), ("0.2s".into(), "14s".into(), "1,284".into()));
    }
}
