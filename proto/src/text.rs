//! The one sanitizer: every string from outside passes it before a terminal, a log, an event or a file for people.

/// Returns `text` with control characters, escape sequences' starts, bidirectional overrides and zero-width characters
/// made visible as `<U+XXXX>`, line breaks and tabs as spaces, cut after `chars_max` characters with `…`.
#[must_use]
pub fn one_line(text: &str, chars_max: usize) -> String {
    clean(text, chars_max, false)
}

/// Like [`one_line`], but keeps line breaks: for the output of commands.
#[must_use]
pub fn many_lines(text: &str, chars_max: usize) -> String {
    clean(text, chars_max, true)
}

fn clean(text: &str, chars_max: usize, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    for (count, ch) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        match ch {
            '\n' if keep_lines => out.push('\n'),
            '\n' | '\r' | '\t' => out.push(' '),
            _ if is_hostile(ch) => out.push_str(&format!("<U+{:04X}>", u32::from(ch))),
            _ => out.push(ch),
        }
    }
    out
}

/// Control characters (C0, DEL, C1), bidirectional controls, zero-width and other invisible format characters.
fn is_hostile(ch: char) -> bool {
    ch.is_control()
        || matches!(ch,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_sequence_cannot_reach_a_terminal() {
        assert_eq!(one_line("a\u{1b}]0;x\u{7}\u{9b}31m", 80), "a<U+001B>]0;x<U+0007><U+009B>31m");
        assert_eq!(one_line("safe\u{202E}gpj", 80), "safe<U+202E>gpj");
    }

    #[test]
    fn lines_are_joined_or_kept_and_long_text_is_cut() {
        assert_eq!(one_line("a\nb\tc", 80), "a b c");
        assert_eq!(many_lines("a\nb", 80), "a\nb");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }
}
