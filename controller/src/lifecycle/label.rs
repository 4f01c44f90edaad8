//! Labels of agents (features.md D9): what operators say of their servers, so that many can be named by one word. Never told by an agent,
//! and no permission follows from one. Pure; called by `rpc`.

use std::collections::BTreeMap;

/// Most labels of one agent.
pub const LABELS_MAX: usize = 20;
/// Longest key, and longest value.
const CHARS_MAX: usize = 63;

/// As much of what is no label as is repeated in an answer, characters.
pub const SHOWN_CHARS_MAX: usize = 2 * CHARS_MAX + 4;

/// Labels by their keys.
pub type Labels = BTreeMap<String, String>;

/// Reads `role=web`.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
    if is_word(key) && is_word(value) {
        return Ok((key.to_owned(), value.to_owned()));
    }
    Err(format!("\"{text}\" is no label: a key and a value are small letters, digits, dots, hyphens and underscores"))
}

/// Returns them as they are written, by key.
#[must_use]
pub fn words(labels: &Labels) -> Vec<String> {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Whether one of them is written so.
#[must_use]
pub fn has(labels: &Labels, text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| labels.get(key).is_some_and(|found| found == value))
}

/// Whether it may be a key: in small letters only, because filters do not know others.
#[must_use]
pub fn is_word(text: &str) -> bool {
    (1..=CHARS_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_key_and_a_value() {
        assert_eq!(parse("role=web").unwrap(), ("role".to_owned(), "web".to_owned()));
        for wrong in [
            "",
            "role",
            "role=",
            "=web",
            "Role=web",
            "role=a=b",
            "role=web 1",
            "role=w\u{e9}b",
            &format!("a={}", "x".repeat(64)),
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let labels: Labels = ["tier=1", "role=web"].into_iter().map(|text| parse(text).unwrap()).collect();
        assert_eq!(words(&labels), ["role=web", "tier=1"]);
        assert!(has(&labels, "role=web") && !has(&labels, "role=we") && !has(&labels, "role") && !has(&labels, "web"));
    }
}
